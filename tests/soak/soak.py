"""A full table under traffic: the host updates and deletes, programs look the same keys up, update them, and push keys
of their own into whatever room there is. At the end every key that should be there is, with a value of its own, and
each place of the table is a key's, free, or reserved.

Half of the keys are *kept*: nobody deletes them, so that no look-up may miss them. The others come and go, by the host
alone: it knows which of them are there.
"""

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from errno import E2BIG
from pathlib import Path

from bpfnic.host.compile import compile_object
from bpfnic.host.device import Arrival, DeviceOptions, Pacing
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.keyedmaps import KeyedMap
from bpfnic.host.nic import Nic
from bpfnic.host.object import open_object
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.sim.golden.hash import Hash
from bpfnic.sim.tablecheck import of_map
from bpfnic.spec.maps import UpdateFlag
from bpfnic.spec.tables import places

PROGRAM = Path(__file__).with_name("program.bpf.c")
MULTIPLIER = 0x9E3779B97F4A7C15
OPERATIONS = ("LOOKUP_KEPT", "LOOKUP", "UPDATE_KEPT", "UPDATE", "INTRUDE")
ERRORS = ("lost", "torn", "failed")
PACKETS = 20_000  # of one run; the table is looked through behind each
PATIENCE = 10_000  # times that the host tries again where a program has taken the room


@dataclass
class Outcome:
    """What was done, and what must not have been: `wrong`, in a line, empty if nothing."""

    host: Counter[str] = field(default_factory=Counter)
    programs: Counter[str] = field(default_factory=Counter)
    packets: int = 0
    clocks: int = 0
    wrong: str = ""

    @property
    def operations(self) -> int:
        """Updates and deletes by the host."""
        return self.host["updates"] + self.host["deletes"]


