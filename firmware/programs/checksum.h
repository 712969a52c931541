// SPDX-License-Identifier: BSD-2-Clause
//
// The Internet checksum (RFC 1071): the complement of the ones' complement sum of 16-bit words. Such a sum doesn't care
// for byte order, so that words are taken as they lie in the packet, and for carries it may be made of 32-bit words in
// 64 bits and folded at the end.

#pragma once

#include <linux/bpf.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// A sum of up to 65,536 32-bit words in 16 bits.
static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

// A checksum after some words that it covers have changed: `change` is the sum of the new ones and of the complements
// of the old ones, in 32 bits (RFC 1624, equation 3).
static __always_inline __u16 changed(__u16 check, __u64 change)
{
	return ~folded((__u16)~check + change);
}

// What one 32-bit word adds to `change`.
static __always_inline __u64 change_of(__u32 old, __u32 new)
{
	return (__u64)(__u32)~old + new;
}

// Takes 1 from the TTL, the upper byte of its 16-bit word, which adds 0x0100 to the checksum; a carry out of 16 bits
// comes back in at the bottom.
static __always_inline void decrement_ttl(struct iphdr *ip)
{
	__u32 sum = ip->check + bpf_htons(0x0100);

	ip->check = sum + ((sum + 1) >> 16); // of the two zeros, 0xffff becomes 0, as in a sum made afresh
	ip->ttl--;
}
