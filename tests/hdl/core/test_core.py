"""The core alone, with models around it, against the golden interpreter."""

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bpfnic.sim.golden.maps import Descriptor
from bpfnic.spec import addresses, engine
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.helpers import BY_NAME
from bpfnic.spec.instruction import SLOT_BYTES
from bpfnic.spec.maps import MapType, UpdateFlag
from tests import vectors
from tests.hdl.core.bench import LOOP, Scenario

FRAME = bytes(range(64))
ENTRY = 0
BUDGET = 1000  # a vector's that doesn't say one


def final_registers(run) -> dict[int, int]:
    """Registers that the packet's program wrote, at its end, without the ones of which each frame has its own."""
    return {record["register"]: record["value"] for record in run.retired if record["write"] and record["register"] < 6}


def executed(vector: vectors.Vector) -> bool:
    return all(row.group in engine.GROUPS for row in vector.rows)


VECTORS = [vector for vector in vectors.read_all() if executed(vector)]
FILES = sorted({vector.name.split(":")[0] for vector in VECTORS})


def together(some: list[vectors.Vector], config) -> Iterator[list[tuple[vectors.Vector, int, int]]]:
    """Vectors that run at once, each with its entry and the offset of its map memory: those that ask for no budget of
    their own, and touch neither the ends of map memory nor slots of others. The others run alone."""
    batch: list[tuple[vectors.Vector, int, int]] = []
    slots = 0
    for vector in some:
        ends = "$map_end" in vector.text or (vector.trap and "$map" in vector.text)
        if ends or vector.budget != BUDGET or "$entry" in vector.text or vector.trap is Cause.PROGRAM_RANGE:
            yield [(vector, ENTRY, 0)]
            continue
        size = len(vector.code(addresses.MAP_VALUES, 0)) // SLOT_BYTES + 1  # an illegal instruction behind it
        if slots + size > config.program_slots or (len(batch) + 1) * vectors.MAP_BYTES > config.map_bytes:
            yield batch
            batch, slots = [], 0
        batch.append((vector, slots, len(batch) * vectors.MAP_BYTES))
        slots += size
    if batch:
        yield batch


@pytest.mark.parametrize("file", FILES)
def test_vectors(core, file):
    mine = [vector for vector in VECTORS if vector.name.split(":")[0] == file]
    for batch in together(mine, core.config):
        codes = {
            entry: vector.code(addresses.MAP_VALUES + at, entry, core.config.map_bytes) for vector, entry, at in batch
        }
        scenario = Scenario(
            codes, [(entry, vector.packet) for vector, entry, _ in batch],
            map=b"".join(vector.map for vector, _, _ in batch), budget=batch[0][0].budget,
        )  # fmt: skip
        result = core.check(scenario)
        for (vector, _, at), run in zip(batch, result.runs, strict=True):
            with vectors.named(vector):
                assert run.cause == vector.trap
                registers = final_registers(run)
                for number, value in vector.registers.items():
                    if number in registers:
                        assert registers[number] == value
                if vector.packet_after is not None:
                    assert run.frame == vector.packet_after
                if vector.map_after is not None:
                    assert result.map[at : at + len(vector.map_after)] == vector.map_after


def test_thin_path(core):
    code = assemble("r0 = 2\nexit")
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 3))
    assert [run.verdict for run in result.runs] == [2, 2, 2]
    assert [run.cause for run in result.runs] == [Cause.NONE] * 3


def helper_program(call: str) -> bytes:
    """Calls a map helper with the key that the packet's first byte picks, and returns r0's low half."""
    return assemble(f"r2 = *(u32 *)(r1 + 0)\nr1 = *(u8 *)(r2 + 0)\n*(u32 *)(r10 - 4) = r1\n{call}\nexit")


def map_descriptor(size: int, stride: int, base: int = 0, cpu_stride: int = 0, entries: int = 8,
                   lock: int = 0) -> Descriptor:  # fmt: skip
    return Descriptor(MapType.ARRAY, base, entries, stride, size, cpu_stride, lock=lock)


