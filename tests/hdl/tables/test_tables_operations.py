"""What single operations on tables do."""

import errno
import random

import pytest

from bpfnic.hdl.mapinterfaces import MapCall, MapOperation
from bpfnic.spec.maps import MapType
from bpfnic.spec.registers import MapCommand
from tests.hdl.tables.bench import CPUS
from tests.hdl.tables.callers import Caller, Host, put, run


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


class Router(Caller):
    """A program that looks up addresses."""

    def begin(self, traps: bool | None = None) -> None:
        self.call, self.index, self.flags = MapCall.LOOKUP, 0, 0
        self.key = (32).to_bytes(4, "little") + self.key_of(0)
        self.start(traps=False)


@pytest.mark.parametrize("seed", [0, 5, 6])
def test_the_longest_of_many_prefixes(bench, seed):
    """Of more lengths than the unit searches at once, in few buckets, half of whose keys lie in chains: one length's
    search ends long after those begun behind it."""
    chance = random.Random(seed)
    bench.make(0, MapType.LPM_TRIE, 8, 64, 8)
    bench.describe(0, **bench.maps[0] | {"buckets": 15})
    net = chance.randbytes(4)

    def near(_=None) -> bytes:
        """An address that shares some of its first bits with the others."""
        same = chance.randrange(33)
        kept = int.from_bytes(net, "big") >> 32 - same << 32 - same
        return (kept | chance.getrandbits(32 - same)).to_bytes(4, "big")

    for _ in range(64):
        put(bench, 0, chance.randrange(33).to_bytes(4, "little") + near())
    assert len({key[0] for key in bench.models[0].written.values()}) > 16
    callers = [Router(bench, cpu, chance, near) for cpu in range(CPUS)]
    assert run(bench, callers, None, 60000, drain=20000) > 200
