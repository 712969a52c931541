"""SipHash-2-4 (Aumasson and Bernstein, 2012), 16 bits a clock: its state lies in distributed memory.

A round is four steps, a sum and a rotation each:

    v0 += v1, v1 <<<= 13, v1 ^= v0    v2 += v3, v3 <<<= 16, v3 ^= v2    and v0 <<<= 32
    v0 += v3, v3 <<<= 21, v3 ^= v0    v2 += v1, v1 <<<= 17, v1 ^= v2    and v2 <<<= 32

Each takes its four limbs twice, for the sum and then for the rotation. Whole limbs of a rotation move nothing: another
limb becomes the first one. So it is small, and slow enough: the longest message takes 9,000 clocks, a tenth of a
millisecond, where its bytes take three on a UART of 3 Mbaud.
"""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In, Out

_CONSTANTS = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
_COMPRESSION, _FINALIZATION = 2, 4  # rounds
_ROTATIONS = (13, 16, 21, 17)  # by step
_LIMB, _LIMBS = 16, 4  # bits of a limb, limbs of a word


class SipHash(Component):
    """Hash of words of 8 bytes under a key.

    Parameters
    ----------
    key : 16 bytes.

    Members
    -------
    start : forget everything; the next word is a message's first.
    absorb, word : take the next word, which stays until it is not busy; the last one has the message's length in its
        highest byte.
    finish : no more words. For each of these three `busy` must be 0.
    busy : from the clock behind start (for 8 clocks), absorb (72) or finish (140).
    digest : when it is not busy behind `finish`, until the next one.
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
        limb, step, rounds = Signal(range(_LIMBS)), Signal(range(len(_ROTATIONS))), Signal(range(_FINALIZATION))
        last, finishing = limb == _LIMBS - 1, Signal()
        word = self.word.word_select(limb, _LIMB)

        # v0 and v2 in one memory, v1 and v3 in the other; `first` is where the limbs of v1 and v3 begin. v0 and v2
        # have their halves exchanged in a part of every other round.
        m.submodules.even = even = memory.Memory(shape=_LIMB, depth=2 * _LIMBS, init=[])
        m.submodules.odd = odd = memory.Memory(shape=_LIMB, depth=2 * _LIMBS, init=[])
        (a, put_a), (b, put_b) = ((each.read_port(domain="comb"), each.write_port()) for each in (even, odd))
        of_v2, of_v3 = step[0], step[0] ^ step[1]
        first = Array(Signal.like(limb, name=f"first_of_{v}") for v in ("v1", "v3"))
        moved = step != 0  # the rotation is by a limb, and by less than one
        turning = Signal()
        a_limb, b_limb = Signal.like(limb), Signal.like(limb)
        exchanged = rounds[0] ^ (moved & ~of_v2)
        m.d.comb += [
            a_limb.eq((limb + (turning & moved)) ^ Mux(exchanged, _LIMBS // 2, 0)),
            b_limb.eq(limb + first[of_v3]),
            a.addr.eq(Cat(a_limb, of_v2)),
            b.addr.eq(Cat(b_limb, of_v3)),
            put_a.addr.eq(a.addr),
            put_b.addr.eq(b.addr),
        ]

        carry, total = Signal(), Signal(_LIMB + 1)
        before = Signal(_LIMB, reset_less=True)  # the limb below; behind the sum the highest, which is below the lowest
        pair = Cat(before, b.data)
        turned = Array(pair[_LIMB - by % _LIMB :][:_LIMB] for by in _ROTATIONS)[step]
        m.d.comb += total.eq(a.data + b.data + carry)
        m.d.sync += [before.eq(b.data), limb.eq(limb + 1), carry.eq(0)]
        with m.FSM() as machine:
            with m.State("IDLE"):
                m.d.sync += [limb.eq(0), step.eq(1), finishing.eq(self.finish)]  # v2 and v3
                with m.If(self.absorb | self.finish):
                    m.next = "BEGIN"
                with m.Elif(self.start):
                    m.d.sync += [step.eq(0), *(each.eq(0) for each in first)]
                    m.next = "FILL"
            with m.State("FILL"):
                key = Cat(Const(int.from_bytes(self.key, "little"), 128))
                begins = [key.word_select(v % 2, 64) ^ constant for v, constant in enumerate(_CONSTANTS)]
                at = Cat(limb, of_v2)
                m.d.comb += [put_a.en.eq(1), put_a.data.eq(Cat(begins[0], begins[2]).word_select(at, _LIMB))]
                m.d.comb += [put_b.en.eq(1), put_b.data.eq(Cat(begins[1], begins[3]).word_select(at, _LIMB))]
                with m.If(last):
                    m.d.sync += step.eq(1)
                    with m.If(of_v2):
                        m.next = "IDLE"
            with m.State("BEGIN"):
                m.d.comb += [put_a.en.eq(finishing), put_a.data.eq(a.data ^ Mux(limb == 0, 0xFF, 0))]
                m.d.comb += [put_b.en.eq(~finishing), put_b.data.eq(b.data ^ word)]
                with m.If(last):
                    m.d.sync += step.eq(0)
                    m.next = "SUM"
            with m.State("SUM"):
                m.d.comb += [put_a.en.eq(1), put_a.data.eq(total)]
                m.d.sync += carry.eq(total[-1] & ~last)
                with m.If(last):
                    m.next = "TURN"
            with m.State("TURN"):
                m.d.comb += [turning.eq(1), put_b.en.eq(1), put_b.data.eq(turned ^ a.data)]
                with m.If(last):
                    m.d.sync += [first[of_v3].eq(first[of_v3] - moved), step.eq(step + 1)]
                    m.next = "SUM"
                    with m.If(step == len(_ROTATIONS) - 1):
                        m.d.sync += rounds.eq(rounds + 1)
                        with m.If(rounds == Mux(finishing, _FINALIZATION, _COMPRESSION) - 1):
                            m.d.sync += rounds.eq(0)
                            m.next = "END"
            with m.State("END"):
                m.d.comb += [put_a.en.eq(~finishing), put_a.data.eq(a.data ^ word)]
                digest = (self.digest[:_LIMB] & of_v2.replicate(_LIMB)) ^ a.data ^ b.data
                with m.If(finishing):
                    m.d.sync += self.digest.eq(Cat(self.digest[_LIMB:], digest))
                with m.If(last):
                    m.d.sync += step.eq(1)
                    with m.If(~finishing | of_v2):
                        m.next = "IDLE"
        m.d.comb += self.busy.eq(~machine.ongoing("IDLE"))
        return m
