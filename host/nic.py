"""The Python API: a NIC, its maps as dictionaries, its programs.

obj = bpfnic.open("counter.bpf.c")
obj.rodata["limit"] = 100
with bpfnic.Nic("rtl", threads=8) as nic:
    program = nic.load(obj)
    print(program.test_run(packet).action, nic.maps["tallies"][0])
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Any

from bpfnic.host import compile, iproute
from bpfnic.host.btf.target import NIC
from bpfnic.host.device import (
    ARRIVING,
    Arrival,
    Device,
    DeviceMap,
    DeviceOptions,
    LoadedProgram,
    OnStep,
    Pacing,
    PacketResult,
    Recording,
    Traffic,
    hook_for,
)
from bpfnic.host.eventmaps import EventMap
from bpfnic.host.lockstep import Observe
from bpfnic.host.maps import MapDefinition
from bpfnic.host.mapsofmaps import MapOfMaps
from bpfnic.host.network import Network
from bpfnic.host.nicmaps import FIRST, NicEvents, NicMap, NicMapOfMaps, NicQueue, NicVariables
from bpfnic.host.object import Object, Program, open_object
from bpfnic.host.programarray import ProgramArray, per_entry
from bpfnic.host.trace import Line
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import QUEUES
from bpfnic.spec.programs import Hook, ProgramType, XdpAction

BACKENDS = "bpfnic.device"
"""Entry point group: a name, and a function from DeviceOptions to Device."""
BOARD = "board"
"""The backend whose name is followed by a place: board:/dev/ttyUSB0."""


def open(
    path: str | Path,
    *,
    cpu: str = compile.DEFAULT_CPU,
    include: Sequence[str | Path] = (),
    define: Sequence[str] = (),
    type: ProgramType | None = None,
    types: str = NIC,
) -> Object:
    """Opens a BPF object; a C file (`.c`) is compiled first, for instruction set version `cpu`, with `include` folders
    and `define` texts (NAME or NAME=VALUE). `type`: of all its programs, None: what their sections say. `types`:
    what CO-RE relocations fit the programs to: "nic", "kernel" or a path (btf/target.py). Raises BpfnicError naming
    what can't be used."""
    if Path(path).suffix == ".c":
        path = compile.compile_object(path, cpu=cpu, include=include, define=define)
    return open_object(path, type, types)


def backends() -> list[str]:
    """Names of the installed backends."""
    return sorted(entry_points(group=BACKENDS).names)


def open_device(backend: str, options: DeviceOptions) -> Device:
    """A device of that backend; of a card "board:PLACE". Raises BpfnicError: there is no such backend, or it can't be
    used here."""
    name, colon, place = backend.partition(":")
    found = entry_points(group=BACKENDS, name=name)
    if not found:
        raise BpfnicError(f"no backend {name!r}; there are {', '.join(backends())}")
    if colon and name != BOARD:
        raise BpfnicError(f"--backend {backend}: {name} has no place; {BOARD}:PLACE does")
    opener: Callable[[DeviceOptions], Device] = next(iter(found)).load()
    return opener(replace(options, place=place))


def is_board(backend: str) -> bool:
    """Whether a backend is a card that stands somewhere, and has the size that it has."""
    return backend.partition(":")[0] == BOARD


@dataclass(frozen=True)
class TestRun:
    """What a program did with one packet.

    retval: r0, 32 bits (None where the device ended the program). action: what became of the packet. data: the frame
    that left, None where none did. egress: the interface it left by ("port0", "host"). queue: the host's, where a
    CPUMAP or XSKMAP chose one. cause: why it was aborted.
    verified: a verifier accepted the program.
    clocks: from the program's start to its end, None on backends without clocks (a barrel takes 10 or more for each
    instruction of one packet alone: it is built for throughput)."""

    retval: int | None
    action: XdpAction | None
    data: bytes | None
    egress: str | None
    cause: str
    instructions: int | None
    clocks: int | None
    queue: int | None = None
    verified: bool = True

    @classmethod
    def of(cls, packet: PacketResult, ports: int, verified: bool) -> "TestRun":
        """From what a device says of a packet."""
        clocks = None
        if packet.started is not None and packet.finished is not None:
            clocks = packet.finished - packet.started
        egress = None if packet.egress is None else interface_name(packet.egress, ports)
        return cls(
            packet.verdict,
            packet.action,
            packet.data,
            egress,
            packet.cause.name,
            packet.instructions,
            clocks,
            packet.queue,
            verified,
        )


