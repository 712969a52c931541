/* Which bytes of a packet bpf_xdp_load_bytes() and bpf_xdp_store_bytes() refuse (bpf_xdp_pointer(), net/core/filter.c). */
#pragma once

static __always_inline long refused(struct xdp_md *context, __u32 offset, __u32 size)
{
	if (offset > 0xffff || size > 0xffff)
		return -EFAULT;
	return offset + size > context->data_end - context->data ? -EINVAL : 0;
}
