// SPDX-License-Identifier: BSD-2-Clause
//
// A load balancer for TCP and UDP, as Katran is one: a packet for a service (address, port, protocol) goes to one of
// its real servers, in an outer header by which the network finds it; the server answers the client itself. A
// connection keeps its server: a table of connections says which, and for a new one the service's ring does, at the
// place of a hash over the client's address and port. The host fills the rings, best by Maglev (Eisenbud et al., NSDI
// 2016), so that few places change when a server comes or goes; packets of connections that the table has forgotten
// then still find theirs. An ICMP error goes where the packet that it quotes came from. Shows hashing, an LRU table,
// per-CPU counters, and growth at the head. IPv4 addresses stand in the last four bytes of ::ffff:0:0/96 (RFC 4291); a
// server has an outer header of its own family. Packets leave by the port that they came by. What is for no service
// passes, and so do fragments, VLAN tags, and services without a server.

#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/tcp.h>

#include "checksum.h"
#include "parsing.h"

#define SERVICES 16
#define RING 251 // places of a service's ring; a prime, for Maglev
#define SERVERS 64
#define CONNECTIONS 512
#define OUTER_TTL 64
#define NOT_FIRST_OR_LAST 0x3fff // more fragments, or an offset

// MAC addresses of outer packets: of the next router, and of the port.
const volatile __u8 gateway_mac[ETH_ALEN], port_mac[ETH_ALEN];
// And where they come from: the last 2 bytes of the one, the last 4 of the other are a connection's hash, for servers
// that spread what they receive by addresses.
const volatile __be32 source;
const volatile struct in6_addr source6;

struct endpoint {
	struct in6_addr address;
	__be16 port;
	__u16 protocol;
};

struct connection {
	struct endpoint service;
	__be16 port; // the client's
	__u16 unused;
	struct in6_addr client;
};

enum by {
	ADDRESS_AND_PORT,
	ADDRESS, // all connections of a client go to one server
};

struct service {
	__u32 number; // of its ring
	enum by by;
};

struct traffic {
	__u64 packets;
	__u64 bytes; // without outer headers
	__u64 connections; // that the table didn't have
};

struct served {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES);
	__type(key, struct endpoint);
	__type(value, struct service);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SERVICES * RING);
	__type(key, __u32); // RING * the service's number + place
	__type(value, __u32); // a server; 0 for none
} rings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SERVERS);
	__type(key, __u32); // from 1
	__type(value, struct in6_addr);
} servers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNECTIONS);
	__type(key, struct connection);
	__type(value, __u32); // a server
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SERVICES);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SERVERS);
	__type(key, __u32);
	__type(value, struct served);
} served SEC(".maps");

// What a packet is besides its connection.
struct packet {
	__u32 bytes;
	__u8 protocol; // as an outer header names what is inside
	__u8 service; // type of
	__u8 opens; // a TCP connection
};

// Ports, and whether a TCP connection opens; 0 if they are cut off or there are none. In what an error quotes the
// sender is the service.
static __always_inline int
read_transport(void *transport, void *data_end, __u8 protocol, int quoted, struct connection *connection,
	       struct packet *packet)
{
	struct tcphdr *tcp = transport;
	struct ports *ports = transport;

	if ((void *)(ports + 1) > data_end || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP))
		return 0;
	connection->service.port = quoted ? ports->source : ports->destination;
	connection->service.protocol = protocol;
	connection->port = quoted ? ports->destination : ports->source;
	if (protocol == IPPROTO_TCP && !quoted) {
		if ((void *)(tcp + 1) > data_end)
			return 0;
		packet->opens = tcp->syn && !tcp->ack;
	}
	return 1;
}

static __always_inline int
read_ipv4(struct iphdr *ip, void *data_end, struct connection *connection, struct packet *packet)
{
	struct icmphdr *icmp = (void *)(ip + 1);
	struct iphdr *of = ip; // the header that tells the connection

	if ((void *)icmp > data_end || ip->ihl != 5 || ip->frag_off & bpf_htons(NOT_FIRST_OR_LAST))
		return 0;
	packet->bytes = bpf_ntohs(ip->tot_len);
	packet->protocol = IPPROTO_IPIP;
	packet->service = ip->tos;
	if (ip->protocol == IPPROTO_ICMP) {
		of = (void *)(icmp + 1);
		if ((void *)(of + 1) > data_end || icmp->type != ICMP_DEST_UNREACH || of->ihl != 5)
			return 0;
		connection->service.address = mapped(of->saddr);
		connection->client = mapped(of->daddr);
		return read_transport(of + 1, data_end, of->protocol, 1, connection, packet);
	}
	connection->service.address = mapped(ip->daddr);
	connection->client = mapped(ip->saddr);
	return read_transport(icmp, data_end, ip->protocol, 0, connection, packet);
}

static __always_inline int
read_ipv6(struct ipv6hdr *ip, void *data_end, struct connection *connection, struct packet *packet)
{
	struct icmp6hdr *icmp = (void *)(ip + 1);
	struct ipv6hdr *of;

	if ((void *)icmp > data_end)
		return 0;
	packet->bytes = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	packet->protocol = IPPROTO_IPV6;
	packet->service = bpf_ntohs(*(__be16 *)ip) >> 4;
	if (ip->nexthdr == IPPROTO_ICMPV6) {
		of = (void *)(icmp + 1);
		if ((void *)(of + 1) > data_end ||
		    (icmp->icmp6_type != ICMPV6_DEST_UNREACH && icmp->icmp6_type != ICMPV6_PKT_TOOBIG))
			return 0;
		connection->service.address = of->saddr;
		connection->client = of->daddr;
		return read_transport(of + 1, data_end, of->nexthdr, 1, connection, packet);
	}
	connection->service.address = ip->daddr;
	connection->client = ip->saddr;
	return read_transport(icmp, data_end, ip->nexthdr, 0, connection, packet);
}

