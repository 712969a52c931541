"""What a look-up takes a program, which make bench measures in more ways (bench/maps.py)."""

import pytest

from bench.maps import CASES, Case, adds


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.type.name)
def test_a_look_up_adds_no_more_clocks_than_asked_for(case: Case):
    assert adds(case, lambda _: None) <= case.adds
