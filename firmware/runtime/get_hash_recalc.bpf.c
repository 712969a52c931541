/* bpf_get_hash_recalc(): a number of the packet's flow, the same in both directions. Linux makes it with a secret of its
 * own; here anybody can. */
#include "skb.h"
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#define FRAGMENT 0x3fff /* more of them follow, or it isn't the first */

static __always_inline __u32 mix(__u32 hash, __u32 word)
{
	hash = (hash ^ word) * 0x9e3779b1;
	return hash ^ hash >> 15;
}

/* Two ends, whichever comes first. */
static __always_inline __u32 mix_both(__u32 hash, __u32 one, __u32 other)
{
	return mix(mix(hash, one < other ? one : other), one < other ? other : one);
}

__no_builtin __u32 helper_get_hash_recalc(void *skb)
{
	__u8 *header = packet() + SKB->network_header;
	__u32 offset = SKB->network_header, size = 0, transport = 0, hash = 1;

	if (SKB->hashed)
		return SKB->seen.hash;
	if (SKB->seen.protocol == bpf_htons(ETH_P_IP) && holds(offset, sizeof(struct iphdr))) {
		struct iphdr *ip = (void *)header;

		hash = mix_both(hash, ip->saddr, ip->daddr);
		size = ip->ihl * 4;
		if (!(ip->frag_off & bpf_htons(FRAGMENT)))
			transport = ip->protocol;
		hash = mix(hash, ip->protocol);
	} else if (SKB->seen.protocol == bpf_htons(ETH_P_IPV6) && holds(offset, sizeof(struct ipv6hdr))) {
		__u32 *ends = (__u32 *)(header + __builtin_offsetof(struct ipv6hdr, saddr)), source = 1, target = 1;

		for (int word = 0; word < 4; word++) {
			source = mix(source, ends[word]);
			target = mix(target, ends[word + 4]);
		}
		hash = mix_both(hash, source, target);
		size = sizeof(struct ipv6hdr);
		transport = ((struct ipv6hdr *)header)->nexthdr;
		hash = mix(hash, transport);
	}
	if ((transport == IPPROTO_TCP || transport == IPPROTO_UDP || transport == IPPROTO_SCTP) && holds(offset + size, 4)) {
		__u16 *ports = (__u16 *)(header + size);

		hash = mix_both(hash, ports[0], ports[1]);
	}
	SKB->seen.hash = hash ?: 1;
	SKB->hashed = 1;
	return SKB->seen.hash;
}
