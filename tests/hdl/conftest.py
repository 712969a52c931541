"""What the hardware's tests share: compiling Verilog and a C++ main with Verilator."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def verilate(tmp_path):
    """A function (Verilog files, C++ main, top's name) -> path of the compiled simulation."""

    def compile(verilog: list[Path], main: str, top: str) -> Path:
        (tmp_path / "main.cpp").write_text(main)
        command = [shutil.which("verilator")] if shutil.which("verilator") else [sys.executable, "-m", "verilator"]
        command += ["--cc", "--exe", "--build", "-Wno-fatal", "-Wno-lint", "--top-module", top, "-o", "simulation"]
        command += ["--Mdir", str(tmp_path / "build"), *map(str, verilog), str(tmp_path / "main.cpp")]
        # The wheel was configured with another compiler than gcc, which wants its precompiled header named so.
        command += ["-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include"]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
        return tmp_path / "build" / "simulation"

    return compile
