"""Builds a netlist for cocotb and runs benches on it; one build serves every bench and session (sim/rtl/cache)."""

import tempfile
from pathlib import Path

from bpfnic.sim.rtl import build

EXECUTABLE = "nic"
# Benches touch ports alone: what Verilator need not keep readable it makes fast, and compiles sooner.
PORTS_ONLY = """`verilator_config
""" + "".join(
    f'public_flat_rw -module "nic" -var "{name}"\n'
    for name in ("clk", "rst", "advance", "s_ax*", "m_ax*", "trace_*")
)  # fmt: skip


def simulator(design: Path, say: build.Say = build.silent) -> Path:
    """cocotb's executable of the netlist design/nic.v."""
    from cocotb_tools import config

    with tempfile.TemporaryDirectory(prefix="bpfnic-") as scratch:
        ports = Path(scratch) / "ports.vlt"
        ports.write_text(PORTS_ONLY)
        recipe = build.Recipe(
            "cocotb",
            EXECUTABLE,
            (design / "nic.v", ports, config.share_dir / "lib" / "verilator" / "verilator.cpp"),
            verilate=("--vpi", "--exe", "--top-module", "nic", "--prefix", "Vtop", "--timescale", "1ns/1ps"),
            link=(f"-Wl,-rpath,{config.libs_dir}", f"-L{config.libs_dir}", "-lcocotbvpi_verilator"),
            runtime=("verilated.cpp", "verilated_threads.cpp", "verilated_vpi.cpp"),
        )
        return build.make(recipe, say)


def run(design: Path, module: str, folder: Path, testcase: str | None = None, **environment: str) -> Path:
    """Run the benches of a Python module on a netlist; results and logs go to `folder`. Returns the results file.

    Fails as cocotb's runner does, under pytest with the bench's own failure.
    """
    from cocotb_tools.runner import get_runner

    return get_runner("verilator").test(
        test_module=module,
        hdl_toplevel=EXECUTABLE,
        hdl_toplevel_lang="verilog",
        testcase=testcase,
        build_dir=simulator(design).parent,
        test_dir=folder,
        extra_env=environment,
    )
