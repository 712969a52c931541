"""Every board's clocks and pins, around a fabric that is only its ports: what the tools get, without the NIC."""

import re

import pytest
from amaranth import Module
from amaranth.lib.wiring import Component

from bpfnic.boards import fabric
from bpfnic.boards.build import Request
from bpfnic.boards.catalogue import BOARDS, find
from bpfnic.boards.pins import TAP_NS
from bpfnic.boards.top import Top, clocks_of
from bpfnic.hdl.card import CardConfig
from bpfnic.hdl.config import NicConfig
from bpfnic.spec.errors import BpfnicError


class Ports(Component):
    """A Fabric's ports."""

    def __init__(self, board):
        self.ports = range(len(board.ports))
        card = CardConfig(NicConfig(ports=len(self.ports)), bytes(16), 125)
        super().__init__(fabric.Fabric(card, board.kind, 125_000_000).signature)

    def elaborate(self, platform):
        return Module()


@pytest.fixture(scope="module", params=BOARDS)
def prepared(request):
    """A board and its files by their endings."""
    board = BOARDS[request.param]
    plan = board.open().prepare(Top(board, Ports(board), clocks_of(board, board.megahertz)), "nic")
    return board, {name.rpartition(".")[2]: str(text) for name, text in plan.files.items()}


def test_pins(prepared):
    """Twelve of each RGMII port, fourteen of an MII port, the oscillator; every pin once."""
    board, files = prepared
    constraints = files.get("lpf") or files["xdc"]
    pins = re.findall(r'LOCATE COMP "(\S+)" SITE "(\S+)"|PACKAGE_PIN (\S+) \[get_ports', constraints)
    sites = [ecp5 or xilinx for _, ecp5, xilinx in pins]
    assert len(sites) == len(set(sites))
    for port in range(len(board.ports)):
        names = set(re.findall(rf"port_{port}__(\w+)__io", constraints))
        clocks = {"rx_clk", "tx_clk", "rx_data", "tx_data"}
        levels = {"rx_ctl", "tx_ctl"} if board.kind == "rgmii" else {"rx_dv", "rx_er", "tx_en"}
        assert names - {"rst"} == clocks | levels


def test_clocks(prepared):
    """What comes from outside is constrained: the oscillator, and each PHY's clock."""
    board, files = prepared
    if board.part.family == "ecp5":
        found = dict(re.findall(r'FREQUENCY PORT "(\S+)" ([\d.]+) HZ', files["lpf"]))
        for port in range(len(board.ports)):
            assert float(found[f"port_{port}__rx_clk__io"]) == 125e6
    else:
        periods = [float(each) for each in re.findall(r"create_clock -name \S+ -period ([\d.]+)", files["xdc"])]
        # Of MII also the one that goes out as the PHY's reference.
        assert periods.count(8.0 if board.kind == "rgmii" else 40.0) == (1 if board.kind == "rgmii" else 3)


def test_delays(prepared):
    """A cell for each pin that the board delays, of so many steps."""
    board, files = prepared
    if board.part.family != "ecp5":
        assert board.delays == (0, 0)
        return
    taps = [int(each) for each in re.findall(r"parameter .*DEL_VALUE (\d+)", files["il"])]
    transmit, receive = (round(delay / TAP_NS) for delay in board.delays)
    expected = ([transmit] if transmit else []) + ([receive] * 5 if receive else [])
    assert sorted(taps) == sorted(expected * len(board.ports))
    assert files["il"].count("cell \\IDDRX1F") == files["il"].count("cell \\ODDRX1F") - len(board.ports)


def test_the_core_is_as_fast_as_asked_or_the_next_slower(prepared):
    board, _ = prepared
    assert 0.9 * board.megahertz <= clocks_of(board, board.megahertz).frequencies[1] / 10**6 <= board.megahertz


def test_unknown():
    with pytest.raises(BpfnicError, match="no board 'arty': there are colorlight-5a-75b, versa-ecp5, "):
        find("arty")


@pytest.mark.parametrize(("megahertz", "clock_ns"), [(125, 8), (50, 20)])
def test_a_cards_time_advances_by_its_own_clock(megahertz, clock_ns):
    assert Request(find("versa-ecp5"), {}, bytes(16), 1_000_000, megahertz).config().clock_ns == clock_ns
