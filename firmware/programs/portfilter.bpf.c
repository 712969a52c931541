// SPDX-License-Identifier: BSD-2-Clause
//
// Decides by TCP, UDP or SCTP destination port. Shows header parsing with variable offsets (up to two VLAN tags, IPv4
// options, IPv6 extension headers), a large array of small values, global variables set before loading, per-CPU
// counters, and three verdicts. What has no port (other protocols, later fragments, damaged headers) passes.

#include "parsing.h"

#define PORTS 65536

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

// The destination port in host order, -1 for a packet without one.
static __always_inline int destination_port(void *data, void *data_end)
{
	__be16 ethertype;
	__u8 protocol;
	struct ports *ports;
	void *at = behind_ethernet(data, data_end, &ethertype);

	if (at)
		at = behind_network(at, data_end, ethertype, &protocol);
	ports = at ? find_ports(at, data_end, protocol) : NULL;
	return ports ? bpf_ntohs(ports->destination) : -1;
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
