/* bpf_xdp_get_buff_len(): net/core/filter.c. */
#include "runtime.h"

__u64 helper_xdp_get_buff_len(struct xdp_md *context)
{
	return context->data_end - context->data;
}
