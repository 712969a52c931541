#include "skb.h"

__no_builtin long helper_skb_change_tail(void *skb, __u32 size, __u64 flags)
{
	__u32 header = SKB->network_header;

	if (SKB->transport_header)
		header = SKB->transport_header;
	if (flags || size < header)
		return -EINVAL;
	if (SKB->encapsulated)
		return -ENOTSUPP;
	return bpf_xdp_adjust_tail(0, size - SKB->seen.len);
}
