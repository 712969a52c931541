"""The sums of bpf_csum_diff, one for each thread."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.control import Sum
from bpfnic.hdl.interfaces import Answer
from bpfnic.hdl.queue import Queue

HALF = 32
Kept = data.StructLayout({"sum": HALF, "begun": 1})


class Checksum(Component):
    """A ones' complement sum of 32 bits a thread: carries come round to the lowest bit, so that it is 0 only where all
    that was summed is 0. It takes a word each clock, of a thread at most every 5 clocks (a thread issues every 11), and
    an answer comes 6 clocks behind its word.

    Members
    -------
    push : what `thread` does in this clock, and nothing else if it is Sum.NONE. `word`, of which the lowest `bytes` (1
        to 8) count, is summed at WORD; at TURN it is the seed (32 bits). last : and that is all: the answer follows.
    answer : the sum, folded to 16 bits (lib/checksum.h csum_from32to16).

    From START on `from` is summed. TURN takes it off the seed: seed + ~from; without words of `from` the sum is the
    seed; where nothing follows, ~(~seed + from), which says 0xffff and not 0 where they are the same. As
    net/core/filter.c bpf_csum_diff of Linux 6.18, whose 64-bit sums (arch/x86/lib/csum-partial_64.c) come to the same.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "push": In(Sum),
                "thread": In(range(config.threads)),
                "word": In(64),
                "bytes": In(4),
                "last": In(1),
                "answer": Out(stream.Signature(Answer(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        m.submodules.results = results = Queue(data.StructLayout({"thread": range(config.threads), "sum": 16}),
                                               config.threads)  # fmt: skip
        m.submodules.sums = sums = memory.Memory(shape=Kept, depth=config.threads, init=[])
        write, read = sums.write_port(), sums.read_port(domain="comb")

        def later(value, name: str, *, reset_less: bool = True) -> Signal:
            register = Signal.like(value, name=name, reset_less=reset_less)
            m.d.sync += register.eq(value)
            return register

        # 0: what counts of the word
        counted = Signal(64)
        for byte in range(8):
            m.d.comb += counted.word_select(byte, 8).eq(Mux(self.bytes > byte, self.word.word_select(byte, 8), 0))
        does, thread = later(self.push, "does_1", reset_less=False), later(self.thread, "thread_1")
        last, word = later(self.last, "last_1"), later(counted, "word_1")

        # 1: its two halves, or the seed; and the sum so far
        m.d.comb += read.addr.eq(thread)
        turns = (does == Sum.TURN) & read.data.begun
        upper, lower, before = Signal(HALF), Signal(HALF), Signal(HALF)
        m.d.comb += [
            upper.eq(Mux(does == Sum.TURN, 0, word[HALF:])),
            lower.eq(Mux(turns & last, ~word[:HALF], word[:HALF])),
            before.eq(Mux(turns & ~last, ~read.data.sum, read.data.sum)),
        ]
        two, before = later((upper + lower)[: HALF + 1], "two_2"), later(before, "before_2")
        inverts, begun = later(turns & last, "inverts_2"), later(does == Sum.WORD, "begun_2")
        does, thread, last = later(does, "does_2", reset_less=False), later(thread, "thread_2"), later(last, "last_2")

        # 2: all of it
        three = later((two + before)[: HALF + 2], "three_3")
        inverts, begun = later(inverts, "inverts_3"), later(begun, "begun_3")
        does, thread, last = later(does, "does_3", reset_less=False), later(thread, "thread_3"), later(last, "last_3")

        # 3: carries come round, the second one to zeros
        round_once, folded = Signal(HALF + 1), Signal(HALF)
        m.d.comb += [
            round_once.eq(three[:HALF] + three[HALF:]),
            folded.eq(round_once[:HALF] | round_once[HALF]),
        ]
        total = later(Mux(does == Sum.START, 0, Mux(inverts, ~folded, folded))[:HALF], "total_4")
        begun = later(begun, "begun_4")
        does, thread, last = later(does, "does_4", reset_less=False), later(thread, "thread_4"), later(last, "last_4")

        # 4: it is kept, and its halves are summed; 5: the answer
        m.d.comb += [
            write.en.eq(does != Sum.NONE),
            write.addr.eq(thread),
            write.data.sum.eq(total),
            write.data.begun.eq(begun),
        ]
        both = later((total[:16] + total[16:])[:17], "both_5")
        ends, thread = later((does != Sum.NONE) & last, "ends_5", reset_less=False), later(thread, "thread_5")
        m.d.comb += [
            results.push.eq(ends),
            results.entry.thread.eq(thread),
            results.entry.sum.eq(both[:16] + both[16]),
            self.answer.valid.eq(results.pop.valid),
            results.pop.ready.eq(self.answer.ready),
            self.answer.payload.thread.eq(results.pop.payload.thread),
            self.answer.payload.value.eq(Cat(results.pop.payload.sum)),
        ]
        return m
