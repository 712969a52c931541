"""A program as a device takes it: linked, checked, and with its stack frames laid out.

Hardware gives a call chain one stack of 512 bytes and takes the caller's frame size from the call instruction's
offset. Linux wants 0 there and finds the sizes itself, so frames are placed in device images alone."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from bpfnic.host.structure import Code, Limits, check, function_starts, jump_target, tail_calls
from bpfnic.spec import isa
from bpfnic.spec.addresses import FRAME_ALIGN, FRAMES, STACK_BYTES, code_address
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Legal, Operation, Row

if TYPE_CHECKING:
    from bpfnic.host.object import Addresses, Program
    from bpfnic.host.verifier.verdict import StackUse

_CALLS = (Operation.CALL_LOCAL, Operation.CALLX)
_CODE = isa.BY_NAME["lddw_code"]


class Room(NamedTuple):
    """Frames, and bytes of stack in multiples of 16."""

    frames: int
    stack: int


class TailCall(NamedTuple):
    """A tail call: `function`, the first slot of the one around it, and what that one's callers take at most."""

    function: int
    above: Room


@dataclass(frozen=True)
class Layout:
    """Where frames lie. `sizes`: what a local call or callx at a slot says that its function's frame takes. `takes`:
    what the deepest chains of calls take of both. `tail_calls`: the program's own, in order of code."""

    sizes: Mapping[int, int]
    takes: Room
    tail_calls: Sequence[TailCall]

    def placed(self, code: Code) -> list[Instruction | None]:
        """The code that was laid out, with the size in the offset of each call."""
        image = list(code)
        for slot, size in self.sizes.items():
            instruction = image[slot]
            assert instruction
            image[slot] = replace(instruction, offset=size)
        return image


def device_image(
    program: "Program", addresses: "Addresses", limits: Limits, layout: Layout | None = None
) -> list[Instruction | None]:
    """The program for a device with these addresses and limits; `layout` as `lay_out` made it, None: by what is seen of
    the code. Raises BpfnicError as structure.check and `lay_out` do."""
    image = program.link(addresses, limits.helpers)
    check(image, program.name, program_type=program.type, limits=limits, line=program.line, own=program.own,
          privileged=program.privileged)
    return (layout or lay_out(image, program.name, program.own)).placed(image)


def at_slot(image: Code, entry: int) -> list[Instruction | None]:
    """A device image as it stands from slot `entry` of the program store on: with the addresses of its functions."""

    def placed(slot: int, instruction: Instruction | None) -> Instruction | None:
        if instruction is None or (instruction.opcode, instruction.src) != (_CODE.opcode, _CODE.src):
            return instruction
        address = code_address(entry + slot + 1 + instruction.imm)
        return replace(instruction, src=0, imm=address, next_imm=0)

    return [placed(slot, instruction) for slot, instruction in enumerate(image)]


_Node = tuple[int, int]
"""A function's first slot, twice; or of a routine that calls its caller back first its own and then the caller's, so
that a callback may call such a routine with another callback."""

_MAIN: _Node = (0, 0)


