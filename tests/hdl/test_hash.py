"""Keyed maps in the map engine, beside map memory: random calls of all threads and of the host, in the order that the
engine tells, on golden's Hash, which is a Python dict."""

import errno
import random

import pytest
from amaranth import Module
from amaranth.lib.wiring import Component, connect, flipped

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import (
    EngineAnswer,
    EngineWord,
    MapCall,
    MapDescriptor,
    MapEnginePorts,
    MapMemoryPorts,
    MapOperation,
    MapRequest,
    SharedTrace,
)
from bpfnic.hdl.maps import MapEngine, MapMemory
from bpfnic.sim.golden.hash import Hash
from bpfnic.spec import tables
from bpfnic.spec.addresses import MAP_VALUES, map_handle
from bpfnic.spec.maps import MapType
from bpfnic.spec.registers import MapCommand
from bpfnic.spec.tables import State
from tests.hdl.simulated import Library, Simulated

CONFIG = NicConfig(cores=2, threads=8, map_bytes=16384, maps=8)
CPUS = CONFIG.cores * CONFIG.threads
HOST = CPUS
ARRAY = 7


class EngineAndMemory(Component):
    """The ports of both but for the table's way."""

    def __init__(self, config: NicConfig):
        self.config = config
        engine, memory = MapEnginePorts(config), MapMemoryPorts(config)
        super().__init__({name: engine[name] for name in ("port", "write", "host", "shared_trace")}
                         | {"memory": memory["port"]})  # fmt: skip

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.engine = engine = MapEngine(self.config)
        m.submodules.memory = memory = MapMemory(self.config)
        connect(m, engine.table, memory.table)
        for outer, inner in zip([*self.port, *self.memory], [*engine.port, *memory.port], strict=True):
            connect(m, flipped(outer), inner)
        connect(m, flipped(self.write), engine.write)
        connect(m, flipped(self.host), engine.host)
        m.d.comb += self.shared_trace.eq(engine.shared_trace)
        return m


def packed(layout, **fields) -> int:
    return layout.const(fields).as_bits()


