// SPDX-License-Identifier: BSD-2-Clause
//
// A small IPv4 router: the low bits of the destination address choose a next hop, whose MAC addresses the packet gets;
// its TTL goes down by one, its checksum follows, and it leaves by the next hop's interface. Shows packet rewriting,
// checksum arithmetic and redirection. What it doesn't route passes to the host: other protocols, an expired TTL (the
// host answers with ICMP), and addresses whose next hop isn't set.

#include <stddef.h>
#include <linux/if_ether.h>

#include "checksum.h"

#define NEXT_HOPS 16 // a power of two

struct next_hop {
	__u8 destination[ETH_ALEN];
	__u8 source[ETH_ALEN];
	__u32 ifindex; // 0: none
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NEXT_HOPS);
	__type(key, __u32);
	__type(value, struct next_hop);
} next_hops SEC(".maps");

struct addresses {
	__u32 word[3];
};

SEC("xdp")
int forward(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct next_hop *hop;
	__u32 key;

	if ((void *)(ip + 1) > data_end)
		return XDP_PASS;
	// Not eth->h_proto: struct ethhdr is packed, that would be two loads of a byte.
	if (*(__be16 *)(data + offsetof(struct ethhdr, h_proto)) != bpf_htons(ETH_P_IP) || ip->ttl <= 1)
		return XDP_PASS;

	key = bpf_ntohl(ip->daddr) % NEXT_HOPS;
	hop = bpf_map_lookup_elem(&next_hops, &key);
	if (!hop || !hop->ifindex)
		return XDP_PASS;

	decrement_ttl(ip);

	// Both addresses as three words: 12 bytes in the packet and in the map alike.
	*(struct addresses *)data = *(struct addresses *)hop;
	return bpf_redirect(hop->ifindex, 0);
}

char _license[] SEC("license") = "Dual BSD/GPL";
