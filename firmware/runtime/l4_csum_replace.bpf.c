#include "csum.h"

#ifndef BPF_F_IPV6
#define BPF_F_IPV6 (1ULL << 7)
#endif
#define CSUM_MANGLED_0 0xffff
#define KNOWN (__u64)(BPF_F_MARK_MANGLED_0 | BPF_F_MARK_ENFORCE | BPF_F_PSEUDO_HDR | BPF_F_HDR_FIELD_MASK | BPF_F_IPV6)

/* PSEUDO_HDR and IPV6 matter to a packet of which a sum is known (CHECKSUM_COMPLETE, CHECKSUM_PARTIAL). */
__no_builtin long helper_l4_csum_replace(void *skb, __u32 offset, __u64 from, __u64 to, __u64 flags)
{
	__u16 *field = (__u16 *)(packet() + offset);
	__u32 size = flags & BPF_F_HDR_FIELD_MASK;
	long error;

	if (flags & ~KNOWN)
		return -EINVAL;
	if (offset > 0xffff || offset & 1 || !holds(offset, 2))
		return -EFAULT;
	if (flags & BPF_F_MARK_MANGLED_0 && !(flags & BPF_F_MARK_ENFORCE) && !*field)
		return 0;
	if (!size && from)
		return -EINVAL;
	error = csum_replace(field, from, to, size);
	if (!error && flags & BPF_F_MARK_MANGLED_0 && !*field)
		*field = CSUM_MANGLED_0;
	return error;
}
