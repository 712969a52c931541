"""How Yosys and nextpnr make an ECP5's bits: for speed, or of few LUTs. One place for boards and benchmarks."""

from dataclasses import dataclass

from bpfnic.boards.catalogue import Board

STATISTICS = "tee -q -o stat.json stat -json"
PLACER = "static"
"""nextpnr's: its nets are up to a quarter shorter than its default placer's, which puts more into a spot of a full part
than can be routed."""
_APART = "*core*.decoder *rings.emitter *calls.unit"
"""Modules, by Yosys' patterns, most of whose signals begin and end at registers. Where it maps for speed, it finds
shorter ways in each by itself than in all of the NIC at once."""
_SUMS = 8
"""Of up to so many bits a sum or comparison becomes LUTs: a chain of carry cells takes two LUT4 sites for each two bits
and four more for its ends, goes nowhere but up a column, and nothing is mapped together with it. From ten bits on it is
the faster one: LUTs take a level for each two bits."""
_BEGINS = "+&scorr; &sweep; &if {W} {D} -a; &save -a; &st; &syn2"
_KEEPS, _ANEW = "&if {W} {D} {R} -a -v; &mfs; &save -a; &load", "&st; &if -g -K 6"
_FEWEST = "; ".join((_BEGINS, _KEEPS, _ANEW, "&dch -f", _KEEPS, _ANEW, "&synch2", _KEEPS))
"""To ABC: logic becomes LUTs in several rounds, each from what the others left, as Yosys' own abc9.script.flow3mfs has
them; but kept is what takes fewest, not what is fastest."""


@dataclass(frozen=True)
class Recipe:
    """
    before, behind : commands to Yosys, before and behind synth_ecp5.
    options : synth_ecp5's.
    """

    before: str
    options: str
    behind: str

    def parts(self, top: str, more: str = "") -> tuple[str, str, str]:
        """Commands to Yosys before `synth_ecp5 -top TOP`, its options, and commands behind it. more : options."""
        options = f"{self.options} {more}".strip()
        as_luts = f"techmap t:$alu r:Y_WIDTH<={_SUMS} %i; opt"
        before = f"{self.before}; synth_ecp5 -top {top} {options} -run begin:map_gates; {as_luts}"
        return before, f"{options} -run map_gates:", f"{self.behind}{STATISTICS}"

    def synthesis(self, top: str, more: str = "") -> str:
        """All of Yosys' commands from the design that it has read on."""
        before, options, behind = self.parts(top, more)
        return f"{before}; synth_ecp5 -top {top} {options}; {behind}"


FOR_SPEED = Recipe(
    before=f"setattr -mod -set keep_hierarchy 1 {_APART}",
    options="",
    behind=f"setattr -mod -unset keep_hierarchy {_APART}; flatten; clean; ",
)
FOR_AREA = Recipe(
    before=f'scratchpad -set abc9.script "{_FEWEST}"',
    options="-nowidelut",  # any place takes a LUT of four inputs; a wider one takes several, side by side
    behind="",
)


def of(board: Board) -> Recipe:
    return FOR_AREA if board.for_area else FOR_SPEED
