"""SELECT: which thread's turn it is."""

from amaranth import Array, Cat, Module, Mux, Signal, Value
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
        # above: those of the ready ones behind the last one selected. It is known with that one, for speed.
        ready, above = Signal(threads, name="ready"), Signal(threads, name="above")
        m.d.comb += [self.selected.eq(ready.any()), self.thread.eq(Mux(above.any(), lowest(above), lowest(ready)))]
        for number in range(threads):
            remains = ready[number] & ~self.revoke[number] & (number != self.thread)
            is_ready = remains | self.wake[number]
            m.d.sync += [ready[number].eq(is_ready), above[number].eq(is_ready & (number > self.thread))]
        return m
