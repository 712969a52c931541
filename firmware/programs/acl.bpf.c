// SPDX-License-Identifier: BSD-2-Clause
//
// An access list by prefix: the longest one that holds the source address, and the longest one that holds the
// destination's, each name a rule; of the two the one with the lower number counts, as in a list that is read from the
// top. Shows longest-prefix match, and per-CPU counters for each rule. Rule 0 stands for packets that no prefix is for;
// they pass, and so does whatever is not IP.

#include "parsing.h"

#define RULES 64
#define PREFIXES 256
#define NO_RULE 0

struct prefix {
	__u32 length; // in bits
	__be32 address;
};

struct prefix6 {
	__u32 length;
	struct in6_addr address;
};

struct entry {
	__u32 rule; // 1 to RULES - 1; several prefixes may share it
	enum xdp_action action; // XDP_PASS, XDP_DROP or XDP_TX
};

struct traffic {
	__u64 packets;
	__u64 bytes;
};

struct prefixes {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, struct entry);
} sources SEC(".maps"), destinations SEC(".maps");

struct prefixes6 {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PREFIXES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, struct entry);
} sources6 SEC(".maps"), destinations6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RULES);
	__type(key, __u32); // a rule
	__type(value, struct traffic);
} traffic SEC(".maps");

SEC("xdp")
int acl(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	__be16 ethertype;
	void *ip = behind_ethernet(data, data_end, &ethertype);
	struct entry *source = NULL, *destination = NULL, *entry;
	struct traffic *count;
	__u32 rule = NO_RULE;
	int action = XDP_PASS;

	if (ip && ethertype == bpf_htons(ETH_P_IP) && ip + sizeof(struct iphdr) <= data_end) {
		struct prefix prefix = {.length = 32, .address = ((struct iphdr *)ip)->saddr};

		source = bpf_map_lookup_elem(&sources, &prefix);
		prefix.address = ((struct iphdr *)ip)->daddr;
		destination = bpf_map_lookup_elem(&destinations, &prefix);
	} else if (ip && ethertype == bpf_htons(ETH_P_IPV6) && ip + sizeof(struct ipv6hdr) <= data_end) {
		struct prefix6 prefix = {.length = 128, .address = ((struct ipv6hdr *)ip)->saddr};

		source = bpf_map_lookup_elem(&sources6, &prefix);
		prefix.address = ((struct ipv6hdr *)ip)->daddr;
		destination = bpf_map_lookup_elem(&destinations6, &prefix);
	}

	entry = source && destination && destination->rule < source->rule ? destination : source ?: destination;
	if (entry) {
		rule = entry->rule;
		action = entry->action;
	}

	count = bpf_map_lookup_elem(&traffic, &rule);
	if (count) {
		count->packets++;
		count->bytes += data_end - data;
	}
	return action;
}

char _license[] SEC("license") = "Dual BSD/GPL";
