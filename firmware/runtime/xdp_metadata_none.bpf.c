/* What stands for bpf_xdp_metadata_rx_timestamp() and its kin on a NIC that keeps no receive metadata, as in the kernel
 * for a driver without them (net/core/xdp.c). */
#include "runtime.h"

int kfunc_xdp_metadata_none(const struct xdp_md *ctx)
{
	return -EOPNOTSUPP;
}
