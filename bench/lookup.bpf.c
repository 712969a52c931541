// SPDX-License-Identifier: BSD-2-Clause
//
// CALLS look-ups of a key that is there, in a map of TYPE with keys of KEY_BYTES bytes. bench/maps.py runs it.

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct key {
	__u8 bytes[KEY_BYTES];
} __attribute__((aligned(4)));

struct {
	__uint(type, TYPE);
	__uint(max_entries, 64);
	__uint(map_flags, FLAGS);
	__type(key, struct key);
	__type(value, __u64);
} map SEC(".maps");

SEC("xdp")
int lookups(struct xdp_md *ctx)
{
	struct key key;

	__builtin_memcpy(&key, (__u8[])KEY, KEY_BYTES);
#pragma unroll
	for (int i = 0; i < CALLS; i++)
		bpf_map_lookup_elem(&map, &key);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
