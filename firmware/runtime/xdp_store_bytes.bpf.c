/* bpf_xdp_store_bytes(): net/core/filter.c, of a packet in one buffer. */
#include "runtime.h"
#include "xdp_bytes.h"

__no_builtin long helper_xdp_store_bytes(struct xdp_md *context, __u32 offset, const void *from, __u32 size)
{
	long error = refused(context, offset, size);

	if (!error)
		copy((char *)(long)context->data + offset, from, size);
	return error;
}
