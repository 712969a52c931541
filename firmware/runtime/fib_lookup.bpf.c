/* bpf_fib_lookup: where a packet goes by the routes and neighbours that the host knows (network.h). Answers are those of
 * Linux 6.18, found out by asking it; docs/network.md says where they differ. */

#include "network.h"

#define FLAGS (BPF_FIB_LOOKUP_DIRECT | BPF_FIB_LOOKUP_OUTPUT | BPF_FIB_LOOKUP_SKIP_NEIGH | BPF_FIB_LOOKUP_TBID | \
	       BPF_FIB_LOOKUP_SRC | BPF_FIB_LOOKUP_MARK)
#define LONGEST_IPV4 0xffff /* IP_MAX_MTU */
#define LONGEST_IPV6 (0xffff + 40) /* IP6_MAX_MTU */
#define SHORTEST_IPV6 1280 /* IPV6_MIN_MTU */
#define TOS_MASK 0x1c /* of a packet's TOS, what routes are matched with */
#define MOST_WAYS 64

/* 31 bits of the addresses' hash, which pick one of several paths. Linux hashes the same, in a way that nobody can
 * predict: which path a flow takes differs, how many flows take each doesn't. */
static __always_inline __u32 flow_hash(const __be32 *source, const __be32 *destination, int words)
{
	__u64 hash = 0;

#pragma clang loop unroll(disable)
	for (int i = 0; i < words; i++) {
		hash = (hash ^ source[i] ^ (__u64)destination[i] << 32) * 0x9e3779b97f4a7c15;
		hash ^= hash >> 32;
	}
	return hash >> 33;
}

/* Of the paths of a route, that of a flow; IPv4 prefers one whose link has the packet's source address. */
static __always_inline struct way *select_path(struct way *way, __u32 number, __u32 hash, __be32 source)
{
	__u32 first = number - way->path, paths = way->paths;
	int best = -1;

	for (__u32 i = 0; i < MOST_WAYS && i < paths; i++) {
		struct way *path = find_way(first + i);

		if (!path)
			return 0;
		int score = (source && path->hop_source == source ? 2 : 0) + (hash <= path->share);
		if (score > best) {
			best = score;
			way = path;
		}
		if (score == 3 || (!source && score == 1))
			break;
	}
	return way;
}

/* What is left when a way is found: the packet may leave by it, and how. `mtu` of the link or the way's own; `original`
 * are the words of the destination that was looked up. */
