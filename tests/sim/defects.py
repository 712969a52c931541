"""A NIC that is wrong: its netlist with a few operators changed, compiled."""

import re
import shutil
from pathlib import Path

from bpfnic.host.device import DeviceOptions
from bpfnic.sim.fuzz.compare import configuration
from bpfnic.sim.rtl import build
from tests.sim.bench import ONE_CORE

OPTIONS = DeviceOptions(**ONE_CORE)
DEFECTS = {  # text of nic.v, of which there is one, and what becomes of it
    r"(= left) \^ (right;)": r"\1 | \2",  # exclusive or
    r"(= left\[63\]) \^ (right\[63\];)": r"\1 & \2",  # whether the operands of a comparison have different signs
    r"(low_sum = old\[31:0\]) \+ ": r"\1 - ",  # what an atomic adds, at the bank; a borrow counts as a carry
}


def defective_library(folder: Path) -> Path:
    """nic.so of a NIC of OPTIONS with DEFECTS; `folder` is for its netlist."""
    design = build.netlist(configuration(OPTIONS))
    for name in build.NETLIST:
        shutil.copy(design / name, folder)
    text = (folder / "nic.v").read_text()
    for was, becomes in DEFECTS.items():
        text, count = re.subn(was, becomes, text)
        assert count == 1, f"{count} times {was}: the netlist looks otherwise now"
    (folder / "nic.v").write_text(text)
    return build.library(folder)
