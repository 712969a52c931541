// SPDX-License-Identifier: BSD-2-Clause
//
// An end of tunnels over IPv4. What is for a prefix behind a tunnel gets an outer header, IPIP (RFC 2003, and RFC 4213
// for IPv6) or GRE (RFC 2784), and leaves by the tunnel's interface; what comes out of a tunnel loses its outer header
// and passes to the host. Shows packets that grow and shrink at the head. As for any packet that is forwarded the
// inner TTL goes down by one on the way in. The outer header has the inner type of service, and DF, for outer
// fragments are not put together here. What a tunnel can't carry passes to the host as it came: expired, longer than
// the tunnel's MTU, tagged with a VLAN; and on the way out what the host should see: options, fragments, checksums,
// keys and sequence numbers of GRE, marks of congestion (RFC 6040), tunnels that aren't known.

#include "checksum.h"
#include "parsing.h"

#define TUNNELS 64
#define PREFIXES 256
#define OUTER_TTL 64
#define CONGESTION 3 // in the low bits of the type of service
#define DONT_FRAGMENT 0x4000

enum kind {
	IPIP,
	GRE,
};

struct gre {
	__be16 flags;
	__be16 protocol; // an ethertype
};

struct outer {
	struct iphdr ip;
	struct gre gre; // if the tunnel's kind is GRE
};

struct prefix {
	__u32 length; // in bits
	__be32 address;
};

struct prefix6 {
	__u32 length;
	struct in6_addr address;
};

struct tunnel {
	__be32 local;
	__be32 remote;
	__u8 destination[ETH_ALEN]; // MAC addresses on the way to remote
	__u8 source[ETH_ALEN];
	__u32 ifindex;
	enum kind kind;
	__u32 mtu; // bytes of the longest inner packet; 0: there is no such tunnel
};

struct end {
	__be32 remote;
	__be32 local;
	enum kind kind;
};

struct traffic {
	__u64 sent;
	__u64 sent_bytes; // of inner packets
	__u64 received;
	__u64 received_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u32); // a tunnel
} routes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, __u32);
} routes6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, TUNNELS);
	__type(key, __u32);
	__type(value, struct tunnel);
} tunnels SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, TUNNELS);
	__type(key, struct end);
	__type(value, __u32); // a tunnel
} ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TUNNELS);
	__type(key, __u32);
	__type(value, struct traffic);
} traffic SEC(".maps");

// The tunnel for an inner packet, its bytes, and its type of service; NULL if it goes through none.
static __always_inline struct tunnel *
tunnel_for(void *inner, void *data_end, __be16 ethertype, __u32 *number, __u32 *bytes, __u8 *service)
{
	struct ipv6hdr *ip6 = inner;
	struct iphdr *ip = inner;
	__u32 *found;

	if (ethertype == bpf_htons(ETH_P_IP)) {
		struct prefix destination = {.length = 32};

		if ((void *)(ip + 1) > data_end || ip->ttl <= 1)
			return NULL;
		*bytes = bpf_ntohs(ip->tot_len);
		*service = ip->tos;
		destination.address = ip->daddr;
		found = bpf_map_lookup_elem(&routes, &destination);
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		struct prefix6 destination = {.length = 128};

		if ((void *)(ip6 + 1) > data_end || ip6->hop_limit <= 1)
			return NULL;
		*bytes = sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
		*service = bpf_ntohs(*(__be16 *)ip6) >> 4;
		destination.address = ip6->daddr;
		found = bpf_map_lookup_elem(&routes6, &destination);
	} else {
		return NULL;
	}
	if (!found)
		return NULL;
	*number = *found;
	return bpf_map_lookup_elem(&tunnels, number);
}

static __always_inline void
write_outer(struct outer *outer, struct tunnel *tunnel, __be16 ethertype, __u32 bytes, __u8 service)
{
	__u32 *word = (__u32 *)&outer->ip;

	outer->ip.version = 4;
	outer->ip.ihl = 5;
	outer->ip.tos = service;
	outer->ip.tot_len = bpf_htons(bytes);
	outer->ip.id = 0; // which is for fragments alone (RFC 6864)
	outer->ip.frag_off = bpf_htons(DONT_FRAGMENT);
	outer->ip.ttl = OUTER_TTL;
	outer->ip.check = 0;
	outer->ip.saddr = tunnel->local;
	outer->ip.daddr = tunnel->remote;
	if (tunnel->kind == GRE) {
		outer->ip.protocol = IPPROTO_GRE;
		outer->gre.flags = 0;
		outer->gre.protocol = ethertype;
	} else {
		outer->ip.protocol = ethertype == bpf_htons(ETH_P_IP) ? IPPROTO_IPIP : IPPROTO_IPV6;
	}
	outer->ip.check = ~folded((__u64)word[0] + word[1] + word[2] + word[3] + word[4]);
}

