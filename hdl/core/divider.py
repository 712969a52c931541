"""Division, a bit a clock: one unit for all threads of a core. Only the thread that divides waits."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import Answer
from bpfnic.hdl.queue import Queue

_STRIDE = 16


def Division(config: NicConfig) -> data.StructLayout:
    """What a thread asks for, without the divisor. modulo: the remainder, not the quotient. signed: both are signed.

    32-bit operands come extended to 64 bits, with zeroes or with `signed` by their sign: the answer's lower half is
    theirs.
    """
    return data.StructLayout({"thread": range(config.threads), "signed": 1, "modulo": 1, "dividend": 64})


class _Phase(Enum, shape=3):
    TAKE = 0  # the dividend becomes the term
    DIVIDEND = 1  # its absolute value the quotient, whose place it has; the divisor becomes the term
    SKIP = 2  # 16 places a clock, as long as they are zeroes
    DIVIDE = 3  # a bit of the quotient, from the highest
    RESULT = 4  # quotient or remainder become the term
    SIGN = 5  # which gets its sign
    ANSWER = 6


class _Move(Enum, shape=2):
    """What becomes of the quotient."""

    NONE = 0
    SUM = 1
    STRIDE = 2
    BIT = 3  # and of the remainder


class Divider(Component):
    """RFC 9669 section 4.1: quotients are rounded towards zero, a remainder has its dividend's sign; by zero the
    quotient is 0 and the remainder the dividend. (The smallest number divided by -1 wraps to itself.)

    One adder does it all: what is added to the remainder is a term that stands there already inverted where it has to
    be subtracted. Added to a remainder of 0 it is a number with another sign.

    A division takes 10 clocks, and 15 for each 16 bits of its dividend's absolute value (0 has 16 too): 25 to 70.

    Members
    -------
    keep, keeper, divisor : in this clock `divisor` is kept for thread `keeper`, no later than it pushes.
    push, division : the rest of what the thread asks for. A thread has one division under way at most.
    answer : the quotient or remainder.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        thread = range(config.threads)
        super().__init__(
            {
                "keep": In(1),
                "keeper": In(thread),
                "divisor": In(64),
                "push": In(1),
                "division": In(Division(config)),
                "answer": Out(stream.Signature(Answer(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.waiting = waiting = Queue(Division(self.config), self.config.threads)
        m.submodules.divisors = divisors = memory.Memory(shape=64, depth=self.config.threads, init=[])
        write, read = divisors.write_port(), divisors.read_port(domain="comb")
        first, divisor = waiting.pop.payload, read.data
        m.d.comb += [
            waiting.push.eq(self.push),
            waiting.entry.eq(self.division),
            write.en.eq(self.keep),
            write.addr.eq(self.keeper),
            write.data.eq(self.divisor),
            read.addr.eq(first.thread),
        ]

        phase = Signal(_Phase)
        left = Signal(range(64))  # bits of the quotient that are still to be found, but for one
        # Quotient and remainder are one shift register: what is left of the dividend moves up into the remainder, and
        # behind it come the quotient's bits.
        quotient, remainder, term = (Signal(64, name=name) for name in ("quotient", "remainder", "term"))
        carry = Signal()
        shifted = Cat(quotient[-1], remainder)
        total = Signal(66)  # one carry chain: the carry in is an addition one place below
        m.d.comb += total.eq(Cat(1, shifted[:64]) + Cat(carry, term))
        fits = Signal()  # the divisor in the remainder, which has 65 bits
        m.d.comb += fits.eq(shifted[64] | total[65])

        minus = Signal()  # the dividend is negative
        dividend_minus, divisor_minus = first.signed & first.dividend[-1], first.signed & divisor[-1]
        by_zero = carry & term.all()  # with the divisor as the term

        becomes, inverted, clears, moves = Signal(), Signal(), Signal(), Signal(_Move)
        with m.Switch(phase):
            with m.Case(_Phase.TAKE):
                m.d.comb += [becomes.eq(1), inverted.eq(dividend_minus), clears.eq(1)]
                with m.If(waiting.pop.valid):
                    m.d.sync += phase.eq(_Phase.DIVIDEND)
            with m.Case(_Phase.DIVIDEND):
                m.d.comb += [becomes.eq(1), inverted.eq(~divisor_minus), moves.eq(_Move.SUM)]
                m.d.sync += [minus.eq(dividend_minus), left.eq(63), phase.eq(_Phase.SKIP)]
            with m.Case(_Phase.SKIP):
                with m.If(quotient[-_STRIDE:].any() | (left < _STRIDE)):
                    m.d.sync += phase.eq(_Phase.DIVIDE)
                with m.Else():
                    m.d.comb += moves.eq(_Move.STRIDE)
                    m.d.sync += left.eq(left - _STRIDE)
            with m.Case(_Phase.DIVIDE):
                m.d.comb += moves.eq(_Move.BIT)
                m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.d.sync += phase.eq(_Phase.RESULT)
            with m.Case(_Phase.RESULT):
                m.d.comb += [becomes.eq(1), inverted.eq(minus ^ (divisor_minus & ~first.modulo)), clears.eq(1)]
                m.d.sync += phase.eq(_Phase.SIGN)
            with m.Case(_Phase.SIGN):
                m.d.comb += moves.eq(_Move.SUM)
                m.d.sync += phase.eq(_Phase.ANSWER)
            with m.Case(_Phase.ANSWER):
                with m.If(self.answer.ready):
                    m.d.sync += phase.eq(_Phase.TAKE)

        given, found = Signal(64), Signal(64)  # (of one multiplexer of four words Yosys makes more than twice as much)
        m.d.comb += [
            given.eq(Mux(phase == _Phase.DIVIDEND, divisor, first.dividend)),
            found.eq(Mux(first.modulo, remainder, quotient)),
        ]
        with m.If(becomes):
            value = Mux(phase == _Phase.RESULT, found, given)
            m.d.sync += [term.eq(value ^ inverted.replicate(64)), carry.eq(inverted)]
        with m.If((phase == _Phase.RESULT) & by_zero & ~first.modulo):
            m.d.sync += [term.eq(0), carry.eq(0)]
        with m.Switch(moves):
            with m.Case(_Move.SUM):
                m.d.sync += quotient.eq(total[1:65])
            with m.Case(_Move.STRIDE):
                m.d.sync += quotient.eq(quotient << _STRIDE)
            with m.Case(_Move.BIT):
                m.d.sync += [quotient.eq(Cat(fits, quotient)), remainder.eq(Mux(fits, total[1:65], shifted))]
        with m.If(clears):
            m.d.sync += [quotient.eq(0), remainder.eq(0)]
        m.d.comb += [
            self.answer.valid.eq(phase == _Phase.ANSWER),
            self.answer.payload.thread.eq(first.thread),
            self.answer.payload.value.eq(quotient),
            waiting.pop.ready.eq(self.answer.valid & self.answer.ready),
        ]
        return m
