/* SPDX-License-Identifier: BSD-2-Clause
 *
 * Loops that end by themselves, under the names that kernel sources use: may_goto leaves the loop when its bound is spent
 * (docs/extensions.md). For constants or conditions that the verifier can't see.
 *
 *	for (i = 0; i < n && can_loop; i++) ...
 *	while (1) { cond_break; ... }
 */
#ifndef BPFNIC_BPF_EXPERIMENTAL_H
#define BPFNIC_BPF_EXPERIMENTAL_H

#ifndef __BPF_FEATURE_MAY_GOTO
#error "can_loop and cond_break need the may_goto instruction: clang 19 or newer"
#endif

/* 1, or 0 once the bound is spent. */
#define can_loop                                                                                                       \
	({                                                                                                             \
		__label__ spent, on;                                                                                   \
		int __more = 1;                                                                                        \
		asm volatile goto("may_goto %l[spent]" : : : : spent);                                                 \
		goto on;                                                                                               \
	spent:                                                                                                         \
		__more = 0;                                                                                            \
	on:;                                                                                                           \
		__more;                                                                                                \
	})

#define cond_break                                                                                                     \
	if (can_loop)                                                                                                  \
		;                                                                                                      \
	else                                                                                                           \
		break

#endif
