"""Programs are replaced while packets run, where they are attached and where tail calls go to: none is lost, and each
sees one version of the program, whole."""

import struct
from collections import Counter

import pytest

from bpfnic.host.device import Arrival, Pacing, Progress
from bpfnic.host.nic import create
from bpfnic.spec.programs import XdpAction
from tests.sim.bench import ENDS, ONE_CORE, TWO_CORES, Bench

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

# What tells a version: constants in the code and in a map of its own, read and written at the start and at the end; how
# long the program is; its counter; its verdict.
SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

const volatile __u32 serial = 0;

SEC("xdp")
int tag(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 key = VERSION, sum = 0;
	__u64 *count;

	if (data + 64 > end)
		return XDP_DROP;
	*(__u32 *)(data + 16) = serial;
	data[20] = VERSION;
#pragma clang loop unroll(full)
	for (int i = 0; i < 1 + 2 * VERSION; i++)
		sum += *(volatile unsigned char *)(data + 32 + i);
	count = bpf_map_lookup_elem(&counts, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	data[21] = VERSION;
	*(__u16 *)(data + 22) = sum;
	*(__u32 *)(data + 24) = serial;
	return VERSION & 1 ? XDP_TX : XDP_PASS;
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} versions SEC(".maps");

SEC("xdp")
int enter(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &versions, 0);
	return XDP_DROP;
}

char _license[] SEC("license") = "Dual BSD/GPL";
"""
VERSIONS = 8
FRAMES = 2400
LAST = 300  # frames of a run: more than pass while a step swaps, so that no version comes when none is left to start


class Swapper:
    """Loads, attaches and unloads versions in turn, each with a serial number of its own."""

    def __init__(self, bench: Bench, objects, each: int, swaps: int):
        self.bench, self.device, self.objects = bench, bench.device, objects
        self.each, self.swaps = each, swaps  # swaps a call of on_step, and in all
        self.counts = self.device.create_map(objects[0].maps["counts"])
        self.version_of: list[int] = []  # by serial
        self.entries: Counter[int] = Counter()
        self.old = None
        self.swap()

    def swap(self) -> None:
        serial = len(self.version_of)
        version = serial * 5 % VERSIONS
        object = self.objects[version]
        object.rodata["serial"] = serial
        variables = create(self.device, object.maps[".rodata"])
        loaded = self.device.load(object.program("tag"), {".rodata": variables, "counts": self.counts})
        self.put(loaded)
        if self.old:
            self.device.unload(self.old[0])
            self.device.destroy_map(self.old[1])
        self.old = loaded, variables
        self.version_of.append(version)
        self.entries[loaded.entry] += 1

    def put(self, loaded) -> None:
        for port in range(2):
            self.device.attach(port, loaded)

    def on_step(self, progress: Progress) -> None:
        for _ in range(self.each):
            if progress.done < progress.total - LAST and len(self.version_of) <= self.swaps:
                self.swap()
        self.bench.counters()  # balance


class TableSwapper(Swapper):
    """Replaces what the attached program goes on with; now and then it is deleted before."""

    def __init__(self, bench: Bench, objects, each: int, swaps: int):
        device = bench.device
        self.table = device.create_map(objects[0].maps["versions"])
        enter = device.load(objects[0].program("enter"), {"versions": self.table})
        super().__init__(bench, objects, each, swaps)
        for port in range(2):
            device.attach(port, enter)

    def put(self, loaded) -> None:
        if len(self.version_of) % 10 == 5:
            self.table.delete(bytes(4))
        self.table.set_program(bytes(4), loaded)


@pytest.mark.parametrize("kind", [Swapper, TableSwapper])
@pytest.mark.parametrize("backend, size, swaps, each", [("golden", ONE_CORE, 50, 1), ("rtl", ONE_CORE, 1000, 16),
                                                        ("rtl", TWO_CORES, 200, 8)])  # fmt: skip
def test_swaps_under_traffic(build, backend, size, swaps, each, kind) -> None:
    objects = [build(SOURCE, define=[f"VERSION={version}"]) for version in range(VERSIONS)]
    frames = [bytes((number * 7 + i) % 256 for i in range(64 + number % 31)) for number in range(FRAMES)]
    arrivals = [Arrival(number % 2, frame) for number, frame in enumerate(frames)]
    with Bench(backend, **size) as bench:
        swapper = kind(bench, objects, each, swaps)
        seen: Counter[int] = Counter()
        versions: Counter[int] = Counter()
        last = [0, 0]
        runs = missed = 0
        while len(swapper.version_of) <= swaps:
            assert (runs := runs + 1) < 100
            traffic = bench.run(arrivals, Pacing(egress_stall=10 * (runs % 4), seed=runs), swapper.on_step)
            for arrival, packet in zip(arrivals, traffic.packets, strict=True):
                assert packet.accepted
                if kind is TableSwapper and packet.action is XdpAction.XDP_DROP:
                    missed += 1
                    continue
                assert packet.data is not None
                first, one, other, total, again = struct.unpack("<IBBHI", packet.data[16:28])
                version = swapper.version_of[first]
                assert (one, other, again) == (version, version, first)
                assert total == sum(arrival.data[32 : 33 + 2 * version])
                assert packet.data[:16] + packet.data[28:] == arrival.data[:16] + arrival.data[28:]
                assert packet.action is (XdpAction.XDP_TX if version & 1 else XdpAction.XDP_PASS)
                if size is ONE_CORE and kind is Swapper:
                    assert first >= last[arrival.interface]
                    last[arrival.interface] = first
                seen[first] += 1
                versions[version] += 1
        counts = [struct.unpack("<Q", swapper.counts.lookup(struct.pack("<I", key))[0])[0] for key in range(VERSIONS)]
        counters = bench.counters()
    assert counts == [versions[version] for version in range(VERSIONS)]
    ends = {name: sum(counters[name]) for name in ENDS}
    assert sum(counters["RECEIVED"]) == runs * FRAMES == ends["PASSED"] + ends["TRANSMITTED"] + missed
    assert ends.pop("DROPPED") == missed
    assert not any(ends[name] for name in ends if name not in ("PASSED", "TRANSMITTED"))
    assert len(seen) > 0.9 * swaps, "most versions must have met traffic"
    assert max(swapper.entries.values()) > swaps / 10, "slots must have been used again"
