"""Allocation and deferred freeing, against a plain list of who owns each byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfnic.host.regions import Grace, Regions


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 4, 16]), st.booleans()), max_size=40))
def test_regions_never_overlap_and_are_first_fit(requests):
    regions, owner, taken = Regions(40), [None] * 40, []
    for number, (size, align, then_free) in enumerate(requests):
        fits = [
            start for start in range(0, 41 - size, align) if all(one is None for one in owner[start : start + size])
        ]
        start = regions.allocate(size, align)
        assert start == (fits[0] if fits else None)
        if start is not None:
            owner[start : start + size] = [number] * size
            taken.append((start, number))
        if then_free and taken:
            start, number = taken.pop(0)
            regions.free(start)
            owner = [None if one == number else one for one in owner]
        assert regions.available == owner.count(None)


@pytest.mark.parametrize(
    ("fence", "oldest", "passed"),
    [
        ([5, 0], [5, 0], True),
        ([5, 0], [4, 9], False),
        ([5, 1], [9, 0], False),
        ([2, 0], [0xFFFFFFFF, 0], False),  # sequence numbers wrap: the oldest is 3 before the fence
        ([0xFFFFFFFF, 0], [2, 0], True),
    ],
)
def test_an_action_waits_for_every_ingress(fence, oldest, passed):
    grace, done = Grace(), []
    grace.defer(fence, lambda: done.append(1))
    grace.run(oldest)
    assert bool(done) is passed
    assert bool(grace) is not passed


def test_actions_are_done_once():
    grace, done = Grace(), []
    grace.defer([1], lambda: done.append("first"))
    grace.defer([2], lambda: done.append("second"))
    grace.run([1])
    assert done == ["first"]
    grace.run([2])
    grace.run([3])
    assert done == ["first", "second"]
