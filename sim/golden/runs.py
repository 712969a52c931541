"""A packet from where it came in to its leaving, by programs that stand on its way, or that a device recorded."""

import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bpfnic.host.device import Arrival, Departure, Execution, PacketResult, Ran, Retirement, Traffic
from bpfnic.host.lockstep import NO_ADDRESS, NO_REGISTER, Event, Happening, Observe
from bpfnic.sim.golden.helpers import Clone, Helpers, Samples
from bpfnic.sim.golden.lockstep import began_value, last_part, write_of
from bpfnic.sim.golden.memory import Buffer
from bpfnic.sim.golden.nic import GoldenNic
from bpfnic.sim.golden.outcome import Outcome, Stage
from bpfnic.sim.golden.thread import Choice, Retired, SharedAccess, Thread
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import ProgramType
from bpfnic.spec.registers import ENTRY_SLOT, entry_type


class FreeSamples:
    """What no program can compute, in a free run: the clock stands at the arrival's time and advances with every
    look."""

    def __init__(self, time_ns: int, source: random.Random, room: Callable[[], bool]):
        self.arrived_ns = self.time_ns = time_ns
        self.source = source
        self._room = room  # whether a buffer is free
        self.taken: list[int] = []

    def clock(self) -> int:
        self.time_ns += 1
        self.taken.append(self.time_ns)
        return self.time_ns

    def random(self) -> int:
        self.taken.append(self.source.getrandbits(32))
        return self.taken[-1]

    def arrival(self) -> int:
        self.taken.append(self.arrived_ns)
        return self.arrived_ns

    def chosen(self, mine: int) -> int:
        self.taken.append(mine)
        return mine

    def room(self) -> bool:
        self.taken.append(self._room())
        return bool(self.taken[-1])


class RecordedSamples:
    """What no program can compute, as recorded, in the order in which it was asked for."""

    def __init__(self, samples: tuple[int, ...]):
        self.left = list(reversed(samples))
        self.missing = False

    def clock(self) -> int:
        return self._next()

    def random(self) -> int:
        return self._next()

    def arrival(self) -> int:
        return self._next()

    def chosen(self, mine: int) -> int:
        return self._next()

    def room(self) -> bool:
        return bool(self._next())

    def _next(self) -> int:
        if self.left:
            return self.left.pop()
        self.missing = True
        return 0


class Begin(NamedTuple):
    """A program to begin with: where, its first slot and type, and what it is given."""

    stage: Stage
    slot: int
    program_type: ProgramType
    cpu: int
    samples: Samples


class Attached:
    """The programs of a packet in a free run: those that stand on its way, all on one CPU."""

    def __init__(self, nic: GoldenNic, cpu: int, time_ns: int, source: random.Random, waiting: deque["Run"]):
        self.nic = nic
        self.cpu = cpu
        self.source = source
        self.waiting = waiting  # clones, each in a buffer
        self.time_ns = time_ns
        self.begun: list[tuple[Begin, FreeSamples]] = []

    def choose(self, standing: tuple[Stage, int] | None) -> Begin | None:
        if standing is None:
            return None
        stage, word = standing
        samples = FreeSamples(self.time_ns, self.source, lambda: len(self.waiting) + 1 < self.nic.size.packet_buffers)
        begin = Begin(stage, word & ENTRY_SLOT, entry_type(word), self.cpu, samples)
        self.begun.append((begin, samples))
        return begin

    def done(self) -> tuple[Execution, ...]:
        """What ran."""
        return tuple(
            Execution(each.cpu, each.slot, tuple(samples.taken), each.program_type, *each.stage)
            for each, samples in self.begun
        )

    def note(self) -> str:
        return ""


class Recorded:
    """The programs of a packet as they were recorded, and whether they stood where the packet came to."""

    def __init__(self, executions: Sequence[Execution]):
        self.left = list(executions)
        self.samples: list[RecordedSamples] = []
        self.astray = ""

    def choose(self, standing: tuple[Stage, int] | None) -> Begin | None:
        execution = self.left.pop(0) if self.left else None
        there = None if execution is None else Stage(execution.hook, execution.device)
        stage = None if standing is None else standing[0]
        if there != stage:
            self.astray = self.astray or f"the next program stands at {_named(stage)}; recorded was {_named(there)}"
        if execution is None:
            return None
        assert there
        self.samples.append(RecordedSamples(execution.samples))
        return Begin(there, execution.entry, execution.program_type, execution.cpu, self.samples[-1])

    def done(self) -> tuple[Execution, ...]:
        return ()

    def note(self) -> str:
        """What of the recording the programs could not do."""
        if any(samples.missing or samples.left for samples in self.samples):
            return "the program asks for another number of clock and random values than were recorded"
        return self.astray


