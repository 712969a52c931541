"""The running kernel as a device: programs are loaded by bpf(2) and run by BPF_PROG_TEST_RUN, a packet at a time.

It is the reference for verdicts, maps, helpers and packets. What TEST_RUN leaves out is done here as the kernel's
receive path would do it:

- The ingress that a program sees is a link with the interface's ifindex, in a namespace of the device's own.
- Where bpf_redirect() sends a packet is learned from the program itself (redirect.py). As in xdp_do_redirect(), a
  redirect without a target, or to an ifindex that no port has, aborts the packet. A redirect with flags needs nothing
  here: bpf_redirect() refuses it and returns XDP_ABORTED. What bpf_redirect_map() finds is looked up in its map, whose
  entries are real: links of the namespace, queues of CPUs, sockets. A CPU's or socket's packet goes to the host, to the
  queue that the index says.
- A verdict above XDP_REDIRECT aborts the packet (bpf_warn_invalid_xdp_action()).
- A sched_cls program runs as at a link's ingress (skb.py); its verdict is that of a filter in direct action. A redirect
  to no port aborts the packet, which skb_do_redirect() would drop.
- A socket filter runs on a packet socket at a link of its own, without TEST_RUN (packetsocket.py).
- Programs one behind the other run one by one, each on the bytes, mark, priority and cb that the one before left; which
  comes next is decided here. tests/sim/test_hooks.py has the kernel's own links decide the same.

The device is a single CPU, the one that the namespace's thread is pinned to: per-CPU maps have that CPU's value alone.
Its buffer is TEST_RUN's page: 256 bytes of headroom, frames up to 3,520 bytes, and growth at the tail up to there.
"""

from __future__ import annotations

import os
import re
import struct
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bpfnic.host import listing, valuetypes
from bpfnic.host.device import (
    ARRIVING,
    Arrival,
    Capabilities,
    Departure,
    Device,
    DeviceMap,
    DeviceOptions,
    LoadedProgram,
    OnStep,
    Pacing,
    PacketResult,
    Progress,
    Ran,
    Recording,
    Traffic,
    check_programs,
)
from bpfnic.host.eventmaps import sized
from bpfnic.host.linux import bpf, functions, locks
from bpfnic.host.linux import network as kernel_network
from bpfnic.host.linux.events import LinuxEventMap, LinuxPerfEvents, LinuxRingBuffer
from bpfnic.host.linux.maps import KINDS, LinuxMap, LinuxProgram, LinuxRedirectMap
from bpfnic.host.linux.namespace import LOOPBACK, SPARE, Namespace
from bpfnic.host.linux.packetsocket import PacketSocket
from bpfnic.host.linux.permission import unavailable
from bpfnic.host.linux.redirect import RedirectRecord, Target
from bpfnic.host.linux.skb import SkbRecord
from bpfnic.host.lockstep import Observe
from bpfnic.host.mapsofmaps import check_inner, refuse_if_inner
from bpfnic.host.network import Network, unconnected
from bpfnic.host.object import FileDescriptors
from bpfnic.host.programarray import admit, admitted, refuse_if_held
from bpfnic.host.redirectmap import RedirectMap, refuse_broadcast
from bpfnic.host.structure import function_starts
from bpfnic.spec import addresses, helpers, registers
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import decode, encode
from bpfnic.spec.isa import BY_NAME, Group, Operation, find
from bpfnic.spec.maps import DEVMAPS, MapType
from bpfnic.spec.programs import MAX_HOPS, SK_BUFF, SK_BUFF_BYTES, TC_DROPS, Hook, ProgramType, TcAction, XdpAction

if TYPE_CHECKING:
    from bpfnic.host.object import MapDefinition, Program

