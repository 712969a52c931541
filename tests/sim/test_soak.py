"""A full table under traffic, for a moment; `make soak` is the long one. And that what it says can be false."""

import pytest

from bpfnic.host.device import DeviceOptions
from tests.sim.bench import ONE_CORE
from tests.soak.soak import Soak

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC


@pytest.fixture(params=["golden", "rtl"])
def soak(request):
    soak = Soak(request.param, entries=64, options=DeviceOptions(**ONE_CORE))
    yield soak
    soak.close()


def test_nothing_is_lost_and_nothing_leaks(soak):
    outcome = soak.run(1000)
    assert not outcome.wrong
    assert outcome.operations >= 1000 and outcome.packets >= 4000
    counts = outcome.programs
    assert min(counts[name] for name in ("found", "missing", "updated", "full", "taken")) > 50, counts
    assert counts["lost"] == counts["torn"] == counts["failed"] == 0


def test_a_lost_key_is_told(soak):
    """One that nobody deletes, seen by programs or by the host."""
    soak.table.delete((1).to_bytes(4, "little"))
    wrong = soak.run(100).wrong
    assert "programs count" in wrong or "the host is refused: " in wrong


def test_a_key_too_many_and_one_too_few_are_told(soak):
    """At the end, where no program saw them."""
    outcome = soak.run(100)
    soak.there.remove(few := min(soak.there))
    soak.there.add(many := 9999)
    assert soak._look_through() == f"keys that are not there: [{many}], and that should not be: [{few}]"
    assert not outcome.wrong


def test_half_a_value_is_told(soak):
    for key in soak.kept:
        soak.table.update(key.to_bytes(4, "little"), [bytes(16)])
    wrong = soak.run(100).wrong
    assert "torn" in wrong or "half a value" in wrong


def test_a_lost_place_is_told(soak):
    """The head of the free list forgets what is behind it."""
    soak.run(100)
    if soak.nic.device.name == "golden":
        soak.nic.device._transport.nic.maps.entries[soak.table.index].free.pop()
    else:
        soak.table._memory.write(soak.table.parts["MAP_TABLE"] + 4, bytes(8))
    assert "lost" in soak._places([])
