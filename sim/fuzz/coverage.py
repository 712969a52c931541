"""What has been executed: row × form of the operands × class of what they were.

Counted where the golden model executes: an instruction that trapped doesn't count, an operand is classed by the value
that it had then. As every retired instruction was compared, the count is the RTL's too.

    rows                        form                     class
    arithmetic, conditions      register, same register, of both operands (values.CLASSES), of one where there is one
                                immediate
      of 32 bits                upper half               dst or src was above 32 bits
    conditions, may_goto        taken                    yes, no
    jumps                       distance                 forward, back
    loads, stores               context, stack, packet,  the lane: address modulo 8
                                map
                                first, last              the window whose first or last bytes they were
                                crossing                 bytes before the end of a row of map memory
                                value                    what was loaded or stored
    atomics                     the window               the lane
                                operands                 of memory and register; of cmpxchg: equal or different
    local calls, callx          depth, frame             of the caller's frame
    callx                       helper                   –
    call_firmware               frame                    the caller's
    helpers                     its name                 r0: zero, negative, positive
      that take a map           its name, map type       the same
    exit                        of                       the program, a function
    packet loads                inside, outside          the lane
    any other                   any                      –
"""

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable
from dataclasses import dataclass
from typing import Any

from bpfnic.sim.fuzz import values
from bpfnic.sim.fuzz.world import TABLES_AT, TYPES
from bpfnic.sim.golden.interpreter import Code
from bpfnic.sim.golden.thread import Step, Thread, Trap
from bpfnic.spec import addresses, isa
from bpfnic.spec.addresses import CONTEXT, MAP_VALUES, PACKET, ROW_BYTES, STACK
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.helpers import BY_NAME as HELPERS
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Legal, Operation, Row
from bpfnic.spec.maps import KEYED, OF_MAPS, QUEUES, REDIRECT_MAPS, MapType

Item = tuple[str, str, str]
"""Name of a row, form, class."""

_CONDITIONS = frozenset(row.operation for row in isa.ROWS if row.offset is Legal.BRANCH and row.dst is Legal.REGISTER)
_ARITHMETIC = (Class.ALU, Class.ALU64)
_MOVES = (Operation.MOV, Operation.MOVSX)
_WINDOWS = ((CONTEXT, CONTEXT + addresses.CONTEXT_BYTES, "context"), (STACK, addresses.FIRMWARE_STACK_TOP, "stack"),
            (PACKET, MAP_VALUES, "packet"), (MAP_VALUES, addresses.MAP_HANDLES, "map"))  # fmt: skip
_LOADS = (Operation.LDX, Operation.LDXS, Operation.LOAD_ACQUIRE)
_STORES = (Operation.ST, Operation.STX, Operation.STORE_RELEASE)
_ORDERED = (Operation.LOAD_ACQUIRE, Operation.STORE_RELEASE)
_PACKET_LOADS = (Operation.LD_ABS, Operation.LD_IND)
_NEVER = (Operation.LDDW_REFERENCE, Operation.CALL_BTF)

_RESULTS = {  # what the helpers return for the arguments that the generator gives
    "redirect": ("zero", "positive"),
    "xdp_adjust_head": ("zero", "negative"),
    "xdp_adjust_tail": ("zero", "negative"),
    "xdp_adjust_meta": ("zero", "negative"),
    "tail_call": ("jumps", "falls through"),
}
_ARRAYS = {MapType.ARRAY, MapType.PERCPU_ARRAY}
_HASHES = KEYED - OF_MAPS - REDIRECT_MAPS
_MAP_RESULTS: dict[str, dict[MapType, tuple[str, ...]]] = {  # by the types of map that they take
    "map_lookup_elem": dict.fromkeys(_ARRAYS | _HASHES | OF_MAPS, ("zero", "positive")),
    "map_update_elem": dict.fromkeys(_ARRAYS | _HASHES, ("zero", "negative")),
    "map_delete_elem": dict.fromkeys(_ARRAYS, ("negative",)) | dict.fromkeys(_HASHES, ("zero", "negative")),
    "map_push_elem": dict.fromkeys(QUEUES, ("zero", "negative")),
    "map_pop_elem": dict.fromkeys(QUEUES, ("zero", "negative")),
    "map_peek_elem": dict.fromkeys(QUEUES, ("zero", "negative")),
    "redirect_map": dict.fromkeys(REDIRECT_MAPS, ("zero", "positive")),
    "ringbuf_output": {MapType.RINGBUF: ("zero", "negative")},
    "ringbuf_reserve": {MapType.RINGBUF: ("zero", "positive")},
    "ringbuf_query": {MapType.RINGBUF: ("zero", "positive")},
    "perf_event_output": {MapType.PERF_EVENT_ARRAY: ("zero", "negative")},
}
_MAP_REGISTER = {"perf_event_output": 2}  # of others it is r1


