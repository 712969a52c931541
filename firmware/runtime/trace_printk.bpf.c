/* bpf_trace_printk(): kernel/trace/bpf_trace.c. */
#include "runtime.h"
#include "trace.h"

__small long helper_trace_printk(const char *format, __u32 size, __u64 first, __u64 second, __u64 third)
{
	__u64 arguments[] = { first, second, third };

	if (out_of_bounds(format, size))
		return -EFAULT;
	return trace(format, size, arguments, 3);
}
