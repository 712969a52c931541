"""Counts of events that exclude each other: an adder a bank for all of them.

Two banks of distributed memory. One counts; what the other one counted before can be read meanwhile, and is cleared.
"""

from functools import reduce
from operator import or_

from amaranth import Module, Mux, Signal
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, ceil_log2


class Tally(Component):
    """Parameters
    ----------
    first, events : they have the numbers from `first` on.
    most : of one between two swaps.

    Members
    -------
    events : strobes, one at most in a clock.
    swap : from the next clock on it counts anew, events of this clock included.
    number : of an event, modulo a power of two that is enough. `count` : how often it was between the last two swaps.
    clear : of that count, which each has to be before the next swap.
    blank : no events come, and `clear` clears the other bank, too.
    """

    def __init__(self, first: int, events: int, most: int):
        self.first, self.most = first, most
        super().__init__(
            {
                "events": In(events),
                "swap": In(1),
                "number": In(ceil_log2(events)),
                "count": Out(range(most + 1)),
                "clear": In(1),
                "blank": In(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        happens, event, second = Signal(), Signal.like(self.number), Signal()
        numbers = (Mux(strobe, self.first + i, 0) for i, strobe in enumerate(self.events))
        m.d.sync += [happens.eq(self.events.any()), event.eq(reduce(or_, (each[: len(event)] for each in numbers)))]
        with m.If(self.swap):
            m.d.sync += second.eq(~second)
        found = []
        for number in range(2):
            m.submodules[f"bank{number}"] = bank = memory.Memory(
                shape=bits_for(self.most), depth=1 << len(event), init=[]
            )
            read, write = bank.read_port(domain="comb"), bank.write_port()
            counts = (second == number) & ~self.blank
            m.d.comb += [
                read.addr.eq(Mux(counts, event, self.number)),
                write.addr.eq(read.addr),
                write.data.eq(Mux(counts, read.data + 1, 0)),
                write.en.eq(Mux(counts, happens, self.clear)),
            ]
            found.append(read.data)
        m.d.comb += self.count.eq(Mux(second, *found))
        return m
