"""EXECUTE and BRANCH: adder, logic, shifter, what decides a jump; and the multiplier beside them."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.core.control import Condition, Control, Logic, Unit


def rotate_down(value, places: int):
    return Cat(value[places:], value[:places])


class Alu(Component):
    """Inputs in stage 8, outputs in stage 9.

    Members
    -------
    control : unit, logic, invert, carry, upward, arithmetic, condition and negate are looked at.
    left, right : operands. addend : the adder's right operand.
    amount : places to shift. shift_right_operand : shift `right` instead of `left`. low : less than half of the budget
        is left.
    sum : left + addend (inverted, with a carry: see Control). result : what `unit` says. taken : the condition holds.
    """

    control: In(Control)
    left: In(64)
    right: In(64)
    addend: In(64)
    amount: In(6)
    shift_right_operand: In(1)
    low: In(1)
    sum: Out(64)
    result: Out(64)
    taken: Out(1)

    def elaborate(self, platform) -> Module:
        m = Module()
        control, left, right = self.control, self.left, self.right

        # Stage 8
        invert = control.invert.replicate(64)
        total = Signal(66)  # one carry chain: the carry in is an addition one place below
        logic, turned = Signal(64), Signal(64)
        m.d.comb += total.eq(Cat(Const(1, 1), left) + Cat(control.carry, self.addend ^ invert))
        with m.Switch(control.logic):
            with m.Case(Logic.AND):
                m.d.comb += logic.eq(left & right)
            with m.Case(Logic.OR):
                m.d.comb += logic.eq(left | right)
            with m.Case(Logic.XOR):
                m.d.comb += logic.eq(left ^ right)
            with m.Case(Logic.RIGHT):
                m.d.comb += logic.eq(right)
        # Upward by n is a rotation downward by 64 - n. What was rotated around is masked in the next stage.
        places = Signal(6)
        m.d.comb += places.eq(Mux(control.upward, -self.amount, self.amount))
        shifted = Mux(self.shift_right_operand, right, left)
        for bit in (5, 4, 3):
            rotated = Signal(64, name=f"rotated_{bit}")
            m.d.comb += rotated.eq(Mux(places[bit], rotate_down(shifted, 1 << bit), shifted))
            shifted = rotated

        # Stage 9
        registers = {"sum": total[1:65], "carry": total[65], "logic": logic, "turned": shifted, "places": places}
        registers |= {"signs_differ": left[63] ^ right[63], "fill": control.arithmetic & left[63]}
        registers |= {"upward": control.upward & self.amount.any(), "unit": control.unit.as_value()}
        registers |= {"condition": control.condition.as_value(), "negate": control.negate, "low": self.low}
        later = {}
        for name, value in registers.items():
            later[name] = Signal(len(value), name=f"{name}_9", reset_less=True)
            m.d.sync += later[name].eq(value)

        turned = later["turned"]
        for bit in (2, 1, 0):
            rotated = Signal(64, name=f"rotated_{bit}")
            m.d.comb += rotated.eq(Mux(later["places"][bit], rotate_down(turned, 1 << bit), turned))
            turned = rotated
        keep = Signal(64)
        m.d.comb += keep.eq((Const((1 << 64) - 1, 64) >> later["places"]) ^ later["upward"].replicate(64))
        with m.Switch(later["unit"]):
            with m.Case(Unit.SUM):
                m.d.comb += self.result.eq(later["sum"])
            with m.Case(Unit.LOGIC):
                m.d.comb += self.result.eq(later["logic"])
            with m.Case(Unit.SHIFT):
                m.d.comb += self.result.eq((turned & keep) | (~keep & later["fill"].replicate(64)))

        holds = Signal()
        with m.Switch(later["condition"]):
            with m.Case(Condition.ALWAYS):
                m.d.comb += holds.eq(1)
            with m.Case(Condition.ZERO):
                m.d.comb += holds.eq(~later["logic"].any())
            with m.Case(Condition.CARRY):
                m.d.comb += holds.eq(later["carry"])
            with m.Case(Condition.CARRY_SIGNED):
                m.d.comb += holds.eq(later["carry"] ^ later["signs_differ"])
            with m.Case(Condition.LOW):
                m.d.comb += holds.eq(later["low"])
        m.d.comb += [self.sum.eq(later["sum"]), self.taken.eq(holds ^ later["negate"])]
        return m


class Multiplier(Component):
    """The low 64 bits of a product: ten products of 16 bits by 16, summed over four clocks.

    Members
    -------
    left, right : in stage 8. product : in stage 12.
    """

    left: In(64)
    right: In(64)
    product: Out(64)

    def elaborate(self, platform) -> Module:
        m = Module()

        def register(value, width: int, name: str) -> Signal:
            signal = Signal(width, name=name, reset_less=True)
            m.d.sync += signal.eq(value)
            return signal

        # Stage 8: partial products, named by the place of their lowest bit in units of 16 bits. Those of place 3 count
        # with their lower half only.
        parts: list[list[Signal]] = [[], [], [], []]
        for i in range(4):
            for j in range(4 - i):
                product = self.left.word_select(i, 16) * self.right.word_select(j, 16)
                parts[i + j].append(register(product, 16 if i + j == 3 else 32, f"product_{i}{j}_9"))
        # Stage 9
        lowest_10 = register(parts[0][0], 32, "lowest_10")
        ones_10 = register(parts[1][0] + parts[1][1], 33, "ones_10")
        twos_10 = register(parts[2][0] + parts[2][1], 32, "twos_10")
        two_10 = register(parts[2][2], 32, "two_10")
        threes_10 = [register(parts[3][k] + parts[3][k + 1], 16, f"threes_{k}_10") for k in (0, 2)]
        # Stage 10
        lower_11 = register(lowest_10 + (ones_10 << 16), 50, "lower_11")
        twos_11 = register(twos_10 + two_10, 32, "twos_11")
        threes_11 = register(threes_10[0] + threes_10[1], 16, "threes_11")
        # Stage 11
        lower_12 = register(lower_11, 50, "lower_12")
        upper_12 = register(twos_11 + (threes_11 << 16), 32, "upper_12")
        # Stage 12
        m.d.comb += self.product.eq(Cat(lower_12[:32], (lower_12[32:] + upper_12)[:32]))
        return m


def extended(m: Module, word, *, size, extend, cut) -> Signal:
    """The low 1 << size bytes of `word`, zero- or with `extend` sign-extended to 64 bits, or with `cut` to 32. size 3
    leaves it as it is."""
    result = Signal(64, name="extended")
    raw = Signal(64, name="raw")
    sign = Signal(name="sign")
    m.d.comb += [
        raw.eq(word),
        sign.eq(extend & Mux(size == 0, raw[7], Mux(size == 1, raw[15], raw[31]))),
        result.eq(
            Cat(
                raw[:8],
                Mux(size == 0, sign.replicate(8), raw[8:16]),
                Mux(size < 2, sign.replicate(16), raw[16:32]),
                Mux(size < 3, (sign & ~cut).replicate(32), raw[32:]),
            )
        ),
    ]
    return result
