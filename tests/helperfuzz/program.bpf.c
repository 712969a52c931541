// SPDX-License-Identifier: BSD-2-Clause
//
// Calls helper NUMBER with the first five words of the packet in r1 to r5 (CALLBACK: with a function in r2), the next eight
// on the stack. Its verdict is what the helper returns, or that it passes where the word behind them isn't 0. fuzz.py
// makes the packets. TC: a tc program.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#ifdef TC
#define PASSES 0 /* TC_ACT_OK */
#else
#define PASSES XDP_PASS
#endif
#define MAP(NAME, TYPE, KEY, VALUE, ENTRIES, FLAGS)                                                                    \
	struct { __uint(type, BPF_MAP_TYPE_##TYPE); __uint(max_entries, ENTRIES); __uint(map_flags, FLAGS);           \
		 __uint(key_size, KEY); __uint(value_size, VALUE); } NAME SEC(".maps")

MAP(array, ARRAY, 4, 24, 8, 0);
MAP(percpu_array, PERCPU_ARRAY, 4, 8, 8, 0);
MAP(hash, HASH, 8, 16, 8, 0);
MAP(percpu_hash, PERCPU_HASH, 4, 8, 8, 0);
MAP(lru, LRU_HASH, 4, 8, 4, 0);
MAP(lpm, LPM_TRIE, 8, 8, 2, BPF_F_NO_PREALLOC);
MAP(queue, QUEUE, 0, 8, 4, 0);
MAP(stack, STACK, 0, 12, 4, 0);
MAP(ring, RINGBUF, 0, 0, 4096, 0);
MAP(events, PERF_EVENT_ARRAY, 4, 4, 16, 0);
MAP(programs, PROG_ARRAY, 4, 4, 4, 0);
MAP(ports, DEVMAP, 4, 4, 4, 0);
MAP(queues, CPUMAP, 4, 4, 4, 0);

static __attribute__((used)) long callback(__u64 first, void *second)
{
	return first == 3;
}

#ifdef TC
SEC("tc") int helper(struct __sk_buff *ctx)
#else
SEC("xdp") int helper(struct xdp_md *ctx)
#endif
{
	__u64 *packet = (void *)(long)ctx->data;
	__u64 room[8];
	__u64 kind = packet[13], result;

	if (!packet) /* never: but all maps are there */
		asm volatile("" : : "r"(&array), "r"(&percpu_array), "r"(&hash), "r"(&percpu_hash), "r"(&lru), "r"(&lpm),
			     "r"(&queue), "r"(&stack), "r"(&ring));
	if (!packet)
		asm volatile("" : : "r"(&events), "r"(&programs), "r"(&ports), "r"(&queues));
#pragma unroll
	for (int i = 0; i < 8; i++)
		room[i] = packet[5 + i];
	asm volatile("r1 = *(u64 *)(%[packet] + 0)\n r2 = *(u64 *)(%[packet] + 8)\n r3 = *(u64 *)(%[packet] + 16)\n"
		     "r4 = *(u64 *)(%[packet] + 24)\n r5 = *(u64 *)(%[packet] + 32)\n"
#ifdef CALLBACK
		     "r2 = %[function]\n"
#endif
		     "call %[number]\n %[result] = r0"
		     : [result] "=r"(result)
		     : [packet] "r"(packet), [number] "i"(NUMBER), "r"(room)
#ifdef CALLBACK
		       , [function] "r"(callback)
#endif
		     : "r0", "r1", "r2", "r3", "r4", "r5", "memory");
	return kind ? PASSES : result;
}

char _license[] SEC("license") = "GPL";