def _named(stage: Stage | None) -> str:
    return "none" if stage is None else f"{stage.hook.value} of interface {stage.device}"


@dataclass
class Packet:
    """A packet of a run: numbered as in a Recording. ingress: where it is counted; iif: where it came in. way: the
    hooks that it comes to; outcome: what becomes of it where no program stands there. parent: of a clone. hops: how
    often tc programs sent it on."""

    number: int
    ingress: int
    iif: int
    time_ns: int
    buffer: Buffer | None
    outcome: Outcome
    way: tuple[Stage, ...]
    result: PacketResult
    parent: int | None = None
    hops: int = 0

    @classmethod
    def arrived(cls, nic: GoldenNic, number: int, arrival: Arrival, traffic: Traffic) -> "Packet":
        """A frame's end at an ingress."""
        result = traffic.packets[number]
        result.accepted = nic.admit(arrival.interface, arrival.data, arrival.error, arrival.egress)
        buffer = Buffer(arrival.data, nic.size.buffer_bytes) if result.accepted else None
        outcome = nic.without_program(arrival.interface, arrival.egress)
        way = nic.way(arrival.interface, arrival.egress)
        return cls(number, arrival.interface, arrival.interface, arrival.time_ns, buffer, outcome, way, result)

    @classmethod
    def cloned(
        cls, nic: GoldenNic, number: int, parent: int, clone: Clone, length: int, traffic: Traffic, time_ns: int
    ) -> "Packet":
        """What a packet's program made of it, of so many bytes."""
        nic.admit_clone(length)
        result = PacketResult(accepted=True, parent=parent)
        traffic.clones.append(result)
        way, outcome = nic.way_of(clone), nic.of_clone(clone)
        return cls(number, nic.clones, clone.iif, time_ns, clone.buffer, outcome, way, result, parent, clone.hops)


