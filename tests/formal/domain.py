"""Proofs of the verifier's operators (host/verifier), each for all numbers and all that may be known of them.

A claim says: if a number is one of those that the operand stands for, the operation's result is one of those that the
domain's result stands for. The operators are run as they are, on symbolic integers (symbolic.py), and z3 looks for a
counterexample. `made`, which every operator ends with, is taken apart into its steps, each with a claim of its own; in
the other claims it takes what it is given as it is.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import z3

from bpfnic.spec.isa import Operation
from tests.domain import MUTATIONS, Domain, Mutation, load
from tests.formal import symbolic
from tests.formal.symbolic import Number, Paths

SECONDS = 5
"""For one question to the solver. A claim whose solver doesn't end at 64 bits is asked at 8."""


class Undecided(Exception):
    """The solver didn't end."""


@dataclass(frozen=True)
class Claim:
    """`check(domain, wide)` yields (assumed terms, function to run, what must hold of its result); `wide`: bits of the
    integers, enough for `factor` times the domain's."""

    name: str
    check: Callable
    factor: int = 1


def symbolic_domain(bits: int, mutation: Mutation | None = None) -> Domain:
    """The domain, for symbolic integers."""
    domain = load(bits, mutation)
    for module in (domain.tnum, domain.scalar, domain.arithmetic, domain.branch):
        vars(module).update(min=symbolic.least, max=symbolic.greatest)
    for module in (domain.tnum, domain.scalar):
        vars(module).update(spread=symbolic.spread)
    return domain


def loosen(domain: Domain) -> Domain:
    """`made` keeps its arguments as they are."""

    def made(known, whole, word):
        return domain.scalar.Scalar(*known, *whole, *word)

    for module in (domain.scalar, domain.arithmetic, domain.branch):
        vars(module)["made"] = made
    return domain


class Symbols:
    """Fresh symbols of one claim."""

    def __init__(self, domain: Domain, wide: int):
        self.domain, self.wide, self.assumed = domain, wide, []

    def number(self, name: str, low: int, high: int) -> Number:
        term = z3.BitVec(name, self.wide)
        self.assumed += [term >= low, term <= high]
        return Number(term)

    def unsigned(self, name: str) -> Number:
        return self.number(name, 0, self.domain.width.MASK)

    def scalar(self, name: str, x: Number):
        """Anything that may be known of `x`."""
        w = self.domain.width
        value, mask = self.unsigned(f"{name}.value"), self.unsigned(f"{name}.mask")
        umin, umax = self.unsigned(f"{name}.umin"), self.unsigned(f"{name}.umax")
        smin, smax = (self.number(f"{name}.{end}", w.SMIN, w.SMAX) for end in ("smin", "smax"))
        wumin, wumax = (self.number(f"{name}.{end}", 0, w.WORD_MASK) for end in ("wumin", "wumax"))
        wsmin, wsmax = (self.number(f"{name}.{end}", w.WORD_SMIN, w.WORD_SMAX) for end in ("wsmin", "wsmax"))
        found = self.domain.scalar.Scalar(value, mask, umin, umax, smin, smax, wumin, wumax, wsmin, wsmax)
        self.assumed.append(value.term & mask.term == 0)
        self.assumed.append(contains(self.domain, found, x))
        return found


def signed(x: Number, bits: int):
    """As a term: the low `bits` of x in two's complement."""
    low = x.term & (1 << bits) - 1
    return z3.If(low >= 1 << bits - 1, low - (1 << bits), low)


def in_bits(known, x):
    """x, a term, is one of a tnum's numbers."""
    value, mask = (part.term if isinstance(part, Number) else z3.BitVecVal(part, x.size()) for part in known)
    return z3.And(x & ~mask == value, value & mask == 0)


def in_range(range, x, x_signed):
    umin, umax, smin, smax = (part.term if isinstance(part, Number) else z3.BitVecVal(part, x.size()) for part in range)
    return z3.And(umin <= x, x <= umax, smin <= x_signed, x_signed <= smax)


