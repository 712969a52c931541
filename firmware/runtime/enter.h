/* What the kernel's receive path does before a tc program or a socket filter sees the packet: eth_type_trans(),
 * skb_vlan_untag(). A packet to one host is for this one, whatever its address; one that the host sends has no kind. Behind
 * a tc program the packet is as that one left it, but for the tag, which is in its bytes again. */
#pragma once
#include "skb.h"

static __always_inline void enter(void)
{
	__u8 *begin = packet();
	__u16 type = *(__u16 *)(begin + ETH_ALENS), tci;
	__u64 address = *(__u64 *)begin << 16;

	if (SKB->seen.wire_len) {
		SKB->seen.family = 0; /* redirect_neigh's */
		if (SKB->seen.vlan_present)
			remove_tag();
		return;
	}
	SKB->network_header = ETH_HLEN;
	if (*begin & 1 && SKB->seen.ingress_ifindex)
		SKB->seen.pkt_type = address == ~0ULL << 16 ? PACKET_BROADCAST : PACKET_MULTICAST;
	if (!is_vlan(type))
		SKB->seen.protocol = protocol_of(type, holds(0, ETH_HLEN + 2) ? *(__u16 *)(begin + ETH_HLEN) : 0);
	else if (!take_tag(&tci))
		put_tag(type, tci);
	else
		SKB->seen.protocol = type;
	SKB->seen.wire_len = SKB->seen.len;
}
