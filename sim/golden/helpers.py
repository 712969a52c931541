"""The helpers, as Linux 6.18 has them (kernel/bpf/helpers.c, net/core/filter.c)."""

from collections.abc import Callable, Sequence
from errno import EACCES, EINVAL, ENETDOWN, ENOMEM
from typing import NamedTuple, Protocol

from bpfnic.sim.golden import received
from bpfnic.sim.golden.maps import Maps, read_argument, take_lock
from bpfnic.sim.golden.memory import Buffer, Memory
from bpfnic.sim.golden.thread import Helper, Suspending, Thread, Trap
from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause
from bpfnic.spec.helpers import BY_NAME, MAP_WALK
from bpfnic.spec.maps import (
    HOST_QUEUES,
    LOCK_BYTES,
    REDIRECT_ACTION,
    REDIRECT_QUEUE,
    REDIRECT_SHIFT,
    REDIRECT_TAKEN,
    RedirectFlag,
)
from bpfnic.spec.metadata import RSS_KEY, Metadata
from bpfnic.spec.programs import BPF_F_INGRESS, MAX_HOPS, ProgramType, XdpAction


class Samples(Protocol):
    """Where what no program can compute comes from: a recording, or a generator."""

    def clock(self) -> int:
        """Nanoseconds, 64 bits."""

    def random(self) -> int:
        """32 random bits."""

    def arrival(self) -> int:
        """When the packet came: nanoseconds of the same clock."""

    def chosen(self, mine: int) -> int:
        """What was answered where several answers are right, of which `mine` is one."""

    def room(self) -> bool:
        """Whether a buffer is free for a clone."""


class Target(NamedTuple):
    """An interface, and of the host which of its queues. inward: the packet comes in there."""

    interface: int
    queue: int | None = None
    inward: bool = False


class Clone(NamedTuple):
    """A copy of a packet in its buffer, which came in by interface `iif`. It leaves by port `device`, or comes in
    there. hops: how often tc programs sent it on."""

    buffer: Buffer
    iif: int
    device: int
    leaving: bool
    hops: int


