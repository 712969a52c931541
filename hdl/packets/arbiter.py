"""Round robin among requests, without a queue and without an index."""

from amaranth import Cat, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out


def choose(requests: Value, first: Value) -> Value:
    """One-hot: the first request at or after the place that the one-hot value `first` names; 0 without a request."""
    width = len(requests)
    twice = Cat(requests, requests)
    chosen = twice & ~(twice - first)  # the borrow runs from `first` up to the first request
    return chosen[:width] | chosen[width : 2 * width]


class RoundRobin(Component):
    """Grants one of `requests` in the same clock (one-hot, or 0); whoever was granted comes last the next time."""

    def __init__(self, width: int):
        super().__init__({"requests": In(width), "grant": Out(width)})

    def elaborate(self, platform) -> Module:
        m = Module()
        first = Signal(len(self.grant), init=1)
        m.d.comb += self.grant.eq(choose(self.requests, first))
        with m.If(self.grant.any()):
            m.d.sync += first.eq(self.grant.rotate_left(1))
        return m
