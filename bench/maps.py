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
FEW, MANY = 8, 24
PACKETS = 2000
INSTRUCTION_CLOCKS = 10
"""Of any instruction that waits for nothing, of a thread alone."""


@dataclass(frozen=True)
class Case:
    """A map with one key, and the clocks that a look-up of it may add to a thread alone."""

    name: str
    type: MapType
    key: bytes
    asked: int
    flags: MapFlag = MapFlag(0)


CASES = (
    Case("ARRAY", MapType.ARRAY, bytes(4), 12),
    Case("HASH, 16-byte keys", MapType.HASH, bytes(range(16)), 32),
    Case("LPM_TRIE, IPv4", MapType.LPM_TRIE, bytes([24, 0, 0, 0, 10, 0, 0, 0]), 60, MapFlag.NO_PREALLOC),
)


@dataclass(frozen=True)
class Lookup:
    """What look-ups of a case take, in clocks. adds: to a thread alone, beyond those of an instruction. busy: from one
    look-up to the next, of whatever thread, where all of them do nothing else; `instructions` are issued meanwhile."""

    case: Case
    adds: float
    busy: float
    instructions: float


@dataclass(frozen=True)
class _Run:
    """Clocks of one packet alone; clocks and instructions for each of many packets."""

    alone: int
    busy: float
    instructions: float


def _run(case: Case, calls: int, say: build.Say) -> _Run | None:
    key = "{" + ",".join(map(str, case.key)) + "}"
    obj = open(PROGRAM, define=[f"TYPE=BPF_MAP_TYPE_{case.type.name}", f"KEY_BYTES={len(case.key)}", f"KEY={key}",
                                f"FLAGS={int(case.flags)}", f"CALLS={calls}"])  # fmt: skip
    device = RegisterDevice(RtlTransport(DeviceOptions(threads=THREADS), say))
    if case.type not in device.capabilities.map_types:
        device.close()
        return None
    program = obj.program()
    maps = {name: create(device, obj.maps[name]) for name in program.maps}
    maps["map"].update(case.key, [bytes(8)])
    device.attach(0, device.load(program, maps))
    (packet,) = device.run([Arrival(0, FRAME)], Pacing()).packets
    assert packet.started is not None and packet.finished is not None
    traffic = device.run([Arrival(0, FRAME)] * PACKETS, Pacing())
    device.close()
    return _Run(packet.finished - packet.started, traffic.clocks / PACKETS, traffic.instructions / PACKETS)


def lookups(say: build.Say) -> list[Lookup]:
    """Of each case whose type the hardware has: the difference between a program with many look-ups and one with
    few."""
    found = []
    for case in CASES:
        say(f"looking up in {case.name}")
        few, many = _run(case, FEW, say), _run(case, MANY, say)
        if few is None or many is None:
            continue
        count = MANY - FEW
        instructions = (many.instructions - few.instructions) / count
        alone = (many.alone - few.alone) / count
        busy = (many.busy - few.busy) / count
        found.append(Lookup(case, alone - INSTRUCTION_CLOCKS * instructions, busy, instructions))
    return found
