"""The backend `rtl`: the compiled NIC behind the driver's Transport."""

import gc
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from bpfnic.hdl.config import NicConfig
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
    Ran,
    Recording,
    Retirement,
    Traffic,
    Transport,
)
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.lockstep import NO_ADDRESS, NO_REGISTER, Event, Follower, Happening, Observe
from bpfnic.sim.rtl import build
from bpfnic.sim.rtl.simulation import Simulation
from bpfnic.spec import registers
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import QUEUE_USER_BIT
from bpfnic.spec.programs import Hook, XdpAction
from bpfnic.spec.registers import ENTRY_TYPES

HOOKS = tuple(Hook)
SLICE = 4096  # clocks between two calls of on_step: some milliseconds
_CLOCK_NS = registers.BY_NAME["CLOCK_NS"].address()


def open_device(options: DeviceOptions) -> Device:
    """The NIC of these sizes, compiled now if its library is not in the cache (a minute or so). Raises BpfnicError for
    sizes that hdl/config.py forbids, and where Verilator or a C++ compiler is missing."""
    same_each_time = random.Random(0).getrandbits  # a run that is simulated again takes the same clocks
    return RegisterDevice(RtlTransport(options, options.say), options.budget, same_each_time)


def configuration(options: DeviceOptions) -> NicConfig:
    """The NIC of these options, with its trace. Raises BpfnicError for sizes that hdl/config.py forbids."""
    sizes = {size.name: getattr(options, size.name, None) for size in fields(NicConfig)}
    return NicConfig(**{name: value for name, value in sizes.items() if value is not None} | {"trace": True})


