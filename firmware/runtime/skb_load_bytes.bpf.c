#include "skb.h"

__no_builtin long helper_skb_load_bytes(const void *skb, __u32 offset, void *to, __u32 size)
{
	if (out_of_bounds(to, size))
		return -EFAULT;
	if (offset <= INT_MAX && holds(offset, size)) {
		copy_packet(to, packet() + offset, size, to);
		return 0;
	}
	clear(to, size);
	return -EFAULT;
}
