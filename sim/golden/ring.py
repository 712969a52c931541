"""A ring of records (kernel/bpf/ringbuf.c; a PERF_EVENT_ARRAY's is the same one here), laid out as spec/rings.py says.

Records leave in the order in which they were reserved, and each frees its bytes as it leaves. One that its program left
behind, when it ended with the record reserved, is passed over. (Linux also keeps the newest record within a ring's
length of the oldest one that is reserved; a consumer that never overtakes that one sees to it by itself.)
"""

from dataclasses import dataclass
from errno import E2BIG, EFAULT, EINVAL, ENOENT, EOPNOTSUPP

from bpfnic.sim.golden.thread import Thread
from bpfnic.spec.rings import (
    BUSY,
    CURRENT_CPU,
    DISCARDED,
    HEADER_BYTES,
    INDEX_MASK,
    PACKET_BYTES_BITS,
    PACKET_BYTES_SHIFT,
    STATE_BYTES,
    Header,
    RingQuery,
    RingState,
    memory_bytes,
    record_bytes,
    unpack_header,
)


@dataclass
class Open:
    """A record that is reserved: whose it is, None for nobody's any more."""

    owner: Thread | None


class Ring:
    """`size` bytes of records, in `memory` from byte `base` on."""

    def __init__(self, memory: bytearray, index: int, base: int, size: int):
        self.memory = memory
        self.index = index
        self.base = base
        self.size = size
        self.consumer = self.producer = self.lost = 0
        self.open: dict[int, Open] = {}  # by the header's byte offset in memory

    def reserve(self, owner: Thread, cpu: int, length: int) -> int | None:
        """Byte offset in memory of a new record's bytes, None where there is no room for it."""
        taken = record_bytes(length)
        if self.base + memory_bytes(self.size) > len(self.memory) or self.producer + taken - self.consumer >= self.size:
            return None
        header = self._at(self.producer)
        self.memory[header : header + HEADER_BYTES] = Header(length | BUSY, self.index, cpu).pack()
        self.open[header] = Open(owner)
        self.producer += taken
        self._save()
        return header + HEADER_BYTES

    def commit(self, owner: Thread, offset: int, discard: bool) -> bool:
        """The record whose bytes are at `offset` is whole, or isn't wanted. False: no such record of this owner."""
        header = offset - HEADER_BYTES
        if header not in self.open or self.open[header].owner is not owner:
            return False
        del self.open[header]
        held = unpack_header(self.memory[header : header + HEADER_BYTES])
        length = held.length & ~BUSY | (DISCARDED if discard else 0)
        self.memory[header : header + HEADER_BYTES] = held._replace(length=length).pack()
        return True

    def lose(self) -> None:
        """A record found no room."""
        self.lost += 1
        self._save()

    def end(self, owner: Thread) -> None:
        """A program has ended: what it has reserved is nobody's."""
        for record in self.open.values():
            if record.owner is owner:
                record.owner = None

    def ready(self) -> bool:
        """Whether `take` may be called: the oldest record is whole, or is to be passed over."""
        if self.consumer == self.producer:
            return False
        record = self.open.get(self._at(self.consumer))
        return record is None or record.owner is None

    def take(self) -> bytes | None:
        """The oldest record leaves, as a frame; None where it is passed over. (Where one is longer than all that is
        there, a program has written to its header: then all is passed over.)"""
        at = self._at(self.consumer)
        start = at + HEADER_BYTES
        header = unpack_header(self.memory[at:start])
        length = header.length & ~(BUSY | DISCARDED)
        there = self.producer - self.consumer
        self.consumer += min(there, record_bytes(length))
        self._save()
        if self.open.pop(at, None) or header.length & DISCARDED or record_bytes(length) > there:
            return None
        return header._replace(map=self.index).pack() + self.memory[start : start + length]

    def query(self, what: int) -> int:
        """What bpf_ringbuf_query returns."""
        match what:
            case RingQuery.AVAIL_DATA:
                return self.producer - self.consumer
            case RingQuery.RING_SIZE:
                return self.size
            case RingQuery.CONS_POS:
                return self.consumer
            case RingQuery.PROD_POS:
                return self.producer
        return 0

    def _at(self, position: int) -> int:
        return self.base + STATE_BYTES + position % self.size

    def _save(self) -> None:
        for place, number in {
            RingState.CONSUMER: self.consumer, RingState.PRODUCER: self.producer, RingState.LOST: self.lost,
        }.items():  # fmt: skip
            self.memory[self.base + place : self.base + place + 8] = number.to_bytes(8, "little")


def event_refused(flags: int, cpu: int, cpus: int, entries: int, packet: int) -> int:
    """Why bpf_perf_event_output is an error before it asks for room, a positive number, 0 if it isn't
    (bpf_xdp_event_output, __bpf_perf_event_output). `packet`: its bytes."""
    index, of_packet = flags & INDEX_MASK, flags >> PACKET_BYTES_SHIFT
    if of_packet >= 1 << PACKET_BYTES_BITS:
        return EINVAL
    if of_packet > packet:
        return EFAULT
    if index == CURRENT_CPU:
        index = cpu
    if index >= entries:
        return E2BIG
    if index >= cpus:
        return ENOENT
    return EOPNOTSUPP if index != cpu else 0
