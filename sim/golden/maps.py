"""The device's maps, as the driver's descriptors lay them out in map memory, with the kernel's semantics."""

from collections.abc import Callable
from dataclasses import dataclass
from errno import EAGAIN, EINVAL, ENOENT, ENOSPC

from bpfnic.sim.golden.array import Array
from bpfnic.sim.golden.hash import Hash
from bpfnic.sim.golden.lpm import Lpm
from bpfnic.sim.golden.lru import Lru
from bpfnic.sim.golden.queues import Queue
from bpfnic.sim.golden.ring import Ring, event_refused
from bpfnic.sim.golden.thread import Choice, SharedAccess, Suspending, TailCall, Thread, Trap
from bpfnic.sim.golden.walk import Walk
from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause
from bpfnic.spec.isa import Operation
from bpfnic.spec.maps import (
    EVENTS,
    LOCK_BYTES,
    MAP_BYTES,
    OF_MAPS,
    PROGRAM_BYTES,
    QUEUES,
    REDIRECT_BYTES,
    REDIRECT_MAPS,
    MapType,
    UpdateFlag,
    redirect_word,
)
from bpfnic.spec.registers import ENTRY_VALID
from bpfnic.spec.rings import LONGEST_COPY, PACKET_BYTES_SHIFT, RingFlag

COPY_BYTES = 8
"""Keys and values are read and written in steps of this many bytes, the lower addresses first; on map values each is
a shared access."""

_KEYED: dict[int, type[Hash]] = {
    MapType.HASH: Hash,
    MapType.PERCPU_HASH: Hash,
    MapType.LRU_HASH: Lru,
    MapType.LRU_PERCPU_HASH: Lru,
    MapType.LPM_TRIE: Lpm,
    MapType.HASH_OF_MAPS: Hash,
    MapType.DEVMAP_HASH: Hash,
}

_WALKED = (MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)


@dataclass(frozen=True)
class Descriptor:
    """One map (registers MAP_TYPE to MAP_CPU_STRIDE and MAP_KEY_SIZE). Offsets, sizes and strides are bytes. lock:
    register MAP_LOCK."""

    type: int = 0
    base: int = 0
    entries: int = 0
    stride: int = 0
    value_size: int = 0
    cpu_stride: int = 0
    key_size: int = addresses.INDEX_BYTES
    table: int = 0
    lock: int = 0


