"""Atomics of all threads on the same map values, on one core and on two: nothing is lost, doubled or torn, whatever the
order. Next to them, each thread's own on its stack and in its packet."""

from functools import reduce
from operator import xor

import pytest

from bpfnic.host.device import Arrival, Pacing
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.programs import XdpAction
from tests.sim.bench import ONE_CORE, TWO_CORES, Bench

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

PACKETS = 400
OTHERS = 0x8899AABBCCDDEEFF  # what nobody touches
TOKEN = 0xABCDEF

# At 0 tickets, at 8 something else and tickets of 32 bits, at 16 a sum made by compare and exchange, at 24 a token that
# goes from thread to thread, at 32 the tickets, differently.
PROGRAM = assemble(f"""
    r6 = *(u32 *)(r1 + 0)
    r7 = {addresses.MAP_VALUES:#x} ll
    r8 = 1
    r8 = atomic_fetch_add((u64 *)(r7 + 0), r8)
    *(u64 *)(r6 + 0) = r8
    w9 = 1
    w9 = atomic_fetch_add((u32 *)(r7 + 12), w9)
    *(u64 *)(r6 + 8) = r9
    r0 = *(u64 *)(r7 + 16)
again:
    r4 = r0
    r5 = r0
    r5 += 3
    r0 = cmpxchg_64(r7 + 16, r0, r5)
    if r0 != r4 goto again
    r5 = r8
    r5 = xchg_64(r7 + 24, r5)
    *(u64 *)(r6 + 16) = r5
    lock *(u64 *)(r7 + 32) ^= r8
    r1 = r8
    r1 = atomic_fetch_add((u64 *)(r10 - 8), r1)
    r1 = r8
    r1 = atomic_fetch_add((u64 *)(r10 - 8), r1)
    lock *(u32 *)(r6 + 24) |= w8
    r1 += r1
    r1 = xchg_64(r6 + 32, r1)
    r0 = r8
    r0 = cmpxchg_64(r10 - 8, r0, r7)
    *(u64 *)(r6 + 40) = r0
    r0 = 3
    exit
""")


@pytest.mark.parametrize("size", [ONE_CORE, TWO_CORES], ids=["1x16", "2x8"])
@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_nothing_is_lost(backend, size) -> None:
    with Bench(backend, **size) as bench:
        bench.load(PROGRAM)
        bench.attach(0)
        memory = [0, OTHERS & 0xFFFFFFFF, 0, TOKEN, 0]
        bench.set_memory(0, b"".join(word.to_bytes(8, "little") for word in memory))
        pacing = Pacing(ingress_idle=10, egress_stall=20, seed=5)
        traffic = bench.run([Arrival(number % 2, bytes(64)) for number in range(PACKETS)], pacing)
        frames = [packet.data for packet in traffic.packets]
        assert {packet.action for packet in traffic.packets} == {XdpAction.XDP_TX}
        words = [[int.from_bytes(frame[at : at + 8], "little") for at in range(0, 64, 8)] for frame in frames]
        after = [int.from_bytes(bench.memory(8 * index, 8), "little") for index in range(5)]

    tickets = list(range(PACKETS))
    assert sorted(word[0] for word in words) == sorted(word[1] for word in words) == tickets
    assert after[:3] == [PACKETS, PACKETS << 32 | OTHERS & 0xFFFFFFFF, 3 * PACKETS]
    assert sorted([*(word[2] for word in words), after[3]]) == [*tickets, TOKEN]
    assert after[4] == reduce(xor, tickets)
    for ticket, _, _, found, doubled, sum_of_two, *_ in words:
        assert (found, doubled, sum_of_two) == (ticket, 2 * ticket, 2 * ticket)
