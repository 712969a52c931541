"""What arithmetic instructions do to numbers as the verifier knows them: of each operation, all results of all operands
are numbers of its result (proved in tests/formal/domain.py).

Division and remainder give an unknown number, and so does a shift by an unknown distance or by more than
the operand has, even in 32 bits: that is as much as Linux knows."""

from collections.abc import Callable

from bpfnic.host.verifier import tnum
from bpfnic.host.verifier.scalar import (
    FULL,
    UNKNOWN,
    WORD_FULL,
    Range,
    Scalar,
    constant,
    made,
    signed,
    signed_word,
    word_of,
    zero_extended,
)
from bpfnic.host.verifier.tnum import Tnum
from bpfnic.host.verifier.width import BITS, MASK, WORD, WORD_MASK
from bpfnic.spec.isa import Operation

WORD_UNKNOWN = zero_extended((0, WORD_MASK), WORD_FULL)
"""Any number of the lower half."""


def compute(operation: Operation, a: Scalar, b: Scalar, word: bool) -> Scalar:
    """The result of a two-operand instruction other than MOV; `word`: of the 32-bit one."""
    if operation in _SHIFTS:
        if not b.constant or b.value >= (WORD if word else BITS):
            return UNKNOWN
        return _SHIFTS[operation](a, b.value, word)
    if operation not in _OPERATORS:
        return UNKNOWN
    of_bits, of_range = _OPERATORS[operation]
    words = of_range(a.word_range, b.word_range, WORD)
    if word:
        known = of_bits(a.word_tnum, b.word_tnum)
        known = known[0] & WORD_MASK, known[1] & WORD_MASK
        return zero_extended(known, words)
    return made(of_bits((a.value, a.mask), (b.value, b.mask)), of_range(a.range, b.range, BITS), words) or UNKNOWN


def negate(a: Scalar, word: bool) -> Scalar:
    """-a."""
    return compute(Operation.SUB, constant(0), a, word)


def move(a: Scalar, word: bool) -> Scalar:
    """a, or its lower half."""
    return word_of(a) if word else a


