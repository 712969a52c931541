/* bpf_ktime_get_tai_ns(): the NIC's clock, and how far it is behind International Atomic Time, which the host says. */
#include "runtime.h"

struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); }
	tai_offset SEC(".maps");

__u64 helper_ktime_get_tai_ns(void)
{
	__u32 key = 0;
	__u64 *offset = bpf_map_lookup_elem(&tai_offset, &key);

	return bpf_ktime_get_ns() + (offset ? *offset : 0);
}
