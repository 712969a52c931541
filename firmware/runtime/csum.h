/* One's complement sums (include/net/checksum.h). */
#pragma once
#include "skb.h"

static __always_inline __u32 csum_add(__u32 sum, __u32 addend)
{
	__u64 wide = (__u64)sum + addend;

	return wide + (wide >> 32);
}

static __always_inline __u16 csum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/* The field of a packet that holds a sum, once `from` became `to` (both of `size` bytes, or `from` 0 and `to` their
 * difference if it is 0). Returns 0, or -EINVAL for other sizes. */
static __always_inline long csum_replace(__u16 *field, __u32 from, __u32 to, __u32 size)
{
	__u32 sum = (__u16)~*field;

	if (size == 2) {
		from = (__u16)from;
		to = (__u16)to;
	} else if (size != 4 && (size || from)) {
		return -EINVAL;
	}
	if (size)
		sum = csum_add(sum, ~from);
	*field = csum_fold(csum_add(sum, to));
	return 0;
}
