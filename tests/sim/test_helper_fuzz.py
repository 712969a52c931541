"""The fuzzer of helper calls (`make fuzz-helpers`), a little of it: rtl and golden in lockstep; golden and the running
kernel."""

import pytest

from bpfnic.spec import helpers
from bpfnic.spec.programs import ProgramType
from tests.helperfuzz.fuzz import fuzz, offered
from tests.helperfuzz.kernel import CALLS, NOT_CALLED, judge

XDP, TC = ProgramType.XDP, ProgramType.SCHED_CLS
FEW = [("xdp_load_bytes", XDP), ("strtol", XDP), ("trace_printk", XDP), ("for_each_map_elem", XDP),
       ("map_update_elem", XDP), ("skb_change_proto", TC), ("skb_adjust_room", TC), ("clone_redirect", TC)]  # fmt: skip

JUDGED = [("csum_diff", XDP), ("strtol", XDP), ("xdp_adjust_meta", XDP), ("redirect_map", XDP), ("trace_printk", XDP),
          ("map_pop_elem", XDP), ("skb_load_bytes_relative", TC), ("l4_csum_replace", TC), ("skb_adjust_room", TC),
          ("skb_set_tunnel_key", TC)]  # fmt: skip


@pytest.mark.parametrize(["name", "of"], FEW, ids=[name for name, _ in FEW])
def test_random_calls_do_the_same(name, of):
    outcome = fuzz(helpers.BY_NAME[name], of, 60, seed=3)
    assert outcome.difference == "" and outcome.calls == 60
    assert len(outcome.results) > 2


def test_every_helper_is_called_that_a_program_may():
    of_xdp, of_tc = ({helper.name for helper in offered(of)} for of in (XDP, TC))
    assert of_xdp >= {"xdp_store_bytes", "loop", "tail_call", "ringbuf_reserve"} and not of_xdp & {"skb_vlan_push"}
    assert of_tc >= {"skb_store_bytes", "loop", "redirect", "fib_lookup"} and not of_tc & {"xdp_store_bytes"}


def test_errors_that_no_call_gave_are_named():
    outcome = fuzz(helpers.BY_NAME["skb_vlan_push"], TC, 1, seed=3, backend="golden")
    assert outcome.missing == ["ENOMEM"]


def test_a_difference_is_found(monkeypatch):
    """A golden model whose bpf_map_push_elem says that a full map is something else."""
    from bpfnic.sim.golden.queues import Queue

    monkeypatch.setattr(Queue, "refuses", lambda self, flags: 7 if flags else 0)
    outcome = fuzz(helpers.BY_NAME["map_push_elem"], XDP, 60, seed=3)
    assert "r0" in outcome.difference


@pytest.mark.linux
@pytest.mark.parametrize(["name", "of"], JUDGED, ids=[name for name, _ in JUDGED])
def test_the_kernel_does_the_same(name, of):
    judged = judge(name, of, 100, seed=2, backends=("linux",))
    assert judged.difference == "" and judged.calls == 100
    assert len(judged.results) > 1 or name == "csum_diff"


def test_every_helper_is_judged_or_it_is_said_why_not():
    names = " ".join(NOT_CALLED).split()
    offered_here = {helper.name for of in (XDP, TC) for helper in offered(of)} | {"spin_lock"}
    assert sorted([*CALLS, *names]) == sorted(offered_here)


@pytest.mark.linux
def test_a_difference_to_the_kernel_is_found(monkeypatch):
    from bpfnic.sim.golden.queues import Queue

    monkeypatch.setattr(Queue, "refuses", lambda self, flags: 7 if flags else 0)
    judged = judge("map_push_elem", XDP, 60, seed=3, backends=("linux",))
    assert judged.difference.startswith("map queue")
