"""Random programs on the whole NIC, on all threads at once and racing for map values: every instruction, frame,
verdict, counter and byte of map memory is what the golden NIC says when it replays the recording.

A program that shows a difference is printed as assembly; what it shows then gets a vector or a test of its own."""

import random

import pytest

from bpfnic.host.device import Arrival, Pacing
from bpfnic.spec.assembly import disassemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import SLOT_BYTES, decode
from tests.sim.bench import ONE_CORE, TWO_CORES, Bench, agreement
from tests.sim.random_programs import ARRAYS, ENTRIES, LEAST_FRAME, Generator

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

MEMORY = 2560
PROGRAMS = 80
PACKETS = 32


def listing(code: bytes) -> str:
    lines, slot = [], 0
    while slot * SLOT_BYTES < len(code):
        rest = code[slot * SLOT_BYTES :]
        size = SLOT_BYTES * (2 if rest[0] == 0x18 else 1)
        try:
            instruction = decode(rest[:size])[0]
            assert instruction
            text = disassemble(instruction)
        except BpfnicError:
            text = rest[:size].hex()
        lines.append(f"{slot:4}: {text}")
        slot += size // SLOT_BYTES
    return "\n".join(lines)


def prepare(bench: Bench) -> None:
    """The maps that the programs know."""
    for index, (base, size, stride, cpu_stride) in enumerate(ARRAYS):
        bench.array(index, base, ENTRIES, size, stride, cpu_stride)
    bench.write("BUDGET", 600)


def frames(seed: int, count: int) -> list[Arrival]:
    chance = random.Random(seed)
    lengths = [chance.choice([LEAST_FRAME, 61, 64, 65, 127, 128, 200, 1514]) for _ in range(count)]
    return [Arrival(chance.choice([0, 0, 1, 2]), chance.randbytes(length)) for length in lengths]


def hunt(bench: Bench, reference: Bench, seed: int, pieces: int) -> None:
    """One program on both; raises AssertionError with all that one needs to find out."""
    entry = seed * 37 % (bench.device.capabilities.program_slots // 2)
    code = Generator(seed).program(pieces, entry)
    memory = random.Random(seed).randbytes(MEMORY)
    for each in (bench, reference):
        each.load(code + bytes(SLOT_BYTES), entry)
        each.attach(entry, range(3))
        each.set_memory(0, memory)
    pacing = Pacing(ingress_idle=seed % 3 * 20, egress_stall=seed % 5 * 15, seed=seed)
    _, difference, parting = agreement(bench, reference, frames(seed, PACKETS), pacing, MEMORY)
    if difference or parting:
        raise AssertionError(f"seed {seed}, {pieces} pieces at {entry}: {difference}\n{parting}\n{listing(code)}")


@pytest.mark.parametrize("size", [ONE_CORE, TWO_CORES], ids=["1x16", "2x8"])
@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_random_programs(backend, size) -> None:
    """A golden free run is replayed too: that tests the reference."""
    with Bench(backend, **size) as bench, Bench("golden", **size) as reference:
        for each in (bench, reference):
            prepare(each)
        for seed in range(PROGRAMS if backend == "rtl" else PROGRAMS // 5):
            hunt(bench, reference, seed, pieces=10 + seed % 60)
