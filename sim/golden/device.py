"""The golden NIC behind the driver: frames one after the other, or exactly as a device recorded them."""

import random
import time
from collections.abc import Generator, Sequence

from bpfnic.host.device import (
    Arrival,
    Deliver,
    Departure,
    Device,
    DeviceOptions,
    Execution,
    OnStep,
    Pacing,
    PacketResult,
    Progress,
    Recording,
    Retirement,
    Traffic,
)
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.lockstep import NO_ADDRESS, NO_REGISTER, Event, Follower, Happening, Observe
from bpfnic.sim.golden.helpers import Samples
from bpfnic.sim.golden.lockstep import Lockstep, last_part, write_of
from bpfnic.sim.golden.memory import Buffer
from bpfnic.sim.golden.nic import GoldenNic, Size
from bpfnic.sim.golden.outcome import Outcome
from bpfnic.sim.golden.thread import Choice, Retired, SharedAccess, Thread
from bpfnic.spec import engine
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import ProgramType
from bpfnic.spec.registers import ENTRY_TYPES

STEP_FRAMES = 64  # between two reports of progress


def open_device(options: DeviceOptions) -> Device:
    """A golden NIC of the size that the hardware has with these options, and with its capabilities."""
    if options.waves is not None:
        raise BpfnicError("the golden model has no signals to write waves of (--backend rtl has)")
    if lacking := (options.map_types or frozenset()) - engine.MAP_TYPES:
        names = ", ".join(each.name for each in sorted(lacking))
        raise BpfnicError(f"map_types: the golden model has no {names}")
    return RegisterDevice(GoldenTransport(options), options.budget)