class RtlTransport(Transport):
    """A NIC simulated clock by clock.

    Attributes
    ----------
    config : NicConfig, trace included, for that is how packets are followed.
    clocks, simulated : clocks since reset, and those of them that were not skipped as idle.
    loop_seconds : processor time that the native loop took for the last run.

    Parameters
    ----------
    library : a NIC of these options that is compiled already, for who opens many or a changed one.
    """

    name = "rtl"
    wired = False

    def __init__(self, options: DeviceOptions, say: build.Say = build.silent, library: Path | None = None):
        self.config = configuration(options)
        waves = options.waves
        self.loop_seconds = 0.0
        self.deliver: Deliver = lambda frame: None
        if library is None:
            library = build.library(build.netlist(self.config, say), waves=waves is not None, say=say)
        self._simulation = Simulation(library, waves)

    @property
    def clocks(self) -> int:
        return self._simulation.counts().clock

    @property
    def simulated(self) -> int:
        return self._simulation.counts().simulated

    def read(self, address: int) -> int:
        return self._simulation.read(address)

    def write(self, address: int, value: int) -> None:
        self._simulation.write(address, value)

    def set_watchdog(self, clocks: int) -> None:
        """Clocks without any movement after which a run is given up."""
        self._simulation.set_watchdog(clocks)

    def close(self) -> None:
        self._simulation.close()

    def follow(self, arrivals: Sequence[Arrival]) -> Follower:
        raise BpfnicError("rtl can't follow another device instruction by instruction")

    def run(
        self,
        arrivals: Sequence[Arrival],
        pacing: Pacing,
        on_step: OnStep | None,
        replay: Recording | None,
        retirements: bool,
        observe: Observe | None = None,
    ) -> Traffic:
        """As Device.run. Raises BpfnicError if the NIC stands still."""
        if replay is not None:
            raise BpfnicError("rtl records runs; it can't replay one")
        simulation = self._simulation
        clock_ns = self.read(_CLOCK_NS)
        simulation.set_clock_ns(clock_ns)
        simulation.keep_events(retirements or observe is not None, observed=observe is not None)
        for interface in range(self.config.interfaces):
            simulation.pace_ingress(interface, pacing.ingress_idle, seed=pacing.seed * 16 + interface + 1)
            simulation.pace_egress(interface, pacing.egress_stall, seed=pacing.seed * 16 + interface + 9)
        before = simulation.counts()
        for arrival in arrivals:
            clock = 0 if pacing.back_to_back else before.clock + 1 + arrival.time_ns // max(clock_ns, 1)
            simulation.offer(arrival.interface, arrival.data, clock, arrival.error | arrival.egress << 1)
        began, busy = time.perf_counter(), time.process_time()
        done = False
        while not done:
            done = simulation.run(SLICE)
            for frame in simulation.records():
                self.deliver(frame)
            if observe:
                observe(simulation.events())
                simulation.forget_events()
            if on_step and not done:
                now = simulation.counts()
                on_step(Progress(now.ended - before.ended, len(arrivals), now.clock - before.clock))
        seconds, self.loop_seconds = time.perf_counter() - began, time.process_time() - busy
        collecting = gc.isenabled()
        gc.disable()  # a million fresh objects, none of them garbage: looking through them would take as long again
        try:
            traffic = self._traffic(len(arrivals), before.clock + 1, clock_ns, observed=observe is not None)
        finally:
            if collecting:
                gc.enable()
        after = simulation.counts()
        traffic.clocks, traffic.instructions = after.clock - before.clock, after.retired - before.retired
        traffic.seconds = seconds
        if retirements:
            traffic.retirements = _retirements(simulation.events())
        simulation.forget()
        if on_step:
            on_step(Progress(len(arrivals), len(arrivals), traffic.clocks))
        return traffic

    def _traffic(self, arrivals: int, start: int, clock_ns: int, observed: bool) -> Traffic:
        simulation = self._simulation
        traffic = Traffic([], [])
        records, data = simulation.packets(), simulation.data()
        ran = simulation.executions()
        samples: list[list[int]] = [[] for _ in ran]
        for sample in simulation.samples():
            samples[sample.execution].append(sample.value)
        executions: list[tuple[Execution, ...]] = [()] * len(records)
        programs: list[tuple[Ran, ...]] = [()] * len(records)
        for each, taken in zip(ran, samples, strict=True):
            kind, hook = ENTRY_TYPES[each.program_type], HOOKS[each.hook]
            executions[each.packet] += (Execution(each.cpu, each.entry, tuple(taken), kind, hook, each.device),)
            programs[each.packet] += (Ran(hook, each.device, None if each.trapped else each.verdict),)
        departures = traffic.departures
        for index, record in enumerate(records):
            result = PacketResult(accepted=bool(record.accepted))
            clone = index - arrivals if index >= arrivals else None
            if clone is None:
                traffic.packets.append(result)
            else:
                result.parent = record.parent
                traffic.clones.append(result)
            if record.accepted:
                result.action, result.cause = XdpAction(record.action), Cause(record.cause)
            if record.queued:
                result.egress = record.egress
                result.data = data[record.data_offset : record.data_offset + record.data_length]
                time_ns = (record.gone - start) * clock_ns
                queue = record.user >> QUEUE_USER_BIT
                if record.egress == self.config.ports and (queue or result.action is XdpAction.XDP_REDIRECT):
                    result.queue = queue
                departures.append(Departure(record.egress, result.data, traffic.origin(index), record.gone, time_ns,
                                            result.queue, clone))  # fmt: skip
            if record.ran:
                result.verdict = None if record.trapped else record.verdict
                outside = result.cause is Cause.PROGRAM_RANGE
                result.stopped = record.stopped if record.trapped and not outside else None
                result.programs = programs[index]
                result.cpu = record.cpu
                result.started, result.finished = record.dispatched, record.finished
                result.instructions = record.instructions
        departures.sort(key=lambda departure: departure.clock)
        shared = [~access.packet if access.emits else access.packet for access in simulation.shared()]
        if not observed:
            traffic.recording = Recording(executions, shared, [record.parent for record in records[arrivals:]])
        return traffic


def _retirements(events: Iterable[tuple]) -> list[Retirement]:
    """Retired instructions in their order; values that came later are filled in, and what trapped later is left out."""
    listed: list[Retirement | None] = []
    pending: dict[int, int] = {}  # CPU: place in the list
    for event in map(Event._make, events):
        register, value = (None, 0) if event.register == NO_REGISTER else (event.register, event.value)
        if event.kind == Happening.RESULT:
            place = pending.pop(event.cpu)
            listed[place] = listed[place]._replace(register=register, value=value)
        elif event.kind == Happening.ENDED and event.cpu in pending:
            listed[pending.pop(event.cpu)] = None
        elif event.kind in (Happening.RETIRED, Happening.PENDING):
            if event.kind == Happening.PENDING:
                pending[event.cpu] = len(listed)
            address = None if event.address == NO_ADDRESS else event.address
            listed.append(Retirement(event.packet, event.pc, event.next_pc, register, value, address))
    return [retirement for retirement in listed if retirement]
