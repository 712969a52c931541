"""The golden interpreter on the vectors of tests/data, and what vectors can't say: order, helpers, trace, store."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfnic.sim.golden.interpreter import Code
from bpfnic.sim.golden.memory import Buffer, Memory
from bpfnic.sim.golden.thread import Retired, SharedAccess, TailCall, Thread, Trap, finish
from bpfnic.spec import addresses, isa
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction, encode
from bpfnic.spec.isa import Operation
from tests import vectors


def memory(packet: bytes = bytes(64), map_bytes: bytes = bytes(64)) -> Memory:
    """All windows of a thread."""
    return Memory(Buffer(packet, 2048), ifindex=1, map_memory=bytearray(map_bytes))


def thread(text: str, reach: Memory | None = None, helpers=None, trace=None) -> Thread:
    code = Code(64)
    code.write(0, assemble(text))
    return Thread(code, reach or memory(), helpers or {}, budget=1000, trace=trace)


VECTORS = vectors.by_test(vectors.read_all())


@pytest.mark.parametrize("test", VECTORS)
def test_vectors(test: str):
    for vector in VECTORS[test]:
        with vectors.named(vector):
            judge(vector)


def judge(vector: vectors.Vector):
    reach = memory(vector.packet, vector.map)
    code = Code(256)
    code.write(0, vector.code(addresses.MAP_VALUES, entry=0))
    run = Thread(code, reach, {}, budget=vector.budget)
    cause = Cause.NONE
    try:
        assert finish(run.run(0)) == run.registers[0]
    except Trap as trap:
        cause = trap.cause
        assert trap.pc == run.pc
        assert vector.pc in (None, trap.pc)
    assert cause is vector.trap
    assert {number: hex(run.registers[number]) for number in vector.registers} == {
        number: hex(value) for number, value in vector.registers.items()
    }
    if vector.packet_after is not None:
        assert reach.buffer.frame.hex() == vector.packet_after.hex()
    if vector.map_after is not None:
        assert reach.map_memory[: len(vector.map_after)].hex() == vector.map_after.hex()


def test_vectors_reach_every_row():
    """Every row retires somewhere, but those that only trap: references, kernel functions, helpers where none are."""
    seen = set()

    def note(retired: Retired) -> None:
        seen.add(isa.find(retired.instruction).name)

    for vector in vectors.read_all():
        code = Code(256)
        code.write(0, vector.code(addresses.MAP_VALUES, entry=0))
        try:
            finish(Thread(code, memory(vector.packet, vector.map), {}, budget=1000, trace=note).run(0))
        except Trap:
            pass
    trap_only = {row.name for row in isa.ROWS if row.operation is Operation.LDDW_REFERENCE}
    assert {row.name for row in isa.ROWS} - seen == trap_only | {"call_helper", "call_btf"}


# Order of shared accesses


def test_yields_before_each_part_of_a_shared_access():
    """A load across a row's end is two accesses, and sees between them what another thread stored."""
    reach = memory()
    run = thread("r1 = 0x1000000c ll\nr0 = *(u64 *)(r1 + 0)\nexit", reach).run(0)
    assert next(run) == SharedAccess(Operation.LDX, addresses.MAP_VALUES + 12, 4)
    reach.map_memory[:64] = b"\xff" * 64  # before the first part: both see it
    assert next(run) == SharedAccess(Operation.LDX, addresses.MAP_VALUES + 16, 4)
    reach.map_memory[:64] = b"\x11" * 64  # between the parts: the second alone sees it
    with pytest.raises(StopIteration) as end:
        next(run)
    assert end.value.value == 0x11111111_FFFFFFFF


def test_a_store_across_rows_is_two():
    reach = memory()
    run = thread("r1 = 0x1000000f ll\nr2 = 0x1122334455667788 ll\n*(u64 *)(r1 + 0) = r2\nr0 = 0\nexit", reach).run(0)
    assert next(run) == SharedAccess(Operation.STX, addresses.MAP_VALUES + 15, 1)
    assert reach.map_memory[15:17] == b"\x00\x00"
    assert next(run) == SharedAccess(Operation.STX, addresses.MAP_VALUES + 16, 7)
    assert reach.map_memory[15:17] == b"\x88\x00"
    assert finish(run) == 0
    assert reach.map_memory[15:23] == bytes.fromhex("8877665544332211")


def test_two_threads_interleave_as_they_are_resumed():
    """Load, add, store of two threads lose an update in one order and not in the other; an atomic add never does."""
    plain = "r1 = 0x10000000 ll\nr2 = *(u64 *)(r1 + 0)\nr2 += 1\n*(u64 *)(r1 + 0) = r2\nr0 = 0\nexit"
    atomic = "r1 = 0x10000000 ll\nr2 = 1\nlock *(u64 *)(r1 + 0) += r2\nr0 = 0\nexit"
    for text, order, count in ((plain, "abab", 1), (plain, "aabb", 2), (atomic, "ab", 2), (atomic, "ba", 2)):
        reach = memory()
        runs = {name: thread(text, reach).run(0) for name in "ab"}
        for run in runs.values():
            next(run)
        for name in order:
            next(runs[name], None)
        assert reach.map_memory[0] == count, (text, order)


