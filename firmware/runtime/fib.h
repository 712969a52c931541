/* Looking up routes, as network.h has them. Answers are those of Linux 6.18, found out by asking it; docs/network.md says
 * where they differ. */
#pragma once
#include "network.h"

#define TOS_MASK 0x1c /* of a packet's TOS, what routes are matched with */
#define MOST_WAYS 64
#define MOST_RULES 64
#define LOOPBACK_IFINDEX 1

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
		struct way *path = way_at(first + i);

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

/* The way to an IPv4 destination in a table, its number, and its prefix's length; 0 for none. Where the longest prefix
 * has no route that fits, the next one is asked. */
static __always_inline struct way *find4(const struct bpf_fib_lookup *params, __u32 table, __u32 flags, __u32 *number,
					 __u32 *prefix)
{
	struct prefix4 key = { .length = TABLE_BITS + 32, .table = table, .address = params->ipv4_dst };

	for (int tries = 0; tries <= 32; tries++) {
		struct routes *routes = bpf_map_lookup_elem(&routes4, &key);

		if (!routes)
			return 0;
		__u32 first = routes->first, count = routes->count, length = routes->length;
		for (__u32 i = 0; i < MOST_WAYS && i < count; i++) {
			struct way *way = way_at(first + i);

			if (!way)
				return 0;
			if (way->tos && way->tos != (params->tos & TOS_MASK))
				continue;
			if (flags & BPF_FIB_LOOKUP_OUTPUT && way->type < RTN_BLACKHOLE && way->ifindex != params->ifindex)
				continue;
			*number = first + i;
			*prefix = length;
			return way;
		}
		if (!length)
			return 0;
		key.length = TABLE_BITS + length - 1;
	}
	return 0;
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
		struct way *way = way_at(first + i);

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

/* Whether an address is in a prefix. */
static __always_inline int within(const __be32 *address, const __be32 *prefix, const __be32 *mask, int family)
{
	__be32 outside = (address[0] ^ prefix[0]) & mask[0];

	if (family == AF_INET6)
		for (int i = 1; i < 4; i++)
			outside |= (address[i] ^ prefix[i]) & mask[i];
	return !outside;
}

static __always_inline int in_range(__be16 port, const __u16 *ports)
{
	return !ports[1] || (bpf_ntohs(port) >= ports[0] && bpf_ntohs(port) <= ports[1]);
}

/* Whether a rule's conditions hold. In IPv6 one about the source doesn't with OUTPUT, when there is none yet. */
static __always_inline int holds_for(const struct rule *rule, const struct bpf_fib_lookup *params, __u32 flags, int family)
{
	__u32 output = flags & BPF_FIB_LOOKUP_OUTPUT, mark = flags & BPF_FIB_LOOKUP_MARK ? params->mark : 0;

	return (!rule->iif || rule->iif == (output ? LOOPBACK_IFINDEX : params->ifindex)) &&
	       (!rule->oif || (output && rule->oif == params->ifindex)) && !((mark ^ rule->mark) & rule->mark_mask) &&
	       within(params->ipv6_dst, rule->destination, rule->destination_mask, family) &&
	       within(params->ipv6_src, rule->source, rule->source_mask, family) &&
	       !(family == AF_INET6 && output && rule->source_mask[0]) &&
	       (!rule->tos || rule->tos == (params->tos & TOS_MASK)) &&
	       (!rule->protocol || rule->protocol == params->l4_protocol) &&
	       in_range(params->sport, rule->source_ports) && in_range(params->dport, rule->destination_ports);
}

/* What a rule that refuses packets answers; IPv6 doesn't say why. */
static __always_inline int refusal_of(__u8 action, int family)
{
	if (family == AF_INET && action == FR_ACT_BLACKHOLE)
		return BPF_FIB_LKUP_RET_BLACKHOLE;
	if (family == AF_INET && action == FR_ACT_PROHIBIT)
		return BPF_FIB_LKUP_RET_PROHIBIT;
	return BPF_FIB_LKUP_RET_NOT_FWDED;
}

/* Whether IPv4 looks further behind a way: it throws, or its prefix is too short for the rule. */
static __always_inline int passed_over(const struct way *way, __u32 prefix, __u32 suppress)
{
	return way->type == RTN_THROW || (way->type < RTN_BLACKHOLE && prefix < suppress);
}

/* The way that packets of a link go, or by it with OUTPUT; its type says whether they do. 0 for none, then `refusal` is
 * the answer. */
static __always_inline struct way *find_way(struct bpf_fib_lookup *params, struct link *link, __u32 flags, int family,
					    int *refusal)
{
	__u32 number = 0, prefix = 0, direct = flags & BPF_FIB_LOOKUP_DIRECT, v6 = family == AF_INET6;
	__u32 first = link->first_rule[v6], count = link->rule_count[v6], own = !count;
	__u32 table = direct ? direct_table(params, flags) : v6 ? RT_TABLE_LOCAL : RT_TABLE_MAIN;
	struct way *way = 0;

	*refusal = BPF_FIB_LKUP_RET_NOT_FWDED;
	if (direct)
		count = 1;
	else if (own)
		count = 2;
	for (__u32 i = 0; i < MOST_RULES && i < count; i++) {
		__u32 suppress = 0;

		if (!direct && !own) {
			__u32 at = first + i;
			struct rule *rule = bpf_map_lookup_elem(&rules, &at);

			if (!rule)
				return 0;
			if (holds_for(rule, params, flags, family) == rule->inverted || rule->action == FR_ACT_NOP)
				continue;
			if (rule->action != FR_ACT_TO_TBL) {
				*refusal = refusal_of(rule->action, family);
				return 0;
			}
			table = rule->table;
			suppress = rule->suppress;
		}
		if (v6)
			way = find6(params, table, &number);
		else
			way = find4(params, own && table == RT_TABLE_LOCAL ? RT_TABLE_MAIN : table, flags, &number, &prefix);
		if (way && (v6 || !passed_over(way, prefix, suppress)))
			break;
		way = 0;
		table = v6 ? RT_TABLE_MAIN : RT_TABLE_DEFAULT;
	}
	if (!way || way->type != RTN_UNICAST || way->paths <= 1 || flags & BPF_FIB_LOOKUP_OUTPUT)
		return way;

	__u32 hash = flow_hash(params->ipv6_src, params->ipv6_dst, v6 ? 4 : 1);
	return select_path(way, number, hash, v6 ? 0 : params->ipv4_src);
}