static __always_inline int leave_by(struct bpf_fib_lookup *params, struct way *way, __u32 flags, int family)
{
	__u32 ifindex = way->ifindex;
	struct link *link = bpf_map_lookup_elem(&links, &ifindex);

	if (!link)
		return BPF_FIB_LKUP_RET_NOT_FWDED; /* it has just gone */

	__u32 mtu = way->mtu;
	if (!mtu) {
		__u32 longest = family == AF_INET ? LONGEST_IPV4 : LONGEST_IPV6;

		mtu = link->mtu;
		if (family == AF_INET6 && mtu < SHORTEST_IPV6)
			mtu = SHORTEST_IPV6;
		if (mtu > longest)
			mtu = longest;
	}
	if (params->tot_len > mtu) {
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

/* The table that the program asks for, when it doesn't want the usual ones. */
static __always_inline __u32 direct_table(struct bpf_fib_lookup *params, __u32 flags)
{
	__u32 table = RT_TABLE_MAIN;

	if (flags & BPF_FIB_LOOKUP_TBID) {
		table = params->tbid;
		params->tbid = 0;
	}
	return table ? table : RT_TABLE_MAIN;
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

/* The way to an IPv4 destination in a table, and its number; 0 for none. Where the longest prefix has no route that
 * fits, the next one is asked. */
static __always_inline struct way *find4(const struct bpf_fib_lookup *params, __u32 table, __u32 flags, __u32 *number)
{
	struct prefix4 key = { .length = TABLE_BITS + 32, .table = table, .address = params->ipv4_dst };

	for (int tries = 0; tries <= 32; tries++) {
		struct routes *routes = bpf_map_lookup_elem(&routes4, &key);

		if (!routes)
			return 0;
		__u32 first = routes->first, count = routes->count, length = routes->length;
		for (__u32 i = 0; i < MOST_WAYS && i < count; i++) {
			struct way *way = find_way(first + i);

			if (!way)
				return 0;
			if (way->tos && way->tos != (params->tos & TOS_MASK))
				continue;
			if (flags & BPF_FIB_LOOKUP_OUTPUT && way->type < RTN_BLACKHOLE && way->ifindex != params->ifindex)
				continue;
			*number = first + i;
			return way;
		}
		if (!length)
			return 0;
		key.length = TABLE_BITS + length - 1;
	}
	return 0;
}

/* Whether an address is multicast, link-local or loopback: such are never forwarded. */
static __always_inline int stays_on_link(const __be32 *address)
{
	__u32 high = bpf_ntohl(address[0]);

	return high >> 24 == 0xff || high >> 22 == 0xfe80 >> 6 ||
	       (!high && !address[1] && !address[2] && address[3] == bpf_htonl(1));
}

/* The way to an IPv6 destination in a table, and its number; 0 for none: of those with the lowest metric the one with
 * the best router, then one by the link that is asked for. */
static __always_inline struct way *find6(const struct bpf_fib_lookup *params, __u32 table, __u32 *number)
{
	struct prefix6 key = { .length = TABLE_BITS + 128, .table = table };
	__u32 metric = 0;
	struct way *best = 0;
	int highest = -1;

	copy_address(key.address, params->ipv6_dst, AF_INET6);
	struct routes *routes = bpf_map_lookup_elem(&routes6, &key);
	if (!routes)
		return 0;
	__u32 first = routes->first, count = routes->count;
	for (__u32 i = 0; i < MOST_WAYS && i < count; i++) {
		struct way *way = find_way(first + i);

		if (!way)
			return 0;
		if (!i)
			metric = way->metric;
		if (way->metric != metric)
			break;
		int score = way->preference * 2 + (way->ifindex == params->ifindex);
		if (score > highest) {
			highest = score;
			best = way;
			*number = first + i;
		}
	}
	return best;
}

static __always_inline int lookup(struct bpf_fib_lookup *params, __u32 flags, int family)
{
	if (family == AF_INET6 && (stays_on_link(params->ipv6_dst) || stays_on_link(params->ipv6_src)))
		return BPF_FIB_LKUP_RET_NOT_FWDED;

	__u32 ifindex = params->ifindex, number = 0, direct = flags & BPF_FIB_LOOKUP_DIRECT;
	struct link *ingress = bpf_map_lookup_elem(&links, &ifindex);

	if (!ingress)
		return -ENODEV;
	if (!(ingress->forwards & (family == AF_INET ? FORWARDS_IPV4 : FORWARDS_IPV6)))
		return BPF_FIB_LKUP_RET_FWD_DISABLED;

	__u32 table = direct ? direct_table(params, flags) : family == AF_INET ? RT_TABLE_MAIN : RT_TABLE_LOCAL;
	struct way *way = 0;
	for (int tables = direct ? 1 : 2; tables; tables--) {
		if (family == AF_INET)
			way = find4(params, table == RT_TABLE_LOCAL ? RT_TABLE_MAIN : table, flags, &number);
		else
			way = find6(params, table, &number);
		if (way && !(family == AF_INET && way->type == RTN_THROW))
			break;
		table = family == AF_INET ? RT_TABLE_DEFAULT : RT_TABLE_MAIN;
	}
	if (!way)
		return BPF_FIB_LKUP_RET_NOT_FWDED;
	if (way->type != RTN_UNICAST)
		return rejected(way->type);
	if (way->paths > 1 && !(flags & BPF_FIB_LOOKUP_OUTPUT)) {
		__u32 hash = flow_hash(params->ipv6_src, params->ipv6_dst, family == AF_INET ? 1 : 4);

		way = select_path(way, number, hash, family == AF_INET ? params->ipv4_src : 0);
	}
	return way ? leave_by(params, way, flags, family) : BPF_FIB_LKUP_RET_NOT_FWDED;
}

long helper_fib_lookup(void *ctx, struct bpf_fib_lookup *params, int plen, __u32 flags)
{
	if (plen < (int)sizeof(*params) || flags & ~FLAGS)
		return -EINVAL;
	int family = params->family;
	if (family != AF_INET && family != AF_INET6)
		return -EAFNOSUPPORT;
	return lookup(params, flags, family);
}
