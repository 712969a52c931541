"""SELECT: which thread's turn it is."""

from amaranth import Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig


class Scheduler(Component):
    """Round robin among the threads that are ready.

    Members
    -------
    wake : threads, a bit each, that become ready with the next clock.
    selected : in this clock, `thread` is taken out of the ready ones.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {"wake": In(config.threads), "selected": Out(1), "thread": Out(range(config.threads))}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        threads = self.config.threads
        ready, behind, first, chosen = (Signal(threads, name=n) for n in ("ready", "behind", "first", "chosen"))
        after = Signal(threads)  # the threads above the one selected last
        m.d.comb += [
            behind.eq(ready & after),
            first.eq(Mux(behind.any(), behind, ready)),
            chosen.eq(first & -first),
            self.selected.eq(ready.any()),
        ]
        for bit in range(len(self.thread)):
            m.d.comb += self.thread[bit].eq((chosen & sum(1 << t for t in range(threads) if t >> bit & 1)).any())
        m.d.sync += ready.eq((ready & ~chosen) | self.wake)
        with m.If(self.selected):
            m.d.sync += after.eq(~((chosen - 1) | chosen))
        return m
