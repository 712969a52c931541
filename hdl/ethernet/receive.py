"""From the wire's bytes to words, and each frame's outcome. Everything is in the receive domain (here: "sync").

```
 byte ─┬─▶ CRC-32 ────────────────────────────────▶ outcome
       └─▶ tail: 4 bytes, which at the end are the FCS ─▶ word: lanes 0 to 7 ─▶ FIFO
```
A word leaves when the next byte comes or the frame ends, so that the last one is known as such.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.crc import Processor
from amaranth.lib.crc.catalog import CRC32_ETHERNET
from amaranth.lib.wiring import Component, In, Out, Signature

from bpfnic.hdl.ethernet.interfaces import BYTES_BITS, Outcome, PhyReceive, Word
from bpfnic.spec.ethernet import FCS_BYTES, SFD, SHORTEST, MacCounter

LANES = 8


class Receive(Component):
    """Parameters
    ----------
    longest : bytes of the longest frame, with its FCS; what is longer is cut there.

    Members
    -------
    phy : the wire.
    room : the FIFO takes three words more, at least; as it was a clock ago.
    word : `payload` goes into the FIFO where `valid`. A frame's last one has `bad` unless its outcome is RECEIVED.
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
        m.submodules.crc = crc = Processor(CRC32_ETHERNET(data_width=8))
        phy, word = self.phy, self.word
        length = Signal(BYTES_BITS)  # bytes of the frame so far, with its FCS
        tail = Signal(8 * FCS_BYTES)
        fill = Signal(range(LANES + 1))
        error, giant = Signal(), Signal()
        begun = Signal()  # a word of this frame is in the FIFO
        overrun = Signal()  # one found no room: all that follow are dropped but the last, if begun
        m.d.comb += [crc.data.eq(phy.data), word.payload.count.eq(fill - 1)]
        lanes = Signal.like(word.payload.data)
        m.d.comb += word.payload.data.eq(lanes)

        with m.FSM() as states:
            m.d.comb += crc.start.eq(states.ongoing("IDLE"))
            with m.State("IDLE"):
                m.d.sync += [length.eq(0), fill.eq(0), giant.eq(0), begun.eq(0), overrun.eq(0)]
                with m.If(phy.strobe):
                    m.d.sync += error.eq(phy.valid & (phy.error | error))
                    with m.If(phy.valid & (phy.data == SFD)):
                        m.next = "FRAME"

            with m.State("FRAME"):
                with m.If(phy.strobe & phy.valid):
                    m.d.comb += crc.valid.eq(1)
                    m.d.sync += [tail.eq(Cat(tail[8:], phy.data)), error.eq(error | phy.error)]
                    with m.If(length == self.longest):
                        m.d.sync += giant.eq(1)
                    with m.Else():
                        m.d.sync += length.eq(length + 1)
                        with m.If(length >= FCS_BYTES):
                            self._append(m, lanes, fill, tail[:8])
                            with m.If(fill == LANES):
                                m.d.comb += word.valid.eq(self.room & ~overrun)
                                m.d.sync += [begun.eq(begun | word.valid), overrun.eq(overrun | ~self.room)]

                with m.If(phy.strobe & ~phy.valid):
                    none = ~begun & ~self.room & (fill != 0)
                    m.d.comb += [
                        self.ended.valid.eq(1),
                        word.payload.last.eq(1),
                        word.payload.bad.eq(self.ended.payload.counter != MacCounter.RECEIVED),
                        word.valid.eq((fill != 0) & (begun | (self.room & ~overrun))),
                        self._outcome(overrun | none, error, giant, length, crc),
                        self.ended.payload.bytes.eq(length - FCS_BYTES),
                    ]
                    m.next = "IDLE"
                    m.d.sync += error.eq(0)
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

    def _outcome(self, overrun, error, giant, length, crc: Processor):
        """MacCounter says in which order they count."""
        outcome = MacCounter.RECEIVED.value
        for condition, counter in (
            (~crc.match_detected, MacCounter.FCS_ERROR),
            (length < SHORTEST, MacCounter.RUNT),
            (giant, MacCounter.GIANT),
            (error, MacCounter.SYMBOL_ERROR),
            (overrun, MacCounter.OVERRUN),
        ):
            outcome = Mux(condition, counter.value, outcome)
        return self.ended.payload.counter.eq(outcome)
