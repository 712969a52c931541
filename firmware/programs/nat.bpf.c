// SPDX-License-Identifier: BSD-2-Clause
//
// Network address translation: hosts inside share one IPv4 address outside (RFC 3022, address and port). The first
// packet of a connection from the inside gets a port of that address, its own if that is free, and what comes back finds
// the way to the host and its MAC address; TCP, UDP, and echoes of ICMP, whose identifier takes the place of the port.
// Errors of ICMP from outside come to the host with the packet that it had sent in them (RFC 5508). Shows a table for
// each direction, kept together while entries come, go and are forgotten, CPUs that agree on a port, and checksums of
// both layers that follow what they cover. Packets are routed too: their TTL goes down by one, and they leave by the
// other side. Where no free port is found a packet is dropped. What isn't translated passes to the host as it came: what
// comes from outside to no connection, expired packets, options, fragments, VLAN tags, other protocols, errors from
// inside.

#include <linux/icmp.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "checksum.h"
#include "parsing.h"

#define CONNECTIONS 512
#define TRIES 16 // to find a free port
#define FIRST_PORT 1024 // of those that are drawn where a packet's own is taken

// Both interfaces, with the MAC address of each.
const volatile __u32 inside_ifindex, outside_ifindex;
const volatile __u8 inside_mac[ETH_ALEN], outside_mac[ETH_ALEN];
const volatile __u8 gateway_mac[ETH_ALEN]; // of the next router outside
const volatile __be32 address; // outside

// A connection as one side sees it; `address` and `port` are the inner host's inside, the common one and its port
// outside.
struct connection {
	__be32 address;
	__be32 remote;
	__be16 port;
	__be16 remote_port;
	__u32 protocol;
};

struct endpoint {
	__be32 address;
	__be16 port;
	__u8 mac[ETH_ALEN]; // of the inner host
};

struct connections {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNECTIONS);
	__type(key, struct connection);
	__type(value, struct endpoint); // what stands for `address` and `port` on the other side
} outbound SEC(".maps"), inbound SEC(".maps");

// Where in a packet the port is that changes, and the checksum over it.
struct places {
	__be16 *port;
	__sum16 *check;
};

// The connection of a packet, as the side sees it that it comes from; 0 if it has none.
static __always_inline int
read_packet(struct iphdr *ip, void *data_end, int outward, struct connection *connection, struct places *places)
{
	struct icmphdr *icmp = (void *)(ip + 1);
	struct tcphdr *tcp = (void *)icmp;
	struct udphdr *udp = (void *)icmp;
	struct ports *ports = (void *)icmp;

	if ((void *)icmp > data_end || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff) || ip->ttl <= 1)
		return 0;
	connection->address = outward ? ip->saddr : ip->daddr;
	connection->remote = outward ? ip->daddr : ip->saddr;
	connection->protocol = ip->protocol;
	if (ip->protocol == IPPROTO_ICMP) {
		if ((void *)(icmp + 1) > data_end || icmp->type != (outward ? ICMP_ECHO : ICMP_ECHOREPLY))
			return 0;
		places->port = &icmp->un.echo.id;
		places->check = &icmp->checksum;
		connection->port = icmp->un.echo.id;
		connection->remote_port = 0;
		return 1;
	}
	if (ip->protocol == IPPROTO_TCP) {
		if ((void *)(tcp + 1) > data_end)
			return 0;
		places->check = &tcp->check;
	} else if (ip->protocol == IPPROTO_UDP) {
		if ((void *)(udp + 1) > data_end)
			return 0;
		places->check = &udp->check;
	} else {
		return 0;
	}
	places->port = outward ? &ports->source : &ports->destination;
	connection->port = *places->port;
	connection->remote_port = outward ? ports->destination : ports->source;
	return 1;
}

