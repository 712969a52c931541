"""The structure of bytecode, checked before a device sees it: what can be said of instructions one by one and of where
jumps and calls go. What values registers hold is the verifier's business."""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bpfnic.host.btf.patch import POISON
from bpfnic.host.ksyms import ABSENT
from bpfnic.spec import helpers, isa
from bpfnic.spec.assembly import disassemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Group, Legal, Operation, Row
from bpfnic.spec.metadata import Metadata
from bpfnic.spec.programs import ProgramType

if TYPE_CHECKING:
    from bpfnic.host.object import SourceLine

    LineOf = Callable[[int], SourceLine | None]

_CALLS = (Operation.CALL_LOCAL, Operation.CALL_FIRMWARE)
_TAIL_CALL = helpers.BY_NAME["tail_call"].number

Code = Sequence[Instruction | None]
"""One entry a slot, as spec.instruction.decode gives them."""


@dataclass(frozen=True)
class Limits:
    """What a device runs: `slots` of 8 bytes, rows of the instruction table (see spec.engine.GROUPS), helpers by
    number."""

    slots: int
    executes: Callable[[Row], bool]
    helpers: frozenset[int]


def check(
    code: Code,
    name: str,
    *,
    program_type: ProgramType | None = None,
    limits: Limits | None = None,
    line: "LineOf" = lambda slot: None,
    own: int | None = None,
    privileged: Collection[int] = (),
    calls: bool = True,
) -> None:
    """Raises BpfnicError that names program `name`, the instruction's number and text, and its source line by `line`:
    an unknown opcode or illegal field, a jump or call to no instruction or into another function, a function that runs
    off its end, a helper that is unknown, not for `program_type`, or not on the device, and what else is beyond
    `limits` (None: the kernel, which has its own). The program's are the first `own` slots (None: all); helpers that it
    may not call, and the NIC's own (spec.metadata), the runtime's routines behind them may. At the slots `privileged`
    the loader has put calls of privileged routines. `calls`: False leaves to a verifier which helpers may be called
    where."""
    if not code:
        raise BpfnicError(f"program {name!r}: has no instructions")
    if limits and len(code) > limits.slots:
        raise BpfnicError(f"program {name!r}: {len(code)} slots long; the device has {limits.slots}")
    rows: list[Row | None] = []
    for slot, instruction in enumerate(code):
        try:
            row = None if instruction is None else isa.find(instruction)
            rows.append(row)
            if instruction and row and (calls or row.operation is not Operation.CALL_HELPER):
                routine = own is not None and slot >= own
                if routine and row.operation is Operation.CALL_HELPER and instruction.imm in frozenset(Metadata):
                    continue
                _check_one(row, instruction, None if routine else program_type, limits, slot in privileged)
        except BpfnicError as error:
            raise _refusal(code, name, slot, str(error), line) from None
    starts = function_starts(code, rows, name, line)
    for slot, row in enumerate(rows):
        instruction = code[slot]
        if row and instruction and (target := jump_target(slot, row, instruction)) is not None:
            first, end = _function_around(starts, slot, len(code))
            if why := _no_target(code, target) or (None if first <= target < end else "another function"):
                raise _refusal(code, name, slot, f"{_by(row, instruction)} jumps to {target}, {why}", line)
    for first, end in zip(starts, [*starts[1:], len(code)], strict=True):
        last = end - 1 if code[end - 1] is not None else end - 2
        row = rows[last]
        if row is None or row.operation not in (Operation.EXIT, Operation.JA):
            raise _refusal(code, name, last, f"the function at {first} runs off its end here", line)


def _refusal(code: Code, name: str, slot: int, why: str, line: "LineOf") -> BpfnicError:
    instruction = code[slot]
    text = ""
    if instruction is not None:
        try:
            text = f": {disassemble(instruction)}"
        except BpfnicError:
            text = f": {instruction.encode().hex(' ')}"
    source = line(slot)
    where = f" ({source.file}:{source.line}: {source.text})" if source else ""
    return BpfnicError(f"program {name!r}, instruction {slot}{text}: {why}{where}")


