"""What a device is to its users: the four backends stand behind `Device`; those made of registers behind `Transport`.

    API, command line, tests ──▶ Device ─┬─▶ RegisterDevice (host/driver.py) ──▶ Transport: golden, rtl, board
                                         └─▶ LinuxDevice (host/linux/device.py) ──▶ bpf(2)

Interfaces are numbered as on the NIC: ports from 0, the host last (number `ports`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from os import strerror
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bpfnic.host.lockstep import Follower, Observe
from bpfnic.spec.addresses import INDEX_BYTES
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.isa import Group
from bpfnic.spec.maps import QUEUES, MapType
from bpfnic.spec.programs import Hook, ProgramType, XdpAction

if TYPE_CHECKING:
    from bpfnic.host.network import Network
    from bpfnic.host.object import MapDefinition, Program
    from bpfnic.host.trace import Line


@dataclass(frozen=True)
class DeviceOptions:
    """What a backend is asked for. Each backend is a function `open_device(options: DeviceOptions) -> Device`, listed
    under the entry point group "bpfnic.device"; it raises BpfnicError for what it can't give. golden and rtl build a
    NIC of just this size (rules: hdl/config.py; names are the same) and return `RegisterDevice(transport)`; linux takes
    `ports` alone, and board `place` and `budget`.

    map_types: None for all that the backend has. budget: instructions that one packet may retire; None: the device's
    own, above what any verified program needs. waves: the file to write a trace of all signals to (.fst), rtl only.
    place: where the device is, what stands behind the colon of board:/dev/ttyUSB0.
    say: told of each step that takes long, such as "compiling the NIC with Verilator".
    """

    cores: int = 1
    threads: int = 16
    ports: int = 2
    program_slots: int = 4096
    packet_buffers: int = 0  # of a core; 0 for twice the threads
    buffer_bytes: int = 2048
    map_bytes: int = 128 * 1024
    maps: int = 64
    map_types: frozenset[MapType] | None = None
    budget: int | None = None
    waves: Path | None = None
    place: str = ""
    say: Callable[[str], None] = lambda step: None


@dataclass(frozen=True)
class Capabilities:
    """What a device says of itself. Bytes and counts; `cpus` values of a per-CPU map, `slots` of 8 bytes."""

    engine: str
    cpus: int
    ports: int
    program_slots: int
    map_bytes: int
    maps: int
    buffer_bytes: int
    groups: frozenset[Group]
    map_types: frozenset[MapType]
    helpers: frozenset[int]
    program_types: frozenset[ProgramType] = frozenset({ProgramType.XDP})
    cores: int = 1


@dataclass(frozen=True)
class Arrival:
    """A frame that reaches an interface. `time_ns` counts from the start of the run. `error`: the MAC marks it bad.
    `egress`: the port that a frame from the host asks for."""

    interface: int
    data: bytes
    time_ns: int = 0
    error: bool = False
    egress: int = 0


@dataclass(frozen=True)
class Pacing:
    """How a run's frames are offered and taken.

    back_to_back: each interface offers its next frame as soon as it can, else at `time_ns`. lossless: an ingress
    waits for a buffer and an egress for its queue (otherwise the NIC drops whole frames, counted). ingress_idle,
    egress_stall: percent of clocks in which a source is idle or a sink not ready, by a generator seeded with `seed`.
    flows_apart: packets of one flow (one pair of IP addresses) never run at the same time.
    """

    back_to_back: bool = True
    lossless: bool = True
    ingress_idle: int = 0
    egress_stall: int = 0
    seed: int = 1
    flows_apart: bool = False


class Ran(NamedTuple):
    """A program that ran at a hook of an interface; verdict: r0, 32 bits, None where the device ended it."""

    hook: Hook
    device: int
    verdict: int | None


@dataclass
class PacketResult:
    """What became of one arrival. Clocks count from reset; None where the device can't tell.

    accepted: false for a frame that was refused at the ingress. verdict: r0, 32 bits; None where no program ran.
    egress: where it went, None for nowhere; queue: of the host, where a CPUMAP or XSKMAP chose one, or the program
    another than 0 (rx_queue_index) for a packet that passes. data: the frame as it left. cause: why it was aborted.
    programs: what ran, one behind the other; verdict is the last one's. stopped: the slot of the program store whose
    instruction the device ended it at, None where it came to its end or left the store. told: false where the device
    can't tell these.
    started, finished: the clocks in which the first program began and the last one ended. note: what of a recording
    the program could not do (golden only), empty if it could. parent: of a clone, the packet of whose program it was
    made.
    """

    accepted: bool
    action: XdpAction | None = None
    verdict: int | None = None
    cause: Cause = Cause.NONE
    egress: int | None = None
    data: bytes | None = None
    cpu: int | None = None
    started: int | None = None
    finished: int | None = None
    instructions: int | None = None
    note: str = ""
    queue: int | None = None
    parent: int | None = None
    programs: tuple[Ran, ...] = ()
    told: bool = True
    stopped: int | None = None


@dataclass(frozen=True)
class Departure:
    """A frame that left. `arrival` indexes the arrivals; clock: of its last beat; time_ns: since the run began; queue:
    as of PacketResult; clone: in Traffic.clones, None for the arrival itself."""

    egress: int
    data: bytes
    arrival: int
    clock: int = 0
    time_ns: int = 0
    queue: int | None = None
    clone: int | None = None


@dataclass(frozen=True)
class Execution:
    """One program run as the device recorded it: its CPU, first slot and type, where it stood, and the values that no
    program can compute (clock, random number, whether a buffer was free), in the order in which it took them."""

    cpu: int
    entry: int
    samples: tuple[int, ...] = ()
    program_type: ProgramType = ProgramType.XDP
    hook: Hook = Hook.XDP
    device: int = 0


@dataclass
class Recording:
    """What the golden model needs to do what the device did.

    Packets are numbered: arrivals, then clones in the order in which they were made. executions: for each packet the
    programs that ran, one behind the other. shared: for each shared access (map values), in the order of their serial
    numbers, the packet whose program made it; and among them, for each record that left a ring (spec.rings) or was
    passed over there, ~n for that of map n. clones: for each clone the packet of whose program it was made.
    """

    executions: list[tuple[Execution, ...]] = field(default_factory=list)
    shared: list[int] = field(default_factory=list)
    clones: list[int] = field(default_factory=list)


class Retirement(NamedTuple):
    """One retired instruction of arrival `arrival`: register is None where none was written, address None where no
    memory was accessed. A tuple, for a run has millions."""

    arrival: int
    pc: int
    next_pc: int
    register: int | None = None
    value: int = 0
    address: int | None = None


@dataclass
class Traffic:
    """Everything that a run gave. packets[i] is what became of arrivals[i]; clones: what became of those that programs
    made (bpf_clone_redirect), in that order; departures in order of their clocks."""

    packets: list[PacketResult]
    departures: list[Departure]
    clones: list[PacketResult] = field(default_factory=list)
    clocks: int = 0
    instructions: int = 0
    seconds: float = 0.0
    recording: Recording | None = None
    retirements: list[Retirement] | None = None

    def origin(self, packet: int) -> int:
        """The arrival that a packet is, or is a clone of, however many clones lie between. Packets are numbered as in a
        Recording."""
        while (clone := packet - len(self.packets)) >= 0:
            parent = self.clones[clone].parent
            assert parent is not None
            packet = parent
        return packet


@dataclass(frozen=True)
class Progress:
    """How far a run is: frames taken in, of how many; clocks so far."""

    done: int
    total: int
    clocks: int


OnStep = Callable[[Progress], None]
"""Called now and then during a run. It may use the device's registers and maps: that is how the host works while
traffic flows."""


Deliver = Callable[[bytes], None]
"""Gets each record that leaves a NIC, as the frame that it is on the host's stream (spec.rings)."""


