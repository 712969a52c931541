"""The NIC with every clock touched: cocotb's buses against the golden model, idle x backpressure x length."""

import pytest

from bpfnic.hdl.config import NicConfig
from bpfnic.sim.cocotb import runner
from bpfnic.sim.rtl import build


@pytest.mark.parametrize("idle", [0, 30, 80])
@pytest.mark.parametrize("stall", [0, 30, 80])
def test_frames_at_every_pace(idle: int, stall: int, tmp_path) -> None:
    runner.run(
        build.netlist(NicConfig(trace=True)), "bpfnic.sim.cocotb.frames", tmp_path, IDLE=str(idle), STALL=str(stall)
    )
