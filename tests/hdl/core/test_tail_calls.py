"""Tail calls on the core alone: where a thread goes on, how often, and what the target finds."""

import random

import pytest

from bpfnic.sim.golden.maps import Descriptor
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.maps import MAX_TAIL_CALLS, PROGRAM_BYTES, MapType
from bpfnic.spec.registers import ENTRY_VALID
from tests.hdl.core.bench import Scenario

TABLE, NUMBERS = 0, 1  # maps: programs, numbers
ENTRIES = 6
BASE = 32
TARGET = 600
FRAME = bytes(range(64))
CALL = f"r2 = {addresses.map_handle(TABLE)} ll\nr3 = INDEX\ncall 12"


def calling(index: str, rest: str = "r0 = 77\nexit", before: str = "r6 = r1") -> bytes:
    """A tail call to `index`, and what comes behind it. r6 becomes the context."""
    return assemble(f"{before}\n{CALL.replace('INDEX', index)}\n{rest}")


def scenario(programs: dict[int, bytes], table: dict[int, int], packets: int = 1, **more) -> Scenario:
    """All packets begin at slot 0. table: slots by index."""
    words = [ENTRY_VALID | table[index] if index in table else 0 for index in range(ENTRIES)]
    memory = b"".join(word.to_bytes(PROGRAM_BYTES, "little") for word in words)
    descriptors = {
        TABLE: Descriptor(MapType.PROG_ARRAY, BASE, ENTRIES, PROGRAM_BYTES, PROGRAM_BYTES),
        NUMBERS: Descriptor(MapType.ARRAY, 128, ENTRIES, 8, 8),
    }
    return Scenario(programs, [(0, FRAME)] * packets, map=bytes(BASE) + memory, descriptors=descriptors, **more)


@pytest.mark.parametrize(
    ("index", "verdict"),
    [("3", 5), ("0x700000003 ll", 5), ("5", 77), ("6", 77), ("-1", 77), ("0x80000003 ll", 77)],
    ids=["there", "upper half is not looked at", "empty", "behind the last", "-1", "large"],
)
def test_index(core, index, verdict):
    target = assemble("r0 = 5\nexit")
    run = core.check(scenario({0: calling(index), TARGET: target}, {3: TARGET, 0: 1, 4: 2})).runs[0]
    assert (run.verdict, run.cause) == (verdict, Cause.NONE)


def test_what_the_target_finds(core):
    """The context in r1 whatever the caller had there; all other registers and the stack as the caller left them."""
    caller = assemble(f"""
        r0 = 11
        r1 = 12
        r4 = 13
        r5 = 14
        r9 = 15
        *(u64 *)(r10 - 8) = 16
        {CALL.replace("INDEX", "1")}
        exit
    """)
    target = assemble("""
        r1 = *(u32 *)(r1 + 4)
        r0 += r4
        r0 += r5
        r0 += r9
        r2 = *(u64 *)(r10 - 8)
        r0 += r2
        r0 += r3
        exit
    """)
    run = core.check(scenario({0: caller, TARGET: target}, {1: TARGET})).runs[0]
    assert run.verdict == 11 + 13 + 14 + 15 + 16 + 1
    assert [record["value"] for record in run.retired if record["register"] == 1 and record["write"]][1:] == [
        addresses.CONTEXT, addresses.PACKET + addresses.HEADROOM + len(FRAME),
    ]  # fmt: skip


def test_no_target_leaves_r0(core):
    caller = assemble(f"r0 = 9\nr1 = 3\n{CALL.replace('INDEX', '0')}\nr3 = r1\nexit")
    run = core.check(scenario({0: caller}, {})).runs[0]
    assert run.verdict == 9
    assert run.retired[-2]["value"] == addresses.CONTEXT


@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.parametrize("misses", [0, 1])
def test_thirty_three(core, threads, misses):
    """A program that calls itself: 33 times it goes on at its beginning, then behind the call. Calls of an empty entry
    don't count."""
    assert MAX_TAIL_CALLS == 33
    before = "r6 += 1\n" + CALL.replace("INDEX", "5") * misses
    program = calling("1", "r0 = r6\nexit", before)
    result = core.check(scenario({TARGET: program, 0: assemble(f"goto +{TARGET - 1}")}, {1: TARGET}, 40,
                                 threads=threads, budget=2000))  # fmt: skip
    assert {run.verdict for run in result.runs} == {34}