class NicProgram:
    """A program on a NIC."""

    def __init__(self, nic: "Nic", loaded: LoadedProgram):
        self._nic = nic
        self.loaded = loaded

    @property
    def name(self) -> str:
        """Its function's name."""
        return self.loaded.program.name

    @property
    def verified(self) -> bool:
        """False of one that was loaded `unsafe`."""
        return self.loaded.verified

    def attach(self, port: int | None = None) -> None:
        """Run it for the packets that come in by a port (None: by every port), from the next packet on: an XDP program
        at its hook xdp, a tc program at tcx/ingress, a socket filter at socket. Nic.attach_at has the other ways."""
        for each in range(self._nic.ports) if port is None else [port]:
            self._nic.attach(each, self)

    def test_run(self, packet: bytes, *, port: int = 0) -> TestRun:
        """Run it on one packet that arrives at a port, whatever is attached there otherwise; other ports and the
        packet's fate are as in real traffic. Raises BpfnicError for a packet that the NIC refuses (shorter than 14
        bytes, longer than its buffer)."""
        nic = self._nic
        before = {hook: nic.attached_at(port, hook) for hook in Hook}
        nic.attach(port, None)
        nic.attach(port, self)
        try:
            (result,) = nic.run([Arrival(port, bytes(packet))]).packets
        finally:
            nic.attach(port, None)
            for hook, programs in before.items():
                if programs:
                    nic.attach_at(port, hook, programs)
        if not result.accepted:
            raise BpfnicError(f"the NIC refuses a packet of {len(packet)} bytes")
        return TestRun.of(result, self._nic.ports, self.verified)

    def unload(self) -> None:
        """Take it off the NIC, with the maps that no other program uses. Raises BpfnicError while it is attached."""
        self._nic.unload(self)


class NicProgramArray(NicMap):
    """A PROG_ARRAY on a NIC: its programs by index. A program may be put in, replaced and deleted while packets run:
    each tail call sees one or the other."""

    def __init__(self, device_map: ProgramArray, programs: Mapping[str, NicProgram]):
        super().__init__(device_map)
        self._array = device_map
        self._loaded = programs

    def __getitem__(self, key: Any) -> NicProgram:
        name: str = super().__getitem__(key)
        return self._loaded[name]

    def __setitem__(self, key: Any, value: NicProgram) -> None:
        if value not in self._loaded.values():
            raise BpfnicError(f"map {self._definition.name!r}: {value!r} is no program loaded into this NIC")
        self._array.set_program(self._definition.parse_key(key), value.loaded)


