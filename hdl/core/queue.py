"""A queue in distributed memory, with a place for every thread."""

from amaranth import Module, Signal
from amaranth.lib import memory, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for


class Queue(Component):
    """Whoever pushes knows that there is room: a thread has one entry at most.

    Members
    -------
    push, entry : takes `entry` in this clock. pop : the oldest entry, from the clock after its push on.
    """

    def __init__(self, shape, depth: int):
        self.depth = depth
        super().__init__({"push": In(1), "entry": In(shape), "pop": Out(stream.Signature(shape))})
        self.shape = shape

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.memory = array = memory.Memory(shape=self.shape, depth=self.depth, init=[])
        write, read = array.write_port(), array.read_port(domain="comb")
        level = Signal(bits_for(self.depth))
        popped = self.pop.valid & self.pop.ready
        m.d.comb += [
            write.en.eq(self.push),
            write.data.eq(self.entry),
            self.pop.valid.eq(level.any()),
            self.pop.payload.eq(read.data),
        ]
        m.d.sync += level.eq(level + self.push - popped)
        with m.If(self.push):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(popped):
            m.d.sync += read.addr.eq(read.addr + 1)
        return m