@dataclass
class _Function:
    """`depth`: bytes below r10 that it uses, None where that can't be seen. `sites`: slots of its local calls, `calls`:
    the functions that they may reach. `routine`: it is the runtime's."""

    depth: int | None
    sites: list[int]
    calls: set[_Node]
    routine: bool

    @property
    def frame_bytes(self) -> int:
        """What it takes of the stack; 0 where its depth can't be seen. One that calls nothing may take nothing: where
        it calls, 0 would stand for the default size."""
        least = FRAME_ALIGN if self.sites else 0
        return max(-(-(self.depth or 0) // FRAME_ALIGN) * FRAME_ALIGN, least)


def place_frames(code: Code, name: str, own: int | None = None) -> list[Instruction | None]:
    """The code as `lay_out` has it placed."""
    return lay_out(code, name, own).placed(code)


def lay_out(code: Code, name: str, own: int | None = None, use: "StackUse | None" = None) -> Layout:
    """The caller's frame size of each local call and each callx.

    A frame holds what the verifier saw the program's own function `use`, and a routine calls back what it saw it get.
    Where nobody verified it (None), and of routines, a frame reaches down to the lowest address that the function forms
    from r10 and constants; a pointer that is passed, stored or indexed is taken to be used at and above where it
    points; and a callx may call every function whose address is taken.
    Frames are rounded up to 16, and have at least 16 where the function calls.
    Where a function does something else with r10, its frame is what the other functions of its chains leave of
    the 512 bytes.
    Behind the first `own` slots (None: all) are routines of the runtime. Raises BpfnicError for recursion, for more
    than 8 frames and for chains of more than 512 bytes, as Linux does."""
    own = len(code) if own is None else own
    functions = _functions(code, name, own, use)
    _check_chains(functions, name)
    callees = {node: function.calls for node, function in functions.items()}
    callers = {node: {caller for caller in functions if node in callees[caller]} for node in functions}
    sizes = {node: function.frame_bytes for node, function in functions.items()}
    for node, function in functions.items():
        if function.depth is None:
            sizes[node] = 0
            others = _longest(node, callers, sizes) + _longest(node, callees, sizes)
            sizes[node] = max(STACK_BYTES - others, FRAME_ALIGN)
    ones = dict.fromkeys(functions, 1)
    takes = Room(_longest(_MAIN, callees, ones), _longest(_MAIN, callees, sizes))
    if takes.stack > STACK_BYTES:
        raise BpfnicError(f"program {name!r}: a call chain needs {takes.stack} bytes of stack, of {STACK_BYTES}")
    above = {
        node: Room(_longest(node, callers, ones) - 1, _longest(node, callers, sizes) - sizes[node])
        for node in functions if node[0] == node[1]
    }  # fmt: skip
    starts = sorted(first for first, _ in above)
    around = [starts[bisect_right(starts, slot) - 1] for slot in tail_calls(code[:own])]
    return Layout(_by_call(functions, sizes), takes, [TailCall(first, above[first, first]) for first in around])


def place_frames_alone(code: Code, name: str) -> list[Instruction | None]:
    """The same for code whose chains nobody has judged, and which may call itself: each function's frame is what it is
    seen to use by itself, and of the default size where that can't be seen. What gets too deep traps on the device."""
    functions = _functions(code, name, len(code), None)
    sizes = {
        node: isa.DEFAULT_FRAME_BYTES if function.depth is None else min(function.frame_bytes, STACK_BYTES)
        for node, function in functions.items()
    }
    return Layout(_by_call(functions, sizes), Room(0, 0), ()).placed(code)


def _by_call(functions: Mapping[_Node, _Function], sizes: Mapping[_Node, int]) -> dict[int, int]:
    """The frame size of the function around each call."""
    return {slot: sizes[node] for node, function in functions.items() for slot in function.sites}


def _functions(code: Code, name: str, own: int, use: "StackUse | None") -> dict[_Node, _Function]:
    """The functions, with `use` as of `lay_out`."""
    rows = [None if instruction is None else isa.find(instruction) for instruction in code]
    if not any(row and row.operation in _CALLS for row in rows):
        return {_MAIN: _Function(use.depths[0] if use else None, [], set(), False)}
    starts = function_starts(code, rows, name)
    bounds = dict(zip(starts, [*starts[1:], len(code)], strict=True))
    depths: dict[int, int] = {}
    callbacks: dict[int, set[int]] = {}
    if use:
        seen = [first for first in starts if first < own]
        depths = dict(zip(seen, use.depths, strict=True))
        callbacks = {first: {seen[each] for each in given} for first, given in zip(seen, use.callbacks, strict=True)}
    sites: dict[int, list[int]] = {}
    called: dict[int, set[int]] = {}
    addressed: dict[int, set[int]] = {}  # whose address each function takes
    calls_back: set[int] = set()
    for first, end in bounds.items():
        sites[first], called[first], addressed[first] = [], set(), set()
        for slot in range(first, end):
            row, instruction = rows[slot], code[slot]
            if row is _CODE and instruction:
                addressed[first].add(slot + 1 + instruction.imm)
            elif row and instruction and row.operation in _CALLS:
                sites[first].append(slot)
                if row.operation is Operation.CALL_LOCAL:
                    called[first].add(slot + 1 + instruction.imm)
                else:
                    calls_back.add(first)
    everywhere = set().union(*addressed.values())
    functions = {}
    for first, end in bounds.items():
        depth = depths[first] if first in depths else _depth(code, rows, first, end)
        function = _Function(depth, sites[first], set(), first >= own)
        callers = [caller for caller in bounds if first in called[caller]] if first >= own else []
        for caller in callers if first in calls_back and callers else [first]:
            passed = callbacks.get(caller, (addressed[caller] if caller != first else set()) or everywhere)
            targets = called[first] | (passed if first in calls_back else set())
            calls = {(to, first if to >= own and to in calls_back else to) for to in targets}
            functions[first, caller] = replace(function, calls=calls)
    return functions


def _check_chains(functions: dict[_Node, _Function], name: str) -> None:
    """Refuses recursion and more than 8 frames, so that what follows the calls ends."""
    heights: dict[_Node, int] = {}

    def height(node: _Node, chain: tuple[_Node, ...]) -> int:
        if node in chain:
            raise BpfnicError(f"program {name!r}: the function at {node[0]} calls itself")
        if node not in heights:
            heights[node] = 1 + max((height(callee, (*chain, node)) for callee in functions[node].calls), default=0)
        if len(chain) + heights[node] > FRAMES:
            raise BpfnicError(f"program {name!r}: a call chain of more than {FRAMES} functions")
        return heights[node]

    for node in functions:
        height(node, ())


def _longest(node: _Node, edges: dict[_Node, set[_Node]], sizes: dict[_Node, int]) -> int:
    """What the deepest chain along `edges` takes, the function itself included, where each takes what `sizes` says."""
    totals: dict[_Node, int] = {}

    def total(at: _Node) -> int:
        if at not in totals:
            totals[at] = sizes[at] + max(map(total, edges[at]), default=0)
        return totals[at]

    return total(node)


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
    if operation in isa.CALLS:
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
