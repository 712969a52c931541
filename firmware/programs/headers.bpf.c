// SPDX-License-Identifier: BSD-2-Clause
//
// A socket filter that keeps of each packet its headers and `payload` bytes behind them, so that the host may look at
// all traffic without taking in all of its bytes, and counts for each protocol. Link (the inner of two VLAN tags too),
// IPv4 with options, IPv6 with extension headers, TCP, UDP, ICMP; behind what is none of these nothing is a header, and
// of a later fragment the IP header is the last. A packet that ends inside a header isn't kept.
//
// Shows a verdict that is a length, and loads by offset (LD_ABS, LD_IND): in network order, and where the packet
// doesn't reach they end the filter with 0.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN_HLEN 4
#define IPV6_HLEN 40
#define OFFSET 0x1fff // of a fragment, in units of 8 bytes
#define EXTENSIONS 8  // more of them are none
#define OTHER 256     // in `traffic`: what isn't IP

struct traffic {
	__u64 packets;
	__u64 bytes; // as they arrived
	__u64 kept;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, OTHER + 1);
	__type(key, __u32); // the protocol's number
	__type(value, struct traffic);
} traffic SEC(".maps");

const volatile __u32 payload;

unsigned long long load_byte(void *skb, unsigned long long offset) asm("llvm.bpf.load.byte");
unsigned long long load_half(void *skb, unsigned long long offset) asm("llvm.bpf.load.half");

// How long a transport header is that begins at `at`.
static __always_inline __u32 transport(struct __sk_buff *skb, __u32 at, __u32 protocol)
{
	switch (protocol) {
	case IPPROTO_TCP:
		return (load_byte(skb, at + 12) >> 4) * 4;
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return 8;
	}
	return 0;
}

SEC("socket")
int headers(struct __sk_buff *skb)
{
	__u32 at = ETH_HLEN, kept, type = bpf_ntohs(skb->protocol), protocol = OTHER, later = 0;
	struct traffic *counted;

	if (type == ETH_P_8021Q || type == ETH_P_8021AD) {
		type = load_half(skb, at + 2);
		at += VLAN_HLEN;
	}
	if (type == ETH_P_IP) {
		protocol = load_byte(skb, at + 9);
		later = load_half(skb, at + 6) & OFFSET;
		at += (load_byte(skb, at) & 0xf) * 4;
	} else if (type == ETH_P_IPV6) {
		protocol = load_byte(skb, at + 6);
		at += IPV6_HLEN;
		for (int i = 0; i < EXTENSIONS && !later; i++) {
			__u32 size = 8;

			if (protocol == IPPROTO_FRAGMENT)
				later = load_half(skb, at + 2) >> 3;
			else if (protocol == IPPROTO_HOPOPTS || protocol == IPPROTO_ROUTING || protocol == IPPROTO_DSTOPTS)
				size = (load_byte(skb, at + 1) + 1) * 8;
			else
				break;
			protocol = load_byte(skb, at);
			at += size;
		}
	}
	if (!later)
		at += transport(skb, at, protocol);
	if (at > skb->len)
		return 0;
	kept = at + payload;
	if (kept > skb->len)
		kept = skb->len;

	counted = bpf_map_lookup_elem(&traffic, &protocol);
	if (counted) {
		counted->packets++;
		counted->bytes += skb->len;
		counted->kept += kept;
	}
	return kept;
}

char _license[] SEC("license") = "Dual BSD/GPL";