static __always_inline int encapsulate(struct xdp_md *ctx, void *inner, void *data_end, __be16 ethertype)
{
	__u32 number, bytes, header;
	struct tunnel *tunnel;
	struct traffic *count;
	__u8 service;
	void *data;

	tunnel = tunnel_for(inner, data_end, ethertype, &number, &bytes, &service);
	if (!tunnel || bytes > tunnel->mtu || bytes > data_end - inner)
		return XDP_PASS;
	header = tunnel->kind == GRE ? sizeof(struct outer) : sizeof(struct iphdr);
	if (bpf_xdp_adjust_head(ctx, -(int)header))
		return XDP_PASS;

	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	inner = data + sizeof(struct ethhdr) + header;
	if (inner + sizeof(struct iphdr) > data_end)
		return XDP_ABORTED; // it never is, which the verifier can't know
	if (ethertype == bpf_htons(ETH_P_IP))
		decrement_ttl(inner);
	else
		((struct ipv6hdr *)inner)->hop_limit--;
	write_outer(data + sizeof(struct ethhdr), tunnel, ethertype, header + bytes, service);
	copy_mac(data, tunnel->destination);
	copy_mac(data + ETH_ALEN, tunnel->source);
	*(__be16 *)(data + 2 * ETH_ALEN) = bpf_htons(ETH_P_IP);

	count = bpf_map_lookup_elem(&traffic, &number);
	if (count) {
		count->sent++;
		count->sent_bytes += bytes;
	}
	return bpf_redirect(tunnel->ifindex, 0);
}

// 1 if a packet may come out of a tunnel: `end` says of which, `header` the bytes before the inner packet.
static __always_inline int
is_outer(struct outer *outer, void *data_end, struct end *end, __u32 *header, __be16 *ethertype)
{
	struct iphdr *ip = &outer->ip;

	if ((void *)(ip + 1) > data_end || ip->ihl != 5 || ip->frag_off & bpf_htons(~DONT_FRAGMENT) ||
	    (ip->tos & CONGESTION) == CONGESTION)
		return 0;
	*header = sizeof(*ip);
	end->kind = IPIP;
	if (ip->protocol == IPPROTO_IPIP) {
		*ethertype = bpf_htons(ETH_P_IP);
	} else if (ip->protocol == IPPROTO_IPV6) {
		*ethertype = bpf_htons(ETH_P_IPV6);
	} else if (ip->protocol == IPPROTO_GRE) {
		if ((void *)(outer + 1) > data_end || outer->gre.flags)
			return 0;
		*header = sizeof(*outer);
		end->kind = GRE;
		*ethertype = outer->gre.protocol;
	}
	end->remote = ip->saddr;
	end->local = ip->daddr;
	return *ethertype == bpf_htons(ETH_P_IP) || *ethertype == bpf_htons(ETH_P_IPV6);
}

// Takes the outer header off and moves the Ethernet header over it.
static __always_inline int decapsulate(struct xdp_md *ctx, __u32 number, __u32 header, __be16 ethertype)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	void *inner = data + sizeof(struct ethhdr) + header;
	struct iphdr *outer = data + sizeof(struct ethhdr);
	struct traffic *count;
	__u32 bytes;

	if (inner + sizeof(struct iphdr) > data_end)
		return XDP_PASS;
	bytes = bpf_ntohs(outer->tot_len) - header;
	if (bytes > data_end - inner) // below 0 too
		return XDP_PASS;
	copy_mac(data + header, data);
	copy_mac(data + header + ETH_ALEN, data + ETH_ALEN);
	*(__be16 *)(inner - sizeof(ethertype)) = ethertype;

	count = bpf_map_lookup_elem(&traffic, &number);
	if (count) {
		count->received++;
		count->received_bytes += bytes;
	}
	return bpf_xdp_adjust_head(ctx, header) ? XDP_ABORTED : XDP_PASS;
}

SEC("xdp")
int tunnel(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	void *ip = data + sizeof(struct ethhdr);
	__be16 ethertype, inner = 0;
	struct end end = {};
	__u32 *number, header;

	if (ip > data_end || *(__u8 *)data & 1)
		return XDP_PASS;
	ethertype = *(__be16 *)(ip - sizeof(ethertype));
	if (ethertype == bpf_htons(ETH_P_IP) && is_outer(ip, data_end, &end, &header, &inner)) {
		number = bpf_map_lookup_elem(&ends, &end);
		if (number)
			return decapsulate(ctx, *number, header, inner);
	}
	return encapsulate(ctx, ip, data_end, ethertype);
}

char _license[] SEC("license") = "Dual BSD/GPL";
