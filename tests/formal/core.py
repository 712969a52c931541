"""The core as it is, with its memories, its units and whatever is around it left to the solver.

One pass is watched: the one that writes (or could) in the present clock. Stage s of it was 15 - s clocks ago. What
stands in front of the pipeline may issue any thread at any time with any instruction and any state, so that what is
proved holds in every program; what the pass depends on are its own values alone, which the induction step of 15 clocks
shows.
"""

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.hdl import Assert, Assume, Elaboratable
from amaranth.lib import data

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.control import Register, Step
from bpfnic.hdl.core.core import Core
from bpfnic.hdl.core.decode import Instruction
from bpfnic.hdl.core.registers import Entry, entry_of
from bpfnic.spec import addresses, engine, isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.instruction import WIDE_OPCODE
from bpfnic.spec.isa import Legal, Operation, Row
from tests.formal import rfc9669
from tests.formal.opened import Opened, free, later
from tests.formal.proof import Mutation, Proof

WRITE = 15
CONFIG = NicConfig(threads=8, program_slots=64, map_bytes=4096, maps=1)
AROUND = ("threads", "registers", "generations", "multiplier", "requests", "answers", "retirement", "finished")
"""What of the core is left to the solver."""


class Pass:
    """The core, and what its pass was given: each value as seen in stage 15.

    Attributes
    ----------
    valid : there is a pass. first : it begins an instruction, which has budget left and lies in the store.
    thread, instruction, next_imm, next_reserved, pc, progress : of it.
    dst, src, r0 : what its instruction's registers hold, as a program sees them.
    entry : of its dst in the register file.
    writes_nothing : it leaves the register file to others' answers. ends, cause : it ends its packet.
    """

    def __init__(self, m: Module):
        self.core = core = Core(CONFIG)
        self.opened = opened = Opened(core, inputs=True, without=("scheduler", *AROUND))
        m.submodules.core = opened
        self.threads, self.registers = opened.part("threads"), opened.part("registers")
        self.generations, self.answers = opened.part("generations"), opened.part("answers")
        self.finished, self.multiplier = opened.part("finished"), opened.part("multiplier")
        self.m = m

        seen = self.seen
        self.instruction = seen(3, data.View(Instruction, core.fetch.instruction), Instruction)
        self.next_imm, self.next_reserved = seen(3, core.fetch.next_imm), seen(3, core.fetch.next_reserved)
        self.thread = seen(1, self.threads.fetching)
        self.pc, self.progress = seen(1, self.threads.fetching_pc), seen(2, self.threads.progress)
        self.generation = seen(6, self.generations.reader_generation)
        self.valid = seen(11, self.threads.update)
        spent = seen(8, self.threads.left.none)
        at_beginning = (self.progress.step == Step.INSTRUCTION) & ~self.progress.skip.any()
        self.first = self.valid & at_beginning & ~spent & ~self.pc.outside
        self.dst, self.src, self.r0 = self._registers()
        self.entry = entry_of(Register.DST, self.instruction.dst, self.instruction.dst, self.progress.frame)
        self.writes_nothing = seen(14, self.answers.free)
        self.ends, self.cause = seen(14, self.finished.push), seen(14, self.finished.entry.cause)

    def seen(self, stage: int, value, shape=None):
        """What `value`, that the pass sees in `stage`, was then."""
        seen = later(self.m, Value.cast(value), WRITE - stage)
        shape = shape or value.shape()
        return data.View(shape, seen) if isinstance(shape, data.Layout) else seen

    def writes(self, value) -> Value:
        """The pass writes `value` into its dst, which the thread sees from then on."""
        written = self.registers.write_data
        return (
            ~self.writes_nothing
            & self.registers.write
            & (self.registers.write_thread == self.thread)
            & (self.registers.write_entry == self.entry)
            & (written.generation == self.generation)
            & (written.value == value)
            & ~self.ends
        )

    def goes_to(self, distance) -> Value:
        """The thread goes on `distance` slots behind this one, at the beginning of an instruction."""
        return self.goes_on_at(distance) & ~self.seen(11, self.threads.updated_progress).skip.any()

    def goes_on_at(self, distance) -> Value:
        """The same, perhaps with the second half of an access."""
        after, slot = self.seen(11, self.threads.updated_pc), Signal(signed(40))
        self.m.d.comb += slot.eq(self.pc.slot + distance)
        bits = len(after.slot)
        progress = self.seen(11, self.threads.updated_progress)
        return (
            (self.seen(11, self.threads.updated) == self.thread)
            & (after.slot == slot[:bits])
            & (after.outside == slot[bits:].any())
            & (progress.step == Step.INSTRUCTION)
            & (progress.frame == self.progress.frame)
            & (progress.pointer == self.progress.pointer)
            & ~self.ends
        )

    def _registers(self) -> list[Value]:
        """The register file: whatever the pass reads of an entry in stage 5 it has in stage 7. What the entries hold is
        the solver's choice."""
        m = self.m
        instruction = data.View(Instruction, later(m, self.core.fetch.instruction, 2))
        frame = later(m, self.threads.progress.frame, 3)
        held, numbers = [], (instruction.dst, instruction.src, Const(0, 4))
        entries = []
        for name, number in zip(("dst", "src", "r0"), numbers, strict=True):
            entries.append(entry_of(Register.DST, number, number, frame))
            held.append(free(m, Entry, f"held_{name}"))
        for one in range(3):
            for other in range(one):
                m.d.comb += Assume((numbers[one] != numbers[other]) | (held[one] == held[other]))
        for port, found in (("left", self.registers.left_data), ("right", self.registers.right_data)):
            for entry, word in zip(entries, held, strict=True):
                asked = later(m, getattr(self.registers, port) == entry, 2)
                m.d.comb += Assume(~asked | (Value.cast(found) == later(m, word, 2)))
        values = []
        for number, word in zip(numbers, held, strict=True):
            word, number = data.View(Entry, later(m, Value.cast(word), WRITE - 5)), later(m, number, WRITE - 5)
            initial = Mux(number == 1, addresses.CONTEXT, 0)
            value = Mux(word.generation == self.generation, word.value, initial)
            pointer = addresses.STACK + addresses.FRAME_ALIGN * self.progress.pointer
            values.append(Mux(number == isa.FRAME_POINTER, pointer, value)[:64])
        return values


