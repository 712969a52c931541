"""PLL parameters: whatever is asked for, the dividers give it within the part's limits, or it is refused."""

import random
from fractions import Fraction

import pytest

from bpfnic.boards.pll import ECP5, MEGA, SERIES7, solve
from bpfnic.spec.errors import BpfnicError


def within(value, bounds) -> bool:
    return bounds[0] <= value <= bounds[1]


@pytest.mark.parametrize("limits, is_output", [(ECP5, True), (SERIES7, False)])
def test_dividers_keep_the_limits(limits, is_output):
    """The equations of the data sheets, written out once more."""
    rng, solved = random.Random(1), 0
    for _ in range(40):
        source = rng.choice((25, 30, 40, 50, 100, 125, 200)) * MEGA
        fixed, free = rng.choice((25, 50, 100, 125)) * MEGA, rng.randrange(20, 200) * MEGA
        try:
            pll = solve(limits, source, fixed, free, feedback_is_output=is_output)
        except BpfnicError:
            continue
        solved += 1
        detector = Fraction(source, pll.reference)
        vco = detector * pll.feedback * (pll.fixed if is_output else 1)
        assert within(detector, limits.detector) and within(vco, limits.vco) and pll.vco == vco
        assert vco / pll.fixed == fixed == pll.frequencies[0]
        assert vco / pll.free == pll.frequencies[1] <= free
        assert all(within(hertz, limits.output) for hertz in pll.frequencies)
    assert solved > 20


@pytest.mark.parametrize("source", [25, 30, 100, 125])
def test_boards_get_both_clocks_of_125_mhz(source):
    pll = solve(ECP5, source * MEGA, 125 * MEGA, 125 * MEGA, feedback_is_output=True)
    assert pll.frequencies == (125 * MEGA, 125 * MEGA)


def test_the_nearest_below_is_taken():
    """VCOs of 500, 625 and 750 MHz give 125 MHz; of these 750 comes closest to 110 with ÷ 7."""
    pll = solve(ECP5, 25 * MEGA, 125 * MEGA, 110 * MEGA, feedback_is_output=True)
    assert pll.frequencies[1] == Fraction(750 * MEGA, 7)


@pytest.mark.parametrize("source, fixed, error", [
    (5, 125, "a PLL takes 8 to 400 MHz, not 5 MHz"),
    (27, 125, "no PLL makes 125 MHz and up to 125 MHz of 27 MHz"),
])  # fmt: skip
def test_refused(source, fixed, error):
    with pytest.raises(BpfnicError, match=error):
        solve(ECP5, source * MEGA, fixed * MEGA, 125 * MEGA, feedback_is_output=True)
