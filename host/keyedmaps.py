"""Maps with keys of their own behind control registers, and queues: the device finds where a value is, by commands."""

from collections.abc import Sequence
from errno import EINVAL, EOPNOTSUPP

from bpfnic.host.device import DeviceMap, error
from bpfnic.host.mapsofmaps import MapOfMaps
from bpfnic.host.registermaps import HeldRedirects, RegisterMap
from bpfnic.spec import tables
from bpfnic.spec.maps import MAP_BYTES, MapType, UpdateFlag
from bpfnic.spec.registers import BY_NAME, MapCommand, command
from bpfnic.spec.tables import State


class RegisterHash(RegisterMap):
    """A map with keys of its own: the device finds them, by commands; errors are those of the kernel's htab_map_*
    functions."""

    @property
    def table(self) -> int:
        """Where its table is."""
        return self.base + self.copies * self._copy_bytes

    def clear(self) -> None:
        super().clear()
        definition = self.definition
        if definition.type not in tables.TYPES:
            return
        entries = definition.max_entries
        nodes = tables.header_bytes(self._cpus) + tables.LINK_BYTES * tables.buckets(entries)
        self._memory.write(self.table, bytes(nodes))
        state = {
            State.FRESH_NODE: self.table + nodes,
            State.FRESH_VALUE: self.base,
            State.FRESH: tables.places(entries, self._cpus),
        }
        for place, number in state.items():
            self._memory.write(self.table + place, number.to_bytes(4, "little"))

    def _write_key(self, key: bytes) -> None:
        for i in range(BY_NAME["MAP_KEY"].count):
            self._transport.write(BY_NAME["MAP_KEY"].address(i), int.from_bytes(key[4 * i : 4 * i + 4], "little"))

    def _command(self, operation: MapCommand, flags: int = 0) -> int:
        """Does it; returns where the value is. Raises OSError."""
        assert self.index is not None
        self._transport.write(BY_NAME["MAP_COMMAND"].offset, command(self.index, operation, flags))
        if status := self._transport.read(BY_NAME["MAP_STATUS"].offset):
            raise error(status)
        return self._transport.read(BY_NAME["MAP_VALUE"].offset)

    def lookup(self, key: bytes) -> list[bytes]:
        self._permit(reads=True)
        self._check(key)
        self._write_key(key)
        return self._read(self._command(MapCommand.LOOKUP))

    def _read(self, offset: int) -> list[bytes]:
        return [self._memory.read(self._copy(offset, copy), self.definition.value_size) for copy in range(self.copies)]

    def pop(self, key: bytes) -> list[bytes]:
        self._permit(reads=True, writes=True)
        if self.definition.type in (MapType.LPM_TRIE, MapType.DEVMAP_HASH):
            raise error(EOPNOTSUPP)
        self._check(key)
        self._write_key(key)
        return self._read(self._command(MapCommand.POP))

    def update(self, key: bytes, values: Sequence[bytes], flags: int = UpdateFlag.ANY) -> None:
        self._permit(writes=True)
        self._check(key, values)
        if flags > UpdateFlag.EXIST:
            raise error(EINVAL)
        self._store(key, values, flags)

    def _store(self, key: bytes, values: Sequence[bytes], flags: int) -> None:
        """What lies in map memory for a value, one for each copy."""
        self._write_key(key)
        offset = self._command(MapCommand.RESERVE)
        for copy, value in enumerate(values):
            self._memory.write(self._copy(offset, copy), value)
        self._command(MapCommand.INSERT, flags)

    def delete(self, key: bytes) -> None:
        self._permit(writes=True)
        self._check(key)
        self._write_key(key)
        self._command(MapCommand.DELETE)

    def next_key(self, key: bytes | None) -> bytes:
        self._permit(reads=True)
        if key is not None:
            self._check(key)
            self._write_key(key)
        self._command(MapCommand.FIRST if key is None else MapCommand.NEXT)
        words = [self._transport.read(BY_NAME["MAP_KEY"].address(i)) for i in range(BY_NAME["MAP_KEY"].count)]
        return b"".join(word.to_bytes(4, "little") for word in words)[: self.definition.key_size]


class RegisterQueue(RegisterHash):
    """A QUEUE or STACK; errors are those of the kernel's queue_stack_map_* functions."""

    def _write_key(self, key: bytes) -> None:
        """It has none."""

    def delete(self, key: bytes) -> None:
        self._permit(writes=True)
        raise error(EINVAL)

    def next_key(self, key: bytes | None) -> bytes:
        self._permit(reads=True)
        raise error(EINVAL)


class RegisterHashOfMaps(MapOfMaps, RegisterHash):
    """A HASH_OF_MAPS: a HASH of handles."""

    def _put(self, key: bytes, inner: DeviceMap, flags: int) -> None:
        assert isinstance(inner, RegisterMap)
        RegisterHash.update(self, key, [inner.handle.to_bytes(MAP_BYTES, "little")], flags)

    def _remove(self, key: bytes) -> None:
        RegisterHash.delete(self, key)


class RegisterRedirectHash(HeldRedirects, RegisterHash):
    """A DEVMAP_HASH: a HASH of redirect_words; errors are those of dev_map_hash_*."""

    def _put(self, key: bytes, word: bytes) -> None:
        self._store(key, [word], UpdateFlag.ANY)

    def delete(self, key: bytes) -> None:
        RegisterHash.delete(self, key)
        del self._held[key]
