// SPDX-License-Identifier: BSD-2-Clause
//
// A chain of programs that call each other through a table: `ethernet`, which is attached, and eight stages behind it,
// each with one thing to do. Shows tail calls: each program is loaded, checked and replaced by itself, and under traffic
// the host may put in, replace and delete stages (nic.maps["stages"][5] = another). Behind a tail call that finds none
// the packet passes. A tail call keeps nothing but the context; what a stage finds out goes on in a per-CPU map, for a
// CPU has one packet at a time.

#include <linux/icmp.h>
#include <linux/icmpv6.h>
#include <linux/tcp.h>

#include "parsing.h"

#define DNS_PORT 53

int vlan(struct xdp_md *ctx), ipv4(struct xdp_md *ctx), ipv6(struct xdp_md *ctx), tcp(struct xdp_md *ctx);
int udp(struct xdp_md *ctx), icmp(struct xdp_md *ctx), account(struct xdp_md *ctx), verdict(struct xdp_md *ctx);

enum stage {
	VLAN,
	IPV4,
	IPV6,
	TCP,
	UDP,
	ICMP,
	ACCOUNT,
	VERDICT,
	STAGES,
};

enum kind {
	OTHER, // neither IPv4 nor IPv6, of another protocol, a later fragment, or cut off
	TCP_OPENING, // SYN without ACK
	TCP_SEGMENT,
	DNS,
	UDP_DATAGRAM,
	ECHO,
	ICMP_MESSAGE,
	KINDS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, STAGES);
	__type(key, __u32); // enum stage
	__array(values, int(struct xdp_md *));
} stages SEC(".maps") = {
	.values = {
		[VLAN] = (void *)&vlan,
		[IPV4] = (void *)&ipv4,
		[IPV6] = (void *)&ipv6,
		[TCP] = (void *)&tcp,
		[UDP] = (void *)&udp,
		[ICMP] = (void *)&icmp,
		[ACCOUNT] = (void *)&account,
		[VERDICT] = (void *)&verdict,
	},
};

// What is known of a packet.
struct progress {
	__u32 offset; // of the header that comes next
	enum kind kind;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct progress);
} current SEC(".maps");

struct traffic {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KINDS);
	__type(key, __u32); // enum kind
	__type(value, struct traffic);
} traffic SEC(".maps");

// What becomes of each kind. XDP_ABORTED, which an array begins with, stands for XDP_PASS.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, KINDS);
	__type(key, __u32); // enum kind
	__type(value, enum xdp_action);
} policy SEC(".maps");

static __always_inline struct progress *progress(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&current, &zero);
}

static __always_inline int next(struct xdp_md *ctx, enum stage stage)
{
	bpf_tail_call(ctx, &stages, stage);
	return XDP_PASS;
}

static __always_inline void *end_of(struct xdp_md *ctx)
{
	return (void *)(long)ctx->data_end;
}

// Where the next header begins.
static __always_inline void *header(struct xdp_md *ctx, struct progress *at)
{
	return (void *)(long)ctx->data + (at->offset & 0xfff); // it is smaller, which the verifier can't know
}

static __always_inline int found(struct xdp_md *ctx, struct progress *at, enum kind kind)
{
	at->kind = kind;
	return next(ctx, ACCOUNT);
}

// On to the header that the two bytes at the offset name.
static __always_inline int by_ethertype(struct xdp_md *ctx, struct progress *at)
{
	__be16 *ethertype = header(ctx, at);

	if ((void *)(ethertype + 1) > end_of(ctx))
		return found(ctx, at, OTHER);
	at->offset += sizeof(*ethertype);
	if (is_vlan(*ethertype))
		return next(ctx, VLAN);
	if (*ethertype == bpf_htons(ETH_P_IP))
		return next(ctx, IPV4);
	if (*ethertype == bpf_htons(ETH_P_IPV6))
		return next(ctx, IPV6);
	return found(ctx, at, OTHER);
}

