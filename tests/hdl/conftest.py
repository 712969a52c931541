"""What the hardware's tests share."""

import pytest

from tests.hdl.verilator import compile_simulation


@pytest.fixture
def verilate(tmp_path):
    """A function (Verilog files, C++ main, top's name) -> path of the compiled simulation."""
    return lambda verilog, main, top: compile_simulation(tmp_path, verilog, main, top)
