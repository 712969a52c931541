"""RGMII 2.0: four bits at each edge of a clock of 125 MHz, or at 10 and 100 Mbit/s four bits a clock of 2.5 or 25 MHz.

The cells at the pins, which make two halves a clock of a pin, belong to the board, and so does the delay of clocks
against data. `[0]` is the half from the rising edge on, `[1]` the one from the falling edge on.
"""

from amaranth import Cat, Const, DomainRenamer, Module, Mux, Signal
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.ethernet.interfaces import Link, PhyReceive, PhyTransmit
from bpfnic.hdl.ethernet.nibbles import Nibbles
from bpfnic.spec.ethernet import Speed

CLOCKS = {Speed.MBIT_10: 50, Speed.MBIT_100: 5, Speed.MBIT_1000: 1}
"""Clocks of 125 MHz in one of the link's."""


class Rgmii(Component):
    """Parameters
    ----------
    receive_domain : of the PHY's rx_clk, whatever its frequency.
    transmit_domain : 125 MHz.

    Members
    -------
    rx_ctl, rx_data : each the halves of one clock: of its rising edge and of the falling edge behind it.
    tx_ctl, tx_data, tx_clk : the halves of the next clock. tx_clk rises with the data; somebody has to delay it.
    phy_receive, phy_transmit, link : the Mac's. The link is what the PHY says between frames. Until it has said that it
        is up, its speed is taken for 1000: some PHYs never do.
    """

    def __init__(self, *, receive_domain: str, transmit_domain: str):
        self.receive_domain, self.transmit_domain = receive_domain, transmit_domain
        super().__init__(
            {
                "rx_ctl": In(1).array(2),
                "rx_data": In(4).array(2),
                "tx_ctl": Out(1).array(2),
                "tx_data": Out(4).array(2),
                "tx_clk": Out(1).array(2),
                "phy_receive": Out(PhyReceive),
                "phy_transmit": In(PhyTransmit),
                "link": Out(Link),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        speed = Signal(Speed, init=Speed.MBIT_1000)  # in the receive domain
        self._receive(m, speed)
        self._transmit(m, speed)
        return m

    def _receive(self, m: Module, speed: Signal) -> None:
        domain = m.d[self.receive_domain]
        m.submodules.nibbles = nibbles = DomainRenamer(self.receive_domain)(Nibbles())
        valid, error = self.rx_ctl[0], self.rx_ctl[0] ^ self.rx_ctl[1]
        m.d.comb += [nibbles.valid.eq(valid), nibbles.error.eq(error), nibbles.data.eq(self.rx_data[0])]
        with m.If(~valid & ~error):  # in-band status, table 4
            domain += self.link.as_value().eq(self.rx_data[0])
            with m.If(self.rx_data[0][0]):
                domain += speed.eq(self.rx_data[0][1:3])
        phy = self.phy_receive
        with m.If(speed == Speed.MBIT_1000):
            domain += [phy.strobe.eq(1), phy.valid.eq(valid), phy.error.eq(error), phy.data.eq(Cat(*self.rx_data))]
        with m.Else():
            domain += [getattr(phy, name).eq(getattr(nibbles.phy, name)) for name in PhyReceive.members]

    def _transmit(self, m: Module, speed: Signal) -> None:
        domain = m.d[self.transmit_domain]
        here = Signal(Speed, init=Speed.MBIT_1000)
        m.submodules.speed = FFSynchronizer(speed, here, o_domain=self.transmit_domain, init=Speed.MBIT_1000)
        byte = self.phy_transmit
        fast = Signal()
        # A byte is two clocks of the link then, each of `period` clocks of 125 MHz, of which `left` are still to come.
        period = Signal(range(max(CLOCKS.values()) + 1))
        left, upper = Signal(range(max(CLOCKS.values()))), Signal()
        domain += [
            fast.eq(here == Speed.MBIT_1000),
            period.eq(Mux(here == Speed.MBIT_100, CLOCKS[Speed.MBIT_100], CLOCKS[Speed.MBIT_10])),
            byte.strobe.eq(fast | (upper & (left == 1))),  # in the byte's last clock
        ]
        with m.If((left == 0) | fast):
            domain += [left.eq(period - 1), upper.eq(~upper & ~fast)]
        with m.Else():
            domain += left.eq(left - 1)

        nibble = Mux(upper, byte.data[4:], byte.data[:4])
        high = [2 * left + 2 - half > period for half in range(2)]  # halves to come, this one included
        for half in range(2):
            domain += [
                self.tx_ctl[half].eq(byte.valid),
                self.tx_data[half].eq(Mux(fast, byte.data.word_select(half, 4), nibble)),
                self.tx_clk[half].eq(Mux(fast, Const(1 - half, 1), high[half])),
            ]
