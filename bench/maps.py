"""Clocks of look-ups: what a call adds to a thread alone, and what it takes of the core where all threads look up."""

from dataclasses import dataclass
from pathlib import Path

from bench.speed import FRAME, THREADS
from bpfnic.host.device import Arrival, DeviceOptions, Pacing
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.nic import create, open
from bpfnic.sim.rtl import build
from bpfnic.sim.rtl.device import RtlTransport
from bpfnic.spec.maps import MapFlag, MapType

PROGRAM = Path("bench/lookup.bpf.c")
FEW, MANY = 24, 72
PACKETS = 1000
CORES = 4
INSTRUCTION_CLOCKS = 10
"""Of any instruction that waits for nothing, of a thread alone."""


@dataclass(frozen=True)
class Case:
    """A map with one key; what is asked of its look-ups, as Lookup has it."""

    name: str
    type: MapType
    key: bytes
    adds: int
    of_all: int | None = None
    flags: MapFlag = MapFlag(0)


CASES = (
    Case("ARRAY", MapType.ARRAY, bytes(4), 12, 1),
    Case("HASH, 16-byte keys", MapType.HASH, bytes(range(16)), 32, 2),
    Case("LPM_TRIE, IPv4", MapType.LPM_TRIE, bytes([24, 0, 0, 0, 10, 0, 0, 0]), 60, flags=MapFlag.NO_PREALLOC),
)


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
    """A NIC with a program that makes so many look-ups, on every port."""

    def __init__(self, case: Case, calls: int, cores: int, say: build.Say):
        key = "{" + ",".join(map(str, case.key)) + "}"
        obj = open(PROGRAM, define=[f"TYPE=BPF_MAP_TYPE_{case.type.name}", f"KEY_BYTES={len(case.key)}", f"KEY={key}",
                                    f"FLAGS={int(case.flags)}", f"CALLS={calls}"])  # fmt: skip
        self.device = device = RegisterDevice(RtlTransport(DeviceOptions(cores=cores, threads=THREADS), say))
        program = obj.program()
        maps = {name: create(device, obj.maps[name]) for name in program.maps}
        maps["map"].update(case.key, [bytes(8)])
        loaded = device.load(program, maps)
        for port in range(device.capabilities.ports):
            device.attach(port, loaded)

    def alone(self) -> int:
        """Clocks of one packet."""
        (packet,) = self.device.run([Arrival(0, FRAME)], Pacing()).packets
        assert packet.started is not None and packet.finished is not None
        return packet.finished - packet.started

    def busy(self) -> tuple[float, float]:
        """Clocks and instructions for each of many packets."""
        ports = self.device.capabilities.ports
        traffic = self.device.run([Arrival(number % ports, FRAME) for number in range(PACKETS)], Pacing())
        return traffic.clocks / PACKETS, traffic.instructions / PACKETS


def lookups(say: build.Say) -> list[Lookup]:
    """Of each case: the difference between a program with many look-ups and one with few."""
    return [_lookup(case, say) for case in CASES]


def _lookup(case: Case, say: build.Say) -> Lookup:
    say(f"looking up in {case.name}")
    alone, of_core, instructions, of_all = [], [], [], []
    for calls in (FEW, MANY):
        card = _Card(case, calls, 1, say)
        alone.append(card.alone())
        clocks, count = card.busy()
        of_core.append(clocks)
        instructions.append(count)
        card.device.close()
        card = _Card(case, calls, CORES, say)
        of_all.append(card.busy()[0])
        card.device.close()
    each = [(many - few) / (MANY - FEW) for few, many in (alone, of_core, instructions, of_all)]
    return Lookup(case, each[0] - INSTRUCTION_CLOCKS * each[2], *each[1:])
