"""Counts retired instructions, one a clock."""

from amaranth import Module, Signal
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for

from bpfnic.hdl.config import NicConfig


class Retirement(Component):
    """A call of the engine retires with its answer, for a wrong handle traps there. That may be in a clock in which a
    pass retires too; it is then counted in a later one. (Each of these calls took an issue slot that retired nothing,
    so no more than one a thread ever waits.)

    Members
    -------
    passes : a pass retires an instruction. answers : an engine's answer does.
    retired : an instruction is counted.
    """

    def __init__(self, config: NicConfig):
        self.threads = config.threads
        super().__init__({"passes": In(1), "answers": In(1), "retired": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        waiting = Signal(bits_for(self.threads))
        m.d.comb += self.retired.eq(self.passes | waiting.any())
        m.d.sync += waiting.eq(waiting + self.answers - (waiting.any() & ~self.passes))
        return m
