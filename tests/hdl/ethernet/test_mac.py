"""The MAC at its pins, by the PHYs of cocotbext-eth: an outside judge of preamble, FCS, gap and both edges."""

import pytest

from bpfnic.sim.cocotb import runner
from bpfnic.sim.rtl.build import verilog_of
from tests.hdl.ethernet.tops import TOPS

pytestmark = pytest.mark.timeout(1200)  # the first to run compile, all simulate 100,000 clocks
CLOCKS = "clk", "rst", "rx_clk", "rx_rst", "tx_clk", "tx_rst"
PACES = [(0, 0), (30, 30), (80, 60)]


@pytest.fixture(scope="session")
def mac(tmp_path_factory):
    """A function (adapter, folder, bench or None for all, environment) that runs benches."""
    folder = tmp_path_factory.mktemp("mac")
    for name, top in TOPS.items():
        (folder / f"{name}.v").write_text(verilog_of(top(), name))

    def run(kind: str, results, testcase: str | None = None, **environment: str) -> None:
        ports = [*CLOCKS, *TOPS[kind]().signature.members]
        runner.run(folder, "tests.hdl.ethernet.benches", results, testcase, top=kind, ports=ports, KIND=kind,
                   COCOTB_LOG_LEVEL="WARNING", **environment)  # fmt: skip

    return run


@pytest.mark.parametrize("kind", ["gmii", "rgmii"])
def test_gigabit(mac, tmp_path, kind):
    mac(kind, tmp_path)


def test_100_mbit(mac, tmp_path):
    mac("mii", tmp_path, SPEED="100")


# The transmit domain has 10 or 100 clocks a byte here, of which the simulation sees each.
@pytest.mark.parametrize("speed, testcase", [("100", "both_ways_at_once"), ("100", "the_link_is_shown"),
                                             ("10", "both_ways_at_once")])  # fmt: skip
def test_slow_rgmii(mac, tmp_path, speed, testcase):
    mac("rgmii", tmp_path, testcase, SPEED=speed, CORE_NS="20")


@pytest.mark.parametrize("idle, stall", PACES)
@pytest.mark.parametrize("core", ["5.1", "8", "9.7"])
def test_paces_and_core_clocks(mac, tmp_path, idle, stall, core):
    """The core is slower or faster than the wire, and stops now and then."""
    mac("gmii", tmp_path, CORE_NS=core, IDLE=str(idle), STALL=str(stall))
