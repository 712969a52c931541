"""All of a board's NIC that needs no cells of a part: card, MACs, adapters, lights. Around it are clocks and pins
(top.py), or a simulation."""

from amaranth import Module, Signal
from amaranth.lib.wiring import Component, In, Out, Signature, connect

from bpfnic.hdl.card import Card, CardConfig
from bpfnic.hdl.ethernet import Mac, Mii, Rgmii

RgmiiPins = Signature(
    {
        "rx_ctl": Out(1).array(2), "rx_data": Out(4).array(2),
        "tx_ctl": In(1).array(2), "tx_data": In(4).array(2), "tx_clk": In(1).array(2),
    }
)  # fmt: skip
MiiPins = Signature({"rx_dv": Out(1), "rx_er": Out(1), "rx_data": Out(4), "tx_en": In(1), "tx_data": In(4)})
"""From the PHY's side, as the adapters have them (hdl/ethernet/)."""

PINS = {"rgmii": RgmiiPins, "mii": MiiPins}
ADAPTERS = {"rgmii": Rgmii, "mii": Mii}
BLINK_SECONDS = 0.5
SHOWN_SECONDS = 0.05  # how long an event is seen


def receive_domain(port: int) -> str:
    """Of the port's rx_clk."""
    return f"receive{port}"


def transmit_domain(kind: str, port: int) -> str:
    """RGMII: one of 125 MHz for all ports. MII: of the port's tx_clk."""
    return "transmit" if kind == "rgmii" else f"transmit{port}"


class Fabric(Component):
    """Parameters
    ----------
    card : the card.
    kind : "rgmii" or "mii".
    hertz : of "sync", for the lights.

    Members
    -------
    port0, … : halves or levels of pins (PINS), in the domains receive_domain(port) and transmit_domain(kind, port).
    uart_rx, uart_tx : pins.
    lights : alive (blinks), a frame came or left at port 0, …, the endpoint was spoken to.
    """

    def __init__(self, card: CardConfig, kind: str, hertz: int):
        self.card, self.kind, self.hertz = card, kind, hertz
        self.ports = range(card.nic.ports)
        super().__init__(
            {f"port{port}": In(PINS[kind]) for port in self.ports}
            | {"uart_rx": In(1, init=1), "uart_tx": Out(1, init=1), "lights": Out(2 + len(self.ports))}
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.card = card = Card(self.card)
        m.d.comb += [card.uart_rx.eq(self.uart_rx), self.uart_tx.eq(card.uart_tx)]
        moved = []
        for port in self.ports:
            domains = {
                "receive_domain": receive_domain(port),
                "transmit_domain": transmit_domain(self.kind, port),
            }
            m.submodules[f"mac{port}"] = mac = Mac(self.card.nic, **domains)
            m.submodules[f"adapter{port}"] = adapter = ADAPTERS[self.kind](**domains)
            connect(m, adapter.phy_receive, mac.phy_receive)
            connect(m, mac.phy_transmit, adapter.phy_transmit)
            connect(m, mac.received, card.mac_rx[port])
            connect(m, card.mac_tx[port], mac.transmitted)
            connect(m, card.mac_status[port], mac.statistics)
            m.d.comb += mac.link.eq(adapter.link)
            pins = getattr(self, f"port{port}")
            for name, member in PINS[self.kind].members.items():
                for pin, own in zip(_halves(getattr(pins, name)), _halves(getattr(adapter, name)), strict=True):
                    m.d.comb += own.eq(pin) if member.flow is Out else pin.eq(own)
            moved.append(mac.received.valid | mac.transmitted.valid)
        self._lights(m, [*moved, card.active])
        return m

    def _lights(self, m: Module, events: list) -> None:
        timer = Signal(range(round(self.hertz * BLINK_SECONDS)))
        last = timer == round(self.hertz * BLINK_SECONDS) - 1
        with m.If(last):
            m.d.sync += [timer.eq(0), self.lights[0].eq(~self.lights[0])]
        with m.Else():
            m.d.sync += timer.eq(timer + 1)
        for light, event in enumerate(events, 1):
            left = Signal(range(round(self.hertz * SHOWN_SECONDS)), name=f"left{light}")
            with m.If(event):
                m.d.sync += left.eq(round(self.hertz * SHOWN_SECONDS) - 1)
            with m.Elif(left != 0):
                m.d.sync += left.eq(left - 1)
            m.d.sync += self.lights[light].eq(left != 0)


def _halves(member) -> list:
    """The two halves of a clock, or the one level."""
    return [member] if isinstance(member, Signal) else list(member)
