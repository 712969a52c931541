"""Reads tests/data/*.vec: programs with what they must do, which every engine runs.

A file is a sequence of tests, each a table of cases for one small program:

    # a comment
    test add64 4.1
        r0 = $a ll
        r1 = $b ll
        r0 += r1
        exit
        ---
        a                   b : r0
        0xffffffffffffffff  1 : 0
        2                   3 : 5

`test NAME SECTION` (of RFC 9669; `linux` for what of an extension Linux does too; or `-`) is followed by assembly as in
spec/assembly.py, a line of dashes, and the table: first its column names, then a line for each case. What stands left
of the colon is given, what stands right of it must come out. A column on the left replaces `$name` in the assembly, but
for these:

    packet   the frame, in hexadecimal without spaces (otherwise 64 bytes, 00 01 02 … 3f)
    map      the first bytes of the map memory (otherwise 64 zero bytes)
    maps     `fuzz`: the maps that random programs know (sim/fuzz/world.py); a whole NIC alone has them
    budget   instructions that may retire (otherwise 1,000)

In the assembly, and in the table's cells, `$map` is the address of the map memory, `$map_end` the first one behind it,
and `$entry` that of the program's first instruction; a program stands at the start of the program store.

A line `raw HEX` puts down what the assembler refuses: one instruction's bytes as they are.

and on the right may stand

    r0 … r10  a register at the end, modulo 2**64 (so that -1 may be written)
    packet    the whole frame at the end
    map       the map memory's bytes at the end, as many as are written
    trap      the name of the cause (spec/causes.py) with which it must end; `-` for none
    pc        the slot of the instruction that trapped

Programs are XDP programs: r1 is the context at the start, r10 the top of the stack. They write r0 before they exit."""

import itertools
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from bpfnic.spec import isa
from bpfnic.spec.addresses import code_address
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import decode
from bpfnic.spec.programs import XdpAction

_PLACEHOLDER = 0x7EAD0000  # no helper: it stands where a raw instruction will

_assembled = cache(assemble)  # most texts are asked for several times, by several files of tests

DATA = Path(__file__).parent / "data"
MAP_BYTES = 64


@dataclass(frozen=True)
class Vector:
    """One case. `registers` maps numbers to 64-bit values that must come out; `packet_after` and `map_after` are None
    where the case says nothing about them; `trap` is Cause.NONE where the program must end by itself; `maps`: it needs
    those that random programs know."""

    name: str
    section: str
    text: str
    packet: bytes
    map: bytes
    budget: int
    registers: dict[int, int] = field(default_factory=dict)
    packet_after: bytes | None = None
    map_after: bytes | None = None
    trap: Cause = Cause.NONE
    pc: int | None = None
    maps: bool = False

    def code(self, map_address: int, entry: int, map_bytes: int = MAP_BYTES, *, passes: bool = False) -> bytes:
        """The program's bytes. map_bytes: of the whole map memory. passes: its last exit is one with XDP_PASS, so that
        the frame is seen."""
        text = self.text
        if passes:
            text, last, rest = text.rpartition("exit")
            assert last and not rest.strip(), f"{self.name}: exit is not its last instruction"
            text += f"w0 = {XdpAction.XDP_PASS.value}\nexit"
        text = text.replace("$map_end", hex(map_address + map_bytes)).replace("$map", hex(map_address))
        raw = re.findall(r"^raw (\w+)$", text, re.MULTILINE)
        numbers = itertools.count(_PLACEHOLDER)
        code = _assembled(re.sub(r"^raw \w+$", lambda _: f"call {next(numbers)}", text, flags=re.MULTILINE)
                          .replace("$entry", hex(code_address(entry))))  # fmt: skip
        for number, digits in enumerate(raw, _PLACEHOLDER):
            code = code.replace(_assembled(f"call {number}"), bytes.fromhex(digits))
        return code

    @cached_property
    def rows(self) -> list[isa.Row]:
        """The rows of its instructions (what a device may not have), illegal ones left out."""
        found = []
        with suppress(BpfnicError):  # a wide instruction whose second half is illegal
            for instruction in decode(self.code(0, 0)):
                with suppress(BpfnicError):
                    found += [isa.find(instruction)] if instruction else []
        return found

    @property
    def test(self) -> str:
        """Which test of which file it is a case of."""
        where, _, test = self.name.partition(" ")
        return f"{where.partition(':')[0]} {test}"


def read(path: Path) -> list[Vector]:
    """The cases of one file. Raises ValueError naming the line of what can't be read."""
    vectors: list[Vector] = []
    name = section = ""
    text: list[str] = []
    columns: tuple[list[str], list[str]] | None = None
    table = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if not line:
            continue
        where = f"{path.name}:{number}"
        if line.startswith("test "):
            _, name, section = line.split()
            text, columns, table = [], None, False
        elif re.fullmatch("-{3,}", line):
            table = True
        elif not table:
            text.append(line)
        else:
            left, colon, right = line.partition(":")
            if not colon:
                raise ValueError(f"{where}: no colon in {line!r}")
            cells = left.split(), right.split()
            if columns is None:
                columns = cells
                continue
            if [len(side) for side in cells] != [len(side) for side in columns]:
                raise ValueError(f"{where}: {line!r} does not fit the columns {columns}")
            given, expected = (dict(zip(names, side, strict=True)) for names, side in zip(columns, cells, strict=True))
            vectors.append(_vector(f"{where} {name}", section, "\n".join(text), given, expected))
    return vectors


def _vector(name: str, section: str, text: str, given: dict[str, str], expected: dict[str, str]) -> Vector:
    packet = bytes.fromhex(given.pop("packet", bytes(range(64)).hex()))
    memory = bytes.fromhex(given.pop("map", "")).ljust(MAP_BYTES, b"\0")
    budget, maps = int(given.pop("budget", "1000")), given.pop("maps", None)
    if maps not in (None, "fuzz"):
        raise ValueError(f"{name}: maps are `fuzz`, not {maps!r}")
    for column, value in given.items():
        text = re.sub(rf"\${column}\b", value, text)
    trap, pc = expected.pop("trap", "-"), expected.pop("pc", None)
    packet_after, map_after = expected.pop("packet", None), expected.pop("map", None)
    return Vector(
        name, section, text, packet, memory, budget,
        registers={int(column.removeprefix("r")): int(value, 0) & (1 << 64) - 1 for column, value in expected.items()},
        packet_after=None if packet_after is None else bytes.fromhex(packet_after),
        map_after=None if map_after is None else bytes.fromhex(map_after),
        trap=Cause.NONE if trap == "-" else Cause[trap],
        pc=None if pc is None else int(pc),
        maps=maps is not None,
    )  # fmt: skip


def read_all(maps: bool = False) -> list[Vector]:
    """The cases of every file in tests/data, in the order of their names; those that need maps where they are."""
    return [vector for vector in _found() if maps or not vector.maps]


@cache
def _found() -> list[Vector]:
    return [vector for path in sorted(DATA.glob("*.vec")) for vector in read(path)]


def by_test(vectors: Iterable[Vector]) -> dict[str, list[Vector]]:
    """Cases of each test: thousands of them take less time together than one by one as pytest's."""
    tests: dict[str, list[Vector]] = {}
    for vector in vectors:
        tests.setdefault(vector.test, []).append(vector)
    return tests


@contextmanager
def named(vector: Vector) -> Iterator[None]:
    """Failures inside say which case it was."""
    try:
        yield
    except Exception as failure:
        failure.add_note(f"in {vector.name}")
        raise
