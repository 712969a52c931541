"""What a random program finds: maps, their first bytes, frames. All from a seed."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from bpfnic.host.device import Arrival
from bpfnic.sim.fuzz import values
from bpfnic.spec import addresses
from bpfnic.spec.maps import PROGRAM_BYTES, MapType
from bpfnic.spec.registers import ENTRY_VALID

MEMORY_BYTES = 512
"""Bytes of map memory that every run begins with; what lies behind (copies for CPUs) stays as programs left it."""
COMPARED_BYTES = MEMORY_BYTES + 16 * 64


class Map(NamedTuple):
    """A descriptor: bytes, but for type and entries."""

    type: MapType
    base: int
    entries: int
    size: int
    stride: int
    cpu_stride: int = 0


ENTRIES = 8
MAPS = (
    Map(MapType.ARRAY, 0, ENTRIES, 24, 24),
    Map(MapType.PERCPU_ARRAY, MEMORY_BYTES, ENTRIES, 5, 8, 64),
    Map(MapType.ARRAY, 224, ENTRIES, 1, 1),
    Map(MapType.ARRAY, 240, ENTRIES, 13, 24),
    Map(MapType.PROG_ARRAY, 480, 4, PROGRAM_BYTES, PROGRAM_BYTES),
)
"""By handle. Small, so that programs meet in them; values that rows of map memory divide, and that they don't."""

PROGRAMS = 4
"""Handle of the map of programs: the run's own, and behind them none."""

CENTRE = 96
"""Byte of map memory that programs keep a pointer to; they use REACH bytes on both sides."""
REACH = 64

CELLS = range(16, 120, 8)
"""Offsets in a frame where numbers lie that are at an edge (values.cell)."""
LEAST_FRAME = CELLS.stop


def memory(chance: random.Random) -> bytes:
    """The first MEMORY_BYTES: half of them numbers, half anything."""
    return b"".join(
        (values.cell(chance) if chance.random() < 0.5 else chance.getrandbits(64)).to_bytes(8, "little")
        for _ in range(MEMORY_BYTES // 8)
    )


def linked(memory: bytes, entries: Sequence[int]) -> bytes:
    """Memory with the programs that stand at these slots in their map."""
    base, kept = MAPS[PROGRAMS].base, MAPS[PROGRAMS].entries * PROGRAM_BYTES
    words = b"".join((ENTRY_VALID | entry).to_bytes(PROGRAM_BYTES, "little") for entry in entries)
    return memory[:base] + words.ljust(kept, b"\0") + memory[base + kept :]


def frame(chance: random.Random, least: int = LEAST_FRAME) -> bytes:
    """A frame whose cells differ from any other's. Few are too short for the programs."""
    length = chance.choice((least, least + 1, 127, 128, 129, 191, 256))
    if chance.random() < 0.05:
        length = chance.choice((14, 15, 60, 64, 1514))
    cells = b"".join(values.cell(chance).to_bytes(8, "little") for _ in CELLS)
    return (chance.randbytes(CELLS.start) + cells + chance.randbytes(max(0, length - CELLS.stop)))[:length]


def frames(chance: random.Random, count: int, interfaces: int) -> list[Arrival]:
    """Frames for each interface in turn, from the host for a port that there is."""
    return [Arrival(number % interfaces, frame(chance)) for number in range(count)]


def handle(index: int) -> int:
    """What a program passes as map `index`."""
    return addresses.map_handle(index)
