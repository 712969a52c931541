"""Our verdict and the kernel's on random programs. A program that we accept and Linux refuses is a fault, and so is the
other way but for what docs/verifier-differences.md says."""

import random

import pytest

from bpfnic.host.linux.verdict import judge
from bpfnic.host.verifier.verdict import verify
from bpfnic.spec.programs import ProgramType
from tests.host.verifier.mutants import program

PROGRAMS = 160
LIMIT = 3_000
TYPES = (ProgramType.XDP, ProgramType.XDP, ProgramType.SCHED_CLS, ProgramType.SOCKET_FILTER)


def programs(seed, count):
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        yield program(chance, chance.choice(TYPES), chance.randrange(2, 14))


@pytest.mark.linux
def test_both_say_the_same():
    accepted = refused = 0
    for subject in programs(2026, PROGRAMS):
        ours = verify(subject, limit=LIMIT)
        if ours.processed > LIMIT:
            continue  # Linux goes on for a million
        theirs = judge(subject)
        assert ours.accepted == theirs.accepted, (ours.error, theirs.log[-500:])
        accepted, refused = accepted + ours.accepted, refused + (not ours.accepted)
    assert accepted > PROGRAMS // 5 and refused > PROGRAMS // 5  # otherwise the programs show little
