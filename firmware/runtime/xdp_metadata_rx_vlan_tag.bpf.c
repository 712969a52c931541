#include "metadata.h"
#include <bpf/bpf_endian.h>

/* vlan_proto in network byte order, vlan_tci in the host's, as the kernel has it. */
int kfunc_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *vlan_proto, __u16 *vlan_tci)
{
	__u64 tag = rx_vlan_tag();

	if (!tag)
		return -ENODATA;
	*vlan_proto = bpf_htons(tag >> TPID_BIT);
	*vlan_tci = tag;
	return 0;
}
