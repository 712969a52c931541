#include "runtime.h"

__no_builtin int memcmp(const void *left, const void *right, __u64 size)
{
	const unsigned char *l = left, *r = right;

	for (; size; size--, l++, r++)
		if (*l != *r)
			return *l - *r;
	return 0;
}
