"""The job `bpfnic run`: a program, a capture, a device; what came out, and whether the reference agrees."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bpfnic.host import check, compile, listing, pcap, report, rules
from bpfnic.host.check import Difference, Evidence
from bpfnic.host.device import Arrival, DeviceOptions, OnStep, Pacing, Retirement, Traffic
from bpfnic.host.nic import Nic, interface_name, open
from bpfnic.host.object import Object, Program
from bpfnic.spec import addresses, helpers
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.isa import Operation, find

REFERENCE, KERNEL = "golden", "linux"
_NOT_COMPUTED = frozenset(
    helpers.BY_NAME[name].number for name in ("ktime_get_ns", "get_prandom_u32", "get_smp_processor_id")
)
_AT_THEIR_TIMES = Pacing(back_to_back=False, lossless=False)


@dataclass(frozen=True)
class Job:
    """What the command line asks for. `timing`: "back-to-back", "pcap" or "pps=N". `ifindexes` by port. `port`: the one
    at which every packet arrives; None: a capture's interface n is port n modulo the ports."""

    program: Path
    capture: Path
    backend: str = "rtl"
    options: DeviceOptions = DeviceOptions()
    name: str | None = None
    out: Path | None = None
    check: bool = False
    timing: str = "back-to-back"
    rules: tuple[Path, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    cpu: str = compile.DEFAULT_CPU
    include: tuple[Path, ...] = ()
    define: tuple[str, ...] = ()
    ifindexes: Mapping[int, int] = field(default_factory=dict)
    port: int | None = None


def run(job: Job, on_step: OnStep | None = None) -> dict[str, Any]:
    """Do it. Returns the report; its "check" is None, or says whether the reference agrees and if not, what differs.
    Raises BpfnicError for anything that can't be used."""
    began = time.perf_counter()
    if job.check and job.backend == REFERENCE:
        raise BpfnicError(f"--check compares with {REFERENCE}: choose another --backend")
    if job.backend == KERNEL and job.timing != "back-to-back":
        raise BpfnicError(f"--timing {job.timing}: the kernel takes the packets one by one, at no time of their own")
    obj = open(job.program, cpu=job.cpu, include=job.include, define=job.define)
    for name, value in job.variables.items():
        obj.set_global(name, value)
    program = obj.program(job.name)
    entries = [rules.read(path, obj.maps) for path in job.rules]
    capture = pcap.read(job.capture)
    pacing, arrivals = _arrivals(job, capture)
    bench = _Bench(job, obj, entries, arrivals, pacing)
    with bench.device(job.backend, job.options) as card:
        traffic = card.run(arrivals, pacing, on_step)
        evidence = _evidence(card, traffic)
        if job.out:
            pcap.write(job.out, _departures(traffic, capture, card.ports))
        result: dict[str, Any] = {
            "program": {"file": str(job.program), "name": program.name, "slots": len(program.instructions)},
            "device": report.describe_device(job.backend, card.device.capabilities),
            "notes": _notes(capture),
            "packets": report.describe_packets(arrivals, traffic, evidence.counters),
            "interfaces": report.describe_interfaces(evidence.counters, _ifindexes(job), card.ports),
            "clocks": report.describe_clocks(traffic),
            "maps": report.describe_maps(obj.maps, evidence.maps),
        }
        room = card.device.capabilities.buffer_bytes - addresses.HEADROOM
    result["check"] = bench.check(evidence, room) if job.check else None
    result["seconds"] = {"run": traffic.seconds, "total": time.perf_counter() - began}
    return result


# -- packets in and out ---------------------------------------------------------------------------------------------


def _arrivals(job: Job, capture: pcap.Capture) -> tuple[Pacing, list[Arrival]]:
    ports = job.options.ports
    if job.port is not None and not 0 <= job.port < ports:
        raise BpfnicError(f"--port {job.port}: the NIC has ports 0 to {ports - 1}")
    start = min(packet.timestamp for packet in capture.packets)
    if job.timing == "back-to-back":
        pacing, times = Pacing(), [0] * len(capture.packets)
    elif job.timing == "pcap":
        pacing, times = _AT_THEIR_TIMES, [packet.timestamp - start for packet in capture.packets]
    else:
        pacing, each = _AT_THEIR_TIMES, _packets_a_second(job.timing)
        times = [number * 10**9 // each for number in range(len(capture.packets))]
    arrivals = [
        Arrival(packet.interface % ports if job.port is None else job.port, packet.data, time_ns)
        for packet, time_ns in zip(capture.packets, times, strict=True)
    ]
    return pacing, arrivals


def _packets_a_second(timing: str) -> int:
    name, _, rate = timing.partition("=")
    if name != "pps" or not rate.isdecimal() or not int(rate):
        raise BpfnicError(f"--timing {timing}: must be back-to-back, pcap or pps=N")
    return int(rate)


def _departures(traffic: Traffic, capture: pcap.Capture, ports: int) -> pcap.Capture:
    """What left, stamped from the capture's first packet on; the packet id is the number of the arrival."""
    start = min(packet.timestamp for packet in capture.packets)
    packets = []
    for departure in traffic.departures:
        verdict = traffic.packets[departure.arrival].verdict
        packets.append(
            pcap.Packet(
                timestamp=start + departure.time_ns,
                data=departure.data,
                interface=departure.egress,
                packet_id=departure.arrival,
                verdict=None if verdict is None else (pcap.VERDICT_XDP, verdict),
            )
        )
    return pcap.Capture([pcap.Interface(interface_name(number, ports)) for number in range(ports + 1)], packets)


def _notes(capture: pcap.Capture) -> list[str]:
    cut = sum(packet.wire_length > len(packet.data) for packet in capture.packets)
    return [f"{cut} packets were cut by the capture; they ran as captured"] if cut else []


def _ifindexes(job: Job) -> list[int]:
    return [job.ifindexes.get(port, port + 1) for port in range(job.options.ports)] + [0]


# -- devices --------------------------------------------------------------------------------------------------------


def _evidence(card: Nic, traffic: Traffic) -> Evidence:
    contents = {name: held.device_map.dump() for name, held in card.maps.items()}
    return Evidence(card.device.name, traffic, card.device.counters(), contents)


@dataclass(frozen=True)
class _Bench:
    """The same program, maps and packets for every device that runs them."""

    job: Job
    obj: Object
    entries: Sequence[rules.Rules]
    arrivals: Sequence[Arrival]
    pacing: Pacing

    @property
    def program(self) -> Program:
        return self.obj.program(self.job.name)

    def device(self, backend: str, options: DeviceOptions) -> Nic:
        """A fresh device, ready to run."""
        card = Nic(backend, options)
        try:
            for port, ifindex in enumerate(_ifindexes(self.job)[: card.ports]):
                card.device.set_ifindex(port, ifindex)
            loaded = card.load(self.obj, self.job.name)
            for entries in self.entries:
                if unused := [name for name in entries if name not in card.maps]:
                    raise BpfnicError(f"program {loaded.name} does not use map {unused[0]!r}")
                rules.apply(entries, {name: held.device_map for name, held in card.maps.items()})
            loaded.attach()
        except BaseException:
            card.close()
            raise
        return card

    def check(self, actual: Evidence, room: int) -> dict[str, Any]:
        """Compare with the reference. `room`: the longest frame that the device takes."""
        if actual.traffic.recording is None:
            self._refuse_what_was_not_recorded(actual.device)
            # One after the other is one CPU; a buffer as large as the kernel's.
            options = replace(self.job.options, cores=1, threads=1, buffer_bytes=4096)
            with self.device(REFERENCE, options) as card:
                expected = _evidence(card, card.run(self.arrivals, self.pacing))
            return self._verdict(check.compare_with_kernel(actual, expected), actual, [])
        numbers = check.replayable(self.arrivals, actual.traffic, room)
        expected = self._replay(actual.traffic, numbers, retirements=False)
        difference = check.compare(actual, expected, self.arrivals, numbers, self.pacing)
        return self._verdict(difference, actual, self._trace(difference, numbers) if difference else [])

    def _replay(self, traffic: Traffic, numbers: Sequence[int], retirements: bool) -> Evidence:
        assert traffic.recording
        recording = check.part_of(traffic.recording, numbers)
        options = replace(self.job.options, waves=None)
        with self.device(REFERENCE, options) as card:
            offered = [self.arrivals[number] for number in numbers]
            run = card.run(offered, self.pacing, replay=recording, retirements=retirements)
            return _evidence(card, run)

    def _refuse_what_was_not_recorded(self, device: str) -> None:
        for slot, instruction in enumerate(self.program.instructions):
            if instruction is None or find(instruction).operation is not Operation.CALL_HELPER:
                continue
            if instruction.imm in _NOT_COMPUTED:
                name = helpers.find(instruction.imm).name
                where = f"{listing.instruction(self.program, slot)} {listing.source(self.program, slot)}".rstrip()
                raise BpfnicError(f"--check: {device} doesn't record what bpf_{name} returns ({where})")

    def _verdict(self, difference: Difference | None, actual: Evidence, trace: Sequence[str]) -> dict[str, Any]:
        result: dict[str, Any] = {"reference": REFERENCE, "equal": difference is None}
        if difference is None:
            return result
        where = ""
        if difference.packet is not None:
            arrival = self.arrivals[difference.packet]
            port = interface_name(arrival.interface, self.job.options.ports)
            where = f"packet {difference.packet} ({len(arrival.data)} bytes at {port}), "
        result["packet"] = difference.packet
        result["difference"] = (
            f"{where}{difference.what}: {actual.device} {difference.actual}, {REFERENCE} {difference.expected}"
        )
        result["trace"] = list(trace)
        return result

    def _trace(self, difference: Difference, numbers: Sequence[int]) -> list[str]:
        """Lines that say at which instruction the two parted: both run once more, with every instruction listed."""
        with self.device(self.job.backend, replace(self.job.options, waves=None)) as card:
            again = card.run(self.arrivals, self.pacing, retirements=True)
            entry = next(execution.entry for execution in _executions(again) if execution is not None)
        expected = self._replay(again, numbers, retirements=True).traffic
        theirs = [replace(one, arrival=numbers[one.arrival]) for one in expected.retirements or []]
        pair = check.where_it_began(difference, again.retirements or [], theirs, numbers)
        if pair is None:
            return ["every instruction did the same on both: the difference is outside the program"]
        return self._parting(*pair, entry)

    def _parting(self, ours: Retirement | None, theirs: Retirement | None, entry: int) -> list[str]:
        one = ours or theirs
        assert one
        slot = one.pc - entry
        lines = [f"packet {one.arrival}, {listing.instruction(self.program, slot)}"]
        if source := listing.source(self.program, slot):
            lines.append(source)
        if ours is None or theirs is None:
            stopped, went = (self.job.backend, REFERENCE) if ours is None else (REFERENCE, self.job.backend)
            return [*lines, f"{stopped} ended before it, {went} executed it"]
        if ours.pc != theirs.pc:
            return [*lines, f"{self.job.backend} is here, {REFERENCE} at instruction {theirs.pc - entry}"]
        sides = ((self.job.backend, ours), (REFERENCE, theirs))
        if (ours.register, ours.value) != (theirs.register, theirs.value):
            lines += [f"{name}: {_written(one)}" for name, one in sides]
        if None not in (ours.address, theirs.address) and ours.address != theirs.address:
            lines += [f"{name}: address {_hexadecimal(one.address)}" for name, one in sides]
        if ours.next_pc != theirs.next_pc:
            lines += [f"{name}: goes on at instruction {one.next_pc - entry}" for name, one in sides]
        return lines


def _executions(traffic: Traffic) -> Sequence[Any]:
    assert traffic.recording
    return traffic.recording.executions


def _written(one: Retirement) -> str:
    return "writes no register" if one.register is None else f"r{one.register} = {one.value:#x}"


def _hexadecimal(value: int | None) -> str:
    return "none" if value is None else f"{value:#x}"


# -- what the command line says -------------------------------------------------------------------------------------


def options_for(backend: str, asked: Mapping[str, Any], say: Callable[[str], None]) -> DeviceOptions:
    """The size of the NIC. Raises BpfnicError where sizes are asked of the kernel, which has its own."""
    if backend == KERNEL and asked.keys() - {"waves"}:
        name = next(iter(asked)).replace("_", "-")
        raise BpfnicError(f"--{name} is a size of the NIC; the linux backend is the kernel")
    return DeviceOptions(**asked, say=say)


def ports_of(ifindexes: Mapping[str, str], options: DeviceOptions) -> dict[int, int]:
    """Port number to ifindex, from {"port0": "3"}."""
    names = [interface_name(port, options.ports) for port in range(options.ports)]
    result = {}
    for name, value in ifindexes.items():
        if name not in names:
            raise BpfnicError(f"--ifindex {name}={value}: there is no {name}; the NIC has {', '.join(names)}")
        if not value.isdecimal() or not 0 < int(value) < 1 << 31:
            raise BpfnicError(f"--ifindex {name}={value}: an ifindex is a number from 1 to 2147483647")
        result[names.index(name)] = int(value)
    known = [result.get(port, port + 1) for port in range(options.ports)]
    if twice := [ifindex for ifindex in known if known.count(ifindex) > 1]:
        raise BpfnicError(f"--ifindex: two ports have ifindex {twice[0]}")
    return result
