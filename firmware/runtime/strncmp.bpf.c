/* bpf_strncmp(): kernel/bpf/helpers.c, which is strncmp() of lib/string.c. */
#include "runtime.h"

long helper_strncmp(const unsigned char *left, __u32 size, const unsigned char *right)
{
	for (; size; size--, left++, right++) {
		if (*left != *right)
			return *left < *right ? -1 : 1;
		if (!*left)
			break;
	}
	return 0;
}
