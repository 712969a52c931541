"""MII (IEEE 802.3 clause 22): four bits a clock, both clocks from the PHY, 25 MHz at 100 Mbit/s and 2.5 at 10."""

from amaranth import DomainRenamer, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from bpfnic.hdl.ethernet.interfaces import Link, PhyReceive, PhyTransmit
from bpfnic.hdl.ethernet.nibbles import Nibbles


class Mii(Component):
    """Parameters
    ----------
    receive_domain, transmit_domain : of the PHY's rx_clk and tx_clk.

    Members
    -------
    rx_dv, rx_er, rx_data : pins, behind registers in the receive domain.
    tx_en, tx_data : pins, in front of registers in the transmit domain.
    phy_receive, phy_transmit, link : the Mac's. MII says nothing of the link: 0.
    """

    def __init__(self, *, receive_domain: str, transmit_domain: str):
        self.receive_domain, self.transmit_domain = receive_domain, transmit_domain
        super().__init__(
            {
                "rx_dv": In(1),
                "rx_er": In(1),
                "rx_data": In(4),
                "tx_en": Out(1),
                "tx_data": Out(4),
                "phy_receive": Out(PhyReceive),
                "phy_transmit": In(PhyTransmit),
                "link": Out(Link),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.nibbles = nibbles = DomainRenamer(self.receive_domain)(Nibbles())
        connect(m, nibbles.phy, flipped(self.phy_receive))
        m.d.comb += [nibbles.valid.eq(self.rx_dv), nibbles.error.eq(self.rx_er), nibbles.data.eq(self.rx_data)]
        m.d.comb += self.link.eq(data.Const(Link, 0))

        byte, upper = self.phy_transmit, Signal()
        m.d[self.transmit_domain] += upper.eq(~upper)
        m.d.comb += [
            byte.strobe.eq(upper),
            self.tx_en.eq(byte.valid),
            self.tx_data.eq(Mux(upper, byte.data[4:], byte.data[:4])),
        ]
        return m
