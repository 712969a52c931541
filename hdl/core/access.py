"""The check of every memory access: which window it hits, and whether it may."""

from amaranth import Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, ceil_log2, exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.control import Access
from bpfnic.hdl.interfaces import Bounds, Region
from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import SK_BUFF_LIVE, SK_BUFF_READABLE, SK_BUFF_WRITABLE, WORD_BYTES, XDP_QUEUE

_SKB_WORDS = addresses.SKB_CONTEXT_BYTES // WORD_BYTES
_QUEUE = addresses.CONTEXT + XDP_QUEUE.offset
_KEPT = frozenset(range(_SKB_WORDS)) - SK_BUFF_LIVE


class AccessCheck(Component):
    """`bytes` and `bounds` in stage 8, the other inputs in stage 9, the outputs in stage 10.

    Members
    -------
    bounds : of the thread's packet. bytes : 1 to 8, that the access is long.
    address : 64 bits. access, size, aligned, natural : of the Control; natural alignment is that of `size`.
    privileged : the firmware's frame runs, which reaches the upper half of the stack's window, and all words of the
        skb context.
    in_pieces : a local access of so many `bytes` is done in naturally aligned pieces, of which this pass does one.
    in_maps : it may lie in map memory alone.
    in_packet : `address` counts from the packet's first byte, in 32 bits with sign. Then nothing traps, but the bytes
        may be `missing`.
    cause : why it traps, or NONE (also where `access` is NONE).
    shared : it goes to map memory. region : otherwise, where it goes, and `offset` in it.
    split : it is shared and crosses a row, in the first of which lie `first_bytes` of it, 1 to 7; or it is done in
        pieces, and the first one, of as many bytes, is not all. piece : the logarithm of that piece's bytes.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "bounds": In(Bounds(config)),
                "bytes": In(4),
                "address": In(64),
                "size": In(2),
                "privileged": In(1),
                "access": In(Access),
                "aligned": In(1),
                "natural": In(1),
                "in_pieces": In(1),
                "in_maps": In(1),
                "in_packet": In(1),
                "missing": Out(1),
                "cause": Out(4),
                "shared": Out(1),
                "region": Out(Region),
                "offset": Out(range(config.buffer_bytes)),
                "split": Out(1),
                "first_bytes": Out(3),
                "piece": Out(2),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()

        def register(value, name: str) -> Signal:
            signal = Signal(len(value), name=name, reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        # Stage 8
        bounds = self.bounds
        lowest = register(bounds.data_meta, "lowest_9")
        highest = register((bounds.data_end - self.bytes)[: bits_for(self.config.buffer_bytes)], "highest_9")
        short = register(bounds.data_end < self.bytes, "short_9")  # the whole packet is shorter than the access
        length = register(self.bytes, "length_9")
        start = register(bounds.data, "start_9")
        room = register((bounds.data_end - bounds.data - self.bytes)[: len(bounds.data) + 1], "room_9")  # signed

        # Stage 9: each window by itself
        address = self.address
        beyond, misaligned = Signal(), Signal()
        m.d.comb += beyond.eq(address[:3] + length > 8)  # it ends behind the next multiple of 8
        with m.Switch(self.size):
            for log2 in range(1, 4):
                with m.Case(log2):
                    m.d.comb += misaligned.eq(address[:log2].any())

        def within(base: int, size: int):
            return address[ceil_log2(size) :] == base >> ceil_log2(size)

        def fits(base: int, size: int):
            return within(base, size) & ~(beyond & address[3 : ceil_log2(size)].all())

        loads, stores = self.access == Access.LOAD, self.access == Access.STORE
        accesses = (self.access != Access.NONE) & ~self.in_packet
        in_windows = accesses & ~self.in_maps
        in_buffer = address[: ceil_log2(self.config.buffer_bytes)]
        in_row = ceil_log2(addresses.ROW_BYTES)
        of_all = fits(addresses.STACK, addresses.STACK_BYTES)
        of_firmware = fits(addresses.STACK, addresses.STACK_WINDOW_BYTES) & self.privileged
        stack = register((of_all | of_firmware) & in_windows, "stack_10")
        of_queue = (address == _QUEUE) & (self.size == exact_log2(WORD_BYTES))
        queue = register(of_queue & stores & self.aligned & ~self.natural & in_windows, "queue_10")
        context = register(fits(addresses.CONTEXT, addresses.CONTEXT_BYTES) & in_windows, "context_10")
        skb = register(fits(addresses.SKB_CONTEXT, addresses.SKB_CONTEXT_BYTES) & in_windows, "skb_10")
        # Words are told apart where the access is aligned.
        everyone = self._words(SK_BUFF_READABLE), self._words(SK_BUFF_WRITABLE)
        readable = self.privileged | everyone[0]
        writable = Mux(self.privileged, self._words(_KEPT), everyone[1])
        of_skb = register(self.aligned & (misaligned | Mux(loads, readable, writable)), "of_skb_10")
        shared = register(fits(addresses.MAP_VALUES, self.config.map_bytes) & accesses, "shared_10")
        buffer = register(within(addresses.PACKET, self.config.buffer_bytes) & in_windows, "buffer_10")
        packet = register((in_buffer >= lowest) & (in_buffer <= highest) & ~short, "packet_10")
        position = address[: len(in_buffer)]
        fits_packet = (position <= room[:-1]) & ~room[-1] & ~address[len(position) : 32].any()
        missing = register(~fits_packet & self.in_packet, "missing_10")
        in_packet = register(self.in_packet, "in_packet_10")
        offset = register(in_buffer, "offset_10")
        offset_in_packet = register((start + position)[: len(in_buffer)], "offset_in_packet_10")
        unnatural = register(misaligned & self.natural & accesses, "unnatural_10")
        misaligned_word = register(misaligned & self.aligned & accesses, "misaligned_word_10")
        crosses = register(address[:in_row] + length > addresses.ROW_BYTES, "crosses_10")
        in_first_row = register((-address[:3])[:3], "in_first_row_10")
        largest = Signal(2)  # aligned piece of it
        for log2 in range(1, 4):
            with m.If(~address[:log2].any() & (length >= 1 << log2)):
                m.d.comb += largest.eq(log2)
        piece = register(largest, "piece_10")
        more = register((length != 1 << largest) & self.in_pieces, "more_10")
        accesses, loads = register(accesses, "accesses_10"), register(loads, "loads_10")

        # Stage 10: may it?
        allowed = shared | stack | (context & loads) | queue | (skb & of_skb) | (buffer & packet)
        with m.If(accesses & ~allowed):
            m.d.comb += self.cause.eq(Cause.MEMORY_ACCESS)
        with m.Elif(unnatural | (misaligned_word & (stack | context | skb))):
            m.d.comb += self.cause.eq(Cause.MISALIGNED)
        m.d.comb += [
            self.shared.eq(shared),
            self.missing.eq(missing),
            self.region.eq(Region.PACKET),
            self.offset.eq(Mux(in_packet, offset_in_packet, offset)),
            self.split.eq(Mux(shared, crosses, more)),
            self.first_bytes.eq(Mux(shared, in_first_row, 1 << piece)),
            self.piece.eq(piece),
        ]
        with m.If(stack | context):
            m.d.comb += self.region.eq(Mux(stack, Region.STACK, Region.CONTEXT))
        with m.Elif(skb):
            m.d.comb += self.region.eq(Region.SKB)
        return m

    def _words(self, words: frozenset[int]) -> Value:
        """An aligned access to the skb context takes none but these words, of 32 bits; it takes one, or two."""
        one = Const(sum(1 << word for word in words), _SKB_WORDS)
        two = Const(sum(1 << word // 2 for word in words if word % 2 == 0 and word + 1 in words), _SKB_WORDS // 2)
        word = self.address[2 : 2 + exact_log2(_SKB_WORDS)]
        return Mux(self.size == 3, two.bit_select(word[1:], 1), one.bit_select(word, 1))