HANDLE = f"r1 = {addresses.map_handle(3)} ll"
PACKETS = [(0, bytes([index, *range(63)])) for index in range(12)]  # keys 8 to 11 lie outside


@pytest.mark.parametrize("threads", [1, 16])
def test_lookup(core, threads):
    code = helper_program(f"""
        {HANDLE}
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto +2
        r1 = 1
        lock *(u64 *)(r0 + 0) += r1
    """)
    scenario = Scenario({0: code}, PACKETS * 3, descriptors={3: map_descriptor(8, 8, 64)}, threads=threads)
    result = core.check(scenario)
    assert [run.verdict for run in result.runs[6:10]] == [addresses.MAP_VALUES + 64 + 8 * 6,
                                                          addresses.MAP_VALUES + 64 + 8 * 7, 0, 0]  # fmt: skip
    assert result.map[64 : 64 + 64] == (3).to_bytes(8, "little") * 8


@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.parametrize("source", ["r10 - 72", "r6", "map"])
@pytest.mark.parametrize("size", [1, 7, 8, 9, 64])
def test_update(core, size, source, threads):
    """Values from stack, packet and map memory, at addresses and strides of any alignment."""
    pointer = {"r10 - 72": "r3 = r10\nr3 += -72", "r6": "r3 = r6\nr3 += 3", "map": "r3 = 0x10000501 ll"}[source]
    code = assemble(f"""
        r6 = *(u32 *)(r1 + 0)
        r1 = *(u8 *)(r6 + 0)
        *(u32 *)(r10 - 4) = r1
        r1 = *(u64 *)(r6 + 5)
        *(u64 *)(r10 - 72) = r1
        *(u64 *)(r10 - 64) = r1
        *(u64 *)(r10 - 16) = r1
        {HANDLE}
        r2 = r10
        r2 += -4
        {pointer}
        r4 = 0
        call 2
        exit
    """)
    packets = [(0, bytes([index, *(17 * index + i & 255 for i in range(99))])) for index in range(12)]
    result = core.check(
        Scenario({0: code}, packets * 2, map=bytes(range(256)) * 8, threads=threads, budget=14,
                 descriptors={3: map_descriptor(size, size, 5)})
    )  # fmt: skip
    assert [run.verdict for run in result.runs[:12]] == [0] * 8 + [-7 & 0xFFFFFFFF] * 4


@pytest.mark.parametrize("key", ["r10 - 6", "map + 14", "packet + 3", "r10 - 2", "map + 4093"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_keys_anywhere(core, key, call):
    base, offset = key.split(" ", 1)
    start = {"r10": "r2 = r10", "map": "r2 = 0x10000000 ll", "packet": "r2 = *(u32 *)(r1 + 0)"}[base]
    code = assemble(f"""
        r3 = r10
        r3 += -16
        {start}
        r2 += {offset.replace(" ", "").replace("+", "")}
        {HANDLE}
        r4 = 0
        call {call}
        exit
    """)
    frame = bytes([9, 9, 9, 5, 0, 0, 0, *range(30)])
    descriptors = {3: map_descriptor(4, 4)}
    core.check(Scenario({0: code}, [(0, frame)] * 5, map=bytes(14) + b"\3\0\0\0", descriptors=descriptors))


@pytest.mark.parametrize("flags", [0, 1, 2, 3, 1 << 32, -1])
def test_flags_and_wrong_handles(core, flags):
    code = assemble(f"""
        r2 = r10
        r2 += -4
        *(u32 *)(r10 - 4) = 1
        r3 = r2
        r4 = {flags} ll
        {HANDLE}
        call 2
        r6 = r0
        r1 = {addresses.map_handle(4)} ll
        r2 = r10
        r2 += -4
        call 1
        exit
    """)
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 20, descriptors={3: map_descriptor(4, 4)}))
    assert {run.cause for run in result.runs} == {Cause.MAP}


