"""What came out of a build: resources, frequencies, and what holds them back, in our own signals' names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from bpfnic.boards.catalogue import Part
from bpfnic.boards.fit import Needs

MEGA = 1e6
# Cells that Yosys makes are called after the net that they drive; what it appends begins with the cell's type.
_CELL = re.compile(r"_(LUT4|PFUMX|L6MUX21|CCU2C|TRELLIS_FF|TRELLIS_DPR16X4|DP16KD|MULT18X18D|EHXPLLL)\b.*|_(LUT4|PFUMX|"
                   r"L6MUX21|CCU2C|TRELLIS_FF|TRELLIS_DPR16X4|DP16KD|MULT18X18D|EHXPLLL)_.*|\$.*")  # fmt: skip
CLOCKS = {"sync": "core", "transmit": "Ethernet transmit", "reference": "PHY reference"}


@dataclass(frozen=True)
class Clock:
    """Megahertz. path: what the longest path goes through, names of signals, as many as differ."""

    name: str
    achieved: float
    asked: float
    path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """used: of each resource, how many of how many. blocks: of RAM, by what has them. seed: of placement."""

    used: Mapping[str, tuple[int, int]]
    clocks: Sequence[Clock] = ()
    blocks: Mapping[str, int] = field(default_factory=dict)
    seed: int | None = None

    @property
    def margin(self) -> float:
        """Of the slowest clock: what it reaches ÷ what is asked."""
        return min(clock.achieved / clock.asked for clock in self.clocks)

    @property
    def missed(self) -> list[str]:
        """The clocks that are too slow."""
        return [
            f"{clock.name} reaches {clock.achieved:.1f} of {clock.asked:g} MHz"
            for clock in self.clocks
            if clock.achieved < clock.asked
        ]

    def measures(self) -> dict:
        """For docs/boards.json."""
        return asdict(self)


def of_counts(needs: Needs, part: Part) -> Report:
    """From synthesis alone."""
    return Report(
        {
            "LUTs": (needs.luts, part.luts),
            "blocks of RAM": (needs.blocks, part.blocks),
            "multipliers": (needs.multipliers, part.multipliers),
        }
    )


RESOURCES = {"TRELLIS_COMB": "LUTs", "TRELLIS_FF": "flip-flops", "DP16KD": "blocks of RAM", "MULT18X18D": "multipliers"}


def of_nextpnr(data: Mapping, blocks: Mapping[str, int], seed: int) -> Report:
    """From its --report."""
    used = {
        name: (data["utilization"][cell]["used"], data["utilization"][cell]["available"])
        for cell, name in RESOURCES.items()
    }
    paths = {}
    for path in data["critical_paths"]:
        if path["from"] == path["to"]:
            paths[path["from"].partition(" ")[2]] = signals(path["path"])
    clocks = [
        Clock(clock_name(net), each["achieved"], each["constraint"], paths.get(net, ()))
        for net, each in sorted(data["fmax"].items())
    ]
    return Report(used, clocks, dict(blocks), seed)


def clock_name(net: str) -> str:
    """A clock's net is called after one of its signals."""
    net = net.removeprefix("$glbnet$")
    if found := re.search(r"receive(\d+)|rx_clk(\d+)|port_(\d+)__rx_clk", net):
        return f"Ethernet receive {next(filter(None, found.groups()))}"
    for name, meaning in CLOCKS.items():
        if name in net:
            return meaning
    return "core" if net == "clk" else net


def signals(path: Sequence[Mapping]) -> tuple[str, ...]:
    """The signals of a path, each once, in order."""
    names = []
    for segment in path:
        for end in ("from", "to"):
            name = _CELL.sub("", segment[end]["cell"]).strip(".")
            name = name.removeprefix("fabric.")
            if name and name not in names:
                names.append(name)
    return tuple(names)
