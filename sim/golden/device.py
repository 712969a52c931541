"""The golden NIC behind the driver: frames one after the other, or exactly as a device recorded them."""

import random
import time
from collections import deque
from collections.abc import Sequence

from bpfnic.host.device import (
    Arrival,
    Deliver,
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
from bpfnic.sim.golden.lockstep import Lockstep
from bpfnic.sim.golden.nic import GoldenNic, Size
from bpfnic.sim.golden.runs import Attached, Packet, Recorded, Run
from bpfnic.spec import engine
from bpfnic.spec.errors import BpfnicError

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

    def read_all(self, addresses: Sequence[int]) -> list[int]:
        return [self.read(address) for address in addresses]

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
        traffic = _traffic(len(arrivals), [] if retirements else None)
        if replay is None:
            self._run_freely(arrivals, pacing, on_step, traffic, observe)
        else:
            self._run_as_recorded(arrivals, replay, on_step, traffic, observe)
        traffic.seconds = time.monotonic() - began
        return traffic

    def follow(self, arrivals: Sequence[Arrival]) -> Follower:
        return _Follower(self.nic, arrivals)

    def connect(self) -> None:
        """Its ports lead nowhere."""

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
        """A packet's clones go behind it, each with the clones that its own program makes."""
        recording = traffic.recording = Recording()
        source = random.Random(pacing.seed)
        accepted = 0
        of_clones: list[tuple[Execution, ...]] = []
        for number, arrival in enumerate(arrivals):
            waiting: deque[Run] = deque()
            packet = Packet.arrived(self.nic, number, arrival, traffic)
            programs = Attached(self.nic, accepted % self.cpus, arrival.time_ns, source, waiting)
            run = Run(self.nic, packet, traffic, observe, programs, waiting.append)
            self._run_alone(run, recording)
            accepted += packet.result.accepted
            recording.executions.append(programs.done())
            while waiting:
                clone = waiting.popleft()
                clone.programs = Attached(self.nic, programs.cpu, arrival.time_ns, source, waiting)
                self._run_alone(clone, recording)
                assert clone.packet.parent is not None
                recording.clones.append(clone.packet.parent)
                of_clones.append(clone.programs.done())
            for index in range(self.nic.size.maps):
                while self.nic.ready(index):
                    self._emit(index, observe)
                    recording.shared.append(~index)
            if on_step and (number + 1) % STEP_FRAMES == 0:
                on_step(Progress(number + 1, len(arrivals), 0))
        recording.executions += of_clones

    def _run_alone(self, run: Run, recording: Recording) -> None:
        run.advance()
        while run.access is not None:
            recording.shared.append(run.packet.number)
            run.share()
        run.leave()

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
        runs: dict[int, Run] = {}
        clones: dict[int, deque[int]] = {}  # of each packet, their numbers
        for clone, parent in enumerate(replay.clones):
            clones.setdefault(parent, deque()).append(len(arrivals) + clone)

        def begin(run: Run) -> None:
            packet = run.packet
            if packet.parent is not None:
                numbers = clones.get(packet.parent)
                if not numbers:
                    runs[packet.parent].packet.result.note = "the program makes more clones than were recorded"
                    return
                packet.number = numbers.popleft()
            run.programs = Recorded(replay.executions[packet.number])
            runs[packet.number] = run
            run.advance()

        packets = [Packet.arrived(self.nic, number, arrival, traffic) for number, arrival in enumerate(arrivals)]
        for packet in packets:
            begin(Run(self.nic, packet, traffic, observe, Recorded(()), begin))
        for done, number in enumerate(replay.shared):
            if number in runs:
                runs[number].share()
            elif number < 0 and self.nic.ready(~number):  # what doesn't leave here is missing then
                self._emit(~number, observe)
            if on_step and done % (1024 * STEP_FRAMES) == 0:
                on_step(Progress(done * len(arrivals) // len(replay.shared), len(arrivals), 0))
        for parent, left in clones.items():
            if left and parent in runs:
                runs[parent].packet.result.note = "more clones were recorded than the program makes"
        traffic.clones[:] = [runs[number].packet.result for number in sorted(runs) if number >= len(arrivals)]
        for number in sorted(runs):
            runs[number].leave()


def _traffic(packets: int, retirements: list[Retirement] | None = None) -> Traffic:
    """Of a run that has yet to be: a result for each packet, so that clones are numbered behind them all."""
    return Traffic([PacketResult(accepted=False) for _ in range(packets)], [], retirements=retirements)


class _Follower(Lockstep):
    """The golden NIC at another device's side."""

    def end(self, numbers: Sequence[int]) -> Traffic:
        """As Follower.end."""
        traffic = _traffic(len(numbers))
        new = {number: place for place, number in enumerate(numbers)}
        runs = [(number, Packet.arrived(self.nic, new[number], self.arrivals[number], traffic)) for number in numbers]
        for number, made in self.clones.items():
            new[number] = len(new)
            parent = new[made.parent]
            clone, length, _, time_ns = made
            runs.append((number, Packet.cloned(self.nic, new[number], parent, clone, length, traffic, time_ns)))
        for length in self.refused:
            self.nic.admit_clone(length, refused=True)
        for number, packet in runs:
            if packet.result.accepted:
                if number in self.packets:
                    packet.buffer = self.packets[number].buffer
                run = Run(self.nic, packet, traffic, None, Recorded(()), lambda clone: None)
                for ended in self.ended.get(number, ()):
                    run.ran(ended.stage, ended.word, ended.cpu, ended.outcome, ended.instructions)
                run.advance()
                run.leave()
        return traffic
