// SPDX-License-Identifier: BSD-2-Clause
//
// A firewall of exact rules: a hash of 5-tuples says what becomes of each flow, passes it to the host, drops it, or
// redirects it to another interface, and counts its packets and bytes. Shows hash maps with keys of 16 bytes (IPv4) and
// 40 (IPv6), and counters beside the rule, to which look-up gives the pointer and atomic additions go. What no rule
// names, ARP and later fragments among it, meets with the verdict `otherwise`. Ports are 0 for what has none, as ICMP.

#include "parsing.h"

// The verdict where there is no rule.
const volatile enum xdp_action otherwise = XDP_PASS;

enum protocol {
	ICMP = IPPROTO_ICMP,
	TCP = IPPROTO_TCP,
	UDP = IPPROTO_UDP,
	ICMP6 = IPPROTO_ICMPV6,
	SCTP = IPPROTO_SCTP,
};

struct flow {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	enum protocol protocol;
};

struct flow6 {
	struct in6_addr saddr;
	struct in6_addr daddr;
	__be16 sport;
	__be16 dport;
	enum protocol protocol;
};

struct rule {
	enum xdp_action action;
	__u32 ifindex; // where XDP_REDIRECT sends packets
	__u64 packets; // that the rule was for
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct flow);
	__type(value, struct rule);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 128);
	__type(key, struct flow6);
	__type(value, struct rule);
} rules6 SEC(".maps");

// Packets by verdict.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, XDP_REDIRECT + 1);
	__type(key, __u32); // enum xdp_action
	__type(value, __u64);
} verdicts SEC(".maps");

static __always_inline struct rule *rule_of_ipv4(struct iphdr *ip, struct ports *ports, __u8 protocol)
{
	struct flow flow = {
		.saddr = ip->saddr,
		.daddr = ip->daddr,
		.protocol = protocol,
	};

	if (ports)
		copy_ports(&flow.sport, ports);
	return bpf_map_lookup_elem(&rules, &flow);
}

static __always_inline struct rule *rule_of_ipv6(struct ipv6hdr *ip, struct ports *ports, __u8 protocol)
{
	struct flow6 flow = {
		.saddr = ip->saddr,
		.daddr = ip->daddr,
		.protocol = protocol,
	};

	if (ports)
		copy_ports(&flow.sport, ports);
	return bpf_map_lookup_elem(&rules6, &flow);
}

// Most packets are IPv4 and have neither tag nor options: what is read of them lies where it always does, and one
// comparison with the frame's end is enough. 0x45: version 4, five words of header.
static __always_inline int is_plain(void *data, void *data_end)
{
	struct iphdr *ip = data + sizeof(struct ethhdr);

	return (void *)(ip + 1) + sizeof(struct ports) <= data_end &&
	       *(__be16 *)((void *)ip - 2) == bpf_htons(ETH_P_IP) && *(__u8 *)ip == 0x45 &&
	       !(ip->frag_off & bpf_htons(0x1fff)) && (ip->protocol == IPPROTO_UDP || ip->protocol == IPPROTO_TCP);
}

static __always_inline struct rule *rule_of(void *data, void *data_end)
{
	struct ports *ports;
	void *ip, *transport;
	__be16 ethertype;
	__u8 protocol;

	if (is_plain(data, data_end)) {
		struct iphdr *plain = data + sizeof(struct ethhdr);

		return rule_of_ipv4(plain, (void *)(plain + 1), plain->protocol);
	}
	ip = behind_ethernet(data, data_end, &ethertype);
	if (!ip)
		return NULL;
	transport = behind_network(ip, data_end, ethertype, &protocol);
	if (!transport)
		return NULL;
	ports = find_ports(transport, data_end, protocol);
	return ethertype == bpf_htons(ETH_P_IP) ? rule_of_ipv4(ip, ports, protocol) : rule_of_ipv6(ip, ports, protocol);
}

SEC("xdp")
int firewall(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct rule *rule = rule_of(data, data_end);
	__u32 action, key;
	__u64 *count;

	if (rule) {
		__atomic_fetch_add(&rule->packets, 1, __ATOMIC_RELAXED);
		__atomic_fetch_add(&rule->bytes, data_end - data, __ATOMIC_RELAXED);
		action = rule->action;
		if (action == XDP_REDIRECT)
			action = bpf_redirect(rule->ifindex, 0);
	} else {
		action = otherwise;
	}

	key = action;
	count = bpf_map_lookup_elem(&verdicts, &key);
	if (count)
		(*count)++;
	return action;
}

char _license[] SEC("license") = "Dual BSD/GPL";