_PAGE = 4096
_LONGEST = addresses.data_hard_end(_PAGE) - addresses.HEADROOM  # bpf_prog_test_run_xdp(): the rest of a page
_STEP_FRAMES = 64  # between two reports of progress
_TYPES = frozenset(ProgramType)
_CODE = BY_NAME["lddw_code"]  # of a callback
_REDIRECT_NEIGH = helpers.BY_NAME["redirect_neigh"].number
_KEPT = ("mark", "priority", "cb")
_TAIL_CALL = helpers.BY_NAME["tail_call"].number


_EVENTS: dict[MapType, type[LinuxMap]] = {
    MapType.RINGBUF: LinuxRingBuffer,
    MapType.PERF_EVENT_ARRAY: LinuxPerfEvents,
}

_COUNTER_OF = {
    XdpAction.XDP_ABORTED: "ABORTED",
    XdpAction.XDP_DROP: "DROPPED",
    XdpAction.XDP_PASS: "PASSED",
    XdpAction.XDP_TX: "TRANSMITTED",
    XdpAction.XDP_REDIRECT: "REDIRECTED",
}
_COUNTERS = ["RECEIVED", "RECEIVED_BYTES", "REFUSED_LONG", "REFUSED_ERROR", *_COUNTER_OF.values(), "SENT", "SENT_BYTES"]


def open_device(options: DeviceOptions) -> LinuxDevice:
    """The running kernel with `options.ports` ports. Raises BpfnicError where the process may not use it so."""
    if options.waves is not None:
        raise BpfnicError("the linux backend has no signals to write waves of (--backend rtl has)")
    if reason := unavailable():
        raise BpfnicError(f"the linux backend can't be used here: {reason}")
    return LinuxDevice(options.ports)


@dataclass
class Journey:
    """A packet on its way by programs: its bytes, the interface where it came in, how often tc programs sent it on,
    and the fields that they left."""

    data: bytes
    iif: int
    hops: int = 0
    fields: dict[str, bytes] = field(default_factory=dict)


