"""What programs do to maps that BPF_F_RDONLY_PROG or BPF_F_WRONLY_PROG keep them from, and what helpers can't do with
maps: refused when they are loaded.

Follows maps and pointers to their values through registers, over every path, as far as they can be told apart: a
pointer that lay on the stack, was passed to a function or comes from two maps is not followed, and what is done with it
is not seen. (Linux's verifier sees everything, and so refuses more.)"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bpfnic.host import listing
from bpfnic.host.structure import jump_target
from bpfnic.spec import helpers, isa
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Operation, Row
from bpfnic.spec.maps import OF_MAPS, MapFlag, MapType

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition
    from bpfnic.host.object import Program

_WRITES = {helpers.BY_NAME[name].number for name in ("map_update_elem", "map_delete_elem", "map_push_elem",
                                                     "map_pop_elem")}  # fmt: skip
_CALL_OPCODE = isa.BY_NAME["call_helper"].opcode
_FOR_EACH = helpers.BY_NAME["for_each_map_elem"].number
_WALKED = (MapType.ARRAY, MapType.PERCPU_ARRAY)
_LOOKUP = helpers.BY_NAME["map_lookup_elem"].number


@dataclass(frozen=True)
class _Pointer:
    """What a register holds: a map, or a pointer to one of its values."""

    map: "MapDefinition"
    value: bool


def check_access(program: "Program", maps: Mapping[str, "MapDefinition"]) -> None:
    """Raises BpfnicError naming program, instruction and map."""
    kept = MapFlag.RDONLY_PROG | MapFlag.WRONLY_PROG
    inner = [definition.inner for definition in maps.values() if definition.inner]
    if not any(definition.flags & kept for definition in [*maps.values(), *inner]):
        return
    code = program.instructions
    for slot, held in sorted(_known(program, maps).items()):
        instruction = code[slot]
        if instruction is None or (row := isa.find(instruction)) is None:
            continue
        if why := _refusal(row, instruction, held):
            line = listing.source(program, slot)
            where = f" ({line})" if line else ""
            raise BpfnicError(f"program {program.name}, {listing.instruction(program, slot)}: {why}{where}")


def check_types(program: "Program", maps: Mapping[str, "MapDefinition"]) -> None:
    """Raises BpfnicError naming program, instruction and map for a call of bpf_for_each_map_elem with a map that it
    can't walk."""
    code = program.instructions
    if not any(one and one.opcode == _CALL_OPCODE and one.imm == _FOR_EACH for one in code):
        return
    for slot, held in sorted(_known(program, maps).items()):
        instruction, first = code[slot], held.get(1)
        if instruction is None or first is None or first.value or first.map.type in _WALKED:
            continue
        if isa.find(instruction).operation is Operation.CALL_HELPER and instruction.imm == _FOR_EACH:
            line = listing.source(program, slot)
            where = f" ({line})" if line else ""
            raise BpfnicError(f"program {program.name}, {listing.instruction(program, slot)}: for_each_map_elem walks "
                              f"through arrays here, not through map {first.map.name} ({first.map.type.name}){where}")


def _known(program: "Program", maps: Mapping[str, "MapDefinition"]) -> dict[int, dict[int, _Pointer]]:
    """What the registers hold before each instruction, whichever way it was reached. What is known of a place only gets
    less, so that this ends."""
    code = program.instructions
    known: dict[int, dict[int, _Pointer]] = {first: {} for first in program.functions}
    waiting = list(known)
    while waiting:
        slot = waiting.pop()
        instruction = code[slot]
        if instruction is None:
            continue
        row, held = isa.find(instruction), dict(known[slot])
        if row is None:
            continue
        _step(program, maps, slot, row, instruction, held)
        following = [] if row.operation in (Operation.EXIT, Operation.JA) else [slot + instruction.slots]
        if (target := jump_target(slot, row, instruction)) is not None:
            following.append(target)
        for to in following:
            if not 0 <= to < len(code):
                continue  # structure.check refuses it
            before = known.get(to)
            merged = held if before is None else {r: p for r, p in before.items() if held.get(r) == p}
            if merged != before:
                known[to] = dict(merged)
                waiting.append(to)
    return known


def _refusal(row: Row, instruction: Instruction, held: Mapping[int, _Pointer]) -> str:
    """Why an instruction may not be, "" if it may."""
    if row.operation is Operation.CALL_HELPER:
        first = held.get(1)
        if first and not first.value and instruction.imm in _WRITES and first.map.flags & MapFlag.RDONLY_PROG:
            return f"map {first.map.name} is RDONLY_PROG, which {helpers.find(instruction.imm).name} changes"
        return ""
    if row.instruction_class not in (Class.LDX, Class.ST, Class.STX):
        return ""
    loads = row.instruction_class is Class.LDX or row.operation is Operation.LOAD_ACQUIRE
    pointer = held.get(instruction.src if loads else instruction.dst)
    if pointer is None or not pointer.value:
        return ""
    if not loads and pointer.map.flags & MapFlag.RDONLY_PROG:
        return f"map {pointer.map.name} is RDONLY_PROG, and this writes a value of it"
    plain = row.operation in (Operation.ST, Operation.STX, Operation.STORE_RELEASE)
    if not plain and pointer.map.flags & MapFlag.WRONLY_PROG:
        return f"map {pointer.map.name} is WRONLY_PROG, and this reads a value of it"
    return ""


def _step(
    program: "Program",
    maps: Mapping[str, "MapDefinition"],
    slot: int,
    row: Row,
    instruction: Instruction,
    held: dict[int, _Pointer],
) -> None:
    """Changes `held` to what holds behind an instruction."""
    dst, src, operation = instruction.dst, instruction.src, row.operation
    if operation in isa.CALLS:
        found = _found(held.get(1)) if operation is Operation.CALL_HELPER and instruction.imm == _LOOKUP else None
        for register in range(6):
            held.pop(register, None)
        if found:
            held[0] = found
    elif (reference := program.references.get(slot)) is not None:
        held[dst] = _Pointer(maps[reference.map], reference.offset is not None)
    elif row.instruction_class is Class.ALU64 and operation is Operation.MOV and row.register_operand and src in held:
        held[dst] = held[src]
    elif row.instruction_class is Class.ALU64 and operation in (Operation.ADD, Operation.SUB) and dst in held:
        pass  # an offset within the value
    elif row.instruction_class is Class.STX and operation not in (Operation.STX, Operation.STORE_RELEASE):
        for register in (0, src, dst) if operation is Operation.LOAD_ACQUIRE else (0, src):
            held.pop(register, None)  # what atomics may write
    elif row.instruction_class in (Class.ALU, Class.ALU64, Class.LDX, Class.LD):
        held.pop(dst, None)


def _found(first: _Pointer | None) -> _Pointer | None:
    """What a look-up in a map gives."""
    if first is None or first.value:
        return None
    if first.map.type in OF_MAPS:
        return _Pointer(first.map.inner, False) if first.map.inner else None
    return _Pointer(first.map, True)
