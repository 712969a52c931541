#include "skb.h"

__no_builtin long helper_skb_change_type(void *skb, __u32 type)
{
	if (type > PACKET_OTHERHOST)
		return -EINVAL;
	SKB->seen.pkt_type = type;
	return 0;
}