def swap(a: Scalar, width: int, reverse: bool) -> Scalar:
    """The lowest `width` bits of a, with their bytes in `reverse` order or as they are, and zeros above."""
    low = (1 << width) - 1
    known = a.value & low, a.mask & low
    if reverse:
        value, mask = (int.from_bytes(part.to_bytes(width // 8, "little"), "big") for part in known)
        known = value, mask
    return made(known, FULL, WORD_FULL) or UNKNOWN


def sign_extend(a: Scalar, bits: int, word: bool) -> Scalar:
    """The lowest `bits` bits of a, with their sign above them (MOVSX)."""
    sign, low = 1 << bits - 1, (1 << bits) - 1
    smin, smax = -sign, sign - 1
    if a.umin >> bits == a.umax >> bits:  # all numbers have the same bits above
        first, last = (bound & low for bound in (a.umin, a.umax))
        first, last = first - (first & sign) * 2, last - (last & sign) * 2
        if first <= last:
            smin, smax = first, last
    value, mask = a.value & low, a.mask & low
    if mask & sign:
        mask |= MASK & ~low
    elif value & sign:
        value |= MASK & ~low
    if word:
        return zero_extended((value & WORD_MASK, mask & WORD_MASK), (0, WORD_MASK, smin, smax))
    return made((value, mask), (0, MASK, smin, smax), WORD_FULL) or UNKNOWN


# Ranges: of a result of `bits` bits, from those of its operands. A range that may wrap, but not for all, is full.


def _full(bits: int) -> Range:
    return FULL if bits == BITS else WORD_FULL


def _wrapped(low: int, high: int, least: int, bits: int) -> tuple[int, int]:
    """The range from `low` to `high`, brought into the `bits` bits from `least` on if both ends take the same way."""
    span = 1 << bits
    if low >= least and high < least + span:
        return low, high
    if low >= least + span:
        low, high = low - span, high - span
    elif high < least:
        low, high = low + span, high + span
    if low >= least and high < least + span:
        return low, high
    return least, least + span - 1


def _add(a: Range, b: Range, bits: int) -> Range:
    half = 1 << bits - 1
    return (*_wrapped(a[0] + b[0], a[1] + b[1], 0, bits), *_wrapped(a[2] + b[2], a[3] + b[3], -half, bits))


def _subtract(a: Range, b: Range, bits: int) -> Range:
    half = 1 << bits - 1
    return (*_wrapped(a[0] - b[1], a[1] - b[0], 0, bits), *_wrapped(a[2] - b[3], a[3] - b[2], -half, bits))


def _multiply(a: Range, b: Range, bits: int) -> Range:
    umin, umax, smin, smax = _full(bits)
    if a[1] * b[1] <= umax:
        umin, umax = a[0] * b[0], a[1] * b[1]
    corners = a[2] * b[2], a[2] * b[3], a[3] * b[2], a[3] * b[3]
    low, high = min(*corners), max(*corners)
    if low >= smin and high <= smax:
        smin, smax = low, high
    return umin, umax, smin, smax


def _conjunction(a: Range, b: Range, bits: int) -> Range:
    full = _full(bits)
    return 0, min(a[1], b[1]), full[2], full[3]


def _disjunction(a: Range, b: Range, bits: int) -> Range:
    full = _full(bits)
    return max(a[0], b[0]), full[1], full[2], full[3]


def _unknown_range(a: Range, b: Range, bits: int) -> Range:
    return _full(bits)


_OPERATORS: dict[Operation, tuple[Callable[[Tnum, Tnum], Tnum], Callable[[Range, Range, int], Range]]] = {
    Operation.ADD: (tnum.add, _add),
    Operation.SUB: (tnum.subtract, _subtract),
    Operation.MUL: (tnum.multiply, _multiply),
    Operation.AND: (tnum.conjunction, _conjunction),
    Operation.OR: (tnum.disjunction, _disjunction),
    Operation.XOR: (tnum.difference, _unknown_range),
}


def _left(a: Scalar, distance: int, word: bool) -> Scalar:
    wumin, wumax, wsmin, wsmax = WORD_FULL
    if a.wumax << distance <= wumax:
        wumin, wumax = a.wumin << distance, a.wumax << distance
    words = wumin, wumax, wsmin, wsmax
    if word:
        return zero_extended((a.value << distance & WORD_MASK, a.mask << distance & WORD_MASK), words)
    umin, umax, smin, smax = FULL
    if a.umax << distance <= umax:
        umin, umax = a.umin << distance, a.umax << distance
    if distance == WORD:  # half of a sign extension: compilers write << 32, s>> 32
        smin, smax = a.wsmin << distance, a.wsmax << distance
    known = a.value << distance & MASK, a.mask << distance & MASK
    return made(known, (umin, umax, smin, smax), words) or UNKNOWN


def _right(a: Scalar, distance: int, word: bool) -> Scalar:
    if word:
        known = a.word_tnum
        words = a.wumin >> distance, a.wumax >> distance, WORD_FULL[2], WORD_FULL[3]
        return zero_extended((known[0] >> distance, known[1] >> distance), words)
    whole = a.umin >> distance, a.umax >> distance, FULL[2], FULL[3]
    return made((a.value >> distance, a.mask >> distance), whole, WORD_FULL) or UNKNOWN


def _right_signed(a: Scalar, distance: int, word: bool) -> Scalar:
    if word:
        value, mask = (signed_word(part) >> distance & WORD_MASK for part in a.word_tnum)
        return zero_extended((value, mask), (0, WORD_MASK, a.wsmin >> distance, a.wsmax >> distance))
    value, mask = (signed(part) >> distance & MASK for part in (a.value, a.mask))
    return made((value, mask), (0, MASK, a.smin >> distance, a.smax >> distance), WORD_FULL) or UNKNOWN


_SHIFTS: dict[Operation, Callable[[Scalar, int, bool], Scalar]] = {
    Operation.LSH: _left,
    Operation.RSH: _right,
    Operation.ARSH: _right_signed,
}
