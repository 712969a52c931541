/* bpf_check_mtu(): whether a packet of its length, or of the one given, fits a link (net/core/filter.c). Nothing here is
 * made of segments. */
#include "network.h"
#include "skb.h"

long helper_check_mtu(void *ctx, __u32 ifindex, __u32 *mtu_len, __s32 len_diff, __u64 flags)
{
	const struct xdp_md *xdp = (void *)CONTEXT_WINDOW;
	int skb = ctx == SKB;

	if (out_of_bounds(mtu_len, sizeof(*mtu_len)))
		return -EFAULT;
	if (flags & ~(__u64)(skb ? BPF_MTU_CHK_SEGS : 0) || flags && (len_diff || *mtu_len))
		return -EINVAL;
	if (!ifindex)
		ifindex = skb ? SKB->seen.ifindex : xdp->ingress_ifindex;

	struct link *link = find_link(ifindex);
	if (!link)
		return -ENODEV;

	__s32 length = skb ? SKB->seen.len : xdp->data_end - xdp->data;
	if (*mtu_len)
		length = *mtu_len + link->header_bytes;
	length += len_diff;
	int fits = length <= (__s32)(link->mtu + link->header_bytes);
	*mtu_len = link->mtu;
	return fits ? BPF_MTU_CHK_RET_SUCCESS : BPF_MTU_CHK_RET_FRAG_NEEDED;
}
