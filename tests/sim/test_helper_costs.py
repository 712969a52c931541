"""What a call takes a program, where a bound is given: docs/helpers.md has what each takes (bench/helpers.py)."""

import pytest

from bench import helpers
from bench.maps import INSTRUCTION_CLOCKS


@pytest.mark.parametrize("name", ["xdp_adjust_head", "xdp_adjust_tail", "xdp_adjust_meta"])
def test_an_adjustment_adds_8_clocks_to_a_thread_alone(name):
    assert helpers.measure(name).alone <= INSTRUCTION_CLOCKS + 8


def test_a_checksum_takes_a_slot_for_8_bytes_and_8_more():
    """Of 40 bytes."""
    assert helpers.measure("csum_diff").core <= 40 / 8 + 8
