#include "runtime.h"

__no_builtin void *memmove(void *to, const void *from, __u64 size)
{
	char *target = to;
	const char *source = from;
	int words = takes((__u64)to, 8) && takes((__u64)from, 8);

	if (target <= source || target >= source + size) {
		if (words)
			for (; size >= 8; size -= 8, target += 8, source += 8)
				*(__u64 *)target = *(const __u64 *)source;
		for (; size; size--)
			*target++ = *source++;
		return to;
	}
	for (; size && !(words && size % 8 == 0); size--)
		target[size - 1] = source[size - 1];
	for (; size; size -= 8)
		*(__u64 *)(target + size - 8) = *(const __u64 *)(source + size - 8);
	return to;
}