@dataclass
class MapMemory:
    """What there is to know of map memory: its bytes, and those that are tables, which a program of the loader's never
    reaches. `strayed`: one has."""

    size: int
    tables: tuple[range, ...] = ()
    strayed: bool = False

    def look(self, offset: int, size: int) -> None:
        """A program's access."""
        if offset >= TABLES_AT and any(offset < each.stop and each.start < offset + size for each in self.tables):
            self.strayed = True


class Observed(Code):
    """A program store that counts into `hits` what is executed from it."""

    def __init__(self, slots: int, executes: Callable[[Row], bool], map_memory: MapMemory):
        super().__init__(slots, executes)
        self.hits: Counter[Item] = Counter()
        self.map_memory = map_memory
        self._seen: dict[int, Step] = {}

    def write(self, slot: int, code: bytes) -> None:
        super().write(slot, code)
        self._seen.clear()

    def step(self, pc: int) -> Step:
        step = self._seen.get(pc)
        if step is None:
            step = self._seen[pc] = self._observed(super().step(pc))
        return step

    def _observed(self, step: Step) -> Step:
        try:
            row = isa.find(step.instruction)
        except BpfnicError:  # it traps, whatever it is
            return step
        kind = _kind(row)
        if kind is not _other and step.suspends != (kind in (_accessed, _atomic, _helped, _called_through)):
            return step  # illegal fields, or a row that the device doesn't execute: what stands here traps
        execute = kind(row, step.instruction, step.execute, self.hits, self.map_memory)
        return step._replace(execute=execute)


def _kind(row: Row) -> Callable[..., Callable[[Thread], Any]]:
    if row.instruction_class in _ARITHMETIC or row.operation in _CONDITIONS:
        return _computed
    if row.operation in _LOADS or row.operation in _STORES:
        return _accessed
    if row.operation.name.startswith("ATOMIC"):
        return _atomic
    if row.operation is Operation.CALL_HELPER:
        return _helped
    return _others.get(row.operation, _other)


Execute = Callable[[Thread], Any]
Hits = Counter[Item]


