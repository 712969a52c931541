"""Does it fit? What a part has, what a NIC takes, and which parameter to lower."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bpfnic.boards.catalogue import Part
from bpfnic.hdl.core.rom import LOGIC
from bpfnic.spec.errors import BpfnicError

BLOCK_SHAPES = (512, 36), (1024, 18), (2048, 9)  # words and bits of a DP16KD
INFERRED_BITS = 4096  # of a memory that Yosys puts into blocks; below it takes LUTs
HINTS = {
    "blocks of RAM": "--map-bytes, --threads or --program-slots",
    "LUTs": "leave out map types (--map-types) or lower --cores, --threads, --map-banks or --slice-places",
    "multipliers": "--cores, or leave out map types (--map-types)",
}


@dataclass(frozen=True)
class Needs:
    """What a synthesized design takes."""

    luts: int
    blocks: int
    multipliers: int


def check(part: Part, needs: Needs) -> None:
    """Raises BpfnicError with every resource that the part has too few of."""
    lacking = []
    for name, have, need in (
        ("LUTs", part.luts, needs.luts),
        ("blocks of RAM", part.blocks, needs.blocks),
        ("multipliers", part.multipliers, needs.multipliers),
    ):
        if need > have:
            lacking.append(f"{need:,} {name} of {have:,}, {need - have:,} too many (lower {HINTS[name]})")
    if lacking:
        raise BpfnicError(f"too large for the {part.name}: it takes {'; '.join(lacking)}")


def ecp5(cells: Mapping[str, int]) -> Needs:
    """From the number of cells of each type: a carry cell takes two LUT4 sites, a distributed memory six."""
    luts = cells.get("LUT4", 0) + 2 * cells.get("CCU2C", 0) + 6 * cells.get("TRELLIS_DPR16X4", 0)
    return Needs(luts, cells.get("DP16KD", 0), cells.get("MULT18X18D", 0))


def series7(cells: Mapping[str, int]) -> Needs:
    """LUT6 sites, a shift register or distributed memory taking one for each of its LUTs; 36 kbit blocks; DSP48E1."""
    distributed = {"RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4, "RAM32M": 4, "RAM64M": 4, "SRL16E": 1, "SRLC32E": 1}
    luts = sum(count for name, count in cells.items() if re.fullmatch(r"LUT[1-6]|INV", name))
    luts += sum(size * cells.get(name, 0) for name, size in distributed.items())
    return Needs(luts, cells.get("RAMB36E1", 0) + -(-cells.get("RAMB18E1", 0) // 2), cells.get("DSP48E1", 0))


def block_rams(rtlil: str) -> dict[str, int]:
    """Blocks of RAM of a design for an ECP5 before it is synthesized, by what has them: DP16KD that it names, and those
    that Yosys makes of large memories (the MACs' FIFOs, the map engine's program), unless those shall be logic. Yosys
    leaves out a block of which nothing is read."""
    counts: Counter = Counter()
    module, attributes = "", {}  # those of what the next line names
    for line in rtlil.splitlines():
        words = line.split()
        match words[:2]:
            case ["module", name]:
                module = name.lstrip("\\")
            case ["attribute", name]:
                attributes[name] = words[2]
                continue
            case ["cell", "\\DP16KD"]:
                counts[_part(module)] += 1
            case ["memory", "width"]:
                width, size = int(words[2]), int(words[words.index("size") + 1])
                if width * size >= INFERRED_BITS and attributes.get("\\rom_style") != f'"{LOGIC}"':
                    counts[_part(module)] += min(-(-width // bits) * -(-size // depth) for depth, bits in BLOCK_SHAPES)
        attributes = {}
    return dict(sorted(counts.items()))


def _part(module: str) -> str:
    """A module's name holds the way to it: what of it says enough."""
    path = module.split(".")
    path = path[path.index("fabric") + 1 :] if "fabric" in path else path
    depth = 1
    for name in ("card", "nic", "path"):
        depth += path[depth - 1 : depth] == [name]
    return ".".join(path[:depth])