def test_an_atomic_is_one_shared_access():
    run = thread("r1 = 0x10000008 ll\nr2 = 1\nr2 = atomic_fetch_add((u64 *)(r1 + 0), r2)\nr0 = 0\nexit").run(0)
    assert list(run) == [SharedAccess(Operation.ATOMIC_FETCH_ADD, addresses.MAP_VALUES + 8, 8)]


def test_private_memory_does_not_suspend():
    text = "*(u64 *)(r10 - 8) = 5\nr2 = *(u32 *)(r1 + 0)\n*(u8 *)(r2 + 0) = 1\nr0 = *(u64 *)(r10 - 8)\nexit"
    run = thread(text).run(0)
    with pytest.raises(StopIteration) as end:
        next(run)
    assert end.value.value == 5


@pytest.mark.parametrize("at, trap", [(-8, None), (-512, None), (-4, Cause.MEMORY_ACCESS), (-12, Cause.MISALIGNED)])
def test_atomics_on_the_stack(at: int, trap: Cause | None):
    text = f"""
        r2 = 5
        r3 = 7
        r1 = r10
        r1 += {at}
        lock *(u64 *)(r1 + 0) += r2
        r3 = atomic_fetch_add((u64 *)(r1 + 0), r3)
        r0 = *(u64 *)(r1 + 0)
        exit
    """
    run = thread(text).run(0)
    if trap is None:
        assert finish(run) == 12
    else:
        with pytest.raises(Trap) as caught:
            finish(run)
        assert caught.value.cause is trap


# Helpers


def test_helper_takes_r1_to_r5_and_gives_r0_alone():
    def helper(running: Thread):
        return sum(running.registers[1:6]) - 100
        yield

    text = "r1 = 1\nr2 = 2\nr3 = 3\nr4 = 4\nr5 = 5\nr6 = 6\ncall 7\nexit"
    run = thread(text, helpers={7: helper})
    assert finish(run.run(0)) == (1 << 64) - 85
    assert run.registers[1:7] == [1, 2, 3, 4, 5, 6]


def test_helper_suspends_and_uses_the_threads_memory():
    reach = memory(map_bytes=b"\x2a".ljust(64, b"\0"))

    def helper(running: Thread):
        value = yield from running.load(running.registers[1], 8)
        yield from running.store(running.registers[1], 8, value + 1)
        return value

    run = thread("r1 = 0x10000000 ll\ncall 1\nexit", reach, {1: helper}).run(0)
    assert [access.operation for access in (next(run), next(run))] == [Operation.LDX, Operation.STX]
    assert finish(run) == 42
    assert reach.map_memory[0] == 43


def test_helper_that_traps_names_the_calling_instruction():
    def helper(running: Thread):
        raise Trap(Cause.MAP)
        yield

    run = thread("r0 = 0\ncall 1\nexit", helpers={1: helper})
    with pytest.raises(Trap) as caught:
        finish(run.run(0))
    assert (caught.value.cause, caught.value.pc, str(caught.value)) == (Cause.MAP, 1, "MAP at instruction 1")


def test_tail_call_keeps_frame_and_registers():
    """A tail call from a function: the new program runs in that function's frame and returns to its caller."""

    def helper(running: Thread):
        return TailCall(8 + 4096)
        yield

    trace: list[Retired] = []
    text = """
        r6 = 1                  ; 0
        call f                  ; 1
        r0 += r6                ; 2
        exit                    ; 3
    f:  r6 = 70                 ; 4
        r3 = 300                ; 5
        call 12                 ; 6
        exit                    ; 7
        r0 = r10                ; 8
        r1 = 0x20200 ll         ; 9
        r0 -= r1                ; 11
        r0 += r3                ; 12
        r0 += r6                ; 13
        exit                    ; 14
    """
    assert finish(thread(text, helpers={12: helper}, trace=trace.append).run(0)) == -64 + 300 + 70 + 1
    call = next(retired for retired in trace if retired.pc == 6)
    assert (call.register, call.value, call.next_pc) == (1, addresses.CONTEXT, 8)


# Trace, start, end


def test_trace_shows_each_retired_instruction():
    trace: list[Retired] = []
    text = """
        r2 = 7
        *(u32 *)(r10 - 4) = r2
        r3 = *(s8 *)(r10 - 4)
        if r3 == 7 goto +1
        r0 = 1
        call f
        exit
    f:  w0 = -1
        exit
    """
    run = thread(text, trace=trace.append)
    assert finish(run.run(0)) == 0xFFFFFFFF
    stack = addresses.STACK_TOP - 4
    shown = [(retired.pc, retired.register, retired.value, retired.address, retired.next_pc) for retired in trace]
    assert shown == [
        (0, 2, 7, None, 1),
        (1, None, 0, stack, 2),
        (2, 3, 7, stack, 3),
        (3, None, 0, None, 5),
        (5, None, 0, None, 7),
        (7, 0, 0xFFFFFFFF, None, 8),
        (8, None, 0, None, 6),
        (6, None, 0, None, None),
    ]
    assert trace[0].instruction == Instruction(0xB7, dst=2, imm=7)
    assert run.retired == len(trace) == 8


