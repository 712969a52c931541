// SPDX-License-Identifier: BSD-2-Clause
//
// Decides by TCP, UDP or SCTP destination port. Shows header parsing with variable offsets (up to two VLAN tags, IPv4
// options, IPv6 extension headers), a large array of small values, global variables set before loading, per-CPU
// counters, and three verdicts. What has no port (other protocols, later fragments, damaged headers) passes.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PORTS 65536
#define VLAN_TAGS 2
#define VLAN_TAG_BYTES 4
#define EXTENSION_HEADERS 4

enum verdict {
	PASS,
	DROP,
	REDIRECT, // to the interface redirect_ifindex
};

enum counter {
	PASSED,
	DROPPED,
	REDIRECTED,
	NO_PORT, // passed
	COUNTERS,
};

// Where REDIRECT sends packets; 0: it drops them.
const volatile __u32 redirect_ifindex = 0;

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS);
	__type(key, __u32);
	__type(value, __u8); // enum verdict
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32); // enum counter
	__type(value, __u64);
} packets SEC(".maps");

struct extension_header {
	__u8 next;
	__u8 length; // in 8 bytes beyond the first 8; a fragment header's is reserved and 0
	__be16 fragment; // offset in the upper 13 bits
};

struct ports {
	__be16 source;
	__be16 destination;
};

static __always_inline int is_vlan(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

// The transport header behind an IPv4 header, NULL if there is none here.
static __always_inline void *behind_ipv4(struct iphdr *ip, void *data_end, __u8 *protocol)
{
	if ((void *)(ip + 1) > data_end || ip->ihl < 5 || ip->frag_off & bpf_htons(0x1fff))
		return NULL;
	*protocol = ip->protocol;
	return (void *)ip + ip->ihl * 4;
}

// The same behind an IPv6 header and its extensions.
static __always_inline void *behind_ipv6(struct ipv6hdr *ip, void *data_end, __u8 *protocol)
{
	void *at = ip + 1;

	if (at > data_end)
		return NULL;
	*protocol = ip->nexthdr;

#pragma clang loop unroll(disable)
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		struct extension_header *header = at;

		if (*protocol != IPPROTO_HOPOPTS && *protocol != IPPROTO_ROUTING && *protocol != IPPROTO_DSTOPTS &&
		    *protocol != IPPROTO_FRAGMENT)
			break;
		if (at + 8 > data_end)
			return NULL;
		at += 8;
		if (*protocol != IPPROTO_FRAGMENT)
			at += header->length * 8;
		else if (header->fragment & bpf_htons(0xfff8))
			return NULL;
		*protocol = header->next;
	}
	return at;
}

// The destination port in host order, -1 for a packet without one.
static __always_inline int destination_port(void *at, void *data_end)
{
	__be16 ethertype;
	__u8 protocol;

	// Every header before the network layer ends with the type of what follows.
	at += sizeof(struct ethhdr);
	if (at > data_end)
		return -1;
	ethertype = *(__be16 *)(at - 2);
	for (int i = 0; i < VLAN_TAGS && is_vlan(ethertype); i++) {
		at += VLAN_TAG_BYTES;
		if (at > data_end)
			return -1;
		ethertype = *(__be16 *)(at - 2);
	}

	if (ethertype == bpf_htons(ETH_P_IP))
		at = behind_ipv4(at, data_end, &protocol);
	else if (ethertype == bpf_htons(ETH_P_IPV6))
		at = behind_ipv6(at, data_end, &protocol);
	else
		return -1;

	if (!at || (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP))
		return -1;
	if (at + sizeof(struct ports) > data_end)
		return -1;
	return bpf_ntohs(((struct ports *)at)->destination);
}

SEC("xdp")
int portfilter(struct xdp_md *ctx)
{
	int port = destination_port((void *)(long)ctx->data, (void *)(long)ctx->data_end);
	int action = XDP_PASS;
	__u32 counter = NO_PORT;
	__u64 *count;

	if (port >= 0) {
		__u32 key = port;
		__u8 *rule = bpf_map_lookup_elem(&rules, &key);

		if (!rule || *rule == PASS) {
			counter = PASSED;
		} else if (*rule == REDIRECT && redirect_ifindex) {
			counter = REDIRECTED;
			action = bpf_redirect(redirect_ifindex, 0);
		} else {
			counter = DROPPED;
			action = XDP_DROP;
		}
	}

	count = bpf_map_lookup_elem(&packets, &counter);
	if (count)
		(*count)++;
	return action;
}

char _license[] SEC("license") = "Dual BSD/GPL";
