"""Bad input: mutated objects of the shipped programs, and programs built to explode. `make fuzz-verifier` has many
of the first, and the second at their full size."""

import random

import pytest

from bpfnic.host.verifier import gate, memory
from bpfnic.host.verifier.refusal import TooComplex
from bpfnic.host.verifier.verdict import verify
from bpfnic.spec.causes import Cause
from tests.host.verifier.subjects import subject
from tests.verifierfuzz import exploding, mutated


def test_mutated_objects_get_a_verdict_or_a_line(tmp_path):
    outcome = mutated.fuzz(16, 2026, tmp_path)
    assert outcome.problems == []
    assert {"verdict: accepted", "verdict: refused", "load: taken", "load: refused"} <= outcome.counts.keys()


UNCHECKED = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int unchecked(struct xdp_md *ctx) { return *((volatile char *)(long)ctx->data + 300); }
"""


def test_a_trap_would_be_found(build, monkeypatch):
    """The test itself: with a verifier that sees no bounds, an unchecked program traps, and it says so."""
    path, outcome = build(UNCHECKED).path, mutated.Outcome()
    mutated.try_object(path, random.Random(1), outcome)
    assert outcome.problems == [] and outcome.counts["load: refused"] == 1
    monkeypatch.setattr(memory, "packet", lambda *arguments: None)
    gate._verdicts.clear()
    mutated.try_object(path, random.Random(1), outcome)
    gate._verdicts.clear()
    assert set(outcome.problems) == {f"unchecked is accepted and ends a packet with {Cause.MEMORY_ACCESS.name}"}


def test_a_mutation_changes_what_it_should():
    chance = random.Random(1)
    for path in mutated.PROGRAMS[:4]:
        object = mutated.compile_object(path)
        assert len(mutated.mutated(chance, object)) == object.stat().st_size


@pytest.mark.parametrize("name", exploding.PROGRAMS)
def test_what_explodes_is_too_complex_or_gets_a_verdict(name):
    """Walked a hundredth as far as in earnest."""
    verdict = verify(subject(exploding.PROGRAMS[name]), limit=10_000)
    if name == "a loop without end":
        assert verdict.error and verdict.error.message.startswith("infinite loop")
    else:
        assert verdict.accepted or isinstance(verdict.error, TooComplex)
