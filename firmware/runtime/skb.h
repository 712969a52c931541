/* The packet of a tc program as privileged routines see it: `struct __sk_buff`, whose words they may write where they
 * aren't read from the thread table, and behind it what programs can't reach. Everything is 0 when a program begins.
 * A packet has all of its bytes between data and data_end, and nobody has summed them (CHECKSUM_NONE).
 * tests/sim/test_tc_helpers.py compares what routines do with the running kernel. */
#pragma once
#include "runtime.h"
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <bpf/bpf_endian.h>

#define ENOTSUPP 524
#define INT_MAX 0x7fffffff
#define VLAN_HLEN 4
#define ETH_ALENS (2 * ETH_ALEN)

enum { CHECKSUM_NONE, CHECKSUM_UNNECESSARY };

struct skb {
	struct __sk_buff seen;
	__u16 network_header;   /* from data on, as all such */
	__u16 transport_header; /* 0 until it is set */
	__u8 ip_summed;
	__u8 csum_level;
	__u8 hashed; /* `hash` is one */
	__u8 encapsulated;
	__u8 tunnel_family; /* of `tunnel`, as it is read; 0: there is none */
	__u16 tunnel_flags; /* TUNNEL_* */
	struct bpf_tunnel_key tunnel;
};
_Static_assert(sizeof(struct skb) <= 256, "the window");

/* In a register, so that its fields are one instruction each. */
static __always_inline struct skb *skb_window(void)
{
	struct skb *skb = (struct skb *)SKB_WINDOW;

	asm("" : "+r"(skb));
	return skb;
}

#define SKB skb_window()

/* Words of `seen` that programs can't read say what bpf_redirect_neigh() found for the packet's header: `family` is one of
 * these, 0 where nobody called it, and at `local_ip6` both MACs stand as in a header. */
enum { NEIGHBOUR_UNKNOWN = 1, NEIGHBOUR_KNOWN };
#define NEIGHBOUR_MACS ((__u8 *)SKB->seen.local_ip6)

static __always_inline __u8 *packet(void)
{
	return (__u8 *)(long)SKB->seen.data;
}

/* The packet has these bytes. */
static __always_inline int holds(__u64 offset, __u64 size)
{
	return offset + size <= SKB->seen.len;
}

/* To or from the packet, which takes any alignment; `other` is the program's side of it. */
static __always_inline void copy_packet(void *to, const void *from, __u64 size, const void *other)
{
	__u64 place = (__u64)other < PACKET_WINDOW ? (__u64)other : 0;
	__u8 *target = to;
	const __u8 *source = from;

	if (place % 8 == 0)
		for (; size >= 8; size -= 8, target += 8, source += 8)
			*(__u64 *)target = *(const __u64 *)source;
	if (place % 4 == 0)
		for (; size >= 4; size -= 4, target += 4, source += 4)
			*(__u32 *)target = *(const __u32 *)source;
	if (place % 2 == 0)
		for (; size >= 2; size -= 2, target += 2, source += 2)
			*(__u16 *)target = *(const __u16 *)source;
	for (; size; size--)
		*target++ = *source++;
}

static __always_inline void clear(void *to, __u64 size)
{
	__u8 *target = to;

	if (takes((__u64)to, 8))
		for (; size >= 8; size -= 8, target += 8)
			*(__u64 *)target = 0;
	for (; size; size--)
		*target++ = 0;
}

static __always_inline void clear_hash(void)
{
	SKB->seen.hash = 0;
	SKB->hashed = 0;
}

/* Makes room of `size` zeros at `offset`, or behind the packet if it ends before: what lies before moves down. */
static __always_inline long open_room(__u32 offset, __u32 size)
{
	__u8 *old = packet(), *new;
	__u32 moved = 0;

	if (offset > SKB->seen.len)
		offset = SKB->seen.len;
	if (bpf_xdp_adjust_head(0, -(int)size))
		return -ENOMEM;
	new = packet();
	for (; moved + 8 <= offset; moved += 8)
		*(__u64 *)(new + moved) = *(__u64 *)(old + moved);
	for (; moved < offset; moved++)
		new[moved] = old[moved];
	clear(new + offset, size);
	return 0;
}

/* Takes out `size` bytes at `offset`: what lies before them moves up. */
static __always_inline long close_room(__u32 offset, __u32 size)
{
	__u8 *old = packet(), *new = old + size;

	if (!holds(offset, size))
		return -ENOMEM;
	for (; offset % 8; offset--)
		new[offset - 1] = old[offset - 1];
	for (; offset; offset -= 8)
		*(__u64 *)(new + offset - 8) = *(__u64 *)(old + offset - 8);
	return bpf_xdp_adjust_head(0, size) ? -ENOMEM : 0;
}

static __always_inline int is_vlan(__u32 protocol)
{
	return protocol == bpf_htons(ETH_P_8021Q) || protocol == bpf_htons(ETH_P_8021AD);
}

/* What an Ethernet header's type says of the protocol (eth_type_trans(), vlan_set_encap_proto()): lengths are no
 * types, and Novell's raw IPX begins with a checksum of all ones. */
static __always_inline __u16 protocol_of(__u16 type, __u16 following)
{
	if (bpf_ntohs(type) >= ETH_P_802_3_MIN)
		return type;
	return following == 0xffff ? bpf_htons(ETH_P_802_3) : bpf_htons(ETH_P_802_2);
}

static __always_inline void put_tag(__u32 protocol, __u16 tci)
{
	SKB->seen.vlan_present = 1;
	SKB->seen.vlan_proto = protocol;
	SKB->seen.vlan_tci = tci;
}

/* The tag's bytes go: the addresses before them move up. */
static __always_inline long remove_tag(void)
{
	__u8 *old = packet();

	*(__u32 *)(old + 12) = *(__u32 *)(old + 8);
	*(__u64 *)(old + 4) = *(__u64 *)old;
	return bpf_xdp_adjust_head(0, VLAN_HLEN);
}

/* Takes the tag out of the packet's bytes (__skb_vlan_pop()). */
static __always_inline long take_tag(__u16 *tci)
{
	__u8 *old = packet();
	__u16 type, following;

	if (!holds(0, ETH_HLEN + VLAN_HLEN))
		return -ENOMEM;
	*tci = bpf_ntohs(*(__u16 *)(old + ETH_HLEN));
	type = *(__u16 *)(old + ETH_HLEN + 2);
	following = holds(0, ETH_HLEN + VLAN_HLEN + 2) ? *(__u16 *)(old + ETH_HLEN + VLAN_HLEN) : 0;
	if (remove_tag())
		return -ENOMEM;
	SKB->seen.protocol = protocol_of(type, following);
	return 0;
}

/* Puts a tag into the packet's bytes (__vlan_insert_tag()). */
static __always_inline long insert_tag(__u32 protocol, __u16 tci)
{
	__u8 *new;

	if (bpf_xdp_adjust_head(0, -VLAN_HLEN))
		return -ENOMEM;
	new = packet();
	*(__u64 *)new = *(__u64 *)(new + 4);
	*(__u32 *)(new + 8) = *(__u32 *)(new + 12);
	*(__u16 *)(new + ETH_ALENS) = protocol;
	*(__u16 *)(new + ETH_HLEN) = bpf_htons(tci);
	return 0;
}
