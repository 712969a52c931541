"""Who goes first: a round robin."""

from amaranth import Module, Signal
from amaranth.lib.wiring import Component, In, Out


class RoundRobin(Component):
    """Grants one of `count` requests in the same clock; the one after the last granted comes first.

    Members: requests (a bit each), grant (one bit of them, or 0). What is granted counts as taken.
    """

    def __init__(self, count: int):
        self.count = count
        super().__init__({"requests": In(count), "grant": Out(count)})

    def elaborate(self, platform) -> Module:
        m = Module()
        if self.count == 1:
            m.d.comb += self.grant.eq(self.requests)
            return m
        last = Signal(range(self.count))
        with m.Switch(last):
            for previous in range(self.count):
                with m.Case(previous):
                    for i in reversed(range(1, self.count + 1)):  # later assignments win: the next one comes first
                        candidate = (previous + i) % self.count
                        with m.If(self.requests[candidate]):
                            m.d.comb += self.grant.eq(1 << candidate)
        for i in range(self.count):
            with m.If(self.grant[i]):
                m.d.sync += last.eq(i)
        return m
