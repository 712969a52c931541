"""Atomic operations on map values, on the stack and in packets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from bpfnic.spec import addresses
from tools.vectors.rfc import ARITHMETIC, BASE, MOVE, changed, unsigned
from tools.vectors.tables import FRAME, PAIRS, WIDTHS, WRAPS, document, table

FETCHING = {"add": "+=", "or": "|=", "and": "&=", "xor": "^="}
ATOMIC_EDGES = (0, 1, 2**64 - 1, 2**63, 2**63 - 1, 2**31, 2**31 - 1, 2**32 - 1, 2**64 - 2**31, 0x0123456789ABCDEF)


def cells(*values: int) -> str:
    """Map memory that holds these 64-bit numbers."""
    return b"".join(value.to_bytes(8, "little") for value in values).hex()


EDGE_PAIRS = list(itertools.product(ATOMIC_EDGES, ATOMIC_EDGES))


def forms(width: int) -> tuple[str, str, str]:
    """How the assembler writes them: registers, the cell's type, the end of a name."""
    return ("r", "u64", "_64") if width == 64 else ("w", "u32", "32_32")


def on_edges(width: int) -> Iterable[str]:
    """One cell for each operation, with the same numbers."""
    w, cell, suffix = forms(width)
    begin = "r1 = $map ll\nr0 = $a ll\nr2 = $b ll\n"
    fill = "".join(f"*(u64 *)(r1 + {8 * i}) = r0\n" for i in range(5))
    text = "".join(f"lock *({cell} *)(r1 + {8 * i}) {sign} {w}2\n" for i, sign in enumerate(FETCHING.values()))
    functions = [BASE[sign] for sign in FETCHING.values()]
    lines = [((a, b), (cells(*(changed(a, f(a, b, width), width) for f in functions), a), b)) for a, b in EDGE_PAIRS]
    yield table(f"atomics{width}", "5.3", f"{begin}{fill}{text}r0 = 0\nexit", ("a", "b"), ("map", "r2"), lines)
    text = "".join(f"r{i + 3} = r2\n{w}{i + 3} = atomic_fetch_{name}(({cell} *)(r1 + {8 * i}), {w}{i + 3})\n"
                   for i, name in enumerate(FETCHING))  # fmt: skip
    text += f"r7 = r2\n{w}7 = xchg{suffix}(r1 + 32, {w}7)\nr0 = 0\nexit"
    functions = [*functions, MOVE["="]]
    fetched = [f"r{i + 3}" for i in range(5)]
    fetching = [
        ((a, b), (cells(*(changed(a, f(a, b, width), width) for f in functions)), *[unsigned(a, width)] * 5))
        for a, b in EDGE_PAIRS
    ]
    yield table(f"fetching_atomics{width}", "5.3", begin + fill + text, ("a", "b"), ("map", *fetched), fetching)
    begin = "r0 = $compare ll\nr2 = $new ll\nr3 = $old ll\nr1 = $map ll\n*(u64 *)(r1 + 8) = r3\n"
    text = f"{w}0 = cmpxchg{suffix}(r1 + 8, {w}0, {w}2)\nexit"

    def exchange(old: int, compare: int, new: int) -> tuple[str, int, int]:
        hit = unsigned(old, width) == unsigned(compare, width)
        return cells(0, changed(old, new, width) if hit else old), unsigned(old, width), new

    triples = [(old, compare, new) for old, compare in EDGE_PAIRS for new in (0x1122334455667788, 2**64 - 2)]
    exchanges = [(triple, exchange(*triple)) for triple in triples]
    yield table(f"cmpxchg{width}_of_edges", "5.3", begin + text, ("old", "compare", "new"), ("map", "r0", "r2"),
                exchanges)  # fmt: skip


