// SPDX-License-Identifier: BSD-2-Clause
//
// Keeps the books of flows, and passes everything on: packets, bytes, first and last packet of each 5-tuple. Shows a
// table that never fills up (a new flow makes one go that was not seen for long), and how CPUs that meet the same new
// flow at the same time agree on one entry. IPv4 addresses stand in the last four bytes of ::ffff:0:0/96 (RFC 4291).
// Ports are 0 for what has none; later fragments have no 5-tuple and are not counted.

#include "parsing.h"

#define FLOWS 512

struct flow {
	struct in6_addr saddr;
	struct in6_addr daddr;
	__be16 sport;
	__be16 dport;
	__u32 protocol;
};

struct traffic {
	__u64 packets;
	__u64 bytes;
	__u64 first; // ns since the start
	__u64 last;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FLOWS);
	__type(key, struct flow);
	__type(value, struct traffic);
} flows SEC(".maps");

// The 5-tuple of a frame; 0 if it has none.
static __always_inline int flow_of(void *data, void *data_end, struct flow *flow)
{
	struct ports *ports;
	void *ip, *transport;
	__be16 ethertype;
	__u8 protocol;

	ip = behind_ethernet(data, data_end, &ethertype);
	if (!ip)
		return 0;
	transport = behind_network(ip, data_end, ethertype, &protocol);
	if (!transport)
		return 0;

	if (ethertype == bpf_htons(ETH_P_IP)) {
		flow->saddr = mapped(((struct iphdr *)ip)->saddr);
		flow->daddr = mapped(((struct iphdr *)ip)->daddr);
	} else {
		flow->saddr = ((struct ipv6hdr *)ip)->saddr;
		flow->daddr = ((struct ipv6hdr *)ip)->daddr;
	}
	flow->protocol = protocol;
	ports = find_ports(transport, data_end, protocol);
	if (ports) {
		flow->sport = ports->source;
		flow->dport = ports->destination;
	}
	return 1;
}

SEC("xdp")
int account(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct flow flow = {};
	struct traffic *traffic;
	__u64 now = bpf_ktime_get_ns();

	if (!flow_of(data, data_end, &flow))
		return XDP_PASS;

	traffic = bpf_map_lookup_elem(&flows, &flow);
	if (!traffic) {
		struct traffic fresh = {.first = now};

		// Where another CPU was quicker this one is refused, and counts in the other's entry.
		bpf_map_update_elem(&flows, &flow, &fresh, BPF_NOEXIST);
		traffic = bpf_map_lookup_elem(&flows, &flow);
	}
	if (traffic) {
		__atomic_fetch_add(&traffic->packets, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&traffic->bytes, data_end - data, __ATOMIC_RELAXED);
		traffic->last = now; // of two CPUs at once the later one to get here
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
