"""What a program can reach: context, stack, packet, and the map values that all programs share (spec/addresses.py)."""

from bpfnic.sim.golden.thread import Trap
from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause
from bpfnic.spec.maps import HOST_QUEUES
from bpfnic.spec.programs import (
    SK_BUFF,
    SK_BUFF_HALVES,
    SK_BUFF_LIVE,
    SK_BUFF_READABLE,
    SK_BUFF_WRITABLE,
    WORD_BYTES,
    XDP_MD,
    XDP_QUEUE,
)

_OF_XDP = ("data", "data_end", "data_meta", "ingress_ifindex", "rx_queue_index")  # what a driver's packet has of xdp_md

_QUEUE = addresses.CONTEXT + XDP_QUEUE.offset


class Buffer:
    """A packet in its buffer: `buffer_bytes` bytes, zero but for the frame at HEADROOM. Offsets count from the buffer's
    start; data_meta <= data <= data_end. `arrived`: the frame as it came in. `queue`: of the host, that the program
    chose for it."""

    def __init__(self, frame: bytes, buffer_bytes: int):
        self.bytes = bytearray(buffer_bytes)
        self.data_meta = self.data = addresses.HEADROOM
        self.data_end = self.data + len(frame)
        self.bytes[self.data : self.data_end] = frame
        self.arrived = bytes(frame)
        self.queue = 0

    def copy(self) -> "Buffer":
        """Another buffer with the same frame at the same place, and nothing else."""
        copy = Buffer(b"", len(self.bytes))
        copy.data_meta = copy.data = self.data
        copy.data_end = self.data_end
        copy.bytes[copy.data : copy.data_end] = self.frame
        return copy

    @property
    def frame(self) -> bytes:
        """The bytes between data and data_end: what leaves."""
        return bytes(self.bytes[self.data : self.data_end])


