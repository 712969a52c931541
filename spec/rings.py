"""Rings of records: RINGBUF and PERF_EVENT_ARRAY in map memory, and what leaves of them on the host's stream.

    base + 0             consumer position, 64 bits: bytes that have left since the map was made, headers included
    base + 8             producer position, 64 bits: bytes that have been reserved
    base + 16            records that were lost for want of room, 64 bits (PERF_EVENT_ARRAY)
    base + STATE_BYTES   records, twice the ring's bytes: one that begins in the first half may end in the second, so
                         that it is contiguous for its program

A record at position p begins at p modulo the ring's bytes, with a header of 8 bytes: its length in 32 bits, of which
the upper two are BUSY and DISCARDED as in Linux (kernel/bpf/ringbuf.c); the map's index and the CPU, 8 bits each; and
in a busy one 16 bits that say which run of that CPU it belongs to. Its bytes follow, padded to a multiple of 8.

A PERF_EVENT_ARRAY has one ring for all CPUs, of a size that the driver chooses.

A frame on the host's stream with the user bit EVENT_USER_BIT is a record, header and bytes; its length has neither of
the two bits, its other user bits are 0.
"""

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

from bpfnic.spec.maps import HOST_QUEUES, QUEUE_USER_BIT

PAGE_BYTES = 4096
"""What a RINGBUF's size is a power of two of."""

HEADER_BYTES = 8
BUSY = 1 << 31
DISCARDED = 1 << 30
STATE_BYTES = 32
LONGEST_COPY = 4096
"""Bytes that bpf_ringbuf_output and bpf_perf_event_output copy at most, besides the packet's: as long as a value."""

EVENT_USER_BIT = QUEUE_USER_BIT + (HOST_QUEUES - 1).bit_length()


class RingState(IntEnum):
    """Where in the state each number lies."""

    CONSUMER = 0
    PRODUCER = 8
    LOST = 16


class RingFlag(IntFlag):
    """`flags` of bpf_ringbuf_output, and of submit and discard, which look at no other. When to wake who reads: here
    records leave as soon as they can, whatever these say."""

    NO_WAKEUP = 1 << 0
    FORCE_WAKEUP = 1 << 1


class RingQuery(IntEnum):
    """`flags` of bpf_ringbuf_query."""

    AVAIL_DATA = 0
    RING_SIZE = 1
    CONS_POS = 2
    PROD_POS = 3


# `flags` of bpf_perf_event_output: the entry, CURRENT_CPU for the CPU's own, and how many bytes of the packet come
# behind the record's.
INDEX_MASK = 0xFFFF_FFFF
CURRENT_CPU = INDEX_MASK
PACKET_BYTES_SHIFT = 32
PACKET_BYTES_BITS = 20  # BPF_F_CTXLEN_MASK


def record_bytes(length: int) -> int:
    """Bytes that a record takes in its ring."""
    return -(-(length + HEADER_BYTES) // 8) * 8


def memory_bytes(ring: int) -> int:
    """Bytes of map memory of a ring of `ring` bytes."""
    return STATE_BYTES + 2 * ring


def perf_ring_bytes(map_bytes: int) -> int:
    """Bytes of a PERF_EVENT_ARRAY's ring on a NIC with so much map memory: a sixteenth of it, 64 KiB at most."""
    return min(1 << 16, 1 << (map_bytes // 16).bit_length() - 1)


class Header(NamedTuple):
    """A record's header."""

    length: int
    map: int
    cpu: int
    run: int = 0

    def pack(self) -> bytes:
        return _HEADER.pack(*self)


_HEADER = struct.Struct("<IBBH")


def unpack_header(data: bytes | bytearray) -> Header:
    """The header that stands at the beginning."""
    return Header(*_HEADER.unpack_from(data))
