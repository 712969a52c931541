"""A number as the verifier knows it: a tnum, its unsigned and signed range, and those of its lower half.

A Scalar is immutable and stands for the numbers x, BITS wide, for which all of this holds:

    x & ~mask == value            umin <= x <= umax              smin <= signed(x) <= smax
    wumin <= x & WORD_MASK <= wumax                              wsmin <= signed(x & WORD_MASK) <= wsmax

`made` is the one way to make one from parts: it tells each part what the others know. (Linux: reg_bounds_sync.)"""

from bpfnic.host.verifier.tnum import spread
from bpfnic.host.verifier.width import (
    BITS,
    MASK,
    SIGN,
    SMAX,
    SMIN,
    WORD,
    WORD_MASK,
    WORD_SIGN,
    WORD_SMAX,
    WORD_SMIN,
)

Range = tuple[int, int, int, int]
"""umin, umax, smin, smax."""

FULL: Range = (0, MASK, SMIN, SMAX)
WORD_FULL: Range = (0, WORD_MASK, WORD_SMIN, WORD_SMAX)


class Scalar:
    """See the module. Compare with `==`, which says whether all parts are the same."""

    __slots__ = ("value", "mask", "umin", "umax", "smin", "smax", "wumin", "wumax", "wsmin", "wsmax")

    def __init__(self, value: int, mask: int, umin: int, umax: int, smin: int, smax: int,
                 wumin: int, wumax: int, wsmin: int, wsmax: int):  # fmt: skip
        self.value, self.mask = value, mask
        self.umin, self.umax, self.smin, self.smax = umin, umax, smin, smax
        self.wumin, self.wumax, self.wsmin, self.wsmax = wumin, wumax, wsmin, wsmax

    @property
    def range(self) -> Range:
        return self.umin, self.umax, self.smin, self.smax

    @property
    def word_range(self) -> Range:
        return self.wumin, self.wumax, self.wsmin, self.wsmax

    @property
    def word_tnum(self) -> tuple[int, int]:
        return self.value & WORD_MASK, self.mask & WORD_MASK

    @property
    def constant(self) -> bool:
        return not self.mask

    @property
    def word_constant(self) -> bool:
        """Whether the lower half is one number."""
        return not self.mask & WORD_MASK

    def parts(self) -> tuple[int, ...]:
        return (self.value, self.mask, self.umin, self.umax, self.smin, self.smax,
                self.wumin, self.wumax, self.wsmin, self.wsmax)  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Scalar) and self.parts() == other.parts())

    def __hash__(self) -> int:
        return hash(self.parts())

    def __repr__(self) -> str:
        return f"Scalar{self.parts()}"

    def covers(self, other: "Scalar") -> bool:
        """Whether every number that `other` stands for is one of these, by each part alone."""
        return (
            self is other
            or self.umin <= other.umin
            and self.umax >= other.umax
            and self.smin <= other.smin
            and self.smax >= other.smax
            and self.wumin <= other.wumin
            and self.wumax >= other.wumax
            and self.wsmin <= other.wsmin
            and self.wsmax >= other.wsmax
            and not (other.mask & ~self.mask or (other.value ^ self.value) & ~self.mask)
        )


UNKNOWN = Scalar(0, MASK, *FULL, *WORD_FULL)
_constants: dict[int, Scalar] = {}


def signed(number: int) -> int:
    """The number that BITS bits are in two's complement."""
    return number - (number & SIGN) * 2


def signed_word(number: int) -> int:
    """The number that WORD bits are in two's complement."""
    return number - (number & WORD_SIGN) * 2


def constant(number: int) -> Scalar:
    """The one number, modulo 2**BITS."""
    number &= MASK
    found = _constants.get(number)
    if found is None:
        word = number & WORD_MASK
        s, ws = signed(number), signed_word(word)
        found = Scalar(number, 0, number, number, s, s, word, word, ws, ws)
        if len(_constants) < 4096:
            _constants[number] = found
    return found


def unsigned_upto(bits: int) -> Scalar:
    """Any number of that many bits: what a load of a byte, a half or a word leaves."""
    return _LOADED[bits]


def between(low: int, high: int) -> Scalar:
    """Any number from `low` to `high`, both unsigned."""
    known = made((0, MASK), (low, high, SMIN, SMAX), WORD_FULL)
    assert known
    return known


def signed_between(low: int, high: int) -> Scalar:
    """Any number from `low` to `high`, both signed."""
    known = made((0, MASK), (0, MASK, low, high), WORD_FULL)
    assert known
    return known


def made(known: tuple[int, int], range: Range, word: Range) -> Scalar | None:
    """The Scalar of a tnum, the ranges of the whole and those of the lower half, each made as narrow as the others
    allow; None where no number fits."""
    (value, mask), (umin, umax, smin, smax), (wumin, wumax, wsmin, wsmax) = known, range, word
    if not mask:
        number = constant(value)
        fits = (umin <= value <= umax and smin <= number.smin <= smax
                and wumin <= number.wumin <= wumax and wsmin <= number.wsmin <= wsmax)  # fmt: skip
        return number if fits else None
    for _ in (1, 2, 3):
        before = (value, mask, umin, umax, smin, smax, wumin, wumax, wsmin, wsmax)
        umin, umax, smin, smax = _by_bits(value, mask, umin, umax, smin, smax, SIGN)
        word_value, word_mask = value & WORD_MASK, mask & WORD_MASK
        wumin, wumax, wsmin, wsmax = _by_bits(word_value, word_mask, wumin, wumax, wsmin, wsmax, WORD_SIGN)
        wumin, wumax, wsmin, wsmax = _word_by_whole(umin, umax, smin, smax, wumin, wumax, wsmin, wsmax)
        wumin, wumax, wsmin, wsmax = _by_each_other(wumin, wumax, wsmin, wsmax, WORD_MASK, WORD_SIGN)
        umin, umax, smin, smax = _by_each_other(umin, umax, smin, smax, MASK, SIGN)
        umin, umax, smin, smax = _whole_by_word(umin, umax, smin, smax, wumin, wumax, wsmin, wsmax)
        umin, umax, smin, smax = _by_each_other(umin, umax, smin, smax, MASK, SIGN)
        if umin > umax or smin > smax or wumin > wumax or wsmin > wsmax:
            return None
        found = _bits_by_range(value, mask, umin, umax, wumin, wumax)
        if found is None:
            return None
        value, mask = found
        if not mask:
            return made((value, 0), (umin, umax, smin, smax), (wumin, wumax, wsmin, wsmax))
        if before == (value, mask, umin, umax, smin, smax, wumin, wumax, wsmin, wsmax):
            break
    return Scalar(value, mask, umin, umax, smin, smax, wumin, wumax, wsmin, wsmax)


