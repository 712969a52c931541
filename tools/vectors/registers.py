"""Each of r0 to r9 as dst and as src of every row that has them, both the same, and r10 as src."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from bpfnic.spec import addresses, isa
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Legal
from tools.vectors.rfc import (
    BASE,
    CONDITIONS,
    DIVIDE,
    JUMPS,
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
from tools.vectors.tables import FRAME, PAIRS, SAME, TYPES, UNSIGNED_TYPES, VALUES, WIDTHS, document, r, table

LOAD_ALL = "".join(f"r{i} = {value:#x} ll\n" for i, value in enumerate(VALUES))
NAMES = [f"r{i}" for i in range(10)]


def run(pairs: Sequence[tuple[int, int | None]], function: Function, width: int, other: int) -> list[int]:
    """r0 to r9 after `function` on each pair (dst, src); src None: `other`."""
    values = list(VALUES)
    for dst, src in pairs:
        values[dst] = result(function, values[dst], other if src is None else values[src], width)
    return values


def arithmetic_on_all(name: str, functions: dict[str, Function], width: int) -> Iterable[str]:
    def test(kind: str, section: str, pairs: Sequence[tuple[int, int | None]], last: str, other: int = 0) -> str:
        sources = [last if src is None else f"{r(width)}{src}" for _, src in pairs]
        text = "".join(f"{r(width)}{dst} $op {source}\n" for (dst, _), source in zip(pairs, sources, strict=True))
        lines = (((sign,), run(pairs, function, width, other)) for sign, function in functions.items())
        return table(f"{name}{width}_{kind}", section, f"{LOAD_ALL}{text}exit", ("op",), NAMES, lines)

    yield test("registers", "4.1", PAIRS, "")
    yield test("same_register", "4.1", SAME, "")
    yield test("register_and_imm", "4.1", [(i, None) for i in range(10)], "13", 13)
    yield test("from_frame_pointer", "-", [(i, None) for i in range(10)], f"{r(width)}10", addresses.STACK_TOP)


def extensions(width: int) -> Iterable[str]:
    for name, pairs in (("", PAIRS), ("_same_register", SAME)):
        text = "".join(f"{r(width)}{dst} = (s$bits){r(width)}{src}\n" for dst, src in pairs)
        lines = (
            ((bits,), run(pairs, lambda a, b, _, bits=bits: signed(b, bits), width, 0))  # type: ignore[misc]
            for bits in (8, 16, 32)[: 3 if width == 64 else 2]
        )
        yield table(f"movsx{width}_registers{name}", "4.1", f"{LOAD_ALL}{text}exit", ("bits",), NAMES, lines)


def one_register() -> Iterable[str]:
    for width in WIDTHS:
        text = "".join(f"{r(width)}{i} = -{r(width)}{i}\n" for i in range(10))
        lines = [((), [unsigned(-value, width) for value in VALUES])]
        yield table(f"neg{width}_registers", "4.1", f"{LOAD_ALL}{text}exit", (), NAMES, lines)
    text = "".join(f"r{i} = $swap r{i}\n" for i in range(10))
    swaps = (
        ((f"{name}{bits}",), [swapped(name, value, bits) for value in VALUES])
        for name, bits in itertools.product(SWAPS, (16, 32, 64))
    )
    yield table("byte_swap_registers", "4.2", f"{LOAD_ALL}{text}exit", ("swap",), NAMES, swaps)


def branches(width: int, sign: str, immediate: bool) -> str:
    """r0 is 1 if each branch went where it must."""
    taken, text = CONDITIONS[sign], LOAD_ALL
    for dst, src in PAIRS + ([] if immediate else SAME):
        other = VALUES[src] if not immediate else (VALUES[dst] if dst % 2 else src)
        other = signed(other, 32) if immediate else other
        branch = f"if {r(width)}{dst} {sign} {other if immediate else f'{r(width)}{src}'} goto"
        text += f"{branch} +1\ngoto bad\n" if taken(VALUES[dst], other, width) else f"{branch} bad\n"
    text += "r0 = 1\ngoto out\nbad:\nr0 = 2\nout:\nexit"
    name = f"{JUMPS[sign]}{width}_{'imm' if immediate else 'reg'}_registers"
    return table(name, "4.3", text, (), ("r0",), [((), (1,))])


def memory_registers() -> Iterable[str]:
    """Base and value; r0 is 1 if each load found what was stored."""
    end = "r0 = 1\ngoto out\nbad:\nr0 = 2\nout:\nexit"
    load = store = constant = ""
    for base, value in PAIRS + SAME:
        place = -8 * (base + 1)
        load += f"*(u64 *)(r10 {place}) = {40 + base}\nr{base} = r10\n"
        load += f"r{value} = *($type *)(r{base} {place})\nif r{value} != {40 + base} goto bad\n"
    for base, value in PAIRS:
        place, found = -8 * (base + 1), (base + 1) % 10
        clear, look = f"*(u64 *)(r10 {place}) = 0\nr{base} = r10\n", f"r{found} = *(u64 *)(r10 {place})\n"
        look += f"if r{found} != {40 + base} goto bad\n"
        store += f"{clear}r{value} = {40 + base}\n*($type *)(r{base} {place}) = r{value}\n{look}"
        constant += f"{clear}*($type *)(r{base} {place}) = {40 + base}\n{look}"
    types = UNSIGNED_TYPES
    yield table("load_registers", "5.1", load + end, ("type",), ("r0",), [((kind,), (1,)) for kind in TYPES])
    yield table("stx_registers", "5.1", store + end, ("type",), ("r0",), [((kind,), (1,)) for kind in types])
    yield table("st_registers", "5.1", constant + end, ("type",), ("r0",), [((kind,), (1,)) for kind in types])
    text = "*($type *)(r10 - 8) = r10\nr0 = *(u64 *)(r10 - 8)\nexit"
    lines = [((f"u{bits}",), (unsigned(addresses.STACK_TOP, bits),)) for bits in (8, 16, 32, 64)]
    yield table("store_of_the_frame_pointer", "-", text, ("type",), ("r0",), lines)
    text = "r$index = $at\nr0 = *(u8 *)skb[r$index + 1]\nexit"
    for name, section, indexes in (("", "5.5", (0, 1, 2, 3, 4, 5, 7, 8, 9)), ("_context", "-", (6,))):
        # r6 is the context there, which Linux insists on
        indexed = [((index, 3 * index, FRAME.hex()), (FRAME[3 * index + 1],)) for index in indexes]
        yield table(f"ld_ind_registers{name}", section, text, ("index", "at", "packet"), ("r0",), indexed)


def read_only() -> str:
    """r10 where a row would write it: an illegal encoding, wherever it comes from."""
    lines = []
    for row in isa.ROWS:
        fields = {name: getattr(row, name) for name in ("dst", "src", "offset", "imm", "next_imm")}
        for field in ("dst", "src"):
            if fields[field] is Legal.WRITTEN:
                held = {name: 0 if isinstance(value, Legal) else value for name, value in fields.items()}
                code = Instruction(row.opcode, **held | {field: isa.FRAME_POINTER}).encode()
                lines.append(((code.hex(),), ("ILLEGAL_INSTRUCTION", 1, f"# {row.name}")))
    text = "r0 = 1\nraw $code\nexit"
    return table("the_frame_pointer_is_read_only", "4.1", text, ("code",), ("trap", "pc", "#"), lines)


def registers() -> str:
    """The file edges_registers.vec."""
    base = BASE | SHIFTS | MULTIPLY | MOVE
    return document("""
# Every register as destination and as source of every row that has them, both the same too, and r10 as a source.""",
          [*(test for width in WIDTHS for test in arithmetic_on_all("arithmetic", base, width)),
           *(test for width in WIDTHS for test in arithmetic_on_all("division", DIVIDE, width)),
           *(test for width in WIDTHS for test in extensions(width)),
           *one_register(),
           *(branches(*form) for form in itertools.product(WIDTHS, CONDITIONS, (False, True))),
           *memory_registers(), read_only()])  # fmt: skip
