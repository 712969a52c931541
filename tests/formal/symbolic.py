"""Runs a Python function on symbolic integers: every path through it, each with the condition under which it is taken.

An integer is a z3 bit vector, signed and wide enough that nothing overflows. Where Python asks a symbolic condition for
its truth the run takes one side, and a later run the other."""

from collections.abc import Callable, Iterator

import z3


class Number:
    """A symbolic integer."""

    def __init__(self, term):
        self.term = term

    def _other(self, other):
        if isinstance(other, Truth):
            return z3.If(other.term, z3.BitVecVal(1, self.term.size()), z3.BitVecVal(0, self.term.size()))
        return other.term if isinstance(other, Number) else z3.BitVecVal(other, self.term.size())

    def __add__(self, other):
        return Number(self.term + self._other(other))

    def __sub__(self, other):
        return Number(self.term - self._other(other))

    def __rsub__(self, other):
        return Number(self._other(other) - self.term)

    def __mul__(self, other):
        return Number(self.term * self._other(other))

    def __and__(self, other):
        return Number(self.term & self._other(other))

    def __or__(self, other):
        return Number(self.term | self._other(other))

    def __xor__(self, other):
        return Number(self.term ^ self._other(other))

    __radd__, __rmul__, __rand__, __ror__, __rxor__ = __add__, __mul__, __and__, __or__, __xor__

    def __invert__(self):
        return Number(~self.term)

    def __lshift__(self, distance: int):
        return Number(self.term << distance)

    def __rshift__(self, distance: int):
        return Number(self.term >> distance)

    def __lt__(self, other):
        return Truth(self.term < self._other(other))

    def __le__(self, other):
        return Truth(self.term <= self._other(other))

    def __gt__(self, other):
        return Truth(self.term > self._other(other))

    def __ge__(self, other):
        return Truth(self.term >= self._other(other))

    def __eq__(self, other):
        return Truth(self.term == self._other(other))

    def __ne__(self, other):
        return Truth(self.term != self._other(other))

    def __bool__(self):
        return bool(self != 0)

    __hash__ = None  # type: ignore[assignment]


class Truth:
    """A symbolic condition."""

    paths: "Paths | None" = None

    def __init__(self, term):
        self.term = term

    def __bool__(self):
        assert Truth.paths
        return Truth.paths.choose(self.term)


class Paths:
    """All paths through a function, under what is assumed of its arguments."""

    def __init__(self, assumed: list):
        self._solver = z3.SolverFor("QF_BV")
        self._solver.set(timeout=2000)
        self._solver.add(*assumed)
        self._chosen: list[bool] = []

    def run(self, function: Callable) -> Iterator[tuple[list, object]]:
        """(conditions, result) of each path that can be taken."""
        waiting: list[list[bool]] = [[]]
        while waiting:
            self._prefix, self._at, self._conditions, self._alternatives = waiting.pop(), 0, [], []
            self._chosen = []
            Truth.paths = self
            self._solver.push()
            try:
                result = function()
            finally:
                Truth.paths = None
                self._solver.pop()
            waiting += self._alternatives
            yield self._conditions, result

    def choose(self, term) -> bool:
        term = z3.simplify(term)
        if z3.is_true(term) or z3.is_false(term):
            return z3.is_true(term)
        if self._at < len(self._prefix):
            side = self._prefix[self._at]
        else:
            yes, no = self._possible(term), self._possible(z3.Not(term))
            side = yes
            if yes and no:
                self._alternatives.append([*self._chosen, False])
        self._at += 1
        self._chosen.append(side)
        condition = term if side else z3.Not(term)
        self._conditions.append(condition)
        self._solver.add(condition)
        return side

    def _possible(self, term) -> bool:
        """Whether a path can go that way; where the solver can't say, it is taken to be so."""
        return self._solver.check(term) != z3.unsat


def least(*numbers):
    """min() of integers of which some are symbolic."""
    return _fold(numbers, lambda a, b: a <= b)


def greatest(*numbers):
    """max(), in the same way."""
    return _fold(numbers, lambda a, b: a >= b)


def _fold(numbers, better):
    symbolic = next((number for number in numbers if isinstance(number, Number)), None)
    if symbolic is None:
        return min(numbers) if better(0, 1) else max(numbers)
    first, *others = (Number(symbolic._other(number)) for number in numbers)
    for other in others:
        first = Number(z3.If(better(first, other).term, first.term, other.term))
    return first


def spread(number):
    """tnum.spread: all bits up to the highest one."""
    term, distance = number.term, 1
    while distance < term.size():
        term |= z3.LShR(term, distance)
        distance *= 2
    return Number(term)
