"""What arithmetic, byte swaps, conditions and atomics of RFC 9669 compute (sections 4.1 to 4.3 and 5.3).

Every function takes unsigned values of `width` bits; arithmetic may return any integer, of which the low `width` bits
are the result. There is no undefined result: division by zero, overflow and long shifts are as the RFC has them."""

from collections.abc import Callable

from bpfnic.spec.isa import Operation


def signed(value: int, width: int) -> int:
    """The value whose two's complement representation in `width` bits is the low `width` bits of `value`."""
    value &= (1 << width) - 1
    return value - (1 << width) if value >> width - 1 else value


def divide_truncated(a: int, b: int) -> int:
    """Quotient rounded towards zero, as in C (Python's // rounds down)."""
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def signed_divide(a: int, b: int, width: int) -> int:
    """The most negative number divided by -1 is one too large, and wraps to itself. By zero: 0."""
    return divide_truncated(signed(a, width), signed(b, width)) if b else 0


def signed_modulo(a: int, b: int, width: int) -> int:
    """The remainder of `signed_divide`: it has the dividend's sign (-13 % 3 == -1). By zero: the dividend."""
    if b == 0:
        return a
    a, b = signed(a, width), signed(b, width)
    return a - b * divide_truncated(a, b)


def swap_bytes(a: int, width: int) -> int:
    return int.from_bytes((a & (1 << width) - 1).to_bytes(width // 8, "little"), "big")


# dst = f(dst, operand, width); MOVSX, which needs its offset, is in the interpreter.
ARITHMETIC: dict[Operation, Callable[[int, int, int], int]] = {
    Operation.ADD: lambda a, b, width: a + b,
    Operation.SUB: lambda a, b, width: a - b,
    Operation.MUL: lambda a, b, width: a * b,
    Operation.DIV: lambda a, b, width: a // b if b else 0,
    Operation.SDIV: signed_divide,
    Operation.OR: lambda a, b, width: a | b,
    Operation.AND: lambda a, b, width: a & b,
    Operation.LSH: lambda a, b, width: a << (b & width - 1),
    Operation.RSH: lambda a, b, width: a >> (b & width - 1),
    Operation.ARSH: lambda a, b, width: signed(a, width) >> (b & width - 1),
    Operation.NEG: lambda a, b, width: -a,
    Operation.MOD: lambda a, b, width: a % b if b else a,
    Operation.SMOD: signed_modulo,
    Operation.XOR: lambda a, b, width: a ^ b,
    Operation.MOV: lambda a, b, width: b,
    Operation.LE: lambda a, b, width: a,  # the machine is little-endian: nothing but the cut to `width`
    Operation.BE: lambda a, b, width: swap_bytes(a, width),
    Operation.BSWAP: lambda a, b, width: swap_bytes(a, width),
}

# Whether the branch is taken: f(dst, operand, width).
CONDITION: dict[Operation, Callable[[int, int, int], bool]] = {
    Operation.JEQ: lambda a, b, width: a == b,
    Operation.JNE: lambda a, b, width: a != b,
    Operation.JGT: lambda a, b, width: a > b,
    Operation.JGE: lambda a, b, width: a >= b,
    Operation.JLT: lambda a, b, width: a < b,
    Operation.JLE: lambda a, b, width: a <= b,
    Operation.JSET: lambda a, b, width: a & b != 0,
    Operation.JSGT: lambda a, b, width: signed(a, width) > signed(b, width),
    Operation.JSGE: lambda a, b, width: signed(a, width) >= signed(b, width),
    Operation.JSLT: lambda a, b, width: signed(a, width) < signed(b, width),
    Operation.JSLE: lambda a, b, width: signed(a, width) <= signed(b, width),
}

# What memory holds afterwards: f(old, src); compare and exchange, which needs r0, is in the interpreter.
ATOMIC: dict[Operation, Callable[[int, int], int]] = {
    Operation.ATOMIC_ADD: lambda old, src: old + src,
    Operation.ATOMIC_OR: lambda old, src: old | src,
    Operation.ATOMIC_AND: lambda old, src: old & src,
    Operation.ATOMIC_XOR: lambda old, src: old ^ src,
    Operation.ATOMIC_FETCH_ADD: lambda old, src: old + src,
    Operation.ATOMIC_FETCH_OR: lambda old, src: old | src,
    Operation.ATOMIC_FETCH_AND: lambda old, src: old & src,
    Operation.ATOMIC_FETCH_XOR: lambda old, src: old ^ src,
    Operation.ATOMIC_XCHG: lambda old, src: src,
}
