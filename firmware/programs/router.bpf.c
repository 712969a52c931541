// SPDX-License-Identifier: BSD-2-Clause
//
// A router for IPv4 and IPv6: the longest prefix with the destination in it names a port and a gateway, the neighbour
// there its MAC address; the packet gets both MAC addresses, its TTL or hop limit goes down by one, and it leaves by
// the port. Shows a path of four look-ups (LPM_TRIE, HASH, ARRAY, PERCPU_ARRAY) that ends in a redirect map. What it
// doesn't route passes to the host, which answers or asks: no route, a neighbour that isn't known, an expired TTL, a
// packet longer than the port's MTU, IPv4 options, VLAN tags, frames to a group, and what is for the host itself. With
// `use_fib` the host's routes and neighbours take the place of the tables (bpf_fib_lookup, docs/network.md); a port's
// index in the others is its ifindex then.

#include <sys/socket.h>

#include "checksum.h"
#include "parsing.h"

#define ROUTES 256
#define NEIGHBOURS 256
#define PORTS 16

const volatile _Bool use_fib = 0;

struct prefix {
	__u32 length; // in bits
	__be32 address;
};

struct prefix6 {
	__u32 length;
	struct in6_addr address;
};

struct route {
	__be32 gateway; // 0.0.0.0: the destination is on the link
	__u32 port; // index of the three tables below
};

struct route6 {
	struct in6_addr gateway; // ::, likewise
	__u32 port;
};

struct neighbour {
	__u8 mac[ETH_ALEN];
};

struct port {
	__u8 mac[ETH_ALEN];
	__u16 mtu;
};

struct traffic {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, ROUTES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct route);
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, ROUTES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, struct route6);
} routes6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NEIGHBOURS);
	__type(key, __be32);
	__type(value, struct neighbour);
} neighbours SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, NEIGHBOURS);
	__type(key, struct in6_addr);
	__type(value, struct neighbour);
} neighbours6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct port); // an MTU of 0: there is no such port
} ports SEC(".maps");

// What left by each port.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, __u32); // an interface
} interfaces SEC(".maps");

// Writes the Ethernet header; 0, and nothing written, if the packet can't leave so.
static __always_inline int address(void *data, __u64 length, const __u8 *neighbour, __u32 number)
{
	struct port *port;

	if (!neighbour)
		return 0;
	port = bpf_map_lookup_elem(&ports, &number);
	if (!port || length - sizeof(struct ethhdr) > port->mtu)
		return 0;
	copy_mac(data, neighbour);
	copy_mac(data + ETH_ALEN, port->mac);
	return 1;
}

static __always_inline int send(__u64 length, __u32 port)
{
	struct traffic *count = bpf_map_lookup_elem(&traffic, &port);

	if (count) {
		count->packets++;
		count->bytes += length;
	}
	return bpf_redirect_map(&interfaces, port, XDP_DROP);
}

// The MAC address that a packet goes to, NULL if none is known, and the port that it leaves by.
static __always_inline const __u8 *hop_ipv4(struct xdp_md *ctx, struct iphdr *ip, struct bpf_fib_lookup *fib, __u32 *port)
{
	struct prefix destination = {.length = 32, .address = ip->daddr};
	struct route *route;
	__be32 gateway;

	if (use_fib) {
		*fib = (struct bpf_fib_lookup){
			.family = AF_INET,
			.l4_protocol = ip->protocol,
			.tot_len = bpf_ntohs(ip->tot_len),
			.ifindex = ctx->ingress_ifindex,
			.tos = ip->tos,
			.ipv4_src = ip->saddr,
			.ipv4_dst = ip->daddr,
		};
		if (bpf_fib_lookup(ctx, fib, sizeof(*fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
			return NULL;
		*port = fib->ifindex;
		return fib->dmac;
	}
	route = bpf_map_lookup_elem(&routes, &destination);
	if (!route)
		return NULL;
	*port = route->port;
	gateway = route->gateway ?: destination.address;
	return bpf_map_lookup_elem(&neighbours, &gateway);
}

static __always_inline const __u8 *
hop_ipv6(struct xdp_md *ctx, struct ipv6hdr *ip, struct bpf_fib_lookup *fib, __u32 *port)
{
	struct prefix6 destination = {.length = 128, .address = ip->daddr};
	struct in6_addr *gateway;
	struct route6 *route;

	if (use_fib) {
		*fib = (struct bpf_fib_lookup){
			.family = AF_INET6,
			.l4_protocol = ip->nexthdr,
			.tot_len = sizeof(*ip) + bpf_ntohs(ip->payload_len),
			.ifindex = ctx->ingress_ifindex,
			.flowinfo = *(__be32 *)ip & bpf_htonl(0x0fffffff),
		};
		*(struct in6_addr *)fib->ipv6_src = ip->saddr;
		*(struct in6_addr *)fib->ipv6_dst = ip->daddr;
		if (bpf_fib_lookup(ctx, fib, sizeof(*fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
			return NULL;
		*port = fib->ifindex;
		return fib->dmac;
	}
	route = bpf_map_lookup_elem(&routes6, &destination);
	if (!route)
		return NULL;
	*port = route->port;
	gateway = &route->gateway;
	if (!(gateway->s6_addr32[0] | gateway->s6_addr32[1] | gateway->s6_addr32[2] | gateway->s6_addr32[3]))
		gateway = &destination.address;
	return bpf_map_lookup_elem(&neighbours6, gateway);
}

static __always_inline int route_ipv4(struct xdp_md *ctx, struct iphdr *ip, void *data, void *data_end)
{
	__u64 length = data_end - data;
	struct bpf_fib_lookup fib;
	__u32 port = 0;

	if ((void *)(ip + 1) > data_end || ip->ihl != 5 || ip->ttl <= 1)
		return XDP_PASS;
	if (!address(data, length, hop_ipv4(ctx, ip, &fib, &port), port))
		return XDP_PASS;
	decrement_ttl(ip);
	return send(length, port);
}

static __always_inline int route_ipv6(struct xdp_md *ctx, struct ipv6hdr *ip, void *data, void *data_end)
{
	__u64 length = data_end - data;
	struct bpf_fib_lookup fib;
	__u32 port = 0;

	if ((void *)(ip + 1) > data_end || ip->hop_limit <= 1)
		return XDP_PASS;
	if (!address(data, length, hop_ipv6(ctx, ip, &fib, &port), port))
		return XDP_PASS;
	ip->hop_limit--;
	return send(length, port);
}

SEC("xdp")
int router(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	void *ip = data + sizeof(struct ethhdr);
	__be16 ethertype;

	if (ip > data_end || *(__u8 *)data & 1)
		return XDP_PASS;
	ethertype = *(__be16 *)(ip - 2);
	if (ethertype == bpf_htons(ETH_P_IP))
		return route_ipv4(ctx, ip, data, data_end);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return route_ipv6(ctx, ip, data, data_end);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
