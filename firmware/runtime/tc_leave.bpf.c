/* What becomes of a packet behind its tc program, whose verdict this returns: its header gets the addresses that
 * bpf_redirect_neigh() found, and the tag is part of it again. */
#include "skb.h"
#include <linux/pkt_cls.h>

/* The link's header as neigh_output() writes it. */
static __always_inline long put_header(void)
{
	__u8 *begin = packet();
	__u32 *macs = (__u32 *)NEIGHBOUR_MACS;

	if (SKB->seen.family != NEIGHBOUR_KNOWN || *begin & 1)
		return -EINVAL;
	for (int i = 0; i < 3; i++)
		((__u32 *)begin)[i] = macs[i];
	*(__u16 *)(begin + ETH_ALENS) = SKB->seen.protocol;
	return 0;
}

__no_builtin __u64 tc_leave(__u64 verdict)
{
	if (SKB->seen.family && verdict == TC_ACT_REDIRECT && put_header())
		return TC_ACT_SHOT;
	if (SKB->seen.vlan_present && insert_tag(SKB->seen.vlan_proto, SKB->seen.vlan_tci))
		return TC_ACT_SHOT;
	return verdict;
}
