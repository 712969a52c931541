"""The golden NIC at a device's side: what agrees does so to the last instruction while threads race, and where the two
part the instruction is found, with what it did."""

import random

import pytest

from bpfnic.host import lockstep
from bpfnic.host.device import Arrival, Pacing
from bpfnic.sim.bare import BareNic
from bpfnic.sim.rtl.device import SLICE, RtlTransport
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from tests.sim.bench import ONE_CORE, TWO_CORES, Bench
from tests.sim.defects import OPTIONS, defective_library

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

# Every thread draws a ticket, counts without an atomic, and exchanges a word across two rows of map memory; the clock
# and a random number decide what becomes of it. A called function and its frame, a loop, a helper that reads the stack.
RACE = f"""
    r6 = *(u32 *)(r1 + 0)
    r7 = {addresses.MAP_VALUES:#x} ll
    r8 = 1
    r8 = atomic_fetch_add((u64 *)(r7 + 0), r8)
    *(u64 *)(r6 + 1) = r8
    r1 = *(u64 *)(r7 + 8)
    r1 += 1
    *(u64 *)(r7 + 8) = r1
    call 5
    *(u64 *)(r7 + 29) = r0
    r9 = *(u64 *)(r7 + 25)
    *(u32 *)(r10 - 4) = r9
    call 7
    r0 ^= r9
    r1 = *(u32 *)(r10 - 4)
    r0 += r1
    *(u16 *)(r6 + 11) = r0
    r9 = 5
again:
    r9 += -1
    if r9 s> 0 goto again
    r1 = r0
    call twice
    r0 &= 3
    exit
twice:
    *(u64 *)(r10 - 8) = r1
    r6 = *(u16 *)(r10 - 6)
    r0 = r6
    exit
"""


def prepared(backend, size, code):
    bench = Bench(backend, **size)
    bench.load(code)
    bench.attach(0, range(3))
    bench.set_memory(0, bytes(64))
    return bench


def in_lockstep(code, arrivals, backend="rtl", size=ONE_CORE, reference=None, pacing=Pacing()):
    """The outcome, and map memory of both where there was no difference."""
    with prepared(backend, size, code) as device, prepared("golden", size, reference or code) as golden:
        outcome = lockstep.run(device.device, golden.device, arrivals, pacing)
        memory = None if outcome.difference else (device.memory(0, 64), golden.memory(0, 64))
    return outcome, memory


def frames(count, seed=1):
    rng = random.Random(seed)
    return [Arrival(rng.randrange(3), rng.randbytes(rng.choice((60, 64, 65, 300)))) for _ in range(count)]


SIZES = pytest.mark.parametrize("size", [ONE_CORE, TWO_CORES], ids=["1x16", "2x8"])


@SIZES
@pytest.mark.parametrize("backend", ["golden", "rtl"])
@pytest.mark.parametrize("pacing", [Pacing(), Pacing(ingress_idle=50, egress_stall=50)], ids=["full", "half"])
def test_threads_that_race_agree(backend, size, pacing):
    arrivals = frames(300)
    outcome, (ours, theirs) = in_lockstep(assemble(RACE), arrivals, backend, size, pacing=pacing)
    assert str(outcome.difference) == "None"
    assert ours == theirs
    tickets, counted = (int.from_bytes(ours[at : at + 8], "little") for at in (0, 8))
    assert tickets == 300
    assert counted == 300 if backend == "golden" else 0 < counted < 300  # they did race


def test_a_long_run_comes_in_batches_and_is_not_recorded():
    loop = "r1 = 2000\nagain:\nr1 += -1\nif r1 != 0 goto again\nr0 = 2\nexit"
    batches = []
    with prepared("rtl", ONE_CORE, assemble(loop)) as device:
        traffic = device.device.run(frames(16), observe=lambda events: batches.append(sum(1 for _ in events)))
    assert traffic.instructions == 16 * 4003 and traffic.recording is None
    assert sum(batches) == traffic.instructions + 2 * 16  # beginnings and ends
    assert max(batches) <= SLICE + 2 * 16 < sum(batches) / 10


