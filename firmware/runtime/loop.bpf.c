/* bpf_loop(): kernel/bpf/bpf_iter.c. */
#include "runtime.h"

#define MAX_LOOPS (8 * 1024 * 1024)

long helper_loop(__u32 count, long (*callback)(__u64 index, void *context), void *context, __u64 flags)
{
	if (flags)
		return -EINVAL;
	if (count > MAX_LOOPS)
		return -E2BIG;
	for (__u64 index = 0; index < count; index++)
		if (callback(index, context))
			return index + 1;
	return count;
}
