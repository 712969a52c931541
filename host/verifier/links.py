"""Numbers that are known to be equal, or to differ by a constant: they have the same `id` (kernel: sync_linked_regs,
assign_scalar_id_before_mov, BPF_ADD_CONST64, BPF_ADD_CONST32).

Of the unknown number x that an id stands for, a Held with that id is x + off; or where `word` is set the lower half of
that sum, with zeros above it, and then x has zeros there, too."""

from typing import TYPE_CHECKING

from bpfnic.host.verifier import arithmetic
from bpfnic.host.verifier.scalar import Scalar, constant, signed, signed_word
from bpfnic.host.verifier.state import State
from bpfnic.host.verifier.values import NUMBER, Held
from bpfnic.host.verifier.width import WORD_MASK, WORD_SMAX, WORD_SMIN
from bpfnic.spec.isa import Operation

if TYPE_CHECKING:
    from bpfnic.host.verifier.walk import Walk


def copied(walk: "Walk", register: int) -> Held:
    """A register's number for a copy of it: with an id, which links the two, where it isn't a constant."""
    regs = walk.state.frame.regs
    held = regs[register]
    if held.kind is not NUMBER or held.constant or (held.id and not held.off and not held.word):
        return held
    regs[register] = held = Held(NUMBER, held.number, 0, walk.new_id())
    return held


def moved(operation: Operation, a: Held, by: Scalar, result: Scalar, word: bool) -> Held:
    """The result of `a operation by`: linked with `a` if it adds or subtracts a constant, and `a` is no such sum
    itself."""
    if not a.id or a.off or a.word or operation not in _SIGNS:
        return Held(NUMBER, result)
    if not (by.word_constant and a.number.umax <= WORD_MASK if word else by.constant):
        return Held(NUMBER, result)
    off = _SIGNS[operation] * (signed_word(by.value & WORD_MASK) if word else signed(by.value))
    if not WORD_SMIN <= off <= WORD_SMAX:
        return Held(NUMBER, result)
    return Held(NUMBER, result, off, a.id, word=word)


_SIGNS = {Operation.ADD: 1, Operation.SUB: -1}


def group(state: State, held: Held) -> tuple[tuple[int, int], ...]:
    """(frame, register or -1 - place) of all with a number's id."""
    return tuple((frame.number, where) for frame, where, other in state.each()
                 if other.kind is NUMBER and other.id == held.id)  # fmt: skip


def share(state: State, known: Held) -> None:
    """All that are linked with a number are told what became known of it."""
    for frame, where, held in state.each():
        if held.id != known.id or held.kind is not NUMBER or held is known:
            continue
        if held.off == known.off and held.word is known.word:
            state.put(frame, where, known)
            continue
        if held.off and known.off and held.word is not known.word:
            continue  # a sum in 64 bits, and one in 32
        by = constant(held.off - known.off)
        number = arithmetic.compute(Operation.ADD, known.number, by, held.word or known.word)
        state.put(frame, where, Held(NUMBER, number, held.off, held.id, word=held.word))
