// SPDX-License-Identifier: BSD-2-Clause
//
// CALLS times what CALL says in assembly, with A to E in r1 to r5 (A_IN: "i" of
// a constant, otherwise "r"); ALONE leaves it out, so that what remains is the
// program's own; TC makes it a tc program; FUNCTIONS says what functions of the
// kernel there are. bench/helpers.py runs it.

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64[4]); }
	array SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); }
	percpu SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 64); __type(key, __u64[2]); __type(value, __u64); }
	hash SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 64); __type(value, __u64); }
	queue SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); }
	programs SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); }
	ports SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 16384); }
	ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); }
	events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, __u32);
	 __type(value, struct { struct bpf_spin_lock lock; __u32 number; }); } locked SEC(".maps");

#ifdef FUNCTIONS
extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym;
extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash, __u32 *rss_type) __ksym;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *vlan_proto, __u16 *vlan_tci) __ksym;
#endif

static __attribute__((used)) long callback(void)
{
	return 0;
}

#ifdef TC
SEC("tc") int helper(struct __sk_buff *ctx)
#else
SEC("xdp") int helper(struct xdp_md *ctx)
#endif
{
	char *packet = (void *)(long)ctx->data;
	__u64 room[8] = { 0x3433323120313200, 0x61, 0, 0, 0, 0, 0, 0 };
	__u32 zero = 0;
	void *lock = 0;
#ifdef LOCK
	lock = bpf_map_lookup_elem(&locked, &zero);
#endif
#ifdef FAMILY /* struct bpf_fib_lookup: for 0.0.0.0, from the first port */
	room[0] = FAMILY;
	room[1] = 1;
#endif
#ifdef FUNCTIONS
	if (!packet) { /* never: but clang describes what is called in C alone */
		bpf_xdp_metadata_rx_timestamp(ctx, room);
		bpf_xdp_metadata_rx_hash(ctx, (void *)room, (void *)room);
		bpf_xdp_metadata_rx_vlan_tag(ctx, (void *)room, (void *)room);
		bpf_iter_num_new((void *)room, 0, 0);
		bpf_iter_num_next((void *)room);
		bpf_iter_num_destroy((void *)room);
	}
#endif
	asm volatile("" : : "r"(packet), "r"(lock), "r"(room), "r"(&zero) : "memory");
#pragma unroll
	for (int i = 0; i < CALLS; i++) {
		__u64 a = (__u64)(A), b = (__u64)(B), c = (__u64)(C), d = (__u64)(D), e = (__u64)(E);

		asm volatile("r1 = %[a]\n r2 = %[b]\n r3 = %[c]\n r4 = %[d]\n r5 = %[e]\n"
#ifndef ALONE
			     CALL
#endif
			     : : [a] A_IN(a), [b] B_IN(b), [c] C_IN(c), [d] D_IN(d), [e] E_IN(e)
			     : "r0", "r1", "r2", "r3", "r4", "r5", "memory");
	}
#ifdef TC
	return TC_ACT_SHOT;
#else
	return XDP_DROP;
#endif
}

char _license[] SEC("license") = "Dual BSD/GPL";
