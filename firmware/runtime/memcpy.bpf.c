#include "runtime.h"

__no_builtin void *memcpy(void *to, const void *from, __u64 size)
{
	char *target = to;
	const char *source = from;

	if (takes((__u64)to, 8) && takes((__u64)from, 8))
		for (; size >= 8; size -= 8, target += 8, source += 8)
			*(__u64 *)target = *(const __u64 *)source;
	for (; size; size--)
		*target++ = *source++;
	return to;
}
