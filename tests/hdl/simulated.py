"""A component of Amaranth, compiled with Verilator and driven from Python: some ten thousand clocks a second."""

import ctypes
import re
from pathlib import Path

from amaranth.lib import data

from bpfnic.sim.rtl.build import Recipe, make, verilog_of

_CELLS = {8: ctypes.c_uint8, 16: ctypes.c_uint16, 32: ctypes.c_uint32, 64: ctypes.c_uint64}
"""What Verilator keeps a port of so many bits in; wider ones are lists of 32 bits."""


class Library:
    """An Amaranth component as a shared library with a function for the address of each port, from the cache if it was
    compiled before. `folder` takes what is written on the way."""

    def __init__(self, component, folder: Path):
        text = verilog_of(component, "top")
        (folder / "top.v").write_text(text)
        (top,) = re.findall(r"^module top\(.*?^endmodule", text, flags=re.M | re.S)
        ports = re.findall(r"^  (?:input|output) (?:\[(\d+):0\] )?(\w+);", top, flags=re.M)
        self.bits = {name: int(high or 0) + 1 for high, name in ports}
        main = '#include "Vtop.h"\nextern "C" {\nVtop *make() { return new Vtop; }\n'
        main += "void settle(Vtop *top) { top->eval(); }\n"
        main += "void tick(Vtop *top) { top->clk = 1; top->eval(); top->clk = 0; }\n"
        for name in self.bits:
            main += f"void *at_{name}(Vtop *top) {{ return &top->{name.replace('__', '___05F')}; }}\n"
        (folder / "main.cpp").write_text(main + "}\n")
        recipe = Recipe(
            "component", "top.so", (folder / "top.v", folder / "main.cpp"), link=("-shared",),
            verilate=("--top-module", "top", "--prefix", "Vtop", "--output-split", "20000"), compile=("-O1",),
        )  # fmt: skip
        self.functions = ctypes.CDLL(str(make(recipe)))
        self.functions.make.restype = ctypes.c_void_p


class Simulated:
    """One instance of a component. A port by its name in Verilog (`dut["start__0__valid"]`) is a Python integer.

    In each clock: set inputs, settle(), read outputs, tick(). Between settle() and tick() no input may change.
    """

    def __init__(self, library: Library):
        functions = library.functions
        top = ctypes.c_void_p(functions.make())
        self._plain, self._wide = {}, {}
        for name, bits in library.bits.items():
            address = getattr(functions, f"at_{name}")
            address.restype = ctypes.c_void_p
            cell = next((cell for size, cell in _CELLS.items() if bits <= size), None)
            if cell is None:
                self._wide[name] = (ctypes.c_uint32 * -(-bits // 32)).from_address(address(top))
            else:
                self._plain[name] = cell.from_address(address(top))
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


class Fields:
    """A layout as plain numbers: pack(a=1, b=2) -> int, unpack(int) -> dict.

    For what is asked in every clock: Amaranth works out a layout's offsets anew for each value."""

    def __init__(self, layout: data.StructLayout):
        self.fields = [(name, field.offset, (1 << field.width) - 1) for name, field in layout]

    def pack(self, **values: int) -> int:
        return sum((values[name] & ones) << offset for name, offset, ones in self.fields if name in values)

    def unpack(self, word: int) -> dict[str, int]:
        return {name: word >> offset & ones for name, offset, ones in self.fields}


def packed(layout, **fields) -> int:
    """A port's value by the fields of its layout."""
    return layout.const(fields).as_bits()
