/* What the host knows of the network, as the driver lays it into map memory (host/networktables.py, which goes by the
 * names of these members). A table may be larger on a device than it is here: host/networktables.py says when. */

#pragma once
#include "runtime.h"
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <bpf/bpf_endian.h>

/* A link, by its ifindex. */
struct link {
	__u8 mac[6];
	__u16 header_bytes; /* of a frame, 14 of Ethernet */
	__u32 mtu;
	__u32 flags;
	__u16 first_rule[2], rule_count[2]; /* of IPv4 and of IPv6; where there are none, Linux's own */
};

/* of a link */
#define FORWARDS_IPV4 1
#define FORWARDS_IPV6 2
#define LINK_UP 4

/* A rule says in which table a packet is looked up, or what becomes of it. Zeros are no condition. */
struct rule {
	__u32 table;
	__u32 mark, mark_mask;
	__u32 iif, oif;
	__be32 source[4], source_mask[4], destination[4], destination_mask[4];
	__u16 source_ports[2], destination_ports[2]; /* first and last */
	__u8 action; /* FR_ACT_* */
	__u8 tos;
	__u8 protocol;
	__u8 inverted;
	__u8 suppress; /* routes of prefixes shorter than this don't count */
	__u8 padding[3];
};

/* Routes are found in two steps: those for a prefix of a table, and the ways that these have. IPv4's tables local and
 * main are one, which is called main, as in Linux where all rules are its own. */
struct prefix4 {
	__u32 length; /* of table and address */
	__u32 table;
	__be32 address;
};

struct prefix6 {
	__u32 length;
	__u32 table;
	__be32 address[4];
};

#define TABLE_BITS 32

/* The ways that routes for a prefix have, in the order in which Linux tries the routes. */
struct routes {
	__u32 first; /* in the table of ways */
	__u16 count;
	__u16 length; /* of the prefix, without table */
};

struct way {
	__u32 ifindex;
	__u32 metric;
	__u32 mtu; /* locked, 0 for the link's */
	__u32 share; /* of several paths, the one of a flow is the first whose share is not below the flow's hash */
	__be32 hop_source; /* IPv4: the address of the link towards the gateway */
	__u8 type; /* RTN_* */
	__u8 tos;
	__u8 preference; /* of IPv6 routers, 1 to 3 */
	__u8 encapsulated;
	__u8 paths; /* that the route has: this is number `path` of them */
	__u8 path;
	__u8 gateway_family; /* 0: none */
	__u8 has_source;
	__be32 gateway[4];
	__be32 source[4]; /* that packets from here get */
};

struct neighbour_key {
	__u32 ifindex;
	__u32 family;
	__be32 address[4];
};

struct neighbour {
	__u8 mac[6];
	__u8 padding[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, struct link);
	__uint(max_entries, 16);
} links SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct rule);
	__uint(max_entries, 32);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix4);
	__type(value, struct routes);
	__uint(max_entries, 128);
} routes4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, struct routes);
	__uint(max_entries, 64);
} routes6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct way);
	__uint(max_entries, 128);
} ways SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct neighbour_key);
	__type(value, struct neighbour);
	__uint(max_entries, 128);
} neighbours SEC(".maps");

static __always_inline struct link *find_link(__u32 ifindex)
{
	return bpf_map_lookup_elem(&links, &ifindex);
}

static __always_inline struct way *way_at(__u32 number)
{
	return bpf_map_lookup_elem(&ways, &number);
}

static __always_inline void copy_address(__be32 *to, const __be32 *from, int family)
{
	to[0] = from[0];
	if (family == AF_INET6) {
		to[1] = from[1];
		to[2] = from[2];
		to[3] = from[3];
	}
}

static __always_inline void copy_mac(__u8 *to, const __u8 *from)
{
	for (int i = 0; i < 3; i++)
		((__u16 *)to)[i] = ((const __u16 *)from)[i];
}

/* The neighbour with an address on a link, 0 if its MAC isn't known. */
static __always_inline struct neighbour *find_neighbour(__u32 ifindex, __u32 family, const __be32 *address)
{
	struct neighbour_key key = { .ifindex = ifindex, .family = family };

	copy_address(key.address, address, family);
	return bpf_map_lookup_elem(&neighbours, &key);
}