def keys_of(size: int, from_map: bool = False) -> Scenario:
    """A program with one look-up, by a key of `size` bytes that no map here has: it traps behind the last word."""
    start = "r2 = 0x10000003 ll" if from_map else "r2 = r10\nr2 += -64"
    handle = addresses.map_handle(3, size)
    return Scenario({0: assemble(f"{start}\nr1 = {handle} ll\ncall 1\nexit")}, [(0, FRAME)], threads=1, stall=0,
                    latency=(1, 1), descriptors={3: map_descriptor(4, 4)})  # fmt: skip


def test_words_of_a_key_follow_each_other(core):
    clocks = [core.check(keys_of(size)).clocks for size in (8, 9, 64)]
    assert [after - clocks[0] for after in clocks] == [0, LOOP, 7 * LOOP]


@pytest.mark.parametrize("from_map", [False, True])
def test_words_of_keys_wait_for_the_engine(core, from_map):
    """All threads send long keys, and the engine takes a word in ten clocks: none is lost, and each thread's stay in
    their order (bench.cpp)."""
    scenario = keys_of(64, from_map)
    result = core.check(replace(scenario, packets=scenario.packets * 60, threads=16, stall=90))
    assert {run.cause for run in result.runs} == {Cause.MAP}


def test_other_helpers(core):
    code = assemble("""
        r6 = r1
        call 5
        r7 = r0
        call 7
        call 8
        r8 = r0
        r1 = r6
        r2 = -20
        call 44
        r1 = r6
        r2 = 100
        call 65
        r1 = *(u32 *)(r6 + 0)
        r2 = *(u32 *)(r6 + 4)
        *(u64 *)(r1 + 3) = r8
        r1 = 3
        r2 = 0
        call 23
        exit
    """)
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 40))
    assert {run.verdict for run in result.runs} == {4}
    assert {len(run.frame) for run in result.runs} == {184}


def test_all_threads_add_to_one_counter(core):
    code = assemble("""
        r1 = 1
        r2 = 0x10000008 ll
        lock *(u64 *)(r2 + 0) += r1
        r0 = *(u64 *)(r2 + 0)
        r3 = 5
        r0 = atomic_fetch_or((u64 *)(r2 + 0), r3)
        exit
    """.replace("r0 = atomic_fetch_or((u64 *)(r2 + 0), r3)", "r3 = atomic_fetch_add((u64 *)(r2 + 0), r3)"))
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 200, latency=(1, 40)))
    assert int.from_bytes(result.map[8:16], "little") == 200 * 6


def test_compare_and_exchange(core):
    code = assemble("""
        r2 = 0x10000008 ll
        r3 = 7
        r0 = 0
        r0 = cmpxchg_64(r2 + 0, r0, r3)
        r4 = r0
        r5 = 0x1122334455667788 ll
        r0 = 0x9900000007 ll
        w0 = cmpxchg32_32(r2 + 0, w0, w5)
        exit
    """)
    core.check(Scenario({0: code}, [(0, FRAME)] * 5, threads=1))
    core.check(Scenario({0: code}, [(0, FRAME)] * 50))


ATOMICS = ["lock *(u64 *)(r6 + 0) += r2", "lock *(u32 *)(r6 + 4) ^= w2", "r2 = atomic_fetch_or((u64 *)(r6 + 0), r2)",
           "w2 = xchg32_32(r6 + 4, w2)", "r0 = cmpxchg_64(r6 + 0, r0, r2)", "w0 = cmpxchg32_32(r6 + 0, w0, w2)",
           "r6 = atomic_fetch_and((u64 *)(r6 + 0), r6)\nr6 = r7"]  # fmt: skip


@pytest.mark.parametrize("base", ["r6 = r10\nr6 += -8", "r6 = *(u32 *)(r1 + 0)\nr6 += 16", "r6 = 0x10000008 ll"])
def test_atomics_in_every_window(core, base):
    """On all threads at once, each atomic many times over, next to loads and stores of the same word."""
    body = "".join(f"{atomic}\nr3 = *(u64 *)(r6 + 0)\n*(u8 *)(r6 + 3) = r3\nr2 += r3\n" for atomic in ATOMICS)
    code = assemble(f"{base}\nr7 = r6\nr2 = 0x123456789 ll\nr0 = 0\n{body * 3}exit")
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 100, map=bytes(range(64)), latency=(1, 40)))
    assert {run.cause for run in result.runs} == {Cause.NONE}


