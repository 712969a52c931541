"""Compiles Verilog and a C++ main."""

from pathlib import Path

from bpfnic.sim.rtl.build import Recipe, fill_in_loops, make


def compile_simulation(folder: Path, verilog: list[Path], main: str, top: str) -> Path:
    """The compiled simulation of module `top`, from the cache if nothing changed. `folder` takes what is written on the
    way; headers that `main` includes may lie there."""
    inputs = [folder / "main.cpp", *sorted(folder.glob("*.h"))]
    inputs[0].write_text(main)
    (folder / "sources").mkdir(exist_ok=True)
    for path in verilog:
        inputs.append(folder / "sources" / path.name)
        inputs[-1].write_text(fill_in_loops(path.read_text().replace("always @*", "always_comb")))
    return make(Recipe("simulation", "simulation", tuple(inputs), verilate=("--top-module", top), compile=("-O1",)))
