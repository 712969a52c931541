"""The card: the NIC, what reaches it over a wire, and who its interfaces' frames come from and go to.

    mac_rx, mac_tx ──▶ Switch ──▶ interface ┌─────┐
                        ▲ │                 │ Nic │
         Injector ──────┘ └──▶ Capture      └──▲──┘
             ▲                    │            │ AXI4-Lite
             └──── registers ─────┴── bus ─────┘
                       (spec/card.py) ▲
    uart ──▶ UartLink ──▶ Endpoint ───┘
    management: InBand, between a port's MAC and its Switch ──▶ Endpoint
"""

from dataclasses import dataclass

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.ethernet.interfaces import StatisticsPort
from bpfnic.hdl.interfaces import EGRESS_USER, INGRESS_USER, Beat
from bpfnic.hdl.nic import Nic, interface_names
from bpfnic.hdl.wire import Bus, Endpoint, InBand, UartLink
from bpfnic.hdl.wire.frames import Capture, Injector, Switch
from bpfnic.spec.card import (
    BASE,
    BY_NAME,
    CAPTURED_INTERFACE_BIT,
    CAPTURED_MORE,
    CAPTURED_USER_BIT,
    CAPTURED_VALID,
    INJECT_INTERFACE_BIT,
    INJECT_USER_BIT,
    MAC_WORDS,
)
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import ADDRESS_BYTES, DEFAULT_ADDRESS, KEY_BYTES

_NIC_ADDRESS_BITS = 12
_ACCESS_CLOCKS = 4
BUILD_ID_BYTES = 4 * BY_NAME["BUILD_ID"].count


@dataclass(frozen=True)
class CardConfig:
    """Parameters
    ----------
    nic : the NIC.
    key : 16 bytes, which a driver must know.
    clocks_per_bit : of the UART; 4 or more.
    build_id : SHA-256 of what it is made of, 32 bytes.
    management : the port whose MAC brings messages, besides the UART; None for none.
    address : the card's there, 6 bytes.
    """

    nic: NicConfig
    key: bytes
    clocks_per_bit: int
    build_id: bytes = bytes(BUILD_ID_BYTES)
    management: int | None = None
    address: bytes = DEFAULT_ADDRESS

    def __post_init__(self) -> None:
        for name, length in (("key", KEY_BYTES), ("build_id", BUILD_ID_BYTES), ("address", ADDRESS_BYTES)):
            if len(getattr(self, name)) != length:
                raise BpfnicError(f"{name} must be {length} bytes, not {len(getattr(self, name))}")
        if self.clocks_per_bit < 4:
            raise BpfnicError(f"clocks_per_bit must be at least 4, not {self.clocks_per_bit!r}")
        if self.management not in (None, *range(self.nic.ports)):
            raise BpfnicError(f"management must be one of the {self.nic.ports} ports, not {self.management!r}")
        if self.address[0] & 1:
            raise BpfnicError(f"address must be that of one card, not of a group: {self.address.hex(':')}")


