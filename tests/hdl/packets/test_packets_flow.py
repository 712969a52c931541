"""Frames in are frames out: bytes, order, counters, buffers, at every pace. The bench checks the balance each clock."""

import pytest

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import IngressEvent, Service
from bpfnic.hdl.packets.transmit import BEATS
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import XdpAction

ONE = NicConfig(threads=8, trace=True)
SMALL = NicConfig(threads=8, ports=1, trace=True)  # the fewest interfaces
TWO = NicConfig(threads=8, cores=2, trace=True)
WIDE = NicConfig(threads=8, cores=3, ports=3, buffer_bytes=4096, trace=True)  # cores are no power of two
ALL = pytest.mark.parametrize("config", [ONE, SMALL, TWO, WIDE], ids=["one", "small", "two", "wide"])

SIZES = [60, 61, 64, 65, 127, 1500, 1514, 1792]


def mixed(bench, count, sizes=SIZES):
    """`count` frames to each ingress, good and bad ones."""
    limit = bench.config.buffer_bytes - 256
    for _ in range(count):
        for ingress in range(bench.config.interfaces):
            size = bench.random.choice([*sizes, *sizes, 14, 13, 1, limit, limit + 1, limit + 9])
            bench.send(ingress, bench.frame(size), bad=bench.chance(0.05), port=bench.random.randrange(8))


