"""The operators of the verifier's numbers, on all pairs of a choice of 4-bit numbers, against all results that there
are. (At 64 bits they are proved: tests/formal/domain.py.)"""

import random
from functools import cache
from itertools import product

import pytest

from bpfnic.spec.isa import Operation
from tests.domain import MUTATIONS, Domain, load

BITS, WORD = 4, 2
ALL = range(1 << BITS)


def signed(x, bits):
    return x - (1 << bits) if x >> bits - 1 else x


def members(a):
    """The numbers that a Scalar stands for, by the definition in its module."""
    return frozenset(
        x for x in ALL
        if x & ~a.mask == a.value and a.umin <= x <= a.umax and a.smin <= signed(x, BITS) <= a.smax
        and a.wumin <= x % 4 <= a.wumax and a.wsmin <= signed(x % 4, WORD) <= a.wsmax
    )  # fmt: skip


def choice(domain: Domain):
    """Scalars of all tnums, of all unsigned and all signed ranges, and of ranges of the lower half."""
    scalar = domain.scalar
    tnums = [(value, mask) for value in ALL for mask in ALL if not value & mask]
    made = [scalar.made(known, scalar.FULL, scalar.WORD_FULL) for known in tnums]
    made += [scalar.between(low, high) for low in ALL for high in ALL if low <= high]
    made += [scalar.signed_between(low, high) for low in range(-8, 8) for high in range(-8, 8) if low <= high]
    made += [scalar.made((0, 15), scalar.FULL, (low, high, -2, 1)) for low in range(4) for high in range(low, 4)]
    made += [scalar.made((0, 15), scalar.FULL, (0, 3, low, high)) for low in range(-2, 2) for high in range(low, 2)]
    return sorted(set(made), key=lambda a: a.parts())


RESULTS = {
    Operation.ADD: lambda x, y, bits: x + y,
    Operation.SUB: lambda x, y, bits: x - y,
    Operation.MUL: lambda x, y, bits: x * y,
    Operation.AND: lambda x, y, bits: x & y,
    Operation.OR: lambda x, y, bits: x | y,
    Operation.XOR: lambda x, y, bits: x ^ y,
    Operation.LSH: lambda x, y, bits: x << y % bits,
    Operation.RSH: lambda x, y, bits: x >> y % bits,
    Operation.ARSH: lambda x, y, bits: signed(x, bits) >> y % bits,
    Operation.DIV: lambda x, y, bits: x // y if y else 0,
    Operation.MOD: lambda x, y, bits: x % y if y else x,
}
JUMPS = {
    Operation.JEQ: lambda x, y, bits: x == y,
    Operation.JNE: lambda x, y, bits: x != y,
    Operation.JSET: lambda x, y, bits: x & y != 0,
    Operation.JGT: lambda x, y, bits: x > y,
    Operation.JGE: lambda x, y, bits: x >= y,
    Operation.JLT: lambda x, y, bits: x < y,
    Operation.JLE: lambda x, y, bits: x <= y,
    Operation.JSGT: lambda x, y, bits: signed(x, bits) > signed(y, bits),
    Operation.JSGE: lambda x, y, bits: signed(x, bits) >= signed(y, bits),
    Operation.JSLT: lambda x, y, bits: signed(x, bits) < signed(y, bits),
    Operation.JSLE: lambda x, y, bits: signed(x, bits) <= signed(y, bits),
}
"""RFC 9669, sections 4.1 and 4.3, in `bits` bits."""


def some(values, count):
    """So many of them, so that a test takes seconds."""
    return random.Random(count).sample(values, count)


def wrong_results(domain, count):
    """Results that the domain says can't be: (operation, operands, number)."""
    scalars = some(choice(domain), count)
    sets = {a: members(a) for a in scalars}
    for operation, word in product(RESULTS, (False, True)):
        bits = WORD if word else BITS
        exact = {(x, y): RESULTS[operation](x % (1 << bits), y % (1 << bits), bits) % (1 << bits)
                 for x in ALL for y in ALL}  # fmt: skip
        for a, b in product(scalars, scalars):
            found = members(domain.arithmetic.compute(operation, a, b, word))
            for x in sets[a]:
                for y in sets[b]:
                    if exact[x, y] not in found:
                        yield operation.name, word, a, b, x, y