class ArithmeticHarness(Elaboratable):
    """Arithmetic that takes one pass: what stands in dst afterwards."""

    def __init__(self, *operations: Operation):
        self.rows = [row for row in isa.ROWS if row.operation in operations]

    def elaborate(self, platform) -> Module:
        m = Module()
        this = Pass(m)
        applies, result = Signal(), Signal(64)
        for row in self.rows:
            with m.If(rfc9669.legal(row, this.instruction)):
                m.d.comb += applies.eq(this.first)
                m.d.comb += result.eq(rfc9669.result(row, this.dst, this.src, this.instruction.imm))
        m.d.comb += Assert(~applies | (this.writes(result) & this.goes_to(1)))
        return m


class InstructionHarness(Elaboratable):
    """Rows of one kind: what a pass of each leaves behind.

    Parameters
    ----------
    operations : the rows under proof.
    asserts : (pass, row) → what holds in stage 15, after a pass that is an instance of the row.
    """

    def __init__(self, operations, asserts):
        self.rows = [row for row in isa.ROWS if row.operation in operations]
        self.asserts = asserts

    def elaborate(self, platform) -> Module:
        m = Module()
        this = Pass(m)
        for row in self.rows:
            applies = this.first & rfc9669.legal(row, this.instruction)
            m.d.comb += Assert(~applies | self.asserts(this, row))
        return m


