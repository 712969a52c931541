/* LD_ABS and LD_IND of a tc program (bpf_skb_load_helper_8() and its kin). */
#include "skb.h"

__no_builtin long skb_load_packet(__u32 offset, __u32 size)
{
	__u8 *from = packet() + offset;

	if (offset > INT_MAX || !holds(offset, size))
		return -EFAULT;
	if (size == 1)
		return *from;
	return size == 2 ? bpf_ntohs(*(__u16 *)from) : bpf_ntohl(*(__u32 *)from);
}
