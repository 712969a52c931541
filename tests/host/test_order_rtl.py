"""Pacing.flows_apart (`--order flow`): packets of one flow never run at the same time, so that a program may count on a
flow's map values without atomics, as under receive-side scaling."""

import pytest

from bpfnic.host import nic
from bpfnic.host.bench import Bench
from bpfnic.host.device import Arrival, Pacing

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC
FLOWS, FRAMES = 4, 100

UNGUARDED = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
    counts SEC(".maps");
SEC("xdp") int count(struct xdp_md *ctx)
{
    unsigned char *data = (void *)(long)ctx->data;
    if (data + 34 > (unsigned char *)(long)ctx->data_end)
        return XDP_ABORTED;
    __u32 flow = data[29] & 3;
    __u64 *count = bpf_map_lookup_elem(&counts, &flow);
    if (!count)
        return XDP_ABORTED;
    ++*count;
    return XDP_DROP;
}
"""


def frame(flow: int) -> bytes:
    """IPv4 from 10.0.0.flow to 10.0.1.0."""
    return bytes(12) + b"\x08\x00" + bytes(12) + bytes([10, 0, 0, flow, 10, 0, 1, 0]) + bytes(26)


def counted(source, flows_apart: bool) -> list[int]:
    arrivals = [Arrival(number // FLOWS % 2, frame(number % FLOWS)) for number in range(FLOWS * FRAMES)]
    bench = Bench("rtl", nic.open(source(UNGUARDED)), arrivals, Pacing(flows_apart=flows_apart))
    evidence = bench.run()
    assert bench.check(evidence) == {"reference": "golden", "equal": True}
    (values,) = [contents for name, contents in evidence.maps.items() if name == "counts"]
    return [int.from_bytes(value[0], "little") for _, value in sorted(values.items())]


def test_a_flow_has_its_map_values_for_itself(source):
    assert counted(source, flows_apart=True) == [FRAMES] * FLOWS


def test_without_it_threads_race(source):
    assert sum(counted(source, flows_apart=False)) < FLOWS * FRAMES
