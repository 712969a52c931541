"""The job `bpfnic run`: a program, a capture, a device; what came out, and whether the reference agrees."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bpfnic.host import attachments, iproute, pcap, report, rules
from bpfnic.host.bench import REFERENCE, Bench
from bpfnic.host.btf import target
from bpfnic.host.device import Arrival, DeviceOptions, OnStep, Pacing, Traffic
from bpfnic.host.maps import MapDefinition
from bpfnic.host.nic import interface_name, is_board, open_device
from bpfnic.host.source import Source
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import ProgramType

KERNEL = "linux"
UNVERIFIED = "the program was loaded unverified (--unsafe)"
_AT_THEIR_TIMES = Pacing(back_to_back=False, lossless=False)


@dataclass(frozen=True, kw_only=True)
class Job(Source):
    """What the command line asks for. `timing`: "back-to-back", "pcap" or "pps=N". `order`: "any" or "flow".
    `ifindexes` by port. `port`: the one at which every packet arrives; None: a capture's interface n is port n modulo
    the ports. `host_capture`: packets that the host sends, by port `host_port`, or that of the capture's interface.
    `attach`: what attachments.parse takes; without, the program stands at every port. `network`: what iproute.read
    takes. `types`: "" for those of what runs the program.
    `unsafe`: programs need not be verified."""

    capture: Path | None
    backend: str = "rtl"
    options: DeviceOptions = DeviceOptions()
    out: Path | None = None
    check: bool = False
    lockstep: bool = False
    timing: str = "back-to-back"
    order: str = "any"
    rules: tuple[Path, ...] = ()
    ifindexes: Mapping[int, int] = field(default_factory=dict)
    port: int | None = None
    network: str | None = None
    entries: Mapping[str, str] = field(default_factory=dict)
    unsafe: bool = False
    host_capture: Path | None = None
    host_port: int | None = None
    attach: tuple[str, ...] = ()


MEMBERS = ("program", "device", "notes", "packets", "attached", "interfaces", "clocks", "maps", "trace", "check",
           "seconds")  # fmt: skip


def run(job: Job, on_step: OnStep | None = None) -> dict[str, Any]:
    """Do it. Returns the report; its "check" is None, or what Bench.check or Bench.in_lockstep returns. Where lockstep
    stopped the device, it and the program are all there is to report; other members are None. Raises BpfnicError for
    anything that can't be used."""
    began = time.perf_counter()
    for option in ("check", "lockstep"):
        if getattr(job, option) and job.backend == REFERENCE:
            raise BpfnicError(f"--{option} compares with {REFERENCE}: choose another --backend")
    if real := "the kernel" if job.backend == KERNEL else "a card" if is_board(job.backend) else "":
        if job.unsafe:
            raise BpfnicError(f"--unsafe: {real} takes no unverified program; simulated NICs do")
        if job.lockstep:
            raise BpfnicError(f"--lockstep: {real} doesn't show its instructions (--check compares what came of them)")
        if job.timing != "back-to-back":
            raise BpfnicError(f"--timing {job.timing}: {real} takes the packets one by one, at no time of their own")
    job = replace(job, types=job.types or (target.KERNEL if job.backend == KERNEL else target.NIC))
    if job.attach and job.name:
        raise BpfnicError("--program chooses what stands at every port: --attach names what stands where")

    obj = job.open()
    for name, value in job.entries.items():
        _set_entries(obj.maps, name, value)
    places = attachments.parse(job.attach, obj, job.options.ports, job.other)
    entries = [rules.read(path, obj.maps) for path in job.rules]
    captures = [pcap.read(path) if path else None for path in (job.capture, job.host_capture)]
    pacing, start, arrivals = _arrivals(job, *captures)
    network = iproute.read(job.network) if job.network else None
    bench = Bench(job.backend, obj, arrivals, pacing, job.options, job.name, entries, job.ifindexes, network,
                  job.unsafe, places)  # fmt: skip
    program = bench.program
    definitions = {name: found for each in (obj, *(place.obj for place in places)) for name, found in each.maps.items()}
    result: dict[str, Any] = dict.fromkeys(MEMBERS)
    result["program"] = {"file": str(job.program), "name": program.name, "slots": len(program.instructions),
                         "verified": not job.unsafe}  # fmt: skip
    evidence, result["check"] = bench.in_lockstep(on_step) if job.lockstep else (bench.run(on_step), None)
    if evidence is not None:
        traffic, counters, ports = evidence.traffic, evidence.counters, evidence.capabilities.ports
        if job.out:
            pcap.write(job.out, _departures(traffic, start, ports, job.unsafe))
        cut = _notes([capture for capture in captures if capture])
        result |= {
            "device": report.describe_device(job.backend, evidence.capabilities),
            "notes": ([UNVERIFIED] if job.unsafe else []) + cut + _ended(job.options.budget, traffic),
            "packets": report.describe_packets(arrivals, traffic, counters, ports, evidence.ended),
            "attached": report.describe_attached(traffic, [bench.at(port) for port in range(ports)]),
            "interfaces": report.describe_interfaces(counters, [bench.ifindex(i) for i in range(ports + 1)], ports),
            "clocks": report.describe_clocks(traffic, pacing),
            "maps": report.describe_maps(definitions, evidence.maps, evidence.lost),
            "trace": list(evidence.trace),
        }
        if job.check and not job.lockstep:
            result["check"] = bench.check(evidence)
    result["seconds"] = {"run": evidence and evidence.traffic.seconds, "total": time.perf_counter() - began}
    return result


