#include "skb.h"

__no_builtin long helper_skb_change_head(void *skb, __u32 size, __u64 flags)
{
	if (flags || size > INT_MAX)
		return -EINVAL;
	if (open_room(0, size))
		return -ENOMEM;
	SKB->network_header += size;
	if (SKB->transport_header)
		SKB->transport_header += size;
	return 0;
}
