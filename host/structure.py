"""The structure of bytecode, checked before a device sees it: what can be said of instructions one by one and of where
jumps and calls go. What values registers hold is the verifier's business.

Also the stack frames of a device: hardware gives a call chain one stack of 512 bytes and takes the caller's frame size
from the call instruction's offset, which Linux leaves 0. `place_frames` puts it there; never do that for the kernel."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bpfnic.spec import helpers, isa
from bpfnic.spec.addresses import FRAME_ALIGN, FRAMES, STACK_BYTES
from bpfnic.spec.assembly import disassemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Legal, Operation, Row
from bpfnic.spec.programs import ProgramType

if TYPE_CHECKING:
    from bpfnic.host.object import Addresses, Program, SourceLine

Code = Sequence[Instruction | None]
"""One entry a slot, as spec.instruction.decode gives them."""


@dataclass(frozen=True)
class Limits:
    """What a device runs: `slots` of 8 bytes, rows of the instruction table (see spec.engine.executes), helpers by
    number."""

    slots: int
    executes: Callable[[Row], bool]
    helpers: frozenset[int]


def device_image(program: "Program", addresses: "Addresses", limits: Limits) -> list[Instruction | None]:
    """A program as a device takes it: linked, checked, with frame sizes. Raises BpfnicError as `check` does."""
    image = place_frames(program.link(addresses), program.name)
    check(image, program.name, program_type=program.type, limits=limits, line=program.line)
    return image


def check(
    code: Code,
    name: str,
    *,
    program_type: ProgramType | None = None,
    limits: Limits | None = None,
    line: "Callable[[int], SourceLine | None]" = lambda slot: None,
) -> None:
    """Raises BpfnicError that names program `name`, the instruction's number and text, and its source line by `line`:
    an unknown opcode or illegal field, a jump or call to no instruction or into another function, a function that runs
    off its end, a helper that is unknown, not for `program_type`, or not on the device, and what else is beyond
    `limits` (None: the kernel, which has its own)."""
    if not code:
        raise BpfnicError(f"program {name!r}: has no instructions")
    if limits and len(code) > limits.slots:
        raise BpfnicError(f"program {name!r}: {len(code)} slots long; the device has {limits.slots}")
    rows: list[Row | None] = []
    for slot, instruction in enumerate(code):
        try:
            rows.append(None if instruction is None else isa.find(instruction))
            if instruction is None:
                continue
            _check_one(rows[-1], instruction, program_type, limits)
        except BpfnicError as error:
            raise _refusal(code, name, slot, str(error), line) from None
    starts = _function_starts(code, rows, name, line)
    for slot, row in enumerate(rows):
        instruction = code[slot]
        if row and instruction and (target := _jump_target(slot, row, instruction)) is not None:
            first, end = _function_around(starts, slot, len(code))
            if why := _no_target(code, target) or (None if first <= target < end else "another function"):
                raise _refusal(code, name, slot, f"jumps to {target}, {why}", line)
    for first, end in zip(starts, [*starts[1:], len(code)], strict=True):
        last = end - 1 if code[end - 1] is not None else end - 2
        row = rows[last]
        if row is None or row.operation not in (Operation.EXIT, Operation.JA):
            raise _refusal(code, name, last, f"the function at {first} runs off its end here", line)


def _refusal(code: Code, name: str, slot: int, why: str, line: "Callable[[int], SourceLine | None]") -> BpfnicError:
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
    row: Row | None, instruction: Instruction, program_type: ProgramType | None, limits: Limits | None
) -> None:
    assert row
    if row.operation is Operation.CALL_HELPER:
        helper = helpers.find(instruction.imm)
        if program_type is not None and program_type not in helper.programs:
            raise BpfnicError(f"helper {helper.name} is not for {program_type.name} programs")
        if limits and helper.number not in limits.helpers:
            raise BpfnicError(f"the device has no helper {helper.name}")
    if limits is None:
        return
    if row.operation is Operation.LDDW_REFERENCE:
        raise BpfnicError("the device has no address for this (a function, or a map that wasn't linked)")
    if row.operation is Operation.CALL_BTF:
        raise BpfnicError("the device has no kernel function to call")
    if not limits.executes(row):
        raise BpfnicError(f"the device does not execute {row.name} (conformance group {row.group.value})")


def _jump_target(slot: int, row: Row, instruction: Instruction) -> int | None:
    """The slot that a jump names; None for anything that is no jump."""
    if row.instruction_class not in (Class.JMP, Class.JMP32) or row.operation is Operation.CALL_LOCAL:
        return None
    if row.offset is Legal.BRANCH:
        return slot + 1 + instruction.offset
    return slot + 1 + instruction.imm if row.imm is Legal.BRANCH else None


def _call_target(slot: int, row: Row, instruction: Instruction) -> int | None:
    """The slot where a called function, or one whose address is taken, starts."""
    takes_address = row.operation is Operation.LDDW_REFERENCE and row.imm is Legal.BRANCH
    return slot + 1 + instruction.imm if row.operation is Operation.CALL_LOCAL or takes_address else None


def _no_target(code: Code, target: int) -> str | None:
    if not 0 <= target < len(code):
        return "outside the program"
    return "the second half of a 16-byte instruction" if code[target] is None else None


def _function_starts(
    code: Code, rows: Sequence[Row | None], name: str, line: "Callable[[int], SourceLine | None]" = lambda slot: None
) -> list[int]:
    """The slots where functions start, in order, the program itself at 0."""
    starts = {0}
    for slot, row in enumerate(rows):
        instruction = code[slot]
        if row and instruction and (target := _call_target(slot, row, instruction)) is not None:
            if why := _no_target(code, target):
                raise _refusal(code, name, slot, f"calls {target}, {why}", line)
            starts.add(target)
    return sorted(starts)


def _function_around(starts: Sequence[int], slot: int, length: int) -> tuple[int, int]:
    """First slot of the function that `slot` is in, and the slot behind its last."""
    first = max(start for start in starts if start <= slot)
    return first, min((start for start in starts if start > slot), default=length)


# Stack frames.


@dataclass
class _Function:
    """`depth`: bytes below r10 that the function uses, None where that can't be seen. `calls`: pairs of the call's slot
    and the callee's first slot."""

    first: int
    end: int
    depth: int | None
    calls: list[tuple[int, int]]


