"""The finder beside map memory: look-ups of all CPUs and of the serial unit in tables that Python has laid out by
spec/tables.py, against Python's dicts."""

import random
from dataclasses import dataclass, field

import pytest
from amaranth import Module
from amaranth.lib.wiring import Component, connect, flipped

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import MapMemoryPorts
from bpfnic.hdl.mapinterfaces import (
    FIND_CLOCKS,
    Find,
    Found,
    KeyWord,
    MapDescriptor,
    MapOperation,
    MapRequest,
    key_slots,
)
from bpfnic.hdl.maps import MapMemory
from bpfnic.hdl.maps.finder import Finder, LookUp, Result
from bpfnic.hdl.maps.sharing import Turns
from bpfnic.spec import tables
from bpfnic.spec.maps import MapType
from bpfnic.spec.registers import HASH_SECRET_WORDS
from tests.hdl.simulated import Library, Simulated, packed

CONFIG = NicConfig(cores=2, threads=8, map_bytes=32768, maps=8)
CPUS = CONFIG.cores * CONFIG.threads
SCRATCH = CPUS + 1


class FinderAndMemory(Component):
    """The ports of both but for the ways between them. A key's word is the finder's a clock later."""

    def __init__(self, config: NicConfig):
        self.config = config
        members = Finder(config).signature.members
        inside = ("rows", "table", "next_number", "next_core")
        super().__init__({name: members[name] for name in members if name not in inside}
                         | {"memory": MapMemoryPorts(config)["port"]})  # fmt: skip

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.finder = finder = Finder(self.config)
        m.submodules.memory = memory = MapMemory(self.config)
        connect(m, finder.rows, memory.rows)
        m.submodules.turns = turns = Turns(self.config, users=1)
        connect(m, finder.table, turns.users[0])
        connect(m, turns.table, memory.table)
        for outer, inner in zip(self.memory, memory.port, strict=True):
            connect(m, flipped(outer), inner)
        for name in ("read", "secret"):
            connect(m, flipped(getattr(self, name)), getattr(finder, name))
        m.d.sync += [finder.key_valid.eq(self.key_valid), finder.key.eq(self.key)]
        m.d.comb += [number.eq(self.key.number) for number in finder.next_number]
        for name in ("look_up", "look_up_valid", "find", "descriptor", "hold"):
            m.d.comb += getattr(finder, name).eq(getattr(self, name))
        for name in ("result", "result_valid", "found", "idle"):
            m.d.comb += getattr(self, name).eq(getattr(finder, name))
        return m


