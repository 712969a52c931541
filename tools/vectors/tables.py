"""Tests in the format of tests/vectors.py, as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

WIDTHS = (64, 32)
EDGES = (
    0, 1, 2, 2**64 - 1, 2**63 - 1, 2**63, 2**63 + 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**64 - 2**31,
    2**64 - 2**31 - 1, 0x0123456789ABCDEF, 0xFEDCBA9876543210,
)  # fmt: skip
COUNTS = (7, 31, 32, 33, 63, 64, 65, 127, 2**32 + 5)
"""Shift counts around both widths, as the other operand of everything else too."""
IMMEDIATES = (0, 1, 2, -1, -2, 7, 10, 2**31 - 1, -(2**31), -(2**31) + 1, 0x12345678, -0x12345678)
IMMEDIATE_COUNTS = (0, 1, 7, 31, 32, 63)

UNSIGNED_TYPES = ("u8", "u16", "u32", "u64")
TYPES = (*UNSIGNED_TYPES, "s8", "s16", "s32")
FRAME = bytes(range(0x71, 0xB1))  # its bytes differ, and their signs too

WRAPS = ((0, 0), (0, -1), (0x7FFF, -0x8000), (2**32 - 1, 0), (2**64 - 1, 0), (2**64 - 1, 1), (2**64 - 8, 8),
         (2**64 - 0x100, 0x7FFF))  # fmt: skip
"""Bases and offsets that reach nothing, though they would if an address wrapped, or NULL were one."""

VALUES = [0x9E3779B97F4A7C15 * (i + 1) % 2**64 for i in range(10)]
"""What r0 to r9 hold."""
PAIRS = [(i, (i + 3) % 10) for i in range(10)]
"""Registers dst and src."""
SAME = [(i, i) for i in range(10)]

Lines = Iterable[tuple[Sequence[object], Sequence[object]]]
"""What is given and what is expected of each case."""


def show(value: object) -> str:
    """A cell."""
    if not isinstance(value, int):
        return str(value)
    return str(value) if -1000 < value < 1000 else f"{value:#x}"


def table(name: str, section: str, text: str, given: Sequence[str], expected: Sequence[str],
          lines: Lines) -> str:  # fmt: skip
    """One test; `given` and `expected` name the columns."""
    rows = [([*given], [*expected]), *(([*map(show, left)], [*map(show, right)]) for left, right in lines)]
    widths = [max(len(left[i]) for left, _ in rows) for i in range(len(given))]
    right_widths = [max(len(right[i]) for _, right in rows) for i in range(len(expected))]

    def line(left: list[str], right: list[str]) -> str:
        cells = [cell.ljust(width) for cell, width in zip(left, widths, strict=True)]
        results = [cell.ljust(width) for cell, width in zip(right, right_widths, strict=True)]
        return "    " + "  ".join([*cells, ":", *results]).rstrip()

    body = "\n".join(f"    {each.strip()}" for each in text.strip().splitlines())
    return "\n".join([f"test {name} {section}", body, "    ---", *(line(left, right) for left, right in rows)])


def document(comment: str, tests: Iterable[str]) -> str:
    """One file."""
    return "\n\n".join([f"{comment.strip()}\n# Written by tools/vectors.", *tests]) + "\n"


def r(width: int) -> str:
    """How the assembler calls registers of that width."""
    return "r" if width == 64 else "w"
