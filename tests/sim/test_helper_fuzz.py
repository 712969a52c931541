"""The fuzzer of helper calls (`make fuzz-helpers`), a little of it: rtl and golden in lockstep."""

import pytest

from bpfnic.spec import helpers
from tests.helperfuzz.fuzz import fuzz, offered

FEW = ["xdp_load_bytes", "strtol", "trace_printk", "ringbuf_output", "map_update_elem"]


@pytest.mark.parametrize("name", FEW)
def test_random_calls_do_the_same(name):
    outcome = fuzz(helpers.BY_NAME[name], 60, seed=3)
    assert outcome.difference == "" and outcome.calls == 60
    assert len(outcome.results) > 2


def test_every_helper_is_called_that_an_xdp_program_may():
    assert {helper.name for helper in offered()} >= {*FEW, "xdp_store_bytes", "loop", "tail_call", "ringbuf_reserve"}


def test_a_difference_is_found(monkeypatch):
    """A golden model whose bpf_map_push_elem says that a full map is something else."""
    from bpfnic.sim.golden.queues import Queue

    monkeypatch.setattr(Queue, "refuses", lambda self, flags: 7 if flags else 0)
    outcome = fuzz(helpers.BY_NAME["map_push_elem"], 60, seed=3)
    assert "r0" in outcome.difference
