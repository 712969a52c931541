"""Every row of the instruction table has vectors that reach its edges. Whoever adds a row, and no vectors, is told.

What a vector reaches is seen on the golden interpreter: the operands that each instruction finds, the way a branch
goes, the window and the alignment of an access, the cause of a trap."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import pytest

from bpfnic.sim.golden.interpreter import Code
from bpfnic.sim.golden.memory import Buffer, Memory
from bpfnic.sim.golden.thread import Retired, Thread, Trap, finish
from bpfnic.spec import addresses, isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Group, Legal, Operation, Row
from tests import vectors
from tools.vectors import files

SHIFTS = {Operation.LSH, Operation.RSH, Operation.ARSH}
DIVISIONS = {Operation.DIV, Operation.SDIV, Operation.MOD, Operation.SMOD}
SWAPS = {Operation.LE, Operation.BE, Operation.BSWAP}
LOADS = {Operation.LDX, Operation.LDXS, Operation.LOAD_ACQUIRE}
STORES = {Operation.ST, Operation.STX, Operation.STORE_RELEASE}
ATOMICS = {operation for operation in Operation if operation.name.startswith("ATOMIC_")}
CALLS = {Operation.CALL_LOCAL, Operation.CALLX}
ONLY_TRAPS = {Operation.LDDW_REFERENCE: Cause.ILLEGAL_INSTRUCTION, Operation.CALL_HELPER: Cause.HELPER,
              Operation.CALL_BTF: Cause.HELPER}  # fmt: skip
"""No helper is there where vectors run, and references are for loaders."""

WINDOWS = {
    "context": (addresses.CONTEXT, addresses.CONTEXT_BYTES),
    "stack": (addresses.STACK, addresses.STACK_BYTES),
    "packet": (addresses.PACKET, 2048),
    "map": (addresses.MAP_VALUES, 1 << 24),
}


def edges(width: int) -> dict[int, str]:
    """Numbers of `width` bits whose names a row must meet."""
    half = 1 << width - 1
    return {0: "0", 1: "1", 2 * half - 1: "-1", half: "smallest", half - 1: "largest"}


def numbers(side: str) -> set[str]:
    return {f"{side} {name}" for name in edges(64).values()}


def registers(side: str, last: int) -> set[str]:
    return {f"{side} r{number}" for number in range(last + 1)}


def required(row: Row) -> set[str]:
    """What vectors must show of a row."""
    operation, needs = row.operation, set()
    if operation in ONLY_TRAPS:
        return {f"trap {ONLY_TRAPS[operation].name}"}
    if row.group is Group.MAY_GOTO:
        return {"forward", "not taken"}
    if row.group is Group.ACQUIRE_RELEASE:
        places = {"in context"} if operation is Operation.LOAD_ACQUIRE else set()
        places |= {"trap MISALIGNED"} if row.width > 8 else set()
        return places | {"in map", "in stack", "in packet", "trap MEMORY_ACCESS", "negative"}
    if row.instruction_class in (Class.ALU, Class.ALU64):
        needs |= registers("dst", 9) | {"r10 refused"}
        if row.register_operand:
            needs |= registers("src", 10) | {"same register"}
        if operation in SHIFTS:
            needs |= {"count 0", "count width - 1", "count width", "count beyond"} | numbers("left")
        elif operation in SWAPS:
            needs |= {"left -1", "left 0"}
        elif operation is Operation.MOVSX:
            needs -= {"src r10"}
            needs |= numbers("source")
        elif operation is Operation.NEG:
            needs |= numbers("left")
        else:
            needs |= numbers("left") | numbers("right")
        if row.width == 32 and operation is not Operation.MOVSX and operation not in SWAPS:
            needs |= {"upper half set"}
        if operation in (Operation.SDIV, Operation.SMOD):
            needs |= {"smallest by -1"}
    elif row.offset is Legal.BRANCH and operation is not Operation.JA:
        needs |= registers("dst", 9) | numbers("left") | numbers("right")
        needs |= {"forward", "backward", "not taken"}
        needs |= registers("src", 9) | {"same register"} if row.register_operand else set()
    elif operation is Operation.JA:
        needs |= {"forward", "backward"}
    elif operation in LOADS | STORES:
        base, value = ("src", "dst") if operation in LOADS else ("dst", "src")
        needs |= registers(base, 10) | {"trap MEMORY_ACCESS", "in stack", "start of stack", "end of stack"}
        needs |= {f"in {window} at {at}" for window in ("packet", "map") for at in range(8)}
        needs |= {"start of packet", "end of packet", "start of map", "end of map", "crosses a row"}
        needs |= registers(value, 9) if operation is not Operation.ST else set()
        needs |= {"r10 refused", "in context"} if operation in LOADS else set()
        needs |= {"negative", "positive"} if operation is Operation.LDXS else set()
        if row.width == 8:
            needs -= {"crosses a row"}
        else:
            needs |= {"trap MISALIGNED"}
    elif operation in ATOMICS:
        needs |= registers("dst", 9) | registers("src", 9) | {"trap MISALIGNED", "trap MEMORY_ACCESS", "in map"}
        needs |= {"in stack"} | numbers("right") if operation is not Operation.ATOMIC_CMPXCHG else {"hit", "miss"}
        needs |= {"r10 refused"} if row.src is Legal.WRITTEN else set()
        needs -= {"dst r0", "src r0"} if operation is Operation.ATOMIC_CMPXCHG else set()
    elif operation in (Operation.LD_ABS, Operation.LD_IND):
        needs |= {"retired", "outside the packet"}
        needs |= registers("src", 9) if operation is Operation.LD_IND and row.width == 8 else set()
    elif operation is Operation.LDDW:
        needs |= registers("dst", 9) | {"r10 refused", "retired"}
    elif operation is Operation.CALL_FIRMWARE:
        needs |= {"trap CALL_DEPTH", *(f"from frame {frame}" for frame in range(addresses.FRAMES))}
    elif operation in CALLS:
        needs |= {"retired", "trap CALL_DEPTH"}
        needs |= registers("dst", 9) | {"trap HELPER"} if operation is Operation.CALLX else set()
    else:
        assert operation is Operation.EXIT, f"nobody has said what vectors of {row.name} must show"
        needs |= {"retired", "from a function"}
    return needs


class Observer:
    """Runs a vector and says (row, what is seen) for each instruction that retired or trapped."""

    def __init__(self, vector: vectors.Vector):
        self.code = Code(256)
        self.code.write(0, vector.code(addresses.MAP_VALUES, entry=0))
        memory = Memory(Buffer(vector.packet, 2048), 1, bytearray(vector.map))
        self.thread = Thread(self.code, memory, {}, budget=vector.budget, trace=self._retired)
        self.seen: list[tuple[Row, Iterable[str]]] = []
        self._before = [0] * isa.REGISTERS
        self._before[1], self._before[isa.FRAME_POINTER] = addresses.CONTEXT, addresses.STACK_TOP
        self._packet_end = addresses.PACKET + addresses.HEADROOM + len(vector.packet)
        self._map_end = addresses.MAP_VALUES + len(vector.map)
        try:
            finish(self.thread.run(0))
        except Trap as trap:
            self._trapped(trap)

    def _trapped(self, trap: Trap) -> None:
        if trap.cause in (Cause.PROGRAM_RANGE, Cause.BUDGET):
            return
        instruction = self.code.step(self.thread.pc).instruction
        for row in isa.BY_OPCODE.get(instruction.opcode, ()):
            if not isa.refusals(row, instruction) or len(isa.BY_OPCODE[instruction.opcode]) == 1:
                self.seen.append((row, {f"trap {trap.cause.name}"}))

    def _retired(self, retired: Retired) -> None:
        row = isa.find(retired.instruction)
        self.seen.append((row, {"retired", *self._facts(row, retired)}))
        self._before = list(self.thread.registers)

    def _facts(self, row: Row, retired: Retired) -> Iterator[str]:
        instruction, before, operation = retired.instruction, self._before, row.operation
        mask = (1 << row.width) - 1
        dst, src = before[instruction.dst], before[instruction.src]
        if row.dst in (Legal.REGISTER, Legal.WRITTEN):
            yield f"dst r{instruction.dst}"
        if row.src in (Legal.REGISTER, Legal.WRITTEN):
            yield f"src r{instruction.src}"
            if instruction.src == instruction.dst:
                yield "same register"
        right = src if isinstance(row.src, Legal) else instruction.imm
        names = edges(row.width)
        yield f"left {names.get(dst & mask)}"
        if row.src == 0 and not isinstance(row.imm, int):
            signed = {0: "0", 1: "1", -1: "-1", -1 << 31: "smallest", (1 << 31) - 1: "largest"}
            yield f"right {signed.get(instruction.imm)}"
        else:
            yield f"right {names.get(right & mask)}"
        if operation in SHIFTS:
            count = right & (1 << 64) - 1
            yield {0: "count 0", row.width - 1: "count width - 1", row.width: "count width"}.get(
                count, "count beyond" if count > row.width else "count"
            )
        if operation is Operation.MOVSX:
            yield f"source {edges(instruction.offset).get(src & (1 << instruction.offset) - 1)}"
        if dst >> 32:
            yield "upper half set"
        if names.get(dst & mask) == "smallest" and right & mask == mask:
            yield "smallest by -1"
        if row.instruction_class in (Class.JMP, Class.JMP32) and retired.next_pc is not None:
            if retired.next_pc != retired.pc + 1:
                yield "forward" if retired.next_pc > retired.pc else "backward"
            else:
                yield "not taken"
        if operation is Operation.EXIT and retired.next_pc is not None:
            yield "from a function"
        if operation is Operation.CALL_FIRMWARE:
            yield f"from frame {self.thread.depth - 1}"
        if operation in (Operation.LD_ABS, Operation.LD_IND) and retired.next_pc is None:
            yield "outside the packet"
        if operation is Operation.ATOMIC_CMPXCHG:
            yield "hit" if before[0] & mask == self.thread.registers[0] else "miss"
        if operation is Operation.LDXS:
            yield "negative" if retired.value >> 63 else "positive"
        if row.group is Group.ACQUIRE_RELEASE:  # bits that an extension of the sign would spread
            value = retired.value if operation is Operation.LOAD_ACQUIRE else src
            yield "negative" if value >> row.width - 1 & 1 else "positive"
        if retired.address is not None:
            yield from self._place(row, retired.address)

    def _place(self, row: Row, address: int) -> Iterator[str]:
        size = row.width // 8
        ends = {"stack": addresses.STACK_TOP, "packet": self._packet_end, "map": self._map_end}
        for window, (start, length) in WINDOWS.items():
            if start <= address < start + length:
                yield f"in {window}"
                yield f"in {window} at {address % 8}"
                if address == (start if window != "packet" else start + addresses.HEADROOM):
                    yield f"start of {window}"
                if address + size == ends.get(window):
                    yield f"end of {window}"
        if address % addresses.ROW_BYTES + size > addresses.ROW_BYTES:
            yield "crosses a row"


def refused(code: bytes) -> Iterator[tuple[Row, str]]:
    """Rows that a raw instruction would be of, but for r10 where it writes."""
    fields = Instruction(code[0], code[1] & 15, code[1] >> 4, int.from_bytes(code[2:4], "little", signed=True),
                         int.from_bytes(code[4:8], "little", signed=True),
                         int.from_bytes(code[12:16], "little", signed=True) if len(code) > 8 else None)  # fmt: skip
    for row in isa.BY_OPCODE.get(code[0], ()):
        reasons = isa.refusals(row, fields)
        if len(reasons) == 1 and reasons[0].endswith("may not be r10, which is read-only"):
            yield row, "r10 refused"


@pytest.fixture(scope="module")
def shown() -> dict[str, set[str]]:
    """What the vectors show of each row."""
    shown: dict[str, set[str]] = defaultdict(set)
    for vector in vectors.read_all():
        for row, facts in Observer(vector).seen:
            shown[row.name].update(facts)
        for line in vector.text.splitlines():
            if line.startswith("raw ") and vector.trap is Cause.ILLEGAL_INSTRUCTION:
                for row, fact in refused(bytes.fromhex(line.removeprefix("raw "))):
                    shown[row.name].add(fact)
    return shown


def missing(shown: Mapping[str, set[str]]) -> list[str]:
    """A line for each row of which vectors show too little."""
    lacks = {row.name: sorted(required(row) - shown.get(row.name, set())) for row in isa.ROWS}
    return [f"{name}: no vector shows {', '.join(what)}" for name, what in lacks.items() if what]


def test_every_row_has_vectors_at_its_edges(shown: dict[str, set[str]]):
    lines = missing(shown)
    assert not lines, "\n".join(lines)


def test_what_is_missing_is_named(shown: dict[str, set[str]]):
    fewer = {name: facts - {"smallest by -1"} for name, facts in shown.items() if name != "lddw_code"}
    expected = [f"{name}: no vector shows smallest by -1"
                for name in ("sdiv32_reg", "sdiv32_imm", "smod32_reg", "smod32_imm",
                             "sdiv64_reg", "sdiv64_imm", "smod64_reg", "smod64_imm")]  # fmt: skip
    assert missing(fewer) == [*expected, "lddw_code: no vector shows trap ILLEGAL_INSTRUCTION"]


def test_tables_are_what_their_writer_writes():
    """Run `python -m tools.vectors` after a change of it, or of the instruction table."""
    assert [path.name for path, text in files().items() if path.read_text() != text] == []
