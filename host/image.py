"""A program as a device takes it: linked, checked, and with its stack frames laid out.

Hardware gives a call chain one stack of 512 bytes and takes the caller's frame size from the call instruction's
offset. Linux wants 0 there and finds the sizes itself, so frames are placed in device images alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bpfnic.host.structure import Code, Limits, check, function_starts, jump_target
from bpfnic.spec import isa
from bpfnic.spec.addresses import FRAME_ALIGN, FRAMES, STACK_BYTES, code_address
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Legal, Operation, Row

if TYPE_CHECKING:
    from bpfnic.host.object import Addresses, Program

_CALLS = (Operation.CALL_LOCAL, Operation.CALLX)
_CODE = isa.BY_NAME["lddw_code"]


def device_image(program: "Program", addresses: "Addresses", limits: Limits) -> list[Instruction | None]:
    """The program for a device with these addresses and limits. Raises BpfnicError as structure.check and
    `place_frames` do."""
    image = program.link(addresses, limits.helpers)
    check(image, program.name, program_type=program.type, limits=limits, line=program.line)
    return place_frames(image, program.name)


def at_slot(image: Code, entry: int) -> list[Instruction | None]:
    """A device image as it stands from slot `entry` of the program store on: with the addresses of its functions."""

    def placed(slot: int, instruction: Instruction | None) -> Instruction | None:
        if instruction is None or isa.find(instruction) is not _CODE:
            return instruction
        address = code_address(entry + slot + 1 + instruction.imm)
        return replace(instruction, src=0, imm=address, next_imm=0)

    return [placed(slot, instruction) for slot, instruction in enumerate(image)]


@dataclass
class _Function:
    """`depth`: bytes below r10 that it uses, None where that can't be seen. `sites`: slots of its local calls, `calls`:
    first slots of the functions that they may reach."""

    depth: int | None
    sites: list[int]
    calls: set[int]


def place_frames(code: Code, name: str) -> list[Instruction | None]:
    """The code with the caller's frame size in the offset of each local call and each callx, which may call every
    function whose address is taken.

    A frame reaches down to the lowest address that the function forms from r10 and constants, rounded up to 16, at
    least 16; a pointer that is passed, stored or indexed is taken to be used at and above where it points. Where a
    function does something else with r10, its frame is what the other functions of its chains leave of the 512 bytes.
    Raises BpfnicError for recursion, for more than 8 frames and for chains of more than 512 bytes, as Linux does."""
    functions = _functions(code, name)
    _check_chains(functions, name)
    callees = {first: function.calls for first, function in functions.items()}
    callers = {first: {caller for caller in functions if first in callees[caller]} for first in functions}
    sizes = {first: _rounded(function.depth) for first, function in functions.items()}
    for first, function in functions.items():
        if function.depth is None:
            sizes[first] = 0
            others = _longest(first, callers, sizes) + _longest(first, callees, sizes)
            sizes[first] = max(STACK_BYTES - others, FRAME_ALIGN)
    if functions and (total := _longest(0, callees, sizes)) > STACK_BYTES:
        raise BpfnicError(f"program {name!r}: a call chain needs {total} bytes of stack, of {STACK_BYTES}")
    return _sized(code, functions, sizes)


def place_frames_alone(code: Code, name: str) -> list[Instruction | None]:
    """The same for code whose chains nobody has judged, and which may call itself: each function's frame is what it is
    seen to use by itself, and of the default size where that can't be seen. What gets too deep traps on the device."""
    functions = _functions(code, name)
    sizes = {
        first: isa.DEFAULT_FRAME_BYTES if function.depth is None else min(_rounded(function.depth), STACK_BYTES)
        for first, function in functions.items()
    }
    return _sized(code, functions, sizes)


def _sized(code: Code, functions: dict[int, _Function], sizes: dict[int, int]) -> list[Instruction | None]:
    """The code with the frame size of the function around it in each call."""
    image = list(code)
    for first, function in functions.items():
        for slot in function.sites:
            instruction = image[slot]
            assert instruction
            image[slot] = replace(instruction, offset=sizes[first])
    return image


def _functions(code: Code, name: str) -> dict[int, _Function]:
    """The functions by their first slots; none where nothing is called."""
    rows = [None if instruction is None else isa.find(instruction) for instruction in code]
    if not any(row and row.operation in _CALLS for row in rows):
        return {}
    addressed = {slot + 1 + one.imm for slot, one in enumerate(code) if one is not None and rows[slot] is _CODE}
    starts = function_starts(code, rows, name)
    functions = {}
    for first, end in zip(starts, [*starts[1:], len(code)], strict=True):
        sites: list[int] = []
        calls: set[int] = set()
        for slot in range(first, end):
            row, instruction = rows[slot], code[slot]
            if row and instruction and row.operation in _CALLS:
                sites.append(slot)
                calls |= addressed if row.operation is Operation.CALLX else {slot + 1 + instruction.imm}
        functions[first] = _Function(_depth(code, rows, first, end), sites, calls)
    return functions


def _rounded(depth: int | None) -> int:
    return max(-(-(depth or 0) // FRAME_ALIGN) * FRAME_ALIGN, FRAME_ALIGN)


def _check_chains(functions: dict[int, _Function], name: str) -> None:
    """Refuses recursion and more than 8 frames, so that what follows the calls ends."""
    heights: dict[int, int] = {}

    def height(first: int, chain: tuple[int, ...]) -> int:
        if first in chain:
            raise BpfnicError(f"program {name!r}: the function at {first} calls itself")
        if first not in heights:
            heights[first] = 1 + max((height(callee, (*chain, first)) for callee in functions[first].calls), default=0)
        if len(chain) + heights[first] > FRAMES:
            raise BpfnicError(f"program {name!r}: a call chain of more than {FRAMES} functions")
        return heights[first]

    for function in functions:
        height(function, ())


def _longest(first: int, edges: dict[int, set[int]], sizes: dict[int, int]) -> int:
    """Bytes of the deepest chain along `edges`, the function at `first` included."""
    totals: dict[int, int] = {}

    def total(at: int) -> int:
        if at not in totals:
            totals[at] = sizes[at] + max(map(total, edges[at]), default=0)
        return totals[at]

    return total(first)


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
        if (target := jump_target(slot, row, instruction)) is not None:
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
        base = src if kind is Class.LDX or operation is Operation.LOAD_ACQUIRE else dst
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
    """The register that an access to memory writes."""
    if row.dst is Legal.WRITTEN:
        return instruction.dst
    if row.operation is Operation.ATOMIC_CMPXCHG:
        return 0
    return instruction.src if row.src is Legal.WRITTEN else None
