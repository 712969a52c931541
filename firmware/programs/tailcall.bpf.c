// SPDX-License-Identifier: BSD-2-Clause
//
// A program for each protocol, behind a dispatcher. Shows tail calls: each program is loaded, checked and replaced by
// itself, and the table says which one runs for a protocol. What it holds at first stands here; under traffic the host
// may put in, replace and delete programs (nic.maps["by_protocol"][6] = another). A tail call that finds none goes on
// behind it, as `ipv6`, which is a target itself, does with a protocol that nobody handles.

#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PROTOCOLS 256
#define NOT_HANDLED 255 // reserved by IANA

int icmp(struct xdp_md *ctx), tcp(struct xdp_md *ctx), udp(struct xdp_md *ctx), ipv6(struct xdp_md *ctx);

// By IP protocol number.
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, PROTOCOLS);
	__type(key, __u32);
	__array(values, int(struct xdp_md *));
} by_protocol SEC(".maps") = {
	.values = {
		[IPPROTO_ICMP] = (void *)&icmp,
		[IPPROTO_TCP] = (void *)&tcp,
		[IPPROTO_UDP] = (void *)&udp,
		[IPPROTO_IPV6] = (void *)&ipv6,
	},
};

// Packets that each program had the last word on, by protocol.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PROTOCOLS);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

static void count(__u32 protocol)
{
	__u64 *packet = bpf_map_lookup_elem(&packets, &protocol);

	if (packet)
		__atomic_fetch_add(packet, 1, __ATOMIC_RELAXED);
}

SEC("xdp")
int dispatch(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	void *header = data + sizeof(struct ethhdr);

	if (header + sizeof(struct iphdr) <= data_end) {
		__be16 ethertype = *(__be16 *)(data + offsetof(struct ethhdr, h_proto));

		if (ethertype == bpf_htons(ETH_P_IP))
			bpf_tail_call(ctx, &by_protocol, ((struct iphdr *)header)->protocol);
		else if (ethertype == bpf_htons(ETH_P_IPV6))
			bpf_tail_call(ctx, &by_protocol, IPPROTO_IPV6);
	}
	count(NOT_HANDLED);
	return XDP_PASS;
}

SEC("xdp")
int ipv6(struct xdp_md *ctx)
{
	void *data_end = (void *)(long)ctx->data_end;
	struct ipv6hdr *header = (void *)(long)ctx->data + sizeof(struct ethhdr);

	if ((void *)(header + 1) <= data_end && header->nexthdr != IPPROTO_IPV6)
		bpf_tail_call(ctx, &by_protocol, header->nexthdr);
	count(IPPROTO_IPV6);
	return XDP_PASS;
}

SEC("xdp")
int icmp(struct xdp_md *ctx)
{
	count(IPPROTO_ICMP);
	return XDP_DROP;
}

SEC("xdp")
int tcp(struct xdp_md *ctx)
{
	count(IPPROTO_TCP);
	return XDP_PASS;
}

SEC("xdp")
int udp(struct xdp_md *ctx)
{
	count(IPPROTO_UDP);
	return XDP_TX;
}

char _license[] SEC("license") = "Dual BSD/GPL";