class Bench:
    """The engine, its maps, and a Hash for each."""

    def __init__(self, library: Library):
        self.dut = Simulated(library)
        self.clock = 0
        self.maps: dict[int, dict] = {}
        self.models: dict[int, Hash] = {}
        self.end = 0  # of the map memory in use
        for core in range(CONFIG.cores):
            self.dut[f"port__{core}__answer__ready"] = 1

    def tick(self) -> None:
        self.dut.tick()
        self.clock += 1

    def store(self, address: int, value: int) -> None:
        port = f"memory__{CONFIG.cores}__"
        self.dut[port + "request__payload"] = packed(
            MapRequest(CONFIG), tag=0, operation=MapOperation.STORE, address=address, bytes=4, data=value
        )
        self.dut[port + "request__valid"] = self.dut[port + "answer__ready"] = 1
        taken = False
        while True:
            self.dut.settle()
            taken = taken or self.dut[port + "request__ready"]
            if self.dut[port + "answer__valid"]:
                break
            self.tick()
            if taken:
                self.dut[port + "request__valid"] = 0
        self.tick()

    def describe(self, index: int, **fields) -> None:
        self.maps[index] = fields = {"base": self.end, "table": 0, "buckets": 0, "seed": 0, "cpu_stride": 0} | fields
        self.dut["write__enable"] = 1
        self.dut["write__index"] = index
        self.dut["write__descriptor"] = packed(MapDescriptor(CONFIG), **fields)
        self.dut.settle()
        self.tick()
        self.dut["write__enable"] = 0

    def table(self, index: int, key_size: int, entries: int, value_size: int, buckets: int, seed: int) -> None:
        places = tables.places(entries, CPUS)
        table = self.end + -(-places * value_size // 16) * 16
        nodes = table + tables.header_bytes(CPUS) + max(8, tables.LINK_BYTES * buckets)
        self.describe(index, type=MapType.HASH, entries=entries, stride=value_size, value_size=value_size, table=table,
                      key_size=key_size, buckets=buckets - 1, seed=seed)  # fmt: skip
        for offset, value in ((State.FRESH_NODE, nodes), (State.FRESH_VALUE, self.end), (State.FRESH, places)):
            self.store(table + offset, value)
        self.end = -(-(nodes + places * tables.node_bytes(key_size)) // 16) * 16
        assert self.end <= CONFIG.map_bytes
        self.models[index] = Hash(key_size, entries, places, clear=lambda place: None)

    def value(self, index: int, place: int) -> int:
        return self.maps[index]["base"] + self.maps[index]["stride"] * place


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    return Library(EngineAndMemory(CONFIG), tmp_path_factory.mktemp("engine"))


@pytest.fixture
def bench(library) -> Bench:
    return Bench(library)


def words_of(key: bytes, chance: random.Random) -> list[int]:
    """8 bytes a word; behind the end lies anything."""
    padded = key + chance.randbytes(-len(key) % 8)
    return [int.from_bytes(padded[i : i + 8], "little") for i in range(0, len(key), 8)]


class Caller:
    """A CPU that calls one helper after the other."""

    def __init__(self, bench: Bench, cpu: int, chance: random.Random, key_of):
        self.bench, self.cpu, self.chance, self.key_of = bench, cpu, chance, key_of
        self.words: list[dict] = []
        self.expected = None  # what the model said when the engine decided
        self.busy = False
        self.inserts = None  # map, key and flags of an update whose value is being copied
        self.wait = 0

    def begin(self) -> None:
        chance = self.chance
        if self.inserts and chance.random() < 0.95:  # otherwise the program trapped in the copy
            self.index, self.key, self.flags = self.inserts
            self.call = MapCall.INSERT
            self.words = [{"last": 1, "data": chance.getrandbits(64)}]
        else:
            self.index = chance.choice([*self.bench.models, ARRAY])
            self.key = self.key_of(self.index)
            self.call = chance.choice([MapCall.LOOKUP, MapCall.LOOKUP, MapCall.UPDATE, MapCall.UPDATE, MapCall.DELETE,
                                       MapCall.CHECK])  # fmt: skip
            self.flags = chance.choice([0, 0, 0, 0, 1, 2, 3, 4, 1 << 40])
            words = words_of(self.key, chance)
            self.words = [{"number": i, "data": word, "last": i == len(words) - 1} for i, word in enumerate(words)]
            if self.call == MapCall.UPDATE:
                self.words.insert(0, {"flags": 1, "data": self.flags})
        self.inserts = None
        size = len(self.key)
        self.wrong = self.call != MapCall.INSERT and chance.random() < 0.05
        handle = map_handle(self.index, size) ^ (self.wrong and chance.choice([1 << 16, 1 << 21, 8, 1 << 12, 1 << 63]))
        for word in self.words:
            word |= {"thread": self.cpu % CONFIG.threads, "call": self.call, "handle": handle}
        self.busy, self.expected = True, None

    def decide(self) -> None:
        """The engine decides: so does the model."""
        model = self.bench.models[self.index]
        assert self.busy and self.expected is None and not self.words
        match self.call:
            case MapCall.LOOKUP:
                place = model.find(self.key)
                self.expected = 0 if place is None else self.value(place)
            case MapCall.UPDATE:
                self.expected = -model.refuses(self.key, self.flags)
                if not self.expected:
                    self.expected = self.value(model.reserve(self.key, self.cpu))
                    self.inserts = self.index, self.key, self.flags
            case MapCall.INSERT:
                self.expected = -model.insert(self.key, self.cpu, self.flags)
            case MapCall.DELETE:
                self.expected = -model.delete(self.key)

    def value(self, place: int) -> int:
        return MAP_VALUES + self.bench.value(self.index, place)

    def answered(self, answer) -> None:
        assert self.busy and answer["trap"] == self.wrong
        if not self.wrong and self.call != MapCall.CHECK:
            if self.index == ARRAY:
                self.expected = self.array()
            assert self.expected is not None, "answered before it was decided"
            assert answer["value"] == self.expected % 2**64, (self.call, self.key, self.flags)
            copies = self.call == MapCall.UPDATE and self.expected > 0
            assert answer["copy"] == copies
            if copies:
                assert answer["insert"] == (self.index != ARRAY)
                assert answer["size"] == self.bench.maps[self.index]["value_size"]
        self.busy, self.wait = False, self.chance.choice([0, 0, 5, 40])

    def array(self) -> int:
        index, update = int.from_bytes(self.key, "little"), self.call == MapCall.UPDATE
        if self.call == MapCall.DELETE or (update and self.flags & ~4 > 2):
            return -errno.EINVAL
        if index >= 4:
            return -errno.E2BIG if update else 0
        if update and self.flags & 5:
            return -errno.EEXIST if self.flags & 1 else -errno.EINVAL
        return MAP_VALUES + self.bench.value(ARRAY, index)


class Host:
    """The host: any command, with few keys. Each step is a clock; `seen` is what its port said in the one before."""

    def __init__(self, bench: Bench, chance: random.Random, key_of):
        self.bench, self.chance, self.key_of = bench, chance, key_of
        self.busy = False
        self.seen = {"done": 0, "found": 0, "status": 0, "value": 0, "key": 0}
        self.outcomes: set[tuple[MapCommand, int]] = set()
        self.step = self._live()

    def look(self) -> None:
        self.seen = {name: self.bench.dut["host__" + name] for name in self.seen}

    def _live(self):
        dut, chance = self.bench.dut, self.chance
        while True:
            yield
            if chance.random() >= 0.05:
                continue
            self.busy = True
            index, flags = chance.choice([*self.bench.models]), chance.choice([0, 0, 0, 1, 2, 3])
            key, operation = self.key_of(index), chance.choice(list(MapCommand))
            yield from self._set_key(key)
            dut["host__index"], dut["host__operation"], dut["host__flags"] = index, operation, flags
            dut["host__command"], self.seen["done"] = 1, 0
            while not self.seen["done"]:
                yield
            dut["host__command"] = 0
            yield from self._compare(index, key, operation, flags)
            self.busy = False

    def _set_key(self, key: bytes):
        dut, key = self.bench.dut, key.ljust(64, b"\xa5")  # what lies behind it doesn't count
        dut["host__key_write"] = 1
        for i in range(16):
            dut["host__key_word"] = i
            dut["host__key_data"] = int.from_bytes(key[4 * i : 4 * i + 4], "little")
            yield
        dut["host__key_write"] = 0

    def _compare(self, index: int, key: bytes, operation: MapCommand, flags: int):
        model, status, value, keys = self.bench.models[index], 0, None, None
        match operation:
            case MapCommand.LOOKUP:
                place = model.find(key)
                status, value = (errno.ENOENT, None) if place is None else (0, self.bench.value(index, place))
            case MapCommand.RESERVE:
                value = self.bench.value(index, model.reserve(key, HOST))
            case MapCommand.INSERT:
                status = model.insert(key, HOST, flags)
            case MapCommand.DELETE:
                status = model.delete(key)
            case MapCommand.POP:
                place = model.pop(key, HOST)
                status, value = (errno.ENOENT, None) if place is None else (0, self.bench.value(index, place))
            case _:  # any order will do: a walk is compared in its own test
                keys = set(model.places)
                last = operation == MapCommand.NEXT and key in keys
                status = self.seen["status"] if last else 0 if keys else errno.ENOENT
        assert self.seen["status"] == status, (operation, key)
        at = self.seen["value"] if self.seen["found"] else None
        assert keys is not None or at == value
        self.outcomes.add((operation, status))
        if keys is not None and not status:
            shown = b""
            for i in range(16):
                self.bench.dut["host__key_word"] = i
                yield
                shown += self.seen["key"].to_bytes(4, "little")
            assert shown[: len(key)] in keys and shown[len(key) :] == bytes(64 - len(key))
            assert at == self.bench.value(index, model.places[shown[: len(key)]])


def run(bench: Bench, callers: list[Caller], host: Host | None, clocks: int, drain: int = 3000) -> int:
    """Everybody calls; returns how many calls the engine decided."""
    dut, decided = bench.dut, 0
    for clock in range(clocks + drain):
        senders = []
        for core in range(CONFIG.cores):
            mine = [caller for caller in callers if caller.cpu // CONFIG.threads == core]
            for caller in mine:
                if clock < clocks and not caller.busy:
                    caller.wait -= 1
                    if caller.wait < 0:
                        caller.begin()
            senders.append(next((caller for caller in mine if caller.words), None))
        for core, sender in enumerate(senders):
            dut[f"port__{core}__word__valid"] = sender is not None
            if sender:
                fields = {"flags": 0, "last": 0, "number": 0} | sender.words[0]
                dut[f"port__{core}__word__payload"] = packed(EngineWord(CONFIG), **fields)
        if host and (clock < clocks or host.busy):
            next(host.step)
        dut.settle()
        for core, sender in enumerate(senders):
            if sender and dut[f"port__{core}__word__ready"]:
                sender.words.pop(0)
                callers.remove(sender)  # its next word comes behind those of others
                callers.append(sender)
        trace = SharedTrace(CONFIG).from_bits(dut["shared_trace"])
        if trace["valid"]:
            cpu = trace["requester"] * CONFIG.threads + trace["tag"]
            next(caller for caller in callers if caller.cpu == cpu).decide()
            decided += 1
        for core in range(CONFIG.cores):
            if dut[f"port__{core}__answer__valid"]:
                answer = EngineAnswer(CONFIG).from_bits(dut[f"port__{core}__answer__payload"])
                cpu = core * CONFIG.threads + answer["thread"]
                next(caller for caller in callers if caller.cpu == cpu).answered(answer)
        if host:
            host.look()
        bench.tick()
    assert not any(caller.busy for caller in callers) and not (host and host.busy)
    return decided


SIZES = {0: (1, 3, 1), 1: (4, 6, 4), 2: (8, 5, 8), 3: (13, 4, 8), 4: (16, 8, 8), 5: (64, 3, 24)}
"""By map: bytes of a key, entries, bytes of a value."""


def tables_of(bench: Bench, chance: random.Random, buckets):
    """Maps of SIZES and an array; returns a function that gives one of few keys of a map: so that maps are full, and
    with one bucket all keys collide."""
    keys = {}
    for index, (key_size, entries, value_size) in SIZES.items():
        bench.table(index, key_size, entries, value_size, buckets(entries), chance.getrandbits(64))
        pool = {chance.randbytes(key_size) for _ in range(2 * entries)}
        pool.add(bytes(key_size))
        keys[index] = sorted(pool)
    bench.describe(ARRAY, type=MapType.ARRAY, entries=4, stride=8, value_size=8, key_size=4)
    keys[ARRAY] = [i.to_bytes(4, "little") for i in range(6)]
    return lambda index: chance.choice(keys[index])


@pytest.mark.parametrize("buckets", [lambda entries: 1, tables.buckets], ids=["one bucket", "buckets"])
@pytest.mark.parametrize("seed", range(2))
def test_calls_of_all_threads_and_the_host(bench, buckets, seed):
    chance = random.Random(seed)
    key_of = tables_of(bench, chance, buckets)
    callers = [Caller(bench, cpu, chance, key_of) for cpu in range(CPUS)]
    host = Host(bench, chance, key_of)
    assert run(bench, callers, host, 40000) > 400
    wanted = {(command, 0) for command in MapCommand} | {
        (MapCommand.LOOKUP, errno.ENOENT), (MapCommand.DELETE, errno.ENOENT), (MapCommand.NEXT, errno.ENOENT),
        *((MapCommand.INSERT, error) for error in (errno.EINVAL, errno.EEXIST, errno.ENOENT, errno.E2BIG))}  # fmt: skip
    assert wanted <= host.outcomes


class Clocked(Caller):
    """A program that looks up one key, again and again."""

    def begin(self) -> None:
        words = words_of(self.key, self.chance)
        self.index, self.flags, self.call, self.wrong = 4, 0, MapCall.LOOKUP, False
        self.words = [
            {"number": i, "data": word, "last": i == len(words) - 1, "thread": self.cpu % CONFIG.threads,
             "call": self.call, "handle": map_handle(4, len(self.key))}
            for i, word in enumerate(words)
        ]  # fmt: skip
        self.busy, self.expected, self.began = True, None, self.bench.clock

    def answered(self, answer) -> None:
        super().answered(answer)
        self.took.append(self.bench.clock - self.began)
        self.wait = 0


@pytest.mark.parametrize("threads, each", [(1, 34), (CPUS, 31)])
def test_clocks_of_a_look_up(bench, threads, each):
    """A hit with a 16-byte key that is alone in its bucket: from the first word of the key to the answer for a thread
    alone, and from answer to answer where all threads wait."""
    chance = random.Random(1)
    key = chance.randbytes(16)
    bench.table(4, 16, 8, 8, 8, 1)
    writer = Caller(bench, 0, chance, lambda index: key)
    for call, words in ((MapCall.UPDATE, 2), (MapCall.INSERT, 0)):
        writer.index, writer.key, writer.flags, writer.call, writer.wrong = 4, key, 0, call, False
        parts = words_of(key, chance) if words else [0]
        flags = [{"flags": 1, "data": 0}] if words else []
        parts = [{"number": i, "data": word, "last": i == len(parts) - 1} for i, word in enumerate(parts)]
        writer.words = [word | {"thread": 0, "call": call, "handle": map_handle(4, 16)} for word in flags + parts]
        writer.busy, writer.expected, writer.wait = True, None, 0
        run(bench, [writer], None, 0, drain=200)
    callers = [Clocked(bench, cpu, chance, None) for cpu in range(threads)]
    for caller in callers:
        caller.key, caller.took = key, []
    decided = run(bench, callers, None, 4000, drain=1000)
    assert bench.models[4].find(key) is not None
    if threads == 1:
        assert set(callers[0].took) == {each}
    else:
        assert 4000 / decided < each + 1
