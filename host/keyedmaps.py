"""Maps with keys of their own behind control registers, and queues: the device finds where a value is, by commands."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EEXIST, EINVAL, ENOENT, EOPNOTSUPP
from itertools import islice
from typing import Any, TypeVar

from bpfnic.host.device import DeviceMap, error, named
from bpfnic.host.mapsofmaps import MapOfMaps
from bpfnic.host.registermaps import HeldRedirects, RegisterMap, table_bytes
from bpfnic.spec import tables
from bpfnic.spec.maps import LOCK_BYTES, MAP_BYTES, MapType, UpdateFlag
from bpfnic.spec.registers import BY_NAME, STATUS_DONE_BIT, MapCommand, command

_BATCH = 64  # entries that are written before MAP_STATUS is read
_WALK = 64  # accesses for entries that are read before it is: behind the last entry they are in vain
_Entry = TypeVar("_Entry")


class KeyedMap(RegisterMap):
    """A map with keys of its own: the device finds them, by commands; errors are those of the kernel's htab_map_*
    functions."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        definition, cpus = self.definition, self._cpus
        each = definition.type, definition.max_entries, cpus
        table = self.base + self.copies * self._copy_bytes
        self.parts = {
            "MAP_TABLE": table,
            "MAP_LINKS": table + tables.links_offset(*each),
            "MAP_KEYS": table + tables.keys_offset(*each),
            "MAP_ORDER": table + tables.order_offset(definition.type, definition.key_size, *each[1:]),
        }
        """Where each part of its table is, by the register that says so."""

    def table(self) -> bytes:
        """Its table as it lies in map memory (spec.tables)."""
        return self._memory.read(self.parts["MAP_TABLE"], table_bytes(self.definition, self._cpus))

    def clear(self) -> None:
        """All zeros: so much of the table that it is that of an empty map."""
        super().clear()
        table, links = self.parts["MAP_TABLE"], self.parts["MAP_LINKS"]
        self._memory.write(table, bytes(links - table))
        if self.definition.type in tables.ORDERED:
            self._memory.write(self.parts["MAP_ORDER"], bytes(tables.ORDER_BYTES))
        elif self.definition.type is MapType.LPM_TRIE:
            self._memory.write(self.parts["MAP_ORDER"], bytes(tables.lengths_bytes(self.definition.key_size)))

    def _write_key(self, key: bytes) -> None:
        for number, at in enumerate(range(0, len(key), 4)):
            self._transport.write(BY_NAME["MAP_KEY"].address(number), int.from_bytes(key[at : at + 4], "little"))

    def _read_key(self) -> bytes:
        size = self.definition.key_size
        words = self._transport.read_all([BY_NAME["MAP_KEY"].address(i) for i in range(-(-size // 4))])
        return b"".join(word.to_bytes(4, "little") for word in words)[:size]

    def _command(self, operation: MapCommand, flags: int = 0) -> None:
        assert self.index is not None
        self._transport.write(BY_NAME["MAP_COMMAND"].offset, command(self.index, operation, flags))

    def _status(self) -> tuple[int, int]:
        """Error number, and how many commands were done before."""
        status = self._transport.read(BY_NAME["MAP_STATUS"].offset)
        return status % (1 << STATUS_DONE_BIT), status >> STATUS_DONE_BIT

    def _finish(self) -> None:
        """Raises OSError if a command failed."""
        if number := self._status()[0]:
            raise error(number)

    @contextmanager
    def _whole_values(self) -> Iterator[None]:
        """MAP_DATA takes a value of one or two bytes, beside which others lie, at once."""
        narrow = self._stride < 4
        if narrow:
            self._transport.write(BY_NAME["MAP_WIDTH"].offset, self._stride // 2)
        try:
            yield
        finally:
            if narrow:
                self._transport.write(BY_NAME["MAP_WIDTH"].offset, BY_NAME["MAP_WIDTH"].reset)

    def _read_here(self) -> list[bytes]:
        """The values of a key whose first is at MAP_ADDRESS."""
        size = self.definition.value_size
        if self.copies == 1:
            return [self._shown(self._memory.read_here(size))]
        offset = self._transport.read(BY_NAME["MAP_ADDRESS"].offset)
        values = [self._memory.read_here(size)]
        for copy in range(1, self.copies):
            self._transport.write(BY_NAME["MAP_ADDRESS"].offset, self._copy(offset, copy))
            values.append(self._memory.read_here(size))
        return values

    def _issue_update(self, key: bytes, values: Sequence[bytes], flags: int) -> None:
        """Commands for an update with what lies in map memory for a value, one for each copy."""
        self._write_key(key)
        self._command(MapCommand.RESERVE)
        if self.copies > 1:  # MAP_ADDRESS may not be written if there is no place
            self._finish()
            offset = self._transport.read(BY_NAME["MAP_ADDRESS"].offset)
        if self._lock is None:
            self._memory.write_here(values[0])
        else:  # it stays as it is, for a program may hold a pointer to this place's last value (copy_map_value)
            self._memory.write_here(values[0][: self._lock])
            self._memory.read_here(LOCK_BYTES)
            self._memory.write_here(values[0][self._lock + LOCK_BYTES :])
        for copy, value in enumerate(values[1:], 1):
            self._transport.write(BY_NAME["MAP_ADDRESS"].offset, self._copy(offset, copy))
            self._memory.write_here(value)
        self._command(MapCommand.INSERT, flags)

    def lookup(self, key: bytes) -> list[bytes]:
        self._permit(reads=True)
        self._check(key)
        return self._find(key, MapCommand.LOOKUP)

    def pop(self, key: bytes) -> list[bytes]:
        self._permit(reads=True, writes=True)
        if self.definition.type in (MapType.LPM_TRIE, MapType.DEVMAP_HASH):
            raise error(EOPNOTSUPP)
        self._check(key)
        return self._find(key, MapCommand.POP)

    def _find(self, key: bytes, operation: MapCommand) -> list[bytes]:
        self._write_key(key)
        self._command(operation)
        self._finish()
        with self._whole_values():
            return self._read_here()

    def update(self, key: bytes, values: Sequence[bytes], flags: int = UpdateFlag.ANY) -> None:
        self._permit(writes=True)
        locked, flags = self._locked(flags)
        self._check_update(key, values, flags)
        if locked and self._holds(key):
            if flags == UpdateFlag.NOEXIST:
                raise error(EEXIST)
            self._write_value(self._transport.read(BY_NAME["MAP_ADDRESS"].offset), values[0], locked)
        else:
            self.store(key, values, flags)

    def _holds(self, key: bytes) -> bool:
        """Whether there is such a key; then MAP_ADDRESS is at its value."""
        self._write_key(key)
        self._command(MapCommand.LOOKUP)
        failed = self._status()[0]
        if failed not in (0, ENOENT):
            raise error(failed)
        return not failed

    def _check_update(self, key: bytes, values: Sequence[bytes], flags: int) -> None:
        self._check(key, values)
        if flags > UpdateFlag.EXIST:
            raise error(EINVAL)

    def store(self, key: bytes, values: Sequence[bytes], flags: int = UpdateFlag.ANY) -> None:
        """Put what lies in map memory for a value, one for each copy, under a key. Raises OSError as `update`."""
        with self._whole_values():
            self._issue_update(key, values, flags)
        self._finish()

    def delete(self, key: bytes) -> None:
        self._permit(writes=True)
        self._check(key)
        self._issue_delete(key)
        self._finish()

    def _issue_delete(self, key: bytes) -> None:
        self._write_key(key)
        self._command(MapCommand.DELETE)

    def next_key(self, key: bytes | None) -> bytes:
        self._permit(reads=True)
        if key is not None:
            self._check(key)
            self._write_key(key)
        self._command(MapCommand.FIRST if key is None else MapCommand.NEXT)
        self._finish()
        return self._read_key()

    def walk(self) -> dict[bytes, list[bytes]]:
        """Every key, with what lies in map memory for its values."""
        entries: dict[bytes, list[bytes]] = {}
        operation, failed = MapCommand.FIRST, 0
        accesses = 1 + -(-self.definition.key_size // 4) + self.copies * -(-self.definition.value_size // 4)
        with self._whole_values():
            self._status()
            while not failed:
                walked = []
                for _ in range(max(1, _WALK // accesses)):
                    self._command(operation)
                    walked.append((self._read_key(), self._read_here()))
                    operation = MapCommand.NEXT
                failed, done = self._status()
                entries.update(walked[:done])
        if failed != ENOENT:
            raise error(failed)
        return entries


class RegisterHash(KeyedMap):
    """The same with many entries at a time, for which MAP_STATUS is read now and then."""

    def update_batch(self, entries: Iterable[tuple[bytes, Sequence[bytes]]], flags: int = UpdateFlag.ANY) -> None:
        self._permit(writes=True)
        if self.copies > 1 or flags & UpdateFlag.LOCK:  # each of them reads MAP_STATUS
            super().update_batch(entries, flags)
            return
        with self._whole_values():
            self._batch(
                entries,
                lambda entry: self._check_update(*entry, flags),
                lambda entry: self._issue_update(*entry, flags),
                commands=2,
            )

    def delete_batch(self, keys: Iterable[bytes]) -> None:
        self._permit(writes=True)
        self._batch(keys, self._check, self._issue_delete, commands=1)

    def _batch(
        self, entries: Iterable[_Entry], check: Callable[[_Entry], None], issue: Callable[[_Entry], None], commands: int
    ) -> None:
        """Check and issue entries in their order; each takes so many commands. Raises OSError naming the first one that
        is refused, by `check` or by the device; those before it are done."""
        entries = iter(entries)
        first, refused = 0, None
        self._status()
        while refused is None and (chunk := list(islice(entries, _BATCH))):
            for number, entry in enumerate(chunk, first):
                try:
                    check(entry)
                except OSError as why:
                    refused = number, why
                    break
                issue(entry)
            failed, done = self._status()
            if failed:
                refused = first + done // commands, error(failed)
            first += len(chunk)
        if refused is not None:
            with named(f"entry {refused[0]}"):
                raise refused[1]

    def dump(self) -> dict[bytes, list[bytes]]:
        self._permit(reads=True)
        return self.walk()


class RegisterQueue(KeyedMap):
    """A QUEUE or STACK; errors are those of the kernel's queue_stack_map_* functions."""

    def _write_key(self, key: bytes) -> None:
        """It has none."""

    def delete(self, key: bytes) -> None:
        self._permit(writes=True)
        raise error(EINVAL)

    def next_key(self, key: bytes | None) -> bytes:
        self._permit(reads=True)
        raise error(EINVAL)


class RegisterHashOfMaps(MapOfMaps, KeyedMap):
    """A HASH_OF_MAPS: a HASH of handles."""

    def _put(self, key: bytes, inner: DeviceMap, flags: int) -> None:
        assert isinstance(inner, RegisterMap)
        KeyedMap.update(self, key, [inner.handle.to_bytes(MAP_BYTES, "little")], flags)

    def _remove(self, key: bytes) -> None:
        KeyedMap.delete(self, key)


class RegisterRedirectHash(HeldRedirects, KeyedMap):
    """A DEVMAP_HASH: a HASH of redirect_words; errors are those of dev_map_hash_*."""

    def _put(self, key: bytes, word: bytes) -> None:
        self.store(key, [word])

    def delete(self, key: bytes) -> None:
        KeyedMap.delete(self, key)
        del self._held[key]
