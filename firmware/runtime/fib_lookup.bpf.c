/* bpf_fib_lookup(): where a packet goes by the routes and neighbours that the host knows (net/core/filter.c). */
#include "fib.h"
#include "skb.h"

#define FLAGS (BPF_FIB_LOOKUP_DIRECT | BPF_FIB_LOOKUP_OUTPUT | BPF_FIB_LOOKUP_SKIP_NEIGH | BPF_FIB_LOOKUP_TBID | \
	       BPF_FIB_LOOKUP_SRC | BPF_FIB_LOOKUP_MARK)
#define LONGEST_IPV4 0xffff /* IP_MAX_MTU */
#define LONGEST_IPV6 (0xffff + 40) /* IP6_MAX_MTU */
#define SHORTEST_IPV6 1280 /* IPV6_MIN_MTU */

/* What is left when a way is found: whether the packet may leave by it (`check`: by its length too), and how. */
static __always_inline int leave_by(struct bpf_fib_lookup *params, struct way *way, __u32 flags, int family, int check)
{
	__u32 ifindex = way->ifindex;
	struct link *link = find_link(ifindex);

	if (!link)
		return BPF_FIB_LKUP_RET_NOT_FWDED; /* it has just gone */

	__u32 mtu = check ? way->mtu : 0;
	if (check && !mtu) {
		__u32 longest = family == AF_INET ? LONGEST_IPV4 : LONGEST_IPV6;

		mtu = link->mtu;
		if (family == AF_INET6 && mtu < SHORTEST_IPV6)
			mtu = SHORTEST_IPV6;
		if (mtu > longest)
			mtu = longest;
	}
	if (check && params->tot_len > mtu) {
		params->mtu_result = mtu;
		return BPF_FIB_LKUP_RET_FRAG_NEEDED;
	}
	if (way->encapsulated)
		return BPF_FIB_LKUP_RET_UNSUPP_LWT;

	if (way->gateway_family == AF_INET6 && family == AF_INET6)
		copy_address(params->ipv6_dst, way->gateway, AF_INET6);
	params->rt_metric = way->metric;
	params->ifindex = ifindex;
	if (flags & BPF_FIB_LOOKUP_SRC) {
		if (!way->has_source && family == AF_INET6)
			return BPF_FIB_LKUP_RET_NO_SRC_ADDR;
		copy_address(params->ipv6_src, way->source, family);
	}
	if (family == AF_INET && way->gateway_family) {
		params->family = way->gateway_family;
		copy_address(params->ipv6_dst, way->gateway, way->gateway_family);
	}
	if (!(flags & BPF_FIB_LOOKUP_SKIP_NEIGH)) {
		struct neighbour *neighbour = find_neighbour(ifindex, params->family, params->ipv6_dst);

		if (!neighbour)
			return BPF_FIB_LKUP_RET_NO_NEIGH;
		copy_mac(params->dmac, neighbour->mac);
		copy_mac(params->smac, link->mac);
	}
	params->h_vlan_TCI = 0;
	params->h_vlan_proto = 0;
	if (mtu)
		params->mtu_result = mtu;
	return BPF_FIB_LKUP_RET_SUCCESS;
}

static __always_inline int rejected(__u8 type)
{
	if (type == RTN_BLACKHOLE)
		return BPF_FIB_LKUP_RET_BLACKHOLE;
	if (type == RTN_UNREACHABLE)
		return BPF_FIB_LKUP_RET_UNREACHABLE;
	if (type == RTN_PROHIBIT)
		return BPF_FIB_LKUP_RET_PROHIBIT;
	return BPF_FIB_LKUP_RET_NOT_FWDED;
}

/* Whether an address is multicast, link-local or loopback: such are never forwarded. */
static __always_inline int stays_on_link(const __be32 *address)
{
	__u32 high = bpf_ntohl(address[0]);

	return high >> 24 == 0xff || high >> 22 == 0xfe80 >> 6 ||
	       (!high && !address[1] && !address[2] && address[3] == bpf_htonl(1));
}

static __always_inline int lookup(struct bpf_fib_lookup *params, __u32 flags, int family, int check)
{
	if (family == AF_INET6 && (stays_on_link(params->ipv6_dst) || stays_on_link(params->ipv6_src)))
		return BPF_FIB_LKUP_RET_NOT_FWDED;

	struct link *ingress = find_link(params->ifindex);

	if (!ingress)
		return -ENODEV;
	if (!(ingress->flags & (family == AF_INET ? FORWARDS_IPV4 : FORWARDS_IPV6)))
		return BPF_FIB_LKUP_RET_FWD_DISABLED;

	int refusal;
	struct way *way = find_way(params, ingress, flags, family, &refusal);

	if (!way)
		return refusal;
	if (way->type != RTN_UNICAST)
		return rejected(way->type);
	return leave_by(params, way, flags, family, check);
}

/* A tc program's packet must fit the link where no length is given (is_skb_forwardable()). */
static __always_inline int forwardable(struct bpf_fib_lookup *params)
{
	struct link *link = find_link(params->ifindex);

	if (!link)
		return BPF_FIB_LKUP_RET_NOT_FWDED; /* it has just gone */
	int fits = link->flags & LINK_UP && SKB->seen.len <= link->mtu + link->header_bytes + VLAN_HLEN;
	params->mtu_result = link->mtu;
	return fits ? BPF_FIB_LKUP_RET_SUCCESS : BPF_FIB_LKUP_RET_FRAG_NEEDED;
}

long helper_fib_lookup(void *ctx, struct bpf_fib_lookup *params, int plen, __u32 flags)
{
	if (plen < (int)sizeof(*params) || flags & ~FLAGS)
		return -EINVAL;
	if (out_of_bounds(params, sizeof(*params)))
		return -EFAULT;
	int family = params->family;
	if (family != AF_INET && family != AF_INET6)
		return -EAFNOSUPPORT;
	int check = ctx != SKB || params->tot_len;
	int result = lookup(params, flags, family, check);
	return result || check ? result : forwardable(params);
}
