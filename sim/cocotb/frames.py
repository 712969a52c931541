"""Frames of every awkward length through the NIC, at the pace that IDLE and STALL ask for, against the golden NIC."""

import os
import random

import cocotb

from bpfnic.host.device import Arrival, DeviceOptions, Pacing
from bpfnic.sim.cocotb.bench import Bench
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.spec import registers
from bpfnic.spec.assembly import assemble

LENGTHS = (60, 61, 64, 65, 127, 1500, 1514, 1792)  # the last: all that a buffer holds behind its headroom
HOST = 2
PATIENCE = 200_000  # clocks

# Byte 5 chooses drop, pass, transmit or redirect to port 1; what stays is changed at odd places first.
PROGRAM = """
    r6 = *(u32 *)(r1 + 0)
    r7 = *(u32 *)(r1 + 4)
    r8 = *(u8 *)(r6 + 5)
    r2 = *(u64 *)(r6 + 3)
    r2 ^= r7
    *(u64 *)(r6 + 9) = r2
    r7 += -3
    r3 = *(u16 *)(r7 + 0)
    r3 += 1
    *(u16 *)(r7 + 1) = r3
    r8 &= 3
    if r8 == 3 goto redirect
    r0 = r8
    r0 += 1
    exit
redirect:
    r1 = 2
    r2 = 0
    call 23
    exit
"""
SETUP = [
    *(("IFINDEX", port + 1, port) for port in range(HOST)),
    *(("ENTRY", registers.ENTRY_VALID, port) for port in range(HOST)),
    *(("MODE", registers.MODE_INGRESS_WAITS | registers.MODE_EGRESS_WAITS, number) for number in range(HOST + 1)),
    ("CONTROL", registers.CONTROL_ENABLE, 0),
]
COUNTERS = (
    "RECEIVED", "RECEIVED_BYTES", "REFUSED_FULL", "REFUSED_LONG", "REFUSED_ERROR", "DROPPED", "PASSED", "TRANSMITTED",
    "REDIRECTED", "ABORTED", "IN_FLIGHT", "SENT", "SENT_BYTES", "EGRESS_DROPPED",
)  # fmt: skip


def golden() -> GoldenTransport:
    """The reference, set up like the bench."""
    nic = GoldenTransport(DeviceOptions())
    code = assemble(PROGRAM)
    nic.write(registers.BY_NAME["PROGRAM_ADDRESS"].address(), 0)
    for at in range(0, len(code), 4):
        nic.write(registers.BY_NAME["PROGRAM_DATA"].address(), int.from_bytes(code[at : at + 4], "little"))
    for name, value, index in SETUP:
        nic.write(registers.BY_NAME[name].address(index), value)
    return nic


@cocotb.test()
@cocotb.parametrize(length=LENGTHS)
async def frames_leave_as_the_golden_model_says(dut, length: int) -> None:
    """Same bytes, egress, action and counters; order kept for each pair of ingress and egress."""
    idle, stall = int(os.environ["IDLE"]), int(os.environ["STALL"])
    rng = random.Random(length)
    arrivals = [Arrival(rng.randrange(3), rng.randbytes(length)) for _ in range(48 if length < 1000 else 16)]
    arrivals.append(Arrival(0, rng.randbytes(length), error=True))
    await check(dut, arrivals, idle, stall)


@cocotb.test()
async def frames_of_all_lengths_mixed(dut) -> None:
    """Lengths change from frame to frame; those too long or too short are refused whole."""
    idle, stall = int(os.environ["IDLE"]), int(os.environ["STALL"])
    rng = random.Random(idle * 100 + stall)
    lengths = [*LENGTHS, 14, 17, 24, 13, 1, 1793, 1800, 2100] * 3
    rng.shuffle(lengths)
    await check(dut, [Arrival(rng.randrange(3), rng.randbytes(length)) for length in lengths], idle, stall)


async def check(dut, arrivals: list[Arrival], idle: int, stall: int) -> None:
    """Run the arrivals on both and compare."""
    reference = golden()
    traffic = reference.run(arrivals, Pacing(), None, None, False)
    expected: dict[tuple[int, int], list[tuple[bytes, int]]] = {}
    for arrival, packet in zip(arrivals, traffic.packets, strict=True):
        if packet.egress is not None:
            action = 15 if arrival.interface == HOST else packet.action
            leaving = expected.setdefault((arrival.interface, packet.egress), [])
            leaving.append((packet.data, arrival.interface | action << 3))

    bench = Bench(dut)
    await bench.start()
    await bench.load(PROGRAM)
    for name, value, index in SETUP:
        await bench.write(name, value, index)
    bench.pace(idle, stall)
    for arrival in arrivals:
        bench.offer(arrival.interface, arrival.data, int(arrival.error))

    found: dict[tuple[int, int], list[tuple[bytes, int]]] = {}
    missing = sum(map(len, expected.values()))
    for _ in range(PATIENCE // 100):
        await bench.clocks(100)
        for egress in range(HOST + 1):
            for data, user in bench.taken(egress):
                found.setdefault((user & 7, egress), []).append((data, user))
                missing -= 1
        if missing <= 0 and all(source.idle() for source in bench.sources):
            break
    await bench.clocks(200)  # refused and dropped frames may be the last ones
    assert found == expected

    await bench.write("SNAPSHOT", 0)
    reference.write(registers.BY_NAME["SNAPSHOT"].address(), 0)
    for name in COUNTERS:
        for index in range(HOST + 1):
            wanted = reference.read(registers.BY_NAME[name].address(index))
            assert await bench.read(name, index) == wanted, f"{name}[{index}] is not {wanted}"
