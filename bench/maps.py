"""Clocks of look-ups: what a call adds to a thread alone, and what it takes of the core where all threads look up."""

import random
from dataclasses import dataclass
from pathlib import Path

from bench.speed import FRAME, THREADS
from bpfnic.host.device import Arrival, DeviceOptions, Pacing, Traffic
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.nic import create, open
from bpfnic.sim.rtl import build
from bpfnic.sim.rtl.device import RtlTransport
from bpfnic.spec.maps import MapFlag, MapType

PROGRAM = Path("bench/lookup.bpf.c")
ENTRIES, KEYS = 1024, 8
CORES = 4
ROUND = CORES * THREADS  # packets that all threads have at once
FEWER, MORE = 20 * ROUND, 60 * ROUND
INSTRUCTION_CLOCKS = 11
"""Of any instruction that waits for nothing, of a thread alone."""
LENGTHS = (16, 17, 18, 20, 22, 24, 28, 32)
"""Of an LPM_TRIE's prefixes, in turn."""


@dataclass(frozen=True)
class Case:
    """A map with ENTRIES keys; what is asked of its look-ups, as Lookup has it. key: of a look-up, but for the last
    four bytes, which are a number below ENTRIES. calls: a program's look-ups, few and many."""

    name: str
    type: MapType
    key: bytes
    adds: int
    of_all: int | None = None
    flags: MapFlag = MapFlag(0)
    calls: tuple[int, int] = (128, 384)

    def entry(self, number: int) -> bytes:
        """The key in the map that the look-up with this number finds."""
        key = self.key[:-4] + number.to_bytes(4, "little")
        return LENGTHS[number % len(LENGTHS)].to_bytes(4, "little") + key[4:] if self.type is MapType.LPM_TRIE else key


CASES = (
    Case("ARRAY", MapType.ARRAY, bytes(4), 12, 1),
    Case("HASH, 16-byte keys", MapType.HASH, bytes(range(16)), 32, 2),
    Case("LPM_TRIE, IPv4", MapType.LPM_TRIE, bytes([32, 0, 0, 0, 0, 0, 0, 0]), 60, flags=MapFlag.NO_PREALLOC,
         calls=(16, 48)),
)  # fmt: skip


@dataclass(frozen=True)
class Lookup:
    """What look-ups of a case take, in clocks. adds: to a thread alone, beyond those of an instruction. of_core: from
    one look-up to the next, of whatever thread, where all threads of one core do nothing else; `instructions` are
    issued meanwhile. of_all: where all threads of CORES cores do."""

    case: Case
    adds: float
    of_core: float
    instructions: float
    of_all: float


class _Card:
    """A NIC with a program that makes so many look-ups, on every port. Its hash secret is the same each time."""

    def __init__(self, case: Case, calls: int, cores: int, say: build.Say):
        words = "".join(f"{int.from_bytes(case.key[i : i + 4], 'little')}," for i in range(0, len(case.key) - 4, 4))
        obj = open(PROGRAM, define=[f"TYPE=BPF_MAP_TYPE_{case.type.name}", f"KEY_BYTES={len(case.key)}", f"KEY={words}",
                                    f"FLAGS={int(case.flags)}", f"ENTRIES={ENTRIES}", f"KEYS={KEYS}",
                                    f"CALLS={calls}"])  # fmt: skip
        transport = RtlTransport(DeviceOptions(cores=cores, threads=THREADS), say)
        self.device = device = RegisterDevice(transport, random_bits=random.Random(0).getrandbits)
        program = obj.program()
        maps = {name: create(device, obj.maps[name]) for name in program.maps}
        for number in range(ENTRIES):
            maps["map"].update(case.entry(number), [bytes(8)])
        loaded = device.load(program, maps)
        for port in range(device.capabilities.ports):
            device.attach(port, loaded)

    def alone(self) -> int:
        """Clocks of one packet, beyond those of its instructions."""
        traffic = self._run(1)
        (packet,) = traffic.packets
        assert packet.started is not None and packet.finished is not None
        return packet.finished - packet.started - INSTRUCTION_CLOCKS * traffic.instructions

    def busy(self) -> tuple[float, float]:
        """Clocks and instructions that each of many packets takes: those of MORE packets beside FEWER ones. All threads
        have equally many, so that none waits at the end while others still work."""
        fewer, more = self._run(FEWER), self._run(MORE)
        packets = MORE - FEWER
        return (more.clocks - fewer.clocks) / packets, (more.instructions - fewer.instructions) / packets

    def _run(self, packets: int) -> Traffic:
        ports = self.device.capabilities.ports
        return self.device.run([Arrival(number % ports, FRAME) for number in range(packets)], Pacing())


def lookups(say: build.Say) -> list[Lookup]:
    """Of each case: the difference between a program with many look-ups and one with few."""
    return [_lookup(case, say) for case in CASES]


def adds(case: Case, say: build.Say) -> float:
    """The clocks that a look-up adds to a thread alone."""
    alone = []
    for calls in case.calls:
        card = _Card(case, calls, 1, say)
        alone.append(card.alone())
        card.device.close()
    return _each(case, alone)


def _lookup(case: Case, say: build.Say) -> Lookup:
    say(f"looking up in {case.name}")
    alone, of_core, instructions, of_all = [], [], [], []
    for calls in case.calls:
        card = _Card(case, calls, 1, say)
        alone.append(card.alone())
        clocks, count = card.busy()
        of_core.append(clocks)
        instructions.append(count)
        card.device.close()
        card = _Card(case, calls, CORES, say)
        of_all.append(card.busy()[0])
        card.device.close()
    return Lookup(case, *(_each(case, found) for found in (alone, of_core, instructions, of_all)))


def _each(case: Case, found: list) -> float:
    """Of one look-up, from what was found with few and with many of them."""
    few, many = found
    return (many - few) / (case.calls[1] - case.calls[0])
