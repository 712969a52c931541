"""READ: what takes the place of the right operand's register."""

from amaranth import Cat, Const, Module, Signal

from bpfnic.hdl.core.control import Immediate
from bpfnic.spec import addresses


def immediate(m: Module, which: Immediate, *, instruction, next_imm, link, time, random, cpu) -> Signal:
    """64 bits. instruction : decode.Instruction. next_imm : of its second slot. link : what a call leaves for its
    callee's exit. time, random, cpu : samples of this clock."""
    imm = instruction.imm
    value = Signal(64, name="immediate_5")
    with m.Switch(which):
        with m.Case(Immediate.NONE, Immediate.IMM):
            m.d.comb += value.eq(imm.as_signed())
        with m.Case(Immediate.WIDE):
            m.d.comb += value.eq(Cat(imm, next_imm))
        with m.Case(Immediate.SWAP):  # 64 - width, which imm has
            m.d.comb += value.eq(Cat(Const(0, 4), imm[4], imm[4] | imm[5]))
        with m.Case(Immediate.SWAP_LOADED):  # 64 - width, from the size: 0 is 32 bits, 1 is 16, 2 is 8
            half, byte = instruction.opcode[3], instruction.opcode[4]
            m.d.comb += value.eq(Cat(Const(0, 3), byte, half | byte, 1))
        with m.Case(Immediate.LINK):
            m.d.comb += value.eq(link)
        with m.Case(Immediate.TIME):
            m.d.comb += value.eq(time)
        with m.Case(Immediate.RANDOM):
            m.d.comb += value.eq(random)
        with m.Case(Immediate.CPU):
            m.d.comb += value.eq(cpu)
        with m.Case(Immediate.ONE):
            m.d.comb += value.eq(1)
        with m.Case(Immediate.CONTEXT):
            m.d.comb += value.eq(addresses.CONTEXT)
    return value
