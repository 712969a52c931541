"""Reads the table of a map out of map memory, as spec/tables.py draws it, and says what is wrong with it."""

from dataclasses import dataclass, field

from bpfnic.host.keyedmaps import KeyedMap
from bpfnic.spec import tables
from bpfnic.spec.maps import LPM_LENGTH_BYTES, LRU, QUEUES, MapType
from bpfnic.spec.tables import State


@dataclass(frozen=True)
class Layout:
    """A map: byte offsets in map memory, and what its descriptor says."""

    type: MapType
    key_bytes: int
    entries: int
    cpus: int
    table: int

    @property
    def links(self) -> int:
        return self.table + tables.links_offset(self.type, self.entries, self.cpus)

    @property
    def keys(self) -> int:
        return self.table + tables.keys_offset(self.type, self.entries, self.cpus)

    @property
    def order(self) -> int:
        return self.table + tables.order_offset(self.type, self.key_bytes, self.entries, self.cpus)

    @property
    def end(self) -> int:
        return self.table + tables.table_bytes(self.type, self.key_bytes, self.entries, self.cpus)


@dataclass
class Contents:
    """What a table says, places as numbers from 0 on. keys: the place of each, as it is written. order: of use, the
    oldest first. reserved, read: by CPU."""

    fresh: int
    keys: dict[bytes, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    reserved: dict[int, int] = field(default_factory=dict)
    read: dict[int, int] = field(default_factory=dict)


def of_map(keyed: KeyedMap, cpus: int) -> Contents:
    """Of a map at rest, through the registers. Raises AssertionError as `contents`."""
    definition = keyed.definition
    layout = Layout(definition.type, definition.key_size, definition.max_entries, cpus, keyed.parts["MAP_TABLE"])
    return contents(bytes(layout.table) + keyed.table(), layout)


def contents(memory: bytes, layout: Layout) -> Contents:
    """Of a map at rest; `memory` is all of map memory. Raises AssertionError: a place is lost or is there twice, a
    chain or a list is none, a count is wrong."""

    def word(at: int) -> int:
        return int.from_bytes(memory[at : at + 4], "little")

    def link(place: int) -> int:
        return word(layout.links + tables.LINK_BYTES * place)

    places, table = tables.places(layout.entries, layout.cpus), layout.table
    found = Contents(word(table + State.FRESH))
    assert found.fresh <= places

    for cpu in range(layout.cpus + 1):
        held = word(table + tables.STATE_BYTES + 4 * cpu)
        if held >> 31:
            assert layout.type in QUEUES
            found.read[cpu] = 2**32 - held - 1
        elif held:
            found.reserved[cpu] = held - 1

    next_free, last = word(table + State.OLDEST), 0
    while next_free:
        found.free.append(next_free - 1)
        assert len(found.free) <= places, "the free list has no end"
        last, next_free = next_free, link(next_free - 1)
    assert not last or last == word(table + State.NEWEST)

    if layout.type in tables.HASHED:
        for bucket in range(tables.buckets(layout.entries)):
            row = table + tables.header_bytes(layout.cpus) + 16 * bucket
            words = [word(row + 4 * i) for i in range(tables.BUCKET_WORDS)]
            chain = words[-1]
            while chain and (chain := link((chain & 0xFFFFFF) - 1)):
                words.append(chain)
                assert len(words) <= places + tables.BUCKET_WORDS, "a chain has no end"
            for place in ((each & 0xFFFFFF) - 1 for each in words if each):
                at = layout.keys + tables.key_stride(layout.key_bytes) * place
                key = memory[at : at + layout.key_bytes]
                assert key not in found.keys, f"{key.hex()} is there twice"
                assert not any(memory[at + layout.key_bytes : at + tables.key_stride(layout.key_bytes)])
                found.keys[key] = place
        assert word(table + State.COUNT) == len(found.keys)

    if layout.type in tables.ORDERED:
        at = {0: layout.order} | {place + 1: layout.order + tables.ORDER_BYTES * (place + 1) for place in range(places)}
        before, here = 0, word(at[0])
        while here:
            assert word(at[here] + 4) == before, "the order is another one backwards"
            found.order.append(here - 1)
            assert len(found.order) <= places, "the order has no end"
            before, here = here, word(at[here])
        assert word(at[0] + 4) == before
        if layout.type in LRU:
            assert sorted(found.order) == sorted(found.keys.values())
        else:
            assert word(table + State.COUNT) == len(found.order)
            reads = list(found.read.values())
            for place in {*found.order, *reads}:
                assert link(place) == reads.count(place) + (tables.QUEUED if place in found.order else 0)

    if layout.type is MapType.LPM_TRIE:
        lengths = [int.from_bytes(key[:LPM_LENGTH_BYTES], "little") for key in found.keys]
        bitmap = int.from_bytes(memory[layout.order : layout.order + tables.LENGTH_BITS // 8], "little")
        for length in range(8 * (layout.key_bytes - LPM_LENGTH_BYTES) + 1):
            count = word(layout.order + tables.LENGTH_BITS // 8 + 4 * length)
            assert count == lengths.count(length) and (bitmap >> length & 1) == bool(count), length

    in_use = {*found.keys.values(), *found.order, *found.read.values()}
    held = [*in_use, *found.free, *found.reserved.values()]
    assert sorted(held) == list(range(found.fresh)), "a place is lost or is there twice"
    return found
