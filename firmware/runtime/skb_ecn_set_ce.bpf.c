#include "csum.h"
#include <linux/ip.h>
#include <linux/ipv6.h>

#define CE 3 /* congestion experienced; 0: the packet's hosts don't know of it */

/* The protocol behind tags that are in the packet's bytes (vlan_get_protocol()). */
static __always_inline __u32 behind_tags(void)
{
	__u32 protocol = SKB->seen.protocol, offset = SKB->network_header - VLAN_HLEN;

	for (; is_vlan(protocol); offset += VLAN_HLEN) {
		if (!holds(offset, VLAN_HLEN))
			return 0;
		protocol = *(__u16 *)(packet() + offset + 2);
	}
	return protocol;
}

__no_builtin long helper_skb_ecn_set_ce(void *skb)
{
	__u8 *header = packet() + SKB->network_header;
	__u32 protocol = behind_tags(), ecn;

	if (protocol == bpf_htons(ETH_P_IP) && holds(SKB->network_header, sizeof(struct iphdr))) {
		struct iphdr *ip = (void *)header;

		ecn = ip->tos & CE;
		if (ecn && ecn != CE) {
			ip->check = ~csum_fold(csum_add(ip->check, bpf_htons(0xffff - (CE - ecn))));
			ip->tos |= CE;
		}
		return ecn != 0;
	}
	if (protocol == bpf_htons(ETH_P_IPV6) && holds(SKB->network_header, sizeof(struct ipv6hdr))) {
		if (!(header[1] >> 4 & CE))
			return 0;
		header[1] |= CE << 4;
		return 1;
	}
	return 0;
}
