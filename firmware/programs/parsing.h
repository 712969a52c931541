// SPDX-License-Identifier: BSD-2-Clause
//
// Where headers lie in a frame. Nothing is read before it is compared with the frame's end; what a frame says that
// can't be (too short, an IPv4 header of less than 20 bytes) ends in NULL.

#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define VLAN_TAGS 2
#define VLAN_TAG_BYTES 4
#define VLAN_ID 0x0fff // of a tag's control information
#define EXTENSION_HEADERS 4

struct extension_header {
	__u8 next;
	__u8 length; // in 8 bytes beyond the first 8; a fragment header's is reserved and 0
	__be16 fragment; // offset in the upper 13 bits
};

// How the headers of TCP, UDP and SCTP begin.
struct ports {
	__be16 source;
	__be16 destination;
};

// On the stack a MAC address must lie 2 bytes before a multiple of 4, as the destination's in struct bpf_fib_lookup does.
static __always_inline void copy_mac(void *to, const volatile void *from)
{
	*(__u16 *)to = *(const volatile __u16 *)from;
	*(__u32 *)(to + 2) = *(const volatile __u32 *)(from + 2);
}

// Both ports of a transport header, to where two such lie one after the other.
static __always_inline void copy_ports(void *to, const volatile struct ports *ports)
{
	*(__u32 *)to = *(const volatile __u32 *)ports;
}

static __always_inline int is_vlan(__be16 ethertype)
{
	return ethertype == bpf_htons(ETH_P_8021Q) || ethertype == bpf_htons(ETH_P_8021AD);
}

// An IPv4 address as one of IPv6: the last four bytes of ::ffff:0:0/96 (RFC 4291).
static __always_inline struct in6_addr mapped(__be32 address)
{
	struct in6_addr result = {.s6_addr32 = {0, 0, bpf_htonl(0xffff), address}};

	return result;
}

// What follows the Ethernet header and up to two VLAN tags, and its type.
static __always_inline void *behind_ethernet(void *at, void *data_end, __be16 *ethertype)
{
	// Every header before the network layer ends with the type of what follows. Not through struct ethhdr, which is
	// packed: that would be two loads of a byte.
	at += sizeof(struct ethhdr);
	if (at > data_end)
		return NULL;
	*ethertype = *(__be16 *)(at - 2);
	for (int i = 0; i < VLAN_TAGS && is_vlan(*ethertype); i++) {
		at += VLAN_TAG_BYTES;
		if (at > data_end)
			return NULL;
		*ethertype = *(__be16 *)(at - 2);
	}
	return at;
}

// What follows an IPv4 header, and its protocol; NULL in a later fragment, which begins with no header.
static __always_inline void *behind_ipv4(struct iphdr *ip, void *data_end, __u8 *protocol)
{
	if ((void *)(ip + 1) > data_end || ip->ihl < 5 || ip->frag_off & bpf_htons(0x1fff))
		return NULL;
	*protocol = ip->protocol;
	return (void *)ip + ip->ihl * 4;
}

// The same behind an IPv6 header and up to four extension headers.
static __always_inline void *behind_ipv6(struct ipv6hdr *ip, void *data_end, __u8 *protocol)
{
	void *at = ip + 1;

	if (at > data_end)
		return NULL;
	*protocol = ip->nexthdr;

#pragma clang loop unroll(disable)
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		struct extension_header *header = at;

		if (*protocol != IPPROTO_HOPOPTS && *protocol != IPPROTO_ROUTING && *protocol != IPPROTO_DSTOPTS &&
		    *protocol != IPPROTO_FRAGMENT)
			break;
		if (at + 8 > data_end)
			return NULL;
		at += 8;
		if (*protocol != IPPROTO_FRAGMENT)
			at += header->length * 8;
		else if (header->fragment & bpf_htons(0xfff8))
			return NULL;
		*protocol = header->next;
	}
	return at;
}

// The same behind a header of that ethertype; NULL too for any other than those of IPv4 and IPv6.
static __always_inline void *behind_network(void *at, void *data_end, __be16 ethertype, __u8 *protocol)
{
	if (ethertype == bpf_htons(ETH_P_IP))
		return behind_ipv4(at, data_end, protocol);
	if (ethertype == bpf_htons(ETH_P_IPV6))
		return behind_ipv6(at, data_end, protocol);
	return NULL;
}

// Where the ports of a transport header are, NULL if its protocol has none, or if they are cut off.
static __always_inline struct ports *find_ports(void *transport, void *data_end, __u8 protocol)
{
	struct ports *ports = transport;

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP && protocol != IPPROTO_SCTP)
		return NULL;
	return (void *)(ports + 1) > data_end ? NULL : ports;
}
