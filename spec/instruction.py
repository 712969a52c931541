"""One BPF instruction as it is encoded: RFC 9669 sections 3.1 (basic, 8 bytes) and 3.2 (wide, 16 bytes), little-endian.

A *slot* is 8 bytes of program; program counters, branch distances and instruction numbers count slots. What the fields
may hold for each opcode is said in `spec/isa.py`."""

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from bpfnic.spec.errors import BpfnicError

SLOT_BYTES = 8
WIDE_OPCODE = 0x18
"""The one opcode whose instructions take two slots (BPF_IMM | BPF_DW | BPF_LD)."""

_BASIC = struct.Struct("<BBhi")  # opcode, src << 4 | dst, offset, imm


@dataclass(frozen=True, slots=True)
class Instruction:
    """The fields of one instruction, as integers and with no judgement on them.

    `opcode` 8 bits, `dst` and `src` 4 bits, `offset` signed 16 bits, `imm` signed 32 bits; `next_imm`, signed 32 bits,
    is the second immediate of a wide instruction and None in a basic one."""

    opcode: int
    dst: int = 0
    src: int = 0
    offset: int = 0
    imm: int = 0
    next_imm: int | None = None

    @property
    def slots(self) -> int:
        """1, or 2 for a wide instruction."""
        return 1 if self.next_imm is None else 2

    @property
    def imm64(self) -> int:
        """The 64-bit unsigned constant of a wide instruction: `next_imm` above `imm`."""
        if self.next_imm is None:
            raise BpfnicError(f"instruction 0x{self.opcode:02x} has no 64-bit immediate")
        return (self.next_imm & 0xFFFF_FFFF) << 32 | self.imm & 0xFFFF_FFFF

    def encode(self) -> bytes:
        """8 bytes, or 16 for a wide instruction. Raises BpfnicError for a field that does not fit its bits."""
        try:
            if self.dst >> 4 or self.src >> 4:
                raise struct.error("registers have 4 bits")
            code = _BASIC.pack(self.opcode, self.src << 4 | self.dst, self.offset, self.imm)
            return code if self.next_imm is None else code + _BASIC.pack(0, 0, 0, self.next_imm)
        except struct.error as error:
            raise BpfnicError(f"{self} can't be encoded: {error}") from None


def encode(instructions: Iterable[Instruction | None]) -> bytes:
    """Program text of the instructions; the None that `decode` puts in the second slot of a wide one is passed over."""
    return b"".join(instruction.encode() for instruction in instructions if instruction is not None)


def decode(code: bytes) -> list[Instruction | None]:
    """One entry a slot, None in the second slot of a wide instruction, so that an index is an instruction number.

    Raises BpfnicError, naming the instruction number, if the length is no multiple of 8, a wide instruction lacks its
    second half, or reserved fields of that half aren't zero (RFC 9669 section 3.2)."""
    if len(code) % SLOT_BYTES:
        raise BpfnicError(f"instruction {len(code) // SLOT_BYTES}: truncated to {len(code) % SLOT_BYTES} of 8 bytes")
    instructions: list[Instruction | None] = []
    fields = _BASIC.iter_unpack(code)
    for opcode, registers, offset, imm in fields:
        dst, src = registers & 0xF, registers >> 4
        if opcode != WIDE_OPCODE:
            instructions.append(Instruction(opcode, dst, src, offset, imm))
            continue
        number = len(instructions)
        half = next(fields, None)
        if half is None:
            raise BpfnicError(f"instruction {number}: the second half of a 16-byte instruction is missing")
        reserved = {"opcode": half[0], "dst": half[1] & 0xF, "src": half[1] >> 4, "offset": half[2]}
        for name, value in reserved.items():
            if value:
                raise BpfnicError(f"instruction {number}: in a 16-byte instruction's second half: "
                                  f"{name} must be 0, not {value}")  # fmt: skip
        instructions += [Instruction(opcode, dst, src, offset, imm, half[3]), None]
    return instructions