class Nic:
    """A NIC with what was loaded into it.

    backend: "rtl", "golden", "linux" (see backends()); or a device, which is the NIC's own from then on. options, and
    `sizes` by name over them: fields of DeviceOptions (threads, cores, map_bytes, …). `maps` by name: NicMap,
    NicProgramArray, NicMapOfMaps, NicQueue, NicEvents, or NicVariables for a section of variables; `programs` by name.
    Raises BpfnicError where the backend can't be used, or not in that size."""

    def __init__(self, backend: str | Device = "rtl", options: DeviceOptions = DeviceOptions(), **sizes: Any):
        self.device = open_device(backend, replace(options, **sizes)) if isinstance(backend, str) else backend
        self.ports = self.device.capabilities.ports
        self.maps: dict[str, NicMap | NicProgramArray | NicQueue | NicEvents | NicVariables] = {}
        self.programs: dict[str, NicProgram] = {}
        self._attached: dict[tuple[int, Hook], list[NicProgram]] = {}
        self._network: Network | None = None
        self._live: dict[DeviceMap, NicMap | NicQueue] = {}  # what may be in a map of maps
        self._origin: dict[str, MapDefinition] = {}  # of each map, to share it among programs of one object

    def __enter__(self) -> "Nic":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Run the packets that come to a card's own ports, until it is closed. Raises BpfnicError for other devices:
        theirs come with `run`."""
        self.device.start()

    def close(self) -> None:
        """Give the device back."""
        self.device.close()

    @property
    def network(self) -> Network | None:
        """Links, routes and neighbours that helpers like bpf_fib_lookup answer from; None until it is set. What is set
        may also be what host.iproute.read takes: "netns:NAME", or a file. It may change while packets run; set it first
        before programs that use it are loaded, for that is when its tables get their size. Raises BpfnicError: it can't
        be read, a port's ifindex is no link of it, a table is full."""
        return self._network

    @network.setter
    def network(self, network: Network | str | Path) -> None:
        read = network if isinstance(network, Network) else iproute.read(network)
        self.device.set_network(read)
        self._network = read

    def set_ifindex(self, port: int, ifindex: int) -> None:
        """What programs know a port by; port p is p + 1 until set."""
        self.device.set_ifindex(port, ifindex)

    def load(self, obj: Object, program: str | None = None, *, unsafe: bool = False) -> NicProgram:
        """Load a program of an object, with the maps it uses (those that another program of the same object brought are
        shared), the programs that the object puts into these maps, and global variables as they are set in the object.
        `program`: its name, where there are several. `unsafe`: the verifier isn't asked, for experiments on simulated
        NICs. Raises BpfnicError naming what can't be used; then the NIC is as it was."""
        source = obj.program(program)
        if source.name in self.programs:
            raise BpfnicError(f"program {source.name} is loaded already")
        created: dict[str, DeviceMap] = {}
        loaded: dict[str, LoadedProgram] = {}
        missing = self._missing(obj, source)
        for each in missing:
            for name in _maps_of(obj, each):
                if name in self.maps and self._origin[name] is not obj.maps[name]:
                    raise BpfnicError(f"map {name}: another object's map of that name is loaded")
            self.device.admit(each, self._definitions(obj, each), unsafe=unsafe)
        try:
            for each in missing:
                for name in _maps_of(obj, each):
                    if name not in self.maps and name not in created:
                        created[name] = create(self.device, obj.maps[name])
                shared = {name: self.maps[name].device_map for name in each.maps if name in self.maps}
                loaded[each.name] = self.device.load(each, shared | created, unsafe=unsafe)
            fill(created.values(), {name: held.loaded for name, held in self.programs.items()} | loaded)
            fill_with_maps(created.values(), {name: held.device_map for name, held in self.maps.items()} | created)
        except BaseException:
            for device_map in created.values():
                if isinstance(device_map, ProgramArray):
                    device_map.clear_programs()
                if isinstance(device_map, MapOfMaps):
                    device_map.clear_maps()
            for each_loaded in loaded.values():
                self.device.unload(each_loaded)
            for device_map in created.values():
                self.device.destroy_map(device_map)
            raise
        self.programs |= {name: NicProgram(self, each_loaded) for name, each_loaded in loaded.items()}
        for name, device_map in created.items():
            self._origin[name] = obj.maps[name]
            if isinstance(device_map, ProgramArray):
                self.maps[name] = NicProgramArray(device_map, self.programs)
            elif isinstance(device_map, MapOfMaps):
                self.maps[name] = NicMapOfMaps(self.device, device_map, self._live)
            elif isinstance(device_map, EventMap):
                self.maps[name] = NicEvents(device_map)
            elif device_map.definition.type in QUEUES:
                self._live[device_map] = self.maps[name] = NicQueue(device_map)
            elif device_map.definition.variables is not None:
                self.maps[name] = NicVariables(device_map)
            else:
                self._live[device_map] = self.maps[name] = NicMap(device_map)
        return self.programs[source.name]

    def _definitions(self, obj: Object, program: Program) -> dict[str, MapDefinition]:
        """The maps that a program refers to, as they are on the NIC or will be."""
        return {
            name: self.maps[name].device_map.defined() if name in self.maps else obj.maps[name] for name in program.maps
        }

    def _missing(self, obj: Object, source: Program) -> list[Program]:
        """A program, and those that come with it: what the object puts into its maps and into theirs, and isn't loaded
        yet."""
        found = [source]
        for each in found:
            names = [name for used in each.maps if used not in self.maps for name in obj.maps[used].programs.values()]
            for name in names:
                target = obj.programs[name]
                if name in self.programs:
                    if self.programs[name].loaded.program is not target:
                        raise BpfnicError(f"program {name}: another object's program of that name is loaded")
                elif target not in found:
                    found.append(target)
        return found

    def unload(self, program: NicProgram) -> None:
        """Take a program off, with the maps that no other program uses. Raises BpfnicError while it is attached or in a
        map of programs."""
        self.device.unload(program.loaded)
        del self.programs[program.name]
        used = [_with_inner(other.loaded.program.maps, self._origin) for other in self.programs.values()]
        mine = _with_inner(program.loaded.program.maps, self._origin)
        for name in [name for name in mine if not any(name in others for others in used)]:
            held = self.maps.pop(name)
            if isinstance(held, NicMapOfMaps):
                held.free_all()
            self._live.pop(held.device_map, None)
            self.device.destroy_map(held.device_map)

    def attach(self, interface: int, program: NicProgram | None) -> None:
        """Run a program for the packets that come in by an interface (ports from 0, then the host), at the hook of its
        type (None: none at all)."""
        self._check(interface)
        if program is None:
            for hook in [hook for at, hook in self._attached if at == interface and hook is not Hook.TCX_EGRESS]:
                self.attach_at(interface, hook, [])
            return
        type = program.loaded.program.type
        self.attach_at(interface, hook_for(type) if interface < self.ports else Hook.XDP, [program])

    def attach_at(self, interface: int, hook: Hook | str, programs: Sequence[NicProgram]) -> None:
        """Run programs at a hook ("xdp", "tcx/ingress", "tcx/egress", "socket"), in this order, from the next packet
        on; none: []."""
        self._check(interface)
        hook = Hook(hook)
        for program in programs:
            if kind := per_entry(program.loaded.program):
                section = program.loaded.program.section
                what = f"program {program.name} (section {section!r}) is for entries of a {kind.upper()}"
                raise BpfnicError(f"{what}, and no interface takes it")
        self.device.attach_at(interface, hook, [program.loaded for program in programs])
        self._attached[interface, hook] = list(programs)

    def attached_at(self, interface: int, hook: Hook | str) -> list[NicProgram]:
        """The programs at a hook, in their order."""
        return list(self._attached.get((interface, Hook(hook)), ()))

    def attached(self, interface: int) -> NicProgram | None:
        """The first program that runs for the packets that come in by an interface."""
        programs = [each for hook in ARRIVING for each in self.attached_at(interface, hook)]
        return programs[0] if programs else None

    def _check(self, interface: int) -> None:
        if not 0 <= interface <= self.ports:
            raise BpfnicError(
                f"there is no interface {interface}: the NIC has ports 0 to {self.ports - 1} and the host"
            )

    @property
    def trace(self) -> list[Line]:
        """What programs printed with bpf_trace_printk since it was read last: each a Line with `text`, `cpu` and
        `time_ns`. Of the linux backend it is in the kernel's trace_pipe."""
        return self.device.trace()

    def run(
        self,
        arrivals: Sequence[Arrival],
        pacing: Pacing = Pacing(),
        on_step: OnStep | None = None,
        replay: Recording | None = None,
        retirements: bool = False,
        observe: Observe | None = None,
    ) -> Traffic:
        """Offer frames and run until all of them are through: see Device.run."""
        return self.device.run(arrivals, pacing, on_step, replay, retirements, observe)