class Helpers:
    """The helpers for one running program, by number in `table`; only the `offered` ones. A helper gives way before
    each shared access and returns r0; negative results are error numbers.

    `program_type`: of the program. `ports`: the ifindex of each port, 0 for none; `iif`: where the packet came in,
    `hops`: how often tc programs sent it on. After the program's exit, `target`
    is where it last redirected its packet to, or None where no such interface is. `clones`: of its packet, until
    somebody takes them; `memory`: what the program reaches; `refused`: the lengths of those that had
    no buffer.
    """

    def __init__(self, cpu: int, buffer: Buffer, maps: Maps, offered: frozenset[int], samples: Samples,
                 ports: Sequence[int] = (), rss_key: bytes = RSS_KEY, program_type: ProgramType = ProgramType.XDP,
                 iif: int = 0, hops: int = 0):  # fmt: skip
        self.program_type = program_type
        self.memory: Memory
        self.iif, self.hops = iif, hops
        self.clones: list[Clone] = []
        self.refused: list[int] = []
        self.cpu = cpu
        self.buffer = buffer
        self.maps = maps
        self.samples = samples
        self.ports = ports
        self.target: Target | None = None
        bodies: dict[str, Helper] = {
            "map_lookup_elem": self.map_lookup_elem,
            "map_update_elem": self.map_update_elem,
            "map_delete_elem": self.map_delete_elem,
            "map_push_elem": self.map_push_elem,
            "map_pop_elem": self.map_pop_elem,
            "map_peek_elem": self.map_peek_elem,
            "perf_event_output": self.perf_event_output,
            "ringbuf_output": self.ringbuf_output,
            "ringbuf_reserve": self.ringbuf_reserve,
            "ringbuf_submit": self.ringbuf_submit,
            "ringbuf_discard": self.ringbuf_discard,
            "ringbuf_query": self.ringbuf_query,
            "spin_lock": self.spin_lock,
            "spin_unlock": self.spin_unlock,
            "tail_call": self.tail_call,
            "ktime_get_ns": _at_once(lambda: self.samples.clock()),
            "ktime_get_boot_ns": _at_once(lambda: self.samples.clock()),  # a NIC neither sleeps nor counts ticks
            "ktime_get_coarse_ns": _at_once(lambda: self.samples.clock()),
            "get_prandom_u32": _at_once(lambda: self.samples.random()),
            "get_smp_processor_id": _at_once(lambda: self.cpu),
            "csum_diff": self.csum_diff,
            "redirect": _at_once(self.redirect, 2),
            "clone_redirect": _at_once(self.clone_redirect, 3),
            "redirect_map": self.redirect_map,
            "xdp_adjust_head": _at_once(self.xdp_adjust_head, 2),
            "xdp_adjust_tail": _at_once(self.xdp_adjust_tail, 2),
            "xdp_adjust_meta": _at_once(self.xdp_adjust_meta, 2),
        }
        numbered: dict[int, Helper] = {BY_NAME[name].number: body for name, body in bodies.items()} | {
            MAP_WALK.number: self.map_walk,
            Metadata.RX_TIMESTAMP: _at_once(lambda: self.samples.arrival()),
            Metadata.RX_HASH: _at_once(lambda: received.rss_hash(buffer.arrived, rss_key)),
            Metadata.RX_VLAN_TAG: _at_once(lambda: received.vlan_tag(buffer.arrived)),
        }
        self.table = {number: body for number, body in numbered.items() if number in offered}

    def map_lookup_elem(self, thread: Thread) -> Suspending:
        return self.maps.lookup(thread, self.cpu, *thread.registers[1:3])

    def map_update_elem(self, thread: Thread) -> Suspending:
        return self.maps.update(thread, self.cpu, *thread.registers[1:5])

    def map_delete_elem(self, thread: Thread) -> Suspending:
        return self.maps.delete(thread, *thread.registers[1:3])

    def map_walk(self, thread: Thread) -> Suspending:
        return self.maps.walk(thread, self.cpu, self.samples.chosen, *thread.registers[1:3])

    def map_push_elem(self, thread: Thread) -> Suspending:
        return self.maps.push(thread, self.cpu, *thread.registers[1:4])

    def map_pop_elem(self, thread: Thread) -> Suspending:
        return self.maps.take(True, thread, self.cpu, *thread.registers[1:3])

    def map_peek_elem(self, thread: Thread) -> Suspending:
        return self.maps.take(False, thread, self.cpu, *thread.registers[1:3])

    def perf_event_output(self, thread: Thread) -> Suspending:
        packet = addresses.PACKET + self.buffer.data, self.buffer.data_end - self.buffer.data
        return self.maps.perf_event(thread, self.cpu, packet, *thread.registers[2:6])

    def ringbuf_output(self, thread: Thread) -> Suspending:
        return self.maps.ring_output(thread, self.cpu, *thread.registers[1:5])

    def ringbuf_reserve(self, thread: Thread) -> Suspending:
        return self.maps.ring_reserve(thread, self.cpu, *thread.registers[1:4])

    def ringbuf_submit(self, thread: Thread) -> Suspending:
        return self.maps.ring_commit(False, thread, thread.registers[1])

    def ringbuf_discard(self, thread: Thread) -> Suspending:
        return self.maps.ring_commit(True, thread, thread.registers[1])

    def ringbuf_query(self, thread: Thread) -> Suspending:
        return self.maps.ring_query(thread, *thread.registers[1:3])

    def spin_lock(self, thread: Thread) -> Suspending:
        """bpf_spin_lock: 32 bits of a map's value, which become 1 where they were 0. A lock that isn't free is tried
        again, as often as the budget allows. Raises Trap."""
        address = self._lock(thread)
        while not (yield from take_lock(thread, address)):
            thread.begin_again()
        return 0

    def spin_unlock(self, thread: Thread) -> Suspending:
        """bpf_spin_unlock. Raises Trap."""
        yield from thread.store(self._lock(thread), LOCK_BYTES, 0)
        return 0

    def _lock(self, thread: Thread) -> int:
        """The address of a lock. Raises Trap: it doesn't lie in map memory, or isn't aligned."""
        address = thread.effective_address(thread.registers[1], 0)
        if not thread.memory.shared_parts(address, LOCK_BYTES):
            raise Trap(Cause.MEMORY_ACCESS)
        thread.memory.check_aligned(address, LOCK_BYTES, write=True)
        return address

    def tail_call(self, thread: Thread) -> Suspending:
        return self.maps.tail_call(thread, *thread.registers[2:4])

    def csum_diff(self, thread: Thread) -> Suspending:
        """bpf_csum_diff: from what a checksum says that covered `gone`, what it says with `come` instead."""
        gone_at, gone_size, come_at, come_size, seed = thread.registers[1:6]
        seed &= _HALF
        gone_size, come_size = gone_size & _HALF, come_size & _HALF
        gone = yield from _summed(thread, gone_at, gone_size)
        come = yield from _summed(thread, come_at, come_size)
        if gone_size and come_size:
            result = _partial(come, seed) + (~_partial(gone, 0) & _HALF)
        elif come_size:
            result = _partial(come, seed)
        elif gone_size:
            result = ~_partial(gone, ~seed & _HALF) & _HALF
        else:
            result = seed
        return _folded(result, 16)

    def redirect(self, ifindex: int, flags: int) -> int:
        """bpf_xdp_redirect: no flags are known, of a tc program BPF_F_INGRESS, and a wrong call leaves an earlier
        target alone."""
        if flags & ~(BPF_F_INGRESS if self.program_type is ProgramType.SCHED_CLS else 0):
            return XdpAction.XDP_ABORTED
        ifindex &= 0xFFFFFFFF
        self.target = None
        if ifindex and ifindex in self.ports:
            self.target = Target(self.ports.index(ifindex), inward=bool(flags & BPF_F_INGRESS))
        return XdpAction.XDP_REDIRECT

    def clone_redirect(self, _context: int, ifindex: int, flags: int) -> int:
        """bpf_clone_redirect: a copy of the packet as it is now, without its metadata."""
        ifindex &= 0xFFFFFFFF
        if flags & ~BPF_F_INGRESS or not ifindex or ifindex not in self.ports:
            return -EINVAL
        if self.hops == MAX_HOPS:
            return -ENETDOWN
        if not self.samples.room():
            self.refused.append(self.buffer.data_end - self.buffer.data)
            return -ENOMEM
        port, leaving = self.ports.index(ifindex), not flags & BPF_F_INGRESS
        self.clones.append(Clone(self.buffer.copy(), self.iif if leaving else port, port, leaving, self.hops + 1))
        return 0

    def redirect_map(self, thread: Thread) -> Suspending:
        """__bpf_xdp_redirect_map: an unknown flag leaves an earlier target alone, a missing entry does not. No packet
        of a NIC leaves twice, so that BROADCAST is unknown; EXCLUDE_INGRESS, which a DEVMAP knows, says nothing alone.
        """
        handle, index, flags = thread.registers[1:4]
        entry = yield from self.maps.redirect(thread, handle, index)
        to_queue, number = entry & REDIRECT_QUEUE, entry >> REDIRECT_SHIFT & 0xFF
        if flags & ~(REDIRECT_ACTION if to_queue else REDIRECT_ACTION | RedirectFlag.EXCLUDE_INGRESS):
            return XdpAction.XDP_ABORTED
        self.target = None
        if not entry & REDIRECT_TAKEN:
            return flags & REDIRECT_ACTION
        if to_queue:
            self.target = Target(len(self.ports), number % HOST_QUEUES)
        elif number < len(self.ports):
            self.target = Target(number)
        return XdpAction.XDP_REDIRECT

    def xdp_adjust_head(self, _context: int, delta: int) -> int:
        """bpf_xdp_adjust_head: metadata moves along, the frame header's room and 14 bytes of frame stay."""
        buffer, delta = self.buffer, _signed32(delta)
        metadata = buffer.data - buffer.data_meta
        data = buffer.data + delta
        if data < addresses.FRAME_HEADER + metadata or data > buffer.data_end - addresses.ETH_HLEN:
            return -EINVAL
        moved = bytes(buffer.bytes[buffer.data_meta : buffer.data])
        buffer.data_meta += delta
        buffer.data = data
        buffer.bytes[buffer.data_meta : data] = moved
        return 0

    def xdp_adjust_meta(self, _context: int, delta: int) -> int:
        """bpf_xdp_adjust_meta: the frame header's room stays, metadata has whole words, and no more than Linux can note
        down."""
        buffer = self.buffer
        data_meta = buffer.data_meta + _signed32(delta)
        if not addresses.FRAME_HEADER <= data_meta <= buffer.data:
            return -EINVAL
        metadata = buffer.data - data_meta
        if metadata % addresses.METADATA_ALIGN or metadata > addresses.METADATA_BYTES:
            return -EACCES
        buffer.data_meta = data_meta
        return 0

    def xdp_adjust_tail(self, _context: int, delta: int) -> int:
        """bpf_xdp_adjust_tail: what the frame grows by is zero."""
        buffer, delta = self.buffer, _signed32(delta)
        data_end = buffer.data_end + delta
        if data_end > addresses.data_hard_end(len(buffer.bytes)) or data_end < buffer.data + addresses.ETH_HLEN:
            return -EINVAL
        if delta > 0:
            buffer.bytes[buffer.data_end : data_end] = bytes(delta)
        buffer.data_end = data_end
        return 0


_HALF = 0xFFFFFFFF


def _summed(thread: Thread, address: int, size: int) -> Suspending:
    """The bytes of an argument of bpf_csum_diff. Raises Trap: more than there can be, or outside every window."""
    if size > addresses.MAX_CHECKSUM_BYTES:
        raise Trap(Cause.MEMORY_ACCESS)
    return (yield from read_argument(thread, address, size))


def _partial(data: bytes, seed: int) -> int:
    """csum_partial: the sum of all 32-bit words, the last one filled up with zeros, and of the seed."""
    return _folded(seed + sum(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)), 32)


def _folded(number: int, bits: int) -> int:
    """A sum whose carries come round to the lowest bit."""
    while number >> bits:
        number = (number & (1 << bits) - 1) + (number >> bits)
    return number


def _signed32(value: int) -> int:
    """The low half as a C int."""
    return (value & 0xFFFFFFFF ^ 0x80000000) - 0x80000000


def _at_once(body: Callable[..., int], arguments: int = 0) -> Helper:
    """A helper that shares nothing: `body` gets r1 to r`arguments`."""

    def helper(thread: Thread) -> Suspending:
        yield from ()
        return body(*thread.registers[1 : 1 + arguments])

    return helper
