"""From whole frames to the wire's bytes: preamble, padding, FCS and the gap. Everything is in the transmit domain
(here: "sync"); a state is one byte's time, and a step is taken in clocks with `phy.strobe`.

PREAMBLE (7) ─▶ SFD ─▶ DATA ─▶ PAD (up to 60 bytes) ─▶ FCS (4) ─▶ GAP (11) ─▶ IDLE (1 or more)
"""

from amaranth import Module, Signal
from amaranth.lib import stream
from amaranth.lib.crc import Processor
from amaranth.lib.crc.catalog import CRC32_ETHERNET
from amaranth.lib.wiring import Component, In, Out, Signature

from bpfnic.hdl.ethernet.interfaces import BYTES_BITS, Outcome, PhyTransmit, Word
from bpfnic.spec.ethernet import FCS_BYTES, GAP_BYTES, PREAMBLE, PREAMBLE_BYTES, SFD, SHORTEST, MacCounter


class Transmit(Component):
    """Members
    -------
    words : frames. Once one has begun, its words are there when they are asked for, a byte's time after `pending`.
    pending : a whole frame waits in the FIFO.
    ended : in a clock with `valid` a frame's last byte has gone out. From then on `pending` speaks of the next one.
    phy : the wire.
    """

    def __init__(self):
        super().__init__(
            {
                "words": In(stream.Signature(Word)),
                "pending": In(1),
                "ended": Out(Signature({"valid": Out(1), "payload": Out(Outcome)})),
                "phy": Out(PhyTransmit),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.crc = crc = Processor(CRC32_ETHERNET(data_width=8))
        words, phy = self.words, self.phy
        word = Signal(Word)
        step = Signal(range(GAP_BYTES))  # in PREAMBLE, FCS and GAP
        lane = Signal(3)
        length = Signal(BYTES_BITS)  # bytes of the frame so far, without padding
        padded = Signal(range(SHORTEST))  # the same with it, as far as it counts
        valid, byte = Signal(), Signal(8)
        take = Signal()  # the next word
        m.d.comb += [crc.data.eq(byte), self.ended.payload.counter.eq(MacCounter.SENT)]
        m.d.comb += self.ended.payload.bytes.eq(length)
        with m.If(phy.strobe):
            m.d.sync += [phy.valid.eq(valid), phy.data.eq(byte)]

        def whole(next_state: str, last: int) -> None:
            """The state takes last + 1 bytes' time."""
            m.d.sync += step.eq(step + 1)
            with m.If(step == last):
                m.next = next_state
                m.d.sync += step.eq(0)

        enough = padded >= SHORTEST - FCS_BYTES - 1  # with the byte of this state
        with m.FSM() as states:
            m.d.comb += crc.start.eq(states.ongoing("SFD"))
            with m.State("IDLE"):
                with m.If(phy.strobe & self.pending):
                    m.next = "PREAMBLE"
            with m.State("PREAMBLE"):
                m.d.comb += [valid.eq(1), byte.eq(PREAMBLE)]
                with m.If(phy.strobe):
                    whole("SFD", PREAMBLE_BYTES - 1)
            with m.State("SFD"):
                m.d.comb += [valid.eq(1), byte.eq(SFD), take.eq(1)]
                m.d.sync += [length.eq(0), padded.eq(0)]
                with m.If(phy.strobe):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [valid.eq(1), byte.eq(word.data[:8]), crc.valid.eq(phy.strobe)]
                with m.If(phy.strobe):
                    m.d.sync += [length.eq(length + 1), lane.eq(lane + 1), word.data.eq(word.data >> 8)]
                    with m.If(~enough):
                        m.d.sync += padded.eq(padded + 1)
                    with m.If(lane == word.count):
                        m.d.comb += take.eq(~word.last)
                        with m.If(word.last & enough):
                            m.next = "FCS"
                        with m.Elif(word.last):
                            m.next = "PAD"
            with m.State("PAD"):
                m.d.comb += [valid.eq(1), crc.valid.eq(phy.strobe)]
                with m.If(phy.strobe):
                    m.d.sync += padded.eq(padded + 1)
                    with m.If(enough):
                        m.next = "FCS"
            with m.State("FCS"):
                m.d.comb += [valid.eq(1), byte.eq(crc.crc.word_select(step[:2], 8))]
                with m.If(phy.strobe):
                    whole("GAP", FCS_BYTES - 1)
                    m.d.comb += self.ended.valid.eq(step == FCS_BYTES - 1)
            with m.State("GAP"):
                with m.If(phy.strobe):
                    whole("IDLE", GAP_BYTES - 2)

        with m.If(phy.strobe & take):
            m.d.comb += words.ready.eq(1)
            m.d.sync += [word.eq(words.payload), lane.eq(0)]
        return m
