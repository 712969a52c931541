/* What becomes of a packet behind its socket filter, which says how many bytes of it to keep, as it saw it (packet_rcv()).
 * The tag is part of it again where they reach to its place, which is what libpcap does. Returns the bytes to keep then. */
#include "skb.h"

__no_builtin __u64 socket_leave(__u64 verdict)
{
	__u32 kept = verdict;

	if (kept > SKB->seen.len)
		kept = SKB->seen.len;
	if (!SKB->seen.vlan_present || kept < ETH_ALENS)
		return kept;
	if (insert_tag(SKB->seen.vlan_proto, SKB->seen.vlan_tci))
		return 0;
	return kept + VLAN_HLEN;
}