class Maps:
    """The maps of a device, as helpers see them: by handle, keys and values by address.

    `cpus`: maps with keys of their own, and those without, have so many places more than entries, one for each CPU that
    replaces a value in a full map, and one for the host."""

    def __init__(self, count: int, cpus: int, memory: bytearray):
        self.cpus = cpus
        self.memory = memory
        self.descriptors = [Descriptor()] * count
        self.entries: list[Array | Hash | None] = [None] * count
        self.queues: list[Queue | None] = [None] * count
        self.rings: list[Ring | None] = [None] * count
        self.walks: dict[Thread, dict[tuple[int, int], Walk]] = {}  # by frame and handle

    def describe(self, index: int, descriptor: Descriptor) -> None:
        """Replaces a map, by an empty one."""
        self.descriptors[index] = descriptor
        places = descriptor.entries + self.cpus + 1
        self.entries[index] = self._empty(index, descriptor, places)
        stack = descriptor.type == MapType.STACK
        self.queues[index] = Queue(descriptor.entries, places, stack) if descriptor.type in QUEUES else None
        ring = descriptor.type in EVENTS
        self.rings[index] = Ring(self.memory, index, descriptor.base, descriptor.table + 1) if ring else None

    def _empty(self, index: int, descriptor: Descriptor, places: int) -> Array | Hash | None:
        if descriptor.type in (MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.ARRAY_OF_MAPS):
            return Array(descriptor.entries)
        kind = _KEYED.get(descriptor.type)
        if kind is None:
            return None
        return kind(descriptor.key_size, descriptor.entries, places, lambda place: self._clear(index, place))

    def lookup(self, thread: Thread, cpu: int, handle: int, key: int) -> Suspending:
        """bpf_map_lookup_elem: the address of the value, the handle of an inner map, or 0. Raises Trap."""
        descriptor, entries, key_bytes = yield from self._arguments(thread, handle, key)
        place = entries.find(key_bytes)
        if place is None:
            return 0
        if isinstance(entries, Lru):
            entries.use(key_bytes)
        if descriptor.type in OF_MAPS:
            return (yield from thread.load(self._value(descriptor, cpu, place), MAP_BYTES))
        return self._value(descriptor, cpu, place)

    def update(self, thread: Thread, cpu: int, handle: int, key: int, value: int, flags: int) -> Suspending:
        """bpf_map_update_elem: 0 or a negative error number. Raises Trap."""
        descriptor, entries, key_bytes = yield from self._arguments(thread, handle, key, changes=True)
        locks = bool(descriptor.lock and flags & UpdateFlag.LOCK)
        if locks:
            flags &= ~UpdateFlag.LOCK
        if error := entries.refuses(key_bytes, flags):
            return -error
        if locks and (place := entries.find(key_bytes)) is not None:
            return (yield from self._update_locked(thread, descriptor, self._value(descriptor, cpu, place), value))
        if descriptor.cpu_stride:
            place = entries.claim(key_bytes)
            yield from _copy(thread, value, self._value(descriptor, cpu, place), descriptor.value_size)
            return 0
        place = entries.reserve(key_bytes, cpu)
        yield from _copy(thread, value, self._value(descriptor, cpu, place), descriptor.value_size, descriptor.lock)
        if isinstance(entries, Hash):
            yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        return -entries.insert(key_bytes, cpu, flags)

    def _update_locked(self, thread: Thread, descriptor: Descriptor, target: int, value: int) -> Suspending:
        """copy_map_value_locked: every try to get the lock counts as an instruction that begins."""
        lock = target + descriptor.lock - 1
        while True:
            thread.begin_again()
            if (yield from take_lock(thread, lock)):
                break
        yield from _copy(thread, value, target, descriptor.value_size, descriptor.lock)
        yield from thread.store(lock, LOCK_BYTES, 0)
        return 0

    def delete(self, thread: Thread, handle: int, key: int) -> Suspending:
        """bpf_map_delete_elem: 0 or a negative error number. Raises Trap."""
        _, entries, key_bytes = yield from self._arguments(thread, handle, key, changes=True)
        return -entries.delete(key_bytes)

    def walk(self, thread: Thread, cpu: int, chosen: Callable[[int], int], handle: int, where: int) -> Suspending:
        """spec.helpers.MAP_WALK. An answer that can't be right is not taken. Raises Trap."""
        index = self._index(handle)
        entries = self.entries[index] if index is not None else None
        size, known = addresses.handle_key_bytes(handle), index is not None and self.descriptors[index].type in _WALKED
        if index is None or not known or not isinstance(entries, Hash) or entries.key_size != size:
            raise Trap(Cause.MAP)
        yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        walks, at = self.walks.setdefault(thread, {}), (thread.depth, handle)
        if not where >> 32 or at not in walks:
            walks[at] = Walk(entries)
        walk, descriptor = walks[at], self.descriptors[index]
        answers = {self._value(descriptor, cpu, place): key for place, key in walk.step().items()}
        numbers, mine = dict(entries.since), 0
        if first := next(iter(walk.due), None):
            mine = len(walk.met) + 1 << 32 | self._value(descriptor, cpu, entries.places[first])
        yield Choice(handle)
        answer = chosen(mine)
        key, later = answers.get(answer & 0xFFFFFFFF), answer >> 32 > 0
        if key is None or not later:
            return answer if not answer & 0xFFFFFFFF and (later or not walk.due) else mine
        walk.meet(key, numbers[key])
        self._hand_out(key, where & 0xFFFFFFFF)
        return answer

    def _hand_out(self, key: bytes, address: int) -> None:
        """A key of a walk: 8 bytes at a time, or 4 where it has no more."""
        step = 4 if len(key) <= 4 else COPY_BYTES
        for done in range(0, len(key), step):
            start = (address + done - addresses.MAP_VALUES) % len(self.memory) // step * step
            self.memory[start : start + step] = key[done : done + step].ljust(step, b"\0")

    def push(self, thread: Thread, cpu: int, handle: int, value: int, flags: int) -> Suspending:
        """bpf_map_push_elem: 0 or a negative error number. Raises Trap."""
        descriptor, queue = self._queue(handle)
        yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        queue.release(cpu)
        if error := queue.refuses(flags):
            return -error
        place = queue.reserve(cpu)
        yield from _copy(thread, value, self._value(descriptor, 0, place), descriptor.value_size)
        yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        return -queue.insert(cpu, flags)

    def take(self, remove: bool, thread: Thread, cpu: int, handle: int, target: int) -> Suspending:
        """bpf_map_pop_elem and bpf_map_peek_elem: 0, or -ENOENT with zeros for a value, which lie behind the last
        place. Raises Trap."""
        descriptor, queue = self._queue(handle)
        yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        queue.release(cpu)
        place = queue.pop(cpu) if remove else queue.peek(cpu)
        if place is None:
            place = descriptor.entries + self.cpus + 1
        source = self._value(descriptor, 0, place)
        for done in range(0, descriptor.value_size, COPY_BYTES):
            chunk = yield from read_argument(thread, source + done, min(COPY_BYTES, descriptor.value_size - done))
            yield from _write(thread, target + done, chunk)
        yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        return 0 if queue.release(cpu) else -ENOENT

    def ring_reserve(self, thread: Thread, cpu: int, handle: int, size: int, flags: int) -> Suspending:
        """bpf_ringbuf_reserve: the address of a record, or 0. Raises Trap."""
        _, ring = self._ring(handle, MapType.RINGBUF)
        yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        offset = None if flags else ring.reserve(thread, cpu, size)
        return 0 if offset is None else addresses.MAP_VALUES + offset

    def ring_commit(self, discard: bool, thread: Thread, record: int) -> Suspending:
        """bpf_ringbuf_submit and bpf_ringbuf_discard: 0. Raises Trap MAP for what is no reserved record of this run."""
        yield SharedAccess(Operation.CALL_HELPER, record, 0)
        offset = record - addresses.MAP_VALUES
        if not any(ring and ring.commit(thread, offset, discard) for ring in self.rings):
            raise Trap(Cause.MAP)
        return 0

    def ring_output(self, thread: Thread, cpu: int, handle: int, source: int, size: int, flags: int) -> Suspending:
        """bpf_ringbuf_output: 0 or a negative error number. Raises Trap."""
        _, ring = self._ring(handle, MapType.RINGBUF)
        yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        if flags & ~sum(RingFlag):
            return -EINVAL
        offset = ring.reserve(thread, cpu, size) if size <= LONGEST_COPY else None
        if offset is None:
            return -EAGAIN
        yield from self._fill(thread, handle, ring, offset, (source, size))
        return 0

    def ring_query(self, thread: Thread, handle: int, what: int) -> Suspending:
        """bpf_ringbuf_query: bytes, or a position. Raises Trap."""
        _, ring = self._ring(handle, MapType.RINGBUF)
        yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        return ring.query(what)

    def perf_event(
        self, thread: Thread, cpu: int, packet: tuple[int, int], handle: int, flags: int, source: int, size: int
    ) -> Suspending:
        """bpf_perf_event_output (bpf_xdp_event_output): 0 or a negative error number. Every CPU has its entry, where
        the map has one. `packet`: its address and length. Raises Trap."""
        descriptor, ring = self._ring(handle, MapType.PERF_EVENT_ARRAY)
        yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        if refused := event_refused(flags, cpu, self.cpus, descriptor.entries, packet[1]):
            return -refused
        of_packet = flags >> PACKET_BYTES_SHIFT
        offset = ring.reserve(thread, cpu, size + of_packet) if size <= LONGEST_COPY else None
        if offset is None:
            ring.lose()
            return -ENOSPC
        yield from self._fill(thread, handle, ring, offset, (source, size), (packet[0], of_packet))
        return 0

    def _fill(self, thread: Thread, handle: int, ring: Ring, offset: int, *parts: tuple[int, int]) -> Suspending:
        """Copies a record's parts (address and length), one behind the other, and it is whole. Raises Trap
        MEMORY_ACCESS."""
        done = 0
        for source, size in parts:
            yield from _copy(thread, source, addresses.MAP_VALUES + offset + done, size)
            done += size
        if done:  # otherwise the record is whole at once
            yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        ring.commit(thread, offset, False)

    def end(self, thread: Thread) -> None:
        """A program has ended."""
        self.walks.pop(thread, None)
        for ring in self.rings:
            if ring:
                ring.end(thread)

    def tail_call(self, thread: Thread, handle: int, index: int) -> Suspending:
        """bpf_tail_call: the program in a PROG_ARRAY at the index's low half. Raises Trap MAP for any other map."""
        number = self._array(handle)
        descriptor = self.descriptors[number] if number is not None else Descriptor()
        if descriptor.type != MapType.PROG_ARRAY:
            raise Trap(Cause.MAP)
        entry, place = 0, index & 0xFFFFFFFF
        if place < descriptor.entries:
            entry = yield from thread.load(self._value(descriptor, 0, place), PROGRAM_BYTES)
        return TailCall(entry & ~ENTRY_VALID if entry & ENTRY_VALID else None)

    def redirect(self, thread: Thread, handle: int, index: int) -> Suspending:
        """What bpf_redirect_map finds at the index's low half: an entry as spec.maps.redirect_word has it. Raises Trap
        MAP for any other map."""
        number = self._array(handle)
        descriptor = self.descriptors[number] if number is not None else Descriptor()
        if number is None or descriptor.type not in REDIRECT_MAPS:
            raise Trap(Cause.MAP)
        entries, key = self.entries[number], index & 0xFFFFFFFF
        if entries:
            yield SharedAccess(Operation.CALL_HELPER, handle, 0)
            place = entries.find(key.to_bytes(entries.key_size, "little"))
        else:
            place = key if key < descriptor.entries else None
        if place is None:
            return redirect_word(MapType(descriptor.type), None)
        return (yield from thread.load(self._value(descriptor, 0, place), REDIRECT_BYTES))

    def value_offset(self, index: int, place: int) -> int:
        """Where in map memory a place of map `index` has its value."""
        descriptor = self.descriptors[index]
        return descriptor.base + descriptor.stride * place

    def _clear(self, index: int, place: int) -> None:
        """Zeros for every CPU at a place that no key has, in steps of 8 bytes."""
        descriptor = self.descriptors[index]
        size = -(-descriptor.value_size // COPY_BYTES) * COPY_BYTES
        for cpu in range(self.cpus):
            start = self.value_offset(index, place) + descriptor.cpu_stride * cpu
            self.memory[start : start + size] = bytes(size)

    def _arguments(self, thread: Thread, handle: int, key: int, changes: bool = False) -> Suspending:
        """Descriptor, entries and key. Raises Trap MAP for what is no map (or none that programs change), whatever the
        key, then MEMORY_ACCESS for a key that can't be read. Where both are wrong, a key in map memory has been read
        all the same: the hardware finds the map with the key in its hand. What comes next on a map with keys of its own
        is one step, as an access is."""
        index, size = self._index(handle), addresses.handle_key_bytes(handle)
        entries = self.entries[index] if index is not None else None
        if index is not None and self.descriptors[index].type in REDIRECT_MAPS:
            entries = None
        if entries and entries.key_size != size:
            entries = None
        try:
            key_bytes = yield from read_argument(thread, key, size)
        except Trap:
            if entries:
                raise
        if index is None or entries is None or (changes and self.descriptors[index].type in OF_MAPS):
            raise Trap(Cause.MAP)
        if isinstance(entries, Hash):
            yield SharedAccess(Operation.CALL_HELPER, handle, 0)
        return self.descriptors[index], entries, key_bytes

    def _queue(self, handle: int) -> tuple[Descriptor, Queue]:
        """Raises Trap MAP for what is no QUEUE and no STACK."""
        index = self._index(handle)
        queue = self.queues[index] if index is not None else None
        if index is None or queue is None:
            raise Trap(Cause.MAP)
        return self.descriptors[index], queue

    def _ring(self, handle: int, map_type: MapType) -> tuple[Descriptor, Ring]:
        """Raises Trap MAP for what is no ring of that type."""
        index = self._index(handle)
        ring = self.rings[index] if index is not None else None
        if index is None or ring is None or self.descriptors[index].type != map_type:
            raise Trap(Cause.MAP)
        if self.descriptors[index].key_size not in (0, addresses.handle_key_bytes(handle)):
            raise Trap(Cause.MAP)
        return self.descriptors[index], ring

    def _array(self, handle: int) -> int | None:
        """Which descriptor a handle names whose keys are indices."""
        return self._index(handle) if addresses.handle_key_bytes(handle) == addresses.INDEX_BYTES else None

    def _index(self, handle: int) -> int | None:
        """Which descriptor a handle names."""
        key_bits = addresses.map_handle(0, addresses.handle_key_bytes(handle)) - addresses.MAP_HANDLES
        index, rest = divmod(handle - key_bits - addresses.MAP_HANDLES, 16)
        return index if not rest and 0 <= index < len(self.descriptors) else None

    def _value(self, descriptor: Descriptor, cpu: int, place: int) -> int:
        offset = descriptor.base + descriptor.stride * place + descriptor.cpu_stride * cpu
        return addresses.MAP_VALUES + offset


def read_argument(thread: Thread, pointer: int, size: int) -> Suspending:
    """The bytes that a helper's argument points at: any alignment, in every window. Raises Trap MEMORY_ACCESS."""
    found = bytearray()
    while len(found) < size:
        step = min(COPY_BYTES, size - len(found))
        address = thread.effective_address(pointer, len(found))
        if thread.memory.shared_parts(address, step):
            value = yield from thread.load(address, step)
        else:
            value = thread.memory.load(address, step, aligned=False)
        found += value.to_bytes(step, "little")
    return bytes(found)


def _copy(thread: Thread, source: int, target: int, size: int, lock: int = 0) -> Suspending:
    """From a helper's argument to a value, each step read and then written, but for the value's lock (a
    Descriptor's `lock`): of its step the other half is written. Raises Trap MEMORY_ACCESS."""
    for done in range(0, size, COPY_BYTES):
        step, skip = min(COPY_BYTES, size - done), 0
        if lock == done + LOCK_BYTES + 1:
            step = LOCK_BYTES
        elif lock == done + 1:
            skip = LOCK_BYTES
        chunk = yield from read_argument(thread, source + done, step)
        chunk = chunk[skip:]
        yield from thread.store(target + done + skip, len(chunk), int.from_bytes(chunk, "little"))


def take_lock(thread: Thread, address: int) -> Suspending:
    """Tries to get a lock in map memory, which lies in one row. Whether it did."""
    yield SharedAccess(Operation.ATOMIC_XCHG, address, LOCK_BYTES)
    held = thread.memory.load(address, LOCK_BYTES)
    thread.memory.store(address, LOCK_BYTES, 1)
    return not held


def _write(thread: Thread, pointer: int, data: bytes) -> Suspending:
    """Bytes to where a helper's argument points: any alignment, in every window. Raises Trap MEMORY_ACCESS."""
    for done in range(0, len(data), COPY_BYTES):
        chunk = data[done : done + COPY_BYTES]
        address = thread.effective_address(pointer, done)
        value = int.from_bytes(chunk, "little")
        if thread.memory.shared_parts(address, len(chunk)):
            yield from thread.store(address, len(chunk), value)
        else:
            thread.memory.store(address, len(chunk), value, aligned=False)