class DeviceMap(ABC):
    """A map on a device. Keys and values are bytes of exactly the map's sizes; values are lists, one element for each
    CPU of a per-CPU map, one in all for others. Errors are OSError with the kernel's errno.

    A QUEUE or STACK has the key b"" alone: an update pushes, a look-up peeks."""

    definition: "MapDefinition"
    copies: int
    """Values for each key: as many as CPUs in a per-CPU map, otherwise 1."""

    @abstractmethod
    def lookup(self, key: bytes) -> list[bytes]:
        """Values at `key`. Raises OSError ENOENT."""

    @abstractmethod
    def update(self, key: bytes, values: Sequence[bytes], flags: int = 0) -> None:
        """Set the values at `key`. Raises OSError E2BIG, EEXIST, ENOENT, EINVAL."""

    @abstractmethod
    def delete(self, key: bytes) -> None:
        """Remove `key`. Raises OSError ENOENT; EINVAL for arrays."""

    @abstractmethod
    def next_key(self, key: bytes | None) -> bytes:
        """The key behind `key`, the first for None or for an unknown one. Raises OSError ENOENT behind the last."""

    @abstractmethod
    def pop(self, key: bytes) -> list[bytes]:
        """Look up and delete in one step; of a QUEUE or STACK, whose key is b"", the next value. Raises OSError ENOENT,
        EOPNOTSUPP where the map's type has no such operation."""

    def defined(self) -> "MapDefinition":
        """Its definition, with the constants (`.rodata`) that the device holds."""
        if self.definition.constants is None:
            return self.definition
        assert self.definition.variables is not None
        (content,) = self.lookup(bytes(INDEX_BYTES))
        return replace(self.definition, variables=self.definition.variables.at(content))

    @abstractmethod
    def freeze(self) -> None:
        """No more changes by the host: they are EPERM from here on (BPF_MAP_FREEZE). Programs go on. Raises OSError
        EPERM where the host may not change it already."""

    def update_batch(self, entries: Iterable[tuple[bytes, Sequence[bytes]]], flags: int = 0) -> None:
        """Set the values of many keys, in their order. Raises OSError as `update`, naming the first entry that is
        refused; those before it are set."""
        for number, (key, values) in enumerate(entries):
            with named(f"entry {number}"):
                self.update(key, values, flags)

    def delete_batch(self, keys: Iterable[bytes]) -> None:
        """Remove many keys, in the same way."""
        for number, key in enumerate(keys):
            with named(f"entry {number}"):
                self.delete(key)

    def keys(self) -> Iterator[bytes]:
        """Every key; of a QUEUE or STACK b"" where there is a value."""
        if self.definition.type in QUEUES:
            if self.holds_value():
                yield b""
            return
        key: bytes | None = None
        while True:
            try:
                key = self.next_key(key)
            except FileNotFoundError:
                return
            yield key

    def holds_value(self) -> bool:
        """Whether a QUEUE or STACK has a value."""
        try:
            self.lookup(b"")
        except FileNotFoundError:
            return False
        return True

    def dump(self) -> dict[bytes, list[bytes]]:
        """The whole map, but for what programs delete on the way. Backends that can read in bulk do."""
        entries = {}
        for key in self.keys():
            with suppress(FileNotFoundError):
                entries[key] = self.lookup(key)
        return entries


