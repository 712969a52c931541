#include "skb.h"

#define GROWS 20 /* sizeof(struct ipv6hdr) - sizeof(struct iphdr) */

__no_builtin long helper_skb_change_proto(void *skb, __u16 protocol, __u64 flags)
{
	__u32 from = SKB->seen.protocol;
	long error = -ENOTSUPP;

	if (flags)
		return -EINVAL;
	if (from == bpf_htons(ETH_P_IP) && protocol == bpf_htons(ETH_P_IPV6))
		error = open_room(SKB->network_header, GROWS);
	else if (from == bpf_htons(ETH_P_IPV6) && protocol == bpf_htons(ETH_P_IP))
		error = close_room(SKB->network_header, GROWS);
	if (error)
		return error;
	SKB->seen.protocol = protocol;
	clear_hash();
	return 0;
}
