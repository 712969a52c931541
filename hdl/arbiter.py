"""Who goes first: a round robin."""

from amaranth import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out


class RoundRobin(Component):
    """Grants one of `count` requests in the same clock; the one after the last granted comes first.

    Of each two a bit says which comes first, so that a grant is found in few levels of logic.

    Members: requests (a bit each), grant (one bit of them, or 0), which counts as taken if `takes` is high, as it is
    where nothing is connected. So a grant needn't wait for what decides about all of them.
    """

    def __init__(self, count: int):
        self.count = count
        super().__init__({"requests": In(count), "grant": Out(count), "takes": In(1, init=1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        ahead: list[list] = [[] for _ in range(self.count)]  # of each, the requests that come before it
        for low in range(self.count):
            for high in range(low + 1, self.count):
                low_first = Signal(name=f"first_{low}_{high}", init=low != 0)  # at first, number 0 is the last
                with m.If(self.requests.any() & self.takes):  # one of them is granted
                    m.d.sync += low_first.eq(~self.grant[low:high].any())
                ahead[high].append(self.requests[low] & low_first)
                ahead[low].append(self.requests[high] & ~low_first)
        m.d.comb += self.grant.eq(Cat(self.requests[i] & ~Cat(ahead[i]).any() for i in range(self.count)))
        return m
