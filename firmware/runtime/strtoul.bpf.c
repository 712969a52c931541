/* bpf_strtoul(): kernel/bpf/helpers.c. */
#include "runtime.h"
#include "digits.h"

long helper_strtoul(const unsigned char *text, __u64 size, __u64 flags, __u64 *result)
{
	__u64 value = 0;
	int negative = 0;
	long taken;

	*result = 0;
	taken = parse(text, size, flags, &value, &negative);
	if (taken < 0)
		return taken;
	if (negative)
		return -EINVAL;
	*result = value;
	return taken;
}