def _by_bits(value: int, mask: int, umin: int, umax: int, smin: int, smax: int, sign: int) -> Range:
    """Ranges narrowed by what is known of the bits: the least number has 0 wherever a bit is unknown, the greatest 1,
    and the sign the other way round."""
    low, high = value | mask & sign, value | mask & ~sign
    return (max(umin, value), min(umax, value | mask),
            max(smin, low - (low & sign) * 2), min(smax, high - (high & sign) * 2))  # fmt: skip


def _by_each_other(umin: int, umax: int, smin: int, smax: int, all_bits: int, sign: int) -> Range:
    """Unsigned and signed range of the same number narrowed by each other: where all of one is on one side of the
    sign's border, it is a range of the other too; where both cross it, one end of the unsigned range may be cut off by
    the gap that the signed one leaves (from smax + 1 to smin + 2**bits - 1)."""
    if umax < sign or umin >= sign:
        smin = max(smin, umin - (umin & sign) * 2)
        smax = min(smax, umax - (umax & sign) * 2)
    if smin >= 0 or smax < 0:
        umin = max(umin, smin & all_bits)
        umax = min(umax, smax & all_bits)
    elif umin > smax:
        umin = max(umin, smin & all_bits)
        smin, smax = max(smin, umin - (umin & sign) * 2), min(smax, umax - (umax & sign) * 2)
    elif umax < smin & all_bits:
        umax = min(umax, smax)
        smin, smax = max(smin, 0), min(smax, umax)
    return umin, umax, smin, smax


def _word_by_whole(umin: int, umax: int, smin: int, smax: int,
                   wumin: int, wumax: int, wsmin: int, wsmax: int) -> Range:  # fmt: skip
    """The lower half's ranges narrowed where all numbers of the whole have the same upper half."""
    if umin >> WORD == umax >> WORD:
        wumin, wumax = max(wumin, umin & WORD_MASK), min(wumax, umax & WORD_MASK)
    low, high = signed_word(smin & WORD_MASK), signed_word(smax & WORD_MASK)
    if smin >> WORD == smax >> WORD:
        wumin, wumax = max(wumin, smin & WORD_MASK), min(wumax, smax & WORD_MASK)
        if low <= high:
            wsmin, wsmax = max(wsmin, low), min(wsmax, high)
    elif (smin >> WORD) + 1 == smax >> WORD and low < 0 <= high:
        wsmin, wsmax = max(wsmin, low), min(wsmax, high)  # numbers around a border of upper halves
    return wumin, wumax, wsmin, wsmax


def _whole_by_word(umin: int, umax: int, smin: int, smax: int,
                   wumin: int, wumax: int, wsmin: int, wsmax: int) -> Range:  # fmt: skip
    """The whole's ranges narrowed by the lower half's: the least number has its upper half and at least wumin below."""
    umin, umax = max(umin, umin & ~WORD_MASK | wumin), min(umax, umax & ~WORD_MASK | wumax)
    smin, smax = max(smin, smin & ~WORD_MASK | wumin), min(smax, smax & ~WORD_MASK | wumax)
    if smin >= WORD_SMIN and smax <= WORD_SMAX:
        smin, smax = max(smin, wsmin), min(smax, wsmax)
    return umin, umax, smin, smax


def _bits_by_range(value: int, mask: int, umin: int, umax: int, wumin: int, wumax: int) -> tuple[int, int] | None:
    """The tnum, with the bits that all numbers of the unsigned ranges have in common; None where they contradict it."""
    if umin > umax or wumin > wumax:
        return None
    differing = spread(umin ^ umax)
    if (value ^ umin) & ~mask & ~differing & MASK:
        return None
    value, mask = value | umin & ~differing & mask, mask & differing
    differing = spread(wumin ^ wumax)
    if (value ^ wumin) & ~mask & ~differing & WORD_MASK:
        return None
    known = mask & ~differing & WORD_MASK
    return value | wumin & known, mask & ~known


def word_of(a: Scalar) -> Scalar:
    """What is left of a number when its upper half is made 0."""
    return zero_extended(a.word_tnum, a.word_range)


def zero_extended(known: tuple[int, int], word: Range) -> Scalar:
    """A sub-register's new value, with zeros above it. The parts must fit some number."""
    result = made(known, (word[0], word[1], SMIN, SMAX), word)
    return result if result is not None else made(known, FULL, WORD_FULL) or UNKNOWN


_LOADED = {bits: made((0, (1 << bits) - 1), FULL, WORD_FULL) or UNKNOWN for bits in (8, 16, 32, 64) if bits <= BITS}
