// SPDX-License-Identifier: BSD-2-Clause
//
// Limits the packets of each source by a token bucket: a source may send `burst` packets at once, and gets a token for
// another one every `interval` nanoseconds; what comes without a token is dropped, and counted for its source. Shows a
// clock, a table that never fills up, and state that CPUs share without a lock: a bucket is one number, the time at
// which it will be full, and who takes a token moves it on by compare and exchange. A source is an IPv4 address, in the
// last four bytes of ::ffff:0:0/96 (RFC 4291), or a /64 of IPv6, of which a host may use every address. What is not IP
// passes.

#include "parsing.h"
#include "tokens.h"

#define SOURCES 512

const volatile __u64 interval = 1000000; // ns for a new token
const volatile __u32 burst = 100; // tokens in a full bucket

struct bucket {
	__u64 full; // when it will be
	__u64 dropped;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SOURCES);
	__type(key, struct in6_addr);
	__type(value, struct bucket);
} buckets SEC(".maps");

// Who sent a frame; 0 if it isn't IP.
static __always_inline int source_of(void *data, void *data_end, struct in6_addr *source)
{
	__be16 ethertype;
	void *ip = behind_ethernet(data, data_end, &ethertype);

	if (ip && ethertype == bpf_htons(ETH_P_IP) && ip + sizeof(struct iphdr) <= data_end) {
		*source = mapped(((struct iphdr *)ip)->saddr);
		return 1;
	}
	if (ip && ethertype == bpf_htons(ETH_P_IPV6) && ip + sizeof(struct ipv6hdr) <= data_end) {
		*source = ((struct ipv6hdr *)ip)->saddr;
		source->s6_addr32[2] = source->s6_addr32[3] = 0;
		return 1;
	}
	return 0;
}

SEC("xdp")
int ratelimit(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct in6_addr source;
	struct bucket *bucket;

	if (!source_of(data, data_end, &source))
		return XDP_PASS;

	bucket = bpf_map_lookup_elem(&buckets, &source);
	if (!bucket) {
		struct bucket fresh = {};

		// Where another CPU was quicker this one is refused, and takes from the other's bucket.
		bpf_map_update_elem(&buckets, &source, &fresh, BPF_NOEXIST);
		bucket = bpf_map_lookup_elem(&buckets, &source);
	}
	if (bucket && !take_token(&bucket->full, interval, burst)) {
		__sync_fetch_and_add(&bucket->dropped, 1);
		return XDP_DROP;
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