def _computed(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    """Arithmetic and conditions."""
    name, width, dst, src = row.name, row.width, instruction.dst, instruction.src
    mask, sign = (1 << width) - 1, width - 1
    special = values.special(width).get
    binary = row.register_operand or row.imm is Legal.IMM32
    moves, conditional = row.operation in _MOVES, row.operation in _CONDITIONS
    form = "immediate" if not row.register_operand else "same register" if dst == src else "register"
    if not binary:
        form = "operand"
    by_immediate = values.edge(instruction.imm, width)
    halves = width == 32 and row.instruction_class in (Class.ALU, Class.JMP32)

    def counted(thread: Thread) -> int:
        registers = thread.registers
        left, right = registers[dst], registers[src]
        next_pc = execute(thread)
        a, b = left & mask, right & mask
        if form == "register":
            second = special(b) or ("-" if b >> sign else "+")
            key = second if moves else f"{special(a) or ('-' if a >> sign else '+')}, {second}"
        elif form == "immediate":
            key = by_immediate if moves else f"{special(a) or ('-' if a >> sign else '+')}, {by_immediate}"
        else:
            key = special(a) or ("-" if a >> sign else "+")
        hits[name, form, key] += 1
        if halves:
            if left >> 32 and not moves:
                hits[name, "upper half", "dst"] += 1
            if form == "register" and right >> 32:
                hits[name, "upper half", "src"] += 1
        if conditional:
            hits[name, "taken", "no" if next_pc == thread.pc + 1 else "yes"] += 1
        return next_pc

    return counted


def _window(address: int) -> str:
    return next(name for first, behind, name in _WINDOWS if first <= address < behind)


def _accessed(row: Row, instruction: Instruction, execute: Execute, hits: Hits, maps: MapMemory) -> Execute:
    """Loads and stores."""
    name, width, size = row.name, row.width, row.width // 8
    loads = row.operation in _LOADS
    written = loads or row.register_operand
    base, offset = (instruction.src if loads else instruction.dst), instruction.offset
    source = instruction.dst if loads else instruction.src
    behind_maps = MAP_VALUES + maps.size

    def counted(thread: Thread) -> Generator[Any, None, int]:
        registers = thread.registers
        address = registers[base] + offset & (1 << 64) - 1
        stored = registers[source]
        next_pc = yield from execute(thread)
        window = _window(address)
        hits[name, window, str(address % 8)] += 1
        if window == "packet":
            first, behind = PACKET + thread.memory.buffer.data, PACKET + thread.memory.buffer.data_end
        elif window == "map":
            first, behind = -1, behind_maps
            maps.look(address - MAP_VALUES, size)
            crossing = ROW_BYTES - address % ROW_BYTES
            if crossing < size:
                hits[name, "crossing", str(crossing)] += 1
        else:
            first, behind = (STACK, addresses.STACK_TOP) if window == "stack" else _WINDOWS[0][:2]
        if address == first:  # map memory begins where a value does, not where a window does
            hits[name, "first", window] += 1
        if address + size == behind:
            hits[name, "last", window] += 1
        if written:
            hits[name, "value", values.edge(registers[source] if loads else stored, width)] += 1
        else:
            hits[name, "value", values.edge(instruction.imm, width)] += 1
        return next_pc

    return counted


def _atomic(row: Row, instruction: Instruction, execute: Execute, hits: Hits, maps: MapMemory) -> Execute:
    """What memory holds is looked at right before the access, when the order of shared accesses lets it in."""
    name, width, size = row.name, row.width, row.width // 8
    mask = (1 << width) - 1
    dst, src, offset = instruction.dst, instruction.src, instruction.offset
    compares = row.operation is Operation.ATOMIC_CMPXCHG

    def counted(thread: Thread) -> Generator[Any, None, int]:
        registers = thread.registers
        address = registers[dst] + offset & (1 << 64) - 1
        operand, expected = registers[src], registers[0] & mask
        run = execute(thread)
        while True:
            try:
                old = thread.memory.load(address, size)
            except Trap:
                old = 0  # and the instruction traps
            try:
                access = next(run)
            except StopIteration as end:
                next_pc = end.value
                break
            yield access
        hits[name, _window(address), str(address % 8)] += 1
        maps.look(address - MAP_VALUES, size)
        second = ("equal" if old == expected else "different") if compares else values.edge(operand, width)
        hits[name, "operands", f"{values.edge(old, width)}, {second}"] += 1
        return next_pc

    return counted


def _helped(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    name = next((name for name, helper in HELPERS.items() if helper.number == instruction.imm), str(instruction.imm))

    def counted(thread: Thread) -> Generator[Any, None, int]:
        pc, handle = thread.pc, thread.registers[_MAP_REGISTER.get(name, 1)]
        next_pc = yield from execute(thread)
        result, form = thread.registers[0], name
        if name == "tail_call":
            key = "falls through" if next_pc == pc + 1 else "jumps"
        elif name in _RESULTS or name in _MAP_RESULTS:
            key = "negative" if result >> 63 else "positive" if result else "zero"
        else:
            key = "–"
        if name in _MAP_RESULTS:
            if handle not in TYPES:  # a queue's, with the bytes of keys that it hasn't
                return next_pc
            form = f"{name}, {TYPES[handle].name}"
        hits[row.name, form, key] += 1
        return next_pc

    return counted


def _jumped(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    def counted(thread: Thread) -> int:
        next_pc = execute(thread)
        hits[row.name, "distance", "forward" if next_pc > thread.pc else "back"] += 1
        return next_pc

    return counted


def _went_on(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    def counted(thread: Thread) -> int:
        next_pc = execute(thread)
        hits[row.name, "taken", "no" if next_pc == thread.pc + 1 else "yes"] += 1
        return next_pc

    return counted


def _called(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    size = instruction.offset

    def counted(thread: Thread) -> int:
        next_pc = execute(thread)
        hits[row.name, "depth", str(thread.depth)] += 1
        hits[row.name, "frame", "default" if size == 0 else "16" if size == 16 else "more"] += 1
        return next_pc

    return counted


def _privileged(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    def counted(thread: Thread) -> int:
        caller = thread.frame
        next_pc = execute(thread)
        hits[row.name, "frame", str(caller)] += 1
        return next_pc

    return counted


def _called_through(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    """callx, of a function or of a helper."""
    size = instruction.offset

    def counted(thread: Thread) -> Generator[Any, None, int]:
        depth = thread.depth
        next_pc = yield from execute(thread)
        if thread.depth > depth:
            hits[row.name, "depth", str(depth + 1)] += 1
            hits[row.name, "frame", "default" if size == 0 else "16" if size == 16 else "more"] += 1
        else:
            hits[row.name, "helper", "–"] += 1
        return next_pc

    return counted


def _left(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    def counted(thread: Thread) -> int | None:
        next_pc = execute(thread)
        hits[row.name, "of", "the program" if next_pc is None else "a function"] += 1
        return next_pc

    return counted


def _constant(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    item = row.name, "constant", values.edge(instruction.imm64, 64)

    def counted(thread: Thread) -> int:
        hits[item] += 1
        return execute(thread)

    return counted


def _packet_loaded(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    def counted(thread: Thread) -> int | None:
        pc, index = thread.pc, thread.registers[instruction.src]
        next_pc = execute(thread)
        offset = instruction.imm + (index if row.operation is Operation.LD_IND else 0)
        inside = next_pc == pc + 1
        hits[row.name, "inside" if inside else "outside", str(offset % 8) if inside else "–"] += 1
        return next_pc

    return counted


def _other(row: Row, instruction: Instruction, execute: Execute, hits: Hits, _: MapMemory) -> Execute:
    """A row that nothing here says more of."""
    item = row.name, "any", "–"

    def at_once(thread: Thread) -> Any:
        next_pc = execute(thread)
        if isinstance(next_pc, Generator):
            return suspending(next_pc)
        hits[item] += 1
        return next_pc

    def suspending(run: Generator[Any, None, Any]) -> Generator[Any, None, Any]:
        next_pc = yield from run
        hits[item] += 1
        return next_pc

    return at_once


_others = {
    Operation.JA: _jumped,
    Operation.MAY_GOTO: _went_on,
    Operation.CALL_LOCAL: _called,
    Operation.CALLX: _called_through,
    Operation.CALL_FIRMWARE: _privileged,
    Operation.EXIT: _left,
    Operation.LDDW: _constant,
    **dict.fromkeys(_PACKET_LOADS, _packet_loaded),
}


# ---------------------------------------------------------------- what there is to cover


def wanted(row: Row, helpers: Iterable[str], map_types: Collection[MapType]) -> set[Item]:
    """What a row has to be seen with, on a device with these helpers and map types; empty for a row that always
    traps."""
    if row.operation in _NEVER:
        return set()
    found = _of_kind(row, helpers, map_types)
    return {(row.name, form, key) for form, key in found}


def _of_kind(row: Row, helpers: Iterable[str], map_types: Collection[MapType]) -> set[tuple[str, str]]:
    width, operation = row.width, row.operation
    numbers = values.classes(width)
    kind = _kind(row)
    if kind is _computed:
        return _of_computed(row, numbers)
    if kind is _accessed:
        return _of_access(row)
    if kind is _atomic:
        seconds = ("equal", "different") if operation is Operation.ATOMIC_CMPXCHG else numbers
        lanes = range(0, 8, width // 8)
        found = {(window, str(lane)) for window in ("map", "stack", "packet") for lane in lanes}
        return found | {("operands", f"{old}, {second}") for old in numbers for second in seconds}
    if kind is _helped:
        return {
            (name if kind is None else f"{name}, {kind.name}", result)
            for name in helpers
            for kind, results in _MAP_RESULTS.get(name, {None: _RESULTS.get(name, ("–",))}).items()
            if kind is None or kind in map_types
            for result in results
        }
    if kind is _jumped:
        return {("distance", "forward"), ("distance", "back")}
    if kind is _went_on:
        return {("taken", "yes"), ("taken", "no")}
    if kind in (_called, _called_through):
        depths = {("depth", str(depth)) for depth in range(1, addresses.FRAMES)}
        sizes = {("frame", size) for size in ("default", "16", "more")}
        return depths | sizes | ({("helper", "–")} if kind is _called_through else set())
    if kind is _privileged:
        return {("frame", str(frame)) for frame in range(addresses.FRAMES)}
    if kind is _left:
        return {("of", "the program"), ("of", "a function")}
    if kind is _constant:
        return {("constant", number) for number in numbers}
    if kind is _packet_loaded:
        return {("outside", "–")} | {("inside", str(lane)) for lane in range(8)}
    return {("any", "–")}


def _of_computed(row: Row, numbers: tuple[str, ...]) -> set[tuple[str, str]]:
    width, moves = row.width, row.operation in _MOVES
    found = set()
    if row.register_operand:
        found |= {("same register", number) for number in numbers}
        found |= {("register", b if moves else f"{a}, {b}") for a in numbers for b in numbers}
    elif row.imm is Legal.IMM32:
        immediates = values.immediate_classes(width)
        found |= {("immediate", b if moves else f"{a}, {b}") for a in numbers for b in immediates}
    else:
        found |= {("operand", number) for number in numbers}
    if width == 32 and row.instruction_class in (Class.ALU, Class.JMP32):
        found |= set() if moves else {("upper half", "dst")}
        found |= {("upper half", "src")} if row.register_operand else set()
    if row.operation in _CONDITIONS:
        found |= {("taken", "yes"), ("taken", "no")}
    return found


def _of_access(row: Row) -> set[tuple[str, str]]:
    size = row.width // 8
    reads = row.operation in _LOADS
    ordered = row.operation in _ORDERED
    found = set() if ordered else {("crossing", str(before)) for before in range(1, size)}
    for window in ("context", "stack", "packet", "map") if reads else ("stack", "packet", "map"):
        lanes = range(8) if window in ("packet", "map") and not ordered else range(0, 8, size)
        found |= {(window, str(lane)) for lane in lanes} | {("last", window)}
    found |= {("first", window) for window in (("context", "stack", "packet") if reads else ("stack", "packet"))}
    if row.operation is Operation.ST:
        return found | {("value", number) for number in values.immediate_classes(row.width)}
    return found | {("value", number) for number in values.classes(row.width)}


class Report:
    """What was wanted of a device, and what of it was hit."""

    def __init__(self, has: Any, hits: Iterable[Item]):
        helpers = [name for name, helper in HELPERS.items() if helper.number in has.helpers]
        executed = [row for row in isa.ROWS if row.group in has.groups]
        self.unsupported = [row.name for row in isa.ROWS if row not in executed]
        self.trapping = [row.name for row in executed if row.operation in _NEVER]
        self.wanted = {
            row.name: wanted(row, helpers, has.map_types) for row in executed if row.operation not in _NEVER
        }
        hit = set(hits)
        self.missing = {name: sorted(items - hit) for name, items in self.wanted.items() if items - hit}
        self.rows_hit = [name for name in self.wanted if any(item[0] == name for item in hit)]
        self.all = sum(map(len, self.wanted.values()))
        self.covered = self.all - sum(map(len, self.missing.values()))