class LinuxDevice(Device):
    """The running kernel with `ports` ports and the host behind them."""

    name = "linux"

    def __init__(self, ports: int):
        self.capabilities = Capabilities(
            engine="linux",
            cpus=1,
            ports=ports,
            program_slots=1_000_000,  # BPF_COMPLEXITY_LIMIT_INSNS
            map_bytes=1 << 32,
            maps=1 << 16,
            buffer_bytes=_PAGE,
            groups=frozenset(Group) - {Group.CALLX, Group.FIRMWARE},
            map_types=frozenset(MapType),
            helpers=frozenset(h.number for h in helpers.HELPERS if h.programs & _TYPES) - {_REDIRECT_NEIGH},
            program_types=_TYPES,
        )
        self._ifindexes = [*range(1, ports + 1), 0]
        self._attached: dict[tuple[int, Hook], list[LinuxProgram]] = {}
        self._maps: list[LinuxMap] = []
        self._programs: list[LinuxProgram] = []
        self._record = RedirectRecord()
        self._skb = SkbRecord()
        self._btf: int | None = None
        self._cpu = min(os.sched_getaffinity(0))
        self._namespace: Namespace | None = None
        self._sockets: dict[int, PacketSocket] = {}  # by ifindex
        self._network: Network | None = None
        self._counts = {name: [0] * (ports + 1) for name in _COUNTERS}
        self._counts["CAUSES"] = [0] * registers.BY_NAME["CAUSES"].count

    # -- maps and programs --------------------------------------------------------------------------------------

    def create_map(self, definition: MapDefinition) -> LinuxMap:
        definition = sized(definition, bpf.possible_cpus())
        name = f"map {definition.name} ({definition.type.name})"
        sizes = definition.key_size, definition.value_size, definition.max_entries
        valuetypes.check(definition)
        check_inner(definition)
        example = self.create_map(definition.inner) if definition.inner else None
        inner = example.fd if example else 0
        lock, types = valuetypes.lock_offset(definition), {}
        if lock is not None:
            types = {"btf_fd": bpf.btf_load(locks.btf(definition, lock)), "btf_key": locks.key_type(definition),
                     "btf_value": locks.VALUE_TYPE}  # fmt: skip
        try:
            fd = bpf.map_create(
                definition.type, *sizes, flags=definition.flags, name=definition.name, inner_map_fd=inner, **types
            )
        except OSError as error:
            raise BpfnicError(f"{name}: the kernel refuses it: {error.strerror}") from None
        finally:
            if example:
                self.destroy_map(example)
            if types:
                os.close(types["btf_fd"])
        device_map = (KINDS | _EVENTS).get(definition.type, LinuxMap)(definition, fd, self._cpu)
        if isinstance(device_map, LinuxRedirectMap):
            device_map.ifindexes, device_map.inside = self._ifindexes[:-1], self._inside
        self._maps.append(device_map)
        return device_map

    def destroy_map(self, device_map: DeviceMap) -> None:
        assert isinstance(device_map, LinuxMap) and device_map in self._maps
        for loaded in self._programs:
            if device_map in loaded.maps:
                raise BpfnicError(f"map {device_map.definition.name}: program {loaded.program.name} uses it")
        refuse_if_inner(device_map, self._maps)
        self._maps.remove(device_map)
        device_map.close()

    def admit(self, program: Program, maps: Mapping[str, MapDefinition], *, unsafe: bool = False) -> None:
        """As Device.admit, but for the kernel's verifier, which is asked as it is loaded."""
        if unsafe:
            raise BpfnicError(f"program {program.name}: the kernel takes no unverified program; simulated NICs do")
        if program.type not in _TYPES:
            types = "XDP and tc programs and socket filters"
            raise BpfnicError(f"program {program.name}: the linux backend runs {types}, not section {program.section}")
        _refuse_what_sends(program)
        refuse_broadcast(program)

    def load(self, program: Program, maps: Mapping[str, DeviceMap], *, unsafe: bool = False) -> LinuxProgram:
        """As Device.load. The __cause__ of the error has the verifier's whole log."""
        self.admit(program, {name: device_map.definition for name, device_map in maps.items()}, unsafe=unsafe)
        assert program.type is not None
        used = []
        for name in program.maps:
            device_map = maps[name]
            assert isinstance(device_map, LinuxMap)
            used.append(device_map)
            if device_map.definition.constants is not None and not device_map.frozen:
                device_map.freeze()  # unless another program brought it
        descriptors = FileDescriptors({device_map.definition.name: device_map.fd for device_map in used})
        admit(program, True, used)
        code = encode(program.link(descriptors, self.capabilities.helpers))
        redirects = [(used_map.definition.type, used_map.fd) for used_map in used if isinstance(used_map, RedirectMap)]
        code = self._record.instrument(code, redirects, program.type)
        before = 0
        if program.type is ProgramType.SCHED_CLS:
            code, before = self._skb.instrument(code), self._skb.slots
        records = _functions(code, program, before)
        btf_fd = self._function_types() if records else 0
        try:
            fd, _log = bpf.prog_load(
                program.type, code, name=program.name, license=program.license, btf_fd=btf_fd, functions=records
            )
        except bpf.Refused as refused:
            raise BpfnicError(_refusal(program, refused, before)) from refused
        self._programs.append(LinuxProgram(program, fd, used))
        admitted(program, True, used)
        return self._programs[-1]

    def _function_types(self) -> int:
        """File descriptor of functions.BTF."""
        if self._btf is None:
            self._btf = bpf.btf_load(functions.BTF)
        return self._btf

    def unload(self, loaded: LoadedProgram) -> None:
        assert isinstance(loaded, LinuxProgram) and loaded in self._programs
        for (interface, hook), programs in self._attached.items():
            if loaded in programs:
                raise BpfnicError(f"program {loaded.program.name} is attached to interface {interface}, {hook.value}")
        refuse_if_held(loaded, self._maps)
        self._programs.remove(loaded)
        os.close(loaded.fd)

    def attach_at(self, interface: int, hook: Hook, programs: Sequence[LoadedProgram]) -> None:
        check_programs(interface, self.capabilities.ports, hook, programs)
        chain = [loaded for loaded in programs if isinstance(loaded, LinuxProgram) and loaded in self._programs]
        assert len(chain) == len(programs)
        self._attached[interface, hook] = chain

    def set_ifindex(self, interface: int, ifindex: int) -> None:
        self._ifindexes[interface] = ifindex
        self._leave()
        for device_map in self._maps:
            if isinstance(device_map, RedirectMap):
                device_map.ifindexes = self._ifindexes[:-1]

    def set_network(self, network: Network) -> None:
        network.check_ports(self._ifindexes[:-1])
        for link in network.links:
            if link.loopback != (link.ifindex == LOOPBACK):
                has = f"{network.name}: {link.name} has ifindex {link.ifindex}"
                raise BpfnicError(f"{has}; in the kernel {LOOPBACK} is the loopback link's")
        self._network = network
        self._leave()

    # -- packets ------------------------------------------------------------------------------------------------

    def run(
        self,
        arrivals: Sequence[Arrival],
        pacing: Pacing = Pacing(),
        on_step: OnStep | None = None,
        replay: Recording | None = None,
        retirements: bool = False,
        observe: Observe | None = None,
    ) -> Traffic:
        """As Device.run, a frame after the other in the order given, so that `pacing` has nothing to pace."""
        if replay is not None or retirements or observe is not None:
            raise BpfnicError("the linux backend can't replay a recording or list the instructions that ran")
        began = time.monotonic()
        traffic = Traffic([], [])
        for number, arrival in enumerate(arrivals):
            result = self._receive(arrival)
            traffic.packets.append(result)
            for device_map in self._maps:
                if isinstance(device_map, LinuxEventMap):
                    device_map.drain()
            if result.egress is not None and result.data is not None:
                left = Departure(result.egress, result.data, number, time_ns=arrival.time_ns, queue=result.queue)
                traffic.departures.append(left)
            if on_step and (number + 1) % _STEP_FRAMES == 0:
                on_step(Progress(number + 1, len(arrivals), 0))
        traffic.seconds = time.monotonic() - began
        return traffic

    def _receive(self, arrival: Arrival) -> PacketResult:
        """What becomes of a frame, counted."""
        ingress, data, host = arrival.interface, arrival.data, self.capabilities.ports
        self._counts["RECEIVED"][ingress] += 1
        self._counts["RECEIVED_BYTES"][ingress] += len(data)
        if len(data) > _LONGEST:
            self._counts["REFUSED_LONG"][ingress] += 1
            return PacketResult(accepted=False)
        if arrival.error or len(data) < addresses.ETH_HLEN:
            self._counts["REFUSED_ERROR"][ingress] += 1
            return PacketResult(accepted=False)
        sends = ingress == host
        action, egress = (XdpAction.XDP_TX, arrival.egress) if sends else (XdpAction.XDP_PASS, host)
        result = PacketResult(accepted=True, action=action, egress=egress, data=data)
        first = [(hook, ingress) for hook in ARRIVING]
        journey = Journey(data, ingress)
        self._travel(journey, [first[0], (Hook.TCX_EGRESS, arrival.egress)] if sends else first, result)
        assert result.action is not None
        self._counts[_COUNTER_OF[result.action]][ingress] += 1
        if result.action is XdpAction.XDP_ABORTED:
            self._counts["CAUSES"][result.cause] += 1
        if result.egress is not None and result.data is not None:
            self._counts["SENT"][result.egress] += 1
            self._counts["SENT_BYTES"][result.egress] += len(result.data)
        return result

    def _travel(self, journey: Journey, way: Sequence[tuple[Hook, int]], result: PacketResult) -> None:
        """Runs the programs on a packet's way, each by itself on what the one before left, and does what they say.
        Which comes next is what sch_handle_ingress(), sch_handle_egress() and skb_do_redirect() make of a verdict."""
        while place := next((place for place in way if self._attached.get((place[1], place[0]))), None):
            (hook, interface), way = place, []
            for loaded in self._attached[interface, hook]:
                if not self._ifindexes[interface]:  # TEST_RUN would show the loopback link's
                    raise BpfnicError(f"interface {interface} runs program {loaded.program.name} and has no ifindex")
                self._record.clear()
                of_tc = loaded.program.type is ProgramType.SCHED_CLS
                if loaded.program.type is ProgramType.SOCKET_FILTER:
                    return self._execute_socket(loaded, hook, interface, journey, result)
                run = self._run_tc if of_tc else self._run_xdp
                verdict = run(loaded, interface, journey)
                result.verdict, result.cpu = verdict, self._cpu
                result.programs += (Ran(hook, interface, verdict),)
                if not (of_tc and verdict == TcAction.UNSPEC):
                    break
            result.egress = result.queue = None
            result.cause = Cause.NONE
            if of_tc:
                way = self._act_tc(verdict, hook, interface, journey, result)
            else:
                way = self._act_xdp(verdict, hook, interface, journey, result)
        result.data = None if result.egress is None else journey.data

    def _act_xdp(
        self, verdict: int, hook: Hook, interface: int, journey: Journey, result: PacketResult
    ) -> list[tuple[Hook, int]]:
        """Does what an XDP program says. Returns the hooks that the packet comes to."""
        match verdict:
            case XdpAction.XDP_DROP:
                result.action = XdpAction.XDP_DROP
            case XdpAction.XDP_PASS:
                self._pass(hook, interface, journey, result)
                return self._inward(interface) if interface < self.capabilities.ports else []
            case XdpAction.XDP_TX:
                result.action, result.egress = XdpAction.XDP_TX, interface
            case XdpAction.XDP_REDIRECT:
                self._redirect(self._record.target(), result)
            case _:
                result.action = XdpAction.XDP_ABORTED
                result.cause = Cause.VERDICT if verdict else Cause.PROGRAM
        return []

    def _act_tc(
        self, verdict: int, hook: Hook, interface: int, journey: Journey, result: PacketResult
    ) -> list[tuple[Hook, int]]:
        """The same of a tc program."""
        if verdict in TC_DROPS:
            result.action = XdpAction.XDP_DROP
        elif verdict != TcAction.REDIRECT:
            self._pass(hook, interface, journey, result)
            return self._inward(interface)[1:] if hook is Hook.TCX_INGRESS else []
        else:
            target = self._record.target() if journey.hops < MAX_HOPS else None
            self._redirect(target, result)
            if target and result.egress is not None:
                journey.hops += 1
                if not target.ingress:
                    return [(Hook.TCX_EGRESS, result.egress)]
                journey.iif = result.egress
                result.action, result.egress = XdpAction.XDP_PASS, self.capabilities.ports
                return self._inward(journey.iif)
        return []

    @staticmethod
    def _inward(interface: int) -> list[tuple[Hook, int]]:
        """The hooks behind a port's XDP."""
        return [(hook, interface) for hook in ARRIVING[1:]]

    def _pass(self, hook: Hook, interface: int, journey: Journey, result: PacketResult) -> None:
        result.action, result.egress = XdpAction.XDP_PASS, self.capabilities.ports
        if hook is Hook.TCX_EGRESS:
            result.action = XdpAction.XDP_REDIRECT if journey.hops else XdpAction.XDP_TX
            result.egress = interface

    def _redirect(self, target: Target | None, result: PacketResult) -> None:
        if target:
            result.egress, result.queue = self._where(target)
        result.action = XdpAction.XDP_ABORTED if result.egress is None else XdpAction.XDP_REDIRECT
        result.cause = Cause.REDIRECT if result.egress is None else Cause.NONE

    def _run_xdp(self, loaded: LinuxProgram, interface: int, journey: Journey) -> int:
        context = struct.pack("=IIIIII", 0, len(journey.data), 0, self._ifindexes[interface], 0, 0)  # struct xdp_md
        run = self._test_run(loaded, journey.data, context)
        (metadata,) = struct.unpack_from("=I", run.context)
        journey.data = run.data[metadata:]
        if metadata and run.value == XdpAction.XDP_PASS and self._attached.get((interface, Hook.TCX_INGRESS)):
            what = f"program {loaded.program.name} leaves metadata for tc programs"
            raise BpfnicError(f"{what}: BPF_PROG_TEST_RUN takes none for them (the linux backend runs one by one)")
        return run.value

    def _run_tc(self, loaded: LinuxProgram, interface: int, journey: Journey) -> int:
        """The fields that a program may write and TEST_RUN takes go on to the next one."""
        context = bytearray(SK_BUFF_BYTES)
        fields = {field.name: field for field in SK_BUFF}
        for name, value in (("ingress_ifindex", self._ifindexes[journey.iif]), ("ifindex", self._ifindexes[interface])):
            struct.pack_into("=I", context, fields[name].offset, value)
        for name, content in journey.fields.items():
            context[fields[name].offset : fields[name].offset + len(content)] = content
        run = self._test_run(loaded, self._skb.receive(journey.data), bytes(context))
        for name in _KEPT:
            journey.fields[name] = run.context[fields[name].offset : fields[name].offset + fields[name].size]
        journey.data = self._skb.send(run.data)
        return run.value

    def _execute_socket(
        self, loaded: LinuxProgram, hook: Hook, interface: int, journey: Journey, result: PacketResult
    ) -> None:
        """The bytes that a socket filter keeps, none or some."""
        ifindex = self._ifindexes[interface]
        if any(journey.fields.get("priority", b"")):
            raise BpfnicError(f"program {loaded.program.name}: the linux backend has no way to give a socket filter a "
                              "packet whose priority a tc program has set")  # fmt: skip
        try:
            if ifindex not in self._sockets:
                self._sockets[ifindex] = PacketSocket(ifindex, self._cpu)
            mark = int.from_bytes(journey.fields.get("mark", b""), sys.byteorder)
            kept = self._sockets[ifindex].run(loaded.fd, journey.data, mark)
        except OSError as error:
            raise BpfnicError(f"program {loaded.program.name}: on a packet socket: {error.strerror or error}") from None
        result.verdict, result.cpu = len(kept), self._cpu
        result.programs += (Ran(hook, interface, len(kept)),)
        result.action = XdpAction.XDP_PASS if kept else XdpAction.XDP_DROP
        result.egress, result.data = (self.capabilities.ports, kept) if kept else (None, None)

    def _test_run(self, loaded: LinuxProgram, data: bytes, context: bytes) -> bpf.TestRun:
        try:
            return self._inside().call(bpf.prog_test_run, loaded.fd, data, context=context)
        except OSError as error:
            raise BpfnicError(f"program {loaded.program.name}: BPF_PROG_TEST_RUN: {error.strerror}") from None

    def _where(self, target: Target) -> tuple[int | None, int | None]:
        """The interface that a redirect leads to, None for none, and the host's queue."""
        if target.broadcast:
            raise BpfnicError("bpf_redirect_map with BPF_F_BROADCAST: a packet of a NIC leaves once")
        ifindex = target.number
        if target.map is not None:
            (used,) = (each for each in self._maps if each.fd == target.map)
            if used.definition.type not in DEVMAPS:
                return self.capabilities.ports, target.number
            (value,) = used.lookup(target.number.to_bytes(used.definition.key_size, "little"))
            ifindex = int.from_bytes(value[:4], "little")
        ports = self._ifindexes[:-1]
        return ports.index(ifindex) if ifindex in ports and ifindex else None, None

    def _inside(self) -> Namespace:
        """The namespace whose links are the interfaces, with the entries of the maps that name some."""
        if not self._namespace:
            self._namespace = Namespace(self._links(), self._cpu)
            if self._network:
                self._namespace.call(kernel_network.install, self._network)
            else:
                self._namespace.call(kernel_network.set_forwarding, unconnected(self._ifindexes))
            for device_map in self._maps:
                if isinstance(device_map, LinuxRedirectMap):
                    device_map.restore()
        return self._namespace

    def _leave(self) -> None:
        """Give the namespace up; the next packet gets another."""
        if self._namespace:
            self._namespace.close()
        self._namespace = None

    def _links(self) -> list[int]:
        """The ifindexes of the interfaces that have one; of a network, those of its links, each joined to a link that
        stays down, so that nothing is ever sent. Raises BpfnicError where two have the same."""
        links = [ifindex for ifindex in self._ifindexes if ifindex]
        if self._network:
            links = [link.ifindex for link in self._network.links if not link.loopback]
        for ifindex in links:
            if not 0 < ifindex < SPARE or links.count(ifindex) > 1:
                raise BpfnicError(f"ifindex {ifindex}: ifindexes must be distinct and 1 to {SPARE - 1}")
        if self._network:
            return [end for n, ifindex in enumerate(links) for end in (ifindex, SPARE + n)]
        return links

    def counters(self) -> dict[str, int | list[int]]:
        """Those that the kernel's receive path has: nothing is ever in flight, no queue is ever full."""
        return {name: list(values) for name, values in self._counts.items()}

    def close(self) -> None:
        for loaded in self._programs:
            os.close(loaded.fd)
        for device_map in self._maps:
            device_map.close()
        self._programs, self._maps, self._attached = [], [], {}
        for opened in self._sockets.values():
            opened.close()
        self._record.close()
        self._skb.close()
        if self._btf is not None:
            os.close(self._btf)
        self._btf = None
        if self._namespace:
            self._namespace.close()


