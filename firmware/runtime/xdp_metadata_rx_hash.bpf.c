#include "metadata.h"

int kfunc_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash, __u32 *rss_type)
{
	__u64 found = rx_hash();

	if (!found)
		return -ENODATA;
	*hash = found;
	*rss_type = found >> RSS_TYPE_BIT;
	return 0;
}
