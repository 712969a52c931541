/* bpf_xdp_load_bytes(): net/core/filter.c, of a packet in one buffer. */
#include "runtime.h"
#include "xdp_bytes.h"

__no_builtin long helper_xdp_load_bytes(struct xdp_md *context, __u32 offset, void *to, __u32 size)
{
	long error = refused(context, offset, size);

	if (!error)
		copy(to, (char *)(long)context->data + offset, size);
	return error;
}
