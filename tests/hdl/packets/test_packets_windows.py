"""Local memory and services: what programs see of their stack, context and packet, and of nobody else's."""

import pytest

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import Region, Service
from bpfnic.spec import addresses
from bpfnic.spec.programs import XdpAction

ONE = NicConfig(threads=8, trace=True)
WIDE = NicConfig(threads=8, cores=3, ports=3, buffer_bytes=4096, trace=True)
STACK, CONTEXT, PACKET, _ = (region.value for region in Region)
REDIRECT, ADJUST_HEAD, ADJUST_TAIL, REDIRECT_MAP, ADJUST_META, *_ = (service.value for service in Service)
SENT = XdpAction.XDP_TX


def run(bench, program, *lengths):
    bench.attach(program, 0)
    for length in lengths:
        bench.send(0, bench.frame(length))
    bench.run()
    bench.verify()


@pytest.mark.parametrize("config", [ONE, WIDE], ids=["one", "wide"])
def test_any_access_sees_its_packet_alone(new_bench, config, thorough):
    """Many threads at random, an access in every clock, and short programs so that threads and buffers are reused. The
    first interface has XDP programs, the next one those of tc, and so on."""
    bench = new_bench(config, seed=3)
    bench.of_tc = [bool(number % 2) for number in range(config.interfaces)]
    bench.attach(bench.anything(120), *range(config.interfaces))
    for _ in range(150 if thorough else 50):
        for ingress in range(config.interfaces):
            bench.send(ingress, bench.frame(bench.random.choice([14, 60, 64, 300, 1700, config.buffer_bytes - 256])))
    bench.run()
    bench.verify()


def test_a_store_shows_in_the_next_access(new_bench):
    """One thread alone, as often as it may: stores of every size and place, each read back at once."""

    def program(bench, packet):
        for region, size in [(region, size) for region in (STACK, PACKET) for size in range(4)]:
            for place in range(17):
                offset = place << size if region == STACK else packet.data + place
                yield "store", region, offset, size, bench.random.getrandbits(64)
                yield "load", region, offset, size
                yield "load", region, offset & ~7, 3
        yield "exit", SENT, 0

    run(new_bench(ONE), program, 64)


def test_a_stack_that_was_full_reads_as_zero_for_the_next_packet(new_bench):
    """Also around bytes of a word of which the new packet has written some."""

    def program(bench, packet):
        if packet.bytes[256] & 1:
            for offset in range(0, 512, 8):
                yield "store", STACK, offset, 3, bench.random.getrandbits(64)
        else:
            for offset in range(0, 512, 16):
                yield "store", STACK, offset + bench.random.randrange(8), 0, 0xA5
            for offset in range(0, 512, 8):
                yield "load", STACK, offset, 3
        yield "exit", SENT, 0

    run(new_bench(ONE), program, *[60] * 64)


def test_the_context_follows_each_change(new_bench):
    def program(bench, packet):
        changes = (ADJUST_HEAD, -20), (ADJUST_TAIL, 100), (ADJUST_META, -8), (ADJUST_HEAD, 33), (ADJUST_TAIL, -7)
        for service, delta in (*changes, (ADJUST_META, 4)):
            yield "service", service, 0, delta & 0xFFFF_FFFF
            for size in range(4):
                for offset in range(0, 64, 1 << size):
                    yield "load", CONTEXT, offset, size
        yield "exit", SENT, 0

    run(new_bench(ONE), program, 64, 65)


# The limits, worked out by hand from net/core/filter.c: 40 bytes stay before data, 14 in the packet, 320 behind it.
# Each row: frame length, service, delta, whether it must be refused.
LIMITS = [
    (64, ADJUST_HEAD, 40 - 256, False),
    (64, ADJUST_HEAD, 39 - 256, True),
    (64, ADJUST_HEAD, 64 - 14, False),
    (64, ADJUST_HEAD, 64 - 13, True),
    (64, ADJUST_HEAD, -(1 << 31), True),
    (64, ADJUST_HEAD, (1 << 31) - 1, True),
    (64, ADJUST_TAIL, 14 - 64, False),
    (64, ADJUST_TAIL, 13 - 64, True),
    (64, ADJUST_TAIL, 1728 - 256 - 64, False),
    (64, ADJUST_TAIL, 1729 - 256 - 64, True),
    (64, ADJUST_TAIL, (1 << 31) - 1, True),
    (64, ADJUST_TAIL, -(1 << 31), True),
    (14, ADJUST_HEAD, 1, True),
    (14, ADJUST_TAIL, -1, True),
    (14, ADJUST_HEAD, 0, False),
    (1472, ADJUST_TAIL, 0, False),
    (1472, ADJUST_TAIL, 1, True),
    (1473, ADJUST_TAIL, 0, True),  # a frame may reach into the reserve, an adjustment may not
    (1792, ADJUST_TAIL, -1, True),
    (1792, ADJUST_TAIL, -320, False),
    (1792, ADJUST_TAIL, -319, True),
    (1792, ADJUST_HEAD, -216, False),
    (64, ADJUST_META, -216, False),
    (64, ADJUST_META, -217, True),
    (64, ADJUST_META, -220, True),
    (64, ADJUST_META, -215, True),  # EACCES: no whole words
    (64, ADJUST_META, -2, True),
    (64, ADJUST_META, 0, False),
    (64, ADJUST_META, 4, True),
    (64, ADJUST_META, -(1 << 31), True),
]