def _maps_of(obj: Object, program: Program) -> list[str]:
    """The maps that a program needs, by name: those that the object puts into its maps of maps stand behind these."""
    return _with_inner(program.maps, obj.maps)


def _with_inner(names: Iterable[str], definitions: Mapping[str, MapDefinition]) -> list[str]:
    outer = [name for name in names if definitions[name].maps]
    inner = [name for each in outer for name in definitions[each].maps.values()]
    return list(dict.fromkeys([*outer, *(name for name in names if name not in inner), *inner]))


def create(device: Device, definition: MapDefinition) -> DeviceMap:
    """A map on a device; a section of global variables with its content."""
    device_map = device.create_map(definition)
    if definition.variables is not None and any(definition.variables.content):
        device_map.update(FIRST, [bytes(definition.variables.content)])
    return device_map


def fill(maps: Iterable[DeviceMap], programs: Mapping[str, LoadedProgram]) -> None:
    """Put into the PROG_ARRAYs among the maps what their object has there, from programs by name. Raises BpfnicError
    naming the map and the index."""
    for device_map in maps:
        if isinstance(device_map, ProgramArray):
            definition = device_map.definition
            for index, name in definition.programs.items():
                try:
                    device_map.set_program(index.to_bytes(definition.key_size, "little"), programs[name])
                except OSError as error:
                    raise BpfnicError(f"map {definition.name!r}: program {name} at {index}: {error.strerror}") from None


def fill_with_maps(outer: Iterable[DeviceMap], maps: Mapping[str, DeviceMap]) -> None:
    """Put into the maps of maps what their object has there, from maps by name. Raises BpfnicError naming the map and
    the index."""
    for device_map in outer:
        if isinstance(device_map, MapOfMaps):
            definition = device_map.definition
            for index, name in definition.maps.items():
                try:
                    device_map.set_map(index.to_bytes(definition.key_size, "little"), maps[name])
                except OSError as error:
                    raise BpfnicError(f"map {definition.name!r}: map {name} at {index}: {error.strerror}") from None


def interface_name(interface: int, ports: int) -> str:
    """port0, port1, …, host."""
    return "host" if interface == ports else f"port{interface}"
