"""What `bpfnic verify` says of frames and stack, where an object alone tells what its tail calls lead to."""

import json

import pytest

from bpfnic.host.verifier.verdict import verify as judged
from tests.host.deepprograms import array, caller, nested
from tests.host.verifier.subjects import subject

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


CALL = "r2 = map_by_fd(2) ll\ncall 12\nr0 = 2\nexit"
JOINED = ("r0 = *(u32 *)(r1 + 16)\n" + "r4 = 0\n" * 8 + "if r0 == 5 goto +1\nr4 = 1\n"
          "r3 = {}\nif r0 == 0 goto on\nr3 = {}\non:\n" + CALL)  # fmt: skip
"""Long enough for a state to be kept where the paths join."""


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("r3 = 1\n" + CALL, {("programs", 1)}),
        ("r3 = 4\n" + CALL, {("programs", None)}),  # no entry, which Linux doesn't remember either
        ("r3 = *(u32 *)(r1 + 16)\n" + CALL, {("programs", None)}),
        (JOINED.format(1, 2), {("programs", 1), ("programs", 2)}),
        (JOINED.format(4, 2), {("programs", None), ("programs", 2)}),
        (JOINED.format(2, 4), {("programs", None)}),
        ("r0 = 0\nr3 = 1\nif r0 == 0 goto +4\n" + CALL, set()),
    ],
)
def test_where_a_tail_call_leads(text, given):
    """On paths that join at the call, too: one of them isn't taken for the other."""
    verdict = judged(subject(text))
    assert verdict.stack_use.tail_calls == [given]


def test_what_functions_use():
    verdict = judged(subject("*(u64 *)(r10 - 24) = 0\nr1 = r10\nr1 += -8\ncall f\nr0 = 2\nexit\n"
                             "f:\n*(u64 *)(r1 - 64) = 0\n*(u8 *)(r10 - 5) = 0\nr0 = 0\nexit"))  # fmt: skip
    assert verdict.stack_use.depths == [72, 5]
    assert judged(subject("r0 = *(u64 *)(r0 + 0)\nexit")).stack_use is None
