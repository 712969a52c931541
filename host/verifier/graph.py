"""What can be said of a program's instructions before any path is walked: where control goes, where paths join, which
registers are still needed, and which instructions lie on a loop. Each is found once."""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bpfnic.host.structure import Code, jump_target
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.spec import helpers, isa
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Legal, Operation, Row

_CALLED = 0b111110
"""r1 to r5, as bits."""
_CLOBBERED = 0b111111
CALLBACKS = frozenset(
    number for number, helper in helpers.BY_NUMBER.items() if helpers.Argument.FUNCTION in (helper.takes or ())
)
TAIL_CALL = helpers.BY_NAME["tail_call"].number
_JUMPS = frozenset({Class.JMP, Class.JMP32})
CALLS = frozenset({Operation.CALL_LOCAL, Operation.CALL_HELPER, Operation.CALL_BTF})


@dataclass(frozen=True)
class Graph:
    """By slot: `rows` of the instruction table, `kinds` their classes, `after` (slots to which control goes within the
    function), `live` (a bit for each register whose value is read later), `loop` (it lies on a cycle), `passes` (a bit
    for each register whose value behind the instruction depends on what was in others). `landings`: where jumps, calls
    and returns lead; `joins`: they and the jumps with a condition, where states are kept and compared; `forced`: those
    of them where one is always kept. `entries`: first slots of
    functions; `calls`: for each of them those that it calls or passes to helpers, in order; `changes_packet`: those
    that may change the packet, or call what does; `tail_calls`: those that make tail calls."""

    rows: Sequence[Row | None]
    kinds: Sequence[Class | None]
    after: Sequence[tuple[int, ...]]
    live: Sequence[int]
    loop: Sequence[bool]
    passes: Sequence[int]
    landings: frozenset[int]
    joins: frozenset[int]
    forced: frozenset[int]
    entries: tuple[int, ...]
    calls: Mapping[int, Sequence[int]]
    changes_packet: frozenset[int]
    tail_calls: frozenset[int]

    def entry_of(self, slot: int) -> int:
        """Where the function of an instruction begins."""
        return self.entries[bisect_right(self.entries, slot) - 1]


def read(code: Code, rounds: Collection[int] = ()) -> Graph:
    """The graph of a program whose structure has been checked. `rounds`: calls that a loop ends by. Raises Refusal
    for instructions that nothing reaches."""
    rows = [None if one is None else isa.find(one) for one in code]
    after: list[tuple[int, ...]] = [()] * len(code)
    landings, joins, forced, entries = set(), set(), set(), {0}
    for slot, (instruction, row) in enumerate(zip(code, rows, strict=True)):
        if instruction is None or row is None:
            continue
        following = slot + instruction.slots
        target = jump_target(slot, row, instruction)
        if row.operation is Operation.EXIT:
            continue
        if row.operation is Operation.JA:
            assert target is not None
            after[slot] = (target,)
            landings.add(target)
        elif target is not None:
            after[slot] = (following, target)
            joins.add(slot)
            landings.add(target)
            if row.operation is Operation.MAY_GOTO:
                forced.add(slot)
        else:
            after[slot] = (following,)
        if slot in rounds or row.operation is Operation.CALL_HELPER and instruction.imm in CALLBACKS:
            joins.add(slot)
            forced.add(slot)
        if row.operation in CALLS:
            landings.add(following)
        if row.operation is Operation.CALL_LOCAL:
            joins.add(slot)
            landings.add(slot + 1 + instruction.imm)
            entries.add(slot + 1 + instruction.imm)
        elif _takes_address(row):
            entries.add(slot + 1 + instruction.imm)
    _check_reached(code, rows, after)
    kinds = [row.instruction_class if row else None for row in rows]
    functions = tuple(sorted(entries))
    return Graph(rows, kinds, after, _live(code, rows, after), _loops(after), _passes(code, rows),
                 frozenset(landings), frozenset(joins | landings), frozenset(forced), functions,
                 *_functions(code, rows, functions))  # fmt: skip


def _functions(
    code: Code, rows: Sequence[Row | None], entries: Sequence[int]
) -> tuple[Mapping[int, Sequence[int]], frozenset[int], frozenset[int]]:
    """What functions call, and which of them change the packet and make tail calls, whether or not a path leads
    there."""
    calls: dict[int, dict[int, None]] = {entry: {} for entry in entries}
    changing, tail_calls = set(), set()
    for slot, (instruction, row) in enumerate(zip(code, rows, strict=True)):
        if instruction is None or row is None:
            continue
        function = entries[bisect_right(entries, slot) - 1]
        if row.operation is Operation.CALL_LOCAL or _takes_address(row):
            calls[function][slot + 1 + instruction.imm] = None
        elif row.operation is Operation.CALL_HELPER:
            if instruction.imm in helpers.CHANGES_PACKET:
                changing.add(function)
            if instruction.imm == TAIL_CALL:
                tail_calls.add(function)
    fresh = changing
    while fresh:
        fresh = {entry for entry in entries if not fresh.isdisjoint(calls[entry])} - changing
        changing |= fresh
    return {entry: tuple(callees) for entry, callees in calls.items()}, frozenset(changing), frozenset(tail_calls)


def _takes_address(row: Row) -> bool:
    """Whether an instruction loads the address of a function."""
    return row.operation is Operation.LDDW_REFERENCE and row.imm is Legal.BRANCH


