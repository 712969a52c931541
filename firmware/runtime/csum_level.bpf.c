#include "skb.h"

#define MAX_CSUM_LEVEL 3

/* How many sums of nested packets need no further check, less one; while there are none, CHECKSUM_NONE. */
__no_builtin long helper_csum_level(void *skb, __u64 level)
{
	int checked = SKB->ip_summed == CHECKSUM_UNNECESSARY;

	switch (level) {
	case BPF_CSUM_LEVEL_QUERY:
		return checked ? SKB->csum_level : -EACCES;
	case BPF_CSUM_LEVEL_INC:
		if (!checked)
			SKB->ip_summed = CHECKSUM_UNNECESSARY;
		else if (SKB->csum_level < MAX_CSUM_LEVEL)
			SKB->csum_level++;
		return 0;
	case BPF_CSUM_LEVEL_DEC:
		if (SKB->csum_level)
			SKB->csum_level--;
		else
			SKB->ip_summed = CHECKSUM_NONE;
		return 0;
	case BPF_CSUM_LEVEL_RESET:
		SKB->ip_summed = CHECKSUM_NONE;
		SKB->csum_level = 0;
		return 0;
	default:
		return -EINVAL;
	}
}