def error(number: int) -> OSError:
    """An error of the kernel."""
    return OSError(number, strerror(number))


@contextmanager
def named(what: str) -> Iterator[None]:
    """Says in an OSError what it is about."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{what}: {error.strerror}") from None


class LoadedProgram(ABC):
    """A program in a device's program memory. `verified`: a verifier accepted it."""

    program: "Program"
    verified: bool


ARRIVING = Hook.XDP, Hook.TCX_INGRESS, Hook.SOCKET
"""The hooks of packets that come in by a port, in the order in which they come to them."""


def hook_for(type: ProgramType | None) -> Hook:
    """Where a program of that type stands at a port if nobody says so."""
    return next((hook for hook in ARRIVING if hook.type is type), Hook.XDP)


def check_programs(interface: int, ports: int, hook: Hook, programs: Sequence[LoadedProgram]) -> None:
    """Raises BpfnicError where such a hook isn't there, or doesn't take these programs."""
    name = "host" if interface == ports else f"port{interface}"
    if not 0 <= interface <= ports or (interface == ports and hook is not Hook.XDP):
        raise BpfnicError(f"{name} has no hook {hook.value}")
    for loaded in programs:
        kind = loaded.program.type
        if kind is not hook.type and interface < ports:
            has = kind.name if kind else "of no known type"
            what = f"program {loaded.program.name} is {has}"
            raise BpfnicError(f"{name}, {hook.value}: {what}; there run {hook.type.name}")
    if not hook.chains and len(programs) > 1:
        raise BpfnicError(f"{name}, {hook.value}: one program runs there, not {len(programs)}")


