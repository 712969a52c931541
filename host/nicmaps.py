"""The maps on a NIC as Python has them: dictionaries by BTF types, queues, maps of maps, variables."""

from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import replace
from errno import ENOENT
from typing import Any

from bpfnic.host.btf import Kind
from bpfnic.host.device import Device, DeviceMap
from bpfnic.host.eventmaps import EventMap, Record
from bpfnic.host.maps import Globals
from bpfnic.host.mapsofmaps import MapOfMaps
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import QUEUES, UpdateFlag

FIRST = bytes(4)
"""The one key of a section of global variables."""


class NicMap(MutableMapping[Any, Any]):
    """A map on a NIC as a dictionary: keys and values by their BTF types (hex text where the object has none). The
    value of a per-CPU map is a list, one for each CPU. Errors of the device are OSError (E2BIG, EINVAL, …)."""

    def __init__(self, device_map: DeviceMap):
        self.device_map = device_map
        self._definition = device_map.definition

    def _to_user(self, values: Sequence[bytes]) -> Any:
        shown = [self._definition.format_value(value) for value in values]
        return shown if len(shown) > 1 else shown[0]

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._to_user(self.device_map.lookup(self._definition.parse_key(key)))
        except OSError as error:
            if error.errno == ENOENT:
                raise KeyError(key) from None
            raise

    def __setitem__(self, key: Any, value: Any) -> None:
        self.device_map.update(self._definition.parse_key(key), self._values(value))

    def _values(self, value: Any) -> list[bytes]:
        """What the device gets for a value."""
        copies = self.device_map.copies
        values = [value] if copies == 1 else value
        if not isinstance(values, list | tuple) or len(values) != copies:
            raise BpfnicError(f"map {self._definition.name!r}: takes a list of {copies} values, one for each CPU")
        return [self._definition.parse_value(one) for one in values]

    def __delitem__(self, key: Any) -> None:
        try:
            self.device_map.delete(self._definition.parse_key(key))
        except OSError as error:
            if error.errno == ENOENT:
                raise KeyError(key) from None
            raise

    def freeze(self) -> None:
        """No more changes by the host (PermissionError); programs go on."""
        self.device_map.freeze()

    def lookup_batch(self) -> list[tuple[Any, Any]]:
        """All entries as keys and values (keys may be what no dictionary takes), read in bulk."""
        found = self.device_map.dump().items()
        return [(self._definition.format_key(key), self._to_user(values)) for key, values in found]

    def update_batch(self, entries: Iterable[tuple[Any, Any]]) -> None:
        """Set many entries, in their order. Raises OSError naming the first one that the device refuses."""
        self.device_map.update_batch([(self._definition.parse_key(key), self._values(value)) for key, value in entries])

    def delete_batch(self, keys: Iterable[Any]) -> None:
        """Delete many entries, in the same way."""
        self.device_map.delete_batch([self._definition.parse_key(key) for key in keys])

    def __iter__(self) -> Iterator[Any]:
        return map(self._definition.format_key, self.device_map.keys())

    def __len__(self) -> int:
        return sum(1 for _ in self.device_map.keys())


class NicMapOfMaps(NicMap):
    """A map of maps on a NIC: its inner maps by key. One may be put in, replaced and deleted while packets run: each
    look-up sees one or the other."""

    def __init__(self, device: Device, device_map: MapOfMaps, live: "dict[DeviceMap, NicMap | NicQueue]"):
        """`live`: the maps on the NIC; those of `new` are added."""
        super().__init__(device_map)
        self._device = device
        self._outer = device_map
        self._live = live
        self._made: list[NicMap | NicQueue] = []

    def new(self, max_entries: int | None = None) -> "NicMap | NicQueue":
        """A map of zeros as the object defines its inner maps, at no key yet. `max_entries`: where it need not be the
        object's. Raises BpfnicError where the NIC is full."""
        definition = self._definition.inner
        assert definition is not None
        inner = self._device.create_map(replace(definition, max_entries=max_entries or definition.max_entries))
        self._live[inner] = NicQueue(inner) if definition.type in QUEUES else NicMap(inner)
        self._made.append(self._live[inner])
        return self._live[inner]

    def free(self, inner: "NicMap | NicQueue") -> None:
        """Give a map of `new` back, once the last packet that may use it has left. Raises BpfnicError while it is at a
        key."""
        if inner not in self._made:
            raise BpfnicError(f"map {self._definition.name!r}: {inner!r} is no map that its new() made")
        self._device.destroy_map(inner.device_map)
        self._made.remove(inner)
        del self._live[inner.device_map]

    def free_all(self) -> None:
        """Take all inner maps out, and give those of `new` back."""
        self._outer.clear_maps()
        for inner in list(self._made):
            self.free(inner)

    def __getitem__(self, key: Any) -> "NicMap | NicQueue":
        try:
            return self._live[self._outer.inner(self._definition.parse_key(key))]
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: Any, value: "NicMap | NicQueue") -> None:
        if getattr(value, "device_map", None) not in self._live:
            raise BpfnicError(f"map {self._definition.name!r}: {value!r} is no map on this NIC")
        self._outer.set_map(self._definition.parse_key(key), value.device_map)


