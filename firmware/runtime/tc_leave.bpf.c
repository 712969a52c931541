/* What becomes of a packet behind its tc program, whose verdict this returns: the tag is part of it again. */
#include "skb.h"
#include <linux/pkt_cls.h>

__no_builtin __u64 tc_leave(__u64 verdict)
{
	if (SKB->seen.vlan_present && insert_tag(SKB->seen.vlan_proto, SKB->seen.vlan_tci))
		return TC_ACT_SHOT;
	return verdict;
}