class Soak:
    """A NIC of a backend with a full table of `entries` keys."""

    def __init__(self, backend: str, entries: int = 256, seed: int = 1, options: DeviceOptions = DeviceOptions()):
        self.nic = Nic(backend, options)
        self.nic.load(open_object(compile_object(PROGRAM, define=[f"ENTRIES={entries}"])), "soak").attach()
        table = self.nic.maps["table"].device_map
        assert isinstance(table, KeyedMap)
        self.table, self.entries = table, entries
        self.chance = random.Random(seed)
        self.kept = list(range(entries // 2))
        self.there = set(range(entries // 2, entries))
        self.away = set(range(entries, 2 * entries))  # those of them that are not
        self.changed = max(1, entries // 8)  # keys that leave and come at a time
        self.outcome = Outcome()
        self.frames = 0
        self.table.update_batch(self._entry(key) for key in [*self.kept, *self.there])

    def run(self, operations: int, on_step: Callable[[Outcome], None] = lambda outcome: None) -> Outcome:
        """Do so many updates and deletes; `on_step` is told now and then."""
        done = self.outcome
        while done.operations < operations and not done.wrong:

            def step(_: object) -> None:
                if done.operations < operations and not done.wrong:
                    try:
                        self._turn()
                    except OSError as error:
                        done.wrong = f"the host is refused: {error.strerror}"
                    on_step(done)

            packets = list(self._packets(min(PACKETS, 4 * operations)))
            traffic = self.nic.run(packets, Pacing(seed=self.chance.getrandbits(16)), on_step=step)
            done.packets += len(traffic.packets)
            done.clocks += traffic.clocks
            done.wrong = done.wrong or self._look_through()
        return done

    def close(self) -> None:
        self.nic.close()

    # -- the host

    def _entry(self, key: int) -> tuple[bytes, list[bytes]]:
        number = self.chance.getrandbits(64)
        twin = number ^ key * MULTIPLIER % (1 << 64)
        return key.to_bytes(4, "little"), [number.to_bytes(8, "little") + twin.to_bytes(8, "little")]

    def _turn(self) -> None:
        """Some keys leave, or those that are missing come: mostly both. Others get new values; one is looked up."""
        come = []
        if len(self.kept) + len(self.there) == self.entries:
            leave = self.chance.sample(sorted(self.there), self.changed)
            self.table.delete_batch([key.to_bytes(4, "little") for key in leave])
            self.outcome.host["deletes"] += len(leave)
            self.there.difference_update(leave)
            self.away.update(leave)
        if self.chance.random() < 0.8:
            come = self.chance.sample(sorted(self.away), self.entries - len(self.kept) - len(self.there))
            for key in come:
                self._insert(key)
            self.there.update(come)
            self.away.difference_update(come)
        changed = self.chance.sample([*self.kept, *sorted(self.there)], self.changed)
        self.table.update_batch([self._entry(key) for key in changed], UpdateFlag.EXIST)
        self.outcome.host["updates"] += len(changed)
        key = self.chance.choice([*self.kept, *come])
        if not _belongs(key, self.table.lookup(key.to_bytes(4, "little"))[0]):
            self.outcome.wrong = f"the host finds half a value, or another's, at key {key}"
        self.outcome.host["look-ups"] += 1

    def _insert(self, key: int) -> None:
        for _ in range(PATIENCE):
            try:
                self.table.update(*self._entry(key), UpdateFlag.NOEXIST)
            except OSError as error:
                if error.errno != E2BIG:
                    raise
                self.outcome.host["no room"] += 1
                continue
            self.outcome.host["updates"] += 1
            return
        self.outcome.wrong = f"there is no room for key {key}, and never will be"

    # -- programs

    def _packets(self, count: int) -> Iterator[Arrival]:
        chance, keys = self.chance, 2 * self.entries
        for _ in range(count):
            operation = chance.randrange(len(OPERATIONS))
            kept = OPERATIONS[operation].endswith("KEPT")
            key = chance.choice(self.kept) if kept else chance.randrange(len(self.kept), keys)
            self.frames += 1
            if OPERATIONS[operation] == "INTRUDE":
                key = 1 << 31 | self.frames
            asked = key.to_bytes(4, "little") + operation.to_bytes(4, "little") + chance.randbytes(8)
            yield Arrival(self.frames % self.nic.ports, bytes(16) + asked + bytes(32))

    # -- both

    def _look_through(self) -> str:
        """What is wrong with the table at rest."""
        variables = self.nic.maps[".bss"]
        self.outcome.programs = Counter({name: variables[name] for name in variables})
        for name in ERRORS:
            if count := self.outcome.programs[name]:
                return f"programs count {count} {name}"
        found = {int.from_bytes(key, "little"): value for key, (value,) in self.table.walk().items()}
        if wanted := found.keys() ^ {*self.kept, *self.there}:
            missing, more = sorted(wanted - found.keys()), sorted(wanted & found.keys())
            return f"keys that are not there: {missing[:9]}, and that should not be: {more[:9]}"
        if wrong := [key for key, value in found.items() if not _belongs(key, value)]:
            return f"half a value, or another's, at keys {wrong[:9]}"
        return self._places(found.keys())

    def _places(self, keys: Collection[int]) -> str:
        """Each is a key's, free, or reserved."""
        device, table = self.nic.device, self.table
        assert isinstance(device, RegisterDevice)
        all_places = places(self.entries, device.capabilities.cpus)
        transport = device._transport
        if isinstance(transport, GoldenTransport):  # its table is no part of map memory
            model = transport.nic.maps.entries[table.index or 0]
            assert isinstance(model, Hash)
            held = [*model.places.values(), *model.free, *model.reserved.values()]
            return "" if sorted(held) == list(range(all_places)) else "a place is lost or is there twice"
        try:
            read = of_map(table, device.capabilities.cpus)
        except AssertionError as why:
            return str(why)
        if len(read.keys) != len(keys):
            return f"the table has {len(read.keys)} keys, a walk {len(keys)}"
        count = all_places - read.fresh + len(read.free) + len(read.keys) + len(read.reserved)
        return "" if count == all_places else f"{count} of {all_places} places are there"


def _belongs(key: int, value: bytes) -> bool:
    """Whether a value is one that was written under a key."""
    number, twin = (int.from_bytes(value[at : at + 8], "little") for at in (0, 8))
    return number ^ twin == key * MULTIPLIER % (1 << 64)
