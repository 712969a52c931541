"""ARRAY_OF_MAPS and HASH_OF_MAPS: maps by key, which programs look up and then use. The host alone writes them.

An inner map can't be destroyed while such a map holds it: it is to be replaced or deleted there first. Packets under
way may still use what was there before, so `Device.destroy_map` gives its memory back when the last of them has left.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from errno import EINVAL, ENOENT, EOPNOTSUPP
from typing import Any

from bpfnic.host.device import DeviceMap, error
from bpfnic.host.maps import MapDefinition
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import INNER, OF_MAPS, MapFlag, MapType, UpdateFlag


class MapOfMaps(DeviceMap):
    """Maps by key. As bytes a value is the name of its map, and keys are those that have one."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._inner: dict[bytes, DeviceMap] = {}

    @abstractmethod
    def _put(self, key: bytes, inner: DeviceMap, flags: int) -> None:
        """Put a map at a key, in one step. Raises OSError as `set_map`."""

    @abstractmethod
    def _remove(self, key: bytes) -> None:
        """Take the map at a key out, in one step. Raises OSError as `delete`."""

    def inner(self, key: bytes) -> DeviceMap:
        """The map at `key`. Raises OSError ENOENT."""
        if key not in self._inner:
            raise error(ENOENT)
        return self._inner[key]

    def set_map(self, key: bytes, inner: DeviceMap, flags: int = UpdateFlag.ANY) -> None:
        """Put a map of the same device at `key`, from the next look-up on. Raises OSError EINVAL for one that isn't
        like the inner map of the definition; E2BIG, EEXIST, ENOENT; an ARRAY_OF_MAPS takes no flags."""
        assert self.definition.inner is not None
        if why := _unlike(self.definition.inner, inner.definition):
            raise OSError(EINVAL, f"map {self.definition.name} takes no map {inner.definition.name}: {why}")
        self._put(key, inner, flags)
        self._inner[key] = inner

    def clear_maps(self) -> None:
        """Take every map out."""
        for key in list(self._inner):
            self.delete(key)

    def delete(self, key: bytes) -> None:
        self._remove(key)
        del self._inner[key]

    def lookup(self, key: bytes) -> list[bytes]:
        return [self.inner(key).definition.name.encode()]

    def update(self, key: bytes, values: Sequence[bytes], flags: int = 0) -> None:
        raise OSError(EINVAL, f"map {self.definition.name} takes maps")

    def pop(self, key: bytes) -> list[bytes]:
        raise error(EOPNOTSUPP)

    def next_key(self, key: bytes | None) -> bytes:
        keys = list(self._inner)
        at = keys.index(key) + 1 if key in self._inner else 0
        if at == len(keys):
            raise error(ENOENT)
        return keys[at]

    def dump(self) -> dict[bytes, list[bytes]]:
        return {key: self.lookup(key) for key in self._inner}

    def key_of(self, inner: DeviceMap) -> bytes | None:
        """A key at which a map is, None if it is at none."""
        return next((key for key, held in self._inner.items() if held is inner), None)


def check_inner(definition: MapDefinition) -> None:
    """Raises BpfnicError where a map of maps doesn't say what its inner maps are, or something that they can't be."""
    if definition.type not in OF_MAPS:
        return
    name = f"map {definition.name} ({definition.type.name})"
    if definition.inner is None:
        raise BpfnicError(f"{name}: the object doesn't say what its inner maps are")
    if definition.inner.type not in INNER:
        raise BpfnicError(f"{name}: an inner map can't be of type {definition.inner.type.name}")


def refuse_if_inner(device_map: DeviceMap, maps: Iterable[DeviceMap]) -> None:
    """Raises BpfnicError where one of the maps holds the map."""
    for outer in maps:
        if isinstance(outer, MapOfMaps) and (key := outer.key_of(device_map)) is not None:
            where = f"map {outer.definition.name}, at {outer.definition.format_key(key)}"
            raise BpfnicError(f"map {device_map.definition.name} is in {where}")


def _unlike(wanted: MapDefinition, given: MapDefinition) -> str:
    """How an inner map differs from the one that programs were checked with (bpf_map_meta_equal), "" if it doesn't."""
    fields = ["type", "key_size", "value_size", "flags"]
    if wanted.type in (MapType.ARRAY, MapType.PERCPU_ARRAY) and not wanted.flags & MapFlag.INNER_MAP:
        fields.append("max_entries")
    for field in fields:
        ours, theirs = getattr(wanted, field), getattr(given, field)
        if ours != theirs:
            return f"{field} is {_text(theirs)}, not {_text(ours)}"
    return ""


def _text(value: Any) -> str:
    return str(value.name or 0) if isinstance(value, MapType | MapFlag) else str(value)