def _check_reached(code: Code, rows: Sequence[Row | None], after: Sequence[tuple[int, ...]]) -> None:
    seen: set[int] = set()
    waiting = [0]
    while waiting:
        slot = waiting.pop()
        if slot in seen:
            continue
        seen.add(slot)
        waiting += [to for to in after[slot] if to not in seen]
        row, instruction = rows[slot], code[slot]
        assert row and instruction
        if row.operation is Operation.CALL_LOCAL or _takes_address(row):
            waiting.append(slot + 1 + instruction.imm)
    for slot, instruction in enumerate(code):
        if instruction is not None and slot not in seen:
            raise Refusal(f"unreachable insn {slot}", slot, "No path leads to this instruction.",
                          "remove it, or the branch that hides it", before=True)  # fmt: skip


def uses(row: Row, instruction: Instruction) -> tuple[int, int]:
    """Registers that an instruction reads, and those that it writes, as bits."""
    dst, src, operation = 1 << instruction.dst, 1 << instruction.src, row.operation
    match row.instruction_class:
        case Class.ALU | Class.ALU64:
            if operation in (Operation.MOV, Operation.MOVSX):
                return (src if row.register_operand else 0), dst
            return dst | (src if row.register_operand else 0), dst
        case Class.LDX:
            return src, dst
        case Class.ST:
            return dst, 0
        case Class.STX:
            if operation is Operation.LOAD_ACQUIRE:
                return src, dst
            if operation is Operation.ATOMIC_CMPXCHG:
                return dst | src | 1, 1
            return dst | src, src if row.src is Legal.WRITTEN else 0
        case Class.LD:
            if operation in (Operation.LD_ABS, Operation.LD_IND):
                return 1 << 6 | (src if operation is Operation.LD_IND else 0), _CLOBBERED
            return 0, dst
    match operation:
        case Operation.JA | Operation.MAY_GOTO:
            return 0, 0
        case Operation.EXIT:
            return 1, 0
        case Operation.CALL_HELPER:
            helper = helpers.BY_NUMBER.get(instruction.imm)
            count = 5 if helper is None or helper.takes is None else min(5, len(helper.takes))
            if helper and helper.takes and helper.takes[-1] is helpers.Argument.ANY:
                count = 5
            return (2 << count) - 2, _CLOBBERED
        case Operation.CALL_LOCAL | Operation.CALL_BTF:
            return _CALLED, _CLOBBERED
        case Operation.CALLX:
            return _CALLED | dst, _CLOBBERED
    return dst | (src if row.register_operand else 0), 0


def _live(code: Code, rows: Sequence[Row | None], after: Sequence[tuple[int, ...]]) -> list[int]:
    """Registers that are needed before each instruction: to a fixed point, from the end backwards."""
    effects = [uses(row, one) if row and one else (0, 0) for row, one in zip(rows, code, strict=True)]
    live = [0] * len(code)
    changed = True
    while changed:
        changed = False
        for slot in range(len(code) - 1, -1, -1):
            read, written = effects[slot]
            needed = 0
            for to in after[slot]:
                needed |= live[to]
            needed = needed & ~written | read
            if needed != live[slot]:
                live[slot], changed = needed, True
    return live


def _passes(code: Code, rows: Sequence[Row | None]) -> list[int]:
    """Registers at which backtracking (precision.py) has something to do."""
    found = []
    for row, instruction in zip(rows, code, strict=True):
        registers = 0
        if row and instruction:
            kind, dst, src = row.instruction_class, 1 << instruction.dst, 1 << instruction.src
            if kind in (Class.ALU, Class.ALU64):
                moves = row.operation in (Operation.MOV, Operation.MOVSX)
                registers = dst if moves or row.register_operand else 0
            elif kind in _JUMPS:
                calls = row.operation in (Operation.CALL_LOCAL, Operation.CALL_HELPER, Operation.CALL_BTF)
                registers = _CLOBBERED if calls else dst | src if row.register_operand else 0
            else:
                registers = uses(row, instruction)[1]
        found.append(registers)
    return found


def _loops(after: Sequence[tuple[int, ...]]) -> list[bool]:
    """Slots that lie in a strongly connected component of several, or that lead to themselves (Tarjan, SIAM J. Comput.
    1972, with a stack of its own)."""
    count = len(after)
    index, low = [-1] * count, [0] * count
    on_stack, result = [False] * count, [False] * count
    stack: list[int] = []
    number = 0
    for root in range(count):
        if index[root] >= 0:
            continue
        work: list[tuple[int, Iterator[int]]] = [(root, iter(after[root]))]
        index[root] = low[root] = number
        number += 1
        stack.append(root)
        on_stack[root] = True
        while work:
            slot, successors = work[-1]
            for to in successors:
                if index[to] < 0:
                    index[to] = low[to] = number
                    number += 1
                    stack.append(to)
                    on_stack[to] = True
                    work.append((to, iter(after[to])))
                    break
                if on_stack[to]:
                    low[slot] = min(low[slot], index[to])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[slot])
                if low[slot] == index[slot]:
                    component = []
                    while True:
                        member = stack.pop()
                        on_stack[member] = False
                        component.append(member)
                        if member == slot:
                            break
                    if len(component) > 1 or slot in after[slot]:
                        for member in component:
                            result[member] = True
    return result