@pytest.mark.parametrize("atomic", ATOMICS[:5])
def test_a_local_atomic_takes_four_slots(core, atomic):
    """Five where CMPXCHG puts r0 aside; each comes round in a loop's clocks."""
    clocks = []
    for count in (10, 20):
        code = assemble(f"r6 = r10\nr6 += -8\nr0 = 0\n*(u64 *)(r10 - 8) = 0\nr2 = 3\n{(atomic + chr(10)) * count}exit")
        clocks.append(core.check(Scenario({0: code}, [(0, FRAME)], threads=1, stall=0)).clocks)
    passes = 5 if "cmpxchg" in atomic else 4
    assert clocks[1] - clocks[0] == 10 * passes * LOOP


LOCKED = f"""
    r6 = {addresses.MAP_VALUES + 0x20} ll
    r1 = r6
    {{call}} {BY_NAME["spin_lock"].number}
    r2 = *(u64 *)(r6 + 8)
    r3 = r2
    r3 *= 3
    r2 += 1
    *(u64 *)(r6 + 8) = r2
    *(u64 *)(r6 + 16) = r3
    r1 = r6
    {{call}} {BY_NAME["spin_unlock"].number}
    exit
"""


def through_register(program: str, register: int) -> str:
    """Its calls, by a register's number."""
    return re.sub(r"call (\d+)", rf"r{register} = \1\ncallx r{register}", program)


@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.parametrize("register", [None, 0, 5])
def test_a_lock_keeps_others_out(core, threads, register):
    """All threads change two words together, with plain loads and stores: no change is lost."""
    program = LOCKED.format(call="call")
    code = assemble(program if register is None else through_register(program, register))
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 100, threads=threads, latency=(1, 40), budget=10_000))
    assert {(run.cause, run.verdict) for run in result.runs} == {(Cause.NONE, 0)}
    assert [int.from_bytes(result.map[at : at + 8], "little") for at in (0x20, 0x28, 0x30)] == [0, 100, 297]


@pytest.mark.parametrize("flags", [0, UpdateFlag.LOCK])
@pytest.mark.parametrize("source", ["r6", "0x10000503 ll"])
@pytest.mark.parametrize("size, lock", [(4, 0), (8, 0), (8, 4), (12, 0), (12, 4), (12, 8), (24, 8), (24, 20), (64, 36)])
def test_updates_leave_locks_alone(core, size, lock, source, flags):
    """At every place in a value; with LOCK, while others hold it."""
    code = assemble(f"""
        r6 = *(u32 *)(r1 + 0)
        *(u32 *)(r10 - 4) = 3
        {HANDLE}
        r2 = r10
        r2 += -4
        r3 = {source}
        r4 = {int(flags)}
        call 2
        exit
    """)
    base, stride = 8, size + 7 & ~7  # so that an entry crosses a row
    memory = bytes(range(1, 256)) * 8
    at = base + 3 * stride
    memory = memory[: at + lock] + bytes(4) + memory[at + lock + 4 :]
    result = core.check(Scenario({0: code}, [(0, FRAME[::-1])] * 40, map=memory, budget=10_000,
                                 descriptors={3: map_descriptor(size, stride, base, lock=lock + 1)}))  # fmt: skip
    assert {(run.cause, run.verdict) for run in result.runs} == {(Cause.NONE, 0)}
    new = FRAME[::-1] if source == "r6" else memory[0x503:]
    assert result.map[at : at + size] == new[:lock] + bytes(4) + new[lock + 4 : size]
    assert result.map[:at] == memory[:at] and result.map[at + size : len(memory)] == memory[at + size :]
    exchanged = sum(operation == "XCHG" for _, operation, _, _ in result.shared)
    assert exchanged > 40 if flags else exchanged == 0


