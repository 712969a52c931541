// SPDX-License-Identifier: BSD-2-Clause
//
// A router for IPv4 and IPv6: the longest prefix with the destination in it names a port and a gateway, the neighbour
// there its MAC address; the packet gets both MAC addresses, its TTL or hop limit goes down by one, and it leaves by
// the port. Shows a path of four look-ups (LPM_TRIE, HASH, ARRAY, PERCPU_ARRAY) that ends in a redirect map. What it
// doesn't route passes to the host, which answers or asks: no route, a neighbour that isn't known, an expired TTL, a
// packet longer than the port's MTU, IPv4 options, VLAN tags, frames to a group, and what is for the host itself.

#include "checksum.h"
#include "parsing.h"

#define ROUTES 256
#define NEIGHBOURS 256
#define PORTS 16

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
static __always_inline int address(void *data, __u64 length, struct neighbour *neighbour, __u32 number)
{
	struct port *port = bpf_map_lookup_elem(&ports, &number);

	if (!neighbour || !port || length - sizeof(struct ethhdr) > port->mtu)
		return 0;
	copy_mac(data, neighbour->mac);
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

static __always_inline int route_ipv4(struct iphdr *ip, void *data, void *data_end)
{
	struct prefix destination = {.length = 32};
	__u64 length = data_end - data;
	struct route *route;
	__be32 gateway;

	if ((void *)(ip + 1) > data_end || ip->ihl != 5 || ip->ttl <= 1)
		return XDP_PASS;
	destination.address = ip->daddr;
	route = bpf_map_lookup_elem(&routes, &destination);
	if (!route)
		return XDP_PASS;
	gateway = route->gateway ?: destination.address;
	if (!address(data, length, bpf_map_lookup_elem(&neighbours, &gateway), route->port))
		return XDP_PASS;
	decrement_ttl(ip);
	return send(length, route->port);
}

static __always_inline int route_ipv6(struct ipv6hdr *ip, void *data, void *data_end)
{
	struct prefix6 destination = {.length = 128};
	__u64 length = data_end - data;
	struct in6_addr *gateway;
	struct route6 *route;

	if ((void *)(ip + 1) > data_end || ip->hop_limit <= 1)
		return XDP_PASS;
	destination.address = ip->daddr;
	route = bpf_map_lookup_elem(&routes6, &destination);
	if (!route)
		return XDP_PASS;
	gateway = &route->gateway;
	if (!(gateway->s6_addr32[0] | gateway->s6_addr32[1] | gateway->s6_addr32[2] | gateway->s6_addr32[3]))
		gateway = &destination.address;
	if (!address(data, length, bpf_map_lookup_elem(&neighbours6, gateway), route->port))
		return XDP_PASS;
	ip->hop_limit--;
	return send(length, route->port);
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
		return route_ipv4(ip, data, data_end);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return route_ipv6(ip, data, data_end);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
