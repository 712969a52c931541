"""What a random program finds: maps, their first bytes, frames. All from a seed."""

import random
from collections.abc import Sequence
from typing import NamedTuple

from bpfnic.host.device import Arrival
from bpfnic.sim.fuzz import values
from bpfnic.spec import addresses
from bpfnic.spec.maps import (
    LOCK_BYTES,
    MAP_BYTES,
    PROGRAM_BYTES,
    REDIRECT_BYTES,
    REDIRECT_MAPS,
    MapFlag,
    MapType,
    redirect_word,
)
from bpfnic.spec.registers import ENTRY_VALID

MEMORY_BYTES = 512
"""Bytes of map memory that every run begins with; what lies behind (copies for CPUs) stays as programs left it."""
COMPARED_BYTES = MEMORY_BYTES + 16 * 64


class Map(NamedTuple):
    """An array's descriptor: bytes, but for type and entries; `lock` as in register MAP_LOCK."""

    type: MapType
    base: int
    entries: int
    size: int
    stride: int
    cpu_stride: int = 0
    lock: int = 0


ENTRIES = 8
MAPS = (
    Map(MapType.ARRAY, 0, ENTRIES, 24, 24),
    Map(MapType.PERCPU_ARRAY, MEMORY_BYTES, ENTRIES, 5, 8, 64),
    Map(MapType.ARRAY, 224, ENTRIES, 1, 1),
    Map(MapType.ARRAY, 240, ENTRIES, 13, 24),
    Map(MapType.PROG_ARRAY, 480, 4, PROGRAM_BYTES, PROGRAM_BYTES),
    Map(MapType.DEVMAP, 192, 8, REDIRECT_BYTES, REDIRECT_BYTES),
    Map(MapType.CPUMAP, 432, 8, REDIRECT_BYTES, REDIRECT_BYTES),
    Map(MapType.XSKMAP, 464, 4, REDIRECT_BYTES, REDIRECT_BYTES),
    Map(MapType.ARRAY_OF_MAPS, 496, 4, MAP_BYTES, MAP_BYTES),
    Map(MapType.ARRAY, 240, ENTRIES, 24, 24, lock=17),  # the values of map 3, and behind each its lock
)
"""By handle. Small, so that programs meet in them; values that rows of map memory divide, and that they don't."""

PROGRAMS = 4
"""Which is the map of programs: the run's own, and behind them none."""


class Table(NamedTuple):
    """A map that is no array; bytes of its keys and values. lock: offset of the spin lock at the end of values."""

    type: MapType
    key: int
    value: int
    entries: int
    flags: MapFlag = MapFlag(0)
    lock: int = 0


TABLES = (
    Table(MapType.HASH, 4, 8, 3),
    Table(MapType.HASH, 13, 3, 6),
    Table(MapType.PERCPU_HASH, 8, 8, 3),
    Table(MapType.LRU_HASH, 4, 16, 3),
    Table(MapType.LPM_TRIE, 8, 8, 5, MapFlag.NO_PREALLOC),
    Table(MapType.QUEUE, 0, 8, 3),
    Table(MapType.STACK, 0, 5, 3),
    Table(MapType.DEVMAP_HASH, 4, REDIRECT_BYTES, 5),
    Table(MapType.HASH_OF_MAPS, 4, MAP_BYTES, 5),
    Table(MapType.LRU_PERCPU_HASH, 6, 8, 2),
    Table(MapType.RINGBUF, 0, 0, 4096),
    Table(MapType.PERF_EVENT_ARRAY, 4, 4, 6),
    Table(MapType.HASH, 4, 16, 3, lock=12),
)
"""By handle, behind those of MAPS. Few keys, so that maps fill up and programs meet."""

TABLES_AT = 80 * 1024
"""Byte of map memory from which on tables lie: out of the reach of pointers that go astray, but by chance."""

KEYS = 4
"""Keys that programs know, in every map: numbers."""
INNER = (0, 3)
"""Which arrays are in maps of maps; they have INNER_BYTES of value."""
INNER_BYTES = 13

LOCKS = (232, *(each.base + each.stride * index + each.lock - 1 for each in MAPS if each.lock for index in range(3)))
"""Bytes of map memory where programs know spin locks: behind the values of an array, and in some."""

CENTRE = 96
"""Byte of map memory that programs keep a pointer to; they use REACH bytes on both sides."""
REACH = 64

CELLS = range(16, 120, 8)
"""Offsets in a frame where numbers lie that are at an edge (values.cell)."""
LEAST_FRAME = CELLS.stop


def memory(chance: random.Random) -> bytes:
    """The first MEMORY_BYTES: half of them numbers, half anything; most entries of redirect maps and maps of maps are
    some."""
    found = bytearray(b"".join(
        (values.cell(chance) if chance.random() < 0.5 else chance.getrandbits(64)).to_bytes(8, "little")
        for _ in range(MEMORY_BYTES // 8)
    ))  # fmt: skip
    for at in LOCKS:
        found[at : at + LOCK_BYTES] = bytes(LOCK_BYTES)
    for each in MAPS:
        for at in range(each.base, each.base + each.entries * each.stride, each.stride):
            if each.lock:
                found[at + each.lock - 1 : at + each.lock - 1 + LOCK_BYTES] = bytes(LOCK_BYTES)
            if each.type in REDIRECT_MAPS and chance.random() < 0.8:
                word = redirect_word(each.type, chance.choice((None, 0, 1, 2)))
                found[at : at + REDIRECT_BYTES] = word.to_bytes(REDIRECT_BYTES, "little")
            elif each.type is MapType.ARRAY_OF_MAPS and chance.random() < 0.9:
                word = handle(chance.choice(INNER)) if chance.random() < 0.8 else 0
                found[at : at + MAP_BYTES] = word.to_bytes(MAP_BYTES, "little")
    return bytes(found)


def content(table: Table) -> dict[bytes, bytes]:
    """What the host has put into a table that programs only read."""
    if table.type is MapType.DEVMAP_HASH:
        words = [redirect_word(table.type, number) for number in (0, 1, 1, 2)]
    elif table.type is MapType.HASH_OF_MAPS:
        words = [handle(INNER[0]), handle(INNER[1]), handle(INNER[0]), 0]
    else:
        return {}
    return {key.to_bytes(4, "little"): word.to_bytes(4, "little") for key, word in enumerate(words)}


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
    """What a program passes as map `index`, of MAPS or behind them of TABLES."""
    key_bytes = TABLES[index - len(MAPS)].key if index >= len(MAPS) else 0
    return addresses.map_handle(index, key_bytes or addresses.INDEX_BYTES)


TYPES = {handle(index): each.type for index, each in enumerate((*MAPS, *TABLES))}
"""Of each map by its handle."""
