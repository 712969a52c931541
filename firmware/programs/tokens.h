// SPDX-License-Identifier: BSD-2-Clause
//
// A token bucket that CPUs share without a lock. It is one number, the time at which it will be full: now or earlier
// if it is. Who takes a token moves it on, by compare and exchange, by the time in which a new one comes.

#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define TRIES 64 // to take a token while others take theirs; then there is none

// Takes a token from a bucket of `burst`, of which one comes every `interval` nanoseconds; 0 if there is none.
static __always_inline int take_token(__u64 *full, __u64 interval, __u32 burst)
{
	__u64 now = bpf_ktime_get_ns(), room = burst * interval;

#pragma clang loop unroll(disable)
	for (int i = 0; i < TRIES; i++) {
		__u64 before = *(volatile __u64 *)full;
		__u64 after = (before > now ? before : now) + interval;

		if (after - now > room)
			return 0;
		if (__sync_val_compare_and_swap(full, before, after) == before)
			return 1;
	}
	return 0;
}
