"""The check of every memory access: which window it hits, and whether it may."""

from amaranth import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, ceil_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.control import Access
from bpfnic.hdl.interfaces import Bounds, Region
from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause


class AccessCheck(Component):
    """`bytes` and `bounds` in stage 8, the other inputs and the outputs in stage 9.

    Members
    -------
    bounds : of the thread's packet. bytes : 1 to 8, that the access is long.
    address : 64 bits. access, size, aligned : of the Control; natural alignment is that of `size`.
    cause : why it traps, or NONE (also where `access` is NONE).
    shared : it goes to map memory. region : otherwise, where it goes.
    crosses : it is shared and crosses a row; `first_bytes` of it, 1 to 7, lie in the first one.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "bounds": In(Bounds(config)),
                "bytes": In(4),
                "address": In(64),
                "access": In(Access),
                "size": In(2),
                "aligned": In(1),
                "cause": Out(4),
                "shared": Out(1),
                "region": Out(Region),
                "crosses": Out(1),
                "first_bytes": Out(3),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        address = self.address
        offsets = bits_for(self.config.buffer_bytes)

        lowest, highest = Signal(offsets, reset_less=True), Signal(offsets, reset_less=True)
        short = Signal(reset_less=True)  # the whole packet is shorter than the access
        length = Signal(4, reset_less=True)
        m.d.sync += [
            lowest.eq(self.bounds.data_meta),
            highest.eq(self.bounds.data_end - self.bytes),
            short.eq(self.bounds.data_end < self.bytes),
            length.eq(self.bytes),
        ]

        def within(base: int, size: int):
            return address[ceil_log2(size) :] == base >> ceil_log2(size)

        beyond = Signal()  # it ends behind the next multiple of 8
        m.d.comb += beyond.eq(address[:3] + length > 8)

        def fits(base: int, size: int):
            return within(base, size) & ~(beyond & address[3 : ceil_log2(size)].all())

        stack, context, packet = Signal(), Signal(), Signal()
        in_buffer = address[: ceil_log2(self.config.buffer_bytes)]
        m.d.comb += [
            stack.eq(fits(addresses.STACK, addresses.STACK_BYTES)),
            context.eq(fits(addresses.CONTEXT, addresses.CONTEXT_BYTES) & (self.access == Access.LOAD)),
            packet.eq(
                within(addresses.PACKET, self.config.buffer_bytes)
                & (in_buffer >= lowest)
                & (in_buffer <= highest)
                & ~short
            ),
        ]
        shared = Signal()
        m.d.comb += shared.eq(fits(addresses.MAP_VALUES, self.config.map_bytes))

        misaligned = Signal()
        with m.Switch(self.size):
            for log2 in range(1, 4):
                with m.Case(log2):
                    m.d.comb += misaligned.eq(address[:log2].any())
        atomic = self.access == Access.ATOMIC
        with m.If(self.access != Access.NONE):
            with m.If(~(shared | stack | context | packet)):
                m.d.comb += self.cause.eq(Cause.MEMORY_ACCESS)
            with m.Elif(misaligned & (atomic | (self.aligned & (stack | context)))):
                m.d.comb += self.cause.eq(Cause.MISALIGNED)
            with m.Elif(atomic & ~shared):
                m.d.comb += self.cause.eq(Cause.UNSUPPORTED)
        in_row = ceil_log2(addresses.ROW_BYTES)
        m.d.comb += [
            self.shared.eq(shared & (self.access != Access.NONE)),
            self.region.eq(Mux(stack, Region.STACK, Mux(context, Region.CONTEXT, Region.PACKET))),
            self.crosses.eq(address[:in_row] + length > addresses.ROW_BYTES),
            self.first_bytes.eq(-address[:3]),
        ]
        return m
