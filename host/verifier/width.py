"""How wide the numbers of the domain are. Everything that depends on it is derived here, so that the same source can be
loaded with narrower numbers, of which all can be tried (tests/host/verifier/narrow.py)."""

BITS = 64
WORD = BITS // 2
"""Bits of a sub-register (w0 to w9)."""

MASK = (1 << BITS) - 1
WORD_MASK = (1 << WORD) - 1
SIGN = 1 << BITS - 1
WORD_SIGN = 1 << WORD - 1
SMIN, SMAX = -SIGN, SIGN - 1
WORD_SMIN, WORD_SMAX = -WORD_SIGN, WORD_SIGN - 1