class Card(Component):
    """Members
    -------
    mac_rx, mac_tx : frames from and to each port's MAC.
    mac_status : what it counts, for the registers.
    uart_rx, uart_tx : 8N1; of any clock, and a register.
    active : strobe of one clock, somebody who has the key has said something.
    """

    def __init__(self, config: CardConfig):
        self.config = config
        ports = config.nic.ports
        super().__init__(
            {
                "mac_rx": In(stream.Signature(Beat(INGRESS_USER))).array(ports),
                "mac_tx": Out(stream.Signature(Beat(EGRESS_USER))).array(ports),
                "mac_status": Out(StatisticsPort).array(ports),
                "uart_rx": In(1, init=1),
                "uart_tx": Out(1, init=1),
                "active": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, ports = self.config, self.config.nic.ports
        m.submodules.nic = nic = Nic(config.nic)
        links = 1 if config.management is None else 2
        m.submodules.endpoint = endpoint = Endpoint(config.key, links, config.nic.target)
        m.submodules.uart = uart = UartLink(config.clocks_per_bit)
        connect(m, uart.link, endpoint.links[0])
        m.d.comb += [uart.rx.eq(self.uart_rx), self.uart_tx.eq(uart.tx), self.active.eq(endpoint.active)]

        m.submodules.injector = injector = Injector(config.nic.target)
        m.submodules.capture = capture = Capture(config.nic.interfaces, config.nic.target)
        switches = []
        interface = Signal(range(config.nic.interfaces))
        for number, name in enumerate(interface_names(config.nic)):
            m.submodules[f"switch_{name}"] = switch = Switch()
            switches.append(switch)
            if number == config.management:
                m.submodules.inband = inband = InBand(config.address)
                connect(m, flipped(self.mac_rx[number]), inband.mac_rx)
                connect(m, inband.mac_tx, flipped(self.mac_tx[number]))
                connect(m, inband.ingress, switch.mac_rx)
                connect(m, switch.mac_tx, inband.egress)
                connect(m, inband.link, endpoint.links[1])
            elif number < ports:
                connect(m, flipped(self.mac_rx[number]), switch.mac_rx)
                connect(m, switch.mac_tx, flipped(self.mac_tx[number]))
            else:
                m.d.comb += switch.wired.eq(1)
            m.d.comb += switch.injected.payload.eq(injector.frame.payload)
            with m.If(interface == number):
                m.d.comb += switch.injected.valid.eq(injector.frame.valid)
                m.d.comb += injector.frame.ready.eq(switch.injected.ready)
            connect(m, switch.captured, capture.frames[number])
            _connect(m, nic, f"s_axis_{name}", switch.ingress, arriving=True)
            _connect(m, nic, f"m_axis_{name}", switch.egress, arriving=False)

        # What answers an access is found in one clock and told in the next: it has a long way.
        bus, told = Bus.create(path=("bus",)), endpoint.bus
        m.d.comb += [bus.valid.eq(told.valid & ~told.done), bus.write.eq(told.write)]
        m.d.comb += [bus.address.eq(told.address), bus.data.eq(told.data)]
        m.d.sync += [told.done.eq(bus.done), told.refused.eq(bus.refused), told.answer.eq(bus.answer)]
        own = bus.address[_NIC_ADDRESS_BITS]
        self._reach_nic(m, nic, bus, bus.valid & ~own)
        self._registers(m, bus, bus.valid & own, injector, interface, capture, switches)
        return m

    def _reach_nic(self, m: Module, nic: Nic, bus, valid) -> None:
        """AXI4-Lite: address and data of a write together, one access at a time."""
        issued = Signal()
        writes, reads = valid & bus.write & ~issued, valid & ~bus.write & ~issued
        taken = Mux(bus.write, nic.s_axil_awready & nic.s_axil_wready, nic.s_axil_arready)
        m.d.comb += [
            nic.s_axil_awvalid.eq(writes), nic.s_axil_wvalid.eq(writes), nic.s_axil_arvalid.eq(reads),
            nic.s_axil_awaddr.eq(bus.address), nic.s_axil_araddr.eq(bus.address),
            nic.s_axil_wdata.eq(bus.data), nic.s_axil_wstrb.eq(0b1111),
            nic.s_axil_bready.eq(1), nic.s_axil_rready.eq(1),
        ]  # fmt: skip
        with m.If(valid & ~issued & taken):
            m.d.sync += issued.eq(1)
        with m.If(valid):
            m.d.comb += bus.answer.eq(nic.s_axil_rdata)
        with m.If(issued & Mux(bus.write, nic.s_axil_bvalid, nic.s_axil_rvalid)):
            m.d.comb += [bus.done.eq(1), bus.refused.eq(Mux(bus.write, nic.s_axil_bresp, nic.s_axil_rresp) != 0)]
            m.d.sync += issued.eq(0)

    def _registers(self, m: Module, bus, valid, injector, interface, capture, switches) -> None:
        """Those of spec.card. An access takes _ACCESS_CLOCKS, behind which CAPTURE_DATA is there again."""
        config, ports = self.config, self.config.nic.ports
        route = Signal(ports, init=-1)
        m.d.comb += [switch.wired.eq(route[port]) for port, switch in enumerate(switches[:ports])]
        changing = Cat(switch.changes for switch in switches[:ports]).any()
        captured = (
            capture.length
            | capture.number << CAPTURED_INTERFACE_BIT
            | capture.user << CAPTURED_USER_BIT
            | Mux(capture.more, CAPTURED_MORE, 0)
            | CAPTURED_VALID
        )
        idle = ~injector.busy

        shown = {
            "BUILD_ID": [int.from_bytes(config.build_id[i : i + 4], "little") for i in range(0, BUILD_ID_BYTES, 4)],
            "ROUTE": [route],
            "STATUS": [Cat(injector.busy, changing)],
            "CAPTURED": [Mux(capture.full, captured, 0)],
            "CAPTURE_DATA": [capture.data],
        }
        length, chosen = bus.data[:INJECT_INTERFACE_BIT], bus.data[INJECT_INTERFACE_BIT:INJECT_USER_BIT]
        sends = idle & (length != 0) & (chosen < config.nic.interfaces)
        allowed = {"ROUTE": 1, "INJECT_DATA": idle, "INJECT": sends, "RELEASE": capture.full}

        timer, value = Signal(range(_ACCESS_CLOCKS)), Signal(32, reset_less=True)
        word, found = bus.address[2:_NIC_ADDRESS_BITS], Signal()
        accessed = Signal()
        m.d.comb += accessed.eq(valid & (timer == _ACCESS_CLOCKS - 1))
        m.d.sync += timer.eq(Mux(valid, timer + 1, 0))
        with m.Switch(word):
            for name, values in shown.items():
                for index, each in enumerate(values):
                    with m.Case(_word(name, index)):
                        m.d.comb += found.eq(~bus.write)
                        m.d.sync += value.eq(each)
            for port, status in enumerate(self.mac_status):
                with m.Case(*(_word("MAC", MAC_WORDS * port + i) for i in range(MAC_WORDS))):
                    m.d.comb += found.eq(~bus.write)
                    m.d.sync += value.eq(status.value)
        m.d.comb += [status.address.eq(word) for status in self.mac_status]
        taken = {name: Signal(name=name.lower()) for name in allowed}
        for name, may in allowed.items():
            with m.If((word == _word(name)) & bus.write):
                m.d.comb += [found.eq(may), taken[name].eq(accessed & may)]
        with m.If(accessed):
            m.d.comb += [bus.done.eq(1), bus.refused.eq(~found), bus.answer.eq(value)]

        with m.If(taken["ROUTE"]):
            m.d.sync += route.eq(bus.data)
        with m.If(taken["INJECT"]):
            m.d.sync += interface.eq(chosen)
        m.d.comb += [
            injector.write.eq(taken["INJECT_DATA"]),
            injector.data.eq(bus.data),
            injector.start.eq(taken["INJECT"]),
            injector.length.eq(length),
            injector.user.eq(bus.data[INJECT_USER_BIT:]),
            capture.release.eq(taken["RELEASE"]),
            capture.advance.eq(accessed & ~bus.write & (word == _word("CAPTURE_DATA"))),
        ]


def _word(name: str, index: int = 0) -> int:
    """Word address of a register from BASE on."""
    return (BY_NAME[name].address(index) - BASE) // 4


def _connect(m: Module, nic: Nic, prefix: str, inner, *, arriving: bool) -> None:
    """An AXI4-Stream of the NIC and a stream of beats."""
    beat = inner.payload
    pairs = [(getattr(nic, f"{prefix}_t{name}"), getattr(beat, name)) for name in ("data", "keep", "last", "user")]
    pairs += [(getattr(nic, f"{prefix}_tvalid"), inner.valid), (inner.ready, getattr(nic, f"{prefix}_tready"))]
    m.d.comb += [outer.eq(own) if arriving else own.eq(outer) for outer, own in pairs]