# -- differences: the device runs one program, the reference another --------------------------------------------------

BASE = """
    r6 = *(u32 *)(r1 + 0)
    r7 = 0x11
    r8 = 0x22
    *(u64 *)(r10 - 8) = r7
    r7 ^= r8
    if r7 s> 0 goto far
    r0 = 1
    exit
far:
    r0 = 2
    exit
"""

DIFFERENT = {  # the reference's instruction in place of the device's; what, both, number of the instruction
    "register": ("r7 ^= r8", "r7 &= r8", "r7", "0x33", "0x0", 4),
    "target": ("r7 ^= r8", "r8 ^= r7", "register", "writes r7 = 0x33", "writes r8 = 0x33", 4),
    "branch": ("if r7 s> 0", "if r7 s< 0", "next pc", "instruction 8", "instruction 6", 5),
    "stored": ("(r10 - 8) = r7", "(r10 - 8) = r8", "stored", "0x11", "0x22", 3),
    "address": ("(r10 - 8) = r7", "(r10 - 16) = r7", "address", f"{addresses.STACK_TOP - 8:#x}",
                f"{addresses.STACK_TOP - 16:#x}", 3),
    "trap": ("(r10 - 8) = r7", "(r10 + 8) = r7", "instruction", "retires it", "ends the program with MEMORY_ACCESS", 3),
    "verdict": ("r0 = 2", "r0 = 3", "r0", "0x2", "0x3", 6),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_a_difference_is_found_where_it_is(case):
    was, becomes, what, actual, expected, number = DIFFERENT[case]
    outcome, _ = in_lockstep(
        assemble(BASE), frames(2), "golden", reference=assemble(BASE.replace(was, becomes))
    )  # fmt: skip
    found = outcome.difference
    assert (found.what, found.actual, found.expected, found.number, found.packet) == (what, actual, expected, number, 0)
    assert [step.pc for step in found.past] == list(range(number)) if number < 6 else [0, 1, 2, 3, 4, 5]
    assert f"{what}: device {actual}, reference {expected}" in str(found)


# -- defects: a NIC whose netlist was changed -------------------------------------------------------------------------

PROGRAMS = {  # each meets one defect alone: the register (or what else) at which it shows, both values, the instruction
    "exclusive or": ("r1 = 6\nr2 = 3\nr1 |= 8\nr1 ^= r2\nr0 = r1\nexit", "r1", "0xf", "0xd", 3),
    "comparison": ("r1 = -5\nr2 = 3\nif r2 == r1 goto end\nif r1 s< r2 goto end\nr2 = 9\nend:\nr0 = 2\nexit",
                   "next pc", "instruction 4", "instruction 5", 3),
    "atomic": (f"r6 = {addresses.MAP_VALUES:#x} ll\nr1 = 5\nlock *(u64 *)(r6 + 8) += r1\nr0 = 2\nexit",
               "written to map memory", "0x1fffffffb at 0x10000008", "0x5 at 0x10000008", 2),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_defect_of_the_hardware_is_found_at_its_instruction(name, tmp_path):
    text, what, actual, expected, number = PROGRAMS[name]
    defective = RtlTransport(OPTIONS, library=defective_library(tmp_path))
    with BareNic(defective) as device, prepared("golden", ONE_CORE, assemble(text)) as golden:
        device.load(assemble(text))
        device.attach(0, range(3))
        device.set_memory(0, bytes(64))
        found = lockstep.run(device.device, golden.device, frames(1), Pacing()).difference
    assert (found.what, found.actual, found.expected, found.number) == (what, actual, expected, number)
    ours, theirs = found.actual_state, found.expected_state
    if what.startswith("written"):
        assert ours == theirs
    elif what.startswith("r"):
        register = int(what[1:])
        assert (f"{ours.registers[register]:#x}", f"{theirs.registers[register]:#x}") == (actual, expected)
        assert ours._replace(registers=theirs.registers) == theirs
    else:
        assert (ours.pc, theirs.pc) == (4, 5) and ours.registers == theirs.registers
    assert len(found.past) == number