def test_each_packet_counts_anew(core):
    """Packets that end in the middle leave nothing to the next on their thread."""
    program = calling("1", "r0 = r6\nexit", "r6 += 1\nr2 = r6\nr0 = 90\nif r2 == 20 goto +5")
    whole = calling("1", "r0 = r6\nexit", "r6 += 1")
    start = assemble(f"goto +{TARGET - 1}")
    for code, verdict in ((program, 90), (whole, 34)):
        result = core.check(scenario({TARGET: code, 0: start}, {1: TARGET}, 20, threads=1, budget=500))
        assert {run.verdict for run in result.runs} == {verdict}


def test_budget_counts_on(core):
    program = calling("1", "r0 = r6\nexit", "r6 += 1")  # four instructions a round
    start = assemble(f"goto +{TARGET - 1}")
    for budget, cause in ((1 + 4 * 34 + 2, Cause.NONE), (1 + 4 * 34 + 1, Cause.BUDGET)):
        run = core.check(scenario({TARGET: program, 0: start}, {1: TARGET}, budget=budget)).runs[0]
        assert run.cause is cause


def test_from_a_subprogram(core):
    """It replaces that frame alone: r6 to r9, r10 and stack are the subprogram's, and the target's exit returns to its
    caller, which has its own again. The count goes on where it was."""
    program = assemble(f"""
        r6 = 1000
        r7 = r1
        *(u64 *)(r10 - 8) = 3
        call pc+7
        r6 += r0
        r2 = *(u64 *)(r10 - 8)
        r6 += r2
        r1 = r7
        call pc+2
        r0 += r6
        exit
        r6 = 20
        *(u64 *)(r10 - 8) = 7
        {CALL.replace("INDEX", "2")}
        r0 = 500
        exit
    """)
    # Each turn adds 1 to the frame's own r6 and calls itself until there are no more.
    target = calling("2", "r2 = *(u64 *)(r10 - 8)\nr0 = r6\nr0 += r2\nexit", "r6 += 1")
    run = core.check(scenario({0: program, TARGET: target}, {2: TARGET})).runs[0]
    # The first call makes all 33 of them; the second finds none left.
    assert run.verdict == 1000 + 3 + (20 + 33 + 7) + 500


def test_target_calls_and_returns(core):
    """A target with functions of its own, called from a frame of its caller."""
    program = assemble(f"""
        call pc+2
        r0 += 1
        exit
        {CALL.replace("INDEX", "0")}
        exit
    """)
    target = assemble("call pc+2\nr0 += 10\nexit\nr0 = 100\nexit")
    run = core.check(scenario({0: program, TARGET: target}, {0: TARGET})).runs[0]
    assert run.verdict == 111


@pytest.mark.parametrize("handle", [addresses.map_handle(NUMBERS), addresses.map_handle(5),
                                    addresses.map_handle(TABLE) + 8, 0])  # fmt: skip
def test_tail_call_by_another_map(core, handle):
    code = assemble(f"r0 = 1\nr2 = {handle} ll\nr3 = 0\ncall 12\nexit")
    run = core.check(scenario({0: code}, {0: 0})).runs[0]
    assert run.cause is Cause.MAP
    assert len(run.retired) == 3


@pytest.mark.parametrize("call", [1, 2, 3])
def test_other_helpers_refuse_programs(core, call):
    code = assemble(f"r1 = {addresses.map_handle(TABLE)} ll\nr2 = r10\nr2 += -8\nr3 = r2\nr4 = 0\ncall {call}\nexit")
    assert core.check(scenario({0: code}, {0: 0})).runs[0].cause is Cause.MAP


def test_entries_of_any_kind(core, small_core):
    """Words that no driver writes, on all threads while the words change: the same on the core and on the reference."""
    for device in (core, small_core):
        chance = random.Random(12)
        slots = device.config.program_slots
        starts = range(40, slots - 40, 40)
        programs = {0: calling("1")}
        for slot in starts:
            word = chance.choice([*chance.choices(starts, k=5), chance.randrange(1 << 31)])
            word -= (chance.random() < 0.95) << 31  # the bit that says valid
            place = addresses.MAP_VALUES + BASE + PROGRAM_BYTES * chance.randrange(ENTRIES)
            change = f"r4 = {place} ll\n*(u32 *)(r4 + 0) = {word}"
            before = chance.choice(["call 7\nr0 &= 7", "call 7\nr0 &= 3", f"r0 = {chance.randrange(ENTRIES)}"])
            programs[slot] = calling("r0", before=before + "\n" + chance.choice([change, "r6 += 1"]))
        table = {index: chance.choice(starts) for index in range(ENTRIES)}
        result = device.check(scenario(programs, table, 300, threads=device.config.threads, stall=30))
        assert len({len(run.retired) for run in result.runs}) > 20