def on_registers(width: int) -> Iterable[str]:
    """Each register as base and as source. r0 at the end is what was fetched."""
    w, cell, suffix = forms(width)
    show = "*(u64 *)(r10 - 8) = r$src\nr0 = *(u64 *)(r10 - 8)\nexit"
    old, value = 0x8877665544332211, 0x0F0F0F0F
    for name, sign in FETCHING.items():
        new = changed(old, BASE[sign](old, value, width), width)
        begin = "r$base = $map ll\nr$src = $value\n"
        text = f"{begin}lock *({cell} *)(r$base + 8) {sign} {w}$src\n{show}"
        lines = [((base, src, value, cells(0, old)), (cells(0, new), value)) for base, src in PAIRS]
        yield table(f"atomic_{name}{width}_registers", "5.3", text, ("base", "src", "value", "map"), ("map", "r0"),
                    lines)  # fmt: skip
        text = f"{begin}{w}$src = atomic_fetch_{name}(({cell} *)(r$base + 8), {w}$src)\n{show}"
        lines = [(left, (right[0], unsigned(old, width))) for left, right in lines]
        yield table(f"atomic_fetch_{name}{width}_registers", "5.3", text, ("base", "src", "value", "map"),
                    ("map", "r0"), lines)  # fmt: skip
    text = f"r$base = $map ll\nr$src = $value\n{w}$src = xchg{suffix}(r$base + 8, {w}$src)\n{show}"
    xchg = [((base, src, value, cells(0, old)), (cells(0, changed(old, value, width)), unsigned(old, width)))
            for base, src in PAIRS]  # fmt: skip
    yield table(f"xchg{width}_registers", "5.3", text, ("base", "src", "value", "map"), ("map", "r0"), xchg)
    pairs = [(1 + i, 1 + (i + 3) % 9) for i in range(9)]  # r0 is what it compares with
    text = f"r$base = $map ll\nr$src = $value\nr0 = 5\n{w}0 = cmpxchg{suffix}(r$base + 8, {w}0, {w}$src)\nexit"
    hits = [((base, src, value, cells(0, was)), (cells(0, changed(was, value, width) if was == 5 else was),
             unsigned(was, width))) for base, src in pairs for was in (5, 6)]  # fmt: skip
    yield table(f"cmpxchg{width}_registers", "5.3", text, ("base", "src", "value", "map"), ("map", "r0"), hits)


def places() -> Iterable[str]:
    """On the stack and in packets too, naturally aligned everywhere."""
    data = addresses.PACKET + addresses.HEADROOM
    windows = ((addresses.STACK, addresses.STACK_TOP), (data, data + len(FRAME)))
    for width in (64, 32):
        size = width // 8
        lines: list[tuple[Sequence[object], Sequence[object]]] = []
        for start, end in windows:
            lines += [((f"{start + at:#x}", "+0", FRAME.hex()), ("MISALIGNED" if at % size else "-",))
                      for at in range(2 * size)]  # fmt: skip
            lines += [((f"{end - size:#x}", "+0", FRAME.hex()), ("-",))]
            lines += [((f"{address:#x}", "+0", FRAME.hex()), ("MEMORY_ACCESS",))
                      for address in (start - size, start - 1, end - size + 1, end)]  # fmt: skip
        lines += [((f"{addresses.CONTEXT + at:#x}", "+0", FRAME.hex()), ("MEMORY_ACCESS",)) for at in (0, 1, 8, 56)]
        lines += [((f"{base:#x}", f"{offset:+}", FRAME.hex()), ("MEMORY_ACCESS",)) for base, offset in WRAPS]
        lines += [((base, f"{offset:+}", FRAME.hex()), (trap,)) for base, offset, trap in (
            ("$map", -size, "MEMORY_ACCESS"), ("$map", 0, "-"), ("$map", 1, "MISALIGNED"), ("$map_end", -size, "-"),
            ("$map_end", 1 - size, "MEMORY_ACCESS"), ("$map_end", 0, "MEMORY_ACCESS"))]  # fmt: skip
        w, cell, suffix = forms(width)
        for name, operation in (("lock", f"lock *({cell} *)(r1 $offset) += {w}2"),
                                ("fetch", f"{w}2 = atomic_fetch_xor(({cell} *)(r1 $offset), {w}2)"),
                                ("cmpxchg", f"{w}0 = cmpxchg{suffix}(r1 $offset, {w}0, {w}2)")):  # fmt: skip
            text = f"r0 = 1\nr2 = 1\nr1 = $base ll\n{operation}\nr0 = 2\nexit"
            yield table(f"atomic{width}_places_{name}", "-", text, ("base", "offset", "packet"), ("trap",), lines)


