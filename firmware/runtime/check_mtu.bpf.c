/* bpf_check_mtu of XDP programs: whether a packet of its length, or of the one given, fits a link. */

#include "network.h"

long helper_check_mtu(struct xdp_md *ctx, __u32 ifindex, __u32 *mtu_len, __s32 len_diff, __u64 flags)
{
	if (flags)
		return -EINVAL;
	if (!ifindex)
		ifindex = ctx->ingress_ifindex;

	struct link *link = bpf_map_lookup_elem(&links, &ifindex);
	if (!link)
		return -ENODEV;

	__s32 length = ctx->data_end - ctx->data;
	if (*mtu_len)
		length = *mtu_len + link->header_bytes;
	length += len_diff;
	int fits = length <= (__s32)(link->mtu + link->header_bytes);
	*mtu_len = link->mtu;
	return fits ? BPF_MTU_CHK_RET_SUCCESS : BPF_MTU_CHK_RET_FRAG_NEEDED;
}
