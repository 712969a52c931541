"""What `bpfnic verify` says of frames and stack, where an object alone tells what its tail calls lead to."""

import json

import pytest

from tests.host.deepprograms import array, caller, nested

DEEP = array(at0="large", at1="fits"), caller("enter", 2, 32), nested("large", 7, 112), nested("fits", 6, 96)
TOLD = ("tail calls would take 9 frames, of the 8 that there are: enter tail-calls jumps[0] (large) from enter_2(), "
        "2 frames deep; large needs 7")  # fmt: skip


@pytest.fixture
def verify(bpfnic, source):
    """What the command makes of an object: exit status, and by program whether the verifier accepts it and what the
    device lacks."""

    def verify(*parts, options=()):
        status, out, err = bpfnic("verify", source("".join(parts)), "--json", *options)
        assert err == ""
        return status, {each["program"]: (each["accepted"], each["device"]) for each in json.loads(out)}

    return verify


def test_what_an_object_puts_into_its_maps_is_followed(verify):
    """They are loaded together: what one of them lacks, all of those lack that use the map."""
    status, found = verify(*DEEP)
    assert status == 1
    assert found == {"enter": (True, [TOLD]), "large": (True, []), "fits": (True, [])}
    assert verify(*DEEP, options=("--program", "enter")) == (1, {"enter": (True, [TOLD])})
    assert verify(*DEEP, options=("--program", "fits")) == (0, {"fits": (True, [])})
    assert verify(*DEEP, options=("--backend", "none")) == (0, dict.fromkeys(found, (True, None)))


def test_what_fits(verify):
    parts = array(at0="large", at1="fits"), caller("enter", 2, 32, 1), *DEEP[2:]
    assert verify(*parts) == (0, dict.fromkeys(("enter", "large", "fits"), (True, [])))


def test_it_is_told_for_people(bpfnic, source):
    status, out, _ = bpfnic("verify", source("".join(DEEP)), "--program", "enter")
    assert status == 1 and f"The device can't run program 'enter':\n  {TOLD}" in out


def test_stack(verify):
    for needs, lacks in ((480, 0), (496, 1)):
        _, found = verify(array(at0="wide"), caller("enter", 1, 32), nested("wide", 1, needs))
        assert found["enter"][0] and len(found["enter"][1]) == lacks
        assert all("528 bytes of stack, of the 512" in line for line in found["enter"][1])


def test_a_program_that_is_refused_leads_nowhere(verify):
    """It can't be loaded, and so neither can the others; why, its own verdict says."""
    status, found = verify(*DEEP[:2], nested("large", 9, 144), nested("fits", 1, 0))
    assert status == 1 and found == {"enter": (True, []), "large": (False, None), "fits": (True, [])}


def test_routines_of_the_runtime_count(verify):
    """A helper that is firmware takes a frame, which the verifier doesn't see and the loader refuses."""
    helped = 'long found = 0; bpf_strtol("12", 2, 0, &found);'
    assert verify(nested("program", 7, 112, helped)) == (0, {"program": (True, [])})
    status, found = verify(nested("program", 8, 128, helped))
    assert status == 1
    assert found == {"program": (True, ["program 'program': a call chain of more than 8 functions"])}