class GoldenTransport:
    """The golden NIC as a Transport. It has no clocks: Traffic.clocks is 0, and a departure's time is its arrival's."""

    name = "golden"
    wired = False

    def __init__(self, options: DeviceOptions):
        self.nic = GoldenNic(
            Size(
                cores=options.cores,
                threads=options.threads,
                program_slots=options.program_slots,
                packet_buffers=options.packet_buffers or 2 * options.threads,
                buffer_bytes=options.buffer_bytes,
                map_bytes=options.map_bytes,
                maps=options.maps,
                ports=options.ports,
                groups=engine.group_bits(engine.GROUPS),
                map_types=engine.bit_set(engine.MAP_TYPES if options.map_types is None else options.map_types),
                helpers=engine.bit_set(engine.HELPERS),
                program_types=engine.bit_set(engine.PROGRAM_TYPES),
            )
        )
        self.cpus = options.cores * options.threads
        self.deliver: Deliver = lambda frame: None
        self.nic.deliver = lambda frame: self.deliver(frame)
        self.read = self.nic.registers.read
        self.write = self.nic.registers.write

    def run(
        self,
        arrivals: Sequence[Arrival],
        pacing: Pacing,
        on_step: OnStep | None,
        replay: Recording | None,
        retirements: bool,
        observe: Observe | None = None,
    ) -> Traffic:
        """As Device.run. A free run takes the frames in the order given, packet n on CPU n modulo the CPUs; its clock
        is the arrival's time and its random numbers are those of a generator seeded with pacing.seed. A program that
        can't do what was recorded gets a `note` in its PacketResult."""
        if not self.nic.enabled():
            raise BpfnicError("the ingresses are not enabled (register CONTROL)")
        began = time.monotonic()
        traffic = Traffic([], [], retirements=[] if retirements else None)
        if replay is None:
            self._run_freely(arrivals, pacing, on_step, traffic, observe)
        else:
            self._run_as_recorded(arrivals, replay, on_step, traffic, observe)
        traffic.seconds = time.monotonic() - began
        return traffic

    def follow(self, arrivals: Sequence[Arrival]) -> Follower:
        return _Follower(self.nic, arrivals)

    def close(self) -> None:
        """Nothing is held."""

    # ------------------------------------------------------------ free run

    def _run_freely(
        self,
        arrivals: Sequence[Arrival],
        pacing: Pacing,
        on_step: OnStep | None,
        traffic: Traffic,
        observe: Observe | None,
    ) -> None:
        traffic.recording = Recording()
        source = random.Random(pacing.seed)
        accepted = 0
        for number, arrival in enumerate(arrivals):
            run = _Run(self.nic, number, arrival, traffic, observe)
            execution = None
            entry = self.nic.entry(arrival.interface)
            if run.result.accepted and entry is not None:
                samples = FreeSamples(arrival.time_ns, source)
                cpu = accepted % self.cpus
                run.begin(*entry, cpu, samples)
                while run.access is not None:
                    traffic.recording.shared.append(number)
                    run.share()
                execution = Execution(cpu, entry[0], tuple(samples.taken), entry[1])
            accepted += run.result.accepted
            traffic.recording.executions.append(execution)
            run.leave()
            for index in range(self.nic.size.maps):
                while self.nic.ready(index):
                    self._emit(index, observe)
                    traffic.recording.shared.append(~index)
            if on_step and (number + 1) % STEP_FRAMES == 0:
                on_step(Progress(number + 1, len(arrivals), 0))

    def _emit(self, index: int, observe: Observe | None) -> None:
        self.nic.emit(index)
        if observe:
            event = Event(clock=0, packet=0, kind=Happening.EMITTED, cpu=0, value=index, address=NO_ADDRESS, pc=0,
                          next_pc=0, register=NO_REGISTER, cause=0)  # fmt: skip
            observe([event])

    # ------------------------------------------------------------ replay

    def _run_as_recorded(
        self,
        arrivals: Sequence[Arrival],
        replay: Recording,
        on_step: OnStep | None,
        traffic: Traffic,
        observe: Observe | None,
    ) -> None:
        """Each program stands before its next shared access, and the accesses are made in the order of the recording.
        What lies between shared accesses is nobody else's business, so it may run at any time."""
        runs = [_Run(self.nic, number, arrival, traffic, observe) for number, arrival in enumerate(arrivals)]
        for run, execution in zip(runs, replay.executions, strict=True):
            if run.result.accepted and execution is not None:
                samples = RecordedSamples(execution.samples)
                run.begin(execution.entry, execution.program_type, execution.cpu, samples)
        for done, number in enumerate(replay.shared):
            if number >= 0:
                runs[number].share()
            elif self.nic.ready(~number):  # what doesn't leave here is missing then
                self._emit(~number, observe)
            if on_step and done % (1024 * STEP_FRAMES) == 0:
                on_step(Progress(done * len(arrivals) // len(replay.shared), len(arrivals), 0))
        for run in runs:
            run.leave()


class FreeSamples:
    """Clock, random numbers and choices of a free run: the clock stands at the arrival's time and advances with every
    look."""

    def __init__(self, time_ns: int, source: random.Random):
        self.arrived_ns = self.time_ns = time_ns
        self.source = source
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


class RecordedSamples:
    """Clock, random numbers and choices as recorded, in the order in which they were taken."""

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

    def _next(self) -> int:
        if self.left:
            return self.left.pop()
        self.missing = True
        return 0


class _Follower(Lockstep):
    """The golden NIC at another device's side."""

    def end(self, numbers: Sequence[int]) -> Traffic:
        """As Follower.end."""
        traffic = Traffic([], [])
        for number in numbers:
            run = _Run(self.nic, number, self.arrivals[number], traffic, None)
            if not run.result.accepted:
                continue
            if (ended := self.ended.get(number)) is None:
                run.leave()
                continue
            run.result.cpu, run.outcome, run.result.instructions = ended.cpu, ended.outcome, ended.instructions
            traffic.instructions += ended.instructions
            run.release(ended.frame)
        return traffic


class _Run:
    """One frame, from its end at the ingress to its leaving."""

    def __init__(
        self, nic: GoldenNic, number: int, arrival: Arrival, traffic: Traffic, observe: Observe | None
    ):
        self.nic = nic
        self.number = number
        self.arrival = arrival
        self.traffic = traffic
        self.observe = observe
        self.result = PacketResult(nic.admit(arrival.interface, arrival.data, arrival.error, arrival.egress))
        traffic.packets.append(self.result)
        self.buffer = Buffer(arrival.data, nic.size.buffer_bytes) if self.result.accepted else None
        self.thread: Thread | None = None
        self.program: Generator[SharedAccess | Choice | Retired, None, Outcome] | None = None
        self.samples: Samples | None = None
        self.outcome = nic.without_program(arrival.interface, arrival.egress)
        self.access: SharedAccess | None = None  # that the program stands before

    def begin(self, entry: int, program_type: ProgramType, cpu: int, samples: Samples) -> None:
        """Run the program up to its first shared access, or to its end."""
        assert self.buffer is not None
        self.samples = samples
        self.result.cpu = cpu
        ingress, steps = self.arrival.interface, self.traffic.retirements is not None or self.observe is not None
        self.thread, helpers = self.nic.prepare(ingress, self.buffer, cpu, samples)
        self.program = self.nic.execute(ingress, entry, program_type, self.thread, helpers, steps)
        self._tell(Happening.BEGAN, pc=entry, value=ENTRY_TYPES.index(program_type))
        self._proceed()

    def share(self) -> None:
        """Make the shared access that the program stands before, and run up to the next one, or to the end."""
        if self.access is not None:
            self._tell(Happening.SHARED)
            self._proceed()
        else:
            self.result.note = self.result.note or "more accesses to map values were recorded than the program makes"

    def leave(self) -> None:
        """Count what became of the frame, and let it go."""
        if self.buffer is None:
            return
        if self.access is not None:
            self.result.note = "the program makes more accesses to map values than were recorded"
            return
        if isinstance(self.samples, RecordedSamples) and (self.samples.missing or self.samples.left):
            self.result.note = "the program asks for another number of clock and random values than were recorded"
        self.release(self.buffer.frame)

    def release(self, frame: bytes) -> None:
        """Let the frame go as it is now."""
        frame = frame[: self.outcome.length]
        self.nic.release(self.arrival.interface, self.outcome, frame)
        result, outcome = self.result, self.outcome
        result.action, result.verdict, result.cause = outcome.action, outcome.verdict, outcome.cause
        result.egress, result.queue = outcome.egress, outcome.queue
        if outcome.egress is not None:
            result.data = frame
            self.traffic.departures.append(
                Departure(outcome.egress, frame, self.number, time_ns=self.arrival.time_ns, queue=outcome.queue)
            )

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
                if isinstance(found, Retired):
                    self._retired(found)
                found = next(self.program)
            self.access = found
        except StopIteration as end:
            self.outcome, self.result.instructions = end.value, self.thread.retired
            self.traffic.instructions += self.thread.retired
            verdict = self.outcome.verdict
            trapped = self.outcome.cause if verdict is None else Cause.NONE
            self._tell(Happening.ENDED, value=verdict or 0, cause=trapped)

    def _retired(self, retired: Retired) -> None:
        next_pc = retired.pc if retired.next_pc is None else retired.next_pc
        if self.traffic.retirements is not None:
            self.traffic.retirements.append(
                Retirement(self.number, retired.pc, next_pc, retired.register, retired.value, retired.address)
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
            event = Event(clock=0, packet=self.number, kind=kind, cpu=self.result.cpu or 0, **nothing | fields)
            self.observe([event])