class Device(ABC):
    """A NIC, or what stands for one."""

    name: str
    capabilities: Capabilities

    @abstractmethod
    def create_map(self, definition: "MapDefinition") -> DeviceMap:
        """Make a map of zeros. Raises BpfnicError naming the map, and what of it the device lacks or is full."""

    @abstractmethod
    def destroy_map(self, device_map: DeviceMap) -> None:
        """Free its memory, once the last packet that may use it has left. Raises BpfnicError while a loaded program
        uses it, or while it is in a map of maps."""

    @abstractmethod
    def admit(self, program: "Program", maps: Mapping[str, "MapDefinition"], *, unsafe: bool = False) -> None:
        """Whether the device would load a program with these maps, by name: the verifier accepts it, and the device has
        what it needs. `unsafe`: nobody asks the verifier, for experiments; simulated NICs alone do that. Raises
        BpfnicError naming program and instruction. Nothing on the device changes."""

    @abstractmethod
    def load(
        self, program: "Program", maps: Mapping[str, DeviceMap], *, unsafe: bool = False
    ) -> LoadedProgram:
        """Do as `admit`, link against the maps, whose constants (`.rodata`) are frozen from here on, and write into
        program memory. Raises BpfnicError naming program and instruction; then the device is as it was."""

    @abstractmethod
    def unload(self, loaded: LoadedProgram) -> None:
        """Free its program memory, once the last packet that uses it has left. Raises BpfnicError while it is
        attached, or in a map."""

    @abstractmethod
    def attach_at(self, interface: int, hook: Hook, programs: Sequence[LoadedProgram]) -> None:
        """Run `programs` for packets that come to a hook of `interface` from now on (none: no program), one behind the
        other as long as they return TC_ACT_UNSPEC; atomically, under traffic too: a packet sees the old ones or the new
        ones. Raises BpfnicError as `check_programs` does, or where the device has no room for so many."""

    def attach(self, interface: int, loaded: LoadedProgram | None) -> None:
        """Run `loaded` at the hook of its type, with no other there; a tc program at a port's tcx/ingress. The host
        has one hook, which takes any. None: no program for packets that come in by this interface any more."""
        of_port = interface < self.capabilities.ports
        if loaded is not None:
            self.attach_at(interface, hook_for(loaded.program.type) if of_port else Hook.XDP, [loaded])
        else:
            for hook in ARRIVING if of_port else (Hook.XDP,):
                self.attach_at(interface, hook, [])

    @abstractmethod
    def set_ifindex(self, interface: int, ifindex: int) -> None:
        """What programs know the interface by. Until set: port p is p + 1, the host is 0 (none)."""

    @abstractmethod
    def set_network(self, network: "Network") -> None:
        """What helpers like bpf_fib_lookup answer from, from now on; its links that are ports are those with the ports'
        ifindexes. Until set: host.network.unconnected. Raises BpfnicError where a port is no link of it, or where a
        table of the device is full."""

    @abstractmethod
    def run(
        self,
        arrivals: Sequence[Arrival],
        pacing: Pacing = Pacing(),
        on_step: OnStep | None = None,
        replay: Recording | None = None,
        retirements: bool = False,
        observe: Observe | None = None,
    ) -> Traffic:
        """Offer the frames and run until all of them are through. `replay`: do what another device recorded (golden
        only). `retirements`: also list every retired instruction. `observe`: is told of each instruction and shared
        access; such a run is not recorded."""

    def start(self) -> None:
        """Run the packets that come to the ports from outside, dropping what can't be taken in time, until the device
        is closed. Raises BpfnicError where the ports lead nowhere."""
        raise BpfnicError(f"{self.name} has no ports that lead outside: its packets come with `run`")

    @abstractmethod
    def counters(self) -> dict[str, int | list[int]]:
        """Counters by register name (spec.registers), all of the same clock; those of interfaces as lists, with what
        programs cloned at the end."""

    def trace(self) -> list["Line"]:
        """What programs printed with bpf_trace_printk since it was asked for last. Empty where somebody else shows it
        (the kernel's trace_pipe)."""
        return []

    def follow(self, arrivals: Sequence[Arrival]) -> Follower:
        """Go along with another device that runs these frames: its `observe` is the follower's `see` (golden only).
        Nobody may change programs or maps meanwhile."""
        raise BpfnicError(f"{self.name} can't follow another device instruction by instruction")

    def close(self) -> None:  # noqa: B027 - not every device holds something
        """Give everything back."""


class Transport(Protocol):
    """A NIC as seen through its control registers and its streams, and through nothing else.

    deliver: called with each record that leaves, while `run` runs or right behind it. wired: its packets come
    from somebody, so that it may not run what nobody verified."""

    name: str
    deliver: Deliver
    wired: bool

    def read(self, address: int) -> int:
        """The 32-bit register at a byte address. Raises BpfnicError if there is none."""

    def read_all(self, addresses: Sequence[int]) -> list[int]:
        """Read registers, in that order; where each `read` takes a way there and back, with one for many."""
        return [self.read(address) for address in addresses]

    def write(self, address: int, value: int) -> None:
        """Write the 32-bit register at a byte address; it may happen as late as the next read. Raises BpfnicError if
        there is none, now or then."""

    def run(
        self,
        arrivals: Sequence[Arrival],
        pacing: Pacing,
        on_step: OnStep | None,
        replay: Recording | None,
        retirements: bool,
        observe: Observe | None,
    ) -> Traffic:
        """As Device.run."""

    def connect(self) -> None:
        """Have the ports lead outside from now on, where the transport is `wired`."""

    def follow(self, arrivals: Sequence[Arrival]) -> Follower:
        """As Device.follow."""

    def close(self) -> None:
        """Give everything back."""
