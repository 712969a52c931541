/* bpf_strtol(): kernel/bpf/helpers.c. */
#include "runtime.h"
#include "digits.h"

long helper_strtol(const unsigned char *text, __u64 size, __u64 flags, __s64 *result)
{
	__u64 value = 0;
	int negative = 0;
	long taken;

	*result = 0;
	taken = parse(text, size, flags, &value, &negative);
	if (taken < 0)
		return taken;
	if (negative)
		value = -value;
	if (negative ? (__s64)value > 0 : (__s64)value < 0)
		return -ERANGE;
	*result = value;
	return taken;
}
