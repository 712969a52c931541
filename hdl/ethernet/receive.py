"""From the wire's bytes to words, and each frame's outcome. Everything is in the receive domain (here: "sync").

```
 byte ─┬─▶ CRC-32 ────────────────────────────────▶ outcome
       └─▶ tail: 4 bytes, which at the end are the FCS ─▶ lanes 0 to 7 ─▶ word
```
A word leaves when the next byte comes or the frame has ended, so that the last one is known as such. A frame is judged
in the clock behind its end, where all that is known of it holds still; words and outcomes come out of registers.
"""

from amaranth import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib.crc import Processor
from amaranth.lib.crc.catalog import CRC32_ETHERNET
from amaranth.lib.wiring import Component, In, Out, Signature

from bpfnic.hdl.ethernet.interfaces import BYTES_BITS, Outcome, PhyReceive, Word
from bpfnic.spec.ethernet import FCS_BYTES, SFD, SHORTEST, MacCounter

LANES = 8

ROOM = 2
"""What a word that asks for room may need: itself, and the last one of its frame, which doesn't ask. The words before
left 7 clocks ago or more, so that `room` knows of them."""


class Receive(Component):
    """Parameters
    ----------
    longest : bytes of the longest frame, with its FCS; what is longer is cut there.

    Members
    -------
    phy : the wire.
    room : Crossing's for ROOM words.
    word : `payload` goes into the queue where `valid`. A frame's last one has `bad` unless its outcome is RECEIVED.
    ended : in a clock with `valid` a frame has ended.
    """

    def __init__(self, longest: int):
        self.longest = longest
        super().__init__(
            {
                "phy": In(PhyReceive),
                "room": In(1),
                "word": Out(Signature({"valid": Out(1), "payload": Out(Word)})),
                "ended": Out(Signature({"valid": Out(1), "payload": Out(Outcome)})),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        phy = self.phy
        length = Signal(BYTES_BITS)  # bytes of the frame so far, with its FCS
        longest = Signal()  # it has as many as it may
        tail = Signal(8 * FCS_BYTES)
        tailed = Signal()  # it is full
        fill = Signal(range(LANES + 1))
        early = Signal()  # an error in the preamble
        error, giant = Signal(), Signal()
        begun = Signal()  # a word of this frame is in the queue
        overrun = Signal()  # one found no room: all that follow are dropped but the last, if begun
        over = Signal()  # the frame ended in the clock before
        matched = Signal()  # the FCS is right, as it was a clock ago
        lanes = Signal(8 * LANES)
        leaves = Signal()  # the word in `lanes`
        idle = Signal()
        crc = Processor(CRC32_ETHERNET(data_width=8))
        # Its own start would be a multiplexer in front of the sum; a register's reset is free.
        m.submodules.crc = ResetInserter(idle)(crc)
        m.d.comb += crc.data.eq(phy.data)
        m.d.sync += [over.eq(0), matched.eq(crc.match_detected)]

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += idle.eq(1)
                m.d.sync += [each.eq(0) for each in (length, longest, tailed, fill, error, giant, begun, overrun)]
                with m.If(phy.strobe):
                    m.d.sync += early.eq(phy.valid & (phy.error | early))
                    with m.If(phy.valid & (phy.data == SFD)):
                        m.d.sync += [error.eq(phy.error | early), early.eq(0)]
                        m.next = "FRAME"

            with m.State("FRAME"):
                with m.If(phy.strobe & phy.valid):
                    m.d.comb += crc.valid.eq(1)
                    m.d.sync += [tail.eq(Cat(tail[8:], phy.data)), error.eq(error | phy.error)]
                    with m.If(longest):
                        m.d.sync += giant.eq(1)
                    with m.Else():
                        m.d.sync += [length.eq(length + 1), longest.eq(length == self.longest - 1)]
                        m.d.sync += tailed.eq(tailed | (length == FCS_BYTES - 1))
                        with m.If(tailed):
                            self._append(m, lanes, fill, tail[:8])
                            with m.If(fill == LANES):
                                m.d.comb += leaves.eq(self.room & ~overrun)
                                m.d.sync += [begun.eq(begun | leaves), overrun.eq(overrun | ~self.room)]
                with m.If(phy.strobe & ~phy.valid):
                    m.d.sync += over.eq(1)
                    m.next = "IDLE"

        none = ~begun & ~self.room & (fill != 0)
        outcome = self._outcome(overrun | none, error, giant, length, matched)
        with m.If(over):
            m.d.comb += leaves.eq((fill != 0) & (begun | (self.room & ~overrun)))
        m.d.sync += [
            self.word.valid.eq(leaves),
            self.word.payload.data.eq(lanes),
            self.word.payload.count.eq(fill - 1),
            self.word.payload.last.eq(over),
            self.word.payload.bad.eq(outcome != MacCounter.RECEIVED),
            self.ended.valid.eq(over),
            self.ended.payload.counter.eq(outcome),
            self.ended.payload.bytes.eq(length - FCS_BYTES),
        ]
        return m

    def _append(self, m: Module, lanes: Signal, fill: Signal, byte) -> None:
        """One more byte of the frame, in the next lane; with a word's first one the other lanes become 0."""
        with m.If((fill == 0) | (fill == LANES)):
            m.d.sync += [lanes.eq(byte), fill.eq(1)]
        with m.Else():
            m.d.sync += fill.eq(fill + 1)
            with m.Switch(fill):
                for lane in range(1, LANES):
                    with m.Case(lane):
                        m.d.sync += lanes.word_select(lane, 8).eq(byte)

    def _outcome(self, overrun, error, giant, length, matched):
        """MacCounter says in which order they count."""
        outcome = MacCounter.RECEIVED.value
        for condition, counter in (
            (~matched, MacCounter.FCS_ERROR),
            (length < SHORTEST, MacCounter.RUNT),
            (giant, MacCounter.GIANT),
            (error, MacCounter.SYMBOL_ERROR),
            (overrun, MacCounter.OVERRUN),
        ):
            outcome = Mux(condition, counter.value, outcome)
        return outcome