def test_an_update_that_never_gets_the_lock_spends_the_budget(core):
    code = assemble(f"r2 = r10\nr2 += -4\n{HANDLE}\nr3 = {addresses.MAP_VALUES} ll\nr4 = 4\ncall 2\nexit")
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 20, budget=50, map=b"\1",
                                 descriptors={3: map_descriptor(8, 8, lock=1)}))  # fmt: skip
    assert {run.cause for run in result.runs} == {Cause.BUDGET}
    assert sum(operation == "XCHG" for _, operation, _, _ in result.shared) == 20 * (50 - 6)


def test_a_lock_that_never_comes_spends_the_budget(core):
    """One thread holds it and ends. Every try is an instruction's worth of the budget."""
    code = assemble(f"r1 = {addresses.MAP_VALUES + 0x20} ll\ncall {BY_NAME['spin_lock'].number}\nexit")
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 20, budget=50, latency=(1, 1)))
    assert sorted(run.cause for run in result.runs) == [Cause.NONE] + [Cause.BUDGET] * 19
    tries = [sum(operation == "XCHG" and packet == number for packet, operation, _, _ in result.shared)
             for number in range(20)]  # fmt: skip
    assert sorted(tries) == [1] + [49] * 19


@pytest.mark.parametrize("helper", ["spin_lock", "spin_unlock"])
@pytest.mark.parametrize(
    "lock, cause",
    [
        ("r10", Cause.MEMORY_ACCESS),
        ("r6", Cause.MEMORY_ACCESS),
        ("0x200000020 ll", Cause.MEMORY_ACCESS),
        ("0x10000022 ll", Cause.MISALIGNED),
        ("0x1000001e ll", Cause.MISALIGNED),
    ],
)
def test_locks_are_in_map_memory(core, helper, lock, cause):
    place = f"r1 = {lock}" + ("\nr1 += -8" if lock == "r10" else "")
    code = assemble(f"r6 = *(u32 *)(r1 + 0)\n*(u64 *)(r10 - 8) = 0\n{place}\ncall {BY_NAME[helper].number}\nexit")
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 20))
    assert {run.cause for run in result.runs} == {cause}


def test_budget_is_exact(core):
    code = assemble("r0 = 1\nr0 += 1\nr0 += 1\nexit")
    for budget, cause in ((3, Cause.BUDGET), (4, Cause.NONE), (0, Cause.BUDGET)):
        result = core.check(Scenario({0: code}, [(0, FRAME)] * 20, budget=budget))
        assert {run.cause for run in result.runs} == {cause}


def test_no_packet_sees_an_earlier_ones_registers(core):
    """More packets than generations: every register reads as it does at the start."""
    dirty = "".join(f"r{n} = {n + 77}\n" for n in range(10))
    code = assemble(f"{dirty}call pc+1 frame 0\nexit\n{dirty}exit")
    clean = assemble("r0 += r1\n" + "".join(f"r0 += r{n}\n" for n in range(2, 10)) + "call pc+1 frame 0\nexit\n"
                     + "".join(f"r0 += r{n}\n" for n in range(6, 10)) + "exit")  # fmt: skip
    packets = [(64, FRAME)] * 300 + [(128 if n % 3 else 0, FRAME) for n in range(700)] + [(64, FRAME)] * 300
    idle = assemble("exit")
    result = core.check(Scenario({0: code, 128: idle, 64: clean}, packets, threads=1))
    assert {run.verdict for run in result.runs[:300] + result.runs[-300:]} == {addresses.CONTEXT}


@pytest.mark.parametrize("ready, least", [(16, 0.97), (LOOP, 0.97), (5, 0.97 * 5 / LOOP)])
def test_instructions_a_clock(core, ready, least):
    """Ten ready threads keep the core full."""
    body = "".join(f"r{n % 10} += {n}\n" for n in range(100))
    result = core.check(Scenario({0: assemble(f"{body}if r1 == r2 goto +1\nexit\nexit")}, [(0, FRAME)] * 8 * ready,
                                 threads=ready, stall=0))  # fmt: skip
    assert least <= result.retired / result.clocks <= 1