def _set_entries(maps: Mapping[str, MapDefinition], name: str, value: str) -> None:
    """max_entries of a map, in place of the object's."""
    names = [each.name for each in maps.values() if each.variables is None]
    if name not in names or not value.isdecimal() or not 0 < int(value) < 1 << 32:
        has = ", ".join(names) or "it has none"
        raise BpfnicError(f"--entries {name}={value}: must be a map of the object ({has}) and a number from 1 on")
    maps[name].max_entries = int(value)


# -- packets in and out ---------------------------------------------------------------------------------------------


def _arrivals(job: Job, wire: pcap.Capture | None, host: pcap.Capture | None) -> tuple[Pacing, int, list[Arrival]]:
    """How packets come, the time stamp of the first one, and they themselves in the order of their stamps."""
    ports = job.options.ports
    if wire is None and host is None:
        raise BpfnicError("there are no packets: --pcap has those that come in by ports, --host-pcap those of the host")
    for option, port in (("--port", job.port), ("--host-port", job.host_port)):
        if port is not None and not 0 <= port < ports:
            raise BpfnicError(f"{option} {port}: the NIC has ports 0 to {ports - 1}")
    if host is None and job.host_port is not None:
        raise BpfnicError(f"--host-port {job.host_port}: the host sends nothing; --host-pcap has what it sends")
    packets = [(packet, False) for packet in (wire.packets if wire else ())]
    packets += [(packet, True) for packet in (host.packets if host else ())]
    if wire and host:
        packets.sort(key=lambda each: each[0].timestamp)
    start = min(packet.timestamp for packet, _ in packets)
    if job.timing == "back-to-back":
        pacing, times = Pacing(), [0] * len(packets)
    elif job.timing == "pcap":
        pacing, times = _AT_THEIR_TIMES, [packet.timestamp - start for packet, _ in packets]
    else:
        pacing, each = _AT_THEIR_TIMES, _packets_a_second(job.timing)
        times = [number * 10**9 // each for number in range(len(packets))]
    arrivals = []
    for (packet, of_host), time_ns in zip(packets, times, strict=True):
        chosen = job.host_port if of_host else job.port
        port = packet.interface % ports if chosen is None else chosen
        arrivals.append(Arrival(ports if of_host else port, packet.data, time_ns, egress=port if of_host else 0))
    return replace(pacing, flows_apart=job.order == "flow"), start, arrivals


def _packets_a_second(timing: str) -> int:
    name, _, rate = timing.partition("=")
    if name != "pps" or not rate.isdecimal() or not int(rate):
        raise BpfnicError(f"--timing {timing}: must be back-to-back, pcap or pps=N")
    return int(rate)


_VERDICTS = {ProgramType.XDP: pcap.VERDICT_XDP, ProgramType.SCHED_CLS: pcap.VERDICT_TC}


def _departures(traffic: Traffic, start: int, ports: int, unsafe: bool) -> pcap.Capture:
    """What left, stamped from `start` on; the packet id is the number of the arrival, of a clone that of its
    original."""
    packets = []
    for departure in traffic.departures:
        result = traffic.packets[departure.arrival] if departure.clone is None else traffic.clones[departure.clone]
        verdict = None
        if result.programs and result.verdict is not None and (option := _VERDICTS.get(result.programs[-1].hook.type)):
            verdict = option, result.verdict
        packets.append(
            pcap.Packet(
                timestamp=start + departure.time_ns,
                data=departure.data,
                interface=departure.egress,
                packet_id=departure.arrival,
                comment=UNVERIFIED if unsafe else "",
                verdict=verdict,
            )
        )
    return pcap.Capture([pcap.Interface(interface_name(number, ports)) for number in range(ports + 1)], packets)


def _notes(captures: Sequence[pcap.Capture]) -> list[str]:
    packets = [packet for capture in captures for packet in capture.packets]
    cut = sum(packet.wire_length > len(packet.data) for packet in packets)
    return [f"{cut} of {len(packets)} packets were cut by the capture; they ran as captured"] if cut else []


def _ended(budget: int | None, traffic: Traffic) -> list[str]:
    """Which packets a lowered instruction budget ended."""
    ended = [str(number) for number, packet in enumerate(traffic.packets) if packet.cause is Cause.BUDGET]
    if budget is None or not ended:
        return []
    count = f"{len(ended)} of {len(traffic.packets)} packets"
    return [f"the instruction budget of {budget} ended {count}: {', '.join(ended)}"]


# -- what the command line says -------------------------------------------------------------------------------------


def options_for(backend: str, asked: Mapping[str, Any], say: Callable[[str], None]) -> DeviceOptions:
    """The size of the NIC, `map_types` as text. Raises BpfnicError where sizes are asked of the kernel or a card, which
    have their own, where no card answers, and for a map type that isn't one."""
    if backend == KERNEL and asked.keys() - {"waves"}:
        name = next(iter(asked)).replace("_", "-")
        raise BpfnicError(f"--{name} is the NIC's; the linux backend is the kernel")
    if is_board(backend):
        if sizes := asked.keys() - {"budget"}:
            name = min(sizes).replace("_", "-")
            raise BpfnicError(f"--{name}: a card is as its bitstream was built")
        device = open_device(backend, DeviceOptions())
        asked = {**asked, "ports": device.capabilities.ports}
        device.close()
    if (text := asked.get("map_types")) is not None:
        asked = {**asked, "map_types": frozenset(map(_map_type, text.split(",")))}
    return DeviceOptions(**asked, say=say)


def _map_type(name: str) -> MapType:
    try:
        return MapType[name.strip().upper()]
    except KeyError:
        raise BpfnicError(f"--map-types: there is no map type {name.strip()!r}") from None


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
