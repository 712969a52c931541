"""bpf_csum_diff, golden beside the running kernel: sizes from 0 on, odd ones too, bytes and seeds whose sums come near
the two zeros of ones' complement. The core against golden: tests/hdl/core/test_checksum.py."""

import random

import pytest

from tests.sim.library import Library

pytestmark = pytest.mark.linux

CALL = """bpf_csum_diff((__be32 *)(question->text + (a >> 32 & 3)), b & 31,
	(__be32 *)(question->text + 40 + (a >> 34 & 3)), c & 31, (__u32)a)"""
CONSTANT = "bpf_csum_diff({}, {}, {}, {}, (__u32)a)"


def questions(chance: random.Random):
    for number in range(600):
        text = bytearray(chance.choice((bytes(96), b"\xff" * 96, chance.randbytes(96))))
        if number % 3 == 0:  # mostly zeros or ones
            text[chance.randrange(96)] = chance.choice((0, 1, 0xFE, 0xFF))
        gone, come = (chance.choice((0, 1, 2, 3, 4, 5, 8, 9, 12, 16, chance.randrange(32))) for _ in range(2))
        if number % 5 == 0:
            come = gone
            text[40:80] = text[:40]
        seed = chance.choice((0, 1, 0xFFFF, 0xFFFE, 0x10000, 0xFFFFFFFF, 0xFFFF0000, chance.getrandbits(32)))
        if number % 7 == 0:  # what is taken off is what there was
            seed = int.from_bytes(text[: gone & ~1], "little") % 0xFFFF
        if number % 9 == 0:  # 0 - 0xffffffff, which is the other zero
            text[:40], text[40:], seed = chance.choice((b"\xff" * 40, bytes(40))), bytes(56), chance.choice((0, 0xFFFF))
            gone, come = chance.choice((0, 4, 8, 12, 5)), chance.choice((0, 4, 9))
        yield (seed | chance.randrange(16) << 32, gone, come), bytes(text)


def test_as_the_kernel(build):
    chance = random.Random(5)
    with Library(build, "golden", CALL) as ours, Library(build, "linux", CALL) as theirs:
        results = []
        for arguments, text in questions(chance):
            got, wanted = ours.ask(*arguments, text=text), theirs.ask(*arguments, text=text)
            assert got == wanted, (arguments, text.hex())
            results.append(got.result)
    assert results.count(0) > 20 and results.count(0xFFFF) > 20 and len(set(results)) > 200


@pytest.mark.parametrize("gone", [0, 8])
@pytest.mark.parametrize("come", [0, 4])
def test_nothing_at_nowhere(build, gone, come):
    """A region of no bytes may be NULL."""
    pointers = [f"(__be32 *)(question->text + {at})" if size else "0" for at, size in ((0, gone), (40, come))]
    call = CONSTANT.format(pointers[0], gone, pointers[1], come)
    with Library(build, "golden", call) as ours, Library(build, "linux", call) as theirs:
        for seed in (0, 5, 0xFFFFFFFF):
            assert ours.ask(seed, text=bytes(range(96))) == theirs.ask(seed, text=bytes(range(96)))