def _multiplies(this: Pass, row: Row) -> Value:
    """The multiplier (another proof) is given what RFC 9669 multiplies, and the low bits of its product are kept. They
    depend on the low bits of the factors alone."""
    factors = rfc9669.operands(row, this.dst, this.src, this.instruction.imm)
    given = [this.seen(8, port)[: row.width] for port in (this.multiplier.left, this.multiplier.right)]
    product = Cat(this.seen(12, this.multiplier.product)[: row.width], Const(0, 64 - row.width))
    return (given[0] == factors[0]) & (given[1] == factors[1]) & this.writes(product) & this.goes_to(1)


def _leaves_constant(this: Pass, row: Row) -> Value:
    """Of both slots (RFC 9669 section 5.4), unless the second is none: it traps then, as `decoder` has it."""
    whole = ~this.next_reserved & (this.pc.slot != CONFIG.program_slots - 1)
    return ~whole | (this.writes(Cat(this.instruction.imm, this.next_imm)) & this.goes_to(2))


def _divides(this: Pass, row: Row) -> Value:
    """The divider (another proof) is given what RFC 9669 divides, extended as it wants it, and the thread's answer goes
    to dst."""
    divider = this.opened.part("divider")
    signed_row = row.operation in (Operation.SDIV, Operation.SMOD)
    given = []
    for factor in rfc9669.operands(row, this.dst, this.src, this.instruction.imm):
        sign = factor[-1] if signed_row else Const(0)
        given.append(Cat(factor, sign.replicate(64 - row.width)))
    division = this.seen(11, divider.division)
    expected = this.seen(11, this.answers.expected)
    return (
        this.writes_nothing
        & this.goes_to(1)
        & (this.seen(8, divider.keep) & (this.seen(8, divider.keeper) == this.thread))
        & (this.seen(8, divider.divisor) == given[1])
        & (this.seen(11, divider.push) & (division.thread == this.thread) & (division.dividend == given[0]))
        & (division.signed == signed_row)
        & (division.modulo == (row.operation in (Operation.MOD, Operation.SMOD)))
        & (this.seen(11, this.answers.expect) & (this.seen(11, this.answers.expecting) == this.thread))
        & (expected.write & (expected.entry == this.entry) & ~expected.extend & expected.final)
        & ((8 << expected.size) == row.width)
    )


class JumpHarness(Elaboratable):
    """Jumps that decide by comparing, or always: where the thread goes on."""

    def __init__(self, *operations: Operation):
        self.rows = [row for row in isa.ROWS if row.operation in operations]

    def elaborate(self, platform) -> Module:
        m = Module()
        this = Pass(m)
        applies, distance = Signal(), Signal(signed(33))
        for row in self.rows:
            with m.If(rfc9669.legal(row, this.instruction)):
                m.d.comb += applies.eq(this.first)
                imm, offset = this.instruction.imm.as_signed(), this.instruction.offset.as_signed()
                if row.operation is Operation.JA:
                    m.d.comb += distance.eq(imm if row.imm is Legal.BRANCH else offset)
                else:
                    with m.If(rfc9669.holds(row, this.dst, this.src, this.instruction.imm)):
                        m.d.comb += distance.eq(offset)
        m.d.comb += Assert(~applies | (this.writes_nothing & this.goes_to(1 + distance)))
        return m


class DecoderHarness(Elaboratable):
    """Any 64 bits as an instruction: which are refused, and with what cause."""

    def elaborate(self, platform) -> Module:
        m = Module()
        this = Pass(m)
        legal, executed, whole = Signal(), Signal(), Signal()
        for row in isa.ROWS:
            with m.If(rfc9669.legal(row, this.instruction)):
                known = row.operation is not Operation.LDDW_REFERENCE  # the loader's; engines know none of them
                m.d.comb += [
                    legal.eq(~this.next_reserved if known and row.next_imm is not None else known),
                    executed.eq(row.group in engine.GROUPS),
                ]
        wide = this.instruction.opcode == WIDE_OPCODE
        m.d.comb += whole.eq(~wide | (this.pc.slot != CONFIG.program_slots - 1))
        ends, cause = this.ends, this.cause
        m.d.comb += [
            Assert(~(this.first & whole) | (legal == ~(ends & (cause == Cause.ILLEGAL_INSTRUCTION)))),
            Assert(~(this.first & whole & legal & ~executed) | (ends & (cause == Cause.UNSUPPORTED))),
            Assert(~(this.first & legal & executed) | ~(ends & (cause == Cause.UNSUPPORTED))),
        ]
        return m


