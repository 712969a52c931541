"""A program whose jumps know the line that they go to, so that lines can be put in and taken out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bpfnic.spec import isa
from bpfnic.spec.addresses import code_address
from bpfnic.spec.assembly import disassemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import SLOT_BYTES, WIDE_OPCODE, Instruction, decode
from bpfnic.spec.isa import Legal, Row

_IN_IMM = frozenset(row.opcode for row in isa.ROWS if row.imm is Legal.BRANCH and row.opcode != WIDE_OPCODE)
_CALL_LOCAL = isa.BY_NAME["call_local"]


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction, and the line that it names if it names one (the number of lines: behind the last). A wide
    instruction with a target is its code address, for callx."""

    instruction: Instruction
    target: int | None = None


@dataclass(frozen=True)
class Program:
    """Lines; at each target of a jump or call one begins."""

    lines: tuple[Line, ...]

    def slots(self) -> list[int]:
        """The slot of each line, counted from the program's first, and of what comes behind the last."""
        places = [0]
        for line in self.lines:
            places.append(places[-1] + line.instruction.slots)
        return places

    def instructions(self, entry: int = 0) -> list[Instruction]:
        """The instructions, for a program that stands at slot `entry`."""
        places = self.slots()
        made = []
        for slot, line in zip(places, self.lines, strict=False):
            instruction = line.instruction
            if line.target is not None:
                distance = places[line.target] - slot - 1
                if instruction.opcode == WIDE_OPCODE:
                    instruction = replace(instruction, imm=code_address(entry + places[line.target]), next_imm=0)
                elif instruction.opcode in _IN_IMM:
                    instruction = replace(instruction, imm=distance)
                else:
                    instruction = replace(instruction, offset=distance)
            made.append(instruction)
        return made

    def code(self, entry: int = 0) -> bytes:
        """Program text."""
        return b"".join(instruction.encode() for instruction in self.instructions(entry))

    def keeping(self, kept: Iterable[int]) -> "Program":
        """Only these lines, in order; what named a line that is gone names the next one that is left."""
        numbers = sorted(kept)
        moved, place = [], 0
        for old in range(len(self.lines) + 1):
            moved.append(place)
            place += place < len(numbers) and numbers[place] == old
        lines = [self.lines[number] for number in numbers]
        return Program(tuple(
            line if line.target is None else replace(line, target=moved[line.target]) for line in lines
        ))  # fmt: skip

    def changed(self, number: int, line: Line) -> "Program":
        """With another line in place of line `number`."""
        return Program((*self.lines[:number], line, *self.lines[number + 1 :]))


def of_bytes(code: bytes) -> Program:
    """The program that any whole slots are: a line for each instruction that is legal, and for each slot else. Jumps to
    the start of a line follow it."""
    lines: list[Instruction] = []
    starts: dict[int, int] = {}
    slot = 0
    while slot * SLOT_BYTES < len(code):
        starts[slot] = len(lines)
        lines.append(_first(code[slot * SLOT_BYTES :]))
        slot += lines[-1].slots
    starts[slot] = len(lines)
    places = {number: slot for slot, number in starts.items()}
    return Program(tuple(
        Line(instruction, starts.get(_target(places[number], instruction))) for number, instruction in enumerate(lines)
    ))  # fmt: skip


def _first(code: bytes) -> Instruction:
    """The instruction at the start; of a wide one that is none, its first slot alone."""
    if code[0] == WIDE_OPCODE:
        try:
            wide = decode(code[: 2 * SLOT_BYTES])[0]
            assert wide
            return wide
        except BpfnicError:
            pass
    opcode, registers = code[0], code[1]
    offset, imm = int.from_bytes(code[2:4], "little", signed=True), int.from_bytes(code[4:8], "little", signed=True)
    return Instruction(opcode, registers & 15, registers >> 4, offset, imm)


def _target(slot: int, instruction: Instruction) -> int:
    """The slot that a legal jump or local call goes to, -1 where it is none."""
    try:
        row = isa.find(instruction)
    except BpfnicError:
        return -1
    if row.offset is Legal.BRANCH:
        return slot + 1 + instruction.offset
    return slot + 1 + instruction.imm if row.imm is Legal.BRANCH and row.opcode != WIDE_OPCODE else -1


def listing(instructions: Sequence[Instruction]) -> list[str]:
    """The assembly of instructions; for what is none `raw` and its bytes, as vectors have it."""
    lines = []
    for instruction in instructions:
        try:
            lines.append(disassemble(instruction))
        except BpfnicError:
            lines.append(f"raw {instruction.encode().hex()}")
    return lines


def make(row: Row | str, **fields: int) -> Instruction:
    """An instruction of a row: its exact fields, those given, and 0 for the rest."""
    row = isa.BY_NAME[row] if isinstance(row, str) else row
    filled = {name: value if isinstance(value := getattr(row, name), int) else 0
              for name in ("dst", "src", "offset", "imm")}  # fmt: skip
    if row.next_imm is not None:
        filled["next_imm"] = 0
    return Instruction(row.opcode, **filled | fields)
