"""How long operations on tables take."""

import random

import pytest

from bpfnic.hdl.mapinterfaces import MapCall
from bpfnic.spec.maps import MapType
from tests.hdl.tables.bench import CPUS, Bench
from tests.hdl.tables.callers import Caller, put, run


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
        assert max(alone) <= 53
        _, each = measured(bench, 0, (32).to_bytes(4, "little") + address, CPUS)
        assert each <= 42


def test_clocks_of_a_map_that_evicts(bench):
    """A hit with a 16-byte key: first it becomes the newest entry, then it is."""
    bench.make(0, MapType.LRU_HASH, 16, 16, 8)
    for key in range(4):
        put(bench, 0, bytes([key]) * 16)
    first, *later = measured(bench, 0, bytes([1]) * 16, 1)[0]
    assert first <= 78 and max(later) <= 48


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
    (MapType.HASH, 90, 124, 82),
    (MapType.LRU_HASH, 82, 234, 101),  # of which most for the key that goes
    (MapType.LPM_TRIE, 98, 142, 112),
    (MapType.PERCPU_HASH, 302, None, 82),  # zeros for 16 CPUs
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