def test_only_the_thread_that_divides_waits(core):
    """As many others as the loop has clocks keep the core full, while one divides for as long as they take."""
    body = "".join(f"r{n % 10} += {n}\n" for n in range(9)) + "goto +0\n"  # a division's answer takes the jump's place
    plain = assemble(body * 10 + "exit")
    divisions = 40  # about 120 clocks each: 70, and then a turn each for its answer, the move and itself
    divides = assemble("r2 = -1\n" + "r2 /= r10\nr2 = -1\n" * divisions + "exit")
    packets = [(1024, FRAME)] + [(0, FRAME)] * (4 * LOOP)
    result = core.check(Scenario({0: plain, 1024: divides}, packets, threads=LOOP + 1, stall=0, latency=(1, 1)))
    assert divisions * 100 < result.clocks
    assert result.retired / result.clocks >= 0.97


@pytest.mark.parametrize("threads", [1, 16])
@pytest.mark.parametrize("signed", ["", "s"])
def test_all_threads_divide(core, threads, signed):
    """Each its own numbers, 32 and 64 bits, by register and by constant; by zero too."""
    code = assemble(f"""
        r6 = *(u32 *)(r1 + 0)
        r2 = *(u64 *)(r6 + 0)
        r3 = *(u16 *)(r6 + 8)
        r4 = r2
        r5 = r2
        r0 = r2
        r2 {signed}/= r3
        w4 {signed}%= w3
        r5 {signed}%= -7
        w0 {signed}/= 1000
        r7 = r3
        r7 {signed}%= r2
        r8 = r3
        w8 {signed}/= w1
        r9 = 0
        r8 {signed}/= r9
        r7 {signed}%= r9
        w0 {signed}%= w9
        exit
    """)
    packets = [(0, (n * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(8, "little") + bytes([n & 3, n]) + FRAME)
               for n in range(64)]  # fmt: skip
    core.check(Scenario({0: code}, packets, threads=threads))


@pytest.mark.parametrize("key", ["r10 - 8", "map + 16", "map + 30", "8"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_map_helpers_by_register(core, call, key):
    """With keys from stack and map memory, within a row and across two, and one that can't be read; behind the call
    stands another one, and its number is not the one that was kept."""
    base, _, offset = key.partition(" ")
    start = {"r10": "r2 = r10", "map": "r2 = 0x10000000 ll", "8": "r2 = 8"}[base]
    code = assemble(f"""
        *(u64 *)(r10 - 8) = 2
        {start}
        r2 += {offset.replace(" ", "").replace("+", "") or 0}
        {HANDLE}
        r3 = r10
        r3 += -8
        r4 = 0
        r5 = {call}
        callx r5
        r6 = r0
        r5 = 8
        callx r5
        r0 += r6
        exit
    """)
    core.check(Scenario({0: code}, [(0, FRAME)] * 20, map=bytes(16) + b"\3" + bytes(47),
                        descriptors={3: map_descriptor(12, 12, 128)}))  # fmt: skip


def test_loads_from_the_packet_follow_its_bounds(core):
    """LD_ABS counts from data, wherever the packet begins by now; and what is in front of it is outside."""
    code = assemble("""
        r6 = r1
        r2 = $delta
        call 44
        r1 = r6
        r2 = -30
        call 65
        r7 = $at
        r0 = *(u32 *)skb[r7 + 0]
        r8 = r0
        r0 = *(u16 *)skb[30]
        r0 += r8
        exit
    """.replace("$delta", "6").replace("$at", "24"))  # fmt: skip
    for frame in (FRAME, FRAME[:60], bytes(44)):
        core.check(Scenario({0: code}, [(0, frame)] * 20))


@pytest.mark.parametrize("handle, cause", [(3, Cause.MEMORY_ACCESS), (4, Cause.MAP), (99, Cause.MAP)])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_wrong_handles_come_before_wrong_keys(core, call, handle, cause):
    code = assemble(f"r1 = {addresses.map_handle(handle)} ll\nr2 = 8\nr4 = 0\ncall {call}\nexit")
    result = core.check(Scenario({0: code}, [(0, FRAME)] * 20, descriptors={3: map_descriptor(4, 4)}))
    assert {run.cause for run in result.runs} == {cause}
    assert result.retired == 20 * 3
