#include "skb.h"

/* All of a packet is there, and may be written. */
__no_builtin long helper_skb_pull_data(void *skb, __u32 size)
{
	return holds(0, size) ? 0 : -ENOMEM;
}