class PrivilegeHarness(Elaboratable):
    """Any pass at all: what makes its thread the firmware's."""

    def elaborate(self, platform) -> Module:
        m = Module()
        this = Pass(m)
        after = this.seen(11, this.threads.updated_progress)
        call = isa.BY_NAME["call_firmware"]
        stands = (this.instruction.opcode == call.opcode) & (this.instruction.src == call.src)
        legal = this.first & rfc9669.legal(call, this.instruction) & ~this.ends
        before, behind = (frame == addresses.FIRMWARE_FRAME for frame in (this.progress.frame, after.frame))
        onward = this.seen(11, this.threads.updated_pc)
        slot = (this.pc.slot + 1 + this.instruction.imm.as_signed())[: len(onward.slot)]
        link, written = Signal(64), this.registers.write_data
        m.d.comb += [
            Assume(this.progress.frame <= addresses.FIRMWARE_FRAME),
            Assert(~this.valid | this.ends | ~behind | before | stands),
            Assert(~legal | (~before & behind & (onward.slot == slot))),
            Assert(~legal | (after.pointer * addresses.FRAME_ALIGN == addresses.STACK_WINDOW_BYTES)),
            link.eq(Cat(Cat(this.pc.slot + 1, Const(0, 20))[:20], this.progress.pointer, this.progress.frame[:3])),
            Assert(~legal | (~this.writes_nothing & this.registers.write & (written.value == link))),
            Assert(~legal | (this.registers.write_entry == entry_of(Register.FIRMWARE_LINK, *(Const(0, 4),) * 3))),
        ]
        return m


def _proof(name: str, says: str, harness, *mutations: Mutation, **more) -> Proof:
    return Proof(name=name, says=says, of=_CORE, harness=harness, mutations=mutations, clocks=WRITE + 1, **more)