def contains(domain: Domain, a, x: Number):
    """x is one of the numbers that `a` stands for (the definition in host/verifier/scalar.py)."""
    w = domain.width
    word = x.term & w.WORD_MASK
    return z3.And(in_bits((a.value, a.mask), x.term), in_range(a.range, x.term, signed(x, w.BITS)),
                  in_range(a.word_range, word, signed(x, w.WORD)))  # fmt: skip


# What RFC 9669 says of results and of conditions, as terms; `n` bits.


def result_of(operation: Operation, x: Number, y: Number, n: int):
    mask = (1 << n) - 1
    a, b = x.term & mask, y.term & mask
    terms = {Operation.ADD: a + b, Operation.SUB: a - b, Operation.MUL: a * b,
             Operation.AND: a & b, Operation.OR: a | b, Operation.XOR: a ^ b}  # fmt: skip
    return Number(terms[operation] & mask)


def shifted(operation: Operation, x: Number, distance: int, n: int):
    mask = (1 << n) - 1
    terms = {Operation.LSH: (x.term & mask) << distance, Operation.RSH: z3.LShR(x.term & mask, distance),
             Operation.ARSH: signed(x, n) >> distance}  # fmt: skip
    return Number(terms[operation] & mask)


def holds(operation: Operation, x: Number, y: Number, n: int):
    mask = (1 << n) - 1
    a, b, sa, sb = x.term & mask, y.term & mask, signed(x, n), signed(y, n)
    return {Operation.JEQ: a == b, Operation.JNE: a != b, Operation.JSET: a & b != 0,
            Operation.JGT: a > b, Operation.JGE: a >= b, Operation.JLT: a < b, Operation.JLE: a <= b,
            Operation.JSGT: sa > sb, Operation.JSGE: sa >= sb, Operation.JSLT: sa < sb,
            Operation.JSLE: sa <= sb}[operation]  # fmt: skip


# The claims.


def of_operator(operation: Operation, word: bool):
    """Of `compute`: the bits of the result, and its range. (The two are asked apart, for the sake of the number of
    paths; `compute` hands both to `made`.)"""

    def check(domain, wide):
        s = Symbols(domain, wide)
        x, y = s.unsigned("x"), s.unsigned("y")
        a, b = s.scalar("a", x), s.scalar("b", y)
        n = domain.width.WORD if word else domain.width.BITS
        exact = result_of(operation, x, y, n)
        of_bits, of_range = domain.arithmetic._OPERATORS[operation]
        bits = (a.word_tnum, b.word_tnum) if word else ((a.value, a.mask), (b.value, b.mask))
        ranges = (a.word_range, b.word_range) if word else (a.range, b.range)

        def masked():
            value, mask = of_bits(*bits)
            return value & (1 << n) - 1, mask & (1 << n) - 1

        if operation is not Operation.MUL:  # whose bits have a claim of their own
            yield s.assumed, masked, lambda found: in_bits(found, exact.term)
        yield s.assumed, lambda: of_range(*ranges, n), lambda found: in_range(found, exact.term, signed(exact, n))

    return check


def of_shift(operation: Operation, word: bool):
    def check(domain, wide):
        loosen(domain)
        n = domain.width.WORD if word else domain.width.BITS
        for distance in range(n):
            s = Symbols(domain, wide)
            x = s.unsigned("x")
            a = s.scalar("a", x)
            exact = shifted(operation, x, distance, n)
            yield (s.assumed, lambda a=a, distance=distance: domain.arithmetic._SHIFTS[operation](a, distance, word),
                   lambda found, exact=exact: contains(domain, found, exact))  # fmt: skip

    return check


