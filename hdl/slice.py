"""A stream through registers, both ways."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out


class RegisterSlice(Component):
    """Payloads come out a clock later, one a clock. With two places no signal of one side depends on the other's in the
    same clock: what comes while nothing goes on has the second one. With one, i.ready depends on o.ready.

    Members: i, o (streams).
    Attributes: waits, second : whether something has the second place, and what.
    """

    def __init__(self, shape, places: int):
        self.places = places
        self.waits, self.second = Signal(), Signal(shape, reset_less=True)
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform) -> Module:
        m = Module()
        waits, second = self.waits, self.second
        moves = ~self.o.valid | self.o.ready
        if self.places == 1:
            m.d.comb += self.i.ready.eq(moves)
            with m.If(moves):
                m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
            return m
        m.d.comb += self.i.ready.eq(~waits)
        with m.If(~waits):
            m.d.sync += [second.eq(self.i.payload), waits.eq(self.i.valid & ~moves)]
        with m.Elif(moves):
            m.d.sync += waits.eq(0)
        with m.If(moves):
            m.d.sync += [self.o.valid.eq(self.i.valid | waits), self.o.payload.eq(Mux(waits, second, self.i.payload))]
        return m
