"""Rings beside map memory: random calls of all CPUs and programs that end with records reserved, in the order that the
unit tells, on golden's Ring; and the frames that leave, byte by byte."""

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from errno import EAGAIN, EINVAL, ENOSPC

import pytest
from amaranth import Module
from amaranth.lib.wiring import Component, connect, flipped

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import EGRESS_USER, Beat, EmitTrace, MapMemoryPorts
from bpfnic.hdl.mapinterfaces import EngineWord, MapCall, MapDescriptor, MapOperation, MapRequest
from bpfnic.hdl.maps import MapMemory
from bpfnic.hdl.maps.ring import RingCall
from bpfnic.hdl.maps.rings import Rings, RingsPorts
from bpfnic.hdl.maps.sharing import Turns
from bpfnic.sim.golden.ring import Ring, event_refused
from bpfnic.spec.addresses import MAP_VALUES
from bpfnic.spec.maps import MapType
from bpfnic.spec.rings import CURRENT_CPU, EVENT_USER_BIT, LONGEST_COPY, PACKET_BYTES_SHIFT, RingState
from tests.hdl.simulated import Fields, Library, Simulated, packed

CONFIG = NicConfig(cores=2, threads=8, map_bytes=32768, maps=8)
CPUS = CONFIG.cores * CONFIG.threads
HOST = f"memory__{CONFIG.cores}__"
EMITS, BEAT = Fields(EmitTrace(CONFIG)), Fields(Beat(EGRESS_USER))
PACKET = 100  # bytes of every packet
ENTRIES = 20  # of a PERF_EVENT_ARRAY: four that no CPU has
RESERVING = (MapCall.RESERVE, MapCall.OUTPUT, MapCall.EVENT)


class RingsAndMemory(Component):
    """The ports of both but for the rings' way, on which the unit and the emitter take turns."""

    def __init__(self, config: NicConfig):
        self.config = config
        rings = RingsPorts(config)
        self.names = [name for name in rings if name not in ("table", "emitter_table")]
        super().__init__({name: rings[name] for name in self.names} | {"memory": MapMemoryPorts(config)["port"]})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.rings = rings = Rings(self.config)
        m.submodules.memory = memory = MapMemory(self.config)
        m.submodules.turns = turns = Turns(self.config, users=3)  # the last one would be the finder
        connect(m, rings.table, turns.users[0])
        connect(m, rings.emitter_table, turns.users[1])
        connect(m, turns.table, memory.table)
        for outer, inner in zip(self.memory, memory.port, strict=True):
            connect(m, flipped(outer), inner)
        connect(m, flipped(self.write), rings.write)
        connect(m, rings.frames, flipped(self.frames))
        for name in self.names:
            if name in ("write", "frames"):
                continue
            outer, inner = getattr(self, name), getattr(rings, name)
            pairs = zip(outer, inner, strict=True) if name == "ended_thread" else [(outer, inner)]
            incoming = self.signature.members[name].flow.name == "In"
            for one, other in pairs:
                m.d.comb += other.eq(one) if incoming else one.eq(other)
        return m


@dataclass
class Cpu:
    """A CPU and its program's run."""

    number: int
    run: object = field(default_factory=object)
    reserved: list[tuple[int, int]] = field(default_factory=list)  # records: byte offset, length
    words: deque = field(default_factory=deque)  # of the call that it makes
    call: MapCall | None = None
    index: int = 0
    arguments: tuple[int, ...] = ()
    expected: tuple | None = None  # trap, copy, value
    stores: deque = field(default_factory=deque)  # address and bytes of a record that it copies
    copying: int | None = None  # the map of that record
    copied_at: int = 0  # byte offset of that record
    wait: int = 0