def wrong_branches(domain, count):
    """Jumps that the domain decides, or whose operands it narrows, wrongly."""
    scalars = some(choice(domain), count)
    sets = {a: members(a) for a in scalars}
    branch = domain.branch
    for operation, word in product(JUMPS, (False, True)):
        bits = WORD if word else BITS
        holds = {(x, y): JUMPS[operation](x % (1 << bits), y % (1 << bits), bits) for x in ALL for y in ALL}
        for a, b in product(scalars, scalars):
            taken = branch.decide(operation, a, b, word)
            yes = branch.refine(operation, a, b, word)
            if operation is Operation.JSET:
                left = branch.without_bits(a, b, word)
                no = left and (left, b)
            else:
                no = branch.refine(branch.INVERSE[operation], a, b, word)
            narrowed = {True: yes and tuple(map(members, yes)), False: no and tuple(map(members, no))}
            for x in sets[a]:
                for y in sets[b]:
                    way = narrowed[holds[x, y]]
                    if taken is (not holds[x, y]) or not way or x not in way[0] or y not in way[1]:
                        yield operation.name, word, a, b, x, y


def wrong_scalars(domain):
    """Numbers that are lost where a Scalar is made from a tnum and ranges."""
    scalar = domain.scalar
    tnums = [(value, mask) for value in ALL for mask in ALL if not value & mask]
    words = [(0, 3, -2, 1), (1, 2, -2, 1), (0, 3, -1, 0), (0, 2, -2, 0)]
    ends = [(low, high) for low in (0, 1, 3, 6, 7, 8, 12) for high in (2, 7, 8, 9, 13, 15) if low <= high]
    signs = [(low, high) for low in (-8, -7, -4, -1, 0, 3) for high in (-6, -1, 0, 2, 5, 7) if low <= high]
    for known, (umin, umax), (smin, smax), word in product(tnums, ends, signs, words):
        loose = scalar.Scalar(*known, umin, umax, smin, smax, *word)
        found = scalar.made(known, (umin, umax, smin, smax), word)
        lost = members(loose) - (members(found) if found else frozenset())
        if lost:
            yield loose, found, lost


@cache
def domain():
    return load(BITS)


def test_every_number_stays_where_ranges_are_narrowed():
    assert not list(wrong_scalars(domain()))


def test_every_result_is_in_the_domains_result():
    assert not list(wrong_results(domain(), 45))


def test_every_jump_is_as_decided_and_keeps_its_operands():
    assert not list(wrong_branches(domain(), 32))


def test_sign_extension_and_negation():
    arithmetic = domain().arithmetic
    for a in choice(domain()):
        for x in members(a):
            for word, bits in ((False, BITS), (True, WORD)):
                assert -x % (1 << bits) in members(arithmetic.negate(a, word))
                assert x % (1 << bits) in members(arithmetic.move(a, word))
                for low in range(1, bits):
                    extended = signed(x % (1 << low), low) % (1 << bits)
                    assert extended in members(arithmetic.sign_extend(a, low, word))


def test_byte_swaps():
    """At 64 bits, for narrower numbers have no bytes: random bits that are known, and a number that has them."""
    wide, chance = load(64), random.Random(64)
    for _ in range(300):
        number, mask = chance.getrandbits(64), chance.getrandbits(64) & chance.getrandbits(64)
        known = wide.scalar.made((number & ~mask, mask), wide.scalar.FULL, wide.scalar.WORD_FULL)
        for width in (16, 32, 64):
            low = (number & (1 << width) - 1).to_bytes(width // 8, "little")
            for reverse, order in ((False, "little"), (True, "big")):
                found, result = wide.arithmetic.swap(known, width, reverse), int.from_bytes(low, order)
                assert result & ~found.mask == found.value
                assert found.umin <= result <= found.umax and found.smin <= signed(result, 64) <= found.smax
                word = result & 0xFFFF_FFFF
                assert found.wumin <= word <= found.wumax and found.wsmin <= signed(word, 32) <= found.wsmax


def test_covering_is_containing():
    scalars = some(choice(domain()), 80)
    for a, b in product(scalars, scalars):
        if a.covers(b):
            assert members(a) >= members(b)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.old.strip()[:40])
def test_a_wrong_operator_is_found(mutation):
    broken = load(BITS, mutation)
    assert next(wrong_scalars(broken), None) or next(wrong_results(broken, 45), None) \
        or next(wrong_branches(broken, 32), None)  # fmt: skip
