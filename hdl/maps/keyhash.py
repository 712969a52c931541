"""The hash of a key: HalfSipHash (Aumasson and Bernstein, "SipHash: a fast short-input PRF"), one round a word and
three at the end, without the word that holds the length, for all keys of a map have the same."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

FINAL_ROUNDS = 3


def rounds(v0, v1, v2, v3):
    """One round of HalfSipHash on four words of 32 bits (Amaranth values)."""
    a = (v0 + v1)[:32]
    b = v1.rotate_left(5) ^ a
    c = (v2 + v3)[:32]
    d = v3.rotate_left(8) ^ c
    e = (a.rotate_left(16) + d)[:32]
    f = (c + b)[:32]
    return e, b.rotate_left(13) ^ f, f.rotate_left(16), d.rotate_left(7) ^ e


class KeyHash(Component):
    """A round each clock.

    Members
    -------
    start : begins with the key `seed`. add : takes `word`, the next 4 bytes of the map's key. end : in the last
        FINAL_ROUNDS clocks; `first_end` in the first of them.
    hash : in the clock after the last of them.
    """

    start: In(1)
    seed: In(64)
    add: In(1)
    word: In(32)
    end: In(1)
    first_end: In(1)
    hash: Out(32)

    def elaborate(self, platform) -> Module:
        m = Module()
        state = [Signal(32, name=f"v{i}", reset_less=True) for i in range(4)]
        v0, v1, v2, v3 = state
        word = Signal(32)
        with m.If(self.add):
            m.d.comb += word.eq(self.word)
        turned = rounds(v0, v1, v2 ^ Mux(self.first_end, 0xFF, 0), v3 ^ word)
        with m.If(self.start):
            low, high = self.seed[:32], self.seed[32:]
            m.d.sync += [v0.eq(low), v1.eq(high), v2.eq(low ^ 0x6C796765), v3.eq(high ^ 0x74656462)]
        with m.Elif(self.add | self.end):
            m.d.sync += [Cat(*state).eq(Cat(turned[0] ^ word, *turned[1:]))]
        m.d.comb += self.hash.eq(v1 ^ v3)
        return m
