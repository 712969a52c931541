"""SELECT: which thread's turn it is."""

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig


def _first(four) -> Value:
    """The number of the first of up to four bits that is set."""
    zero, one, two, *_ = *four, 0, 0
    return Cat(~zero & (one | ~two), ~(zero | one))


def lowest(bits) -> Value:
    """The number of the lowest bit that is set, of up to 16. In groups of four, all at once, for speed."""
    groups = [bits[start : start + 4] for start in range(0, len(bits), 4)]
    group = _first([each.any() for each in groups])
    return Cat(Array(_first(each) for each in groups)[group], group)


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
        ready, others, above = (Signal(threads, name=name) for name in ("ready", "others", "above"))
        selected = Signal()  # in the last clock, `thread`, which still looks ready in this one
        thread = Signal(range(threads))
        for number in range(threads):
            m.d.comb += [
                others[number].eq(ready[number] & ~(selected & (number == thread))),
                above[number].eq(ready[number] & (number > thread)),
            ]
        m.d.comb += [self.selected.eq(others.any()), self.thread.eq(Mux(above.any(), lowest(above), lowest(others)))]
        taken = Mux(selected, Const(1, threads) << thread, 0)
        m.d.sync += [selected.eq(self.selected), thread.eq(self.thread)]
        m.d.sync += ready.eq((ready & ~taken & ~self.revoke) | self.wake)
        return m