class Run:
    """One packet, from where it came in to its leaving. programs: which it runs. on_clone: told of each clone that one
    makes, as a run that hasn't begun; numbered behind all others that there are."""

    def __init__(
        self,
        nic: GoldenNic,
        packet: Packet,
        traffic: Traffic,
        observe: Observe | None,
        programs: "Attached | Recorded",
        on_clone: Callable[["Run"], None],
    ):
        self.nic = nic
        self.packet = packet
        self.traffic = traffic
        self.observe = observe
        self.programs = programs
        self.on_clone = on_clone
        self.thread: Thread | None = None
        self.helpers: Helpers | None = None
        self.program: Generator[SharedAccess | Choice | Retired, None, Outcome] | None = None
        self.program_type = ProgramType.XDP
        self.stage: Stage | None = None  # of the last program that began
        self.word = 0  # of that one at its hook, 0 where none is attached now
        self.outcome = packet.outcome
        self.access: SharedAccess | None = None  # that the program stands before

    def standing(self) -> tuple[Stage, int] | None:
        """Where the next program on the packet's way stands, and its word there."""
        if self.stage is None:
            found = [(stage, self.nic.entry(stage)) for stage in self.packet.way]
        else:
            found = [(self.stage, self.nic.following(self.word))] if self.outcome.chained else []
            if self.outcome.onward:
                found += [(stage, self.nic.entry(stage)) for stage in self.nic.from_there(self.outcome.onward)]
        return next(((stage, word) for stage, word in found if word), None)

    def advance(self) -> None:
        """Run the programs that there are, up to the first shared access, or to the end."""
        packet, standing = self.packet, self.standing() if self.packet.buffer else None
        if packet.buffer is None or (begin := self.programs.choose(standing)) is None:
            return
        before, skb = self.helpers, b""
        if before and self.program_type is ProgramType.SCHED_CLS:
            skb = before.memory.skb()
        self.program_type = begin.program_type
        self.stage, self.word = begin.stage, standing[1] if standing and standing[0] == begin.stage else 0
        packet.result.cpu = begin.cpu
        steps = self.traffic.retirements is not None or self.observe is not None
        self.thread, self.helpers = self.nic.prepare(
            begin.stage.device, begin.program_type, packet.buffer, begin.cpu, begin.samples, packet.iif, packet.hops,
            skb,
        )  # fmt: skip
        self.program = self.nic.execute(
            begin.stage, begin.slot, begin.program_type, self.thread, self.helpers, steps
        )
        self._tell(Happening.BEGAN, pc=begin.slot, value=began_value(begin.program_type, begin.stage))
        self._proceed()

    def ran(self, stage: Stage, word: int, cpu: int, decided: Outcome, instructions: int) -> None:
        """A program came to its end."""
        packet, result = self.packet, self.packet.result
        self.stage, self.word, self.outcome = stage, word, decided
        packet.hops += decided.sent
        packet.iif = packet.iif if decided.iif is None else decided.iif
        result.cpu = cpu
        result.programs += (Ran(stage.hook, stage.device, decided.verdict),)
        result.instructions = (result.instructions or 0) + instructions
        self.traffic.instructions += instructions

    def share(self) -> None:
        """Make the shared access that the program stands before, and run up to the next one, or to the end."""
        if self.access is not None:
            self._tell(Happening.SHARED)
            self._proceed()
        else:
            result = self.packet.result
            result.note = result.note or "more accesses to map values were recorded than the program makes"

    def leave(self) -> None:
        """Count what became of the frame, and let it go."""
        buffer, result = self.packet.buffer, self.packet.result
        if buffer is None:
            return
        if self.access is not None:
            result.note = "the program makes more accesses to map values than were recorded"
            return
        result.note = self.programs.note() or result.note
        self.release(buffer.frame)

    def release(self, frame: bytes) -> None:
        """Let the frame go as it is now."""
        packet, result, outcome = self.packet, self.packet.result, self.outcome
        frame = frame[: outcome.length]
        self.nic.release(packet.ingress, outcome, frame)
        result.action, result.verdict, result.cause = outcome.action, outcome.verdict, outcome.cause
        result.egress, result.queue, result.stopped = outcome.egress, outcome.queue, outcome.stopped
        if outcome.egress is not None:
            result.data = frame
            traffic = self.traffic
            clone = None if packet.parent is None else packet.number - len(traffic.packets)
            origin = traffic.origin(packet.number)
            traffic.departures.append(
                Departure(outcome.egress, frame, origin, time_ns=packet.time_ns, queue=outcome.queue, clone=clone)
            )

    def _take_clones(self) -> None:
        assert self.helpers
        for length in self.helpers.refused:
            self.nic.admit_clone(length, refused=True)
        self.helpers.refused.clear()
        while self.helpers.clones:
            clone, mine = self.helpers.clones.pop(0), self.packet
            number = len(self.traffic.packets) + len(self.traffic.clones)
            length = len(clone.buffer.frame)
            packet = Packet.cloned(self.nic, number, mine.number, clone, length, self.traffic, mine.time_ns)
            self.on_clone(Run(self.nic, packet, self.traffic, self.observe, Recorded(()), self.on_clone))
            self._tell(Happening.CLONED, packet=packet.number)

    def _proceed(self) -> None:
        assert self.program is not None and self.thread is not None
        made, self.access = self.access, None
        try:
            try:
                found = next(self.program)
            finally:  # it may have trapped right behind the access
                if made is not None and (write := write_of(self.nic, made)) is not None:
                    self._tell(Happening.WRITTEN, value=write.value, address=write.address)
            while not isinstance(found, SharedAccess):
                self._take_clones()
                if isinstance(found, Retired):
                    self._retired(found)
                found = next(self.program)
            self._take_clones()
            self.access = found
        except StopIteration as end:
            self._take_clones()
            assert self.stage
            self.ran(self.stage, self.word, self.packet.result.cpu or 0, end.value, self.thread.retired)
            verdict = self.outcome.verdict
            trapped = self.outcome.cause if verdict is None else Cause.NONE
            self._tell(Happening.ENDED, value=verdict or 0, cause=trapped)
            self.advance()

    def _retired(self, retired: Retired) -> None:
        next_pc = retired.pc if retired.next_pc is None else retired.next_pc
        if self.traffic.retirements is not None:
            self.traffic.retirements.append(
                Retirement(self.packet.number, retired.pc, next_pc, retired.register, retired.value, retired.address)
            )
        if self.observe is None:
            return
        value, register, address = retired.value, retired.register, retired.address
        if retired.stored is not None:
            assert self.thread is not None
            value = int.from_bytes(last_part(self.thread.memory, retired), "little")
        self._tell(
            Happening.RETIRED,
            value=value,
            address=NO_ADDRESS if address is None else address,
            pc=retired.pc,
            next_pc=next_pc & self.nic.size.program_slots - 1,
            register=NO_REGISTER if register is None else register,
        )

    def _tell(self, kind: Happening, **fields: int) -> None:
        if self.observe is not None:
            nothing = {"value": 0, "address": NO_ADDRESS, "pc": 0, "next_pc": 0, "register": NO_REGISTER, "cause": 0}
            who = {"packet": self.packet.number, "cpu": self.packet.result.cpu or 0}
            event = Event(clock=0, kind=kind, **nothing | who | fields)
            self.observe([event])