class Memory:
    """The windows of one running program. Addresses are below 2**32 already (the interpreter sees to that).

    Natural alignment is asked of the context, the stack, every atomic and every acquire and release; packets and map
    values take any other alignment. An access outside every window is that, whatever its alignment.
    """

    def __init__(self, buffer: Buffer, ifindex: int, map_memory: bytearray, came_in: int | None = None):
        """ifindex: of the interface at which the program stands; came_in: of the one where the packet came in, the same
        if None."""
        self.buffer = buffer
        self.ifindex = ifindex
        self.came_in = ifindex if came_in is None else came_in
        self.stack = bytearray(addresses.STACK_WINDOW_BYTES)
        self.privileged = False
        self.map_memory = map_memory

    def skb(self) -> bytes:
        """The words of the skb context that are kept."""
        return bytes(self.stack[addresses.STACK_BYTES :][: addresses.SKB_CONTEXT_BYTES])

    def set_skb(self, words: bytes) -> None:
        """Has them from the program before."""
        self.stack[addresses.STACK_BYTES : addresses.STACK_BYTES + addresses.SKB_CONTEXT_BYTES] = words

    def shared_parts(self, address: int, size: int) -> list[int]:
        """Sizes in bytes of the shared accesses of an access, the lower addresses first; empty outside map values. The
        hardware takes one row of map memory at a time."""
        if not self._in_maps(address, size):
            return []
        in_row = addresses.ROW_BYTES - address % addresses.ROW_BYTES
        return [size] if size <= in_row else [in_row, size - in_row]

    def load(self, address: int, size: int, aligned: bool = True) -> int:
        """Zero-extended little-endian integer. aligned: ask for natural alignment where the window has it (helpers
        don't). Raises Trap."""
        memory, offset = self._find(address, size, write=False, aligned=aligned)
        return int.from_bytes(memory[offset : offset + size], "little")

    def store(self, address: int, size: int, value: int, aligned: bool = True) -> None:
        """Store the low `size` bytes. Raises Trap."""
        if aligned and (address, size) == (_QUEUE, XDP_QUEUE.size):
            if value & 0xFFFFFFFF < HOST_QUEUES:
                self.buffer.queue = value & 0xFFFFFFFF
            return
        memory, offset = self._find(address, size, write=True, aligned=aligned)
        stored = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        if address // addresses.SKB_CONTEXT_BYTES == addresses.SKB_CONTEXT // addresses.SKB_CONTEXT_BYTES:
            stored = bytes(byte if self._keeps(address + at) else 0 for at, byte in enumerate(stored))
        memory[offset : offset + size] = stored

    def check_aligned(self, address: int, size: int, write: bool) -> None:
        """Raises Trap outside every window, and where the access is misaligned, whatever the window."""
        self._find(address, size, write)
        self._align(address, size)

    def load_packet(self, offset: int, size: int) -> int | None:
        """Big-endian integer at `offset` from data, None where it isn't all in the packet (LD_ABS, LD_IND)."""
        start = self.buffer.data + offset
        if offset < 0 or start + size > self.buffer.data_end:
            return None
        return int.from_bytes(self.buffer.bytes[start : start + size], "big")

    def _in_maps(self, address: int, size: int) -> bool:
        first, behind = addresses.MAP_VALUES, addresses.MAP_VALUES + len(self.map_memory)
        return first <= address and address + size <= behind

    def _find(self, address: int, size: int, write: bool, aligned: bool = True) -> tuple[bytearray, int]:
        """The memory that an access hits, and the offset in it. Raises Trap."""
        if self._in_maps(address, size):
            return self.map_memory, address - addresses.MAP_VALUES
        packet, buffer = address - addresses.PACKET, self.buffer
        if buffer.data_meta <= packet and packet + size <= buffer.data_end:
            return buffer.bytes, packet
        stack = address - addresses.STACK
        if 0 <= stack and stack + size <= (addresses.STACK_WINDOW_BYTES if self.privileged else addresses.STACK_BYTES):
            if aligned:
                self._align(address, size)
            return self.stack, stack
        context = address - addresses.CONTEXT
        if 0 <= context and context + size <= addresses.CONTEXT_BYTES and not write:
            if aligned:
                self._align(address, size)
            return self._context(), context
        skb = address - addresses.SKB_CONTEXT
        if aligned and 0 <= skb and skb + size <= addresses.SKB_CONTEXT_BYTES:
            self._align(address, size)
            if not self._permits(skb, size, write):
                raise Trap(Cause.MEMORY_ACCESS)
            return (self.stack, addresses.STACK_BYTES + skb) if write else (self._skb_context(), skb)
        raise Trap(Cause.MEMORY_ACCESS)

    def _permits(self, offset: int, size: int, write: bool) -> bool:
        """The words of the skb context at an offset may be read or written by what runs."""
        words = set(range(offset // WORD_BYTES, (offset + size - 1) // WORD_BYTES + 1))
        if self.privileged:
            return not (write and words & SK_BUFF_LIVE)
        return words <= (SK_BUFF_WRITABLE if write else SK_BUFF_READABLE)

    def _keeps(self, address: int) -> bool:
        """A byte of the skb context keeps what is written: in words of which only the lower half counts, that."""
        word, byte = divmod(address - addresses.SKB_CONTEXT, WORD_BYTES)
        return word not in SK_BUFF_HALVES or byte < WORD_BYTES // 2

    def _align(self, address: int, size: int) -> None:
        if address % size:
            raise Trap(Cause.MISALIGNED)

    def _context(self) -> bytearray:
        """struct xdp_md as it is now."""
        context = bytearray(addresses.CONTEXT_BYTES)
        for field in XDP_MD:
            value = self._live(field.name) if field.name in _OF_XDP else 0
            context[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little")
        return context

    def _skb_context(self) -> bytearray:
        """struct __sk_buff as it is now, and what lies behind it. In live fields ones show through that a privileged
        routine wrote there behind the stack, where nothing is theirs: for a program that gave it such a pointer."""
        context = self.stack[addresses.STACK_BYTES :][: addresses.SKB_CONTEXT_BYTES]
        for field in SK_BUFF:
            if field.live:
                place = slice(field.offset, field.offset + field.size)
                value = self._live(field.name) | int.from_bytes(context[place], "little")
                context[place] = value.to_bytes(field.size, "little")
        return context

    def _live(self, name: str) -> int:
        """A context's field that says where the packet is, and where it came from."""
        buffer = self.buffer
        values = {
            "data": addresses.PACKET + buffer.data,
            "data_end": addresses.PACKET + buffer.data_end,
            "data_meta": addresses.PACKET + buffer.data_meta,
            "len": buffer.data_end - buffer.data,
            "ingress_ifindex": self.came_in,
            "ifindex": self.ifindex,
            "rx_queue_index": buffer.queue,
        }
        return values[name]
