"""bpf_csum_diff on the core, in lockstep with the golden interpreter, whose answers the kernel judges
(tests/sim/test_csum_diff.py)."""

import random

import pytest

from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from tests.hdl.core.bench import LOOP, Scenario

FRAME = bytes(random.Random(7).randrange(256) for _ in range(200))
MEMORY = bytes(random.Random(8).randrange(256) for _ in range(4000)) + bytes([255]) * 96
REGIONS = {"packet": "r8", "stack": "r7", "map": f"{addresses.MAP_VALUES} ll"}


def program(gone: tuple[str, int, int], come: tuple[str, int, int], seed: int) -> bytes:
    """Sums; the stack holds the frame's first 64 bytes."""
    copies = "\n".join(f"r0 = *(u64 *)(r8 + {at})\n*(u64 *)(r10 - {64 - at}) = r0" for at in range(0, 64, 8))
    lines = ["r8 = *(u32 *)(r1 + 0)", copies, "r7 = r10", "r7 += -64"]
    for register, (region, at, size) in ((1, gone), (3, come)):
        lines += [f"r{register} = {REGIONS[region]}", f"r0 = {at} ll", f"r{register} += r0"]
        lines.append(f"r{register + 1} = {size} ll")
    return assemble("\n".join([*lines, f"r5 = {seed} ll", "call 28", "exit"]))


def regions(chance: random.Random) -> tuple[str, int, int]:
    name = chance.choice(list(REGIONS))
    room = {"packet": 200, "stack": 64, "map": 200}[name]
    at = chance.randrange(room)
    size = chance.choice((0, 1, 2, 3, 4, 7, 8, 9, 16, chance.randrange(64), room - at))
    if name == "map":
        at += chance.choice((0, 2001, 3600))
    return name, at, min(size, room - at) if name != "map" else size


def test_any_regions(core):
    chance = random.Random(1)
    programs = {}
    for number in range(20):
        seed = chance.choice((0, 1, 0xFFFF, 0xFFFFFFFF, 0x1_0000_0005, chance.randrange(1 << 64)))
        programs[48 * number] = program(regions(chance), regions(chance), seed)
    result = core.check(Scenario(programs, [(slot, FRAME) for slot in programs] * 4, map=MEMORY))
    assert {run.cause for run in result.runs} == {Cause.NONE}
    assert len({run.verdict for run in result.runs}) > 10


@pytest.mark.parametrize("gone", [False, True])
def test_what_cannot_be_read(core, gone):
    """The words before it are summed, and the rest of the packet is not. 4,097 bytes are too many wherever they are."""
    good = ("packet", 3, 24)
    bad = [("packet", 3, 198), ("packet", 200, 1), ("stack", 60, 5), ("map", 0, 4097), ("map", 4000, 97),
           ("map", 4, 1 << 31), ("packet", -260, 8), ("map", 0, 0xFFFF_FFFF), ("packet", 0x1_0000_0000, 8)]  # fmt: skip
    programs = {48 * number: program(*((each, good) if gone else (good, each)), 5) for number, each in enumerate(bad)}
    result = core.check(Scenario(programs, [(slot, FRAME) for slot in programs] * 3, map=MEMORY))
    assert {run.cause for run in result.runs} == {Cause.MEMORY_ACCESS}


def test_sizes_are_32_bits_and_the_largest(small_core):
    programs = {0: program(("packet", 3, 0x5_0000_0008), ("packet", 40, 0x7_0000_0000), 9),
                48: program(("map", 7, 4096), ("map", 3, 4096), 0)}  # fmt: skip
    result = small_core.check(Scenario(programs, [(slot, FRAME) for slot in programs] * 3, threads=8, map=2 * MEMORY))
    assert {run.cause for run in result.runs} == {Cause.NONE}


def test_clocks(core):
    """Issue slots: one for each 8 bytes, 2 beside them. A thread alone takes a loop for each, and for the answer."""
    def clocks(size: int, threads: int) -> int:
        code = program(("packet", 0, size), ("packet", 64, size), 1)
        return core.run(Scenario({0: code}, [(0, FRAME)] * 64, threads=threads, stall=0)).clocks

    alone = (clocks(64, 1) - clocks(0, 1)) / 64
    many = (clocks(64, 16) - clocks(0, 16)) / 64
    print(f"128 bytes more: {alone:.1f} clocks of a thread alone, {many:.1f} of 16")
    assert alone == 16 * LOOP
    assert many < 16.5
