"""SipHash-2-4 (Aumasson and Bernstein, 2012), half a round a clock."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

_CONSTANTS = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
_COMPRESSION, _FINALIZATION = 2, 4  # rounds


class SipHash(Component):
    """Hash of words of 8 bytes under a key.

    Parameters
    ----------
    key : 16 bytes.

    Members
    -------
    start : forget everything; the next word is a message's first.
    absorb, word : take the next word; the last one has the message's length in its highest byte.
    finish : no more words. For each of these three `busy` must be 0.
    busy : from the clock behind absorb (for 5 clocks) or finish (8).
    digest : when it is not busy behind `finish`, until the next start.
    """

    def __init__(self, key: bytes):
        self.key = key
        super().__init__(
            {
                "start": In(1),
                "absorb": In(1),
                "word": In(64),
                "finish": In(1),
                "busy": Out(1),
                "digest": Out(64),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        v0, v1, v2, v3 = v = [Signal(64, name=f"v{i}", reset_less=True) for i in range(4)]
        left = Signal(range(2 * _FINALIZATION + 1))  # half rounds
        second = Signal()  # half of a round: v0 and v2 have changed places
        held, holds = Signal(64, reset_less=True), Signal()  # the word, for v0 at the end
        m.d.comb += [self.busy.eq((left != 0) | holds), self.digest.eq(v0 ^ v1 ^ v2 ^ v3)]

        left_sum, right_sum = (v0 + v1)[:64], (v2 + v3)[:64]
        with m.If(left != 0):
            m.d.sync += [
                left.eq(left - 1),
                second.eq(~second),
                v0.eq(right_sum),
                v2.eq(left_sum.rotate_left(32)),
                v1.eq(Mux(second, v1.rotate_left(17), v1.rotate_left(13)) ^ left_sum),
                v3.eq(Mux(second, v3.rotate_left(21), v3.rotate_left(16)) ^ right_sum),
            ]
        with m.Elif(holds):
            m.d.sync += [v0.eq(v0 ^ held), holds.eq(0)]
        with m.Elif(self.absorb):
            m.d.sync += [v3.eq(v3 ^ self.word), held.eq(self.word), holds.eq(1), left.eq(2 * _COMPRESSION)]
        with m.Elif(self.finish):
            m.d.sync += [v2.eq(v2 ^ 0xFF), left.eq(2 * _FINALIZATION)]
        with m.If(self.start):
            words = Cat(Const(int.from_bytes(self.key, "little"), 128))
            m.d.sync += [holds.eq(0), left.eq(0), second.eq(0)]
            m.d.sync += [
                each.eq(words.word_select(i % 2, 64) ^ constant)
                for i, (each, constant) in enumerate(zip(v, _CONSTANTS, strict=True))
            ]
        return m
