"""The whole board in simulation, from RGMII pins to RGMII pins and at its UART's: what wholeboard.py does with it."""

import pytest

from bpfnic.sim.cocotb import runner
from bpfnic.sim.rtl import build
from tests.boards.boardtop import CLOCKS, BoardTop
from tests.boards.simulated import CONFIG, HERE

pytestmark = pytest.mark.timeout(1800)  # the first to run compiles a NIC


def test_the_driver_and_traffic_at_the_pins(tmp_path):
    def write(folder):
        (folder / "board.v").write_text(build.verilog_of(BoardTop(CONFIG), "board"))

    design = build.netlist_by(write, [HERE / "boardtop.py"], CONFIG)
    ports = [*CLOCKS, *(f"receive{port}_{name}" for port in range(CONFIG.nic.ports) for name in ("clk", "rst")),
             *BoardTop(CONFIG).signature.members]  # fmt: skip
    runner.run(design, "tests.boards.wholeboard", tmp_path, top="board", ports=ports, COCOTB_LOG_LEVEL="WARNING")
