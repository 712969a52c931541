"""Rings on the whole NIC: threads that race for room, a host that takes its time, and golden in lockstep."""

import random
import struct

import pytest

from bpfnic import Nic
from bpfnic.host.bench import Bench
from bpfnic.host.device import Arrival, DeviceOptions, Pacing
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import XdpAction
from bpfnic.spec.rings import CURRENT_CPU, PACKET_BYTES_SHIFT
from tests.sim.test_events import (
    CROSSED,
    DISCARD,
    EVENT,
    LEFT_BEHIND,
    OUTPUT,
    PROGRAM,
    QUERY,
    REQUESTS,
    RESERVE,
    SIZES,
    SOURCE,
)

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC


def requests(chance: random.Random) -> bytes:
    """A packet that asks for records of all kinds."""
    asked = []
    for _ in range(REQUESTS):
        operation = chance.choice([OUTPUT, RESERVE, DISCARD, QUERY, CROSSED, EVENT, EVENT])
        flags = chance.choice((0, 0, 0, 0, 1, 2, 3, 4))
        size = chance.choice((0, 1, 8, 100)) if chance.random() < 0.8 else chance.choice(SIZES)
        if operation == EVENT:
            packet = chance.choice((0, 0, 0, 1, 14, 99, 400, 1 << 20))
            flags = packet << PACKET_BYTES_SHIFT | chance.choice((CURRENT_CPU, CURRENT_CPU, CURRENT_CPU, 0, 3, 17, 25))
        asked.append(struct.pack("<IIQ", operation, size, flags))
    return bytes(range(16)) + b"".join(asked) + bytes(chance.randrange(64))


@pytest.fixture
def obj(build):
    define = ["RING=4096", "ENTRIES=20", f"REQUESTS={REQUESTS}", "EACH(M)=" + " ".join(f"M({size})" for size in SIZES)]
    return build(PROGRAM, define=define)


@pytest.mark.parametrize("stall", [0, 80])
def test_racing_threads_in_lockstep(obj, stall):
    """Every result of every call, and every record that came, is golden's."""
    chance = random.Random(stall)
    arrivals = [Arrival(number % 2, requests(chance)) for number in range(150)]
    sources = {"sources": [(bytes(4), [SOURCE], False)]}
    bench = Bench("rtl", obj, arrivals, Pacing(egress_stall=stall, seed=stall), entries=[sources])
    evidence, check = bench.in_lockstep()
    assert check["equal"], check
    assert len(evidence.maps["ring"]) > 100 and len(evidence.maps["perf"]) > 50
    assert all(packet.action is XdpAction.XDP_PASS for packet in evidence.traffic.packets)
    if stall:
        assert evidence.lost["perf"] > 0


@pytest.mark.parametrize("cores", [1, 2])
def test_a_recording_has_what_left(obj, cores):
    """`--check` replays it, on several cores too; nothing of packets is lost beside the records."""
    chance = random.Random(cores)
    arrivals = [Arrival(number % 2, requests(chance)) for number in range(200)]
    sources = {"sources": [(bytes(4), [SOURCE], False)]}
    sizes = DeviceOptions(cores=cores, threads=16 // cores)
    bench = Bench("rtl", obj, arrivals, Pacing(egress_stall=30), sizes, entries=[sources])
    evidence = bench.run()
    check = bench.check(evidence)
    assert check["equal"], check
    assert sum(packet.data is not None for packet in evidence.traffic.packets) == len(arrivals)


def test_records_left_behind_hold_nothing_back(build):
    """Programs that end or trap with a record reserved, on all threads."""
    obj = build(LEFT_BEHIND)
    chance = random.Random(1)
    kinds = [chance.randrange(5) for _ in range(300)]
    with Nic("rtl") as nic:
        nic.load(obj, unsafe=True).attach()
        traffic = nic.run([Arrival(0, bytes([kind] * 64)) for kind in kinds])
        came = [record[0] for record in nic.maps["ring"]]
        asked = [kind for kind, packet in zip(kinds, traffic.packets, strict=True)
                 if packet.action is not XdpAction.XDP_DROP and kind not in (1, 2)]  # fmt: skip
        assert sorted(came) == sorted(asked) and len(came) > 20
        again = nic.run([Arrival(0, bytes(64))] * 2)
        assert [packet.action for packet in again.packets] == [XdpAction.XDP_TX] * 2
        assert len(list(nic.maps["ring"])) == 2


def test_records_come_while_the_nic_runs(obj):
    """`on_step` may take them."""
    with Nic("rtl") as nic:
        nic.load(obj).attach()
        data = bytes(range(16)) + struct.pack("<IIQ", OUTPUT, 8, 0) * REQUESTS
        seen = []
        nic.run([Arrival(0, data)] * 400, on_step=lambda _: seen.append(len(list(nic.maps["ring"]))))
        assert len([count for count in seen if count]) > 2
        assert sum(seen) + len(nic.maps["ring"]) <= 400 * REQUESTS


WRONG_MAPS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __type(key, int); __type(value, int); } perf SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} hash SEC(".maps");
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u8 *packet = (void *)(long)ctx->data;
	__u64 word = 0;
	switch (packet[0]) {
	case 0: bpf_map_lookup_elem(&ring, &word); break;
	case 1: bpf_map_update_elem(&perf, &word, &word, 0); break;
	case 2: bpf_ringbuf_output(&hash, &word, 8, 0); break;
	case 3: bpf_ringbuf_query(&perf, 0); break;
	case 4: bpf_perf_event_output(ctx, &ring, 0, &word, 8); break;
	case 5: bpf_ringbuf_reserve(&perf, 8, 0); break;
	case 6: bpf_map_delete_elem(&perf, &word); break;
	case 7: bpf_ringbuf_submit((void *)&word, 0); break;
	case 8: bpf_ringbuf_output(&ring, (void *)64, 8, 0); break;
	case 9: bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, (void *)64, 8); break;
	default: bpf_ringbuf_output(&ring, &word, 8, 0); bpf_perf_event_output(ctx, &perf, BPF_F_CURRENT_CPU, &word, 8);
	}
	return XDP_PASS;
}
"""


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_what_is_no_ring(build, backend):
    """(Linux's verifier refuses it.) It aborts the packet with cause MAP; a record that can't be read does with cause
    MEMORY_ACCESS, and holds nothing back."""
    with Nic(backend) as nic:
        nic.load(build(WRONG_MAPS), unsafe=True).attach()
        packets = nic.run([Arrival(0, bytes([kind] * 64)) for kind in range(11)]).packets
        causes = [packet.cause for packet in packets]
        assert causes == [Cause.MAP] * 8 + [Cause.MEMORY_ACCESS] * 2 + [Cause.NONE]
        assert (list(nic.maps["ring"]), list(nic.maps["perf"])) == ([bytes(8)], [bytes(12)])