def _refuse_what_sends(program: Program) -> None:
    for slot, found in enumerate(program.instructions):
        if found and find(found).operation is Operation.CALL_HELPER and found.imm == _REDIRECT_NEIGH:
            where = f"program {program.name}, {listing.instruction(program, slot)}"
            raise BpfnicError(
                f"{where}: the linux backend has no bpf_redirect_neigh: BPF_PROG_TEST_RUN doesn't tell where to"
            )


def _functions(code: bytes, program: Program, before: int) -> bytes:
    """Records of the program's functions where the kernel asks for them; `before` slots stand in front of it."""
    image = decode(code)
    rows = [None if instruction is None else find(instruction) for instruction in image]
    asks = any(
        row and instruction and (row.operation in (Operation.LD_ABS, Operation.LD_IND) or row is _CODE
                                 or row.operation is Operation.CALL_HELPER and instruction.imm == _TAIL_CALL)
        for row, instruction in zip(rows, image, strict=True)
    )  # fmt: skip
    starts = function_starts(image, rows, program.name) if asks else [0]
    own = (before + start for start in program.functions)
    return functions.records(sorted({*starts, *own})) if len(starts) > 1 else b""


def _refusal(program: Program, refused: bpf.Refused, before: int) -> str:
    """The verifier's last word, and where in the program it was, in front of which `before` slots stand."""
    lines = [line for line in refused.log.splitlines() if line and not line.startswith("processed ")]
    slots = [int(found[1]) - before for line in lines if (found := re.match(r"(\d+): \(", line))]
    where = ""
    if slots and slots[-1] >= 0:
        source = program.line(slots[-1]) if slots[-1] < len(program.instructions) else None
        where = f", instruction {slots[-1]}" + (f" ({source.file}:{source.line})" if source else "")
    word = lines[-1] if lines else refused.strerror
    return f"program {program.name}{where}: the kernel's verifier refuses it: {word}"
