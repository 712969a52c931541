"""A whole board but for its PLL and cells, as Verilog for cocotb: the Fabric with both edges at its RGMII pins, as
tests/hdl/ethernet/tops.py has them for one MAC."""

from amaranth import ClockDomain, ClockSignal, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from bpfnic.boards.fabric import Fabric, receive_domain
from bpfnic.hdl.card import CardConfig
from bpfnic.spec.ethernet import Speed

CLOCKS = ("clk", "rst", "transmit_clk", "transmit_rst", "tx_clk_late")
UP = 1 | Speed.MBIT_1000 << 1 | 1 << 3  # what the PHYs say between frames: link, speed, full duplex
HERTZ = 1_000_000  # of the lights alone


class BoardTop(Component):
    """portN_rx_ctl, …: pins of port N; uart_rx, uart_tx; tx_clk_late: the transmit clock a quarter later."""

    def __init__(self, config: CardConfig):
        self.config = config
        pins = {"rx_ctl": In(1), "rx_data": In(4), "tx_ctl": Out(1), "tx_data": Out(4), "tx_clk": Out(1)}
        super().__init__(
            {f"port{port}_{name}": pin for port in range(config.nic.ports) for name, pin in pins.items()}
            | {"uart_rx": In(1, init=1), "uart_tx": Out(1, init=1), "tx_clk_late": In(1)}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.fabric = fabric = Fabric(self.config, "rgmii", HERTZ)
        m.d.comb += [fabric.uart_rx.eq(self.uart_rx), self.uart_tx.eq(fabric.uart_tx)]
        m.domains += ClockDomain("late", local=True, reset_less=True)
        m.d.comb += ClockSignal("late").eq(self.tx_clk_late)
        for port in fabric.ports:
            inner = getattr(fabric, f"port{port}")
            pins = {name: getattr(self, f"port{port}_{name}") for name in ("rx_ctl", "rx_data", "tx_ctl", "tx_data",
                                                                           "tx_clk")}  # fmt: skip
            rise, fall = receive_domain(port), f"fall{port}"
            m.domains += ClockDomain(fall, clk_edge="neg", local=True, reset_less=True)
            m.d.comb += ClockSignal(fall).eq(ClockSignal(rise))
            for half, (domain, frame) in enumerate([(rise, pins["rx_ctl"]), (fall, inner.rx_ctl[0])]):
                m.d[domain] += inner.rx_ctl[half].eq(pins["rx_ctl"])
                m.d[domain] += inner.rx_data[half].eq(pins["rx_data"] | Mux(frame, 0, UP))
            clock, late = ClockSignal("transmit"), Signal(2, name=f"late{port}")
            m.d.late += late.eq(inner.tx_clk[0] | inner.tx_clk[1] << 1)
            m.d.comb += [
                pins["tx_ctl"].eq(Mux(clock, inner.tx_ctl[0], inner.tx_ctl[1])),
                pins["tx_data"].eq(Mux(clock, inner.tx_data[0], inner.tx_data[1])),
                pins["tx_clk"].eq(Mux(self.tx_clk_late, late[0], late[1])),
            ]
        return m
