"""SELECT: which thread's turn it is."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig


def lowest(bits) -> tuple:
    """The number of the lowest bit that is set, and whether there is one. In groups of four, for speed."""
    groups = [bits[start : start + 4] for start in range(0, len(bits), 4)]
    number = Const(0, 2)
    for index, group in reversed(list(enumerate(groups))):
        within = Cat(~group[0] & (group[1] | ~group[2]), ~(group[0] | group[1]))
        number = Mux(group.any(), Cat(within, Const(index, 2)), number)
    return number, bits.any()


class Scheduler(Component):
    """Round robin among the threads that are ready.

    Members
    -------
    wake : threads, a bit each, that become ready with the next clock.
    revoke : threads that are ready no longer. The one selected in this clock may be among them.
    selected : in this clock, `thread` is taken out of the ready ones.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        threads = config.threads
        super().__init__(
            {"wake": In(threads), "revoke": In(threads), "selected": Out(1), "thread": Out(range(threads))}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        threads = self.config.threads
        ready, above, below = (Signal(threads, name=name) for name in ("ready", "above", "below"))
        selected = Signal()  # in the last clock, `thread`, which still looks ready in this one
        thread = Signal(range(threads))
        for number in range(threads):
            m.d.comb += [
                above[number].eq(ready[number] & (number > thread)),
                below[number].eq(ready[number] & ((number < thread) | ((number == thread) & ~selected))),
            ]
        (first_above, any_above), (first_below, any_below) = lowest(above), lowest(below)
        m.d.comb += [
            self.selected.eq(any_above | any_below),
            self.thread.eq(Mux(any_above, first_above, first_below)),
        ]
        taken = Mux(selected, Const(1, threads) << thread, 0)
        m.d.sync += [selected.eq(self.selected), thread.eq(self.thread)]
        m.d.sync += ready.eq((ready & ~taken & ~self.revoke) | self.wake)
        return m
