"""Conditional jumps: which ways they go, and what each way tells (kernel: check_cond_jmp_op)."""

from typing import TYPE_CHECKING

from bpfnic.host.verifier import branch, links, subprograms
from bpfnic.host.verifier.memory import MOST_PACKET
from bpfnic.host.verifier.scalar import Scalar, constant
from bpfnic.host.verifier.state import State
from bpfnic.host.verifier.values import (
    AT_END,
    BEYOND_END,
    END,
    ITEM,
    MAP,
    MEMORY,
    META,
    NUMBER,
    PACKET,
    RECORD,
    VALUE,
    ZERO,
    Held,
)
from bpfnic.host.verifier.width import WORD_MASK
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Operation, Row
from bpfnic.spec.maps import OF_MAPS

if TYPE_CHECKING:
    from bpfnic.host.verifier.walk import Walk

_ORDERED = frozenset({Operation.JGT, Operation.JGE, Operation.JLT, Operation.JLE})
_FLIPPED = {Operation.JGT: Operation.JLT, Operation.JLT: Operation.JGT, Operation.JGE: Operation.JLE,
            Operation.JLE: Operation.JGE}  # fmt: skip
_NEVER_NULL = (VALUE, MEMORY, RECORD, MAP, ITEM)
_NULL = Held(NUMBER, ZERO)


def conditional(walk: "Walk", row: Row, instruction: Instruction) -> None:
    """A conditional jump: the walk goes on where it falls through, and what jumps waits; or it goes the one way."""
    state = walk.state
    regs = state.frame.regs
    word, operation = row.width == 32, row.operation
    a = walk.readable(instruction.dst)
    if row.register_operand:
        b = walk.readable(instruction.src)
    else:
        b = Held(NUMBER, constant(instruction.imm & WORD_MASK if word else instruction.imm))
    following, target = walk.graph.after[state.slot]
    taken = _decide(operation, a, b, word)
    if taken is not None:
        if a.kind is NUMBER:
            walk.need_exact(instruction.dst)
        if row.register_operand and b.kind is NUMBER:
            walk.need_exact(instruction.src)
        walk.go(target if taken else following)
        return
    if a.kind is NUMBER and b.kind is NUMBER:
        linked = tuple(links.group(state, held) for held in (a, b) if held.id)
        group = tuple(place for one in linked if len(one) > 1 for place in one)
        if group:
            walk.note_places(("linked", group))
        both = (instruction.dst, instruction.src) if row.register_operand else (instruction.dst, None)
        yes, no = _refined(operation, a, b, word)
        other = state.copy() if yes and no else state
        if yes:
            _apply(other, both, yes)
        if no:
            _apply(state, both, no)
        _fork(walk, other if yes else None, state if no else None, target, following)
        return
    other = state.copy()
    if not word and not row.register_operand and a.nullable and operation in (Operation.JEQ, Operation.JNE):
        if not instruction.imm:
            _null(walk, other, a, operation is Operation.JEQ)
            _null(walk, state, a, operation is Operation.JNE)
    elif not word and row.register_operand and operation in _ORDERED:
        _packet(other, state, operation, instruction.dst, instruction.src, regs[instruction.dst], b)
    _fork(walk, other, state, target, following)


def _fork(walk: "Walk", yes: State | None, no: State | None, target: int, following: int) -> None:
    if yes and no:
        yes.previous, yes.slot = yes.slot, target
        walk.push(yes)
        walk.go(following)
    elif yes or no:
        walk.go(target if yes else following)
    else:
        walk.end_path()


def _decide(operation: Operation, a: Held, b: Held, word: bool) -> bool | None:
    if a.kind is NUMBER and b.kind is NUMBER:
        return branch.decide(operation, a.number, b.number, word)
    if word:
        return None
    if b.constant and not b.number.value:
        if a.kind in _NEVER_NULL and not a.nullable and operation in (Operation.JEQ, Operation.JNE):
            return operation is Operation.JNE
        return None
    if a.kind is END and b.kind is PACKET and operation in _FLIPPED:
        a, b, operation = b, a, _FLIPPED[operation]
    if a.kind is PACKET and b.kind is END and a.range < 0:
        if operation in (Operation.JLE, Operation.JGT) and a.range == BEYOND_END:
            return operation is Operation.JGT
        if operation in (Operation.JLT, Operation.JGE):
            return operation is Operation.JGE
    return None


Pair = tuple[Scalar, Scalar] | None


