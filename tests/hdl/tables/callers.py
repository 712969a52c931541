"""Who calls: programs on CPUs, and the host. What the engine tells is compared with the models."""

import errno
import random
from itertools import count

from bpfnic.hdl.interfaces import SharedTrace
from bpfnic.hdl.mapinterfaces import EngineAnswer, EngineWord, MapCall
from bpfnic.sim.golden.lpm import Lpm
from bpfnic.sim.golden.lru import Lru
from bpfnic.sim.golden.queues import Queue
from bpfnic.sim.golden.walk import Walk
from bpfnic.spec.addresses import INDEX_BYTES, MAP_VALUES, MAX_KEY_BYTES, map_handle
from bpfnic.spec.maps import OF_MAPS, PER_CPU, QUEUES, MapType
from bpfnic.spec.registers import MapCommand
from tests.hdl.simulated import Fields, packed
from tests.hdl.tables.bench import ARRAY, CONFIG, CPUS, HOST, WALKED_KEYS, Bench

WALKED = (MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)


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
        self.walks: dict[int, tuple[int, Walk]] = {}  # by map, of one at most: where it is, and what the model says

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
            elif kind in WALKED:
                calls += [MapCall.WALK, MapCall.UPDATE]
                if chance.random() < 0.3:
                    self.key = chance.choice([self.key, *bench.models[self.index].places])
            self.call = chance.choice(calls)
            if self.walks and chance.random() < 0.3:
                self.call, self.index = MapCall.WALK, *self.walks
                self.key = self.key_of(self.index)
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
            case MapCall.WALK:
                self.where = self.walks[self.index][0] if self.index in self.walks else 0
                place = MAP_VALUES + WALKED_KEYS + MAX_KEY_BYTES * self.cpu
                self.words = [{"last": 1, "data": self.where << 32 | place}]
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
            case MapCall.WALK:
                self.walk = self.walks[self.index][1] if self.where else Walk(model)
                self.may = {self.value(place): key for place, key in self.walk.step().items()}
                self.numbers = dict(model.since)
                return 0
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
            if self.call == MapCall.WALK:
                self.expected = self.step(answer["value"])
            assert answer["value"] == self.expected % 2**64, (self.call, self.index, self.key, self.flags)
            assert answer["copy"] == self.copies, (self.call, self.index)
            if self.copies and self.call not in (MapCall.LOOKUP, MapCall.REDIRECT):
                assert answer["insert"] == (self.ends is not None)
                assert answer["size"] == self.bench.maps[self.index]["value_size"]
            self.done.add((self.bench.kind(self.index), self.call, min(self.expected, 1)))  # an error, 0, an address
        self.busy, self.wait = False, self.chance.choice([0, 0, 5, 40])

    def step(self, answer: int) -> int:
        """A step of a walk: the answer, where it is right."""
        where, value = divmod(answer, 1 << 32)
        if value:
            key = self.may[value]
            self.walk.meet(key, self.numbers[key])
        elif not where:
            assert not self.walk.due, "left out"
        self.walks = {self.index: (where, self.walk)} if where else {}
        return answer

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
    shared, answers = Fields(SharedTrace(CONFIG)), Fields(EngineAnswer(CONFIG))
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
                trace = shared.unpack(dut[f"shared_trace__{number}"])
            except KeyError:
                break
            if trace["valid"]:
                cpu = trace["requester"] * CONFIG.threads + trace["tag"]
                next(caller for caller in callers if caller.cpu == cpu).decide()
                decided += 1
        for core in range(CONFIG.cores):
            if dut[f"port__{core}__answer__valid"]:
                answer = answers.unpack(dut[f"port__{core}__answer__payload"])
                cpu = core * CONFIG.threads + answer["thread"]
                next(caller for caller in callers if caller.cpu == cpu).answered(answer)
        if host:
            host.look()
        bench.tick()
    assert not any(caller.busy for caller in callers) and not (host and host.busy)
    return decided


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