def test_a_trapping_instruction_does_not_retire():
    trace: list[Retired] = []
    run = thread("r2 = 7\nr2 = *(u64 *)(r2 + 0)\nexit", trace=trace.append)
    with pytest.raises(Trap):
        finish(run.run(0))
    assert (len(trace), run.retired, run.registers[2]) == (1, 1, 7)


def test_registers_at_the_start():
    run = thread("exit")
    assert finish(run.run(0)) == 0
    assert run.registers == [0, addresses.CONTEXT, 0, 0, 0, 0, 0, 0, 0, 0, addresses.STACK_TOP]
    assert finish(thread("r0 = r1\nexit").run(0, context=0x1234)) == 0x1234


# Program store


def test_unwritten_slots_are_illegal():
    with pytest.raises(Trap) as caught:
        finish(thread("r0 = 0").run(0))
    assert (caught.value.cause, caught.value.pc) == (Cause.ILLEGAL_INSTRUCTION, 1)


def test_a_program_runs_where_it_was_written():
    code = Code(64)
    code.write(40, assemble("r0 = 1\ncall f\nexit\nf: r0 += 1\nexit"))
    assert finish(Thread(code, memory(), {}, budget=100).run(40)) == 2


def test_a_rewritten_slot_is_decoded_again():
    """Also the second half of a wide instruction, whose first half stays."""
    code = Code(8)
    code.write(0, assemble("r0 = 0x1122334455667788 ll\nexit"))

    def run() -> int:
        return finish(Thread(code, memory(), {}, budget=100).run(0))

    assert run() == 0x1122334455667788
    code.write(1, assemble("r0 = 1 ll")[8:])
    assert run() == 0x55667788
    code.write(0, assemble("r0 = 3\nexit"))
    assert run() == 3


@pytest.mark.parametrize("slot, size", [(7, 16), (8, 8), (-1, 8), (0, 7)])
def test_write_refuses_what_does_not_fit(slot: int, size: int):
    with pytest.raises(BpfnicError, match="do not fit the 8 program slots"):
        Code(8).write(slot, bytes(size))


@pytest.mark.parametrize("text", ["r0 = 0\nr0 = 1\nr0 = 2", "r0 = 0\nr0 = 1\nr0 = 5 ll"])
def test_the_store_ends(text: str):
    """Behind the last slot, and a wide instruction whose second half would be there."""
    code = Code(3)
    code.write(0, assemble(text)[:24])
    with pytest.raises(Trap) as caught:
        finish(Thread(code, memory(), {}, budget=100).run(0))
    assert caught.value.cause is Cause.PROGRAM_RANGE


def test_what_a_device_does_not_execute_is_unsupported():
    code = Code(8, lambda row: row.group is not isa.Group.DIVMUL64)
    code.write(0, assemble("w0 /= 3\nr0 /= 3\nexit"))
    with pytest.raises(Trap) as caught:
        finish(Thread(code, memory(), {}, budget=100).run(0))
    assert (caught.value.cause, caught.value.pc) == (Cause.UNSUPPORTED, 1)


@given(st.binary(min_size=8, max_size=16 * 8).map(lambda code: code[: len(code) // 8 * 8]))
def test_any_bytes_end_or_trap(code: bytes):
    """No bytes make it raise anything but Trap, or leave registers outside 64 bits."""
    store = Code(16)
    store.write(0, code)
    run = Thread(store, memory(), {}, budget=200)
    try:
        finish(run.run(0))
    except Trap as trap:
        assert trap.cause is not Cause.NONE
    assert all(0 <= value < 1 << 64 for value in run.registers)


@given(st.lists(st.sampled_from(isa.ROWS), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_any_legal_instructions_end_or_trap(rows: list[isa.Row], random):
    """As above, with bytes that mostly get past the decoder."""
    def fill(legal, field: str):
        if not isinstance(legal, isa.Legal):
            return legal
        if legal in (isa.Legal.REGISTER, isa.Legal.WRITTEN):
            return random.randrange(10)
        if legal is isa.Legal.FRAME:
            return 16 * random.randrange(4)
        if legal is isa.Legal.IMM32:
            return random.choice((0, 1, -1, 31, 64, -(1 << 31), (1 << 31) - 1))
        return random.randrange(-4, 5)

    program = [
        Instruction(row.opcode, *(fill(getattr(row, f), f) for f in ("dst", "src", "offset", "imm", "next_imm")))
        for row in rows
    ]
    store = Code(64)
    store.write(0, encode(program))
    run = Thread(store, memory(), {}, budget=200)
    try:
        finish(run.run(0))
    except Trap as trap:
        assert trap.cause is not Cause.NONE
    assert all(0 <= value < 1 << 64 for value in run.registers)