def others() -> Iterable[str]:
    """Every operation where it traps, shorter than in `places`."""
    stack = addresses.STACK
    for width in WIDTHS:
        w, cell, suffix = forms(width)
        wrong = ((stack, 0, "-"), (stack, 2, "MISALIGNED"), (stack, -2, "MEMORY_ACCESS"), (addresses.STACK_TOP, 0,
                 "MEMORY_ACCESS"), (addresses.CONTEXT, 0, "MEMORY_ACCESS"))  # fmt: skip
        for name, operation, signs in (
            ("lock", f"lock *({cell} *)(r1 $offset) $op {w}2", FETCHING.values()),
            ("fetch", f"{w}2 = atomic_fetch_$op(({cell} *)(r1 $offset), {w}2)", FETCHING),
            ("xchg", f"{w}2 = xchg{suffix}(r1 $offset, {w}2)", ("xchg",)),
        ):
            lines = [((sign, f"{base:#x}", f"{offset:+}"), (trap,)) for sign in signs for base, offset, trap in wrong]
            text = f"r0 = 1\nr2 = 1\nr1 = $base ll\n{operation}\nr0 = 2\nexit"
            yield table(f"atomic{width}_traps_{name}", "-", text, ("op", "base", "offset"), ("trap",), lines)


def on_the_stack(width: int) -> str:
    """Every operation on one cell of the stack, one after the other; its neighbours stay."""
    w, cell, suffix = forms(width)
    text = "r1 = $a ll\nr2 = $b ll\n" + "".join(f"*(u64 *)(r10 - {8 * i}) = r1\n" for i in (1, 2, 3))
    text += "".join(f"lock *({cell} *)(r10 - 16) {sign} {w}2\n" for sign in ("+=", "&=", "|=", "^="))
    text += "".join(f"r{i} = r2\n" for i in range(3, 9))
    text += "".join(f"{w}{i + 3} = atomic_fetch_{name}(({cell} *)(r10 - 16), {w}{i + 3})\n"
                    for i, name in enumerate(("add", "or", "xor", "and")))  # fmt: skip
    text += f"{w}7 = xchg{suffix}(r10 - 16, {w}7)\nr0 = r2\n{w}0 = cmpxchg{suffix}(r10 - 16, {w}0, {w}1)\n"
    text += "".join(f"r{register} = *(u64 *)(r10 - {8 * i})\n" for register, i in ((8, 1), (2, 2), (9, 3)))
    lines = []
    for a, b in EDGE_PAIRS:
        cell_now, seen = a, []
        for sign in ("+=", "&=", "|=", "^="):
            cell_now = changed(cell_now, BASE[sign](cell_now, b, width), width)
        for sign in ("+=", "|=", "^=", "&=", "="):
            seen.append(unsigned(cell_now, width))
            cell_now = changed(cell_now, ARITHMETIC[sign](cell_now, b, width), width)
        seen.append(unsigned(cell_now, width))  # it is b: the exchange hits
        lines.append(((a, b), [*seen[:5], seen[5], a, changed(cell_now, a, width), a]))
    names = ("r3", "r4", "r5", "r6", "r7", "r0", "r8", "r2", "r9")
    return table(f"atomics{width}_on_the_stack", "5.3", text + "exit", ("a", "b"), names, lines)


def atomics() -> str:
    """The file edges_atomics.vec."""
    tests = [*(test for width in WIDTHS for test in on_edges(width)),
             *(test for width in WIDTHS for test in on_registers(width))]  # fmt: skip
    return document("""
# Atomic operations (RFC 9669 section 5.3) on map values: pairs of edges, every register, 32-bit ones beside what must
# stay.""", tests)


def local_atomics() -> str:
    """The file edges_local_atomics.vec."""
    return document("""
# Atomic operations on the stack and in packets: pairs of edges, alignment, and both ends of each window.""",
                    [*map(on_the_stack, WIDTHS), *places(), *others()])  # fmt: skip
