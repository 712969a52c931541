"""One run of programs on two NICs, the tested one and the golden model in lockstep with it: did every retired
instruction, every frame and every byte of map memory come out alike?"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bpfnic.host import check, lockstep
from bpfnic.host.check import Evidence
from bpfnic.host.device import Arrival, Capabilities, DeviceOptions, Pacing, Traffic, Transport
from bpfnic.sim.bare import BareNic
from bpfnic.sim.fuzz import world
from bpfnic.sim.fuzz.coverage import MapMemory, Observed
from bpfnic.sim.fuzz.program import Program, listing
from bpfnic.sim.fuzz.tables import Tables
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.sim.rtl import build
from bpfnic.sim.rtl.device import RtlTransport, configuration
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import SLOT_BYTES
from bpfnic.spec.maps import MapType

OPTIONS = DeviceOptions()
WATCHDOG = 1 << 17
"""Clocks without any movement after which the RTL hangs."""


@dataclass(frozen=True)
class Case:
    """What one run is made of. A program for each interface; `first`: the slot where the first one stands, with an
    illegal instruction behind each."""

    programs: tuple[Program, ...]
    frames: tuple[Arrival, ...]
    memory: bytes
    budget: int
    pacing: Pacing = Pacing()
    first: int = 0

    def entries(self) -> list[int]:
        """The slot where each program begins."""
        places = [self.first]
        for program in self.programs:
            places.append(places[-1] + program.slots()[-1] + 1)
        return places[:-1]


@dataclass(frozen=True)
class Parting:
    """A difference: `what`, in a line; the arrival that it is in, where it is in one; and what lockstep shows of it."""

    what: str
    arrival: int | None = None
    lines: tuple[str, ...] = ()


@dataclass
class Result:
    """Of one run: the difference, if there is one; instructions compared, and what the packets' ends were. `strayed`: a
    program read or wrote a table, by an address that came out of nowhere: then nothing is said, and the pair is spent.
    """

    parting: Parting | None = None
    instructions: int = 0
    causes: Counter[Cause] = field(default_factory=Counter)
    strayed: bool = False


class Pair:
    """A NIC fresh from reset, and the golden model of its options. `hits` counts what was covered (coverage.py)."""

    def __init__(self, tested: Transport, options: DeviceOptions = OPTIONS):
        self.options = options
        self.tested = BareNic(tested)
        golden = GoldenTransport(options)
        size = golden.nic.size
        self.map_memory = MapMemory(size.map_bytes)
        self.code = golden.nic.code = Observed(size.program_slots, golden.nic.code.executes, self.map_memory)
        self.golden = BareNic(golden)
        self.tables = [describe_maps(nic, self.has.map_types) for nic in self.both]
        self.map_memory.tables = self.tables[0].private()

    @property
    def both(self) -> tuple[BareNic, BareNic]:
        return self.tested, self.golden

    @property
    def has(self) -> Capabilities:
        """What the NIC says that it has."""
        return self.tested.device.capabilities

    @property
    def hits(self) -> Counter[tuple[str, str, str]]:
        return self.code.hits

    def close(self) -> None:
        for nic in self.both:
            nic.device.close()

    def run(self, case: Case) -> Result:
        """Runs a case on both, instruction by instruction, and compares. After a difference close the pair: the two
        stopped in the middle of their work."""
        for nic, tables in zip(self.both, self.tables, strict=True):
            prepare(nic, tables, case)
        result = self._run(case)
        return Result(strayed=True) if self.map_memory.strayed else result

    def _run(self, case: Case) -> Result:
        try:
            outcome = lockstep.run(self.tested.device, self.golden.device, case.frames, case.pacing)
        except (BpfnicError, AssertionError, LookupError) as error:
            # It hangs, broke a rule of its interfaces, or says of itself what can't be.
            return Result(Parting(f"{self.tested.device.name}: {type(error).__name__} {error}"))
        if outcome.difference:
            return Result(self._parting(outcome.difference))
        assert outcome.actual
        actual = outcome.actual
        numbers = check.replayable(case.frames, actual, self.tested.room)
        expected = outcome.follower.end(numbers)
        causes = Counter(packet.cause for packet in actual.packets)
        return Result(self._compared(case, actual, expected, numbers), actual.instructions, causes)

    def _parting(self, found: lockstep.Difference) -> Parting:
        name = self.tested.device.name
        instruction = found.instruction
        text = listing([instruction])[0] if instruction else "no instruction"
        said = f"`{text}` {found.what}: {name} {found.actual}, golden {found.expected}"
        instructions = {step.pc: step.instruction for step in found.past} | {found.pc: instruction}

        def describe(slot: int) -> list[str]:
            known = instructions.get(slot)
            return [f"slot {slot - found.entry}: {listing([known])[0] if known else 'none'}"]

        return Parting(said, found.packet, tuple(found.lines(name, "golden", describe)))

    def _compared(self, case: Case, actual: Traffic, expected: Traffic, numbers: Sequence[int]) -> Parting | None:
        """What instructions don't show."""
        name = self.tested.device.name
        evidence = [
            Evidence(nic.device.name, self.has, traffic, {}, {})
            for nic, traffic in zip(self.both, (actual, expected), strict=True)
        ]
        if difference := check.compare(*evidence, case.frames, numbers, case.pacing):
            said = f"{difference.what}: {name} {difference.actual}, golden {difference.expected}"
            return Parting(said, difference.packet)
        ours, theirs = (nic.memory(0, world.COMPARED_BYTES) for nic in self.both)
        for place, (left, right) in enumerate(zip(ours, theirs, strict=True)):
            if left != right:
                return Parting(f"byte {place} of map memory: {name} 0x{left:02x}, golden 0x{right:02x}")
        for index in named(self.tables[0], case):
            left, right = (tables.take(index) for tables in self.tables)
            if left != right:
                return Parting(f"{world.TYPES[world.handle(index)].name} {index}: {name} {left}, golden {right}")
            if not isinstance(self.tested.transport, GoldenTransport) and (why := self.tables[0].check(index)):
                return Parting(f"{world.TYPES[world.handle(index)].name} {index}: {name}: {why}")
        return None

    def counters_differ(self) -> str | None:
        """The first counter that differs, all runs together; CLOCKS, which golden doesn't have, left out."""
        tested, golden = (nic.device.counters() for nic in self.both)
        differing = [name for name in tested if name != "CLOCKS" and tested[name] != golden[name]]
        if not differing:
            return None
        name = differing[0]
        return f"counter {name}: {self.tested.device.name} {tested[name]}, golden {golden[name]}"


