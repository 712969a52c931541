"""Bytes from nibbles, as MII and RGMII below 1000 Mbit/s bring them (IEEE 802.3 clause 22.2.3): the lower one first."""

from amaranth import Cat, Module, Signal
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.ethernet.interfaces import PhyReceive
from bpfnic.spec.ethernet import SFD


class Nibbles(Component):
    """A nibble a clock. Where bytes begin is known with the start frame delimiter, so that nothing comes out of a frame
    before it; a nibble left at a frame's end is dropped. A byte comes out a clock behind its second nibble.

    Members: valid, error, data (4 bits) of this clock; phy.
    """

    def __init__(self):
        super().__init__({"valid": In(1), "error": In(1), "data": In(4), "phy": Out(PhyReceive)})

    def elaborate(self, platform) -> Module:
        m = Module()
        phy = self.phy
        lower, error = Signal(4), Signal()  # of the nibble before; errors gather until a byte takes them along
        aligned, odd = Signal(), Signal()
        whole = Signal()
        m.d.comb += whole.eq(self.valid & ((aligned & odd) | (~aligned & (Cat(lower, self.data) == SFD))))
        m.d.sync += [
            phy.strobe.eq(whole | ~self.valid),
            phy.valid.eq(self.valid),
            phy.error.eq(self.error | error),
            phy.data.eq(Cat(lower, self.data)),
            lower.eq(self.data),
            odd.eq(aligned & ~odd & self.valid),
            error.eq((self.error | error) & self.valid & ~whole),
            aligned.eq((aligned | whole) & self.valid),
        ]
        return m
