"""Maps that have tables, in the map engine beside map memory: random calls of all threads and of the host, in the order
that the engine tells, on golden's models, which are Python dicts and lists."""

import errno
import random
from itertools import count

import pytest
from amaranth import Module
from amaranth.lib.wiring import Component, connect, flipped
from amaranth.sim import Simulator

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import MapEnginePorts, MapMemoryPorts, SharedTrace
from bpfnic.hdl.mapinterfaces import EngineAnswer, EngineWord, MapCall, MapDescriptor, MapOperation, MapRequest
from bpfnic.hdl.maps import MapEngine, MapMemory, finder
from bpfnic.hdl.maps.calls import Calls
from bpfnic.sim.golden.hash import Hash
from bpfnic.sim.golden.lpm import Lpm
from bpfnic.sim.golden.lru import Lru
from bpfnic.sim.golden.queues import Queue
from bpfnic.sim.tablecheck import Layout, contents
from bpfnic.spec import tables
from bpfnic.spec.addresses import INDEX_BYTES, MAP_VALUES, map_handle
from bpfnic.spec.maps import OF_MAPS, PER_CPU, QUEUES, MapType
from bpfnic.spec.registers import HASH_SECRET_WORDS, MapCommand
from tests.hdl.simulated import Library, Simulated

CONFIG = NicConfig(cores=2, threads=8, map_bytes=65536, maps=16)
CPUS = CONFIG.cores * CONFIG.threads
HOST = CPUS
ARRAY = 15
MODELS = {MapType.LRU_HASH: Lru, MapType.LRU_PERCPU_HASH: Lru, MapType.LPM_TRIE: Lpm}

_UPDATED = {(MapCall.UPDATE, -errno.EINVAL), (MapCall.UPDATE, -errno.EEXIST), (MapCall.UPDATE, -errno.ENOENT),
            (MapCall.DELETE, 0), (MapCall.DELETE, -errno.ENOENT), (MapCall.LOOKUP, 0), (MapCall.LOOKUP, 1)}  # fmt: skip
_STORED = {*_UPDATED, (MapCall.INSERT, 0), (MapCall.UPDATE, 1)}
_QUEUED = {(MapCall.PUSH, 1), (MapCall.PUSH, -errno.EINVAL), (MapCall.PUSH, -errno.E2BIG), (MapCall.INSERT, 0),
           (MapCall.POP, 1), (MapCall.PEEK, 1), (MapCall.RELEASE, 0), (MapCall.RELEASE, -errno.ENOENT)}  # fmt: skip
OUTCOMES = {
    MapType.HASH: {*_STORED, (MapCall.UPDATE, -errno.E2BIG)},
    MapType.PERCPU_HASH: {*_UPDATED, (MapCall.UPDATE, 1), (MapCall.UPDATE, -errno.E2BIG)},
    MapType.LRU_HASH: _STORED,
    MapType.LRU_PERCPU_HASH: {*_UPDATED, (MapCall.UPDATE, 1)},
    MapType.LPM_TRIE: {*_STORED, (MapCall.UPDATE, -errno.ENOSPC), (MapCall.DELETE, -errno.EINVAL)},
    MapType.HASH_OF_MAPS: {(MapCall.LOOKUP, 0), (MapCall.LOOKUP, 1)},
    MapType.DEVMAP_HASH: {(MapCall.REDIRECT, 0), (MapCall.REDIRECT, 1)},
    MapType.QUEUE: _QUEUED,
    MapType.STACK: _QUEUED,
}
"""What programs' calls come to: an error, 0, or an address (1)."""

SHAPES = [
    # type, bytes of a key, entries, bytes of a value
    (MapType.HASH, 1, 3, 1),
    (MapType.HASH, 4, 6, 4),
    (MapType.HASH, 13, 4, 8),
    (MapType.HASH, 64, 11, 24),
    (MapType.PERCPU_HASH, 7, 4, 4),
    (MapType.LRU_HASH, 8, 5, 8),
    (MapType.LRU_HASH, 3, 1, 2),
    (MapType.LRU_PERCPU_HASH, 20, 3, 16),
    (MapType.LPM_TRIE, 8, 3, 8),
    (MapType.LPM_TRIE, 5, 2, 1),
    (MapType.LPM_TRIE, 20, 7, 8),
    (MapType.HASH_OF_MAPS, 4, 4, 4),
    (MapType.DEVMAP_HASH, 4, 4, 4),
    (MapType.QUEUE, 0, 3, 12),
    (MapType.STACK, 0, 3, 4),
]  # by index of the map; the array comes last


