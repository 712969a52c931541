"""What is read of the stack later. Of two paths the one that is walked last leaves something on the stack that may not
be there; whatever way it is read, states may not be taken for covered that have it (host/verifier/liveness.py)."""

import random

import pytest

from bpfnic.host.linux.verdict import judge
from bpfnic.host.verifier import pruning
from bpfnic.host.verifier.liveness import EVERYTHING
from bpfnic.host.verifier.verdict import verify
from tests.host.verifier import stackprograms
from tests.host.verifier.stackprograms import BEGIN, INDEX
from tests.host.verifier.subjects import subject

KEPT = ("r1 = 1\n" * 8 + "if r0 == 5 goto +1\nr1 = 2\n") * 3
"""A state is kept here, whatever r0 is."""
OUT = "r0 = 2\nexit\nout:\nr0 = 2\nexit\n"
ZEROS = "*(u64 *)(r10 - 8) = 0\n*(u64 *)(r10 - 16) = 0\n"
LOOP = "r1 = 3\nr2 = code_addr(f) ll\nr3 = r10\nr3 += -8\nr4 = 0\ncall 181\n"
VALUE = "*(u64 *)(r10 - 8) = r9\n"
POINTER = "r3 = r10\nr3 += -8\n"


def split(other="*(u64 *)(r10 - 8) = r8\n", one=""):
    return f"call 7\nif r0 == 1 goto other\n{one}goto join\nother:\n{other}join:\n{KEPT}"


def use(size="u64", at=-8):
    return f"r1 = *({size} *)(r10 {at:+})\n{INDEX}"


CASES = {
    "a load": split() + use(),
    "the other half of what a store leaves": split(one="*(u32 *)(r10 - 4) = 0\n") + "*(u32 *)(r10 - 8) = 0\n"
    + use("u32", -4),
    "the second byte of a load": "*(u16 *)(r10 - 6) = 0\n" + split("*(u8 *)(r10 - 5) = r8\n") + use("u16", -6),
    "a load from one of several bytes": split("*(u8 *)(r10 - 1) = r8\n") + POINTER + "r3 += r7\nr1 = *(u8 *)(r3 + 0)\n"
    + INDEX,
    "a store to one of several bytes": split() + POINTER + "r3 += r7\n*(u8 *)(r3 + 0) = 0\n" + use("u8"),
    "a store that goes elsewhere on another path": split() + "call 7\n" + POINTER + "if r0 == 9 goto +1\nr3 += -8\n"
    "*(u64 *)(r3 + 0) = 0\n" + use(),
    "a spilled register": split("r1 = r8\n*(u64 *)(r10 - 8) = r1\n", "*(u64 *)(r10 - 8) = r7\n") + use(),
    "a helper's key": split("*(u32 *)(r10 - 8) = r8\n") + "r1 = map_by_fd(0) ll\nr2 = r10\nr2 += -8\ncall 1\n"
    "r0 = *(u8 *)(r0 + 0)\n",
    "a function's argument": split() + "r1 = r10\nr1 += -8\ncall f\nr1 = r0\n" + INDEX + OUT
    + "f:\nr0 = *(u8 *)(r1 + 0)\nexit\n",
    "a function's, of a function": split() + "r1 = r10\nr1 += -8\ncall g\nr1 = r0\n" + INDEX + OUT
    + "f:\nr0 = *(u8 *)(r1 + 0)\nexit\ng:\ncall f\nexit\n",
    "what a function left": "r1 = r10\nr1 += -8\ncall f\n" + use() + OUT + "f:\nr6 = r1\n"
    + split("*(u64 *)(r6 + 0) = 40\n") + "r0 = 0\nexit\n",
    "what a function left that a tail call ended": "r1 = r10\nr1 += -8\nr2 = r6\ncall f\n" + use() + OUT + "f:\n"
    "r6 = r1\nr7 = r2\n" + split("*(u64 *)(r6 + 0) = 40\n") + "r1 = r7\nr2 = map_by_fd(2) ll\nr3 = 0\ncall 12\n"
    "*(u64 *)(r6 + 0) = 0\nr0 = 0\nexit\n",
    "a callback's argument": split() + LOOP + OUT + "f:\nr1 = *(u8 *)(r2 + 0)\nr3 = r10\nr3 += -16\nr3 += r1\n"
    "*(u8 *)(r3 + 0) = 1\nr0 = 0\nexit\n",
    "what a callback left": LOOP + use() + OUT + "f:\nr6 = r2\n" + split("*(u64 *)(r6 + 0) = 40\n") + "r0 = 0\nexit\n",
    "what a callback left for itself": LOOP + OUT + "f:\nr6 = r2\nr1 = *(u8 *)(r6 + 0)\nr3 = r10\nr3 += -16\nr3 += r1\n"
    "*(u8 *)(r3 + 0) = 1\n" + split("*(u64 *)(r6 + 0) = 40\n") + "r0 = 0\nexit\n",
    "what a loop's end reads, walked after its passes": "loop:\nmay_goto done\n" + split() + "goto loop\ndone:\n"
    + use(),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_is_compared(name):
    text = BEGIN + ZEROS + CASES[name]
    given = subject(text if "\nout:" in text else text + OUT)
    verdict, linux = verify(given), judge(given)
    assert not linux.accepted
    assert verdict.error and verdict.error.message.split("(")[0] in linux.log


UNREAD = {
    "overwritten in two halves": split(VALUE) + "*(u32 *)(r10 - 4) = 0\n*(u32 *)(r10 - 8) = 0\n" + use("u32")
    + use("u32", -4),
    "overwritten in part, of which only that is read": split(VALUE) + "*(u32 *)(r10 - 8) = 0\n" + use("u32"),
    "overwritten by a function": split(VALUE) + "r1 = r10\nr1 += -8\ncall f\n" + use() + OUT
    + "f:\n*(u64 *)(r1 + 0) = 0\nr0 = 0\nexit\n",
}  # fmt: skip


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_overwritten_first_is_not(name, monkeypatch):
    text = BEGIN + ZEROS + UNREAD[name]
    given = subject(text if "\nout:" in text else text + OUT)
    verdict = verify(given)
    assert verdict.accepted and judge(given).accepted
    assert verdict.processed < _whole(given, monkeypatch).processed


def _whole(given, monkeypatch):
    """The verdict if all of the stack is always compared."""
    compare = pruning.equal
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "equal", lambda old, new, how, read: compare(old, new, how, EVERYTHING))
        return verify(given)


def test_random_programs_get_the_verdict_that_comparing_all_of_the_stack_gives(monkeypatch):
    """Of these seeds all do. In general a program may be accepted that is refused where more is compared: a store over
    a part of a spilled 0 forgets that the rest is 0, which an earlier path may have known (seed 5640)."""
    accepted = saved = 0
    for seed in range(300):
        given = stackprograms.program(random.Random(seed))
        verdict, whole = verify(given), _whole(given, monkeypatch)
        assert verdict.accepted == whole.accepted == judge(given).accepted, seed
        accepted += verdict.accepted
        saved += whole.processed > verdict.processed
    assert 100 < accepted < 200 and saved > 20, (accepted, saved)
