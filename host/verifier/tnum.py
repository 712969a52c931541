"""Tristate numbers: what is known of a number's bits, as a pair (value, mask).

A bit that is 1 in `mask` is unknown, and 0 in `value`; otherwise it is as in `value`. A pair stands for all x with
x & ~mask == value. Numbers are unsigned, at most BITS wide. The operations are those of Vishwanathan, Shachnai,
Narayana and Nagarakatte, "Sound, Precise, and Fast Abstract Interpretation with Tristate Numbers" (CGO 2022); each is
proved in tests/formal/domain.py."""

from bpfnic.host.verifier.width import MASK

Tnum = tuple[int, int]

UNKNOWN: Tnum = (0, MASK)


def spread(number: int) -> int:
    """All bits up to the highest one of `number`."""
    return (1 << number.bit_length()) - 1


def add(a: Tnum, b: Tnum) -> Tnum:
    """A bit of the sum is known where both operands' are, and the carry into it is the same for the least and the
    greatest sum."""
    least = a[0] + b[0]
    greatest = least + a[1] + b[1]
    mask = ((least ^ greatest) | a[1] | b[1]) & MASK
    return least & ~mask & MASK, mask


def subtract(a: Tnum, b: Tnum) -> Tnum:
    """As `add`, with borrows."""
    difference = a[0] - b[0]
    mask = ((difference + a[1] ^ difference - b[1]) | a[1] | b[1]) & MASK
    return difference & ~mask & MASK, mask


def conjunction(a: Tnum, b: Tnum) -> Tnum:
    """a & b: 0 where either is."""
    value = a[0] & b[0]
    return value, (a[0] | a[1]) & (b[0] | b[1]) & ~value


def disjunction(a: Tnum, b: Tnum) -> Tnum:
    """a | b: 1 where either is."""
    value = a[0] | b[0]
    return value, (a[1] | b[1]) & ~value


def difference(a: Tnum, b: Tnum) -> Tnum:
    """a ^ b: known where both are."""
    mask = a[1] | b[1]
    return (a[0] ^ b[0]) & ~mask, mask


def multiply(a: Tnum, b: Tnum) -> Tnum:
    """Long multiplication: what is certain of `a` times `b`, and `b`'s uncertainty for each bit that may be 1."""
    certain = a[0] * b[0] & MASK
    doubt: Tnum = (0, 0)
    value, mask, other = a[0], a[1], b
    while value or mask:
        doubt = add(doubt, _doubt(value, mask, other))
        value, mask, other = value >> 1, mask >> 1, (other[0] << 1 & MASK, other[1] << 1 & MASK)
    return add((certain, 0), doubt)


def _doubt(value: int, mask: int, other: Tnum) -> Tnum:
    """The lowest bit of (value, mask) times `other`, less what is certain of it."""
    if value & 1:
        return 0, other[1]
    if mask & 1:
        return 0, other[0] | other[1]
    return 0, 0


def intersect(a: Tnum, b: Tnum) -> Tnum | None:
    """What is known of a number that both stand for; None where there is none."""
    if (a[0] ^ b[0]) & ~a[1] & ~b[1]:
        return None
    mask = a[1] & b[1]
    return (a[0] | b[0]) & ~mask, mask


def within(outer: Tnum, inner: Tnum) -> bool:
    """Whether every number of `inner` is one of `outer`."""
    return not (inner[1] & ~outer[1] or (inner[0] ^ outer[0]) & ~outer[1])
