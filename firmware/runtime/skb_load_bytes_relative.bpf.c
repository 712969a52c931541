#include "skb.h"

__no_builtin long helper_skb_load_bytes_relative(const void *skb, __u32 offset, void *to, __u32 size, __u32 header)
{
	__u32 begin = header == BPF_HDR_START_NET ? SKB->network_header : 0;

	if (out_of_bounds(to, size))
		return -EFAULT;
	if (offset <= 0xffff && header <= BPF_HDR_START_NET && holds(begin + offset, size)) {
		copy_packet(to, packet() + begin + offset, size, to);
		return 0;
	}
	clear(to, size);
	return -EFAULT;
}
