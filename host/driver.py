"""The driver: a Device made of control registers. It is the same for the golden model, the compiled RTL and boards.

Programs and map values are placed first fit. What is replaced is not overwritten at once: a packet under way may still
run the old program or hold a pointer into the old map. A region is free again when OLDEST_SEQUENCE of every ingress has
passed the NEXT_SEQUENCE that was read after the swap.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from bpfnic.host import capabilities, mapcheck, maplayout, programarray, runtime, sections, trace, valuetypes
from bpfnic.host.device import (
    Arrival,
    Device,
    DeviceMap,
    LoadedProgram,
    OnStep,
    Pacing,
    Recording,
    Traffic,
    Transport,
    check_programs,
)
from bpfnic.host.eventmaps import ring_bytes, sized
from bpfnic.host.image import Layout, at_slot, device_image, lay_out
from bpfnic.host.keyedmaps import KeyedMap, RegisterHash, RegisterHashOfMaps, RegisterQueue, RegisterRedirectHash
from bpfnic.host.lockstep import Follower, Observe
from bpfnic.host.mapsofmaps import refuse_if_inner
from bpfnic.host.network import Network, unconnected
from bpfnic.host.networktables import NetworkTables
from bpfnic.host.object import DeviceAddresses
from bpfnic.host.redirectmap import RedirectMap, refuse_broadcast
from bpfnic.host.regions import Grace, Regions
from bpfnic.host.registermaps import (
    ALIGN,
    RegisterArray,
    RegisterArrayOfMaps,
    RegisterEventMap,
    RegisterMap,
    RegisterProgram,
    RegisterProgramArray,
    RegisterRedirectMap,
    copy_bytes,
    map_bytes,
    stride,
)
from bpfnic.host.structure import Limits
from bpfnic.host.taildepth import Demand, TailCalls
from bpfnic.host.verifier import gate
from bpfnic.host.verifier.verdict import StackUse
from bpfnic.spec import registers, rings, tables
from bpfnic.spec.addresses import INDEX_BYTES, MAP_VALUES
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction, encode
from bpfnic.spec.maps import (
    EVENTS,
    KEYED,
    PER_CPU,
    QUEUES,
    REDIRECT_MAPS,
    MapType,
)
from bpfnic.spec.metadata import RSS_KEY, RSS_KEY_BYTES, Metadata
from bpfnic.spec.programs import Hook

if TYPE_CHECKING:
    from bpfnic.host.object import MapDefinition, Program

_WIDE = ("CLOCKS", "RETIRED")  # counters of 64 bits, low word first
_KINDS: dict[MapType, type[RegisterMap]] = {
    MapType.PROG_ARRAY: RegisterProgramArray,
    **dict.fromkeys(KEYED, RegisterHash),
    **dict.fromkeys(QUEUES, RegisterQueue),
    MapType.ARRAY_OF_MAPS: RegisterArrayOfMaps,
    MapType.HASH_OF_MAPS: RegisterHashOfMaps,
    **dict.fromkeys(REDIRECT_MAPS, RegisterRedirectMap),
    MapType.DEVMAP_HASH: RegisterRedirectHash,
    **dict.fromkeys(EVENTS, RegisterEventMap),
}  # others: RegisterArray


class RegisterDevice(Device):
    """A NIC behind a transport. Raises BpfnicError where there is none, or one with another register map.

    random_bits: a number of so many bits that nobody who sends packets can guess, for the hash of keys."""

    def __init__(
        self, transport: Transport, budget: int | None = None, random_bits: Callable[[int], int] = secrets.randbits
    ):
        self._random_bits = random_bits
        self._transport = transport
        transport.deliver = self._deliver
        self.name = transport.name
        self.capabilities = capabilities.read(self.name, transport.read_all)
        self.interfaces = self.capabilities.ports + 1
        self._slots = Regions(self.capabilities.program_slots)
        self._values = Regions(self.capabilities.map_bytes)
        self._descriptors = Regions(self.capabilities.maps)
        self._grace = Grace()
        self._programs: list[RegisterProgram] = []
        self._tail_calls = TailCalls(self._free_later, self._reclaim)
        self._chain = Regions(registers.CHAIN_WORDS)
        self._chain.allocate(1, 1)  # word 0 stands for none
        self._attached: dict[tuple[int, Hook], list[RegisterProgram]] = {}
        self._chained: dict[tuple[int, Hook], list[int]] = {}  # words of CHAIN
        self._maps: list[RegisterMap] = []
        self._hidden: dict[str, RegisterMap] = {}  # the runtime's, as link.Linker names them
        self._fill: dict[str, Callable[[RegisterMap], None]] = {maplayout.NAME: self._write_layouts}
        """What puts the host's state into them, by the names that they have in C."""
        self._described: dict[int, RegisterMap] = {}  # by descriptor
        self._receivers: dict[int, RegisterEventMap] = {}  # of records, by descriptor
        self._counted = self._count() if transport.wired else {}  # a card has counted before
        self._ifindexes = [0] * self.capabilities.ports
        self._network: Network | None = None
        self._tables = NetworkTables(unconnected(()), self._free_later, self._reclaim)
        for port in range(self.capabilities.ports):
            self.set_ifindex(port, port + 1)
        if self.capabilities.map_types & tables.HASHED:
            for _ in range(registers.HASH_SECRET_WORDS):
                self._write("HASH_SECRET", self._random_bits(32))
        if Metadata.RX_HASH in self.capabilities.helpers:
            self.set_rss_key(RSS_KEY)
        if budget is not None:
            most = registers.BY_NAME["BUDGET"].reset
            if not 0 < budget <= most:
                raise BpfnicError(f"instruction budget must be 1 to {most}, not {budget}")
            self._write("BUDGET", budget)

    # -- registers ----------------------------------------------------------------------------------------------

    def _write(self, name: str, value: int, index: int = 0) -> None:
        self._transport.write(registers.BY_NAME[name].address(index), value)

    def _read_all(self, *names: tuple[str, int]) -> list[int]:
        return self._transport.read_all([registers.BY_NAME[name].address(index) for name, index in names])

    # -- memory that packets may still use ----------------------------------------------------------------------

    def _sequences(self, name: str) -> list[int]:
        return self._read_all(*((name, i) for i in range(self.interfaces + 1)))  # clones are in flight too

    def _free_later(self, action: Callable[[], None]) -> None:
        """`action` frees something that packets accepted until now may use."""
        self._grace.defer(self._sequences("NEXT_SEQUENCE"), action)

    def _reclaim(self) -> None:
        if self._grace:
            self._grace.run(self._sequences("OLDEST_SEQUENCE"))

    def _allocate(self, regions: Regions, size: int, align: int, what: str) -> int:
        self._reclaim()
        start = regions.allocate(size, align)
        if start is None:
            later = ", and more once packets in flight have left" if self._grace else ""
            raise BpfnicError(f"{what}; {regions.available} of {regions.size} are free{later}")
        return start

    # -- maps ---------------------------------------------------------------------------------------------------

    def create_map(self, definition: "MapDefinition") -> RegisterMap:
        definition = sized(definition, self.capabilities.cpus)
        mapcheck.check(definition, self.capabilities.map_types, self.name)
        size = self.map_bytes(definition)
        name = f"map {definition.name} ({definition.type.name})"
        takes = f"{name}: max_entries {definition.max_entries} takes {size} bytes of map memory"
        if definition.variables is not None:
            takes = f"{name} takes {size} bytes of map memory"
        if size > self._values.size:
            raise BpfnicError(f"{takes}, {size - self._values.size} more than {self.name} has")
        base = self._allocate(self._values, size, ALIGN, f"{takes} of {self.name}")
        index = None
        if definition.variables is None:  # programs address variables directly
            try:
                index = self._allocate(self._descriptors, 1, 1, f"{name} takes a map descriptor of {self.name}")
            except BpfnicError:
                self._values.free(base)
                raise
        device_map = self.map_at(definition, index, base)
        self._maps.append(device_map)
        return device_map

    def map_bytes(self, definition: "MapDefinition") -> int:
        """Map memory that a map takes, in multiples of 16."""
        return map_bytes(definition, self.capabilities.cpus, self.capabilities.map_bytes)

    def map_at(self, definition: "MapDefinition", index: int | None, base: int) -> RegisterMap:
        """Make a map of zeros as descriptor `index` (None: without), from byte `base` of map memory on. Whose both are
        is the caller's business."""
        kind = _KINDS.get(definition.type, RegisterArray)
        device_map = kind(definition, self._transport, index, base, self.capabilities.cpus)
        if isinstance(device_map, RedirectMap):
            device_map.ifindexes = self._ifindexes
        if isinstance(device_map, RegisterProgramArray):
            device_map.tail_calls = self._tail_calls
        if isinstance(device_map, RegisterEventMap):
            device_map.ring = ring_bytes(definition, self.capabilities.map_bytes)
        device_map.clear()
        if index is not None:
            self._describe(index, device_map)
            self._receivers.pop(index, None)
            if isinstance(device_map, RegisterEventMap):
                self._receivers[index] = device_map
        return device_map

    def _hidden_map(self, name: str, definition: "MapDefinition") -> RegisterMap:
        """A map of the runtime, made when a program first comes with a routine that uses it, and there from then on."""
        if name not in self._hidden:
            if definition.name == maplayout.NAME:
                definition = maplayout.sized(definition, self.capabilities.maps)
            device_map = self.create_map(self._tables.sized(definition))
            if definition.variables is not None:
                device_map.update(bytes(INDEX_BYTES), [bytes(definition.variables.content)])
            elif fill := self._fill.get(definition.name):
                fill(device_map)
            self._hidden[name] = device_map
        return self._hidden[name]

    def fill_hidden(self, name: str, fill: Callable[[RegisterMap], None]) -> None:
        """Have `fill` put the host's state into the runtime's map of that name, as soon as there is one: now, or with
        the first program whose routines use it."""
        self._fill[name] = fill
        if device_map := self._hidden.get(f"runtime:{name}"):
            fill(device_map)

    def _describe(self, index: int, device_map: RegisterMap) -> None:
        definition = device_map.definition
        each = copy_bytes(definition, self.capabilities.cpus)
        self._write("MAP_TYPE", definition.type)
        self._write("MAP_BASE", device_map.base)
        self._write("MAP_ENTRIES", definition.max_entries)
        self._write("MAP_STRIDE", stride(definition))
        self._write("MAP_VALUE_SIZE", definition.value_size)
        self._write("MAP_CPU_STRIDE", each if definition.type in PER_CPU else 0)
        self._write("MAP_KEY_SIZE", definition.key_size)
        lock = valuetypes.lock_offset(definition)
        self._write("MAP_LOCK", 0 if lock is None else lock + 1)
        if definition.type in tables.TYPES:
            assert isinstance(device_map, KeyedMap)
            for name, offset in device_map.parts.items():
                self._write(name, offset)
            self._write("MAP_BUCKETS", tables.buckets(definition.max_entries) - 1)
        if isinstance(device_map, RegisterEventMap):
            self._write("MAP_TABLE", device_map.ring - 1)
        self._write("MAP_COMMIT", index)
        self._described[index] = device_map
        if layouts := self._hidden.get(f"runtime:{maplayout.NAME}"):
            maplayout.write(layouts, index, device_map, self.capabilities.cpus)

    def _write_layouts(self, layouts: RegisterMap) -> None:
        for index, device_map in self._described.items():
            maplayout.write(layouts, index, device_map, self.capabilities.cpus)

    def _deliver(self, frame: bytes) -> None:
        """A record left the NIC. What a map sent that is gone since nobody can want."""
        if receiver := self._receivers.get(rings.unpack_header(frame).map):
            receiver.receive(frame)

    def destroy_map(self, device_map: DeviceMap) -> None:
        assert isinstance(device_map, RegisterMap) and device_map in self._maps
        for loaded in self._programs:
            if device_map in loaded.maps:
                raise BpfnicError(f"map {device_map.definition.name}: program {loaded.program.name} uses it")
        refuse_if_inner(device_map, self._maps)
        self._maps.remove(device_map)
        if isinstance(device_map, RegisterEventMap) and device_map.index is not None:
            self._receivers.pop(device_map.index, None)

        def release() -> None:
            if device_map.index is not None:
                self._write("MAP_TYPE", 0)
                self._write("MAP_COMMIT", device_map.index)
                del self._described[device_map.index]
                self._descriptors.free(device_map.index)
            self._values.free(device_map.base)

        self._free_later(release)

    # -- programs -----------------------------------------------------------------------------------------------

    def admit(self, program: "Program", maps: Mapping[str, "MapDefinition"], *, unsafe: bool = False) -> None:
        self._admit(program, maps, unsafe)

    def _admit(self, program: "Program", maps: Mapping[str, "MapDefinition"], unsafe: bool) -> StackUse | None:
        runs = self.capabilities.program_types
        if program.type not in runs:
            kind = program.type.name if program.type else sections.of_type(program.section)
            names = ", ".join(sorted(each.name for each in runs))
            raise BpfnicError(f"program {program.name} is {kind}; {self.name} runs {names}")
        if unsafe and self._transport.wired:
            raise BpfnicError(f"program {program.name}: {self.name} takes no unverified program; simulated NICs do")
        stack_use = gate.admit(program, maps, self.capabilities, unsafe=unsafe)
        refuse_broadcast(program)
        return stack_use

    def load(
        self, program: "Program", maps: Mapping[str, DeviceMap], *, unsafe: bool = False
    ) -> RegisterProgram:
        used: dict[str, RegisterMap] = {}
        for name in program.maps:
            if name not in maps:
                raise BpfnicError(f"program {program.name} needs map {name}")
            device_map = maps[name]
            assert isinstance(device_map, RegisterMap) and device_map in self._maps
            used[name] = device_map
        programarray.admit(program, not unsafe, used.values())
        use = self._admit(program, {name: device_map.defined() for name, device_map in used.items()}, unsafe)
        whole = program.with_firmware(runtime.linked(program.type, self.capabilities.helpers))
        layout = lay_out(whole.resolved(self.capabilities.helpers), program.name, whole.own, use)
        demand = use and Demand.of(whole, layout, use, used)
        if demand and (why := self._tail_calls.refusal(demand)):
            raise BpfnicError(f"program {program.name}: {why}")
        linked = self._link(program, whole, used, layout)
        slots = len(linked)
        entry = self._allocate(self._slots, slots, 1, f"program {program.name} takes {slots} slots of {self.name}")
        image = at_slot(linked, entry)
        code = encode(image)
        self._write("PROGRAM_ADDRESS", entry * 2)
        for i in range(0, len(code), 4):
            self._write("PROGRAM_DATA", int.from_bytes(code[i : i + 4], "little"))
        loaded = RegisterProgram(program, entry, image, frozenset(used.values()), whole, demand)
        for device_map in used.values():
            if device_map.definition.constants is not None:
                with suppress(PermissionError):  # it is frozen
                    device_map.freeze()
        self._programs.append(loaded)
        if demand:
            self._tail_calls.add(demand)
        programarray.admitted(program, not unsafe, used.values())
        return loaded

    def _link(
        self, program: "Program", whole: "Program", maps: Mapping[str, RegisterMap], layout: Layout
    ) -> list[Instruction | None]:
        """The program, with its routines, as this device executes it. Raises BpfnicError for what the device can't do.
        """
        hidden = {name: self._hidden_map(name, definition) for name, definition in whole.hidden.items()}
        self._tables.add(hidden.values())
        placed = {**maps, **hidden}
        handles = {name: used.handle for name, used in placed.items() if used.index is not None}
        values = {name: MAP_VALUES + used.base for name, used in placed.items()}
        has = self.capabilities
        limits = Limits(has.program_slots, lambda row: row.group in has.groups, has.helpers)
        return device_image(whole, DeviceAddresses(handles, values), limits, layout)

    def unload(self, loaded: LoadedProgram) -> None:
        assert isinstance(loaded, RegisterProgram) and loaded in self._programs
        for (interface, hook), programs in self._attached.items():
            if loaded in programs:
                where = "the host" if interface == self.capabilities.ports else f"port{interface}, {hook.value}"
                raise BpfnicError(f"program {loaded.program.name} is attached to {where}")
        programarray.refuse_if_held(loaded, self._maps)
        self._programs.remove(loaded)

        def release() -> None:
            self._slots.free(loaded.entry)
            if loaded.demand:
                self._tail_calls.remove(loaded.demand)

        self._free_later(release)

    def attach_at(self, interface: int, hook: Hook, programs: Sequence[LoadedProgram]) -> None:
        check_programs(interface, self.capabilities.ports, hook, programs)
        chain = []
        for loaded in programs:
            assert isinstance(loaded, RegisterProgram) and loaded in self._programs
            chain.append(loaded)
        words: list[int] = []
        what = f"port{interface}, {hook.value}: each program behind the first takes a word of CHAIN of {self.name}"
        try:
            words += (self._allocate(self._chain, 1, 1, what) for _ in chain[1:])
        except BpfnicError:
            for word in words:
                self._chain.free(word)
            raise
        # From the last one on: whoever comes to a word finds what it leads to.
        following = 0
        for word, loaded in reversed(list(zip(words, chain[1:], strict=True))):
            self._write("CHAIN", loaded.entry_word(following) | word << registers.CHAIN_BIT)
            following = word
        self._write(registers.HOOKS[hook], chain[0].entry_word(following) if chain else 0, interface)
        place = interface, hook
        before, self._chained[place], self._attached[place] = self._chained.get(place, []), words, chain
        if before:
            self._free_later(lambda: self._free_words(before))

    def _free_words(self, words: Sequence[int]) -> None:
        for word in words:
            self._chain.free(word)

    def set_tai_offset(self, nanoseconds: int) -> None:
        """How far International Atomic Time is ahead of the NIC's clock, for bpf_ktime_get_tai_ns; 0 until set."""
        value = nanoseconds.to_bytes(8, "little", signed=True)
        self.fill_hidden("tai_offset", lambda offset: offset.update(bytes(INDEX_BYTES), [value]))

    def set_rss_key(self, key: bytes) -> None:
        """The key of the hash that bpf_xdp_metadata_rx_hash tells, 40 bytes; Microsoft's until set. Packets in flight
        see the new one, or parts of it. Raises BpfnicError for another length, and where the NIC computes no hash."""
        if Metadata.RX_HASH not in self.capabilities.helpers:
            raise BpfnicError(f"{self.name} computes no RSS hash")
        if len(key) != RSS_KEY_BYTES:
            raise BpfnicError(f"an RSS key must be {RSS_KEY_BYTES} bytes long, not {len(key)}")
        for index in range(RSS_KEY_BYTES // 4):
            self._write("RSS_KEY", int.from_bytes(key[4 * index :][:4], "little"), index)

    def set_ifindex(self, interface: int, ifindex: int) -> None:
        self._write("IFINDEX", ifindex, interface)
        if interface < self.capabilities.ports:
            self._ifindexes[interface] = ifindex
            if self._network is None:
                self._tables.set(unconnected(self._ifindexes))

    def set_network(self, network: Network) -> None:
        network.check_ports(self._ifindexes)
        self._tables.set(network)
        self._network = network

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
        self._enable(pacing)
        return self._transport.run(arrivals, pacing, on_step, replay, retirements, observe)

    def start(self) -> None:
        if not self._transport.wired:
            super().start()
        self._enable(Pacing(lossless=False))
        self._transport.connect()

    def _enable(self, pacing: Pacing) -> None:
        mode = registers.MODE_INGRESS_WAITS | registers.MODE_EGRESS_WAITS if pacing.lossless else 0
        for interface in range(self.interfaces):
            self._write("MODE", mode, interface)
        order = registers.CONTROL_FLOWS_APART if pacing.flows_apart else 0
        self._write("CONTROL", registers.CONTROL_ENABLE | order)

    def trace(self) -> list[trace.Line]:
        records = self._hidden.get(f"runtime:{trace.MAP}")
        assert records is None or isinstance(records, RegisterEventMap)
        return trace.take(records) if records else []

    def follow(self, arrivals: Sequence[Arrival]) -> Follower:
        return self._transport.follow(arrivals)

    def _count(self) -> dict[str, list[int]]:
        """Counters as they are on the NIC, of now."""
        self._write("SNAPSHOT", 0)
        found = {}
        for register in registers.REGISTERS:
            if register.offset >= registers.BY_NAME["RECEIVED"].offset:
                count = self.interfaces + 1 if register.count == registers.INTERFACES else register.count
                found[register.name] = self._read_all(*((register.name, i) for i in range(count)))
        return found

    def counters(self) -> dict[str, int | list[int]]:
        result: dict[str, int | list[int]] = {}
        for name, values in self._count().items():
            before = self._counted.get(name, [0] * len(values))
            if name in _WIDE:
                result[name] = (values[0] - before[0] + (values[1] - before[1] << 32)) % (1 << 64)
            else:
                result[name] = [(value - old) % (1 << 32) for value, old in zip(values, before, strict=True)]
        return result

    def close(self) -> None:
        self._transport.close()
