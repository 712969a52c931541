// SPDX-License-Identifier: BSD-2-Clause
//
// Calls helper NUMBER with five words of the packet in r1 to r5 (CALLBACK: with a function in r2), the next eight on the
// stack. Its verdict is what the helper returns, or that it passes where the word behind them isn't 0. fuzz.py makes the
// packets. TC: a tc program, which the next two words tell what to do with the packet before that; the words lie behind
// headers.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include "maps.h"

#ifdef TC
#define PASSES 0 /* TC_ACT_OK */
#define WORDS_AT 64
#else
#define PASSES XDP_PASS
#define WORDS_AT 0
#endif

static __attribute__((used)) long callback(__u64 first, void *second)
{
	return first == 3;
}

#ifdef TC
#include "prepare.h"

SEC("tc") int helper(struct __sk_buff *ctx)
#else
SEC("xdp") int helper(struct xdp_md *ctx)
#endif
{
	__u64 *packet = (void *)(long)ctx->data + WORDS_AT;
	struct { __u64 arguments[5], room[8]; } area; /* the room reaches up to r10 */
	__u64 kind = packet[13], result;
#ifdef TC
	__u64 prepared = packet[14];
#endif

	if (!ctx->data) /* never: but all maps are there */
		asm volatile("" : : "r"(&array), "r"(&percpu_array), "r"(&hash), "r"(&percpu_hash), "r"(&lru), "r"(&lpm),
			     "r"(&lru_percpu), "r"(&queue), "r"(&stack), "r"(&ring));
	if (!ctx->data)
		asm volatile("" : : "r"(&events), "r"(&programs), "r"(&ports), "r"(&queues));
#pragma unroll
	for (int i = 0; i < 13; i++)
		((volatile __u64 *)&area)[i] = packet[i];
#ifdef TC
	prepare(ctx, prepared, packet[15]);
#endif
	asm volatile("r1 = *(u64 *)(%[area] + 0)\n r2 = *(u64 *)(%[area] + 8)\n r3 = *(u64 *)(%[area] + 16)\n"
		     "r4 = *(u64 *)(%[area] + 24)\n r5 = *(u64 *)(%[area] + 32)\n"
#ifdef CALLBACK
		     "r2 = %[function]\n"
#endif
		     "call %[number]\n %[result] = r0"
		     : [result] "=r"(result)
		     : [area] "r"(&area), [number] "i"(NUMBER)
#ifdef CALLBACK
		       , [function] "r"(callback)
#endif
		     : "r0", "r1", "r2", "r3", "r4", "r5", "memory");
#ifdef TC
	if (prepared == 1) /* where there may be no room for a tag, with which the packet would be dropped */
		bpf_skb_vlan_pop(ctx);
#endif
	return kind ? PASSES : result;
}

char _license[] SEC("license") = "GPL";
