"""Who goes first: a round robin."""

from amaranth import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out


class RoundRobin(Component):
    """Grants one of `count` requests in the same clock; the one after the last granted comes first.

    Of each two a bit says which comes first, so that a grant is found in few levels of logic.

    Members: requests (a bit each), grant (one bit of them, or 0). What is granted counts as taken.
    """

    def __init__(self, count: int):
        self.count = count
        super().__init__({"requests": In(count), "grant": Out(count)})

    def elaborate(self, platform) -> Module:
        m = Module()
        ahead: list[list] = [[] for _ in range(self.count)]  # of each, the requests that come before it
        for low in range(self.count):
            for high in range(low + 1, self.count):
                low_first = Signal(name=f"first_{low}_{high}", init=low != 0)  # at first, number 0 is the last
                with m.If(self.requests.any()):  # one of them is granted
                    m.d.sync += low_first.eq(~self.grant[low:high].any())
                ahead[high].append(self.requests[low] & low_first)
                ahead[low].append(self.requests[high] & ~low_first)
        m.d.comb += self.grant.eq(Cat(self.requests[i] & ~Cat(ahead[i]).any() for i in range(self.count)))
        return m