def capacity(bench):
    """How many 64-byte frames find a place when none can leave."""
    entries, waits, before = bench.entries, bench.waits, len(bench.accepted[0])
    bench.entries = [None] * bench.config.interfaces
    bench.waits = [(False, True)] * bench.config.interfaces
    bench.configure()
    bench.egress_ready, bench.gap = 0.0, 0.0
    for _ in range(2 * bench.config.cores * bench.config.packet_buffers):
        bench.send(0, bench.frame(64))
    bench.run(40 * bench.config.cores * bench.config.packet_buffers)
    found = len(bench.accepted[0]) - before
    bench.egress_ready = 1.0
    bench.run()
    bench.entries, bench.waits = entries, waits
    bench.configure()
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gap, egress_ready", [(0.0, 1.0), (0.0, 0.1), (0.3, 0.5), (0.8, 1.0), (0.8, 0.1)])
def test_every_frame_size_at_every_pace(new_bench, gap, egress_ready, size):
    bench = new_bench(ONE, seed=size)
    bench.gap, bench.egress_ready, bench.start_ready = gap, egress_ready, 0.5
    bench.attach(bench.anything(4), 0, 1)
    for _ in range(max(3, 1500 // size)):
        for ingress in range(3):
            bench.send(ingress, bench.frame(size), port=bench.random.randrange(2))
    bench.run()
    bench.verify()


@ALL
def test_anything_in_any_configuration_leaks_nothing(new_bench, config, thorough):
    bench = new_bench(config, seed=7)
    fresh = capacity(bench)
    # Each core's last buffer is for clones; what waits at the egress needs none.
    assert fresh == config.cores * (config.packet_buffers - 1) + BEATS // 8
    for gap, egress_ready, waits in ((0.0, 1.0, False), (0.1, 0.6, True), (0.0, 0.2, False), (0.5, 0.9, True)):
        bench.gap, bench.egress_ready, bench.issue = gap, egress_ready, bench.random.choice([0.5, 1.0])
        bench.waits = [(waits or bench.chance(0.5), waits or bench.chance(0.5)) for _ in range(config.interfaces)]
        bench.attach(bench.anything(40), *range(config.interfaces))
        mixed(bench, 60 if thorough else 120 // config.interfaces)
        bench.run()
    bench.verify()
    assert capacity(bench) == fresh
    bench.verify()
    # Everything happened somewhere.
    for event in IngressEvent:
        assert any(counts[event] for counts in bench.counts), event
    assert all(bench.causes[cause] for cause in Cause if cause != Cause.NONE)


def test_without_programs_the_host_gets_and_sends(new_bench):
    bench = new_bench(ONE)
    for port in range(8):
        bench.send(2, bench.frame(80), port=port)
    for port in range(2):
        bench.send(port, bench.frame(90))
    bench.run()
    bench.verify()
    assert [len(sent) for sent in bench.sent] == [1, 1, 2]
    assert bench.counts[2][IngressEvent.TRANSMITTED] == 2 and bench.counts[2][IngressEvent.REFUSED_ERROR] == 6


def test_a_program_of_the_host_transmits_to_the_host(new_bench):
    bench = new_bench(ONE)
    bench.attach(bench.verdict(XdpAction.XDP_TX), 2)
    bench.send(2, bench.frame(80))
    bench.run()
    bench.verify()
    assert [len(sent) for sent in bench.sent] == [0, 0, 1]


@pytest.mark.parametrize(
    "length, bad, event",
    [
        (13, False, IngressEvent.REFUSED_ERROR),
        (14, False, None),
        (14, True, IngressEvent.REFUSED_ERROR),
        (1, False, IngressEvent.REFUSED_ERROR),
        (1792, False, None),
        (1792, True, IngressEvent.REFUSED_ERROR),
        (1793, False, IngressEvent.REFUSED_LONG),
        (1793, True, IngressEvent.REFUSED_LONG),
        (9000, False, IngressEvent.REFUSED_LONG),
        (65535, False, IngressEvent.REFUSED_LONG),
    ],
)
def test_a_frame_of_no_use_is_refused_and_the_next_one_is_not(new_bench, length, bad, event):
    bench = new_bench(ONE)
    bench.send(0, bench.frame(length), bad=bad)
    bench.send(0, bench.frame(100))
    bench.run()
    bench.verify()
    assert [reason for _, reason in bench.refused[0]] == ([event] if event is not None else [])
    assert len(bench.accepted[0]) == (1 if event is not None else 2)


def test_without_a_buffer_frames_wait_or_are_refused_whole(new_bench):
    bench = new_bench(ONE)
    bench.waits = [(False, True), (True, True), (True, True)]
    bench.configure()
    bench.egress_ready = 0.0
    for _ in range(40):
        for port in range(2):
            bench.send(port, bench.frame(200))
    bench.run(3000)
    assert bench.refused[0] and not bench.pending[0]  # drained
    assert not bench.refused[1] and bench.pending[1]
    bench.egress_ready = 1.0
    bench.run()
    bench.verify()
    assert len(bench.accepted[1]) == 40
    assert {event for _, event in bench.refused[0]} == {IngressEvent.REFUSED_FULL}


def test_nothing_is_refused_while_a_buffer_is_free(new_bench):
    """However the beats of three ingresses fall between each other: 12 frames, 16 buffers, and none is given back."""
    bench = new_bench(ONE)
    bench.waits = [(False, True)] * 3
    bench.configure()
    for _ in range(10):
        bench.gap, bench.egress_ready = bench.random.choice([0.0, 0.2, 0.5]), 0.0
        for _ in range(4):
            for ingress in range(3):
                bench.send(ingress, bench.frame(bench.random.randrange(14, 200)))
        bench.run(500)
        bench.egress_ready = 1.0
        bench.run()
    bench.verify()
    assert not any(bench.refused)


@pytest.mark.parametrize("waits", [False, True])
def test_a_full_queue_holds_up_no_other_egress(new_bench, waits):
    """The host does not take its packets; port 1 sends its own back all the same."""
    bench = new_bench(ONE)
    bench.waits = [(True, True), (True, True), (True, waits)]
    bench.attach(bench.verdict(XdpAction.XDP_TX), 1)
    for _ in range(12):
        bench.send(0, bench.frame(64))
    for _ in range(60):
        bench.send(1, bench.frame(64))
    bench.stalled = {2}
    bench.run(2000)
    assert len(bench.sent[1]) == 60 and not bench.sent[2]
    assert bool(sum(bench.egress_dropped)) != waits
    bench.stalled = set()
    bench.run()
    bench.verify()


def test_nothing_begins_while_disabled(new_bench):
    bench = new_bench(ONE)
    bench.send(0, bench.frame(200))
    bench.send(0, bench.frame(200))
    bench.run(10)
    bench.enable = False  # within the first frame, which goes on
    bench.run(200)
    assert len(bench.sent[2]) == 1 and len(bench.pending[0]) == 1
    bench.enable = True
    bench.run()
    bench.verify()


def test_a_redirect_needs_a_port(new_bench):
    """bpf_redirect's last target counts, and only a port of this device."""
    plans = [[], [10], [17], [24], [0], [99], [10, 17], [17, 99], [10 | 1 << 32], [10, (99, 1)], [(10, 1)]]

    def program(bench, packet):
        for call in plans[packet.bytes[256]]:
            ifindex, flags = call if isinstance(call, tuple) else (call, 0)
            yield "service", Service.REDIRECT.value, ifindex, flags
        yield "exit", XdpAction.XDP_REDIRECT, 0

    bench = new_bench(ONE)
    bench.attach(program, 0)
    assert bench.ifindexes == [10, 17, 24]
    for number in range(len(plans)):
        bench.send(0, bytes([number]) + bench.frame(63))
    bench.run()
    bench.verify()
    assert [content[0] for _, _, content in bench.sent[0]] == [1, 8, 9]
    assert [content[0] for _, _, content in bench.sent[1]] == [2, 6]
    assert bench.causes[Cause.REDIRECT] == 6


def test_order_holds_whatever_the_programs_take(new_bench):
    """The first of every eight packets takes a thousand clocks; all leave in the order of their coming."""

    def program(bench, packet):
        for _ in range(1000 if packet.bytes[256] % 8 == 0 else 1):
            yield "load", 0, 0, 3
        yield "exit", XdpAction.XDP_TX if packet.bytes[256] % 2 else XdpAction.XDP_PASS, 0

    bench = new_bench(TWO)
    bench.attach(program, 0, 1)
    for number in range(64):
        for port in range(2):
            bench.send(port, bytes([number]) + bench.frame(59))
    bench.run()
    bench.verify()
    for port in range(2):
        assert [content[0] for _, _, content in bench.sent[port]] == list(range(1, 64, 2))
        assert [content[0] for ingress, _, content in bench.sent[2] if ingress == port] == list(range(0, 64, 2))


def test_an_entry_counts_from_the_next_packet_on(new_bench):
    bench = new_bench(ONE)
    for entry in (None, 3, None, 1000):
        bench.entries[0], bench.program = entry, bench.verdict(XdpAction.XDP_TX)
        bench.configure()
        bench.send(0, bench.frame(70))
        bench.run()
    bench.verify()
    assert [len(sent) for sent in bench.sent] == [2, 0, 2]


# ---------------------------------------------------------------- pace


def steady(bench, egress):
    """Clocks from frame to frame at an egress, without the first and last few."""
    ends = bench.ends[egress]
    return [later - earlier for earlier, later in zip(ends[4:-4], ends[5:-3], strict=True)]


@pytest.mark.parametrize("size, clocks", [(60, 8), (64, 8), (65, 10), (128, 16), (1514, 190)])
@pytest.mark.parametrize("attached", [False, True])
def test_back_to_back_frames_take_a_clock_a_beat(new_bench, size, clocks, attached):
    bench = new_bench(ONE)
    if attached:
        bench.attach(bench.verdict(XdpAction.XDP_TX), 0)
    for _ in range(40):
        bench.send(0, bench.frame(size))
    bench.run()
    bench.verify()
    assert max(steady(bench, 0 if attached else 2)) <= clocks


def test_ingresses_share_a_core_fairly(new_bench):
    bench = new_bench(ONE)
    bench.attach(bench.verdict(XdpAction.XDP_TX), 0, 1, 2)
    for _ in range(60):
        for ingress in range(3):
            bench.send(ingress, bench.frame(64), port=0)
    bench.run()
    bench.verify()
    for egress in range(3):
        ends = steady(bench, egress)
        assert sum(ends) / len(ends) <= 24.1  # three times 8 beats through one core's buffers


def test_one_packet_alone_is_through_in_a_few_clocks(new_bench):
    bench = new_bench(ONE)
    bench.send(0, bench.frame(64))
    bench.run()
    assert bench.ends[2][0] <= 8 + 20 + 8  # in, between, out


def ipv4(bench, source: int, target: int) -> bytes:
    """A frame between two hosts of which no other pair has the same exclusive or."""
    addresses = bytes([10, 0, 0, 1 << source]) + bytes([10, 0, 0, 1 << target])
    return bytes(12) + b"\x08\x00" + bytes(12) + addresses + bench.frame(40)


@pytest.mark.parametrize("config", [ONE, TWO, WIDE], ids=["one", "two", "wide"])
@pytest.mark.parametrize("apart", [False, True])
def test_packets_of_a_flow_are_kept_apart_and_in_order(new_bench, config, apart):
    bench = new_bench(config, seed=3)
    bench.apart = apart
    bench.attach(bench.anything(30), 0, 1)
    for _ in range(150):
        for ingress in range(2):
            one, other = bench.random.sample(range(4), 2)
            bench.send(ingress, bench.frame(60) if bench.chance(0.1) else ipv4(bench, one, other))
        bench.send(config.ports, bench.frame(64))  # runs no program
    bench.run()
    bench.verify()
    assert bench.together > 2
    order = [[sequence for at, sequence, _ in bench.begun if at == ingress] for ingress in range(2)]
    assert all(len(sequences) == 150 for sequences in order)
    if apart:
        assert all(sequences == sorted(sequences) for sequences in order)
