"""Helpers in firmware where the kernel can't be asked: clocks, and the values of other CPUs."""

import pytest

from tests.sim.library import Library

PER_CPU = """
struct { __uint(type, BPF_MAP_TYPE_KIND); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
	table SEC(".maps");
static __noinline long run(__u64 a, __u64 b)
{
	__u32 key = a;
	__u64 *value = bpf_map_lookup_percpu_elem(&table, &key, b);
	return value ? *value : -1;
}
"""


@pytest.mark.parametrize("kind", ["PERCPU_ARRAY", "PERCPU_HASH", "LRU_PERCPU_HASH"])
def test_the_value_of_each_cpu(build, kind):
    with Library(build, "golden", "run(a, b)", PER_CPU.replace("KIND", kind), threads=8) as card:
        values = [(100 + cpu).to_bytes(8, "little") for cpu in range(8)]
        card.nic.maps["table"].device_map.update((2).to_bytes(4, "little"), values)
        assert [card.ask(2, cpu).result for cpu in range(10)] == [*range(100, 108), -1, -1]
        assert card.ask(9, 0).result == -1


def test_a_map_with_one_value_for_all_has_none_for_a_cpu(build):
    with Library(build, "golden", "run(a, b)", PER_CPU.replace("KIND", "HASH"), threads=8,
                 unsafe=True) as card:  # fmt: skip
        card.nic.maps["table"].device_map.update(bytes(4), [bytes(8)])
        assert card.ask(0, 0).result == -1


def test_layouts_follow_maps_that_come_and_go(build):
    """The map of another object that is loaded later lies elsewhere."""
    declarations = PER_CPU.replace("KIND", "PERCPU_ARRAY")
    with Library(build, "golden", "run(a, b)", declarations, threads=2) as card:
        card.program.unload()
        card.program = card.nic.load(build(PER_CPU_LATER))
        card.nic.maps["later"].device_map.update((1).to_bytes(4, "little"), [b"\5".ljust(8, b"\0"), bytes(8)])
        assert card.program.test_run(bytes(64)).retval == 5


PER_CPU_LATER = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 99); __type(key, __u32); __type(value, __u64); }
	before SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); }
	later SEC(".maps");
SEC("xdp") int later_program(struct xdp_md *ctx)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_percpu_elem(&later, &key, 0);
	return bpf_map_lookup_elem(&before, &key) && value ? *value : -1;
}
"""


def test_jiffies_are_ticks_of_4_ms(build):
    call = "({ __u64 before = bpf_ktime_get_ns(), ticks = bpf_jiffies64(), behind = bpf_ktime_get_ns();" \
           " before / 4000000 <= ticks && ticks <= behind / 4000000; })"  # fmt: skip
    with Library(build, "golden", call) as card:
        assert card.ask().result == 1


def test_atomic_time_is_as_far_ahead_as_the_host_says(build):
    call = "({ __u64 before = bpf_ktime_get_ns(), tai = bpf_ktime_get_tai_ns(); tai - before; })"
    with Library(build, "golden", call) as card:
        assert 0 <= card.ask().result < 1_000_000
        for offset in (37_000_000_000, -5_000_000_000):
            card.nic.device.set_tai_offset(offset)
            assert offset <= card.ask().result < offset + 1_000_000
