/* bpf_redirect_neigh(): out of a link, to the MAC of a neighbour there (net/core/filter.c). Which one is looked up when the
 * program calls, by the packet as it is then; the packet's header is written behind the program (tc_leave.bpf.c). A packet
 * whose neighbour isn't known is dropped there. */
#include "fib.h"
#include "skb.h"
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

/* The next hop's address and its family, by the packet's own destination; 0 if it can't leave so. Without a route an IPv4
 * destination is taken to be on the link. */
static __always_inline int next_hop(struct bpf_fib_lookup *params, struct link *link, int family)
{
	int refusal;
	struct way *way = find_way(params, link, BPF_FIB_LOOKUP_OUTPUT, family, &refusal);

	if (family == AF_INET && (!way || way->type >= RTN_BLACKHOLE))
		return bpf_ntohl(params->ipv4_dst) >> 28 == 0xe || params->ipv4_dst == ~0u ? 0 : family;
	if (!way || way->type != RTN_UNICAST || way->encapsulated)
		return 0;
	if (!way->gateway_family)
		return family;
	copy_address(params->ipv6_dst, way->gateway, way->gateway_family);
	return way->gateway_family;
}

/* The same from the packet's header, which it must have. */
static __always_inline int next_hop_of_packet(struct bpf_fib_lookup *params, struct link *link, int family)
{
	__u32 size = family == AF_INET ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	const void *header = packet() + ETH_HLEN;
	const struct iphdr *ip = header;
	const struct ipv6hdr *ipv6 = header;

	if (!holds(ETH_HLEN, size))
		return 0;
	if (family == AF_INET) {
		params->tos = ip->tos;
		params->ipv4_src = ip->saddr;
		params->ipv4_dst = ip->daddr;
	} else {
		copy_address(params->ipv6_src, ipv6->saddr.in6_u.u6_addr32, AF_INET6);
		copy_address(params->ipv6_dst, ipv6->daddr.in6_u.u6_addr32, AF_INET6);
	}
	return next_hop(params, link, family);
}

__no_builtin long helper_redirect_neigh(__u32 ifindex, struct bpf_redir_neigh *params, int plen, __u64 flags)
{
	struct bpf_fib_lookup target = { .ifindex = ifindex };
	int family = SKB->seen.protocol == bpf_htons(ETH_P_IP) ? AF_INET : AF_INET6;

	if (flags || (plen && (plen < (int)sizeof(*params) || out_of_bounds(params, sizeof(*params)))))
		return TC_ACT_SHOT;
	bpf_redirect(ifindex, 0);
	SKB->seen.family = NEIGHBOUR_UNKNOWN;
	struct link *link = find_link(ifindex);
	if (!link || (family == AF_INET6 && SKB->seen.protocol != bpf_htons(ETH_P_IPV6)))
		return TC_ACT_REDIRECT;
	if (!plen) {
		family = next_hop_of_packet(&target, link, family);
	} else {
		copy_address(target.ipv6_dst, params->ipv6_nh, AF_INET6);
		if (family == AF_INET)
			family = params->nh_family == AF_INET || params->nh_family == AF_INET6 ? params->nh_family : 0;
	}
	if (!family)
		return TC_ACT_REDIRECT;

	struct neighbour *neighbour = find_neighbour(ifindex, family, target.ipv6_dst);

	if (neighbour && link->flags & LINK_UP) {
		copy_mac(NEIGHBOUR_MACS, neighbour->mac);
		copy_mac(NEIGHBOUR_MACS + ETH_ALEN, link->mac);
		SKB->seen.family = NEIGHBOUR_KNOWN;
	}
	return TC_ACT_REDIRECT;
}