class EngineAndMemory(Component):
    """The ports of both but for the ways between them."""

    def __init__(self, config: NicConfig):
        self.config = config
        engine, memory = MapEnginePorts(config), MapMemoryPorts(config)
        super().__init__({name: engine[name] for name in ("port", "write", "host", "secret", "shared_trace")}
                         | {"memory": memory["port"]})  # fmt: skip

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.engine = engine = MapEngine(self.config)
        m.submodules.memory = memory = MapMemory(self.config)
        connect(m, engine.table, memory.table)
        connect(m, engine.rows, memory.rows)
        for outer, inner in zip([*self.port, *self.memory], [*engine.port, *memory.port], strict=True):
            connect(m, flipped(outer), inner)
        for name in ("write", "host", "secret"):
            connect(m, flipped(getattr(self, name)), getattr(engine, name))
        for outer, inner in zip(self.shared_trace, engine.shared_trace, strict=True):
            m.d.comb += outer.eq(inner)
        return m


def packed(layout, **fields) -> int:
    return layout.const(fields).as_bits()


class Bench:
    """The engine, its maps, and a model for each."""

    def __init__(self, library: Library, chance: random.Random):
        self.dut = Simulated(library)
        self.clock = 0
        self.maps: dict[int, dict] = {}
        self.layouts: dict[int, Layout] = {}
        self.models: dict[int, Hash | Queue] = {}
        self.end = 0  # of the map memory in use
        for core in range(CONFIG.cores):
            self.dut[f"port__{core}__answer__ready"] = 1
        self.dut["secret__write"] = 1
        for _ in range(HASH_SECRET_WORDS):
            self.dut["secret__data"] = chance.getrandbits(32)
            self.dut.settle()
            self.tick()
        self.dut["secret__write"] = 0

    def tick(self) -> None:
        self.dut.tick()
        self.clock += 1

    def access(self, operation: MapOperation, address: int, data: int = 0, size: int = 8) -> int:
        """By the host; returns what was there."""
        port = f"memory__{CONFIG.cores}__"
        self.dut[port + "request__payload"] = packed(
            MapRequest(CONFIG), tag=0, operation=operation, address=address, bytes=size, data=data
        )
        self.dut[port + "request__valid"] = self.dut[port + "answer__ready"] = 1
        taken = False
        while True:
            self.dut.settle()
            taken = taken or self.dut[port + "request__ready"]
            answered = self.dut[port + "answer__valid"]
            if answered:
                answer = self.dut[port + "answer__payload"]
            self.tick()
            if taken:
                self.dut[port + "request__valid"] = 0
            if answered:
                return answer >> 8

    def read(self, start: int, end: int) -> bytes:
        words = [self.access(MapOperation.LOAD, at).to_bytes(8, "little") for at in range(start, end, 8)]
        return b"".join(words)

    def describe(self, index: int, **fields) -> None:
        self.maps[index] = fields
        self.dut["write__enable"] = 1
        self.dut["write__index"] = index
        self.dut["write__descriptor"] = packed(MapDescriptor(CONFIG), **fields)
        self.dut.settle()
        self.tick()
        self.dut["write__enable"] = 0

    def make(self, index: int, kind: MapType, key_size: int, entries: int, value_size: int, buckets=True) -> None:
        """With `buckets` low, all keys collide."""
        stride = value_size if value_size in (1, 2, 4) and kind not in PER_CPU else -(-value_size // 8) * 8
        places = tables.places(entries, CPUS) + (kind in QUEUES)
        copy = -(-places * stride // 16) * 16
        layout = Layout(kind, key_size, entries, CPUS, self.end + copy * (CPUS if kind in PER_CPU else 1))
        self.describe(index, type=kind, base=self.end, entries=entries, stride=stride, value_size=value_size,
                      cpu_stride=copy if kind in PER_CPU else 0, key_size=key_size, table=layout.table,
                      buckets=tables.buckets(entries) - 1 if buckets else 0, links=layout.links,
                      keys=layout.keys, order=layout.order)  # fmt: skip
        self.end = layout.end
        assert self.end <= CONFIG.map_bytes
        self.layouts[index] = layout
        if kind in QUEUES:
            self.models[index] = Queue(entries, places - 1, kind is MapType.STACK)
        else:
            self.models[index] = MODELS.get(kind, Hash)(key_size, entries, places, lambda place: None)

    def kind(self, index: int) -> MapType:
        return self.maps[index]["type"]

    def value(self, index: int, place: int, cpu: int = 0) -> int:
        its = self.maps[index]
        return its["base"] + its["stride"] * place + its["cpu_stride"] * cpu

    def compare_tables(self) -> None:
        """Whatever lies in map memory is what the models say, place by place."""
        memory = self.read(0, self.end)
        for index, layout in self.layouts.items():
            found, model = contents(memory, layout), self.models[index]
            fresh = range(found.fresh, tables.places(layout.entries, CPUS))
            assert list(model.free) == [*fresh, *found.free], index
            assert found.reserved == model.reserved, index
            if isinstance(model, Queue):
                assert found.order == list(model.queued) and found.read == model.read, index
            elif isinstance(model, Lpm):
                assert {model.written[key]: place for key, place in model.places.items()} == found.keys, index
            else:
                assert found.keys == model.places, index
            if isinstance(model, Lru):
                assert found.order == [model.places[key] for key in model.used], index


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    """A search gives up earlier than a NIC's, so that a test sees it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finder, "_AGE_CLOCKS", 12)
        return Library(EngineAndMemory(CONFIG), tmp_path_factory.mktemp("engine"))


@pytest.fixture
def bench(library, request) -> Bench:
    return Bench(library, random.Random(request.node.name))


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
        self.copies = False
        self.busy = False
        self.ends = None  # the call behind the copy: what, map, key and flags
        self.wait = 0
        self.only = None  # the map that it calls alone
        self.done: set[tuple] = set()

    def begin(self, traps: bool | None = None) -> None:
        chance, bench = self.chance, self.bench
        if self.ends and chance.random() < 0.95:  # otherwise the program trapped in the copy
            self.call, self.index, self.key, self.flags = self.ends
        else:
            self.index = chance.choice([*bench.maps]) if self.only is None else self.only
            self.key, self.flags = self.key_of(self.index), chance.choice([0, 0, 0, 0, 1, 2, 3, 4, 1 << 40])
            kind = bench.kind(self.index)
            calls = [MapCall.LOOKUP, MapCall.LOOKUP, MapCall.UPDATE, MapCall.UPDATE, MapCall.DELETE, MapCall.CHECK]
            if kind in QUEUES:
                calls = [MapCall.PUSH, MapCall.PUSH, MapCall.POP, MapCall.PEEK]
            elif kind in OF_MAPS:
                calls = [MapCall.LOOKUP]
            elif kind is MapType.DEVMAP_HASH:
                calls = [MapCall.REDIRECT]
            self.call = chance.choice(calls)
        self.start(traps)

    def start(self, traps: bool | None = None) -> None:
        """traps: whether the map is none for this call; otherwise the handle says so, now and then."""
        chance = self.chance
        self.ends = None
        match self.call:
            case MapCall.INSERT | MapCall.RELEASE | MapCall.POP | MapCall.PEEK:
                self.words = [{"last": 1, "data": chance.getrandbits(64)}]
            case MapCall.PUSH:
                self.words = [{"last": 1, "flags": 1, "data": self.flags}]
            case _:
                words = words_of(self.key, chance)
                self.words = [{"number": i, "data": word, "last": i == len(words) - 1} for i, word in enumerate(words)]
                if self.call == MapCall.UPDATE:
                    self.words.insert(0, {"flags": 1, "data": self.flags})
        size = len(self.key) or INDEX_BYTES
        self.wrong = self.call not in (MapCall.INSERT, MapCall.RELEASE) and chance.random() < 0.05
        wrongs = [8, 1 << 63] if self.call in (MapCall.PUSH, MapCall.POP, MapCall.PEEK) else [1 << 16, 1 << 21, 8]
        handle = map_handle(self.index, size) ^ (self.wrong and chance.choice(wrongs))
        if traps is not None:
            self.wrong, handle = traps, map_handle(self.index, size)
        for word in self.words:
            word |= {"thread": self.cpu % CONFIG.threads, "call": self.call, "handle": handle}
        self.busy, self.expected, self.copies = True, None, False

    def decide(self) -> None:
        """The engine decides: so does the model."""
        assert self.busy and self.expected is None and not self.words
        self.expected = self._decided(self.bench.models[self.index])

    def _decided(self, model) -> int:
        own_values = self.bench.kind(self.index) in PER_CPU
        match self.call:
            case MapCall.LOOKUP | MapCall.REDIRECT:
                place = model.find(self.key)
                if place is None:
                    return 0
                if isinstance(model, Lru):
                    model.use(self.key)
                self.copies = self.bench.kind(self.index) in (MapType.HASH_OF_MAPS, MapType.DEVMAP_HASH)
                return self.value(place)
            case MapCall.UPDATE:
                if error := model.refuses(self.key, self.flags):
                    return -error
                self.copies = True
                if own_values:
                    return self.value(model.claim(self.key))
                self.ends = MapCall.INSERT, self.index, self.key, self.flags
                return self.value(model.reserve(self.key, self.cpu))
            case MapCall.DELETE:
                return -model.delete(self.key)
            case MapCall.PUSH:
                model.release(self.cpu)
                if error := model.refuses(self.flags):
                    return -error
                self.copies, self.ends = True, (MapCall.INSERT, self.index, b"", self.flags)
                return self.value(model.reserve(self.cpu))
            case MapCall.POP | MapCall.PEEK:
                model.release(self.cpu)
                place = model.pop(self.cpu) if self.call == MapCall.POP else model.peek(self.cpu)
                self.copies, self.ends = True, (MapCall.RELEASE, self.index, b"", 0)
                return self.value(model.entries + CPUS + 1 if place is None else place)
            case MapCall.RELEASE:
                return 0 if model.release(self.cpu) else -errno.ENOENT
            case MapCall.INSERT if isinstance(model, Queue):
                return -model.insert(self.cpu, self.flags)
            case MapCall.INSERT:
                return -model.insert(self.key, self.cpu, self.flags)

    def value(self, place: int) -> int:
        own = self.bench.kind(self.index) in PER_CPU
        return MAP_VALUES + self.bench.value(self.index, place, self.cpu if own else 0)

    def answered(self, answer) -> None:
        assert self.busy and answer["trap"] == self.wrong, (self.call, self.bench.kind(self.index))
        if not self.wrong and self.call != MapCall.CHECK:
            if self.index == ARRAY:
                self.expected = self.array()
                self.copies = self.call == MapCall.UPDATE and self.expected > 0
            assert self.expected is not None, "answered before it was decided"
            assert answer["value"] == self.expected % 2**64, (self.call, self.index, self.key, self.flags)
            assert answer["copy"] == self.copies, (self.call, self.index)
            if self.copies and self.call not in (MapCall.LOOKUP, MapCall.REDIRECT):
                assert answer["insert"] == (self.ends is not None)
                assert answer["size"] == self.bench.maps[self.index]["value_size"]
            self.done.add((self.bench.kind(self.index), self.call, min(self.expected, 1)))  # an error, 0, an address
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
        self.seen = {"done": 0, "status": 0, "value": 0, "key": 0}
        self.outcomes: set[tuple[MapCommand, int]] = set()
        self.step = self._live()

    def look(self) -> None:
        self.seen = {name: self.bench.dut["host__" + name] for name in self.seen}

    def _live(self):
        chance, index = self.chance, 0
        while True:
            yield
            if chance.random() >= 0.3:
                continue
            self.busy = True
            if chance.random() < 0.3:  # stays with a map for a while
                index = chance.choice([*self.bench.models])
            flags = chance.choice([0, 0, 0, 1, 1, 2, 3])
            key, operation = self.key_of(index), chance.choice(list(MapCommand))
            yield from self.set_key(key)
            yield from self.command(index, operation, flags)
            yield from self._compare(index, key, operation, flags)
            self.busy = False

    def set_key(self, key: bytes):
        dut = self.bench.dut
        dut["host__key_write"] = 1
        for i in range(16):
            dut["host__key_word"] = i
            dut["host__key_data"] = int.from_bytes(key[4 * i : 4 * i + 4].ljust(4, b"\xa5"), "little")
            yield
        dut["host__key_write"] = 0

    def command(self, index: int, operation: MapCommand, flags: int = 0):
        dut = self.bench.dut
        dut["host__index"], dut["host__operation"], dut["host__flags"] = index, operation, flags
        dut["host__command"], self.seen["done"] = 1, 0
        while not self.seen["done"]:
            yield
        dut["host__command"] = 0

    def key(self):
        shown = b""
        for i in range(16):
            self.bench.dut["host__key_word"] = i
            yield
            shown += self.seen["key"].to_bytes(4, "little")
        return shown

    def _compare(self, index: int, key: bytes, operation: MapCommand, flags: int):
        model, keys = self.bench.models[index], None
        queue = isinstance(model, Queue)
        if queue and operation in (MapCommand.LOOKUP, MapCommand.RESERVE, MapCommand.INSERT, MapCommand.POP):
            model.release(HOST)
        status, place = errno.EINVAL if queue else 0, None
        match operation:
            case MapCommand.LOOKUP | MapCommand.POP:
                if queue:
                    place = model.peek(HOST) if operation == MapCommand.LOOKUP else model.pop(HOST)
                elif operation == MapCommand.LOOKUP:
                    place = model.find(key)
                elif isinstance(model, Lpm):  # of just this prefix; the driver doesn't ask for it
                    prefix = model._prefix(key)
                    there = prefix is not None and prefix in model.places
                    place = model.pop(prefix, HOST) if there else None
                else:
                    place = model.pop(key, HOST)
                status = errno.ENOENT if place is None else 0
            case MapCommand.RESERVE:
                status, place = 0, model.reserve(HOST) if queue else model.reserve(key, HOST)
            case MapCommand.INSERT:
                status = model.insert(HOST, flags) if queue else model.insert(key, HOST, flags)
            case MapCommand.DELETE if not queue:
                status = model.delete(key)
            case MapCommand.FIRST | MapCommand.NEXT if not queue:  # any order will do: a walk has its own test
                keys = {model.written[at] for at in model.places} if isinstance(model, Lpm) else set(model.places)
                last = operation == MapCommand.NEXT and self._known(model, key)
                status = self.seen["status"] if last else 0 if keys else errno.ENOENT
        assert self.seen["status"] == status, (operation, index, key, self.seen)
        assert place is None or self.seen["value"] == self.bench.value(index, place), (operation, index)
        self.outcomes.add((operation, status))
        if keys is not None and not status:
            shown = yield from self.key()
            assert shown[: len(key)] in keys and shown[len(key) :] == bytes(64 - len(key))

    @staticmethod
    def _known(model, key: bytes) -> bool:
        return (model._prefix(key) if isinstance(model, Lpm) else key) in model.places


def run(bench: Bench, callers: list[Caller], host: Host | None, clocks: int, drain: int = 4000) -> int:
    """Everybody calls; returns how many calls the engine decided."""
    dut, decided = bench.dut, 0
    layout, width = SharedTrace(CONFIG), SharedTrace(CONFIG).size
    for clock in range(clocks + drain):
        if clock >= clocks and not any(caller.busy for caller in callers) and not (host and host.busy):
            break
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
        for number in count():  # the serial unit's first
            try:
                trace = layout.from_bits(dut[f"shared_trace__{number}"] & (1 << width) - 1)
            except KeyError:
                break
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


def prefixes(chance: random.Random, key_bytes: int, number: int) -> list[bytes]:
    """Prefixes of all lengths, and longer ones than there can be, of addresses that begin alike."""
    bits = 8 * (key_bytes - 4)
    found = []
    for _ in range(number):
        length = chance.choice([0, 1, chance.randint(0, bits), chance.randint(0, bits), bits, bits, bits + 1, 1 << 31])
        address = (1 << bits) - 1 ^ (chance.choice([0, 0, 1]) << chance.randrange(bits))
        found.append(length.to_bytes(4, "little") + address.to_bytes(key_bytes - 4, "big"))
    return found


def tables_of(bench: Bench, chance: random.Random, buckets: bool):
    """Maps of SHAPES and an array; returns a function that gives one of few keys of a map: so that maps are full."""
    keys = {}
    for index, (kind, key_size, entries, value_size) in enumerate(SHAPES):
        bench.make(index, kind, key_size, entries, value_size, buckets)
        if kind is MapType.LPM_TRIE:
            keys[index] = prefixes(chance, key_size, 6 * entries)
        else:
            keys[index] = sorted({bytes(key_size), *(chance.randbytes(key_size) for _ in range(entries + 3))})
    bench.describe(ARRAY, type=MapType.ARRAY, base=bench.end, entries=4, stride=8, value_size=8, cpu_stride=0,
                   key_size=4)  # fmt: skip
    keys[ARRAY] = [i.to_bytes(4, "little") for i in range(6)]
    return lambda index: chance.choice(keys[index])


def test_calls_of_all_threads_and_the_host(library):
    commands, done = set(), set()
    for seed, buckets in enumerate((False, True, False, True)):
        chance = random.Random(seed)
        bench = Bench(library, chance)
        key_of = tables_of(bench, chance, buckets)
        callers = [Caller(bench, cpu, chance, key_of) for cpu in range(CPUS)]
        host = Host(bench, chance, key_of)
        for _ in range(4):
            assert run(bench, callers, host, 20000) > 200
            bench.compare_tables()
        commands |= host.outcomes
        done |= {each for caller in callers for each in caller.done}
    refused = errno.EINVAL, errno.EEXIST, errno.ENOENT, errno.E2BIG, errno.ENOSPC
    assert commands >= {
        *((command, 0) for command in MapCommand), *((MapCommand.INSERT, error) for error in refused),
        (MapCommand.LOOKUP, errno.ENOENT), (MapCommand.DELETE, errno.ENOENT), (MapCommand.NEXT, errno.ENOENT),
    }  # fmt: skip
    for kind, *_ in SHAPES:
        assert OUTCOMES[kind] <= {(call, outcome) for its, call, outcome in done if its is kind}, kind


QUEUES_ALONE = NicConfig(cores=2, threads=8, map_bytes=65536, maps=16, map_types=QUEUES | {MapType.ARRAY})
ARRAYS_ALONE = NicConfig(map_types=frozenset({MapType.ARRAY}))


def test_an_engine_of_arrays_alone_refuses_the_hosts_commands():
    dut = Calls(ARRAYS_ALONE)

    async def bench(context):
        assert not context.get(dut.host.done)
        context.set(dut.host.command, 1)
        assert context.get(dut.host.done) and context.get(dut.host.status) == errno.EINVAL

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()


def test_an_engine_of_queues_alone(tmp_path):
    """It refuses what it hasn't got: a program's call traps, a command of the host is EINVAL."""
    chance = random.Random(4)
    bench = Bench(Library(EngineAndMemory(QUEUES_ALONE), tmp_path), chance)
    key_of = tables_of(bench, chance, True)
    has = {index for index in bench.maps if bench.kind(index) in QUEUES_ALONE.map_types}
    callers = [Caller(bench, cpu, chance, key_of) for cpu in range(CPUS)]
    for caller in callers:
        caller.only = chance.choice([*has])
    run(bench, callers, None, 6000)
    assert {kind for caller in callers for kind, *_ in caller.done} == QUEUES_ALONE.map_types

    refused = []

    def steps(host):
        for index in bench.models.keys() - has:
            for operation in MapCommand:
                yield from host.command(index, operation)
                refused.append(host.seen["status"])

    host_does(bench, steps)
    assert set(refused) == {errno.EINVAL}
    for index in bench.models.keys() - has:
        callers[0].only, callers[0].busy, callers[0].ends = index, False, None
        callers[0].begin(traps=True)
        run(bench, callers[:1], None, 0)


class Clocked(Caller):
    """A program that looks up one key, again and again."""

    def begin(self) -> None:
        self.call, self.flags = MapCall.LOOKUP, 0
        self.start(traps=False)
        self.began = self.bench.clock

    def answered(self, answer) -> None:
        super().answered(answer)
        assert self.expected > 0
        self.took.append(self.bench.clock - self.began)
        self.wait = 0


def host_does(bench: Bench, steps) -> None:
    """Only the host, until it has done these steps."""
    host = Host(bench, random.Random(0), None)
    host.step = steps(host)
    host.busy = True
    while True:
        try:
            next(host.step)
        except StopIteration:
            return
        bench.dut.settle()
        host.look()
        bench.tick()


def put(bench: Bench, index: int, key: bytes) -> None:
    """The host puts a key into a map, and so does the model."""
    model = bench.models[index]
    model.reserve(key, HOST)
    assert not model.insert(key, HOST, 0)

    def steps(host):
        yield from host.set_key(key)
        for command in (MapCommand.RESERVE, MapCommand.INSERT):
            yield from host.command(index, command)
            assert host.seen["status"] == 0

    host_does(bench, steps)


@pytest.mark.parametrize("buckets", [False, True], ids=["one bucket", "buckets"])
@pytest.mark.parametrize("busy", [False, True], ids=["alone", "between calls"])
def test_a_walk_visits_every_key_once(bench, buckets, busy):
    """In a table whose buckets are empty for the most part, whose chains are long for the rest, while programs call."""
    chance = random.Random(2)
    bench.make(0, MapType.HASH, 6, 600, 8, buckets)
    bench.make(1, MapType.LRU_HASH, 4, 5, 8)
    keys = {chance.randbytes(6) for _ in range(40)}
    for key in sorted(keys):
        put(bench, 0, key)
    walked = []

    def steps(host):
        yield from host.command(0, MapCommand.FIRST)
        while host.seen["status"] == 0:
            place = host.seen["value"]
            key = (yield from host.key())[:6]
            assert bench.value(0, bench.models[0].find(key)) == place
            walked.append(key)
            yield from host.command(0, MapCommand.NEXT)
        assert host.seen["status"] == errno.ENOENT
        host.busy = False
        while True:
            yield

    host = Host(bench, chance, None)
    host.step, host.busy = steps(host), True
    callers = [Caller(bench, cpu, chance, lambda index: bytes([chance.randrange(9)] * 4)) for cpu in range(CPUS)]
    for caller in callers:
        caller.only = 1
    decided = run(bench, callers if busy else [], host, 0 if not busy else 20000, drain=30000)
    assert len(walked) == len(keys) and set(walked) == keys
    assert bool(decided) == busy


@pytest.mark.parametrize("kind", [MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH], ids=lambda kind: kind.name)
def test_a_new_value_is_zeros_for_every_cpu(bench, kind):
    """Whatever lay there; what lies beside it stays."""
    bench.make(0, kind, 4, 2, 20)
    start, end = 0, bench.layouts[0].table
    for at in range(start, end, 8):
        bench.access(MapOperation.STORE, at, 2**64 - 1)
    caller = Caller(bench, 3, random.Random(1), None)
    caller.call, caller.index, caller.key, caller.flags = MapCall.UPDATE, 0, b"abcd", 0
    caller.start(traps=False)
    run(bench, [caller], None, 0)
    assert not bench.models[0].refuses(b"abcd", 2)
    place = bench.models[0].find(b"abcd")
    memory = bytearray(b"\xff" * (end - start))
    for cpu in range(CPUS):
        at = bench.value(0, place, cpu)
        memory[at : at + 24] = bytes(24)
    assert bench.read(start, end) == memory


class Reckless(Caller):
    """Calls whatever the tables say."""

    def decide(self) -> None:
        assert self.busy

    def answered(self, answer) -> None:
        assert self.busy
        if answer["copy"] and answer["insert"] and self.call != MapCall.LOOKUP:
            ends = MapCall.RELEASE if self.call in (MapCall.POP, MapCall.PEEK) else MapCall.INSERT
            self.ends = ends, self.index, self.key, self.flags
        self.busy, self.wait = False, 0


class RecklessHost(Host):
    def _compare(self, index: int, key: bytes, operation: MapCommand, flags: int):
        self.outcomes.add((operation, self.seen["status"]))
        yield


def test_nothing_hangs_whatever_programs_write_into_tables(bench):
    """Every table is random bytes, or numbers of places; and an array beside them answers as ever."""
    chance = random.Random(3)
    key_of = tables_of(bench, chance, True)
    host = RecklessHost(bench, chance, key_of)
    for few in (False, True):
        for layout in bench.layouts.values():
            for at in range(layout.table, layout.end, 4):
                bench.access(MapOperation.STORE, at, chance.randrange(9) if few else chance.getrandbits(32), 4)
        callers = [Reckless(bench, cpu, chance, key_of) for cpu in range(CPUS - 1)]
        array = Caller(bench, CPUS - 1, chance, key_of)
        array.only = ARRAY
        run(bench, [*callers, array], host, 60000, drain=400000)
        assert {call for _, call, _ in array.done} == {MapCall.LOOKUP, MapCall.UPDATE, MapCall.DELETE}
    assert {command for command, _ in host.outcomes} == set(MapCommand)


def measured(bench: Bench, index: int, key: bytes, threads: int) -> tuple[list[int], float]:
    """Clocks from the first word of a look-up's key to its answer, and from answer to answer."""
    chance = random.Random(1)
    callers = [Clocked(bench, cpu, chance, None) for cpu in range(threads)]
    for caller in callers:
        caller.index, caller.key, caller.took = index, key, []
    decided = run(bench, callers, None, 4000)
    return [clocks for caller in callers for clocks in caller.took], 4000 / decided


def test_clocks_of_a_longest_prefix(bench):
    """Of an IPv4 address, where 8 prefixes of it are in the map, or only the shortest of the 8 that there are."""
    bench.make(0, MapType.LPM_TRIE, 8, 16, 8)
    for length in range(32, 0, -4):
        put(bench, 0, length.to_bytes(4, "little") + bytes([10, 20, 30, 40]))
    for address in (bytes([10, 20, 30, 40]), bytes([0, 255, 255, 255])):
        alone, _ = measured(bench, 0, (32).to_bytes(4, "little") + address, 1)
        assert max(alone) <= 55
        _, each = measured(bench, 0, (32).to_bytes(4, "little") + address, CPUS)
        assert each <= 45


def test_clocks_of_a_map_that_evicts(bench):
    """A hit with a 16-byte key: first it becomes the newest entry, then it is."""
    bench.make(0, MapType.LRU_HASH, 16, 16, 8)
    for key in range(4):
        put(bench, 0, bytes([key]) * 16)
    first, *later = measured(bench, 0, bytes([1]) * 16, 1)[0]
    assert first <= 72 and max(later) <= 44


class Once(Caller):
    """A program that calls once."""

    def call_once(self, call: MapCall, index: int, key: bytes) -> int:
        """Clocks of one call, from its first word to the answer."""
        self.call, self.index, self.key, self.flags = call, index, key, 0
        return self._timed()

    def end(self) -> int:
        """The same of the one behind the copy."""
        self.call, self.index, self.key, self.flags = self.ends
        return self._timed()

    def _timed(self) -> int:
        self.start(traps=False)
        began = self.bench.clock
        run(self.bench, [self], None, 0)
        assert self.expected >= 0
        return self.answered_at - began

    def answered(self, answer) -> None:
        super().answered(answer)
        self.answered_at = self.bench.clock


@pytest.mark.parametrize("kind, update, insert, delete", [
    (MapType.HASH, 82, 115, 80),
    (MapType.LRU_HASH, 82, 222, 92),  # of which most for the key that goes
    (MapType.LPM_TRIE, 92, 132, 98),
    (MapType.PERCPU_HASH, 292, None, 80),  # zeros for 16 CPUs
], ids=lambda value: getattr(value, "name", None))  # fmt: skip
def test_clocks_of_changes(bench, kind, update, insert, delete):
    """A new key, where a map that evicts is full; and its deletion. Keys of 16 bytes, of IPv4 addresses 8."""
    bench.make(0, kind, 8 if kind is MapType.LPM_TRIE else 16, 4, 8)
    keys = [bytes([24, 0, 0, 0, n, n, n, 0]) if kind is MapType.LPM_TRIE else bytes([n] * 16) for n in range(5)]
    caller = Once(bench, 3, random.Random(1), None)
    for key in keys if kind is MapType.LRU_HASH else keys[:4]:
        took = caller.call_once(MapCall.UPDATE, 0, key)
        ended = caller.end() if insert else 0
    assert took <= update and ended <= (insert or 0)
    assert caller.call_once(MapCall.DELETE, 0, key) <= delete
