"""Puts the numbers of CO-RE relocations into instructions: the immediate of an operation, the offset of a load or
store, the constant of a wide instruction. (libbpf: bpf_core_patch_insn.)"""

from collections.abc import Sequence
from dataclasses import replace

from bpfnic.host.btf.relocate import Value
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import WIDE_OPCODE, Instruction

POISON = 0xBAD2310
"""The helper that nobody has, called in place of an instruction whose relocation can't be satisfied: a program may have
it where it isn't reached."""
_POISONED = Instruction(0x85, imm=POISON)

_CLASS, _SIZE, _FROM_REGISTER = 0x07, 0x18, 0x08
_LDX, _ST, _STX, _ALU, _ALU64 = 1, 2, 3, 4, 7
_SIZES = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_LARGEST_OFFSET = 0x7FFF


def patched(code: Sequence[Instruction | None], slot: int, value: Value) -> list[Instruction | None]:
    """The instruction at a slot as it is to be, with its second slot where it has two. Raises BpfnicError: it isn't one
    that the relocation fits, or doesn't have the number that it should."""
    instruction = code[slot]
    if instruction is None:
        raise BpfnicError("inside a 16-byte instruction")
    poisoned: list[Instruction | None] = [_POISONED] * instruction.slots
    if value.new is None:
        return poisoned
    kind = instruction.opcode & _CLASS
    if kind in (_ALU, _ALU64) and not instruction.opcode & _FROM_REGISTER:
        _expect(value, instruction.imm)
        return [replace(instruction, imm=_signed(value.new, 32))]
    if kind in (_LDX, _ST, _STX):
        _expect(value, instruction.offset)
        if value.new > _LARGEST_OFFSET:
            raise BpfnicError(f"an offset of {value.new}, above {_LARGEST_OFFSET}")
        return [_resized(replace(instruction, offset=value.new), value)] if value.resizable else poisoned
    if instruction.opcode == WIDE_OPCODE and instruction.src == 0:
        _expect(value, instruction.imm64)
        return [replace(instruction, imm=_signed(value.new, 32), next_imm=_signed(value.new >> 32, 32)), None]
    raise BpfnicError(f"an instruction with opcode {instruction.opcode:#04x} can't be relocated")


def _expect(value: Value, number: int) -> None:
    if value.checked and (number - value.old) & (1 << 64) - 1:
        raise BpfnicError(f"the instruction has {number}, where the program's types say {_signed(value.old, 64)}")


def _resized(instruction: Instruction, value: Value) -> Instruction:
    if value.new_size == value.old_size:
        return instruction
    if _SIZES[instruction.opcode & _SIZE] != value.old_size:
        raise BpfnicError(f"accesses {_SIZES[instruction.opcode & _SIZE]} bytes of a field of {value.old_size}")
    code = next((code for code, size in _SIZES.items() if size == value.new_size), None)
    if code is None:
        raise BpfnicError(f"a field of {value.new_size} bytes, which no instruction accesses")
    return replace(instruction, opcode=instruction.opcode & ~_SIZE | code)


def _signed(word: int, bits: int) -> int:
    return (word & (1 << bits) - 1 ^ 1 << bits - 1) - (1 << bits - 1)
