// SPDX-License-Identifier: BSD-2-Clause
//
// Polices what comes in at a port, as a tc program. The service that a packet asks for (protocol and destination port)
// has a class: its packets are counted and marked with the class's number, longer ones than it allows are dropped, and
// the others get its code point (DSCP, RFC 2474) and may be sent on to another port of the same host. Checksums follow.
// IPv4 without fragments and IPv6 without extension headers, TCP and UDP; all else passes.
//
// The first program finds the class and leaves it in `mark`, and in `cb` where the headers are; the second one rewrites
// the packet. Shows the fields that tc programs hand on, helpers that load, store and sum, and a tail call. With one
// VLAN tag or none, the packet is the same here: the outer tag isn't among its bytes.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SERVICES 256
#define CLASSES 16
#define FRAGMENT 0x3fff // more of them follow, or it isn't the first
#define ECN 3		// the lower bits of the byte with the code point

struct service {
	__u16 protocol;
	__be16 port;
};

struct class {
	__u32 longest; // bytes of a packet
	__u16 dscp;
	__be16 port; // to send it to, 0 for its own
	__u64 packets;
	__u64 bytes;
	__u64 dropped;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SERVICES);
	__type(key, struct service);
	__type(value, __u32); // the class
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, CLASSES);
	__type(key, __u32);
	__type(value, struct class);
} classes SEC(".maps");

int rewrite(struct __sk_buff *skb);

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, int(struct __sk_buff *));
} stages SEC(".maps") = {.values = {[0] = (void *)&rewrite}};

enum { PROTOCOL, TRANSPORT }; // what `cb` holds: the transport protocol, and where its header begins

// Fills `cb` and returns whether the packet has ports.
static __always_inline int parse(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || ip.frag_off & bpf_htons(FRAGMENT))
			return 0;
		skb->cb[PROTOCOL] = ip.protocol;
		skb->cb[TRANSPORT] = ETH_HLEN + ip.ihl * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		__u8 next;

		if (bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, nexthdr), &next, sizeof(next)))
			return 0;
		skb->cb[PROTOCOL] = next;
		skb->cb[TRANSPORT] = ETH_HLEN + sizeof(struct ipv6hdr);
	} else {
		return 0;
	}
	return skb->cb[PROTOCOL] == IPPROTO_TCP || skb->cb[PROTOCOL] == IPPROTO_UDP;
}

// Where the destination port is is the same in both protocols.
static __always_inline __u32 port_offset(struct __sk_buff *skb)
{
	return skb->cb[TRANSPORT] + offsetof(struct udphdr, dest);
}

SEC("tc")
int police(struct __sk_buff *skb)
{
	struct service service = {};
	struct class *class;
	__u32 *number;

	if (!parse(skb) || bpf_skb_load_bytes(skb, port_offset(skb), &service.port, sizeof(service.port)))
		return TC_ACT_OK;
	service.protocol = skb->cb[PROTOCOL];
	number = bpf_map_lookup_elem(&services, &service);
	class = number ? bpf_map_lookup_elem(&classes, number) : 0;
	if (!class)
		return TC_ACT_OK;

	__sync_fetch_and_add(&class->packets, 1);
	__sync_fetch_and_add(&class->bytes, skb->len);
	if (skb->len > class->longest) {
		__sync_fetch_and_add(&class->dropped, 1);
		return TC_ACT_SHOT;
	}
	skb->mark = *number;
	bpf_tail_call(skb, &stages, 0);
	return TC_ACT_OK;
}

// The class's code point in an IPv4 packet, and the header's checksum.
static __always_inline void set_dscp(struct __sk_buff *skb, __u16 dscp)
{
	__u8 old[2], new[2]; // the word that the checksum takes it in: version, length, and the byte with the code point

	if (bpf_skb_load_bytes(skb, ETH_HLEN, old, sizeof(old)))
		return;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		new[0] = old[0];
		new[1] = dscp << 2 | (old[1] & ECN);
		bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), *(__u16 *)old, *(__u16 *)new, sizeof(new));
	} else { // four bits of it are in the first byte
		new[0] = (old[0] & 0xf0) | dscp >> 2;
		new[1] = dscp << 6 | (old[1] & (ECN << 4 | 0xf));
	}
	bpf_skb_store_bytes(skb, ETH_HLEN, new, sizeof(new), 0);
}

// Another destination port, and the transport's checksum, which UDP may have left out.
static __always_inline void set_port(struct __sk_buff *skb, __be16 port)
{
	int udp = skb->cb[PROTOCOL] == IPPROTO_UDP;
	__u32 check = skb->cb[TRANSPORT] + (udp ? offsetof(struct udphdr, check) : offsetof(struct tcphdr, check));
	__be16 old;

	if (bpf_skb_load_bytes(skb, port_offset(skb), &old, sizeof(old)))
		return;
	if (bpf_l4_csum_replace(skb, check, old, port, sizeof(port) | (udp ? BPF_F_MARK_MANGLED_0 : 0)))
		return;
	bpf_skb_store_bytes(skb, port_offset(skb), &port, sizeof(port), 0);
}

SEC("tc")
int rewrite(struct __sk_buff *skb)
{
	__u32 number = skb->mark;
	struct class *class = bpf_map_lookup_elem(&classes, &number);

	if (!class)
		return TC_ACT_OK;
	set_dscp(skb, class->dscp);
	if (class->port)
		set_port(skb, class->port);
	return TC_ACT_OK;
}

char _license[] SEC("license") = "Dual BSD/GPL";
