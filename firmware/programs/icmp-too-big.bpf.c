// SPDX-License-Identifier: BSD-2-Clause
//
// Answers packets that are longer than the path behind takes, so that their senders send shorter ones (path MTU
// discovery, RFC 1191 and RFC 8201): IPv4 with DF by ICMP's fragmentation needed, IPv6 by ICMPv6's packet too big, in
// the name of the destination. Shows a packet that becomes another: its tail is cut to what is quoted, its head grows
// by the headers of the answer, which leaves by the port that the packet came by. Answers are limited by a token
// bucket (RFC 4443 asks for that); a packet without an answer is dropped. What is short enough passes, and so does
// what may be fragmented, is part of fragments, is an error of ICMP itself, or isn't sent from one host to one other.

#include <linux/icmp.h>
#include <linux/icmpv6.h>

#include "checksum.h"
#include "parsing.h"
#include "tokens.h"

#define MINIMUM_MTU6 1280 // what every path for IPv6 takes
#define HEADERS (sizeof(struct iphdr) + sizeof(struct icmphdr)) // of an answer
#define HEADERS6 (sizeof(struct ipv6hdr) + sizeof(struct icmp6hdr))
#define QUOTED (576 - HEADERS) // bytes of a packet that has so many (RFC 1812)
#define QUOTED_AT_LEAST 68 // of one that hasn't: the longest header and the 8 bytes that RFC 792 asks for
#define QUOTED6 (MINIMUM_MTU6 - HEADERS6) // always (RFC 4443)
#define SERVICE 0xc0 // internetwork control (RFC 1812)
#define DONT_FRAGMENT 0x4000
#define FRAGMENT 0x3fff // more of them, or an offset
#define TTL 64

const volatile __u32 mtu = 1400; // bytes of an IP packet, 68 or more
const volatile __u64 interval = 1000000; // ns for a token
const volatile __u32 burst = 50;

__u64 full; // the bucket of tokens
__u64 answers; // sent

struct mac {
	__u32 first;
	__u16 last;
};

static __always_inline struct mac load_mac(void *at)
{
	return (struct mac){*(__u32 *)at, *(__u16 *)(at + 4)};
}

static __always_inline void store_mac(void *at, struct mac mac)
{
	*(__u32 *)at = mac.first;
	*(__u16 *)(at + 4) = mac.last;
}

// Cuts a packet to `quoted` bytes, makes room for `headers` before these, and turns the Ethernet header around. 0 if
// the packet can't be like that.
static __always_inline int reshape(struct xdp_md *ctx, __u32 quoted, __u32 headers)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	__u64 length = data_end - data;
	struct mac destination, source;
	__be16 ethertype;

	if (data + sizeof(struct ethhdr) > data_end)
		return 0;
	barrier_var(length); // or clang subtracts pointers in 32 bits
	destination = load_mac(data);
	source = load_mac(data + ETH_ALEN);
	ethertype = *(__be16 *)(data + 2 * ETH_ALEN);
	if (bpf_xdp_adjust_tail(ctx, sizeof(struct ethhdr) + quoted - length) ||
	    bpf_xdp_adjust_head(ctx, -(int)headers))
		return 0;
	data = (void *)(long)ctx->data;
	data_end = (void *)(long)ctx->data_end;
	if (data + sizeof(struct ethhdr) > data_end)
		return 0;
	store_mac(data, source);
	store_mac(data + ETH_ALEN, destination);
	*(__be16 *)(data + 2 * ETH_ALEN) = ethertype;
	return 1;
}

static __always_inline int is_error(__u8 type)
{
	return type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT ||
	       type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETERPROB;
}

// 1 for a packet that is too long, with its bytes in the answer.
static __always_inline int is_too_big(struct iphdr *ip, void *data_end, __u32 *quoted)
{
	__u8 *icmp_type = (void *)ip + ip->ihl * 4, network = ip->saddr & 0xff;
	__u32 bytes = bpf_ntohs(ip->tot_len);

	if (bytes <= mtu || bytes < QUOTED_AT_LEAST || bytes > data_end - (void *)ip || ip->ihl < 5)
		return 0;
	if (!(ip->frag_off & bpf_htons(DONT_FRAGMENT)) || ip->frag_off & bpf_htons(FRAGMENT) || !network || network >= 224)
		return 0;
	if (ip->protocol == IPPROTO_ICMP && ((void *)(icmp_type + 1) > data_end || is_error(*icmp_type)))
		return 0;
	*quoted = bytes < QUOTED ? QUOTED_AT_LEAST : QUOTED;
	return 1;
}

