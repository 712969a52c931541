"""The map engine beside map memory: its maps, and a model of each on golden, which is a Python dict or list."""

import random

from amaranth import Module
from amaranth.lib.wiring import Component, connect, flipped

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import MapEnginePorts, MapMemoryPorts
from bpfnic.hdl.mapinterfaces import MapDescriptor, MapOperation, MapRequest
from bpfnic.hdl.maps import MapEngine, MapMemory
from bpfnic.sim.golden.hash import Hash
from bpfnic.sim.golden.lpm import Lpm
from bpfnic.sim.golden.lru import Lru
from bpfnic.sim.golden.queues import Queue
from bpfnic.sim.tablecheck import Layout, contents
from bpfnic.spec import tables
from bpfnic.spec.addresses import MAX_KEY_BYTES
from bpfnic.spec.maps import PER_CPU, QUEUES, MapType
from bpfnic.spec.registers import HASH_SECRET_WORDS
from tests.hdl.simulated import Fields, Library, Simulated, packed

CONFIG = NicConfig(cores=2, threads=8, map_bytes=65536, maps=16)
CPUS = CONFIG.cores * CONFIG.threads
HOST = CPUS
REQUEST = Fields(MapRequest(CONFIG))
WALKED_KEYS = CONFIG.map_bytes - CPUS * MAX_KEY_BYTES
"""Where in map memory each CPU's walks leave keys."""
ARRAY = 15
MODELS = {MapType.LRU_HASH: Lru, MapType.LRU_PERCPU_HASH: Lru, MapType.LPM_TRIE: Lpm}


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
        self.dut[port + "request__payload"] = REQUEST.pack(
            tag=0, operation=operation.value, address=address, bytes=size, data=data
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
        assert self.end <= WALKED_KEYS
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
