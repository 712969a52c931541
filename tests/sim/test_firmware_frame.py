"""Privileged routines of many threads at once, in lockstep with the golden NIC: frame 8 and its stack are each thread's
own, whoever calls and however long a routine waits. (One routine after the other: tests/data/extensions.vec.)"""

import pytest

from bpfnic.host.device import Arrival
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.programs import XdpAction
from tests.sim.bench import ONE_CORE, TWO_CORES, Bench, agreement

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

PACKETS = 300

# The packet's first byte says how deep the chain is from whose end the routine is called, 0 to 7: from the program
# itself, or from its functions. The routine takes a ticket from the map value with its number on the stack; what it
# finds there afterwards, and what it found there before, goes into the packet.
PROGRAM = assemble(f"""
    r6 = *(u32 *)(r1 + 0)
    r7 = *(u8 *)(r6 + 0)
    r7 &= 7
    r1 = r6
    r9 = r10
    if r7 == 0 goto itself
    r2 = r7
    r2 += -1
    call deeper
    goto out
itself:
    call_firmware routine
    *(u64 *)(r6 + 40) = r0
    r9 -= r10
    *(u64 *)(r6 + 32) = r9
out:
    r0 = 3
    exit
deeper:
    r6 = r1
    r9 = r10
    if r2 == 0 goto here
    r2 += -1
    call pc-5 frame 16
    r9 -= r10
    r5 = *(u64 *)(r6 + 32)
    r5 += r9
    *(u64 *)(r6 + 32) = r5
    exit
here:
    call_firmware routine
    r9 -= r10
    *(u64 *)(r6 + 32) = r9
    *(u64 *)(r6 + 40) = r0
    exit
routine:
    r6 = *(u64 *)(r10 - 504)
    *(u64 *)(r1 + 8) = r6
    r8 = {addresses.MAP_VALUES:#x} ll
    r7 = 1
    r7 = atomic_fetch_add((u64 *)(r8 + 0), r7)
    *(u64 *)(r10 - 504) = r7
    r9 = 1
    lock *(u64 *)(r8 + 8) += r9
    lock *(u64 *)(r10 - 504) += r9
    r3 = *(u64 *)(r8 + 8)
    r3 = *(u64 *)(r10 - 504)
    r3 -= r7
    *(u64 *)(r1 + 16) = r3
    *(u64 *)(r1 + 24) = r7
    r0 = 77
    exit
""")


@pytest.mark.parametrize("size", [ONE_CORE, TWO_CORES], ids=["1x16", "2x8"])
def test_threads_keep_theirs_apart(size) -> None:
    arrivals = [Arrival(number % 2, bytes([number % 256]) + bytes([0xFF] * 63)) for number in range(PACKETS)]
    with Bench("rtl", **size) as device, Bench("golden", **size) as reference:
        for bench in (device, reference):
            bench.load(PROGRAM)
            bench.attach(0)
            bench.set_memory(0, bytes(16))
        traffic, difference, why = agreement(device, reference, arrivals)
        assert not difference and not why, f"{difference} {why}"
        assert device.memory(0, 16) == PACKETS.to_bytes(8, "little") * 2
    numbers = []
    for number, packet in enumerate(traffic.packets):
        assert packet.verdict == XdpAction.XDP_TX
        before, added, ticket, pointers, result = (
            int.from_bytes(packet.data[at : at + 8], "little") for at in range(8, 48, 8)
        )
        assert (before, added, pointers, result) == (0, 1, 0, 77), f"packet {number}"
        numbers.append(ticket)
    assert sorted(numbers) == list(range(PACKETS))
