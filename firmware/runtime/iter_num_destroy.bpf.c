#include "runtime.h"
#include "iter_num.h"

void kfunc_iter_num_destroy(struct numbers *numbers)
{
	numbers->current = numbers->end = 0;
}
