"""Frames on their way from the core's clock to the PHY's: a memory of words, and a counter of them on either side.

The transmitter doesn't ask whether there is a word but whether there is a frame, whose words are all there then. So
nothing in its clock, the fast one, has to find out where the memory ends.
"""

from amaranth import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.ethernet.crossing import count, crossed
from bpfnic.hdl.ethernet.interfaces import Departing, Word
from bpfnic.hdl.memory import SimpleRam


class Departures(Component):
    """Parameters
    ----------
    depth : words, a power of two.
    transmit_domain : the PHY's clock. It is reset whenever "sync" is.
    target : NicConfig.target.

    Members
    -------
    words : frames of at most `depth` words, in "sync"; `ready` is low while the memory is full.
    departing : the transmitter's, in the transmit domain.
    """

    def __init__(self, depth: int, *, transmit_domain: str, target: str):
        self.depth, self.transmit_domain, self.target = depth, transmit_domain, target
        super().__init__({"words": In(stream.Signature(Word)), "departing": Out(Departing)})

    def elaborate(self, platform) -> Module:
        m = Module()
        words, departing, domain = self.words, self.departing, self.transmit_domain
        taken, last_taken = Signal(), Signal()
        m.d[domain] += [taken.eq(departing.take), last_taken.eq(departing.take & departing.word.last)]

        arrives = words.valid & words.ready
        written, written_code = count(m, "sync", arrives, self.depth)
        read, read_code = count(m, domain, taken, self.depth)
        # Full: the counts are `depth` apart, whose Gray codes differ in the two upper bits alone.
        apart = written_code ^ crossed(m, "read", "sync", read_code)
        m.d.comb += words.ready.eq(apart != self.depth | self.depth >> 1)

        # A frame has a word at least, so that no more frames are here than words.
        _, whole_code = count(m, "sync", arrives & words.payload.last, self.depth)
        _, gone_code = count(m, domain, last_taken, self.depth)
        m.d[domain] += departing.pending.eq(crossed(m, "whole", domain, whole_code) != gone_code)

        m.submodules.ram = ram = SimpleRam(width=Word.size, depth=self.depth, target=self.target, read_domain=domain)
        m.d.comb += [
            ram.write.enable.eq(arrives),
            ram.write.address.eq(written),
            ram.write.data.eq(words.payload),
            ram.read.address.eq(read),
            departing.word.eq(ram.read.data),
        ]
        return m