// Every bit of a connection's client and port in each of the hash (the finalizer of SplitMix64, Steele et al. 2014).
static __always_inline __u64 hash_of(struct connection *connection, enum by by)
{
	__u64 *client = (__u64 *)&connection->client;
	__u64 hash = client[0] * 0x9e3779b97f4a7c15 + client[1];

	if (by == ADDRESS_AND_PORT)
		hash ^= (__u64)connection->port << 32;
	hash = (hash ^ hash >> 30) * 0xbf58476d1ce4e5b9;
	hash = (hash ^ hash >> 27) * 0x94d049bb133111eb;
	return hash ^ hash >> 31;
}

// The server of a connection; 0 for none.
static __always_inline __u32
server_of(struct connection *connection, struct service *service, __u64 hash, int opens, int *is_new)
{
	__u32 place = service->number * RING + (__u32)hash % RING;
	__u32 *server = NULL, chosen;

	if (!opens)
		server = bpf_map_lookup_elem(&connections, connection);
	if (server)
		return *server;
	server = bpf_map_lookup_elem(&rings, &place);
	if (!server || !*server)
		return 0;
	chosen = *server;
	*is_new = 1;
	bpf_map_update_elem(&connections, connection, &chosen, BPF_ANY);
	return chosen;
}

static __always_inline int is_mapped(const struct in6_addr *address)
{
	return !(address->s6_addr32[0] | address->s6_addr32[1]) && address->s6_addr32[2] == bpf_htonl(0xffff);
}

// Puts an outer header before a packet, with an Ethernet header before it; 0 if there is no room.
static __always_inline int
encapsulate(struct xdp_md *ctx, struct packet *packet, const struct in6_addr *server, __u64 hash)
{
	int four = is_mapped(server);
	__u32 header = four ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	void *data, *data_end;

	if (bpf_xdp_adjust_head(ctx, -(int)header))
		return 0;
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (data + sizeof(struct ethhdr) + sizeof(struct ipv6hdr) > data_end)
		return 0; // it never is, which the verifier can't know
	copy_mac(data, gateway_mac);
	copy_mac(data + ETH_ALEN, port_mac);
	data += sizeof(struct ethhdr);
	if (four) {
		struct iphdr *ip = data;
		__u32 *word = data;

		*(__be16 *)(data - 2) = bpf_htons(ETH_P_IP);
		word[0] = bpf_htonl(0x45000000 | packet->service << 16 | (header + packet->bytes));
		word[1] = bpf_htonl(0x4000); // DF, so that there is no need of an identification
		word[2] = bpf_htonl(OUTER_TTL << 24 | packet->protocol << 16);
		word[3] = source | (__u32)hash << 16;
		word[4] = server->s6_addr32[3];
		ip->check = ~folded((__u64)word[0] + word[1] + word[2] + word[3] + word[4]);
	} else {
		struct ipv6hdr *ip = data;
		__u32 *word = data;

		*(__be16 *)(data - 2) = bpf_htons(ETH_P_IPV6);
		word[0] = bpf_htonl(0x60000000 | packet->service << 20);
		word[1] = bpf_htonl(packet->bytes << 16 | packet->protocol << 8 | OUTER_TTL);
		for (int i = 0; i < 3; i++)
			ip->saddr.s6_addr32[i] = source6.s6_addr32[i];
		ip->saddr.s6_addr32[3] = hash;
		ip->daddr = *server;
	}
	return 1;
}

SEC("xdp")
int balancer(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	void *ip = data + sizeof(struct ethhdr);
	struct connection connection = {};
	struct packet packet = {};
	struct in6_addr *address;
	struct service *service;
	struct traffic *traffic_of;
	struct served *served_by;
	int is_new = 0;
	__u32 number, server;
	__be16 ethertype;
	__u64 hash;

	if (ip > data_end)
		return XDP_PASS;
	ethertype = *(__be16 *)(ip - sizeof(ethertype));
	if (ethertype == bpf_htons(ETH_P_IP)) {
		if (!read_ipv4(ip, data_end, &connection, &packet))
			return XDP_PASS;
	} else if (ethertype != bpf_htons(ETH_P_IPV6) || !read_ipv6(ip, data_end, &connection, &packet)) {
		return XDP_PASS;
	}
	if (packet.bytes > data_end - ip)
		return XDP_PASS;

	service = bpf_map_lookup_elem(&services, &connection.service);
	if (!service)
		return XDP_PASS;
	hash = hash_of(&connection, service->by);
	server = server_of(&connection, service, hash, packet.opens, &is_new);
	address = bpf_map_lookup_elem(&servers, &server);
	if (!server || !address)
		return XDP_PASS;

	number = service->number;
	traffic_of = bpf_map_lookup_elem(&traffic, &number);
	if (traffic_of) {
		traffic_of->packets++;
		traffic_of->bytes += packet.bytes;
		traffic_of->connections += is_new;
	}
	served_by = bpf_map_lookup_elem(&served, &server);
	if (served_by) {
		served_by->packets++;
		served_by->bytes += packet.bytes;
	}
	return encapsulate(ctx, &packet, address, hash) ? XDP_TX : XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