_CORE = ("hdl/core/",)
_ALU, _DECODE, _OPERANDS = "hdl/core/alu.py", "hdl/core/decode.py", "hdl/core/operands.py"
PROOFS = [
    _proof(
        "sums",
        "ADD, SUB, NEG, both widths, register and immediate: the result in `dst` and nowhere else, then the next slot",
        lambda: ArithmeticHarness(Operation.ADD, Operation.SUB, Operation.NEG),
        Mutation(_ALU, "self.addend ^ invert", "self.addend | invert"),
        Mutation(_DECODE, 'Operation.NEG: {"invert": 1, "carry": 1,', 'Operation.NEG: {"invert": 1, "carry": 0,'),
        quick=False,
    ),
    _proof(
        "logic",
        "AND, OR, XOR, MOV, MOVSX: the same",
        lambda: ArithmeticHarness(Operation.AND, Operation.OR, Operation.XOR, Operation.MOV, Operation.MOVSX),
        Mutation(_ALU, "sign.replicate(16), raw[16:32]", "sign.replicate(16), raw[0:16]"),
        Mutation(_OPERANDS, "Mux(control.narrow, (control", "Mux(~control.narrow, (control"),
        quick=False,
    ),
    _proof(
        "shifts",
        "LSH, RSH, ARSH: the same, with any count",
        lambda: ArithmeticHarness(Operation.LSH, Operation.RSH, Operation.ARSH),
        Mutation("hdl/core/core.py", "right.at(7)[5] & ~control.at(7).narrow", "right.at(7)[5]"),
        solver="boolector",
        quick=False,
    ),
    _proof(
        "swaps",
        "LE, BE, BSWAP, of 16, 32 and 64 bits: the same",
        lambda: ArithmeticHarness(Operation.LE, Operation.BE, Operation.BSWAP),
        Mutation("hdl/core/immediates.py", "imm[4] | imm[5]", "imm[4]"),
        solver="boolector",
        quick=False,
    ),
    _proof(
        "privilege",
        "a thread is in the firmware's frame only behind a call_firmware from another, or where it was before; the "
        "routine's r10 is the firmware stack's top, its link has the next slot, the caller's r10 and frame",
        PrivilegeHarness,
        Mutation("hdl/core/core.py", "progress.at(8).frame == addresses.FIRMWARE_FRAME", "progress.at(8).frame == 7"),
        Mutation("hdl/core/core.py", "[_LINK_FRAME_BIT:][:_CALLER_BITS]", "[_LINK_FRAME_BIT:][:4]"),
        quick=False,
    ),
    _proof(
        "multiplications",
        "MUL: the same, given a product",
        lambda: InstructionHarness({Operation.MUL}, _multiplies),
        Mutation(_DECODE, 'operands | result | {"multiply": 1}', 'operands | result | {"multiply": 1, "size": 3}'),
        quick=False,
    ),
    _proof(
        "constants",
        "LDDW: the 64 bits of both slots in `dst`, then the slot behind them",
        lambda: InstructionHarness({Operation.LDDW}, _leaves_constant),
        Mutation("hdl/core/immediates.py", "Cat(imm, next_imm)", "Cat(next_imm, imm)"),
        quick=False,
    ),
    _proof(
        "divisions",
        "DIV, SDIV, MOD, SMOD: the divider gets both operands, and its answer goes to `dst`; then the next slot",
        lambda: InstructionHarness({Operation.DIV, Operation.SDIV, Operation.MOD, Operation.SMOD}, _divides),
        Mutation(_DECODE, 'Operation.SDIV: {"signed": 1}', 'Operation.SDIV: {"signed": 0}'),
        Mutation("hdl/core/core.py", "divider.divisor.eq(right.at(8))", "divider.divisor.eq(left.at(8))"),
        quick=False,
    ),
    Proof(
        name="jumps-equal",
        of=_CORE,
        says="JEQ, JNE, JSET, both widths, and JA, near and far: the next slot, wherever; nothing is written",
        harness=lambda: JumpHarness(Operation.JEQ, Operation.JNE, Operation.JSET, Operation.JA),
        mutations=(Mutation(_ALU, "holds ^ later[", "holds | later["),),
        clocks=WRITE + 1,
        quick=False,
    ),
    Proof(
        name="jumps-unsigned",
        of=_CORE,
        says="JGT, JGE, JLT, JLE: the same",
        harness=lambda: JumpHarness(Operation.JGT, Operation.JGE, Operation.JLT, Operation.JLE),
        mutations=(
            Mutation(_DECODE, 'JLE: {"condition": Condition.CARRY, "negate": 1}', 'JLE: {"condition": Condition.ZERO}'),
        ),
        clocks=WRITE + 1,
        quick=False,
    ),
    Proof(
        name="jumps-signed",
        of=_CORE,
        says="JSGT, JSGE, JSLT, JSLE: the same",
        harness=lambda: JumpHarness(Operation.JSGT, Operation.JSGE, Operation.JSLT, Operation.JSLE),
        mutations=(
            Mutation(_OPERANDS, "word[31]).replicate(32)", "word[30]).replicate(32)"),
            Mutation(_ALU, 'later["carry"] ^ later["signs_differ"]', 'later["carry"] & later["signs_differ"]'),
        ),
        clocks=WRITE + 1,
        quick=False,
    ),
    Proof(
        name="decoder",
        says="of all 64-bit words, those that no row of the instruction table admits, and no others, end in "
        "ILLEGAL_INSTRUCTION; legal ones that the core does not execute, and no others, in UNSUPPORTED",
        of=_CORE,
        harness=DecoderHarness,
        mutations=(
            Mutation(_DECODE, "(offset > addresses.STACK_BYTES)", "(offset >= addresses.STACK_BYTES)"),
            Mutation(_DECODE, "(rule == RegisterRule.WRITTEN) & (value", "(rule == RegisterRule.READ) & (value"),
        ),
        clocks=WRITE + 1,
    ),
]
