"""The free buffers of one core."""

from amaranth import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.packets.records import BufferStrobe


class Pool(Component):
    """Keeps a bit for each free buffer, and one of them picked out beforehand.

    Members
    -------
    ready, spare : a free buffer is at hand. One taken is replaced in the next clock, if another is free.
    take : takes it (only when `ready`).
    empty : no buffer is free (not ready and not empty: there will be one in the next clock).
    more : another one is free. Frames that come in leave the last one to clones.
    give : three ways for buffers to come back, free 2 clocks later.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "ready": Out(1),
                "spare": Out(range(config.packet_buffers)),
                "take": In(1),
                "empty": Out(1),
                "more": Out(1, init=1),
                "give": In(BufferStrobe(config)).array(3),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        count = self.config.packet_buffers
        free = Signal(count, init=-1)
        lowest, refill, given = Signal(count), Signal(), Signal(count)
        came = Signal(count)
        m.d.comb += [
            self.empty.eq(~self.ready & ~self.more),
            refill.eq(~self.ready | self.take),
            lowest.eq(free & -free),
        ]
        for give in self.give:
            with m.If(give.enable):
                m.d.comb += given.bit_select(give.buffer, 1).eq(1)
        m.d.sync += [
            came.eq(given),
            free.eq((free & ~Mux(refill, lowest, 0)) | came),
            # Whether any is free is known before `take`, which comes late in its clock, for either case.
            self.more.eq(Mux(refill, (free & ~lowest).any(), free.any()) | came.any()),
        ]
        with m.If(refill):
            m.d.sync += self.ready.eq(self.more)
            for bit in range(len(self.spare)):
                ones = sum(1 << i for i in range(count) if i >> bit & 1)
                m.d.sync += self.spare[bit].eq((lowest & ones).any())
        return m
