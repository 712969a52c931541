"""RINGBUF and PERF_EVENT_ARRAY: records that programs send to the host, in the order in which they come.

What a program sends is a record's bytes alone. As in Linux a PERF_EVENT_ARRAY pads them: with the 4 bytes of their
length before them (which are not shown) they take a multiple of 8. Here the padding is zeros.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from errno import EOPNOTSUPP
from typing import Any

from bpfnic.host.device import DeviceMap, error
from bpfnic.host.maps import MapDefinition
from bpfnic.spec import rings
from bpfnic.spec.addresses import INDEX_BYTES
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import MapType
from bpfnic.spec.rings import PAGE_BYTES

_FD_BYTES = 4  # of a PERF_EVENT_ARRAY's value, a file descriptor in Linux


class Record(bytes):
    """A record's bytes. `cpu`: which CPU sent it."""

    cpu: int

    def __new__(cls, data: bytes, cpu: int) -> "Record":
        record = super().__new__(cls, data)
        record.cpu = cpu
        return record


class EventMap(DeviceMap):
    """`records` that came and that nobody has taken yet, the oldest first. It has no entries that the host could look
    at or change (in Linux a PERF_EVENT_ARRAY has: files, which a device sees to by itself)."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.records: deque[Record] = deque()

    @property
    @abstractmethod
    def lost(self) -> int:
        """Records of a PERF_EVENT_ARRAY that found no room. (A RINGBUF's program is told, and nobody counts.)"""

    def lookup(self, key: bytes) -> list[bytes]:
        raise error(EOPNOTSUPP)

    def update(self, key: bytes, values: Sequence[bytes], flags: int = 0) -> None:
        raise error(EOPNOTSUPP)

    def delete(self, key: bytes) -> None:
        raise error(EOPNOTSUPP)

    def next_key(self, key: bytes | None) -> bytes:
        raise error(EOPNOTSUPP)

    def pop(self, key: bytes) -> list[bytes]:
        raise error(EOPNOTSUPP)

    def dump(self) -> dict[bytes, list[bytes]]:
        """The records that nobody has taken, by their numbers."""
        return {number.to_bytes(INDEX_BYTES, "little"): [record] for number, record in enumerate(self.records)}


def sized(definition: MapDefinition, cpus: int) -> MapDefinition:
    """As it is, or for a PERF_EVENT_ARRAY that doesn't say how many entries it has with one for each CPU (libbpf)."""
    if definition.type is MapType.PERF_EVENT_ARRAY and not definition.max_entries:
        return replace(definition, max_entries=cpus)
    return definition


def ring_bytes(definition: MapDefinition, map_bytes: int) -> int:
    """Bytes of a map's ring on a NIC with so much map memory."""
    return definition.max_entries if definition.type is MapType.RINGBUF else rings.perf_ring_bytes(map_bytes)


def check(definition: MapDefinition) -> None:
    """Raises BpfnicError for sizes that such a map can't have."""
    name, entries = f"map {definition.name} ({definition.type.name})", definition.max_entries
    sizes = (0, 0) if definition.type is MapType.RINGBUF else (INDEX_BYTES, _FD_BYTES)
    for part, size, wanted in zip(("key", "value"), (definition.key_size, definition.value_size), sizes, strict=True):
        if size != wanted:
            raise BpfnicError(f"{name}: a {part} has {wanted} bytes, not {size}")
    if definition.type is MapType.RINGBUF and (not entries or entries % PAGE_BYTES or entries & (entries - 1)):
        raise BpfnicError(f"{name}: max_entries is its size, {PAGE_BYTES} bytes times a power of two, not {entries}")