def _check_one(
    row: Row | None, instruction: Instruction, program_type: ProgramType | None, limits: Limits | None, loaders: bool
) -> None:
    assert row
    if row.group is Group.FIRMWARE and not loaders:
        raise BpfnicError("a loader alone calls privileged routines of the firmware")
    if row.operation is Operation.CALL_HELPER and instruction.imm != POISON:  # which the device traps if it is reached
        helper = helpers.find(instruction.imm)
        if program_type is not None and program_type not in helper.programs:
            raise BpfnicError(f"helper {helper.name} ({helper.number}) is not for {program_type.name} programs")
        if limits and helper.number not in limits.helpers:
            why = f": {helpers.REFUSED[helper.number]}" if helper.number in helpers.REFUSED else ""
            raise BpfnicError(f"the device has no helper {helper.name} ({helper.number}){why}")
    if row.group is Group.PACKET and program_type is ProgramType.XDP:
        raise BpfnicError("loads by offset in the packet are for socket filters and tc programs, not for XDP ones")
    if limits is None:
        return
    if row.operation is Operation.LDDW_REFERENCE:
        if row.imm is Legal.BRANCH:  # a function, which gets its address with its place (image.py)
            return
        raise BpfnicError("the device has no address for this (a map that wasn't linked)")
    # Number 0 is a weak function that isn't there (host/ksyms.py). Linux, too, lets such a call stand where it isn't
    # reached; here the device traps it.
    if row.operation is Operation.CALL_BTF and instruction.imm != ABSENT:
        raise BpfnicError("the device has no kernel function to call")
    if not limits.executes(row):
        kind = "extension" if row.group in isa.EXTENSIONS else "conformance group"
        raise BpfnicError(f"the device does not execute {row.name} ({kind} {row.group.value})")


def jump_target(slot: int, row: Row, instruction: Instruction) -> int | None:
    """The slot that a jump names; None for anything that is no jump."""
    if row.instruction_class not in (Class.JMP, Class.JMP32) or row.operation in _CALLS:
        return None
    if row.offset is Legal.BRANCH:
        return slot + 1 + instruction.offset
    return slot + 1 + instruction.imm if row.imm is Legal.BRANCH else None


def _by(row: Row, instruction: Instruction) -> str:
    """The field with the distance, and what it holds."""
    field = "offset" if row.offset is Legal.BRANCH else "imm"
    return f"{field} {getattr(instruction, field)}"


def _call_target(slot: int, row: Row, instruction: Instruction) -> int | None:
    """The slot where a called function, or one whose address is taken, starts."""
    takes_address = row.operation is Operation.LDDW_REFERENCE and row.imm is Legal.BRANCH
    return slot + 1 + instruction.imm if row.operation in _CALLS or takes_address else None


def _no_target(code: Code, target: int) -> str | None:
    if not 0 <= target < len(code):
        return "outside the program"
    return "the second half of a 16-byte instruction" if code[target] is None else None


def function_starts(
    code: Code, rows: Sequence[Row | None], name: str, line: "LineOf" = lambda slot: None
) -> list[int]:
    """The slots where functions start, in order, the program itself at 0; `rows` by slot. Raises BpfnicError as
    `check` does for a call of no instruction."""
    starts = {0}
    for slot, row in enumerate(rows):
        instruction = code[slot]
        if row and instruction and (target := _call_target(slot, row, instruction)) is not None:
            if why := _no_target(code, target):
                raise _refusal(code, name, slot, f"{_by(row, instruction)} calls {target}, {why}", line)
            starts.add(target)
    return sorted(starts)


def _function_around(starts: Sequence[int], slot: int, length: int) -> tuple[int, int]:
    """First slot of the function that `slot` is in, and the slot behind its last."""
    behind = bisect_right(starts, slot)
    return starts[behind - 1], starts[behind] if behind < len(starts) else length


def tail_calls(code: Code) -> list[int]:
    """Slots of the tail calls, in order."""
    return [slot for slot, one in enumerate(code)
            if one and one.imm == _TAIL_CALL and isa.find(one).operation is Operation.CALL_HELPER]  # fmt: skip