class NicQueue:
    """A QUEUE or STACK on a NIC."""

    def __init__(self, device_map: DeviceMap):
        self.device_map = device_map
        self._definition = device_map.definition

    def push(self, value: Any, *, replace: bool = False) -> None:
        """Add a value; `replace`: a full map drops its oldest one. Raises OSError E2BIG."""
        flags = UpdateFlag.EXIST if replace else UpdateFlag.ANY
        self.device_map.update(b"", [self._definition.parse_value(value)], flags)

    def pop(self) -> Any:
        """Take the next value out: the oldest of a QUEUE, the newest of a STACK. Raises IndexError where there is
        none."""
        return self._next(self.device_map.pop)

    def peek(self) -> Any:
        """The value that comes next. Raises IndexError where there is none."""
        return self._next(self.device_map.lookup)

    def _next(self, find: Callable[[bytes], list[bytes]]) -> Any:
        try:
            (value,) = find(b"")
        except FileNotFoundError:
            raise IndexError(f"map {self._definition.name!r} is empty") from None
        return self._definition.format_value(value)


class NicEvents:
    """The records of a RINGBUF or PERF_EVENT_ARRAY on a NIC, as its programs sent them. Iterating takes them out, the
    oldest first, and ends where no more have come: `for record in nic.maps["events"]` behind each run, or in its
    `on_step`."""

    def __init__(self, device_map: EventMap):
        self.device_map = device_map
        self._definition = device_map.definition

    def __iter__(self) -> Iterator[Record]:
        """Each record's bytes, with `cpu`, which says who sent it."""
        while self.device_map.records:
            yield self.device_map.records.popleft()

    def of(self, structure: str) -> Iterator[Any]:
        """The same as values of a structure of the program, by its name: what lies behind its end (bytes of the packet,
        padding) is left out. Raises BpfnicError: there is no such structure, or a record is shorter."""
        btf = self._definition.btf
        kind = btf.find(Kind.STRUCT, structure) if btf else None
        if btf is None or kind is None:
            raise BpfnicError(f"map {self._definition.name!r}: the program has no structure {structure!r}")
        size = btf.size(kind.number)
        for record in self:
            if len(record) < size:
                raise BpfnicError(f"map {self._definition.name!r}: {len(record)} bytes are no {structure} of {size}")
            yield btf.format(kind.number, record[:size])

    def __len__(self) -> int:
        """Records that have come and that nobody has taken."""
        return len(self.device_map.records)

    @property
    def lost(self) -> int:
        """Records of a PERF_EVENT_ARRAY that found no room."""
        return self.device_map.lost


class NicVariables(MutableMapping[str, Any]):
    """The global variables of one section (.data, .bss, .rodata) on a NIC, by name. Setting one writes the section
    back whole: do it while no traffic flows."""

    def __init__(self, device_map: DeviceMap):
        self.device_map = device_map

    def _read(self) -> Globals:
        assert self.device_map.definition.variables is not None
        return self.device_map.definition.variables.at(self.device_map.lookup(FIRST)[0])

    def __getitem__(self, name: str) -> Any:
        return self._read()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        section = self._read()
        section[name] = value
        self.device_map.update(FIRST, [bytes(section.content)])

    def __delitem__(self, name: str) -> None:
        raise TypeError("a variable can't be removed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())