@dataclass
class Table:
    """A table in `memory`, written as spec/tables.py says; `places` says which key has which place."""

    memory: bytearray
    secret: list[int]
    type: MapType
    at: int
    key_bytes: int
    entries: int
    buckets: int
    places: dict[bytes, int] = field(default_factory=dict)
    words: dict[bytes, int] = field(default_factory=dict)  # where the link word is that names the key

    def __post_init__(self) -> None:
        self.links = self.at + tables.header_bytes(CPUS) + 16 * self.buckets
        self.keys = self.links + -(-4 * tables.places(self.entries, CPUS) // 16) * 16
        stride = tables.key_stride(self.key_bytes)
        self.base = self.keys + -(-stride * tables.places(self.entries, CPUS) // 16) * 16
        self.end = self.base + 8 * tables.places(self.entries, CPUS)

    def descriptor(self) -> dict:
        return {"type": self.type, "base": self.base, "entries": self.entries, "stride": 8, "value_size": 8,
                "key_size": self.key_bytes, "table": self.at, "buckets": self.buckets - 1, "links": self.links,
                "keys": self.keys}  # fmt: skip

    def hash(self, key: bytes) -> int:
        digits = [int.from_bytes(key[i : i + 2], "little") for i in range(0, len(key), 2)]
        return sum(a * b for a, b in zip(digits, self.secret, strict=False)) % 2**40 >> 16

    def bucket(self, key: bytes) -> int:
        return self.at + tables.header_bytes(CPUS) + 16 * (self.hash(key) % self.buckets)

    def word(self, at: int) -> int:
        return int.from_bytes(self.memory[at : at + 4], "little")

    def write(self, at: int, word: int) -> None:
        self.memory[at : at + 4] = word.to_bytes(4, "little")

    def insert(self, key: bytes, place: int) -> None:
        words = range(self.bucket(key), self.bucket(key) + 16, 4)
        at = next((at for at in words if not self.word(at)), words[-1])
        if self.word(at):
            newest = next(old for old, its in self.words.items() if its == at)
            self.write(self.links + 4 * place, self.word(at))
            self.words[newest] = self.links + 4 * place
        self.write(at, self.hash(key) >> 16 << 24 | place + 1)
        self.words[key], self.places[key] = at, place
        stored = self.keys + tables.key_stride(self.key_bytes) * place
        self.memory[stored : stored + self.key_bytes] = key


class Bench:
    def __init__(self, library: Library, chance: random.Random):
        self.dut, self.clock = Simulated(library), 0
        self.secret = [chance.getrandbits(40) for _ in range(32)]
        together = sum(digit << 40 * i for i, digit in enumerate(self.secret))
        self.dut["secret__write"] = 1
        for i in range(HASH_SECRET_WORDS):
            self.dut["secret__data"] = together >> 32 * i & 0xFFFFFFFF
            self.tick()
        self.dut["secret__write"] = 0
        self.memory = bytearray(CONFIG.map_bytes)

    def tick(self) -> None:
        self.dut.settle()
        self.dut.tick()
        self.clock += 1

    def load(self) -> None:
        """Map memory gets what Python has laid out."""
        port = f"memory__{CONFIG.cores}__"
        self.dut[port + "answer__ready"] = 1
        for at in range(0, len(self.memory), 8):
            if value := int.from_bytes(self.memory[at : at + 8], "little"):
                self.dut[port + "request__payload"] = packed(
                    MapRequest(CONFIG), tag=0, operation=MapOperation.STORE, address=at, bytes=8, data=value
                )
                self.dut[port + "request__valid"] = 1
                self.dut.settle()
                while not self.dut[port + "request__ready"]:
                    self.tick()
                self.tick()
        self.dut[port + "request__valid"] = 0
        for _ in range(10):
            self.tick()

    def key_words(self, slot: int, key: bytes):
        padded = key + bytes(-len(key) % 8)
        for i in range(0, len(key), 8):
            yield packed(KeyWord(CONFIG), slot=slot, number=i // 8, data=int.from_bytes(padded[i : i + 8], "little"))


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    return Library(FinderAndMemory(CONFIG), tmp_path_factory.mktemp("finder"))


def tables_in(bench: Bench, chance: random.Random, buckets) -> list[Table]:
    """Full tables of several key sizes."""
    found, at = [], 0
    sizes = ((1, 5), (4, 40), (8, 30), (13, 20), (16, 100), (40, 12), (64, 9))
    for number, (key_bytes, entries) in enumerate(sizes):
        kind = MapType.HASH_OF_MAPS if number % 2 else MapType.HASH
        table = Table(bench.memory, bench.secret, kind, at, key_bytes, entries, buckets(entries))
        places = list(range(tables.places(entries, CPUS)))
        chance.shuffle(places)
        while len(table.places) < entries:
            key = chance.randbytes(key_bytes) if chance.random() < 0.8 else bytes([len(table.places)] * key_bytes)
            if key not in table.places:
                table.insert(key, places.pop())
        at = -(-table.end // 16) * 16
        found.append(table)
    assert at <= CONFIG.map_bytes
    bench.load()
    return found


def a_key(table: Table, chance: random.Random) -> bytes:
    """One that is there, one that is there but for a bit, or any."""
    key = bytearray(chance.choice(list(table.places)))
    if chance.random() < 0.3:
        key[chance.randrange(len(key))] ^= 1 << chance.randrange(8)
    return bytes(key) if chance.random() < 0.9 else chance.randbytes(len(key))


def look_up(bench: Bench, chance: random.Random, choose, count: int) -> list[int]:
    """All CPUs look up; returns the clocks from each look-up to its result."""
    dut, waiting, words, clocks = bench.dut, {}, [], []
    idle, asked, pushed = list(range(CPUS)), 0, []
    while asked < count or waiting or words or pushed:
        dut["key_valid"] = dut["look_up_valid"] = 0
        if not words and idle and asked < count:
            slot, asked = idle.pop(chance.randrange(len(idle))), asked + 1
            table, key = choose()
            waiting[slot] = table, key
            words = list(bench.key_words(slot, key))
            pushed.append((slot, table, len(words) + bench.clock + 2))
        if words:
            dut["key_valid"], dut["key"] = 1, words.pop(0)
        if pushed and pushed[0][2] <= bench.clock:
            slot, table, _ = pushed.pop(0)
            dut["look_up_valid"], dut["look_up"] = 1, packed(LookUp(CONFIG), slot=slot, descriptor=table.descriptor())
            waiting[slot] = *waiting[slot], bench.clock
        dut.settle()
        if dut["result_valid"]:
            result = Result(CONFIG).from_bits(dut["result"])
            table, key, began = waiting.pop(result["slot"])
            idle.append(result["slot"])
            clocks.append(bench.clock - began)
            place = table.places.get(key)
            assert result["found"] == (place is not None), (table.key_bytes, key)
            assert result["entry"] == (table.type is MapType.HASH_OF_MAPS)
            if place is not None:
                assert result["value"] == table.base + 8 * place
        dut.tick()
        bench.clock += 1
    return clocks


@pytest.mark.parametrize("buckets", [lambda entries: 1, tables.buckets], ids=["one bucket", "buckets"])
def test_every_key_is_found_and_no_other(library, buckets):
    chance = random.Random(1)
    bench = Bench(library, chance)
    there = tables_in(bench, chance, buckets)

    def choose() -> tuple[Table, bytes]:
        table = chance.choice(there)
        return table, a_key(table, chance)

    assert len(look_up(bench, chance, choose, 3000)) == 3000


def find(bench: Bench, keys: list[tuple[int, bytes, int]]) -> dict[int, dict]:
    """The serial unit's finds, (slot, key, length) each, asked one after the other: what it is told, by slot."""
    dut, told = bench.dut, {}
    for slot, key, _ in keys:
        for word in bench.key_words(slot, key):
            dut["key_valid"], dut["key"] = 1, word
            bench.tick()
    dut["key_valid"] = 0
    for _ in range(FIND_CLOCKS):
        bench.tick()
    asked = 0
    for _ in range(2000):
        asks = asked < len(keys)
        slot, _, length = keys[asked] if asks else (0, 0, 0)
        dut["find"] = packed(Find(CONFIG), valid=asks, slot=slot, length=length)
        dut.settle()
        found = Found(CONFIG).from_bits(dut["found"])
        if found["valid"]:
            told[found["slot"]] = {name: found[name] for name in ("found", "place", "link", "bucket", "tag")}
        asked += asks
        dut.tick()
        bench.clock += 1
        if len(told) == len(keys):
            return told
    raise AssertionError("no result")


@pytest.mark.parametrize("buckets", [lambda entries: 1, tables.buckets], ids=["one bucket", "buckets"])
def test_the_serial_unit_is_told_where(library, buckets):
    chance = random.Random(2)
    bench = Bench(library, chance)
    for table in tables_in(bench, chance, buckets):
        bench.dut["descriptor"] = packed(MapDescriptor(CONFIG), **table.descriptor())
        for _ in range(20):
            slots = chance.sample(range(key_slots(CONFIG)), chance.randrange(1, 9))
            keys = {slot: a_key(table, chance) for slot in slots}
            for slot, told in find(bench, [(slot, key, 0) for slot, key in keys.items()]).items():
                key = keys[slot]
                assert told["found"] == (key in table.places)
                assert (told["bucket"], told["tag"]) == (table.bucket(key), table.hash(key) >> 16)
                if told["found"]:
                    assert (told["place"], told["link"]) == (table.places[key], table.words[key])


def test_bits_behind_a_prefix_do_not_count(library):
    chance = random.Random(3)
    bench = Bench(library, chance)
    table = Table(bench.memory, bench.secret, MapType.LPM_TRIE, 0, 20, 64, 32)
    written = {}
    for length in range(129):
        address = chance.getrandbits(128)
        prefix = address >> 128 - length << 128 - length
        masked = length.to_bytes(4, "little") + prefix.to_bytes(16, "big")
        if len(written) < 64 and chance.random() < 0.6:
            table.insert(masked, length)
            stored = table.keys + 32 * length  # as it was written
            bench.memory[stored : stored + 20] = length.to_bytes(4, "little") + address.to_bytes(16, "big")
            written[masked] = length
        else:
            written.setdefault(masked, None)
    bench.load()
    bench.dut["descriptor"] = packed(MapDescriptor(CONFIG), **table.descriptor())
    for masked, place in written.items():
        length = int.from_bytes(masked[:4], "little")
        told = find(bench, [(SCRATCH, masked, length)])[SCRATCH]
        assert told["found"] == (place is not None)
        if place is not None:
            assert told["place"] == place


def test_a_word_that_differs_is_not_forgotten(library):
    """Keys that differ from a stored one in their first word alone, where atomics hold the bank of its words, so that
    searches without a candidate overtake between them."""
    chance = random.Random(6)
    bench = Bench(library, chance)
    table = Table(bench.memory, bench.secret, MapType.HASH, 0, 16, 1, 2)
    stored = chance.randbytes(16)
    table.insert(stored, 0)
    bench.load()
    like, unlike = [], []
    while len(like) < 8:
        key = chance.randbytes(8) + stored[8:]
        same = table.hash(key) >> 16 == table.hash(stored) >> 16 and table.bucket(key) == table.bucket(stored)
        (like if same else unlike).append(key)
    bench.dut["memory__0__answer__ready"] = bench.dut["memory__0__request__valid"] = 1
    bench.dut["memory__0__request__payload"] = packed(
        MapRequest(CONFIG), tag=0, operation=MapOperation.ADD, address=table.keys + 2048, bytes=8, data=0
    )
    look_up(bench, chance, lambda: (table, chance.choice(chance.choice((like, unlike)))), 1000)


def test_no_look_up_begins_while_the_serial_unit_holds(library):
    chance = random.Random(4)
    bench = Bench(library, chance)
    table = Table(bench.memory, bench.secret, MapType.HASH, 0, 4, 8, 4)
    table.insert(b"abcd", 3)
    bench.load()
    dut = bench.dut
    dut["key_valid"], dut["key"] = 1, next(bench.key_words(0, b"abcd"))
    bench.tick()
    dut["key_valid"] = 0
    bench.tick()
    dut["look_up_valid"], dut["look_up"] = 1, packed(LookUp(CONFIG), slot=0, descriptor=table.descriptor())
    dut["hold"] = 1
    bench.tick()
    dut["look_up_valid"] = 0
    seen = []
    for clock in range(60):
        dut["hold"] = clock < 40
        dut.settle()
        seen.append((dut["idle"], dut["result_valid"]))
        dut.tick()
    assert [idle for idle, _ in seen[:40]] == [1] * 40 and not any(idle for idle, _ in seen[40:])
    assert [clock for clock, (_, came) in enumerate(seen) if came] == [40 + 12]


def test_clocks_of_a_look_up(library):
    """A 16-byte key: of a CPU alone, and every 2 clocks where all of them ask."""
    chance = random.Random(5)
    bench = Bench(library, chance)
    table = Table(bench.memory, bench.secret, MapType.HASH, 0, 16, 256, 128)
    for place in range(256):
        table.insert(chance.randbytes(16), place)
    bench.load()
    keys = list(table.places)
    alone = [look_up(bench, chance, lambda: (table, chance.choice(keys)), 1)[0] for _ in range(50)]
    assert sorted(alone)[25] == 13
    began = bench.clock
    look_up(bench, chance, lambda: (table, chance.choice(keys)), 2000)
    assert (bench.clock - began) / 2000 < 2.1
