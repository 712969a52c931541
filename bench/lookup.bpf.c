// SPDX-License-Identifier: BSD-2-Clause
//
// CALLS look-ups in a map of TYPE with ENTRIES keys of KEY_BYTES bytes: the words KEY, then a number below ENTRIES. Each
// packet draws KEYS numbers and looks those up in turn. bench/maps.py runs it.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define WORDS (KEY_BYTES / 4)

struct key {
	__u32 words[WORDS];
};

struct {
	__uint(type, TYPE);
	__uint(max_entries, ENTRIES);
	__uint(map_flags, FLAGS);
	__type(key, struct key);
	__type(value, __u64);
} map SEC(".maps");

SEC("xdp")
int lookups(struct xdp_md *ctx)
{
	__u32 drawn = bpf_get_prandom_u32();
	struct key keys[KEYS];

#pragma unroll
	for (int i = 0; i < KEYS; i++) {
		drawn = drawn * 1664525 + 1013904223;
		keys[i] = (struct key){{KEY drawn >> 16 & (ENTRIES - 1)}};
	}
#pragma unroll
	for (int i = 0; i < CALLS; i++)
		bpf_map_lookup_elem(&map, &keys[i % KEYS]);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
