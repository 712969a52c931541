#include "runtime.h"

__no_builtin void *memset(void *to, int byte, __u64 size)
{
	char *target = to;
	__u64 word = (byte & 0xff) * 0x0101010101010101;

	if (takes((__u64)to, 8))
		for (; size >= 8; size -= 8, target += 8)
			*(__u64 *)target = word;
	for (; size; size--)
		*target++ = byte;
	return to;
}
