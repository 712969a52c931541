"""Maps in map memory, behind control registers.

A value's stride is its size where that is 1, 2 or 4 bytes (values are packed: 65,536 verdicts of one byte take 64 KiB),
otherwise rounded up to a multiple of 8. A map's base is a multiple of 16, and so is the distance between the copies of
two CPUs. The host writes exactly the bytes of a value, so what programs store beside it meanwhile stays.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from errno import E2BIG, EBUSY, EEXIST, EINVAL, ENOENT, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING, Any

from bpfnic.host.device import DeviceMap, LoadedProgram, Transport, error
from bpfnic.host.eventmaps import EventMap, Record, ring_bytes
from bpfnic.host.link import Frame
from bpfnic.host.maps import MapDefinition
from bpfnic.host.mapsofmaps import MapOfMaps
from bpfnic.host.programarray import ProgramArray
from bpfnic.host.redirectmap import RedirectMap
from bpfnic.host.structure import Code
from bpfnic.host.valuetypes import lock_offset
from bpfnic.spec import rings, tables
from bpfnic.spec.addresses import INDEX_BYTES, map_handle
from bpfnic.spec.maps import (
    DEVMAPS,
    EVENTS,
    KEYED,
    LOCK_BYTES,
    MAP_BYTES,
    PER_CPU,
    PROGRAM_BYTES,
    QUEUES,
    REDIRECT_BYTES,
    REDIRECT_MAPS,
    MapFlag,
    MapType,
    UpdateFlag,
    redirect_word,
)
from bpfnic.spec.programs import ProgramType
from bpfnic.spec.registers import BY_NAME, WIDTH_TAKES, entry_word
from bpfnic.spec.rings import RingState

if TYPE_CHECKING:
    from bpfnic.host.object import Program
    from bpfnic.host.taildepth import Demand, TailCalls

ALIGN = 16
ARRAYS = REDIRECT_MAPS - KEYED | {MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.PROG_ARRAY, MapType.ARRAY_OF_MAPS}

_ADDRESS = BY_NAME["MAP_ADDRESS"].offset
_DATA = BY_NAME["MAP_DATA"].offset
_WIDTH = BY_NAME["MAP_WIDTH"].offset
_TRIES = 10_000  # to get a lock


class RegisterProgram(LoadedProgram):
    """A program in the slot store: `image` from slot `entry` on. `whole`: the program with the runtime's routines
    behind it, as it lies there. `demand`: what it takes, None where nobody verified it."""

    def __init__(
        self, program: "Program", entry: int, image: Code, maps: "frozenset[RegisterMap]", whole: "Program",
        demand: "Demand | None"
    ):  # fmt: skip
        self.program, self.whole, self.demand = program, whole, demand
        self.verified = demand is not None
        self.entry = entry
        self.image = image
        self.maps = maps

    def entry_word(self, following: int = 0) -> int:
        """The word of register ENTRY and its like that has a hook's packets run it, and then the one in word
        `following` of CHAIN."""
        return self._word(0, following)

    @property
    def tail_called(self) -> int:
        """The word in a PROG_ARRAY that has tail calls go on with it."""
        return self._word(0 if self.program.type is ProgramType.XDP else Frame.TAIL)

    def _word(self, offset: int, following: int = 0) -> int:
        assert self.program.type
        return entry_word(self.entry + offset, self.program.type, following)


class MapMemory:
    """Bytes of map memory. Addresses are byte offsets in it."""

    def __init__(self, transport: Transport):
        self._transport = transport

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes from `address`."""
        if not size:
            return b""
        start, end = address & ~3, -(-(address + size) // 4) * 4
        self._transport.write(_ADDRESS, start)
        words = self._transport.read_all([_DATA] * ((end - start) // 4))
        data = b"".join(word.to_bytes(4, "little") for word in words)
        return data[address - start : address - start + size]

    def write(self, address: int, data: bytes) -> None:
        """Write `data` at `address`, and nothing beside it: four bytes at a time, or two or one where it begins or ends
        within four."""
        odd = (address | len(data)) & 3
        width = 0 if odd & 1 else 1 if odd else 2
        step = 1 << width
        if odd:
            self._transport.write(_WIDTH, width)
        self._transport.write(_ADDRESS, address)
        for i in range(0, len(data), step):
            self._transport.write(_DATA, int.from_bytes(data[i : i + step], "little"))
        if odd:
            self._transport.write(_WIDTH, BY_NAME["MAP_WIDTH"].reset)

    def lock(self, address: int) -> None:
        """Take the spin lock at `address`, which a program may hold. Raises OSError EBUSY: it doesn't let go."""
        self._transport.write(_WIDTH, BY_NAME["MAP_WIDTH"].reset | WIDTH_TAKES)
        try:
            for _ in range(_TRIES):
                self._transport.write(_ADDRESS, address)
                if not self._transport.read(_DATA):
                    return
        finally:
            self._transport.write(_WIDTH, BY_NAME["MAP_WIDTH"].reset)
        raise error(EBUSY)

    def read_here(self, size: int) -> bytes:
        """`size` bytes from MAP_ADDRESS, a multiple of four, on."""
        words = self._transport.read_all([_DATA] * -(-size // 4))
        return b"".join(word.to_bytes(4, "little") for word in words)[:size]

    def write_here(self, data: bytes) -> None:
        """Write `data` at MAP_ADDRESS, a multiple of four, and zeros behind it up to the next."""
        for i in range(0, len(data), 4):
            self._transport.write(_DATA, int.from_bytes(data[i : i + 4], "little"))


def stride(definition: MapDefinition) -> int:
    """Bytes from one value to the next; in a redirect map from one entry, which is what the NIC needs of a value. A
    per-CPU map's new value is cleared 8 bytes at a time."""
    size = REDIRECT_BYTES if definition.type in REDIRECT_MAPS else definition.value_size
    packed = size in (1, 2, 4) and definition.type not in KEYED & PER_CPU and lock_offset(definition) is None
    return size if packed else -(-size // 8) * 8


def copy_bytes(definition: MapDefinition, cpus: int) -> int:
    """Bytes of one copy of a map's values, padding included. A map that isn't an array has a place more for each CPU
    and one for the host: a new value stands beside the old one until it is whole; QUEUE and STACK have one that is
    always zeros, which a program gets when there is no value."""
    spares = definition.type in KEYED | QUEUES
    places = tables.places(definition.max_entries, cpus) if spares else definition.max_entries
    places += definition.type in QUEUES
    return -(-places * stride(definition) // ALIGN) * ALIGN


def table_bytes(definition: MapDefinition, cpus: int) -> int:
    """Bytes of the table that says which key has which value, behind the values; 0 for a map without."""
    if definition.type not in tables.TYPES:
        return 0
    return tables.table_bytes(definition.type, definition.key_size, definition.max_entries, cpus)


def map_bytes(definition: MapDefinition, cpus: int, memory: int) -> int:
    """Map memory that a map takes on a NIC with so many CPUs and so many bytes of it, in multiples of 16."""
    if definition.type in EVENTS:
        return rings.memory_bytes(ring_bytes(definition, memory))
    copies = cpus if definition.type in PER_CPU else 1
    return copies * copy_bytes(definition, cpus) + table_bytes(definition, cpus)


class RegisterMap(DeviceMap):
    """A map whose values lie at `base`; `index` is that of its descriptor, None where it needs none."""

    def __init__(self, definition: MapDefinition, transport: Transport, index: int | None, base: int, cpus: int):
        self.definition = definition
        self.copies = cpus if definition.type in PER_CPU else 1
        self.index = index
        self.base = base
        self._memory = MapMemory(transport)
        self._transport = transport
        self._stride = stride(definition)
        self._copy_bytes = copy_bytes(definition, cpus)
        self._cpus = cpus
        self._lock = lock_offset(definition)
        self._refused = definition.flags & (MapFlag.RDONLY | MapFlag.WRONLY)  # of the host

    @property
    def handle(self) -> int:
        """What a program passes for the map."""
        assert self.index is not None
        return map_handle(self.index, self.definition.key_size or INDEX_BYTES)

    def freeze(self) -> None:
        self._permit(writes=True)
        self._refused |= MapFlag.RDONLY

    def _permit(self, reads: bool = False, writes: bool = False) -> None:
        """Raises OSError EPERM for what the map's flags don't let the host do, before anything else is said."""
        if reads and self._refused & MapFlag.WRONLY or writes and self._refused & MapFlag.RDONLY:
            raise error(EPERM)

    def pop(self, key: bytes) -> list[bytes]:
        self._permit(reads=True, writes=True)
        raise error(EOPNOTSUPP)

    def clear(self) -> None:
        """All zeros, padding included."""
        self._memory.write(self.base, bytes(self.copies * self._copy_bytes))

    def _shown(self, value: bytes) -> bytes:
        """A value from map memory: nobody sees its lock (check_and_init_map_value)."""
        if self._lock is None:
            return value
        return value[: self._lock] + bytes(LOCK_BYTES) + value[self._lock + LOCK_BYTES :]

    def _locked(self, flags: int) -> tuple[bool, int]:
        """Whether an update takes the value's lock, and its other flags; where there is none, LOCK is one of them."""
        locked = self._lock is not None and bool(flags & UpdateFlag.LOCK)
        return locked, flags & ~UpdateFlag.LOCK if locked else flags

    def _write_value(self, address: int, value: bytes, locked: bool) -> None:
        """Write a value where one is, but for its lock (copy_map_value); `locked`: under the lock. Raises OSError
        EBUSY."""
        if self._lock is None:
            self._memory.write(address, value)
            return
        lock, behind = address + self._lock, self._lock + LOCK_BYTES
        if locked:
            self._memory.lock(lock)
        self._memory.write(address, value[: self._lock])
        self._memory.write(address + behind, value[behind:])
        if locked:
            self._memory.write(lock, bytes(LOCK_BYTES))

    def _copy(self, offset: int, copy: int) -> int:
        """Where a CPU's copy of the value is of which `offset` is the first."""
        return offset + copy * self._copy_bytes

    def _check(self, key: bytes, values: Sequence[bytes] | None = None) -> None:
        if len(key) != self.definition.key_size:
            raise OSError(EINVAL, f"{self.definition.name}: a key has {self.definition.key_size} bytes, not {len(key)}")
        size = self.definition.value_size
        if values is not None and [len(value) for value in values] != [size] * self.copies:
            raise OSError(EINVAL, f"{self.definition.name}: takes {self.copies} values of {size} bytes")


class RegisterArray(RegisterMap):
    """An ARRAY or PERCPU_ARRAY; errors are those of the kernel's array_map_* functions."""

    def _index(self, key: bytes) -> int:
        self._check(key)
        return int.from_bytes(key, "little")

    def _address(self, index: int, copy: int) -> int:
        return self._copy(self.base + index * self._stride, copy)

    def lookup(self, key: bytes) -> list[bytes]:
        self._permit(reads=True)
        index, size = self._index(key), self.definition.value_size
        if index >= self.definition.max_entries:
            raise error(ENOENT)
        return [self._shown(self._memory.read(self._address(index, copy), size)) for copy in range(self.copies)]

    def update(self, key: bytes, values: Sequence[bytes], flags: int = UpdateFlag.ANY) -> None:
        self._permit(writes=True)
        self._check(key, values)
        index = self._index(key)
        locked, flags = self._locked(flags)
        if flags > UpdateFlag.EXIST:
            raise error(EINVAL)
        if index >= self.definition.max_entries:
            raise error(E2BIG)
        if flags == UpdateFlag.NOEXIST:
            raise error(EEXIST)
        for copy, value in enumerate(values):
            self._write_value(self._address(index, copy), value, locked)

    def delete(self, key: bytes) -> None:
        self._permit(writes=True)
        raise error(EINVAL)

    def next_key(self, key: bytes | None) -> bytes:
        self._permit(reads=True)
        index = -1 if key is None else self._index(key)
        following = 0 if index >= self.definition.max_entries else index + 1
        if following == self.definition.max_entries:
            raise error(ENOENT)
        return following.to_bytes(INDEX_BYTES, "little")

    def dump(self) -> dict[bytes, list[bytes]]:
        self._permit(reads=True)
        size, entries = self.definition.value_size, range(self.definition.max_entries)
        copies = [self._memory.read(self._address(0, copy), self._copy_bytes) for copy in range(self.copies)]
        return {
            i.to_bytes(INDEX_BYTES, "little"): [
                self._shown(copy[i * self._stride : i * self._stride + size]) for copy in copies
            ]
            for i in entries
        }


class RegisterProgramArray(ProgramArray, RegisterMap):
    """A PROG_ARRAY: at each index a word as in the register ENTRY, which the host writes in one access. `tail_calls`:
    the device's, to be set before a program is put in."""

    tail_calls: "TailCalls"

    def demands(self) -> "Iterator[tuple[int, Demand]]":
        """What the programs take that somebody verified, with their indexes."""
        for key, loaded in self._programs.items():
            assert isinstance(loaded, RegisterProgram)
            if loaded.demand:
                yield self._index(key), loaded.demand

    def _write(self, index: int, loaded: LoadedProgram | None) -> None:
        self._permit(writes=True)
        assert loaded is None or isinstance(loaded, RegisterProgram)
        self.tail_calls.change(self, index, loaded.demand if loaded else None)
        entry = 0 if loaded is None else loaded.tail_called
        self._memory.write(self.base + index * self._stride, entry.to_bytes(PROGRAM_BYTES, "little"))


class HeldRedirects(RedirectMap, RegisterMap):
    """A redirect map: in map memory each entry is a redirect_word. The values that they come from are kept here."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._held: dict[bytes, tuple[int, bytes]] = {}  # port or queue, and value, by key

    def lookup(self, key: bytes) -> list[bytes]:
        self._permit(reads=True)
        self._check(key)
        if self.definition.type is MapType.XSKMAP:
            raise error(EOPNOTSUPP)
        if key not in self._held:
            raise error(ENOENT)
        number, value = self._held[key]
        return [self.of_port(number) if self.definition.type in DEVMAPS else value]

    def update(self, key: bytes, values: Sequence[bytes], flags: int = UpdateFlag.ANY) -> None:
        self._permit(writes=True)
        self._check(key)
        value = self.kernels(values)
        number = self.target(int.from_bytes(key, "little"), value, flags, key in self._held)
        self._put(key, redirect_word(self.definition.type, number).to_bytes(REDIRECT_BYTES, "little"))
        if number is None:
            self._held.pop(key, None)
        else:
            self._held[key] = number, value

    @abstractmethod
    def _put(self, key: bytes, word: bytes) -> None:
        """Write an entry, in one step."""

    def dump(self) -> dict[bytes, list[bytes]]:
        self._permit(reads=True)
        entries = sorted(self._held.items(), key=lambda entry: int.from_bytes(entry[0], "little"))
        return {key: [self.shown(number, value)] for key, (number, value) in entries}


class RegisterRedirectMap(HeldRedirects, RegisterArray):
    """A DEVMAP, CPUMAP or XSKMAP; errors are those of dev_map_*, cpu_map_* and xsk_map_*."""

    def clear(self) -> None:
        super().clear()
        if empty := redirect_word(self.definition.type, None):
            words = empty.to_bytes(REDIRECT_BYTES, "little") * self.definition.max_entries
            self._memory.write(self.base, words)

    def _put(self, key: bytes, word: bytes) -> None:
        self._memory.write(self._address(self._index(key), 0), word)

    def delete(self, key: bytes) -> None:
        self._permit(writes=True)
        if self._index(key) >= self.definition.max_entries:
            raise error(EINVAL)
        self._put(key, redirect_word(self.definition.type, None).to_bytes(REDIRECT_BYTES, "little"))
        self._held.pop(key, None)


class RegisterArrayOfMaps(MapOfMaps, RegisterArray):
    """An ARRAY_OF_MAPS: at each index a handle, which the host writes in one access; errors are those of the kernel's
    bpf_fd_array_map_* functions."""

    def _put(self, key: bytes, inner: DeviceMap, flags: int) -> None:
        self._permit(writes=True)
        assert isinstance(inner, RegisterMap)
        if flags != UpdateFlag.ANY:
            raise error(EINVAL)
        self._write_handle(key, inner.handle)

    def _remove(self, key: bytes) -> None:
        self._permit(writes=True)
        self._write_handle(key, 0)

    def _write_handle(self, key: bytes, handle: int) -> None:
        index = self._index(key)
        if index >= self.definition.max_entries:
            raise error(E2BIG)
        if not handle and key not in self._inner:
            raise error(ENOENT)
        self._memory.write(self._address(index, 0), handle.to_bytes(MAP_BYTES, "little"))


class RegisterEventMap(EventMap, RegisterMap):
    """A RINGBUF or PERF_EVENT_ARRAY. `ring`: bytes of its ring, to be set before it is cleared."""

    ring: int

    @property
    def lost(self) -> int:
        return int.from_bytes(self._memory.read(self.base + RingState.LOST, 8), "little")

    def clear(self) -> None:
        self._memory.write(self.base, bytes(rings.memory_bytes(self.ring)))

    def receive(self, frame: bytes) -> None:
        """A record has come (spec.rings)."""
        header = rings.unpack_header(frame)
        data = frame[rings.HEADER_BYTES :]
        if self.definition.type is MapType.PERF_EVENT_ARRAY:
            data += bytes(-(len(data) + 4) % 8)
        self.records.append(Record(data, header.cpu))
