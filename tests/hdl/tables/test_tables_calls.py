"""Random calls of all threads and of the host, on maps of all types that have tables, in the order that the engine
tells."""

import errno
import random

from amaranth.sim import Simulator

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import EngineAnswer, EngineWord, MapCall, MapOperation, MapRequest
from bpfnic.hdl.maps.calls import Calls
from bpfnic.spec.addresses import map_handle
from bpfnic.spec.maps import QUEUES, MapType, UpdateFlag
from bpfnic.spec.registers import MapCommand
from bpfnic.spec.rings import CURRENT_CPU
from tests.hdl.simulated import Fields, Library, packed
from tests.hdl.tables.bench import ARRAY, CONFIG, CPUS, WALKED_KEYS, Bench, EngineAndMemory
from tests.hdl.tables.callers import Caller, Host, host_does, put, run

_UPDATED = {(MapCall.UPDATE, -errno.EINVAL), (MapCall.UPDATE, -errno.EEXIST), (MapCall.UPDATE, -errno.ENOENT),
            (MapCall.DELETE, 0), (MapCall.DELETE, -errno.ENOENT), (MapCall.LOOKUP, 0), (MapCall.LOOKUP, 1)}  # fmt: skip
_WALKED = {(MapCall.WALK, 0), (MapCall.WALK, 1)}
_STORED = {*_UPDATED, (MapCall.INSERT, 0), (MapCall.UPDATE, 1)}
_QUEUED = {(MapCall.PUSH, 1), (MapCall.PUSH, -errno.EINVAL), (MapCall.PUSH, -errno.E2BIG), (MapCall.INSERT, 0),
           (MapCall.POP, 1), (MapCall.PEEK, 1), (MapCall.RELEASE, 0), (MapCall.RELEASE, -errno.ENOENT)}  # fmt: skip
OUTCOMES = {
    MapType.HASH: {*_STORED, *_WALKED, (MapCall.UPDATE, -errno.E2BIG)},
    MapType.PERCPU_HASH: {*_UPDATED, *_WALKED, (MapCall.UPDATE, 1), (MapCall.UPDATE, -errno.E2BIG)},
    MapType.LRU_HASH: {*_STORED, *_WALKED},
    MapType.LRU_PERCPU_HASH: {*_UPDATED, *_WALKED, (MapCall.UPDATE, 1)},
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
    (MapType.PERCPU_HASH, 7, 3, 4),
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
    refused = errno.EINVAL, errno.EEXIST, errno.ENOENT, errno.E2BIG, errno.ENOSPC
    missing = {
        *((command, 0) for command in MapCommand), *((MapCommand.INSERT, error) for error in refused),
        (MapCommand.LOOKUP, errno.ENOENT), (MapCommand.DELETE, errno.ENOENT), (MapCommand.NEXT, errno.ENOENT),
        *((kind, call, outcome) for kind, outcomes in OUTCOMES.items() for call, outcome in outcomes),
    }  # fmt: skip
    for buckets, rounds in ((False, 3), (True, 30)):
        chance = random.Random(2 + buckets)
        bench = Bench(library, chance)
        key_of = tables_of(bench, chance, buckets)
        callers = [Caller(bench, cpu, chance, key_of) for cpu in range(CPUS)]
        host = Host(bench, chance, key_of)
        decided = 0
        for number in range(1, rounds + 1):
            decided += run(bench, callers, host, 20000)
            bench.compare_tables()
            missing -= host.outcomes.union(*(caller.done for caller in callers))
            if number > 2 and not missing:
                break
        assert decided > 200 * number
    assert not missing


def ask(bench: Bench, call: MapCall, handle: int, *words: dict) -> dict:
    """The answer to a call of CPU 0, that nobody disturbs."""
    dut, words = bench.dut, [*words]
    while True:
        dut["port__0__word__valid"] = bool(words)
        if words:
            fields = {"flags": 0, "last": len(words) == 1, "number": 0, "thread": 0, "call": call, "handle": handle}
            dut["port__0__word__payload"] = packed(EngineWord(CONFIG), **fields | words[0])
        dut.settle()
        if words and dut["port__0__word__ready"]:
            words.pop(0)
        answer = dut["port__0__answer__valid"] and dut["port__0__answer__payload"]
        bench.tick()
        if answer:
            return Fields(EngineAnswer(CONFIG)).unpack(answer)


def test_a_record_has_no_lock(bench):
    """Whatever its flags are, and whatever was called before: updates, of a value that is there, under its lock."""
    bench.make(0, MapType.HASH, 4, 8, 8)
    bench.describe(0, **bench.maps[0] | {"lock": 1})
    put(bench, 0, bytes(4))
    bench.describe(1, type=MapType.PERF_EVENT_ARRAY, base=bench.end, entries=CPUS, table=1023, key_size=4)
    for _ in range(CPUS):  # as many as may wait: nothing else is left in the queue
        update = ask(bench, MapCall.UPDATE, map_handle(0, 4), {"flags": 1, "data": UpdateFlag.ANY}, {"data": 0})
    assert update["copy"] and update["insert"] and not update["locked"]
    event = ask(bench, MapCall.EVENT, map_handle(1, 4), {"flags": 1, "data": CURRENT_CPU}, {"data": 8}, {"data": 0})
    assert event["copy"] and event["insert"] and not event["locked"]


class Reader(Caller):
    """A program that looks up."""

    def begin(self) -> None:
        self.call, self.index, self.key, self.flags = MapCall.LOOKUP, 0, self.key_of(0), 0
        self.start(traps=False)


def test_look_ups_and_changes_while_atomics_hold_banks(library):
    """What the serial unit has written may still wait for a bank when it goes on, and rows of others can be read."""
    chance = random.Random(7)
    bench = Bench(library, chance)
    bench.make(0, MapType.HASH, 4, 8, 8)
    keys = [key.to_bytes(4, "little") for key in range(8)]
    callers = [
        (Reader if cpu % 4 else Caller)(bench, cpu, chance, lambda index: chance.choice(keys)) for cpu in range(CPUS)
    ]
    for core in range(CONFIG.cores):  # each holds a bank, mostly
        bench.dut[f"memory__{core}__request__payload"] = packed(
            MapRequest(CONFIG), operation=MapOperation.ADD, address=WALKED_KEYS - 64 + 16 * core, bytes=8, data=0
        )
        bench.dut[f"memory__{core}__request__valid"] = bench.dut[f"memory__{core}__answer__ready"] = 1
    assert run(bench, callers, None, 20000) > 1000
    bench.compare_tables()


QUEUES_ALONE = NicConfig(cores=2, threads=8, map_bytes=65536, maps=16, map_types=QUEUES | {MapType.ARRAY},
                         slice_places=1)  # fmt: skip
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
        run(bench, [*callers, array], host, 30000, drain=400000)
        assert {call for _, call, _ in array.done} == {MapCall.LOOKUP, MapCall.UPDATE, MapCall.DELETE}
    assert {command for command, _ in host.outcomes} == set(MapCommand)