@pytest.mark.parametrize("length, service, delta, refused", LIMITS)
def test_the_kernel_s_limits(new_bench, length, service, delta, refused):
    def program(bench, packet):
        before = packet.data, packet.data_end, packet.meta
        yield "service", service, 0, delta & 0xFFFF_FFFF  # the bench checks the answer
        assert ((packet.data, packet.data_end, packet.meta) == before) == (refused or delta == 0)
        for offset in (packet.data, packet.data_end - 8):
            yield "load", PACKET, offset, 3
        yield "exit", SENT, 0

    run(new_bench(ONE), program, length, length)


def metadata(bench, packet):
    """Bytes of it, then the head moved back and forth by anything; each time all of it is looked at."""
    pick = bench.random
    for _ in range(6):
        size = 4 * pick.randrange(50)
        yield "service", ADJUST_META, 0, (packet.data - packet.meta - size) & 0xFFFF_FFFF
        for offset in range(packet.meta, packet.data, 4):
            yield "load", PACKET, offset, 2
            if pick.random() < 0.8:
                yield "store", PACKET, offset, 2, pick.getrandbits(32)
        for delta in (-pick.randrange(1, 40), pick.randrange(1, 40), pick.choice((-4, 4, 8, -8, 1, -1))):
            yield "service", ADJUST_HEAD, 0, delta & 0xFFFF_FFFF
            for offset in range(packet.meta, packet.data + 8, 4):
                yield "load", PACKET, offset, 2
    yield "exit", SENT, 0


def test_metadata_moves_with_the_head(new_bench):
    """Behind packets that left no byte of their buffers as it was, and beside other threads' accesses."""
    room = addresses.HEADROOM - addresses.FRAME_HEADER

    def program(bench, packet):
        if packet.data_end - packet.data > 1000:
            yield "service", ADJUST_HEAD, 0, -room & 0xFFFF_FFFF
            for offset in range(packet.data, addresses.HEADROOM, 8):
                yield "store", PACKET, offset, 3, 0xA5A5_A5A5_A5A5_A5A5
            yield "exit", SENT, 0
        else:
            yield from metadata(bench, packet)

    run(new_bench(ONE), program, *[1600] * 16, *[200] * 16)


def test_more_metadata_than_linux_notes_down(new_bench):
    def program(bench, packet):
        yield "service", ADJUST_HEAD, 0, 100
        yield "service", ADJUST_META, 0, -252 & 0xFFFF_FFFF
        yield "service", ADJUST_META, 0, -4 & 0xFFFF_FFFF  # 256: EACCES
        assert packet.data - packet.meta == 252
        yield "load", PACKET, packet.meta, 3
        yield "exit", SENT, 0

    run(new_bench(ONE), program, 200)


@pytest.mark.parametrize("grow", [1, 2, 7, 8, 9, 15, 16, 17, 100])
@pytest.mark.parametrize("length", [64, 65, 71])
def test_what_comes_into_sight_is_zero_and_what_was_seen_stays(new_bench, length, grow):
    """After packets that filled their whole buffers, so that a byte not cleared would show."""
    room = addresses.HEADROOM - addresses.FRAME_HEADER

    def program(bench, packet):
        if packet.data_end - packet.data > 1000:  # leaves no byte as it was, above and below
            yield "service", ADJUST_HEAD, 0, -room & 0xFFFF_FFFF
            for offset in range(packet.data, packet.data_end - 8, 8):
                yield "store", PACKET, offset, 3, 0xA5A5_A5A5_A5A5_A5A5
        else:
            steps = [(ADJUST_HEAD, -grow), (ADJUST_TAIL, grow), (ADJUST_HEAD, 2 * grow % 50), (ADJUST_HEAD, -10)]
            for service, delta in [*steps, (ADJUST_TAIL, -9), (ADJUST_TAIL, grow), (ADJUST_HEAD, -grow)]:
                yield "service", service, 0, delta & 0xFFFF_FFFF
                yield "store", PACKET, packet.data, 0, 0x5A
                for offset in range(packet.data, packet.data_end):
                    yield "load", PACKET, offset, 0
        yield "exit", SENT, 0

    run(new_bench(ONE), program, *[1792] * 20, *[length] * 20)


def test_clearing_does_not_stop_the_ingresses(new_bench):
    """A thread that grows and shrinks its packet again and again, while frames stream in and out."""

    def program(bench, packet):
        if packet.bytes[256] == 0:
            for _ in range(60):
                yield "service", ADJUST_TAIL, 0, 1200
                yield "service", ADJUST_TAIL, 0, -1200 & 0xFFFF_FFFF
        yield "exit", SENT, 0

    bench = new_bench(ONE)
    bench.attach(program, 0, 1)
    bench.send(0, bytes(64))
    for _ in range(200):
        bench.send(1, b"\1" + bench.frame(63))
    bench.run(200 * 17)
    assert len(bench.sent[1]) > 190  # half of the writes at least are theirs
    bench.run()
    bench.verify()
