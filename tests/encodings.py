"""Instructions made from the instruction table: one of each row as it should be, and every way to get a field wrong.
What a loader must refuse and an engine must trap."""

import random
from collections.abc import Iterator
from dataclasses import replace

from bpfnic.spec import isa
from bpfnic.spec.instruction import SLOT_BYTES, Instruction
from bpfnic.spec.isa import Legal, Operation, Row

FIELDS = ("dst", "src", "offset", "imm", "next_imm")
_LEGAL = {Legal.REGISTER: 2, Legal.WRITTEN: 3}
_BITS = {"dst": 4, "src": 4, "offset": 16, "imm": 32, "next_imm": 32}

TAKEN = {
    Operation.JEQ: (5, 5), Operation.JNE: (5, 4), Operation.JSET: (5, 4), Operation.JGT: (5, 4), Operation.JGE: (5, 5),
    Operation.JLT: (4, 5), Operation.JLE: (5, 5), Operation.JSGT: (5, 4), Operation.JSGE: (5, 5),
    Operation.JSLT: (4, 5), Operation.JSLE: (5, 5),
}  # fmt: skip
"""Operands with which each conditional jump is taken."""


def instance(row: Row, **changes: int) -> Instruction:
    """A legal instruction of a row (registers 2 and 3, other numbers 0 where they may be), with some fields changed."""
    legal = {name: getattr(row, name) for name in FIELDS}
    fields = {name: _LEGAL.get(value, 0) if isinstance(value, Legal) else value for name, value in legal.items()}
    return Instruction(row.opcode, **fields | changes)


def illegal() -> Iterator[tuple[str, str, Instruction]]:
    """(row's name, field, instruction): legal but for that field, which holds what no row of the opcode allows. Of an
    exact integer each bit is flipped once."""
    for row in isa.ROWS:
        right = instance(row)
        for field in FIELDS:
            for value in _wrong(field, getattr(row, field)):
                wrong = replace(right, **{field: value})
                if all(isa.refusals(other, wrong) for other in isa.BY_OPCODE[row.opcode]):
                    yield row.name, field, wrong


def _wrong(field: str, legal: int | Legal | None) -> list[int]:
    """Values that are no `legal`, ascending."""
    if legal is Legal.FRAME:
        return [-(1 << 15), -16, 1, 8, 520, 528, (1 << 15) - 16]
    if legal is None or legal in (Legal.SIGNED16, Legal.IMM32, Legal.BRANCH):
        return []
    if isinstance(legal, Legal):
        return list(range(isa.FRAME_POINTER + (legal is Legal.REGISTER), 16))
    top = 1 << _BITS[field] - 1
    flipped = [legal ^ 1 << bit for bit in range(_BITS[field])]
    return sorted(flipped if field in ("dst", "src") else [(value ^ top) - top for value in flipped])


def soup(chance: random.Random, slots: int) -> bytes:
    """So many slots that nobody meant as a program: bytes, legal instructions with anything in their fields, and such
    with one bit flipped."""
    code = bytearray()
    while len(code) < slots * SLOT_BYTES:
        kind = chance.random()
        piece = bytearray(chance.randbytes(SLOT_BYTES) if kind < 0.1 else _anything(chance).encode())
        if kind > 0.85:
            bit = chance.randrange(8 * len(piece))
            piece[bit // 8] ^= 1 << bit % 8
        code += piece
    return bytes(code[: slots * SLOT_BYTES])


def _anything(chance: random.Random) -> Instruction:
    row = chance.choice(isa.ROWS)
    near, far = range(-64, 64), range(-1 << 15, 1 << 15)
    spread = {Legal.REGISTER: range(11), Legal.WRITTEN: range(10), Legal.FRAME: range(0, 528, 16),
              Legal.SIGNED16: chance.choice([near, near, far]), Legal.BRANCH: chance.choice([range(8), near, far]),
              Legal.IMM32: chance.choice([near, range(-1 << 31, 1 << 31)])}  # fmt: skip
    fields = {name: getattr(row, name) for name in FIELDS}
    fields |= {name: chance.choice(spread[legal]) for name, legal in fields.items() if isinstance(legal, Legal)}
    return Instruction(row.opcode, **fields)