def _refined(operation: Operation, a: Held, b: Held, word: bool) -> tuple[Pair, Pair]:
    yes = branch.refine(operation, a.number, b.number, word)
    if operation is Operation.JSET:
        left = branch.without_bits(a.number, b.number, word)
        return yes, (left, b.number) if left else None
    return yes, branch.refine(branch.INVERSE[operation], a.number, b.number, word)


def _apply(state: State, registers: tuple[int, int | None], numbers: tuple[Scalar, Scalar]) -> None:
    regs = state.frame.regs
    for register, known in zip(registers, numbers, strict=True):
        if register is None:
            continue
        before = regs[register]
        if known is before.number:
            continue
        after = Held(NUMBER, known, before.off, before.id, word=before.word)
        regs[register] = after
        if before.id:
            links.share(state, after)


def _null(walk: "Walk", state: State, pointer: Held, null: bool) -> None:
    """All copies of a pointer that may be null are, or aren't."""
    if null and pointer.ref:
        state.refs = tuple(ref for ref in state.refs if ref != pointer.ref)
    for frame, where, held in state.each():
        if held.nullable and held.id == pointer.id and held.kind is pointer.kind:
            if null:
                state.put(frame, where, _NULL)
            elif held.kind is VALUE and held.map and held.map.type in OF_MAPS:
                state.put(frame, where, Held(MAP, ZERO, map=held.map.inner))
            else:
                keeps = held.kind is VALUE and held.map and walk.locks.offset(held.map) is not None
                state.put(frame, where, held.but(nullable=False, id=held.id if keeps else 0))


def _packet(yes: State, no: State, operation: Operation, dst: int, src: int, a: Held, b: Held) -> None:
    """A packet pointer compared with the packet's end, or a pointer to metadata with the packet's beginning."""
    register = dst
    if _is_end(b, a):
        register, a, b, operation = src, b, a, _FLIPPED[operation]
    elif not _is_end(a, b):
        return
    # Where `a` is below the end, or at it, so much of the packet is there; otherwise it lies at the end or behind it.
    inside, outside = (yes, no) if operation in (Operation.JLT, Operation.JLE) else (no, yes)
    below = operation in (Operation.JLT, Operation.JGE)
    _reached(inside, a, below)
    if a.kind is PACKET:
        regs = outside.frame.regs
        regs[register] = regs[register].but(range=AT_END if below else BEYOND_END)


def _is_end(a: Held, b: Held) -> bool:
    if a.kind is PACKET:
        return b.kind is END
    return a.kind is META and b.kind is PACKET and not (b.off or b.id or b.number.mask or b.number.value)


def _reached(state: State, pointer: Held, below: bool) -> None:
    """The bytes before `pointer` are in the packet, and one more where it is `below` the end."""
    if pointer.off < 0 or (pointer.off == 0 and below):
        return
    if pointer.number.umax > MOST_PACKET or pointer.number.umax + pointer.off > MOST_PACKET:
        return
    reached = pointer.off + below
    for frame, where, held in state.each():
        if held.kind is pointer.kind and held.id == pointer.id and held.range < reached:
            state.put(frame, where, held.but(range=reached))


def may_goto(walk: "Walk") -> None:
    """A jump on the instruction budget: both ways, and what falls through makes another pass."""
    state = walk.state
    following, target = walk.graph.after[state.slot]
    other = state.copy()
    other.previous, other.slot = other.slot, target
    walk.push(other)
    state.may_goto += 1
    earlier = subprograms.earlier(walk, state, skip=1)
    if earlier is not None:
        subprograms.widen(walk, earlier, state)
    walk.go(following)


def split_mask(walk: "Walk", register: int, held: Held) -> Held:
    """A number that is -1 or 0 (a sign that was shifted down) before a mask of it: what it picks or leaves is exact if
    both are walked apart. The walk goes on with -1, which is given; 0 waits (kernel: maybe_fork_scalars)."""
    known = held.number
    word = not (known.smin == -1 and known.smax == 0)
    if word and not (known.wsmin == -1 and known.wsmax == 0):
        return held
    zero, ones = (branch.refine(Operation.JEQ, known, constant(number), word) for number in (0, -1))
    if not zero or not ones:
        return held
    other = walk.state.copy()
    other.frame.regs[register] = Held(NUMBER, zero[0])
    other.previous = other.slot
    walk.push(other)
    return Held(NUMBER, ones[0])
