"""Arithmetic, byte swaps, constants and jumps on every pair of edges."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from tools.vectors.rfc import (
    BASE,
    CONDITIONS,
    DIVIDE,
    MOVE,
    MULTIPLY,
    SHIFTS,
    SWAPS,
    Function,
    result,
    signed,
    swapped,
    unsigned,
)
from tools.vectors.tables import COUNTS, EDGES, IMMEDIATE_COUNTS, IMMEDIATES, WIDTHS, document, r, table


def operations(name: str, functions: dict[str, Function], width: int, others: Sequence[int], immediate: bool) -> str:
    """Each pair of edges through all of these functions, whose results come out in r0 and r2 up."""
    registers = (0, *range(2, len(functions) + 1)) if immediate else (0, *range(3, len(functions) + 2))
    text = "r1 = $a ll\n" + ("" if immediate else "r2 = $b ll\n")
    for register, sign in zip(registers, functions, strict=True):
        text += f"r{register} = r1\n{r(width)}{register} {sign} {'$b' if immediate else r(width) + '2'}\n"
    lines = (
        ((a, b), [result(function, a, b, width) for function in functions.values()])
        for a, b in itertools.product(EDGES, others)
    )
    names = [f"r{register}" for register in registers]
    return table(f"{name}{width}_{'imm' if immediate else 'reg'}", "4.1", text + "exit", ("a", "b"), names, lines)


def both(
    name: str, functions: dict[str, Function], others: Sequence[int], immediates: Sequence[int]
) -> Iterable[str]:
    """Register and immediate form of both widths."""
    for width in WIDTHS:
        yield operations(name, functions, width, (*EDGES, *others), immediate=False)
        yield operations(name, functions, width, immediates, immediate=True)


def arithmetic() -> str:
    """The file edges_arithmetic.vec."""
    tests = [
        *both("base", BASE | MULTIPLY | MOVE, (), IMMEDIATES),
        *both("shifts", SHIFTS, COUNTS, IMMEDIATE_COUNTS),
        *(operations("masked_shifts", SHIFTS, width, (width, width + 1, 127, -1, -31), True) for width in WIDTHS),
        *alone(),
    ]
    return document("""
# Arithmetic (RFC 9669 section 4.1): every pair of edges through each operation, on registers and on immediates.""",
                    tests)  # fmt: skip


def division() -> str:
    """The file edges_division.vec. What Linux refuses, an immediate 0, comes last."""
    immediates = [*(each for each in (*IMMEDIATES, 3, -3, 13) if each), 0]
    return document("""
# Division (RFC 9669 section 4.1): by zero, of the smallest number by -1, across the 32-bit line, both roundings.""",
                    both("division", DIVIDE, COUNTS, immediates))  # fmt: skip


def alone() -> Iterable[str]:
    """Operations on one register: negation, sign extensions, byte swaps, constants."""
    text = "r1 = $a ll\nr0 = r1\nr0 = -r0\nr2 = r1\nw2 = -w2\n"
    text += "".join(f"r{3 + i} = (s{bits})r1\n" for i, bits in enumerate((8, 16, 32)))
    text += "".join(f"w{6 + i} = (s{bits})w1\n" for i, bits in enumerate((8, 16)))
    edges = EDGES + (0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x8080, 0x80807F7F7FFF8080)

    def row(a: int) -> list[int]:
        wide = [unsigned(signed(a, bits), 64) for bits in (8, 16, 32)]
        narrow = [unsigned(signed(a, bits), 32) for bits in (8, 16)]
        return [unsigned(-a, 64), unsigned(-a, 32), *wide, *narrow]

    names = [f"r{register}" for register in (0, 2, 3, 4, 5, 6, 7)]
    yield table("negation_and_extension", "4.1", text + "exit", ("a",), names, (((a,), row(a)) for a in edges))
    yield table("constants", "5.4", "r0 = $a ll\nexit", ("a",), ("r0",), (((a,), (a,)) for a in edges))
    for name in SWAPS:
        text = "r1 = $a ll\n"
        for register, bits in ((0, 16), (2, 32), (3, 64)):
            text += f"r{register} = r1\nr{register} = {name}{bits} r{register}\n"
        lines = (((a,), [swapped(name, a, bits) for bits in (16, 32, 64)]) for a in edges)
        yield table(f"{name}_of_edges", "4.2", text + "exit", ("a",), ("r0", "r2", "r3"), lines)


def conditions(width: int, immediate: bool) -> str:
    """Each branch that is taken sets its bit of r0."""
    text = "r1 = $a ll\n" + ("" if immediate else "r2 = $b ll\n") + "r0 = 0\n"
    for bit, sign in enumerate(CONDITIONS):
        other = "$b" if immediate else f"{r(width)}2"
        text += f"if {r(width)}1 {sign} {other} goto +1\ngoto +1\nr0 |= {1 << bit}\n"
    others = IMMEDIATES if immediate else EDGES
    lines = (
        ((a, b), [sum(1 << bit for bit, taken in enumerate(CONDITIONS.values()) if taken(a, b, width))])
        for a, b in itertools.product(EDGES, others)
    )
    name = f"conditions_of_edges{width}_{'imm' if immediate else 'reg'}"
    return table(name, "4.3", text + "exit", ("a", "b"), ("r0",), lines)


def backward(width: int, immediate: bool) -> str:
    """r0 is 1 where the branch backward is taken."""
    begin, other = ("", "$b") if immediate else ("r2 = $b ll\n", f"{r(width)}2")
    text = f"r1 = $a ll\n{begin}r0 = 1\ngoto +1\ngoto +2\nif {r(width)}1 $op {other} goto -2\nr0 = 2\nexit"
    pairs = ((1, 1), (1, 2), (2, 1), (2**64 - 1, 1), (1, -1))
    lines = (
        ((sign, a, b), (1 if taken(a, b, width) else 2,))
        for (sign, taken), (a, b) in itertools.product(CONDITIONS.items(), pairs)
    )
    name = f"conditions_backward{width}_{'imm' if immediate else 'reg'}"
    return table(name, "4.3", text, ("op", "a", "b"), ("r0",), lines)


def jumps() -> str:
    """The file edges_jumps.vec."""
    forms = list(itertools.product(WIDTHS, (False, True)))
    bits = ", ".join(f"{1 << bit} {sign}" for bit, sign in enumerate(CONDITIONS))
    return document(f"""
# Conditional jumps (RFC 9669 section 4.3) on every pair of edges, and backward. In conditions_of_edges, each branch
# that is taken sets a bit of r0: {bits}.""",
                    [*itertools.starmap(conditions, forms), *itertools.starmap(backward, forms)])  # fmt: skip
