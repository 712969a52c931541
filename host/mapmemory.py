"""Map memory behind the control registers, and the arrays in it.

An entry's stride is its value's size where that is 1, 2 or 4 bytes (values are packed: 65,536 verdicts of one byte take
64 KiB), otherwise rounded up to a multiple of 8. A map's base is a multiple of 16, and so is the distance between the
copies of two CPUs. The host writes words of 4 bytes: a value that shares its word with others is read and written back
with them, so what a program stores into the same word between the two is lost; set packed values before traffic flows.
"""

from collections.abc import Sequence
from errno import E2BIG, EEXIST, EINVAL, ENOENT
from os import strerror
from typing import TYPE_CHECKING

from bpfnic.host.device import DeviceMap, Transport
from bpfnic.spec.maps import MapType, UpdateFlag
from bpfnic.spec.registers import BY_NAME

if TYPE_CHECKING:
    from bpfnic.host.object import MapDefinition

ALIGN = 16
KEY_BYTES = 4  # of every array: a 32-bit index

_ADDRESS = BY_NAME["MAP_ADDRESS"].offset
_DATA = BY_NAME["MAP_DATA"].offset


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
        words = [self._transport.read(_DATA) for _ in range(start, end, 4)]
        data = b"".join(word.to_bytes(4, "little") for word in words)
        return data[address - start : address - start + size]

    def write(self, address: int, data: bytes) -> None:
        """Write `data` at `address`; words that it fills in part are read before."""
        start, end = address & ~3, -(-(address + len(data)) // 4) * 4
        before = self.read(start, address - start)
        behind = self.read(address + len(data), end - address - len(data))
        data = before + data + behind
        self._transport.write(_ADDRESS, start)
        for i in range(0, len(data), 4):
            self._transport.write(_DATA, int.from_bytes(data[i : i + 4], "little"))


def stride(value_size: int) -> int:
    """Bytes from one entry of an array to the next."""
    return value_size if value_size in (1, 2, 4) else -(-value_size // 8) * 8


def copy_bytes(definition: "MapDefinition") -> int:
    """Bytes of one CPU's copy of an array, padding included."""
    return -(-definition.max_entries * stride(definition.value_size) // ALIGN) * ALIGN


class RegisterArray(DeviceMap):
    """An ARRAY or PERCPU_ARRAY in map memory; errors are those of the kernel's array_map_* functions."""

    def __init__(self, definition: "MapDefinition", memory: MapMemory, index: int | None, base: int, copies: int):
        self.definition = definition
        self.copies = copies
        self.index = index  # of its descriptor, if it needs one
        self.base = base
        self._memory = memory
        self._stride = stride(definition.value_size)
        self._copy_bytes = copy_bytes(definition)

    @property
    def size(self) -> int:
        """Bytes of map memory that it takes."""
        return self.copies * self._copy_bytes

    def _index(self, key: bytes) -> int:
        if len(key) != KEY_BYTES:
            raise OSError(EINVAL, f"{self.definition.name}: a key has {KEY_BYTES} bytes, not {len(key)}")
        return int.from_bytes(key, "little")

    def _address(self, index: int, copy: int) -> int:
        return self.base + copy * self._copy_bytes + index * self._stride

    def lookup(self, key: bytes) -> list[bytes]:
        index = self._index(key)
        if index >= self.definition.max_entries:
            raise _error(ENOENT)
        return [
            self._memory.read(self._address(index, copy), self.definition.value_size) for copy in range(self.copies)
        ]

    def update(self, key: bytes, values: Sequence[bytes], flags: int = UpdateFlag.ANY) -> None:
        index, size = self._index(key), self.definition.value_size
        if len(values) != self.copies or any(len(value) != size for value in values):
            raise OSError(EINVAL, f"{self.definition.name}: takes {self.copies} values of {size} bytes")
        if flags > UpdateFlag.EXIST:
            raise _error(EINVAL)
        if index >= self.definition.max_entries:
            raise _error(E2BIG)
        if flags == UpdateFlag.NOEXIST:
            raise _error(EEXIST)
        for copy, value in enumerate(values):
            self._memory.write(self._address(index, copy), value)

    def delete(self, key: bytes) -> None:
        raise _error(EINVAL)

    def next_key(self, key: bytes | None) -> bytes:
        index = -1 if key is None else self._index(key)
        following = 0 if index >= self.definition.max_entries else index + 1
        if following == self.definition.max_entries:
            raise _error(ENOENT)
        return following.to_bytes(KEY_BYTES, "little")

    def dump(self) -> dict[bytes, list[bytes]]:
        size, entries = self.definition.value_size, range(self.definition.max_entries)
        copies = [self._memory.read(self._address(0, copy), self._copy_bytes) for copy in range(self.copies)]
        return {
            i.to_bytes(KEY_BYTES, "little"): [copy[i * self._stride : i * self._stride + size] for copy in copies]
            for i in entries
        }

    def clear(self) -> None:
        """All zeros, padding included."""
        self._memory.write(self.base, bytes(self.size))


ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})


def _error(number: int) -> OSError:
    return OSError(number, strerror(number))