class Bench:
    """Rings on some maps, a model of each, and CPUs that call. `seen`: how often each call ended in which way."""

    def __init__(self, library: Library, seed: int, stall: float = 0.2):
        self.dut = Simulated(library)
        self.chance = random.Random(seed)
        self.memory = bytearray(CONFIG.map_bytes)
        self.models: dict[int, Ring] = {}
        self.descriptors: dict[int, int] = {}
        self.types: dict[int, MapType] = {}
        self.cpus = [Cpu(number) for number in range(CPUS)]
        self.waiting: deque[Cpu] = deque()  # for the unit
        self.served: Cpu | None = None
        self.frames: deque[bytes] = deque()  # that must leave
        self.received: deque[bytes] = deque()
        self.frame = b""
        self.storing: Cpu | None = None
        self.stall = stall
        self.seen: Counter = Counter()
        self.emitted = 0
        self.dut[HOST + "answer__ready"] = 1

    def ring(self, index: int, kind: MapType, base: int, size: int) -> None:
        entries = ENTRIES if kind is MapType.PERF_EVENT_ARRAY else size
        self.types[index] = kind
        self.descriptors[index] = packed(MapDescriptor(CONFIG), type=kind, base=base, entries=entries, table=size - 1)
        self.models[index] = Ring(self.memory, index, base, size)
        dut = self.dut
        dut["write__enable"], dut["write__index"], dut["write__descriptor"] = 1, index, self.descriptors[index]
        dut.settle()
        dut.tick()
        dut["write__enable"] = 0

    # -- what CPUs do

    def choose(self, cpu: Cpu) -> None:
        chance = self.chance
        if cpu.stores or self.storing is cpu or cpu.wait > 0:
            cpu.wait -= 1
            return
        if chance.random() < 0.04:
            self.end(cpu)
        elif cpu.copying is not None:
            self.begin(cpu, MapCall.INSERT, cpu.copying, ())
            cpu.copying = None
        else:
            index = chance.choice(list(self.models))
            if self.types[index] is MapType.PERF_EVENT_ARRAY:
                entry = chance.choice([CURRENT_CPU] * 6 + [cpu.number] * 3 + [0, 17, ENTRIES, 1 << 31])
                packet = chance.choice([0, 0, 0, 1, 60, 100, 1 << 19, 1 << 20])
                self.begin(cpu, MapCall.EVENT, index, (packet << PACKET_BYTES_SHIFT | entry, self.size(index)))
            else:
                call = chance.choice([MapCall.RESERVE, MapCall.OUTPUT, MapCall.SUBMIT, MapCall.DISCARD, MapCall.QUERY])
                if cpu.reserved and chance.random() < 0.5:
                    call = chance.choice([MapCall.SUBMIT, MapCall.SUBMIT, MapCall.DISCARD])
                if call in (MapCall.SUBMIT, MapCall.DISCARD):
                    self.begin(cpu, call, index, (self.record(cpu),))
                elif call == MapCall.QUERY:
                    self.begin(cpu, call, index, (chance.choice([0, 1, 2, 3, 4, 1 << 17, 1 << 63]),))
                else:
                    flags = chance.choice([0, 0, 0, 0, 0, 1, 2, 3, 4, 1 << 40])
                    self.begin(cpu, call, index, (flags, self.size(index)))

    def size(self, index: int) -> int:
        most = self.models[index].size
        long = [most // 2, most - 9, most - 8, most, LONGEST_COPY + 1, 1 << 20, 1 << 63]
        return self.chance.choice([0, 1, 7, 8, 9, 40, 64, 100] if self.chance.random() < 0.7 else long)

    def record(self, cpu: Cpu) -> int:
        """The address of a record, mostly one that this run has reserved."""
        others = [offset for other in self.cpus for offset, _ in other.reserved if other is not cpu]
        if cpu.reserved and self.chance.random() < 0.9:
            return MAP_VALUES + self.chance.choice(cpu.reserved)[0]
        wrong = [0, 4, 1 << 32, (1 << 64) - 8, CONFIG.map_bytes, *others[:3]]
        return MAP_VALUES + self.chance.choice(wrong) & (1 << 64) - 1

    def begin(self, cpu: Cpu, call: MapCall, index: int, arguments: tuple[int, ...]) -> None:
        cpu.call, cpu.index, cpu.arguments, cpu.expected = call, index, arguments, None
        any_word = self.chance.getrandbits(64)
        word = {"thread": cpu.number % CONFIG.threads, "call": call, "number": 0, "handle": any_word, "flags": 0}
        if call in RESERVING:
            cpu.words.append(word | {"data": arguments[0], "flags": 1, "last": 0})
            cpu.words.append(word | {"data": arguments[1], "last": call != MapCall.EVENT})
            if call == MapCall.EVENT:
                data = self.chance.randrange(1 << 18, 1 << 19)
                cpu.words.append(word | {"data": data | data + PACKET << 32, "last": 1})
        elif call in (MapCall.SUBMIT, MapCall.DISCARD):
            cpu.words.append(word | {"data": any_word, "flags": 1, "last": 1, "handle": arguments[0]})
        else:
            cpu.words.append(word | {"data": arguments[0] if arguments else any_word, "last": 1})

    def end(self, cpu: Cpu) -> None:
        """Its program ends, whatever it has reserved."""
        core, thread = divmod(cpu.number, CONFIG.threads)
        if self.dut["ended"] >> core & 1:
            return
        self.dut["ended"] |= 1 << core
        self.dut[f"ended_thread__{core}"] = thread
        for model in self.models.values():
            model.end(cpu.run)
        self.seen["left behind"] += bool(cpu.reserved) + (cpu.copying is not None)
        cpu.run, cpu.reserved, cpu.copying = object(), [], None

    def decide(self, cpu: Cpu) -> None:
        """What the call must answer, by the model."""
        model, call, arguments = self.models[cpu.index], cpu.call, cpu.arguments
        trap, copy, value, what = 0, 0, 0, "done"
        if call in (MapCall.SUBMIT, MapCall.DISCARD):
            offset = arguments[0] - MAP_VALUES
            done = any(each.commit(cpu.run, offset, call == MapCall.DISCARD) for each in self.models.values())
            cpu.reserved = [record for record in cpu.reserved if record[0] != offset]
            trap, what = int(not done), "done" if done else "trap"
        elif call == MapCall.INSERT:
            assert model.commit(cpu.run, cpu.copied_at, False)
        elif call == MapCall.QUERY:
            value = model.query(arguments[0])
        else:
            error, length = 0, arguments[1]
            if call == MapCall.OUTPUT and arguments[0] & ~3:
                error = EINVAL
            if call == MapCall.EVENT:
                error = event_refused(arguments[0], cpu.number, CPUS, ENTRIES, PACKET)
                length += arguments[0] >> PACKET_BYTES_SHIFT
            if call == MapCall.RESERVE and arguments[0]:
                what = "flags"
            elif not error:
                fits = call == MapCall.RESERVE or arguments[1] <= LONGEST_COPY
                offset = model.reserve(cpu.run, cpu.number, length) if fits else None
                if offset is None:
                    what = "full"
                    error = {MapCall.OUTPUT: EAGAIN, MapCall.EVENT: ENOSPC, MapCall.RESERVE: 0}[call]
                    if call == MapCall.EVENT:
                        model.lose()
                elif call == MapCall.RESERVE:
                    value = MAP_VALUES + offset
                    cpu.reserved.append((offset, length))
                elif length:
                    value, copy = MAP_VALUES + offset, 1
                else:
                    model.commit(cpu.run, offset, False)
                    what = "empty"
            if error:
                value, what = -error, error
        cpu.expected = trap, copy, value % 2**64
        self.seen[call.name, what] += 1

    def answered(self, cpu: Cpu) -> None:
        dut = self.dut
        assert cpu.expected is not None, "answered before it was decided"
        trap, copy, value = cpu.expected
        got = (dut["trap"], 0 if trap else dut["copy"], 0 if trap else dut["value"])
        assert got == (trap, copy, 0 if trap else value), (cpu.call, cpu.index, cpu.arguments, got)
        length = None
        if copy:
            assert dut["size"] == cpu.arguments[1]
            length = cpu.arguments[1] + (cpu.arguments[0] >> PACKET_BYTES_SHIFT if cpu.call == MapCall.EVENT else 0)
            cpu.copying = cpu.index
            cpu.copied_at = value - MAP_VALUES
        elif cpu.call == MapCall.RESERVE and value:
            length = cpu.arguments[1]
        if length:
            done = length if self.chance.random() < 0.9 else self.chance.randrange(length)  # bytes that it writes
            for start in range(0, done, 8):
                data = self.chance.randbytes(min(8, done - start))
                cpu.stores.append((value - MAP_VALUES + start, data))
        cpu.call, cpu.wait = None, self.chance.choice([0, 0, 3, 30])

    # -- clocks

    def clock(self, calls: bool, ending: Cpu | None = None) -> None:
        dut, chance = self.dut, self.chance
        dut["ended"] = 0
        if ending:
            self.end(ending)
        for cpu in self.cpus:
            if cpu.call is None and calls:
                self.choose(cpu)
        senders = [cpu for cpu in self.cpus if cpu.words]
        dut["word_write"] = bool(senders)
        sender = chance.choice(senders) if senders else None
        if sender:
            dut["word_cpu"] = sender.number
            dut["word"] = packed(EngineWord(CONFIG), **sender.words.popleft())
            if not sender.words:
                self.waiting.append(sender)
        dut["start"] = 0
        if self.served is None and self.waiting and self.waiting[0] is not sender:
            self.served = self.waiting.popleft()
            fields = {"call": self.served.call, "cpu": self.served.number, "index": self.served.index}
            dut["start"], dut["call"] = 1, packed(RingCall(CONFIG), **fields)
        if self.served:
            dut["descriptor"] = self.descriptors[self.served.index]
        dut["taken"] = chance.random() < 0.7
        dut["frames__ready"] = chance.random() >= self.stall
        self.store()
        dut.settle()
        if self.storing and dut[HOST + "request__ready"]:
            self.storing = None
        if dut["decides"]:
            self.decide(self.served)
        if dut["done"] and dut["taken"] and self.served:
            served, self.served = self.served, None
            self.answered(served)
        trace = EMITS.unpack(dut["emit_trace"])
        if trace["valid"]:
            model = self.models[trace["index"]]
            assert model.ready(), "a record left that was not whole"
            self.emitted += 1
            if frame := model.take():
                self.frames.append(frame)
        self.receive()
        self.compare()
        dut.tick()

    def store(self) -> None:
        """One of the CPUs writes the next bytes of its record."""
        writers = [cpu for cpu in self.cpus if cpu.stores]
        if self.storing is None and writers:
            self.storing = self.chance.choice(writers)
            address, data = self.storing.stores.popleft()
            self.memory[address : address + len(data)] = data
            fields = {"operation": MapOperation.STORE, "address": address, "bytes": len(data),
                      "data": int.from_bytes(data, "little")}  # fmt: skip
            self.dut[HOST + "request__payload"] = packed(MapRequest(CONFIG), **fields)
        self.dut[HOST + "request__valid"] = self.storing is not None

    def receive(self) -> None:
        dut = self.dut
        if not dut["frames__valid"] or not dut["frames__ready"]:
            return
        beat = BEAT.unpack(dut["frames__payload"])
        keep, count = beat["keep"], beat["keep"].bit_count()
        assert beat["user"] == 1 << EVENT_USER_BIT and keep == (1 << count) - 1 and (beat["last"] or count == 8)
        data = beat["data"].to_bytes(8, "little")
        assert not any(data[count:])
        self.frame += data[:count]
        if beat["last"]:
            self.received.append(self.frame)
            self.frame = b""

    def compare(self) -> None:
        """A frame may be through before its record's bytes are free, which is when the trace tells of it."""
        while self.received and self.frames:
            assert self.received.popleft() == self.frames.popleft()

    def drain(self) -> None:
        for _ in range(40000):
            self.clock(False)
            quiet = not (self.served or self.waiting or self.storing or any(c.words or c.stores for c in self.cpus))
            if quiet and not EMITS.unpack(self.dut["emit_trace"])["waiting"]:
                break
        else:
            raise AssertionError("it never comes to rest")
        assert not self.frames and not self.received and not self.frame

    def load(self, address: int) -> int:
        dut = self.dut
        for _ in range(20):  # answers to stores that are on their way
            self.clock(False)
        dut[HOST + "request__payload"] = packed(
            MapRequest(CONFIG), operation=MapOperation.LOAD, address=address, bytes=8
        )
        dut[HOST + "request__valid"] = 1
        for _ in range(20):
            dut.settle()
            if dut[HOST + "answer__valid"]:
                break
            taken = dut[HOST + "request__ready"]
            dut.tick()
            if taken:
                dut[HOST + "request__valid"] = 0
        value = dut[HOST + "answer__payload"] >> 8
        dut.tick()
        return value & (1 << 64) - 1


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Library:
    return Library(RingsAndMemory(CONFIG), tmp_path_factory.mktemp("rings"))


@pytest.mark.parametrize("stall", [0.1, 0.9])
@pytest.mark.parametrize("seed", range(3))
def test_random_calls(library, seed, stall):
    bench = Bench(library, seed, stall)
    bench.ring(1, MapType.RINGBUF, 0, 4096)
    bench.ring(6, MapType.PERF_EVENT_ARRAY, 8224, 1024)
    bench.ring(3, MapType.RINGBUF, 10304, 4096)
    clocks = 0
    while clocks < 24000 or any(model.producer <= model.size for model in bench.models.values()):
        bench.clock(True)
        clocks += 1
        assert clocks < 96000
    bench.drain()
    for cpu in bench.cpus:  # what they hold is nobody's: nothing stays
        bench.clock(False, ending=cpu)
    bench.drain()
    for model in bench.models.values():
        assert model.consumer == model.producer > model.size
        state = [bench.load(model.base + place) for place in RingState]
        assert state == [model.consumer, model.producer, model.lost]
    wanted = {("OUTPUT", EINVAL), ("OUTPUT", EAGAIN), ("OUTPUT", "empty"), ("OUTPUT", "done"), ("RESERVE", "done"),
              ("RESERVE", "full"), ("RESERVE", "flags"), ("SUBMIT", "done"), ("SUBMIT", "trap"), ("DISCARD", "done"),
              ("DISCARD", "trap"), ("QUERY", "done"), ("EVENT", "done"), ("EVENT", ENOSPC), "left behind"}  # fmt: skip
    assert wanted <= set(bench.seen), wanted - set(bench.seen)


def test_clocks(library):
    """Of calls that nobody disturbs, from `start` to `done`; and of a record of 64 bytes, from its submission until it
    is on a stream that is ready, and its bytes are free."""
    bench = Bench(library, 0, stall=0)
    bench.ring(0, MapType.RINGBUF, 0, 4096)
    bench.chance.random = lambda: 0.5  # answers are taken at once
    cpu, clocks = bench.cpus[5], {}
    for call, arguments in ((MapCall.RESERVE, (0, 64)), (MapCall.SUBMIT, None), (MapCall.QUERY, (0,))):
        bench.begin(cpu, call, 0, arguments or (MAP_VALUES + cpu.reserved[0][0],))
        taken = 0
        while cpu.call is not None:
            bench.clock(False)
            taken += bench.served is not None
        clocks[call.name] = taken
        if call == MapCall.SUBMIT:
            submitted = 0
            while not bench.emitted:
                bench.clock(False)
                submitted += 1
            clocks["record"] = submitted
    assert clocks == {"RESERVE": 16, "SUBMIT": 10, "QUERY": 14, "record": 34}


def test_a_map_that_goes(library):
    """Its descriptor is written while a long record leaves: the frame ends, and nobody writes to its memory then."""
    bench = Bench(library, 0, stall=0)
    bench.chance.random = lambda: 0.5
    bench.ring(0, MapType.RINGBUF, 0, 4096)
    cpu = bench.cpus[0]
    bench.begin(cpu, MapCall.RESERVE, 0, (0, 2000))
    while cpu.call is not None or cpu.stores or bench.storing:
        bench.clock(False)
    state = [bench.load(place) for place in RingState]
    bench.begin(cpu, MapCall.SUBMIT, 0, (MAP_VALUES + cpu.reserved[0][0],))
    while not bench.frame:
        bench.clock(False)
    dut = bench.dut
    dut["write__enable"], dut["write__index"], dut["write__descriptor"] = 1, 0, packed(MapDescriptor(CONFIG), type=0)
    bench.clock(False)
    dut["write__enable"] = 0
    while EMITS.unpack(dut["emit_trace"])["waiting"]:
        bench.clock(False)
    assert bench.emitted == 0 and [len(frame) for frame in bench.received] == [2008]
    assert [bench.load(place) for place in RingState] == state
