#include "metadata.h"

int kfunc_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp)
{
	*timestamp = rx_timestamp();
	return 0;
}