static __always_inline int answer_ipv4(struct xdp_md *ctx, struct iphdr *ip, __u32 quoted)
{
	__be32 source = ip->saddr, destination = ip->daddr;
	struct icmphdr *icmp;
	void *data_end;
	__u32 *word;

	if (!reshape(ctx, quoted, HEADERS))
		return XDP_DROP;
	ip = (void *)(long)ctx->data + sizeof(struct ethhdr);
	icmp = (void *)(ip + 1);
	data_end = (void *)(long)ctx->data_end;
	if ((void *)(icmp + 1) + quoted > data_end)
		return XDP_DROP;
	word = (void *)ip;
	word[0] = bpf_htonl(0x45000000 | SERVICE << 16 | (HEADERS + quoted));
	word[1] = bpf_htonl(DONT_FRAGMENT);
	word[2] = bpf_htonl(TTL << 24 | IPPROTO_ICMP << 16);
	word[3] = destination;
	word[4] = source;
	ip->check = ~folded((__u64)word[0] + word[1] + word[2] + word[3] + word[4]);
	icmp->type = ICMP_DEST_UNREACH;
	icmp->code = ICMP_FRAG_NEEDED;
	icmp->checksum = 0;
	icmp->un.frag.__unused = 0;
	icmp->un.frag.mtu = bpf_htons(mtu);
	icmp->checksum = ~folded(bpf_csum_diff(NULL, 0, (void *)icmp, sizeof(*icmp) + quoted, 0));
	return XDP_TX;
}

static __always_inline int is_too_big_ipv6(struct ipv6hdr *ip, void *data_end)
{
	__u32 bytes = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	struct icmp6hdr *icmp = (void *)(ip + 1);

	if (bytes <= mtu || bytes <= MINIMUM_MTU6 || bytes > data_end - (void *)ip || ip->saddr.s6_addr[0] == 0xff ||
	    !(ip->saddr.s6_addr32[0] | ip->saddr.s6_addr32[1] | ip->saddr.s6_addr32[2] | ip->saddr.s6_addr32[3]))
		return 0;
	if (ip->nexthdr == IPPROTO_FRAGMENT)
		return 0;
	return ip->nexthdr != IPPROTO_ICMPV6 || ((void *)(icmp + 1) <= data_end && icmp->icmp6_type & ICMPV6_INFOMSG_MASK);
}

static __always_inline int answer_ipv6(struct xdp_md *ctx, struct ipv6hdr *ip)
{
	struct in6_addr source = ip->saddr, destination = ip->daddr;
	struct icmp6hdr *icmp;
	void *data_end;
	__u32 *word, sum;

	if (!reshape(ctx, QUOTED6, HEADERS6))
		return XDP_DROP;
	ip = (void *)(long)ctx->data + sizeof(struct ethhdr);
	icmp = (void *)(ip + 1);
	data_end = (void *)(long)ctx->data_end;
	if ((void *)(icmp + 1) + QUOTED6 > data_end)
		return XDP_DROP;
	word = (void *)ip;
	word[0] = bpf_htonl(0x60000000 | SERVICE << 20);
	word[1] = bpf_htonl((sizeof(*icmp) + QUOTED6) << 16 | IPPROTO_ICMPV6 << 8 | TTL);
	ip->saddr = destination;
	ip->daddr = source;
	icmp->icmp6_type = ICMPV6_PKT_TOOBIG;
	icmp->icmp6_code = 0;
	icmp->icmp6_cksum = 0;
	icmp->icmp6_mtu = bpf_htonl(mtu > MINIMUM_MTU6 ? mtu : MINIMUM_MTU6);
	// A pseudo header is in the sum: addresses, length, protocol.
	sum = bpf_csum_diff(NULL, 0, (void *)&ip->saddr, 2 * sizeof(ip->saddr),
			    bpf_htons(sizeof(*icmp) + QUOTED6) + bpf_htons(IPPROTO_ICMPV6));
	icmp->icmp6_cksum = ~folded(bpf_csum_diff(NULL, 0, (void *)icmp, sizeof(*icmp) + QUOTED6, sum));
	return XDP_TX;
}

SEC("xdp")
int icmp_too_big(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data;
	void *data_end = (void *)(long)ctx->data_end;
	struct ipv6hdr *ip6 = data + sizeof(struct ethhdr);
	struct iphdr *ip = data + sizeof(struct ethhdr);
	__u32 quoted = 0;
	__be16 ethertype;
	int four;

	if ((void *)(ip + 1) > data_end || *(__u8 *)data & 1)
		return XDP_PASS;
	ethertype = *(__be16 *)(data + 2 * ETH_ALEN);
	four = ethertype == bpf_htons(ETH_P_IP);
	if (four) {
		if (!is_too_big(ip, data_end, &quoted))
			return XDP_PASS;
	} else if (ethertype != bpf_htons(ETH_P_IPV6) || (void *)(ip6 + 1) > data_end || !is_too_big_ipv6(ip6, data_end)) {
		return XDP_PASS;
	}
	if (!take_token(&full, interval, burst))
		return XDP_DROP;
	__sync_fetch_and_add(&answers, 1);
	if (!four)
		return answer_ipv6(ctx, ip6);
	return quoted == QUOTED ? answer_ipv4(ctx, ip, QUOTED) : answer_ipv4(ctx, ip, QUOTED_AT_LEAST);
}

char _license[] SEC("license") = "Dual BSD/GPL";