// The connection that an error from outside is about, which quotes a packet that went out: at least its header and the 8
// bytes behind it. `places->check` is NULL where the quote ends before it. 0 if it isn't such an error.
static __always_inline int
read_quote(struct iphdr *ip, void *data_end, struct connection *connection, struct places *places)
{
	struct icmphdr *error = (void *)(ip + 1);
	struct iphdr *quoted = (void *)(error + 1);
	struct icmphdr *icmp = (void *)(quoted + 1);
	struct tcphdr *tcp = (void *)icmp;
	struct udphdr *udp = (void *)icmp;
	struct ports *ports = (void *)icmp;
	void *end;

	if ((void *)(icmp + 1) > data_end)
		return 0;
	end = (void *)ip + bpf_ntohs(ip->tot_len); // behind it a frame may have padding
	if ((void *)(icmp + 1) > end || end > data_end || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff) ||
	    ip->ttl <= 1 || ip->protocol != IPPROTO_ICMP || quoted->ihl != 5 || quoted->frag_off & bpf_htons(0x1fff))
		return 0;
	if (error->type != ICMP_DEST_UNREACH && error->type != ICMP_TIME_EXCEEDED && error->type != ICMP_PARAMETERPROB)
		return 0;
	connection->address = quoted->saddr;
	connection->remote = quoted->daddr;
	connection->protocol = quoted->protocol;
	connection->port = ports->source;
	connection->remote_port = ports->destination;
	places->port = &ports->source;
	if (quoted->protocol == IPPROTO_ICMP) {
		if (icmp->type != ICMP_ECHO)
			return 0;
		connection->port = icmp->un.echo.id;
		connection->remote_port = 0;
		places->port = &icmp->un.echo.id;
		places->check = &icmp->checksum;
	} else if (quoted->protocol == IPPROTO_TCP) {
		barrier_var(end); // the verifier wants data_end compared, which clang knows to be no less
		places->check = NULL;
		if ((void *)(&tcp->check + 1) <= end && (void *)(&tcp->check + 1) <= data_end)
			places->check = &tcp->check;
	} else if (quoted->protocol == IPPROTO_UDP) {
		places->check = udp->check ? &udp->check : NULL;
	} else {
		return 0;
	}
	return ip->daddr == quoted->saddr;
}

static __always_inline int is_of(struct endpoint *endpoint, struct connection *connection)
{
	return endpoint->address == connection->address && endpoint->port == connection->port;
}

// Gives a connection from the inside a port; 0 if none is found.
static __always_inline __be16 open(struct connection *connection, void *mac)
{
	struct connection back = *connection;
	struct endpoint host = {.address = connection->address, .port = connection->port}, common, *other;
	int found = 0;

	copy_mac(host.mac, mac);
	back.address = address;
#pragma clang loop unroll(disable)
	for (int i = 0; i < TRIES && !found; i++) {
		if (i)
			back.port = bpf_htons(FIRST_PORT + bpf_get_prandom_u32() % (65536 - FIRST_PORT));
		found = !bpf_map_update_elem(&inbound, &back, &host, BPF_NOEXIST);
		if (found)
			break;
		// Another CPU may open the same connection, or the other table have forgotten it.
		other = bpf_map_lookup_elem(&inbound, &back);
		found = other && is_of(other, connection);
	}
	if (!found)
		return 0;

	common = (struct endpoint){.address = address, .port = back.port};
	if (bpf_map_update_elem(&outbound, connection, &common, BPF_NOEXIST)) {
		other = bpf_map_lookup_elem(&outbound, connection);
		if (other && other->port != back.port) {
			bpf_map_delete_elem(&inbound, &back); // the other CPU's port is the connection's
			return other->port;
		}
	}
	return back.port;
}

// The port that stands for a connection from the inside. Both tables are looked at, so that both keep what is in use.
static __always_inline __be16 port_of(struct connection *connection, void *mac)
{
	struct endpoint *common = bpf_map_lookup_elem(&outbound, connection), *host;

	if (common) {
		struct connection back = *connection;
		__be16 port = common->port;

		back.address = common->address;
		back.port = port;
		host = bpf_map_lookup_elem(&inbound, &back);
		if (host && is_of(host, connection))
			return port;
		bpf_map_delete_elem(&outbound, connection); // it has been forgotten on the way back
	}
	return open(connection, mac);
}

