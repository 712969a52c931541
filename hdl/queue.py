"""A queue in distributed memory."""

from amaranth import Module, Signal
from amaranth.lib import memory, stream
from amaranth.lib.wiring import Component, In, Out


class Queue(Component):
    """Whoever pushes knows that there is room.

    Parameters
    ----------
    through : an entry is there in the clock of its push already, when there is none before it.

    Members
    -------
    push, entry : takes `entry` in this clock. pop : the oldest entry, from the clock after its push on. level : entries
        that are there.
    """

    def __init__(self, shape, depth: int, *, through: bool = False):
        self.depth, self.through = depth, through
        super().__init__(
            {"push": In(1), "entry": In(shape), "pop": Out(stream.Signature(shape)), "level": Out(range(depth + 1))}
        )
        self.shape = shape

    def elaborate(self, platform) -> Module:
        m = Module()
        places = 1 << (self.depth - 1).bit_length()  # addresses wrap by themselves
        m.submodules.memory = array = memory.Memory(shape=self.shape, depth=places, init=[])
        write, read = array.write_port(), array.read_port(domain="comb")
        popped = self.pop.valid & self.pop.ready
        some = Signal()  # level is not 0
        m.d.comb += [
            write.en.eq(self.push),
            write.data.eq(self.entry),
            self.pop.valid.eq(some),
            self.pop.payload.eq(read.data),
        ]
        if self.through:
            with m.If(~some):
                m.d.comb += [self.pop.valid.eq(self.push), self.pop.payload.eq(self.entry)]
        with m.If(self.push & ~popped):
            m.d.sync += [self.level.eq(self.level + 1), some.eq(1)]
        with m.If(popped & ~self.push):
            m.d.sync += [self.level.eq(self.level - 1), some.eq(self.level != 1)]
        with m.If(self.push):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(popped):
            m.d.sync += read.addr.eq(read.addr + 1)
        return m
