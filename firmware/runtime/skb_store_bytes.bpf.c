#include "skb.h"

__no_builtin long helper_skb_store_bytes(void *skb, __u32 offset, const void *from, __u32 size, __u64 flags)
{
	if (flags & ~(__u64)(BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH))
		return -EINVAL;
	if (offset > INT_MAX || !holds(offset, size) || out_of_bounds(from, size))
		return -EFAULT;
	copy_packet(packet() + offset, from, size, from);
	if (flags & BPF_F_INVALIDATE_HASH)
		clear_hash();
	return 0;
}
