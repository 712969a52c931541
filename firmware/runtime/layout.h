/* How each map lies in map memory, by its number; the driver keeps it so (host/maplayout.py): a map's type, entries, the
 * address of its first value, and bytes from one value to the next and from one CPU's to the next, 0 for a map that all
 * CPUs share. */
#pragma once

struct layout {
	__u32 type, entries, values, stride, cpu_stride, cpus;
};

/* As many entries as the NIC has maps. */
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct layout); }
	map_layouts SEC(".maps");

/* NULL where `map` is none. */
static __always_inline const struct layout *layout_of(void *map)
{
	__u32 number = (__u64)map % (1 << HANDLE_KEY_BIT) / 16;

	return (__u64)map < MAP_HANDLES ? 0 : bpf_map_lookup_elem(&map_layouts, &number);
}
