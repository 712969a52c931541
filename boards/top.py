"""A board's top: its clocks, resets and pins around the Fabric."""

from amaranth import ClockDomain, ClockSignal, Elaboratable, Module, Signal
from amaranth.lib.cdc import ResetSynchronizer

from bpfnic.boards import pins, pll
from bpfnic.boards.catalogue import Board
from bpfnic.boards.fabric import Fabric, receive_domain, transmit_domain

RGMII_HERTZ = 125 * pll.MEGA
MII_REFERENCE_HERTZ = 25 * pll.MEGA  # for a PHY without a crystal, as the Arty's
PHY_RESET_SECONDS = 0.02  # longer than every PHY's data sheet asks for


class Top(Elaboratable):
    """Parameters
    ----------
    board : where it is going to live.
    fabric : what it is.
    clocks : of the PLL: its fixed output is 125 MHz for RGMII, or a MII PHY's reference; the free one the core's.
    """

    def __init__(self, board: Board, fabric: Fabric, clocks: pll.Pll):
        self.board, self.fabric, self.clocks = board, fabric, clocks

    def elaborate(self, platform) -> Module:
        m = Module()
        board = self.board
        hertz = int(self.clocks.frequencies[1])
        m.submodules.fabric = fabric = self.fabric
        groups = pins.request_ports(platform, board, len(fabric.ports))
        self._clocks(m, platform)
        if board.kind == "mii":
            pins.drive(m, "reference", platform.request("eth_clk25", dir="-"), ClockSignal("reference"))

        waited = Signal(range(round(hertz * PHY_RESET_SECONDS) + 1))
        ready = waited == round(hertz * PHY_RESET_SECONDS)
        with m.If(~ready):
            m.d.sync += waited.eq(waited + 1)
        for index, group in enumerate(groups):
            port = getattr(fabric, f"port{index}")
            if board.kind == "rgmii":
                pins.rgmii(m, index, group, port, board)
            else:
                pins.mii(m, index, group, port)
            if hasattr(group, "rst"):
                pins.drive(m, f"phy_reset{index}", group.rst, ~ready)

        if board.uart:
            if board.uart_pins:
                platform.add_resources([pins.uart_resource(board)])
            uart = platform.request("uart", dir="-")
            m.d.comb += fabric.uart_rx.eq(pins.buffered(m, "uart_rx", uart.rx))
            pins.drive(m, "uart_tx", uart.tx, fabric.uart_tx)
        for (name, number, part), light in zip(board.leds, fabric.lights, strict=False):
            led = platform.request(name, number, dir="-")
            pins.drive(m, f"led{number}", getattr(led, part) if part else led, light)
        return m

    def _clocks(self, m: Module, platform) -> None:
        """PLL, domains, and resets that end in their own clock."""
        board = self.board
        source = pins.buffered(m, "oscillator", platform.request(platform.default_clk, dir="-"))
        button = Signal()
        if platform.default_rst:
            m.d.comb += button.eq(pins.buffered(m, "reset", platform.request(platform.default_rst, dir="-")))
        if board.part.family == "ecp5":
            fixed, free, locked = pll.ecp5(m, source, button, self.clocks)
        else:
            fixed, free, locked = pll.series7(m, source, button, self.clocks, int(platform.default_clk_frequency))
        m.domains += ClockDomain("sync")
        m.d.comb += ClockSignal("sync").eq(free)
        fixed_domain = "transmit" if board.kind == "rgmii" else "reference"
        m.domains += ClockDomain(fixed_domain, reset_less=board.kind == "mii")
        m.d.comb += ClockSignal(fixed_domain).eq(fixed)
        domains = {"sync"}
        for port in self.fabric.ports:
            domains |= {receive_domain(port), transmit_domain(board.kind, port)}
        for domain in sorted(domains):
            m.submodules[f"reset_{domain}"] = ResetSynchronizer(~locked, domain=domain)


def clocks_of(board: Board, megahertz: float) -> pll.Pll:
    """The PLL's parameters for a core of up to so many megahertz. Raises BpfnicError where there are none."""
    fixed = RGMII_HERTZ if board.kind == "rgmii" else MII_REFERENCE_HERTZ
    limits, is_output = (pll.ECP5, True) if board.part.family == "ecp5" else (pll.SERIES7, False)
    source = int(board.open().default_clk_frequency)
    return pll.solve(limits, source, fixed, round(megahertz * pll.MEGA), feedback_is_output=is_output)
