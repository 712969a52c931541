"""Builds a netlist for cocotb and runs benches on it; one build serves every bench and session (sim/rtl/cache)."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from bpfnic.sim.rtl import build

NIC = ("clk", "rst", "advance", "s_ax*", "m_ax*", "trace_*")
"""The NIC's ports, as Verilator's configuration names variables."""


def simulator(design: Path, say: build.Say = build.silent, top: str = "nic", ports: Iterable[str] = NIC) -> Path:
    """cocotb's executable of module `top` of the netlist design/`top`.v. Benches touch the ports alone: what Verilator
    need not keep readable it makes fast, and compiles sooner."""
    from cocotb_tools import config

    with tempfile.TemporaryDirectory(prefix="bpfnic-") as scratch:
        readable = Path(scratch) / "ports.vlt"
        lines = (f'public_flat_rw -module "{top}" -var "{name}"\n' for name in ports)
        readable.write_text("`verilator_config\n" + "".join(lines))
        recipe = build.Recipe(
            "cocotb",
            top,
            (design / f"{top}.v", readable, config.share_dir / "lib" / "verilator" / "verilator.cpp"),
            verilate=("--vpi", "--exe", "--top-module", top, "--prefix", "Vtop", "--timescale", "1ns/1ps"),
            link=(f"-Wl,-rpath,{config.libs_dir}", f"-L{config.libs_dir}", "-lcocotbvpi_verilator"),
            runtime=("verilated.cpp", "verilated_threads.cpp", "verilated_vpi.cpp"),
        )
        return build.make(recipe, say)


def run(
    design: Path,
    module: str,
    folder: Path,
    testcase: str | None = None,
    *,
    top: str = "nic",
    ports: Iterable[str] = NIC,
    **environment: str,
) -> Path:
    """Run the benches of a Python module on a netlist; results and logs go to `folder`. Returns the results file.

    Fails as cocotb's runner does, under pytest with the bench's own failure.
    """
    from cocotb_tools.runner import get_runner

    return get_runner("verilator").test(
        test_module=module,
        hdl_toplevel=top,
        hdl_toplevel_lang="verilog",
        testcase=testcase,
        build_dir=simulator(design, top=top, ports=ports).parent,
        test_dir=folder,
        extra_env=environment,
    )