def rtl_pair(library: Path, options: DeviceOptions = OPTIONS) -> Pair:
    """With the RTL, compiled."""
    transport = RtlTransport(options, library=library)
    transport.set_watchdog(WATCHDOG)
    return Pair(transport, options)


def describe_maps(nic: BareNic, map_types: Collection[MapType] | None = None) -> Tables:
    """The maps that programs know, as far as the NIC has their types, or of other types."""
    types = nic.device.capabilities.map_types if map_types is None else map_types
    for index, each in enumerate(world.MAPS):
        if each.type in types:
            nic.describe(index, *each)
    return Tables(nic, types)


def named(tables: Tables, case: Case) -> list[int]:
    """The tables that a case's programs name."""
    return tables.named(one for program in case.programs for one in program.instructions())


def prepare(nic: BareNic, tables: Tables, case: Case) -> None:
    """Programs, memory, tables and budget of a case."""
    for index in named(tables, case):
        tables.renew(index)
    illegal = bytes(SLOT_BYTES)
    for interface, (entry, program) in enumerate(zip(case.entries(), case.programs, strict=True)):
        nic.load(program.code(entry) + illegal, entry)
        nic.attach(entry, [interface])
    nic.set_memory(0, world.linked(case.memory, case.entries()))
    nic.write("BUDGET", case.budget)


def alone(case: Case, arrival: int) -> Case:
    """The case of one packet, with the one program that it runs, at the store's start and from port 0."""
    frame = case.frames[arrival]
    return replace(case, programs=(case.programs[frame.interface],), frames=(replace(frame, interface=0),),
                   pacing=Pacing(), first=0)  # fmt: skip


def the_library(options: DeviceOptions = OPTIONS, say: build.Say = build.silent) -> Path:
    """The compiled RTL of these options."""
    return build.library(build.netlist(configuration(options), say), say=say)
