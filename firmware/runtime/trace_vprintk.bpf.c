/* bpf_trace_vprintk(): kernel/trace/bpf_trace.c. */
#include "runtime.h"
#include "trace.h"

#define MAX_ARGUMENTS 12

__small long helper_trace_vprintk(const char *format, __u32 size, const __u64 *arguments, __u32 bytes)
{
	if (bytes % 8 || bytes > 8 * MAX_ARGUMENTS || (bytes && !arguments))
		return -EINVAL;
	if (out_of_bounds(format, size) || (bytes && out_of_bounds(arguments, bytes)))
		return -EFAULT;
	return trace(format, size, arguments, bytes / 8);
}
