#include "runtime.h"
#include "iter_num.h"

int kfunc_iter_num_new(struct numbers *numbers, int start, int end)
{
	numbers->current = numbers->end = 0;
	if (start > end)
		return -EINVAL;
	if ((__s64)end - start > MAX_LOOPS)
		return -E2BIG;
	numbers->current = start - 1;
	numbers->end = end;
	return 0;
}
