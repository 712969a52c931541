"""A MAC with its adapter and pins, as Verilog for cocotb: streams on one side, a PHY's pins on the other.

Every top has clk (the core's), rx_clk (the PHY's), tx_clk (of the transmit domain), a reset for each, s_axis_*,
m_axis_*, counter_address and counter_value.
"""

from amaranth import ClockDomain, ClockSignal, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, connect

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.ethernet import Mac, Mii, Rgmii

STREAMS = {
    **{f"s_axis_{name}": In(bits) for name, bits in (("tdata", 64), ("tkeep", 8), ("tlast", 1), ("tvalid", 1))},
    **{f"m_axis_{name}": Out(bits) for name, bits in
       (("tdata", 64), ("tkeep", 8), ("tlast", 1), ("tuser", 1), ("tvalid", 1))},
    "s_axis_tready": Out(1), "m_axis_tready": In(1), "counter_address": In(4), "counter_value": Out(32),
}  # fmt: skip


class Top(Component):
    """`pins` are the ports of the PHY's side; `wire` connects them to the MAC."""

    pins: dict = {}

    def __init__(self, config: NicConfig | None = None):
        self.config = config or NicConfig()
        super().__init__(STREAMS | self.pins)

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.mac = mac = Mac(self.config, receive_domain="rx", transmit_domain="tx")
        for name in ("data", "keep", "last"):
            m.d.comb += getattr(self, f"m_axis_t{name}").eq(getattr(mac.received.payload, name))
            m.d.comb += getattr(mac.transmitted.payload, name).eq(getattr(self, f"s_axis_t{name}"))
        m.d.comb += [
            self.m_axis_tuser.eq(mac.received.payload.user[0]),
            self.m_axis_tvalid.eq(mac.received.valid),
            mac.received.ready.eq(self.m_axis_tready),
            mac.transmitted.valid.eq(self.s_axis_tvalid),
            self.s_axis_tready.eq(mac.transmitted.ready),
            mac.statistics.address.eq(self.counter_address),
            self.counter_value.eq(mac.statistics.value),
        ]
        self.wire(m, mac)
        return m

    def wire(self, m: Module, mac: Mac) -> None:
        raise NotImplementedError


class GmiiTop(Top):
    """A byte a clock without an adapter."""

    pins = {"rx_dv": In(1), "rx_er": In(1), "rx_data": In(8), "tx_en": Out(1), "tx_data": Out(8)}

    def wire(self, m: Module, mac: Mac) -> None:
        m.d.rx += [mac.phy_receive.valid.eq(self.rx_dv), mac.phy_receive.error.eq(self.rx_er)]
        m.d.rx += mac.phy_receive.data.eq(self.rx_data)
        m.d.comb += [mac.phy_receive.strobe.eq(1), mac.phy_transmit.strobe.eq(1)]
        m.d.comb += [self.tx_en.eq(mac.phy_transmit.valid), self.tx_data.eq(mac.phy_transmit.data)]


class MiiTop(Top):
    """Registers at the pins, as a board has them."""

    pins = {"rx_dv": In(1), "rx_er": In(1), "rx_data": In(4), "tx_en": Out(1), "tx_data": Out(4)}

    def wire(self, m: Module, mac: Mac) -> None:
        m.submodules.mii = mii = Mii(receive_domain="rx", transmit_domain="tx")
        connect(m, mii.phy_receive, mac.phy_receive)
        connect(m, mac.phy_transmit, mii.phy_transmit)
        m.d.comb += mac.link.eq(mii.link)
        m.d.rx += [mii.rx_dv.eq(self.rx_dv), mii.rx_er.eq(self.rx_er), mii.rx_data.eq(self.rx_data)]
        m.d.tx += [self.tx_en.eq(mii.tx_en), self.tx_data.eq(mii.tx_data)]


class RgmiiTop(Top):
    """Both edges, as DDR cells have them. tx_clk_late is tx_clk a quarter later, which delays the clock at the pin.
    `status` is what the PHY says between frames, when the model says nothing."""

    pins = {"rgmii_rx_ctl": In(1), "rgmii_rx_data": In(4), "rgmii_tx_ctl": Out(1), "rgmii_tx_data": Out(4),
            "rgmii_tx_clk": Out(1), "tx_clk_late": In(1), "status": In(4)}  # fmt: skip

    def wire(self, m: Module, mac: Mac) -> None:
        m.submodules.rgmii = rgmii = Rgmii(receive_domain="rx", transmit_domain="tx")
        connect(m, rgmii.phy_receive, mac.phy_receive)
        connect(m, mac.phy_transmit, rgmii.phy_transmit)
        m.d.comb += mac.link.eq(rgmii.link)

        m.domains += ClockDomain("fall", clk_edge="neg", local=True, reset_less=True)
        m.domains += ClockDomain("late", local=True, reset_less=True)
        m.d.comb += [ClockSignal("fall").eq(ClockSignal("rx")), ClockSignal("late").eq(self.tx_clk_late)]
        # The falling edge's control says whether there is an error, not whether there is a frame.
        for half, (domain, frame) in enumerate([(m.d.rx, self.rgmii_rx_ctl), (m.d.fall, rgmii.rx_ctl[0])]):
            domain += rgmii.rx_ctl[half].eq(self.rgmii_rx_ctl)
            domain += rgmii.rx_data[half].eq(self.rgmii_rx_data | Mux(frame, 0, self.status))

        late = Signal(2)
        m.d.late += late.eq(rgmii.tx_clk[0] | rgmii.tx_clk[1] << 1)
        m.d.comb += [
            self.rgmii_tx_ctl.eq(Mux(ClockSignal("tx"), rgmii.tx_ctl[0], rgmii.tx_ctl[1])),
            self.rgmii_tx_data.eq(Mux(ClockSignal("tx"), rgmii.tx_data[0], rgmii.tx_data[1])),
            self.rgmii_tx_clk.eq(Mux(self.tx_clk_late, late[0], late[1])),
        ]


TOPS = {"gmii": GmiiTop, "mii": MiiTop, "rgmii": RgmiiTop}
