"""Units that take several clocks: the multiplier, the divider. And where registers lie."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Elaboratable

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.alu import Multiplier
from bpfnic.hdl.core.control import Register
from bpfnic.hdl.core.divider import Divider, _Phase
from bpfnic.hdl.core.registers import entry_of
from bpfnic.spec import addresses, isa
from tests.formal.opened import Opened, constant, later
from tests.formal.proof import Mutation, Proof

CONFIG = NicConfig(threads=8, program_slots=64, map_bytes=4096, maps=1)


def _places():
    """The products of digits that count, by the numbers of their digits."""
    return [(i, j) for i in range(4) for j in range(4 - i)]


class DigitsHarness(Elaboratable):
    """The multiplier multiplies digits of 16 bits. Those of the last place count with their lower half only."""

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.multiplier = opened = Opened(multiplier := Multiplier(), inputs=True)
        for i, j in _places():
            product = Signal(32)
            m.d.comb += product.eq(multiplier.left.word_select(i, 16) * multiplier.right.word_select(j, 16))
            register = opened.signal(f"product_{i}{j}_9")
            m.d.comb += Assert(register == later(m, product)[: len(register)])
        return m


class SumHarness(Elaboratable):
    """The multiplier's product is the sum of whatever its digits' products are, each in its place, modulo 2**64: what
    one learns at school, which is left * right by the distributive law."""

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.multiplier = opened = Opened(multiplier := Multiplier(), inputs=True)
        digits = {(i, j): opened.signal(f"product_{i}{j}_9") for i, j in _places()}
        # In this order, for solvers are slow at sums in another one. Nothing is cut off before the end.
        ones = digits[0, 1] + digits[1, 0]
        twos = digits[0, 2] + digits[1, 1] + digits[2, 0]
        threes = (digits[0, 3] + digits[1, 2]) + (digits[2, 1] + digits[3, 0])
        total = Signal(64)
        m.d.comb += total.eq((digits[0, 0] + (ones << 16)) + ((twos + (threes << 16)) << 32))
        m.d.comb += Assert(multiplier.product == later(m, total, 3))
        return m


class DividerHarness(Elaboratable):
    """One division after the other, as one learns it: the remainder of the dividend's upper bits takes the next bit and
    gives the divisor off if that fits, which is a bit of the quotient. If upper = quotient * divisor + remainder with
    remainder < divisor, the same holds with one bit more: 2 * upper + bit = (2 * quotient + fits) * divisor
    + (2 * remainder + bit - fits * divisor), and 2 * remainder + bit < 2 * divisor. So after the last bit both are what
    division means. The solver shows that each clock does this step, with the right bit: what stands in the adder is
    2**64 - divisor, so that a carry says that it fits. The quotient's register holds the dividend's other bits above
    its own. Signs and a divisor of 0: RFC 9669 section 4.1."""

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.divider = opened = Opened(divider := Divider(CONFIG), inputs=True, without=("waiting", "divisors"))
        division, valid = opened.part("waiting").pop.payload, opened.part("waiting").pop.valid
        (divisor_port,) = opened.part("divisors").read_ports
        phase, left = opened.signal("phase"), opened.signal("left")
        quotient, remainder = opened.signal("quotient"), opened.signal("remainder")
        term, carry, minus = opened.signal("term"), opened.signal("carry"), opened.signal("minus")
        asked = constant(m, division.shape(), "asked")
        asked_divisor = constant(m, 64, "asked_divisor")
        # A queue's head stays until it is popped. That it is the same in every division says nothing: in TAKE nothing
        # is known of any register, so that each division may be the first.
        m.d.comb += Assume(Cat(division.as_value(), divisor_port.data) == Cat(asked.as_value(), asked_divisor))
        waited = later(m, valid & ~(divider.answer.valid & divider.answer.ready))
        m.d.comb += Assume(~waited | valid)

        def magnitude(value, name) -> tuple:
            negative, absolute = Signal(name=f"{name}_negative"), Signal(64, name=name)
            m.d.comb += [negative.eq(asked.signed & value[-1]), absolute.eq(Mux(negative, (-value)[:64], value))]
            return negative, absolute

        dividend_negative, dividend = magnitude(asked.dividend, "dividend")
        divisor_negative, divisor = magnitude(asked_divisor, "divisor")
        by_zero = ~divisor.any()
        # The next bit is the dividend's number `left`: the uppermost of the places that are left, as asserted below.
        extended, difference, less = Signal(65), Signal(67), Signal(64)
        m.d.comb += [
            extended.eq(Cat(quotient[-1], remainder)),
            difference.eq(Cat(1, extended) + Cat(carry, term)),  # extended + term + carry, a place higher
            less.eq(Mux(difference[65:].any(), difference[1:65], extended)),
        ]

        inverted = Mux(divisor_negative, asked_divisor, ~asked_divisor)
        of_term = (term == inverted) & (carry == ~divisor_negative) & (term + carry + divisor == 1 << 64)
        m.d.comb += [
            Assert(phase <= _Phase.ANSWER),
            Assert((phase == _Phase.TAKE) | valid),
            Assert((phase == _Phase.TAKE) | (phase == _Phase.DIVIDEND) | (minus == dividend_negative)),
        ]
        with m.If(phase == _Phase.DIVIDEND):
            signed_dividend = Mux(dividend_negative, ~asked.dividend, asked.dividend)
            m.d.comb += Assert(~quotient.any() & ~remainder.any())
            m.d.comb += Assert((term == signed_dividend) & (carry == dividend_negative))
        with m.If((phase == _Phase.SKIP) | (phase == _Phase.DIVIDE)):
            m.d.comb += Assert(of_term)
            with m.Switch(left):
                for number in range(64):
                    with m.Case(number):  # so many places are left, and one; they stand uppermost
                        m.d.comb += Assert(quotient[63 - number :] == dividend[: number + 1])
                        m.d.comb += Assert(~by_zero | (remainder == dividend[number + 1 :]))
            with m.If(phase == _Phase.SKIP):
                m.d.comb += Assert(~remainder.any())
                with m.Switch(left):
                    for number in range(63):
                        with m.Case(number):
                            m.d.comb += Assert(~dividend[number + 1 :].any())
                            m.d.comb += Assert(~quotient[: 63 - number].any())
        divided, next_quotient, next_remainder = (
            later(m, value) for value in (phase == _Phase.DIVIDE, Cat(difference[65:].any(), quotient)[:64], less)
        )
        m.d.comb += Assert(~divided | ((quotient == next_quotient) & (remainder == next_remainder)))
        found, partial = Signal(64), Signal(64)
        with m.If(phase == _Phase.RESULT):
            m.d.sync += [found.eq(quotient), partial.eq(remainder)]
            m.d.comb += [Assert(of_term), Assert(~by_zero | (remainder == dividend))]
        with m.If((phase == _Phase.SIGN) | (phase == _Phase.ANSWER)):
            m.d.comb += Assert(~by_zero | (partial == dividend))

        wanted = Signal(64)
        with m.If(asked.modulo):
            m.d.comb += wanted.eq(Mux(dividend_negative, -partial, partial))  # by zero: the dividend again
        with m.Elif(~by_zero):
            m.d.comb += wanted.eq(Mux(dividend_negative ^ divisor_negative, -found, found))
        with m.If(phase == _Phase.SIGN):
            m.d.comb += [Assert(~quotient.any() & ~remainder.any()), Assert((term + carry)[:64] == wanted)]
        with m.If(phase == _Phase.ANSWER):
            m.d.comb += Assert(quotient == wanted)
        m.d.comb += [
            Assert(divider.answer.valid == (phase == _Phase.ANSWER)),
            Assert(~divider.answer.valid | (divider.answer.payload.value == wanted)),
            Assert(~divider.answer.valid | (divider.answer.payload.thread == asked.thread)),
        ]
        return m


class EntriesHarness(Elaboratable):
    """Two registers of two functions in one chain of calls."""

    def elaborate(self, platform) -> Module:
        m = Module()
        kinds = (Register.DST, Register.R0, Register.R1, Register.R2, Register.R3, Register.R4, Register.TARGET,
                 Register.WORD, Register.LINK)  # fmt: skip
        ways = []
        for side in ("one", "other"):
            number, frame = constant(m, 4, f"{side}_number"), constant(m, 4, f"{side}_frame")
            m.d.comb += Assume((number < isa.FRAME_POINTER) & (frame <= addresses.FIRMWARE_FRAME))
            entries = [entry_of(kind, number, Const(0, 4), frame, reading=True) for kind in kinds]
            ways.append([(kind, number, frame, entry) for kind, entry in zip(kinds, entries, strict=True)])
        for kind, number, frame, entry in ways[0]:
            for other_kind, other_number, other_frame, other in ways[1]:
                if kind is Register.LINK or other_kind is Register.LINK:
                    # A function's link is no other register, but for the first function's, which has none.
                    of_both = kind is other_kind
                    same = (frame == other_frame) if of_both else ~(frame if kind is Register.LINK
                                                                    else other_frame).any()  # fmt: skip
                    m.d.comb += Assert((entry != other) | same)
                    continue
                first, second = (self._identity(*each) for each in ((kind, number, frame),
                                                                    (other_kind, other_number, other_frame)))
                m.d.comb += Assert((entry == other) == (first == second))
        # What a call writes is what its callee finds.
        caller = ways[0][0][2]
        left = entry_of(Register.LINK, Const(0, 4), Const(0, 4), caller)
        found = entry_of(Register.LINK, Const(0, 4), Const(0, 4), (caller + 1)[:4], reading=True)
        m.d.comb += Assert((caller >= addresses.FRAMES - 1) | (left == found))
        left = entry_of(Register.FIRMWARE_LINK, Const(0, 4), Const(0, 4), caller)
        found = entry_of(Register.LINK, Const(0, 4), Const(0, 4), Const(addresses.FIRMWARE_FRAME, 4), reading=True)
        m.d.comb += Assert(left == found)
        return m

    def _identity(self, kind, number, frame):
        """What tells registers apart: r0 to r5 are the same in all frames (RFC 9669 section 3)."""
        if kind is Register.DST:
            return Cat(number, Mux(number < 6, 0, frame)[:4])
        if kind in (Register.TARGET, Register.WORD):
            return Const(0x70 + kind.value, 7)
        return Const(kind.value, 7)


PROOFS = [
    Proof(
        name="multiplier-digits",
        of=("hdl/core/alu.py",),
        says="the products of 16-bit digits are what `*` says",
        harness=DigitsHarness,
        mutations=(Mutation("hdl/core/alu.py", "self.right.word_select(j, 16)", "self.right.word_select(i, 16)"),),
        clocks=2,
        solver="boolector",
    ),
    Proof(
        name="multiplier-sum",
        of=("hdl/core/alu.py",),
        says="the product is the sum of the products of digits, whatever those are, each in its place",
        harness=SumHarness,
        mutations=(Mutation("hdl/core/alu.py", "twos_10 + two_10", "twos_10 | two_10"),),
        clocks=6,
        solver="boolector",
        cut="t:$mul",
    ),
    Proof(
        name="divider",
        of=("hdl/core/divider.py",),
        says="each answer is RFC 9669's quotient or remainder, signed or unsigned, by zero too, of its thread",
        harness=DividerHarness,
        mutations=(
            Mutation("hdl/core/divider.py", "inverted.eq(~divisor_minus)", "inverted.eq(divisor_minus)"),
            Mutation("hdl/core/divider.py", "fits.eq(shifted[64] | total[65])", "fits.eq(shifted[64] & total[65])"),
        ),
        clocks=1,
        reach=6,
        solver="boolector",
        quick=False,
    ),
    Proof(
        name="entries",
        of=("hdl/core/registers.py",),
        says="registers of a thread share an entry of the register file only if they are the same register of the same "
        "function; a callee finds its caller's link",
        harness=EntriesHarness,
        mutations=(
            Mutation("hdl/core/registers.py", "~frame[2], frame[2] | frame[3])", "frame[2], frame[2] | frame[3])"),
            Mutation("hdl/core/registers.py", "frame[2] | frame[3])", "frame[2])"),
        ),
        clocks=1,
    ),
]
