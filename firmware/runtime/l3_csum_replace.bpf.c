#include "csum.h"

__no_builtin long helper_l3_csum_replace(void *skb, __u32 offset, __u64 from, __u64 to, __u64 flags)
{
	if (flags & ~(__u64)BPF_F_HDR_FIELD_MASK)
		return -EINVAL;
	if (offset > 0xffff || offset & 1 || !holds(offset, 2))
		return -EFAULT;
	if (!flags && from)
		return -EINVAL;
	return csum_replace((__u16 *)(packet() + offset), from, to, flags);
}
