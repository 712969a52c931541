"""The checksum unit: whatever the sequence of words, its sum is what RFC 1071 means by it."""

from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Elaboratable

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.checksum import Checksum
from bpfnic.hdl.core.control import Sum
from tests.formal.opened import Opened, constant, later
from tests.formal.proof import Mutation, Proof

CONFIG = NicConfig(threads=8, program_slots=64, map_bytes=4096, maps=1)
_APART = 5  # clocks from one word of a thread to its next at least
_KEPT = 4  # clocks from a word to what is kept


def _is_sum(found: Value, exact: Value, bits: int) -> Value:
    """`found` is the ones' complement sum of numbers whose sum is `exact`, which is less than 4 * 2**bits: the same
    modulo 2**bits - 1, and 0 only where all of them are. There is one such number, and the sum of two sums is the sum
    of all: so that a step that makes it of a sum and more numbers makes it of all that came before."""
    turns = [found + count * ((1 << bits) - 1) == exact for count in range(4)]
    return (turns[0] | turns[1] | turns[2] | turns[3]) & (found.any() == exact.any())


class ChecksumHarness(Elaboratable):
    """One thread's words among all others'. What is read back is what it wrote last: that is what a memory does. Each
    step by itself, from whatever was kept before: START keeps 0; a word adds its two halves; TURN takes what was summed
    off the seed, which is adding its complement. An answer is the sum of the halves of what its step keeps."""

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.checksum = opened = Opened(unit := Checksum(CONFIG), inputs=True, without=("sums", "results"))
        sums, results = opened.part("sums"), opened.part("results")
        (read,), (write,) = sums.read_ports, sums.write_ports
        thread = constant(m, range(CONFIG.threads), "thread")
        ones = (1 << 32) - 1

        # The core keeps a thread's words apart, and gives 1 to 8 bytes, of a seed 4.
        comes = (unit.push != Sum.NONE) & (unit.thread == thread)
        for clocks in range(1, _APART):
            m.d.comb += Assume(~(comes & later(m, comes, clocks)))
        m.d.comb += Assume((unit.bytes >= 1) & (unit.bytes <= 8))
        m.d.comb += Assume((unit.push != Sum.TURN) | (unit.bytes == 4))

        kept = Signal(read.data.shape())
        writes = write.en & (write.addr == thread)
        with m.If(writes):
            m.d.sync += kept.eq(write.data)
        m.d.comb += Assume((read.addr != thread) | (read.data.as_value() == kept.as_value()))

        # What a step has to keep, when it does.
        due, does, last, word, count = (
            later(m, value, _KEPT) for value in (comes, unit.push, unit.last, unit.word, unit.bytes)
        )
        counted, total = Signal(64), write.data.sum
        for number in range(1, 9):
            with m.If(count == number):
                m.d.comb += counted.eq(word[: 8 * number])
        turns = (does == Sum.TURN) & kept.begun
        seed, sum = counted[:32], kept.sum
        m.d.comb += [Assert(writes == due), Assert(~due | (write.data.begun == (does == Sum.WORD)))]
        with m.If(due & (does == Sum.START)):
            m.d.comb += Assert(total == 0)
        with m.Elif(due & turns & last):  # nothing is added any more: the complement of from - seed
            m.d.comb += Assert(_is_sum(total ^ ones, sum + (seed ^ ones), 32))
        with m.Elif(due & turns):
            m.d.comb += Assert(_is_sum(total, (sum ^ ones) + seed, 32))
        with m.Elif(due):
            m.d.comb += Assert(_is_sum(total, sum + counted[:32] + Mux(does == Sum.TURN, 0, counted[32:]), 32))

        # The answer of the step that is its last.
        answers = later(m, due & last)
        of_thread = results.push & (results.entry.thread == thread)
        m.d.comb += [
            Assert(of_thread == answers),
            Assert(~answers | _is_sum(results.entry.sum, kept.sum[:16] + kept.sum[16:], 16)),
            Assert(unit.answer.valid == results.pop.valid),
            Assert(unit.answer.payload.thread == results.pop.payload.thread),
            Assert(unit.answer.payload.value == results.pop.payload.sum),
        ]
        return m


_FILE = "hdl/core/checksum.py"
PROOFS = [
    Proof(
        name="checksum",
        of=(_FILE,),
        says="whatever a thread sums, and whatever the others do meanwhile: each step's sum is the ones' complement "
        "sum of all that counts of it, each answer that of its halves",
        harness=ChecksumHarness,
        mutations=(
            Mutation(_FILE, "folded.eq(round_once[:HALF] | round_once[HALF])", "folded.eq(round_once[:HALF])"),
            Mutation(_FILE, "(two + before)[: HALF + 2]", "(two + before)[: HALF + 1]"),
            Mutation(_FILE, "Mux(self.bytes > byte,", "Mux(self.bytes >= byte,"),
            Mutation(_FILE, "(does == Sum.TURN) & read.data.begun", "(does == Sum.TURN)"),
            Mutation(_FILE, "turns & last, ~word[:HALF], word[:HALF]", "turns, ~word[:HALF], word[:HALF]"),
            Mutation(_FILE, "read.addr.eq(thread)", "read.addr.eq(self.thread)"),
            Mutation(_FILE, "both[:16] + both[16]", "both[:16]"),
        ),
        clocks=7,
        reach=16,
        solver="boolector",
        quick=False,
    ),
]
