/* What routines of the runtime have in common. Numbers of the NIC (PACKET_WINDOW, …) come from spec/ by the compiler's
 * command line (host/runtime.py). */
#pragma once
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define __no_builtin __attribute__((no_builtin))
#define __small __attribute__((minsize))

/* Words of `size` bytes may be read and written at an address: below packets (context and stack) only where they are
 * naturally aligned. */
static __always_inline int takes(__u64 address, __u64 size)
{
	return address >= PACKET_WINDOW || address % size == 0;
}

/* A pointer that a program has given to a privileged routine, which reaches more than the program does: of what lies below
 * packets it may lead into the program's stack alone. Every such routine asks this of every such pointer before its first
 * access (tests/sim/test_routine_bounds.py). */
static __always_inline int out_of_bounds(const void *pointer, __u64 size)
{
	__u64 address = (__u64)pointer;

	return address < PACKET_WINDOW && (address < STACK_WINDOW || address + size > STACK_WINDOW + STACK_BYTES);
}

/* For regions that don't overlap. */
static __always_inline void copy(void *to, const void *from, __u64 size)
{
	char *target = to;
	const char *source = from;

	if (takes((__u64)to, 8) && takes((__u64)from, 8))
		for (; size >= 8; size -= 8, target += 8, source += 8)
			*(__u64 *)target = *(const __u64 *)source;
	if (takes((__u64)to, 4) && takes((__u64)from, 4))
		for (; size >= 4; size -= 4, target += 4, source += 4)
			*(__u32 *)target = *(const __u32 *)source;
	for (; size; size--)
		*target++ = *source++;
}
