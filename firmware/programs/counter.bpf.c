// SPDX-License-Identifier: BSD-2-Clause
//
// Counts packets and bytes by protocol and passes everything on. Shows the two ways to count without losing any: an
// array that all CPUs share, with atomic additions, and a per-CPU array, where each CPU has values of its own and plain
// additions do.

#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PROTOCOLS 256
#define NOT_IP 255 // reserved by IANA, so that no packet has it: stands for whatever is neither IPv4 nor IPv6

struct traffic {
	__u64 packets;
	__u64 bytes;
};

// By IP protocol number (IPv6: of the first header behind the fixed one).
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PROTOCOLS);
	__type(key, __u32);
	__type(value, struct traffic);
} by_protocol SEC(".maps");

// Everything, at key 0.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct traffic);
} total SEC(".maps");

SEC("xdp")
int counter(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	void *header = data + sizeof(struct ethhdr);
	__u64 bytes = data_end - data;
	__u32 protocol = NOT_IP;
	__u32 zero = 0;
	struct traffic *count;

	// An IPv4 header reaches as far as the protocol's byte of an IPv6 header: one bound check serves both.
	if (header + sizeof(struct iphdr) <= data_end) {
		// Not through struct ethhdr, which is packed: that would be two loads of a byte.
		__be16 ethertype = *(__be16 *)(data + offsetof(struct ethhdr, h_proto));

		if (ethertype == bpf_htons(ETH_P_IP))
			protocol = ((struct iphdr *)header)->protocol;
		else if (ethertype == bpf_htons(ETH_P_IPV6))
			protocol = ((struct ipv6hdr *)header)->nexthdr;
	}

	count = bpf_map_lookup_elem(&by_protocol, &protocol);
	if (count) {
		// Relaxed: the order of other accesses doesn't matter, and the old value isn't asked for.
		__atomic_fetch_add(&count->packets, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&count->bytes, bytes, __ATOMIC_RELAXED);
	}

	count = bpf_map_lookup_elem(&total, &zero);
	if (count) {
		count->packets++;
		count->bytes += bytes;
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
