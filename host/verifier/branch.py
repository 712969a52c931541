"""What conditional jumps tell of the numbers that they compare (proved in tests/formal/domain.py)."""

from bpfnic.host.verifier import tnum
from bpfnic.host.verifier.scalar import Scalar, made
from bpfnic.host.verifier.width import MASK, WORD_MASK
from bpfnic.spec.isa import Operation

INVERSE = {
    Operation.JEQ: Operation.JNE,
    Operation.JNE: Operation.JEQ,
    Operation.JGT: Operation.JLE,
    Operation.JLE: Operation.JGT,
    Operation.JGE: Operation.JLT,
    Operation.JLT: Operation.JGE,
    Operation.JSGT: Operation.JSLE,
    Operation.JSLE: Operation.JSGT,
    Operation.JSGE: Operation.JSLT,
    Operation.JSLT: Operation.JSGE,
}
"""What holds where a jump isn't taken; JSET has a function of its own."""

_MIRROR = {
    Operation.JGT: Operation.JLT,
    Operation.JGE: Operation.JLE,
    Operation.JSGT: Operation.JSLT,
    Operation.JSGE: Operation.JSLE,
}


def decide(operation: Operation, a: Scalar, b: Scalar, word: bool) -> bool | None:
    """Whether the jump is taken; None where it may be either."""
    if operation in _MIRROR:
        return decide(_MIRROR[operation], b, a, word)
    if operation is Operation.JNE:
        equal = decide(Operation.JEQ, a, b, word)
        return None if equal is None else not equal
    a_umin, a_umax, a_smin, a_smax = a.word_range if word else a.range
    b_umin, b_umax, b_smin, b_smax = b.word_range if word else b.range
    if operation is Operation.JLT:
        return True if a_umax < b_umin else False if a_umin >= b_umax else None
    if operation is Operation.JLE:
        return True if a_umax <= b_umin else False if a_umin > b_umax else None
    if operation is Operation.JSLT:
        return True if a_smax < b_smin else False if a_smin >= b_smax else None
    if operation is Operation.JSLE:
        return True if a_smax <= b_smin else False if a_smin > b_smax else None
    bits = WORD_MASK if word else MASK
    if operation is Operation.JEQ:
        if (a.value ^ b.value) & ~a.mask & ~b.mask & bits:
            return False
        if a_umin > b_umax or a_umax < b_umin or a_smin > b_smax or a_smax < b_smin:
            return False
        if a.wumin > b.wumax or a.wumax < b.wumin or a.wsmin > b.wsmax or a.wsmax < b.wsmin:
            return False
        return None if (a.mask | b.mask) & bits else True
    assert operation is Operation.JSET
    if a.value & b.value & bits:
        return True
    return None if (a.value | a.mask) & (b.value | b.mask) & bits else False


def refine(operation: Operation, a: Scalar, b: Scalar, word: bool) -> tuple[Scalar, Scalar] | None:
    """Both numbers where `operation` holds of them; None where it can't."""
    if operation in _MIRROR:
        found = refine(_MIRROR[operation], b, a, word)
        return found and (found[1], found[0])
    if operation is Operation.JEQ:
        return _equal(a, b, word)
    if operation is Operation.JSET:
        return _both(_with_bits(a, b, word), _with_bits(b, a, word))
    a_umin, a_umax, a_smin, a_smax = a.word_range if word else a.range
    b_umin, b_umax, b_smin, b_smax = b.word_range if word else b.range
    if operation is Operation.JNE:
        if b_umin == b_umax and b_smin == b_smax:
            a_umin, a_umax = a_umin + (a_umin == b_umin), a_umax - (a_umax == b_umin)
            a_smin, a_smax = a_smin + (a_smin == b_smin), a_smax - (a_smax == b_smin)
        elif a_umin == a_umax and a_smin == a_smax:
            b_umin, b_umax = b_umin + (b_umin == a_umin), b_umax - (b_umax == a_umin)
            b_smin, b_smax = b_smin + (b_smin == a_smin), b_smax - (b_smax == a_smin)
    elif operation is Operation.JLT:
        a_umax, b_umin = min(a_umax, b_umax - 1), max(b_umin, a_umin + 1)
    elif operation is Operation.JLE:
        a_umax, b_umin = min(a_umax, b_umax), max(b_umin, a_umin)
    elif operation is Operation.JSLT:
        a_smax, b_smin = min(a_smax, b_smax - 1), max(b_smin, a_smin + 1)
    else:
        assert operation is Operation.JSLE
        a_smax, b_smin = min(a_smax, b_smax), max(b_smin, a_smin)
    return _both(
        _narrowed(a, (a_umin, a_umax, a_smin, a_smax), word), _narrowed(b, (b_umin, b_umax, b_smin, b_smax), word)
    )


def without_bits(a: Scalar, b: Scalar, word: bool) -> Scalar | None:
    """`a` where a & b is 0: what JSET tells where it isn't taken."""
    bits = b.value & (WORD_MASK if word else MASK)  # those that `b` has for certain
    if a.value & bits:
        return None
    return made((a.value, a.mask & ~bits), a.range, a.word_range)


def _both(a: Scalar | None, b: Scalar | None) -> tuple[Scalar, Scalar] | None:
    return None if a is None or b is None else (a, b)


def _narrowed(a: Scalar, range: tuple[int, int, int, int], word: bool) -> Scalar | None:
    if range == (a.word_range if word else a.range):
        return a
    if range[0] > range[1] or range[2] > range[3]:
        return None
    known = a.value, a.mask
    return made(known, a.range, range) if word else made(known, range, a.word_range)


def _with_bits(a: Scalar, b: Scalar, word: bool) -> Scalar | None:
    """`a` where a & b isn't 0: known if `b` is a single bit."""
    bits = WORD_MASK if word else MASK
    if b.mask & bits or (bit := b.value & bits) & bit - 1:
        return a
    return made((a.value | bit, a.mask & ~bit), a.range, a.word_range) if bit else None


def _equal(a: Scalar, b: Scalar, word: bool) -> tuple[Scalar, Scalar] | None:
    words = _intersection(a.word_range, b.word_range)
    if not word:
        known = tnum.intersect((a.value, a.mask), (b.value, b.mask))
        both = made(known, _intersection(a.range, b.range), words) if known else None
        return _both(both, both)
    low = tnum.intersect(a.word_tnum, b.word_tnum)
    if low is None:
        return None
    upper = MASK & ~WORD_MASK
    return _both(*(made((x.value & upper | low[0], x.mask & upper | low[1]), x.range, words) for x in (a, b)))


def _intersection(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return max(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), min(a[3], b[3])
