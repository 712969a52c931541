"""PLLs: parameters from frequencies, and the cells that make a board's clocks.

EHXPLLL of the ECP5 (FPGA-TN-02200, table of sysCLOCK PLL limits): its feedback is output CLKOP, so that
CLKOP = input × feedback ÷ reference and VCO = CLKOP × its divider. PLLE2_BASE of Xilinx' series 7 (UG472; DS181,
DS182): VCO = input × multiplier ÷ reference.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from amaranth import Const, Instance, Module, Signal

from bpfnic.spec.errors import BpfnicError

MEGA = 1_000_000


@dataclass(frozen=True)
class Limits:
    """Hertz, and the largest dividers: of the reference, of the feedback, of an output."""

    input: tuple[int, int]
    detector: tuple[int, int]
    vco: tuple[int, int]
    output: tuple[int, int]
    dividers: tuple[int, int, int]


ECP5 = Limits((8 * MEGA, 400 * MEGA), (3_125_000, 400 * MEGA), (400 * MEGA, 800 * MEGA), (3_125_000, 400 * MEGA),
              (128, 80, 128))  # fmt: skip
SERIES7 = Limits((19 * MEGA, 800 * MEGA), (19 * MEGA, 450 * MEGA), (800 * MEGA, 1600 * MEGA), (6_250_000, 800 * MEGA),
                 (56, 64, 128))  # fmt: skip
"""Of the slowest speed grade, so that they hold for all."""


@dataclass(frozen=True)
class Pll:
    """Dividers, and what comes out: of the reference, of the feedback, and of the fixed output and the free one."""

    reference: int
    feedback: int
    fixed: int
    free: int
    vco: Fraction
    frequencies: tuple[Fraction, Fraction]


def solve(limits: Limits, source: int, fixed: int, free: int, *, feedback_is_output: bool) -> Pll:
    """From `source` hertz exactly `fixed`, and beside it what comes closest to `free` without being faster.

    feedback_is_output : the feedback counts the fixed output's clocks, as an ECP5's does, not the VCO's.

    Raises BpfnicError where no dividers make it.
    """
    if not limits.input[0] <= source <= limits.input[1]:
        low, high = (hertz / MEGA for hertz in limits.input)
        raise BpfnicError(f"a PLL takes {low:g} to {high:g} MHz, not {source / MEGA:g} MHz")
    best = min(_candidates(limits, source, fixed, free, feedback_is_output), default=None,
               key=lambda pll: (free - pll.frequencies[1], pll.reference, -pll.vco))  # fmt: skip
    if best is None:
        raise BpfnicError(f"no PLL makes {fixed / MEGA:g} MHz and up to {free / MEGA:g} MHz of {source / MEGA:g} MHz")
    return best


def _candidates(limits: Limits, source: int, fixed: int, free: int, feedback_is_output: bool) -> Iterator[Pll]:
    references, feedbacks, outputs = limits.dividers
    for reference in range(1, references + 1):
        detector = Fraction(source, reference)
        if not limits.detector[0] <= detector <= limits.detector[1]:
            continue
        # An output that is fed back leaves one feedback, and the VCO free; else the feedback makes the VCO.
        for feedback in [int(fixed / detector)] if feedback_is_output else range(1, feedbacks + 1):
            counted = detector * feedback
            for divider in range(1, outputs + 1) if feedback_is_output else [int(counted / fixed)]:
                vco = counted * divider if feedback_is_output else counted
                if not limits.vco[0] <= vco <= limits.vco[1] or vco != fixed * divider or feedback > feedbacks:
                    continue
                other = -(-vco // free)
                if other <= outputs and limits.output[0] <= vco / other <= limits.output[1]:
                    yield Pll(reference, feedback, divider, int(other), vco, (vco / divider, vco / other))


def ecp5(m: Module, source, reset, pll: Pll) -> tuple[Signal, Signal, Signal]:
    """The cell. Returns the fixed clock, the free one, and whether they are stable."""
    fixed, free, locked = Signal(), Signal(), Signal()
    m.submodules.pll = Instance(
        "EHXPLLL",
        a_ICP_CURRENT="12", a_LPF_RESISTOR="8",  # what Lattice's tool writes for these bandwidths
        p_PLLRST_ENA="ENABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED", p_DPHASE_SOURCE="DISABLED",
        p_OUTDIVIDER_MUXA="DIVA", p_OUTDIVIDER_MUXB="DIVB", p_OUTDIVIDER_MUXC="DIVC", p_OUTDIVIDER_MUXD="DIVD",
        p_CLKI_DIV=pll.reference, p_CLKFB_DIV=pll.feedback, p_FEEDBK_PATH="CLKOP",
        p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=pll.fixed, p_CLKOP_CPHASE=pll.fixed - 1, p_CLKOP_FPHASE=0,
        p_CLKOS_ENABLE="ENABLED", p_CLKOS_DIV=pll.free, p_CLKOS_CPHASE=pll.free - 1, p_CLKOS_FPHASE=0,
        i_CLKI=source, i_RST=reset, i_CLKFB=fixed, i_STDBY=Const(0), i_PHASESEL0=Const(0), i_PHASESEL1=Const(0),
        i_PHASEDIR=Const(1), i_PHASESTEP=Const(1), i_PHASELOADREG=Const(1), i_PLLWAKESYNC=Const(0), i_ENCLKOP=Const(0),
        o_CLKOP=fixed, o_CLKOS=free, o_LOCK=locked,
    )  # fmt: skip
    return fixed, free, locked


def series7(m: Module, source, reset, pll: Pll, source_hertz: int) -> tuple[Signal, Signal, Signal]:
    """The same of Xilinx' series 7, with its global buffers."""
    outputs, clocks, back, locked = Signal(2), Signal(2), Signal(), Signal()
    m.submodules.pll = Instance(
        "PLLE2_BASE",
        p_CLKIN1_PERIOD=1e9 / source_hertz, p_DIVCLK_DIVIDE=pll.reference, p_CLKFBOUT_MULT=pll.feedback,
        p_CLKOUT0_DIVIDE=pll.fixed, p_CLKOUT1_DIVIDE=pll.free,
        i_CLKIN1=source, i_RST=reset, i_PWRDWN=Const(0), i_CLKFBIN=back,
        o_CLKFBOUT=back, o_CLKOUT0=outputs[0], o_CLKOUT1=outputs[1], o_LOCKED=locked,
    )  # fmt: skip
    for number in range(2):
        m.submodules[f"buffer{number}"] = Instance("BUFG", i_I=outputs[number], o_O=clocks[number])
    return clocks[0], clocks[1], locked