def of_sign_extension(domain, wide):
    loosen(domain)
    for word in (False, True):
        n = domain.width.WORD if word else domain.width.BITS
        for bits in (n // 8, n // 4, n // 2) if n >= 8 else (n // 2,):
            s = Symbols(domain, wide)
            x = s.unsigned("x")
            a = s.scalar("a", x)
            exact = Number(signed(x, bits) & (1 << n) - 1)
            yield (s.assumed, lambda a=a, bits=bits, word=word: domain.arithmetic.sign_extend(a, bits, word),
                   lambda found, exact=exact: contains(domain, found, exact))  # fmt: skip


def of_decision(operation: Operation, word: bool):
    def check(domain, wide):
        s = Symbols(domain, wide)
        x, y = s.unsigned("x"), s.unsigned("y")
        a, b = s.scalar("a", x), s.scalar("b", y)
        taken = holds(operation, x, y, domain.width.WORD if word else domain.width.BITS)
        yield (s.assumed, lambda: domain.branch.decide(operation, a, b, word),
               lambda found: z3.BoolVal(True) if found is None else taken == found)  # fmt: skip

    return check


def of_refinement(operation: Operation, word: bool):
    def check(domain, wide):
        loosen(domain)
        s = Symbols(domain, wide)
        x, y = s.unsigned("x"), s.unsigned("y")
        a, b = s.scalar("a", x), s.scalar("b", y)
        taken = holds(operation, x, y, domain.width.WORD if word else domain.width.BITS)

        def kept(found):
            if not found:
                return z3.BoolVal(False)
            return z3.And(contains(domain, found[0], x), contains(domain, found[1], y))

        yield [*s.assumed, taken], lambda: domain.branch.refine(operation, a, b, word), kept
        if operation is Operation.JSET:
            yield ([*s.assumed, z3.Not(taken)], lambda: domain.branch.without_bits(a, b, word),
                   lambda found: contains(domain, found, x) if found else z3.BoolVal(False))  # fmt: skip

    return check


def of_made(domain, wide):
    """Each step of `made` keeps the number."""
    w, scalar = domain.width, domain.scalar
    s = Symbols(domain, wide)
    x = s.unsigned("x")
    a = s.scalar("a", x)
    word, x_signed, word_signed = x.term & w.WORD_MASK, signed(x, w.BITS), signed(x, w.WORD)
    low = a.value & w.WORD_MASK, a.mask & w.WORD_MASK
    steps = (
        (lambda: scalar._by_bits(a.value, a.mask, *a.range, w.SIGN), lambda r: in_range(r, x.term, x_signed)),
        (lambda: scalar._by_bits(*low, *a.word_range, w.WORD_SIGN), lambda r: in_range(r, word, word_signed)),
        (lambda: scalar._word_by_whole(*a.range, *a.word_range), lambda r: in_range(r, word, word_signed)),
        (lambda: scalar._by_each_other(*a.word_range, w.WORD_MASK, w.WORD_SIGN),
         lambda r: in_range(r, word, word_signed)),
        (lambda: scalar._by_each_other(*a.range, w.MASK, w.SIGN), lambda r: in_range(r, x.term, x_signed)),
        (lambda: scalar._whole_by_word(*a.range, *a.word_range), lambda r: in_range(r, x.term, x_signed)),
        (lambda: scalar._bits_by_range(a.value, a.mask, a.umin, a.umax, a.wumin, a.wumax),
         lambda r: in_bits(r, x.term) if r else z3.BoolVal(False)),
    )  # fmt: skip
    for run, kept in steps:
        yield s.assumed, run, kept


def of_multiplication_of_bits(domain, wide):
    """One step of tnum.multiply: a bit times a number, less what is certain of the product. (The product of two numbers
    is the sum of these and of `certain`, and tnum.add is claimed for itself, with ADD.)"""
    w = domain.width
    s = Symbols(domain, wide)
    value, mask, bit = s.unsigned("value"), s.unsigned("mask"), s.number("bit", 0, 1)
    y, other = s.unsigned("y"), (s.unsigned("other.value"), s.unsigned("other.mask"))
    s.assumed += [value.term & mask.term == 0, in_bits(other, y.term),
                  in_bits((value & 1, mask & 1), bit.term)]  # fmt: skip
    zero = z3.BitVecVal(0, wide)
    product = z3.If(bit.term == 1, y.term, zero) - z3.If(value.term & 1 == 1, other[0].term, zero)
    yield s.assumed, lambda: domain.tnum._doubt(value, mask, other), lambda r: in_bits(r, product & w.MASK)


def _both(name: str, maker: Callable, operation: Operation, factor: int = 1) -> list[Claim]:
    return [Claim(f"{name}{bits}", maker(operation, word), factor) for word, bits in ((False, 64), (True, 32))]


_JUMPS = (Operation.JEQ, Operation.JNE, Operation.JSET, Operation.JGT, Operation.JGE, Operation.JLT, Operation.JLE,
          Operation.JSGT, Operation.JSGE, Operation.JSLT, Operation.JSLE)  # fmt: skip

CLAIMS: tuple[Claim, ...] = (
    Claim("made", of_made),
    *(claim for operation in (Operation.ADD, Operation.SUB, Operation.AND, Operation.OR, Operation.XOR)
      for claim in _both(operation.name.lower(), of_operator, operation)),
    Claim("mul, bit by bit", of_multiplication_of_bits),
    *(claim for operation in (Operation.LSH, Operation.RSH, Operation.ARSH)
      for claim in _both(operation.name.lower(), of_shift, operation, factor=2)),
    Claim("movsx", of_sign_extension),
    *(claim for operation in _JUMPS for claim in _both(f"decision {operation.name.lower()}", of_decision, operation)),
    *(claim for operation in _JUMPS
      for claim in _both(f"refinement {operation.name.lower()}", of_refinement, operation)),
    *_both("mul", of_operator, Operation.MUL, factor=2),  # takes the longest
)  # fmt: skip


def counterexample(claim: Claim, bits: int, mutation: Mutation | None = None, seconds: float = SECONDS) -> str | None:
    """What the solver finds against a claim, None where it holds. Raises Undecided."""
    domain = symbolic_domain(bits, mutation)
    wide = claim.factor * bits + 4
    for assumed, function, kept in claim.check(domain, wide):
        for conditions, result in Paths(assumed).run(function):
            solver = z3.Then("simplify", "solve-eqs", "bit-blast", "sat").solver()
            solver.set(timeout=int(1000 * seconds))
            solver.add(*assumed, *conditions, z3.Not(kept(result)))
            answer = solver.check()
            if answer == z3.unknown:
                raise Undecided(claim.name)
            if answer == z3.sat:
                return str(solver.model())
    return None


def prove(claim: Claim) -> tuple[int, str | None]:
    """(bits at which the solver ended, counterexample)."""
    try:
        return 64, counterexample(claim, 64)
    except Undecided:
        return 8, counterexample(claim, 8, seconds=600)


def caught(mutation: Mutation) -> str | None:
    """The first claim that a wrong operator breaks, at 8 bits."""
    for claim in CLAIMS:
        if counterexample(claim, 8, mutation, seconds=600) is not None:
            return claim.name
    return None


def main() -> int:
    """Proves every claim, and has every wrong operator caught; prints a line for each. The number of failures."""
    failed = 0
    for claim in CLAIMS:
        begun = time.monotonic()
        bits, found = prove(claim)
        failed += found is not None
        what = f"proved at {bits} bits" if found is None else f"WRONG at {bits} bits: {found}"
        print(f"{time.monotonic() - begun:6.1f} s  verifier, {claim.name}: {what}", flush=True)
    for mutation in MUTATIONS:
        begun = time.monotonic()
        by = caught(mutation)
        failed += by is None
        print(f"{time.monotonic() - begun:6.1f} s  verifier, {mutation.new.strip()}: "
              + (f"caught by {by}" if by else "NOT CAUGHT"), flush=True)  # fmt: skip
    return failed


if __name__ == "__main__":
    sys.exit(main() != 0)