def place_frames(code: Code, name: str) -> list[Instruction | None]:
    """The code with the caller's frame size in the offset of each local call.

    A frame is the deepest byte that the function is seen to use, rounded up to 16, at least 16. Seen are constant
    distances from r10, through copies and additions of constants; a pointer that is passed, stored or indexed is taken
    to be used at and above where it points. Where a function does something else with r10, its frame is what the other
    functions of its chains leave of the 512 bytes. Raises BpfnicError for recursion, for more than 8 frames and for
    chains of more than 512 bytes, as Linux does."""
    image = list(code)
    rows = [None if instruction is None else isa.find(instruction) for instruction in code]
    if not any(row and row.operation is Operation.CALL_LOCAL for row in rows):
        return image
    starts = _function_starts(code, rows, name)
    functions = {}
    for first, end in zip(starts, [*starts[1:], len(code)], strict=True):
        calls = [(slot, slot + 1 + instruction.imm) for slot in range(first, end)
                 if (row := rows[slot]) and (instruction := code[slot]) and row.operation is Operation.CALL_LOCAL]  # fmt: skip
        functions[first] = _Function(first, end, _depth(code, rows, first, end), calls)
    sizes = {first: _rounded(function.depth) for first, function in functions.items()}
    _check_chain(functions, sizes, [0], name)
    for first, function in functions.items():
        if function.depth is None:
            others = sizes | {first: 0}
            above, below = _deepest_above(functions, others, first), _deepest(functions, others, first)
            sizes[first] = max(STACK_BYTES - above - below, FRAME_ALIGN)
    if (total := _deepest(functions, sizes, 0)) > STACK_BYTES:
        raise BpfnicError(f"program {name!r}: a call chain needs {total} bytes of stack, of {STACK_BYTES}")
    for first, function in functions.items():
        for slot, _ in function.calls:
            instruction = image[slot]
            assert instruction
            image[slot] = replace(instruction, offset=sizes[first])
    return image


