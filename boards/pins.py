"""Pins of an Ethernet port: one set of names for all boards, and the cells between pins and the adapters' halves."""

from amaranth import ClockDomain, ClockSignal, Instance, Module, Signal
from amaranth.build import Attrs, Clock, Pins, Resource, Subsignal
from amaranth.lib import io

from bpfnic.boards.catalogue import Board
from bpfnic.boards.fabric import receive_domain, transmit_domain
from bpfnic.spec.errors import BpfnicError

NAMES = {"tx_ctrl": "tx_ctl", "rx_ctrl": "rx_ctl"}
"""How some boards call what others call differently."""

UNUSED = {"mdc", "mdio", "int", "col", "crs"}
TAP_NS = 0.025
TAPS = 128  # FPGA-TN-02032: a delay cell's steps


def request_ports(platform, board: Board, count: int) -> list:
    """Requests the board's first ports. What several of them share (a reset) belongs to the first."""
    taken: set[str] = set()
    groups = []
    for index, number in enumerate(board.ports[:count]):
        subsignals = []
        for sub in platform.lookup(f"eth_{board.kind}", number).ios:
            names = set(sub.ios[0].names)
            if sub.name in UNUSED or names & taken:
                continue
            taken |= names
            parts = list(sub.ios)
            if sub.name.endswith("_clk") and sub.ios[0].dir == "i":
                parts.append(Clock(125e6 if board.kind == "rgmii" else 25e6))
            subsignals.append(Subsignal(NAMES.get(sub.name, sub.name), *parts, *_attributes(sub)))
        whole = platform.lookup(f"eth_{board.kind}", number)
        platform.add_resources([Resource("port", index, *subsignals, *_attributes(whole))])
        groups.append(platform.request("port", index, dir="-"))
    return groups


def _attributes(thing) -> list:
    return [thing.attrs] if thing.attrs else []


def buffered(m: Module, name: str, port) -> Signal:
    """An input pin."""
    m.submodules[name] = buffer = io.Buffer("i", port)
    return buffer.i


def drive(m: Module, name: str, port, value) -> None:
    """An output pin."""
    m.submodules[name] = buffer = io.Buffer("o", port)
    m.d.comb += buffer.o.eq(value)


def clock(m: Module, name: str, domain: str, port) -> None:
    """A clock domain from a pin."""
    m.domains += ClockDomain(domain)
    m.d.comb += ClockSignal(domain).eq(buffered(m, name, port))


def rgmii(m: Module, index: int, group, pins, board: Board) -> None:
    """`pins` (fabric.RgmiiPins) to the cells of port number `index`."""
    receive, transmit = receive_domain(index), transmit_domain("rgmii", index)
    transmit_delay, receive_delay = board.delays
    clock(m, f"rx_clk{index}", receive, group.rx_clk)
    double_in, double_out = (_ecp5_in, _ecp5_out) if board.part.family == "ecp5" else (_plain_in, _plain_out)
    for name in ("rx_ctl", "rx_data"):
        double_in(m, f"{name}{index}", getattr(group, name), getattr(pins, name), receive, receive_delay)
    for name, delay in (("tx_ctl", 0), ("tx_data", 0), ("tx_clk", transmit_delay)):
        double_out(m, f"{name}{index}", getattr(group, name), getattr(pins, name), transmit, delay)


def mii(m: Module, index: int, group, pins) -> None:
    """The same for MII: registers at the pins."""
    receive, transmit = receive_domain(index), transmit_domain("mii", index)
    clock(m, f"rx_clk{index}", receive, group.rx_clk)
    clock(m, f"tx_clk{index}", transmit, group.tx_clk)
    for name in ("rx_dv", "rx_er", "rx_data"):
        m.submodules[f"{name}{index}"] = buffer = io.FFBuffer("i", getattr(group, name), i_domain=receive)
        m.d.comb += getattr(pins, name).eq(buffer.i)
    for name in ("tx_en", "tx_data"):
        m.submodules[f"{name}{index}"] = buffer = io.FFBuffer("o", getattr(group, name), o_domain=transmit)
        m.d.comb += buffer.o.eq(getattr(pins, name))


def _plain_in(m: Module, name: str, port, halves, domain: str, delay: float) -> None:
    _without_delay(name, delay)
    m.submodules[name] = buffer = io.DDRBuffer("i", port, i_domain=domain)
    m.d.comb += [half.eq(level) for half, level in zip(halves, buffer.i, strict=True)]


def _plain_out(m: Module, name: str, port, halves, domain: str, delay: float) -> None:
    _without_delay(name, delay)
    m.submodules[name] = buffer = io.DDRBuffer("o", port, o_domain=domain)
    m.d.comb += [level.eq(half) for half, level in zip(halves, buffer.o, strict=True)]


def _without_delay(name: str, delay: float) -> None:
    if delay:
        raise BpfnicError(f"{name}: delays are made of an ECP5's cells alone")


def _ecp5_in(m: Module, name: str, port, halves, domain: str, delay: float) -> None:
    """Pin, delay, IDDRX1F; the platform's own buffer has no place for a delay."""
    levels = buffered(m, name, port)
    for bit in range(len(port)):
        level = _delayed(m, f"{name}_delay{bit}", levels[bit], delay)
        m.submodules[f"{name}_ddr{bit}"] = Instance(
            "IDDRX1F", i_SCLK=ClockSignal(domain), i_RST=0, i_D=level, o_Q0=halves[0][bit], o_Q1=halves[1][bit]
        )


def _ecp5_out(m: Module, name: str, port, halves, domain: str, delay: float) -> None:
    levels = Signal(len(port), name=f"{name}_level")
    for bit in range(len(port)):
        level = Signal(name=f"{name}_early{bit}")
        m.submodules[f"{name}_ddr{bit}"] = Instance(
            "ODDRX1F", i_SCLK=ClockSignal(domain), i_RST=0, i_D0=halves[0][bit], i_D1=halves[1][bit], o_Q=level
        )
        m.d.comb += levels[bit].eq(_delayed(m, f"{name}_delay{bit}", level, delay))
    drive(m, name, port, levels)


def _delayed(m: Module, name: str, level, delay: float):
    taps = round(delay / TAP_NS)
    if taps >= TAPS:
        raise BpfnicError(f"{name}: a delay is at most {(TAPS - 1) * TAP_NS:g} ns, not {delay:g}")
    if not taps:
        return level
    late = Signal(name=name)
    m.submodules[name] = Instance("DELAYG", p_DEL_MODE="USER_DEFINED", p_DEL_VALUE=taps, i_A=level, o_Z=late)
    return late


def uart_resource(board: Board) -> Resource:
    """Of a board whose platform has none: pins of connectors, "NAME_NUMBER:PIN"."""
    parts = []
    for name, pin, direction in zip(("rx", "tx"), board.uart_pins, "io", strict=True):
        connector, _, place = pin.partition(":")
        kind, _, number = connector.rpartition("_")
        parts.append(Subsignal(name, Pins(place, dir=direction, conn=(kind, int(number)))))
    return Resource("uart", 0, *parts, Attrs(IO_TYPE="LVCMOS33"))
