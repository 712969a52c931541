"""What RFC 9669 says that arithmetic, byte swaps and conditions compute, on integers without a width: each formula says
what it cuts and where. Written from its text alone, for tests/data; nothing of ours is imported."""

from __future__ import annotations

import operator
from collections.abc import Callable
from fractions import Fraction
from math import trunc


def unsigned(value: int, bits: int) -> int:
    """RFC 9669 section 3.1's u16, u32, u64: modulo 2**bits."""
    return value % 2**bits


def signed(value: int, bits: int) -> int:
    """The same bits as a two's complement number (s16, s32, s64)."""
    return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)


# ---------------------------------------------------------------- section 4.1, arithmetic: f(dst, src, width)


def divide(a: int, b: int, bits: int) -> int:
    """Unsigned; by zero, 0."""
    a, b = unsigned(a, bits), unsigned(b, bits)
    return trunc(Fraction(a, b)) if b else 0


def divide_signed(a: int, b: int, bits: int) -> int:
    """Rounded towards zero; by zero, 0; the smallest number by -1 is itself."""
    a, b = signed(a, bits), signed(b, bits)
    if b == 0:
        return 0
    return a if (a, b) == (-(2 ** (bits - 1)), -1) else trunc(Fraction(a, b))


def modulo(a: int, b: int, bits: int) -> int:
    """Unsigned; by zero, dst (and in 32 bits, its upper half becomes zero)."""
    a, b = unsigned(a, bits), unsigned(b, bits)
    return a - b * trunc(Fraction(a, b)) if b else a


def modulo_signed(a: int, b: int, bits: int) -> int:
    """With the dividend's sign: a % b == a - b * trunc(a / b). By zero, dst; the smallest number by -1: 0."""
    a, b = signed(a, bits), signed(b, bits)
    return a - b * trunc(Fraction(a, b)) if b else a


Function = Callable[[int, int, int], int]
BASE: dict[str, Function] = {
    "+=": lambda a, b, bits: a + b,
    "-=": lambda a, b, bits: a - b,
    "|=": lambda a, b, bits: a | b,
    "&=": lambda a, b, bits: a & b,
    "^=": lambda a, b, bits: a ^ b,
}
SHIFTS: dict[str, Function] = {  # "Shift operations use a mask of 0x3F for 64-bit and 0x1F for 32-bit"
    "<<=": lambda a, b, bits: a * 2 ** (b % bits),
    ">>=": lambda a, b, bits: unsigned(a, bits) // 2 ** (b % bits),
    "s>>=": lambda a, b, bits: signed(a, bits) // 2 ** (b % bits),
}
MULTIPLY: dict[str, Function] = {"*=": lambda a, b, bits: a * b}
DIVIDE: dict[str, Function] = {"/=": divide, "s/=": divide_signed, "%=": modulo, "s%=": modulo_signed}
MOVE: dict[str, Function] = {"=": lambda a, b, bits: b}
ARITHMETIC = BASE | SHIFTS | MULTIPLY | DIVIDE | MOVE

def result(function: Function, a: int, b: int, bits: int) -> int:
    """A 32-bit operation takes the low halves and zeroes the upper half of dst (section 4.1)."""
    return unsigned(function(unsigned(a, bits), unsigned(b, bits), bits), bits)


# ---------------------------------------------------------------- section 4.2, byte swaps

SWAPS = ("le", "be", "bswap")


def swapped(name: str, value: int, bits: int) -> int:
    """On a little-endian machine LE cuts to the width, BE and BSWAP reverse the bytes too."""
    digits = unsigned(value, bits).to_bytes(bits // 8, "big")
    return int.from_bytes(digits if name == "le" else digits[::-1], "big")


# ---------------------------------------------------------------- section 4.3, conditions


def by(compare: Callable[[int, int], bool], cut: Callable[[int, int], int]) -> Callable[[int, int, int], bool]:
    return lambda a, b, bits: compare(cut(a, bits), cut(b, bits))


CONDITIONS: dict[str, Callable[[int, int, int], bool]] = {  # in the order of the bits that the tables show
    "==": by(operator.eq, unsigned),
    "!=": by(operator.ne, unsigned),
    ">": by(operator.gt, unsigned),
    ">=": by(operator.ge, unsigned),
    "<": by(operator.lt, unsigned),
    "<=": by(operator.le, unsigned),
    "s>": by(operator.gt, signed),
    "s>=": by(operator.ge, signed),
    "s<": by(operator.lt, signed),
    "s<=": by(operator.le, signed),
    "&": by(lambda a, b: a & b != 0, unsigned),
}

JUMPS = dict(zip(CONDITIONS, ("jeq", "jne", "jgt", "jge", "jlt", "jle", "jsgt", "jsge", "jslt", "jsle", "jset"),
                 strict=True))  # fmt: skip

# ---------------------------------------------------------------- section 5, memory


def bits_of(kind: str) -> int:
    """Of an access of type u8 … u64, s8 … s32."""
    return int(kind[1:])


def loaded(memory: bytes, at: int, kind: str) -> int:
    """Section 5: little-endian; MEMSX sign extends to 64 bits, MEM zero extends."""
    value = int.from_bytes(memory[at : at + bits_of(kind) // 8], "little")
    return unsigned(signed(value, bits_of(kind)), 64) if kind[0] == "s" else value


def stored(memory: bytes, at: int, kind: str, value: int) -> bytes:
    size = bits_of(kind) // 8
    return memory[:at] + unsigned(value, bits_of(kind)).to_bytes(size, "little") + memory[at + size :]


def changed(old: int, new: int, width: int) -> int:
    """A 64-bit cell of which the low `width` bits become those of `new`."""
    return old - unsigned(old, width) + unsigned(new, width)
