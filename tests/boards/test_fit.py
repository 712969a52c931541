"""Resources: what is too much is said with the parameter to lower; what is counted is what Yosys makes of it."""

import json
from pathlib import Path

import pytest

from bpfnic.boards import build, fit, recipe, tools
from bpfnic.boards.catalogue import BOARDS, ECP5_25
from bpfnic.boards.fit import Needs
from bpfnic.sim.rtl import cache
from bpfnic.spec.errors import BpfnicError


def test_what_fits_passes():
    fit.check(ECP5_25, Needs(24_288, 56, 28))


@pytest.mark.parametrize("needs, error", [
    (Needs(24_288, 61, 28), r"too large for the LFE5U-25F: it takes 61 blocks of RAM of 56, 5 too many "
                            r"\(lower --map-bytes, --threads or --program-slots\)$"),
    (Needs(30_000, 56, 28), r"it takes 30,000 LUTs of 24,288, 5,712 too many \(lower leave out map types"),
    (Needs(30_000, 57, 29), r"LUTs .*; 57 blocks of RAM .*; 29 multipliers of 28, 1 too many"),
])  # fmt: skip
def test_too_large(needs, error):
    with pytest.raises(BpfnicError, match=error):
        fit.check(ECP5_25, needs)


def test_cells_are_sites():
    """A carry cell is two LUTs, a distributed memory four and two for its write port."""
    cells = {"LUT4": 100, "CCU2C": 10, "TRELLIS_DPR16X4": 5, "DP16KD": 3, "MULT18X18D": 2, "TRELLIS_FF": 99}
    assert fit.ecp5(cells) == Needs(150, 3, 2)
    xilinx = {"LUT6": 7, "LUT2": 3, "RAM32M": 2, "RAMB36E1": 2, "RAMB18E1": 3, "DSP48E1": 4}
    assert fit.series7(xilinx) == Needs(18, 4, 4)


@pytest.mark.timeout(2400)
def test_the_smallest_board_as_yosys_maps_it(tmp_path):
    """The Colorlight's whole design fits its part, and the budget's blocks of RAM are Yosys', but for one. Its netlist
    is kept until the hardware changes."""
    board = BOARDS["colorlight-5a-75b"]
    build._write(build.Request(board, {}, bytes(16), 1_000_000, board.megahertz), tmp_path, bytes(32))
    design = (tmp_path / "nic.il").read_text()

    def synthesize(folder: Path) -> None:
        script = f"read_rtlil nic.il; {recipe.of(board).synthesis('nic')}"
        tools.YOSYS.run(["-q", "-p", script], tmp_path)
        (folder / "stat.json").write_bytes((tmp_path / "stat.json").read_bytes())

    key = cache.digest([design, tools.YOSYS.version()])
    stat = json.loads((cache.entry("synthesis", key, synthesize) / "stat.json").read_text())
    needs = fit.ecp5(stat["design"]["num_cells_by_type"])
    # Yosys leaves out a block of which nothing is read: one of a map's description, where no type needs it.
    assert needs.blocks <= sum(fit.block_rams(design).values()) <= needs.blocks + 1
    fit.check(board.part, needs)