// Writes address and port, and has the checksums follow. One of UDP is 0 for none, and 0xffff if it is 0.
static __always_inline void
rewrite(struct iphdr *ip, __be32 *field, struct places *places, __be32 new_address, __be16 new_port)
{
	__u64 of_address = change_of(*field, new_address), change = change_of(*places->port, new_port);
	__sum16 check;

	ip->check = changed(ip->check, of_address);
	if (ip->protocol != IPPROTO_ICMP)
		change += of_address; // which is in their pseudo header
	if (ip->protocol != IPPROTO_UDP || *places->check) {
		check = changed(*places->check, change);
		*places->check = ip->protocol == IPPROTO_UDP && !check ? 0xffff : check;
	}
	*field = new_address;
	*places->port = new_port;
	decrement_ttl(ip);
}

// Gives a 16-bit field a value; what that adds to `change` of a checksum over it.
static __always_inline __u64 set(__be16 *field, __be16 value)
{
	__u64 change = change_of(*field, value);

	*field = value;
	return change;
}

// Turns an error's quote into the packet that the inner host had sent, and sends the error there.
static __always_inline void
rewrite_quote(struct iphdr *ip, struct places *places, __be32 new_address, __be16 new_port)
{
	struct icmphdr *error = (void *)(ip + 1);
	struct iphdr *quoted = (void *)(error + 1);
	__u64 of_address = change_of(quoted->saddr, new_address), of_port = change_of(*places->port, new_port);
	__u64 change = of_address + of_port; // of what the error's checksum covers
	__sum16 check;

	change += set(&quoted->check, changed(quoted->check, of_address));
	if (places->check) {
		check = changed(*places->check, of_port + (quoted->protocol == IPPROTO_ICMP ? 0 : of_address));
		change += set(places->check, quoted->protocol == IPPROTO_UDP && !check ? 0xffff : check);
	}
	error->checksum = changed(error->checksum, change);
	quoted->saddr = new_address;
	*places->port = new_port;
	ip->check = changed(ip->check, of_address);
	ip->daddr = new_address;
	decrement_ttl(ip);
}

static __always_inline int go_out(void *data, struct iphdr *ip, void *data_end)
{
	struct connection connection;
	struct places places;
	__be16 port;

	if (!read_packet(ip, data_end, 1, &connection, &places))
		return XDP_PASS;
	port = port_of(&connection, data + ETH_ALEN);
	if (!port)
		return XDP_DROP;
	rewrite(ip, &ip->saddr, &places, address, port);
	copy_mac(data, gateway_mac);
	copy_mac(data + ETH_ALEN, outside_mac);
	return bpf_redirect(outside_ifindex, 0);
}

static __always_inline int go_in(void *data, struct iphdr *ip, void *data_end)
{
	struct connection connection, there;
	struct endpoint *host;
	struct places places;
	int quoted = 0;

	if (!read_packet(ip, data_end, 0, &connection, &places)) {
		quoted = read_quote(ip, data_end, &connection, &places);
		if (!quoted)
			return XDP_PASS;
	}
	host = bpf_map_lookup_elem(&inbound, &connection);
	if (!host)
		return XDP_PASS;
	there = connection;
	there.address = host->address;
	there.port = host->port;
	bpf_map_lookup_elem(&outbound, &there); // so that it is kept as well
	if (quoted)
		rewrite_quote(ip, &places, there.address, there.port);
	else
		rewrite(ip, &ip->daddr, &places, there.address, there.port);
	copy_mac(data, host->mac);
	copy_mac(data + ETH_ALEN, inside_mac);
	return bpf_redirect(inside_ifindex, 0);
}

SEC("xdp")
int nat(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	void *ip = data + sizeof(struct ethhdr);

	if (ip > data_end || *(__u8 *)data & 1 || *(__be16 *)(ip - 2) != bpf_htons(ETH_P_IP))
		return XDP_PASS;
	if (ctx->ingress_ifindex == inside_ifindex)
		return go_out(data, ip, data_end);
	if (ctx->ingress_ifindex == outside_ifindex)
		return go_in(data, ip, data_end);
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