def _rounded(depth: int | None) -> int:
    return max(-(-(depth or 0) // FRAME_ALIGN) * FRAME_ALIGN, FRAME_ALIGN)


def _check_chain(functions: dict[int, _Function], sizes: dict[int, int], chain: list[int], name: str) -> None:
    for _, callee in functions[chain[-1]].calls:
        if callee in chain:
            raise BpfnicError(f"program {name!r}: the function at {callee} calls itself")
        if len(chain) == FRAMES:
            raise BpfnicError(f"program {name!r}: more than {FRAMES} functions deep at the call of {callee}")
        _check_chain(functions, sizes, [*chain, callee], name)


def _deepest(functions: dict[int, _Function], sizes: dict[int, int], first: int) -> int:
    """Bytes of the deepest chain that starts with the function."""
    below = max((_deepest(functions, sizes, callee) for _, callee in functions[first].calls), default=0)
    return sizes[first] + below


def _deepest_above(functions: dict[int, _Function], sizes: dict[int, int], first: int) -> int:
    """Bytes of the deepest chain of callers above the function."""
    callers = [caller for caller, function in functions.items() if any(callee == first for _, callee in function.calls)]
    return max((sizes[caller] + _deepest_above(functions, sizes, caller) for caller in callers), default=0)


_UNSEEN = -STACK_BYTES - 1  # of a pointer into the frame that went somewhere


def _depth(code: Code, rows: Sequence[Row | None], first: int, end: int) -> int | None:
    """Bytes below r10 that the function at `first` is seen to use, None where that can't be told.

    Follows the lowest distance from r10 that each register may hold, over every path, until nothing changes; the
    distances only fall, and no further than the stack is deep, so that it ends."""
    lowest = 0
    known: dict[int, dict[int, int]] = {first: {isa.FRAME_POINTER: 0}}  # slot to register to distance
    waiting = [first]
    while waiting:
        slot = waiting.pop()
        instruction, row = code[slot], rows[slot]
        if instruction is None or row is None:
            continue
        distances = dict(known[slot])
        used = _step(row, instruction, distances)
        if used <= _UNSEEN:
            return None
        lowest = min(lowest, used)
        following = [] if row.operation in (Operation.EXIT, Operation.JA) else [slot + instruction.slots]
        if (target := _jump_target(slot, row, instruction)) is not None:
            following.append(target)
        for to in following:
            if not first <= to < end:
                continue
            before = known.get(to)
            merged = dict(before or {})
            for register, distance in distances.items():
                merged[register] = min(distance, merged.get(register, distance))
            if merged != before:
                known[to] = merged
                waiting.append(to)
    return -lowest


def _step(row: Row, instruction: Instruction, distances: dict[int, int]) -> int:
    """The lowest distance that one instruction uses; changes `distances` to what holds behind it."""
    dst, src, operation = instruction.dst, instruction.src, row.operation
    kind = row.instruction_class
    if kind in (Class.LDX, Class.ST, Class.STX):
        base = src if kind is Class.LDX else dst
        used = distances[base] + instruction.offset if base in distances else 0
        written = _loaded_register(row, instruction)
        if written is not None:
            distances.pop(written, None)
        return used
    if operation in (Operation.CALL_HELPER, Operation.CALL_LOCAL, Operation.CALL_BTF, Operation.CALLX):
        for register in range(6):
            distances.pop(register, None)
        return 0
    if kind is Class.LD:
        distances.pop(dst, None)
        return 0
    if kind not in (Class.ALU, Class.ALU64):
        return 0
    if operation is Operation.MOV and kind is Class.ALU64 and row.register_operand and src in distances:
        distances[dst] = distances[src]
    elif operation is Operation.MOV or dst not in distances:
        # A number plus a pointer is a pointer too, wherever it points.
        if operation is Operation.ADD and row.register_operand and src in distances:
            distances[dst] = distances[src]
            return _UNSEEN if distances[src] == 0 else 0
        distances.pop(dst, None)
    elif operation in (Operation.ADD, Operation.SUB) and kind is Class.ALU64 and not row.register_operand:
        distances[dst] += instruction.imm if operation is Operation.ADD else -instruction.imm
        return max(distances[dst], _UNSEEN)
    elif operation is Operation.ADD and kind is Class.ALU64 and distances[dst] < 0:
        return 0  # an index into what it points at
    else:
        return _UNSEEN
    return 0


def _loaded_register(row: Row, instruction: Instruction) -> int | None:
    """The register that a load or an atomic instruction writes."""
    if row.instruction_class is Class.LDX:
        return instruction.dst
    if row.operation is Operation.ATOMIC_CMPXCHG:
        return 0
    fetches = row.operation is Operation.ATOMIC_XCHG or "FETCH" in row.operation.name
    return instruction.src if fetches else None
