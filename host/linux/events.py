"""RINGBUF and PERF_EVENT_ARRAY of the kernel: their rings, mapped and emptied as a NIC empties its own.

Layouts are those of kernel/bpf/ringbuf.c (the consumer's page, the producer's page, the data twice) and of struct
perf_event_mmap_page (include/uapi/linux/perf_event.h).
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING

from bpfnic.host.eventmaps import EventMap, Record
from bpfnic.host.linux import bpf
from bpfnic.host.linux.maps import LinuxMap
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.rings import BUSY, DISCARDED, HEADER_BYTES, record_bytes

if TYPE_CHECKING:
    from bpfnic.host.object import MapDefinition

_PERF_PAGES = 16  # of an entry's ring, a power of two
_HEAD = 1024  # in its first page: bytes that were written
_RECORD = struct.Struct("=IHH")  # struct perf_event_header: type, misc, size
_SAMPLE = 9  # PERF_RECORD_SAMPLE


class LinuxEventMap(EventMap, LinuxMap):
    """Records are taken out of the kernel's ring by `drain`, which the device calls behind each packet."""

    def __init__(self, definition: MapDefinition, fd: int, cpu: int):
        super().__init__(definition, fd, cpu)
        self.cpu = cpu

    def drain(self) -> None:
        """Take all records that are whole."""


class LinuxRingBuffer(LinuxEventMap):
    """A RINGBUF of the kernel."""

    def __init__(self, definition: MapDefinition, fd: int, cpu: int):
        super().__init__(definition, fd, cpu)
        size, page = definition.max_entries, mmap.PAGESIZE
        self._consumer = mmap.mmap(fd, page)
        self._producer = mmap.mmap(fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)

    @property
    def lost(self) -> int:
        return 0

    def drain(self) -> None:
        (consumer,), (producer,) = (struct.unpack_from("=Q", each) for each in (self._consumer, self._producer))
        while consumer < producer:
            at = mmap.PAGESIZE + consumer % self.definition.max_entries
            (header,) = struct.unpack_from("=I", self._producer, at)
            if header & BUSY:
                break
            length = header & ~DISCARDED
            if not header & DISCARDED:
                at += HEADER_BYTES
                self.records.append(Record(self._producer[at : at + length], self.cpu))
            consumer += record_bytes(length)
        struct.pack_into("=Q", self._consumer, 0, consumer)

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()
        super().close()


class LinuxPerfEvents(LinuxEventMap):
    """A PERF_EVENT_ARRAY of the kernel, with the device's CPU in its entry, where the map has one for it. Each time
    that records came, an empty ring takes the place of theirs: what the kernel leaves unwritten in a ring that is used
    again, the padding of records, is what was there before, and nobody else may write there."""

    def __init__(self, definition: MapDefinition, fd: int, cpu: int):
        super().__init__(definition, fd, cpu)
        self._event: int | None = None
        self._lost = 0
        if cpu < definition.max_entries:
            try:
                self._open()
            except OSError as error:
                self.close()
                name = f"map {definition.name} ({definition.type.name})"
                raise BpfnicError(f"{name}: perf_event_open: {error.strerror}") from None

    def _open(self) -> None:
        self._event = bpf.perf_event_open(self.cpu)
        self._ring = mmap.mmap(self._event, (1 + _PERF_PAGES) * mmap.PAGESIZE)
        bpf.map_update(self.fd, self.cpu.to_bytes(4, "little"), self._event.to_bytes(4, "little"))

    @property
    def lost(self) -> int:
        if self._event is None:
            return self._lost
        _value, lost = struct.unpack("=QQ", os.read(self._event, 16))  # PERF_FORMAT_LOST
        return self._lost + int(lost)

    def drain(self) -> None:
        if self._event is None:
            return
        (head,) = struct.unpack_from("=Q", self._ring, _HEAD)
        at, end = mmap.PAGESIZE, mmap.PAGESIZE + head
        while at < end:
            kind, _misc, size = _RECORD.unpack_from(self._ring, at)
            if kind == _SAMPLE:
                (length,) = struct.unpack_from("=I", self._ring, at + _RECORD.size)
                data = at + _RECORD.size + 4
                self.records.append(Record(self._ring[data : data + length], self.cpu))
            at += size
        if head:
            self._lost = self.lost
            self._close()
            self._open()

    def _close(self) -> None:
        if self._event is not None:
            os.close(self._event)
        self._event = None

    def close(self) -> None:
        self._close()
        super().close()
