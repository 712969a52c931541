#include "runtime.h"
#include "iter_num.h"

int *kfunc_iter_num_next(struct numbers *numbers)
{
	if ((int)(numbers->current + 1U) >= numbers->end) {
		numbers->current = numbers->end = 0;
		return 0;
	}
	numbers->current++;
	return &numbers->current;
}