// On to the transport header; `transport` is NULL if there is none.
static __always_inline int by_protocol(struct xdp_md *ctx, struct progress *at, void *transport, __u8 protocol)
{
	if (!transport || transport > end_of(ctx)) // an extension header may reach anywhere
		return found(ctx, at, OTHER);
	at->offset = transport - (void *)(long)ctx->data;
	if (protocol == IPPROTO_TCP)
		return next(ctx, TCP);
	if (protocol == IPPROTO_UDP)
		return next(ctx, UDP);
	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return next(ctx, ICMP);
	return found(ctx, at, OTHER);
}

SEC("xdp")
int ethernet(struct xdp_md *ctx)
{
	struct progress *at = progress();

	if (!at)
		return XDP_ABORTED;
	at->offset = offsetof(struct ethhdr, h_proto);
	return by_ethertype(ctx, at);
}

// Calls itself for each tag; a frame may have more of them than tail calls are allowed, and passes then.
SEC("xdp")
int vlan(struct xdp_md *ctx)
{
	struct progress *at = progress();

	if (!at)
		return XDP_ABORTED;
	at->offset += sizeof(__be16); // priority and VLAN; the type follows
	return by_ethertype(ctx, at);
}

SEC("xdp")
int ipv4(struct xdp_md *ctx)
{
	struct progress *at = progress();
	__u8 protocol = 0;

	if (!at)
		return XDP_ABORTED;
	return by_protocol(ctx, at, behind_ipv4(header(ctx, at), end_of(ctx), &protocol), protocol);
}

SEC("xdp")
int ipv6(struct xdp_md *ctx)
{
	struct progress *at = progress();
	__u8 protocol = 0;

	if (!at)
		return XDP_ABORTED;
	return by_protocol(ctx, at, behind_ipv6(header(ctx, at), end_of(ctx), &protocol), protocol);
}

SEC("xdp")
int tcp(struct xdp_md *ctx)
{
	struct progress *at = progress();
	struct tcphdr *tcp;

	if (!at)
		return XDP_ABORTED;
	tcp = header(ctx, at);
	if ((void *)(tcp + 1) > end_of(ctx))
		return found(ctx, at, OTHER);
	return found(ctx, at, tcp->syn && !tcp->ack ? TCP_OPENING : TCP_SEGMENT);
}

SEC("xdp")
int udp(struct xdp_md *ctx)
{
	struct progress *at = progress();
	struct ports *ports;

	if (!at)
		return XDP_ABORTED;
	ports = header(ctx, at);
	if ((void *)(ports + 1) > end_of(ctx))
		return found(ctx, at, OTHER);
	if (ports->source == bpf_htons(DNS_PORT) || ports->destination == bpf_htons(DNS_PORT))
		return found(ctx, at, DNS);
	return found(ctx, at, UDP_DATAGRAM);
}

// Of ICMP and ICMPv6, whose types for echoes are unassigned in the other one.
SEC("xdp")
int icmp(struct xdp_md *ctx)
{
	struct progress *at = progress();
	__u8 *type;

	if (!at)
		return XDP_ABORTED;
	type = header(ctx, at);
	if ((void *)(type + 1) > end_of(ctx))
		return found(ctx, at, OTHER);
	if (*type == ICMP_ECHO || *type == ICMP_ECHOREPLY || *type == ICMPV6_ECHO_REQUEST || *type == ICMPV6_ECHO_REPLY)
		return found(ctx, at, ECHO);
	return found(ctx, at, ICMP_MESSAGE);
}

SEC("xdp")
int account(struct xdp_md *ctx)
{
	struct progress *at = progress();
	struct traffic *count;
	__u32 kind;

	if (!at)
		return XDP_ABORTED;
	kind = at->kind;
	count = bpf_map_lookup_elem(&traffic, &kind);
	if (count) {
		count->packets++;
		count->bytes += ctx->data_end - ctx->data;
	}
	return next(ctx, VERDICT);
}

SEC("xdp")
int verdict(struct xdp_md *ctx)
{
	struct progress *at = progress();
	enum xdp_action *action;
	__u32 kind;

	if (!at)
		return XDP_ABORTED;
	kind = at->kind;
	action = bpf_map_lookup_elem(&policy, &kind);
	return action && *action != XDP_ABORTED ? *action : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
