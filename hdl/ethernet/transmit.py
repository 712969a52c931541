"""From whole frames to the wire's bytes: preamble, padding, FCS and the gap. Everything is in the transmit domain
(here: "sync"); a state is one byte's time, and a step is taken in clocks with `phy.strobe`.

PREAMBLE (7) ─▶ SFD ─▶ DATA ─▶ PAD (up to 60 bytes) ─▶ FCS (4) ─▶ GAP (11) ─▶ IDLE (1 or more)

What a state says goes out two steps later:
```
 state ─▶ plan ─┬─▶ phy
          CRC-32┘
```
"""

from amaranth import Module, Mux, ResetInserter, Signal
from amaranth.lib import data
from amaranth.lib.crc import Processor
from amaranth.lib.crc.catalog import CRC32_ETHERNET
from amaranth.lib.wiring import Component, In, Out, Signature

from bpfnic.hdl.ethernet.interfaces import BYTES_BITS, Departing, Outcome, PhyTransmit, Word
from bpfnic.spec.ethernet import FCS_BYTES, GAP_BYTES, PREAMBLE, PREAMBLE_BYTES, SFD, SHORTEST, MacCounter

Plan = data.StructLayout({"valid": 1, "data": 8, "covered": 1, "fcs": 1, "step": 2})
"""A byte to go out: data, which the FCS covers or not, or byte `step` of the FCS."""


class Transmit(Component):
    """Members
    -------
    departing : frames.
    ended : in a clock with `valid` a frame's last byte is on its way out.
    phy : the wire.
    """

    def __init__(self):
        super().__init__(
            {
                "departing": In(Departing),
                "ended": Out(Signature({"valid": Out(1), "payload": Out(Outcome)})),
                "phy": Out(PhyTransmit),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        departing, phy = self.departing, self.phy
        word = Signal(Word)
        left = Signal(range(GAP_BYTES))  # steps in PREAMBLE, FCS and GAP behind this one
        length = Signal(BYTES_BITS)  # bytes of the frame so far, without padding
        padded = Signal(range(SHORTEST))  # the same with it, till they are enough
        enough = Signal()  # they are with this step's byte
        now, plan = Signal(Plan), Signal(Plan)
        take = Signal()  # the next word
        crc = Processor(CRC32_ETHERNET(data_width=8))
        # Its own start would be a multiplexer in front of the sum; a register's reset is free.
        m.submodules.crc = ResetInserter(~plan.covered & ~plan.fcs)(crc)
        m.d.comb += [crc.data.eq(plan.data), crc.valid.eq(phy.strobe & plan.covered)]
        with m.If(phy.strobe):
            m.d.sync += [
                plan.eq(now),
                phy.valid.eq(plan.valid),
                phy.data.eq(Mux(plan.fcs, crc.crc.word_select(plan.step, 8), plan.data)),
            ]
        m.d.sync += self.ended.valid.eq(0)
        m.d.comb += [self.ended.payload.counter.eq(MacCounter.SENT), self.ended.payload.bytes.eq(length)]

        def until_none_is_left(next_state: str) -> None:
            with m.If(left == 0):
                m.next = next_state
            with m.Else():
                m.d.sync += left.eq(left - 1)

        def pad() -> None:
            """One more byte of data or padding."""
            m.d.sync += [padded.eq(padded + 1), enough.eq(enough | (padded == SHORTEST - FCS_BYTES - 2))]

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += left.eq(PREAMBLE_BYTES - 1)
                with m.If(phy.strobe & departing.pending):
                    m.next = "PREAMBLE"
            with m.State("PREAMBLE"):
                m.d.comb += [now.valid.eq(1), now.data.eq(PREAMBLE)]
                with m.If(phy.strobe):
                    until_none_is_left("SFD")
            with m.State("SFD"):
                m.d.comb += [now.valid.eq(1), now.data.eq(SFD), take.eq(1)]
                m.d.sync += [length.eq(0), padded.eq(0), enough.eq(0), left.eq(FCS_BYTES - 1)]
                with m.If(phy.strobe):
                    m.next = "DATA"
            with m.State("DATA"):
                m.d.comb += [now.valid.eq(1), now.data.eq(word.data[:8]), now.covered.eq(1)]
                with m.If(phy.strobe):
                    pad()
                    m.d.sync += [length.eq(length + 1), word.data.eq(word.data >> 8), word.count.eq(word.count - 1)]
                    with m.If(word.count == 0):
                        m.d.comb += take.eq(~word.last)
                        with m.If(word.last & enough):
                            m.next = "FCS"
                        with m.Elif(word.last):
                            m.next = "PAD"
            with m.State("PAD"):
                m.d.comb += [now.valid.eq(1), now.covered.eq(1)]
                with m.If(phy.strobe):
                    pad()
                    with m.If(enough):
                        m.next = "FCS"
            with m.State("FCS"):
                m.d.comb += [now.valid.eq(1), now.fcs.eq(1), now.step.eq(FCS_BYTES - 1 - left)]
                with m.If(phy.strobe):
                    until_none_is_left("GAP")
                    with m.If(left == 0):
                        m.d.sync += [self.ended.valid.eq(1), left.eq(GAP_BYTES - 2)]
            with m.State("GAP"):
                with m.If(phy.strobe):
                    until_none_is_left("IDLE")

        with m.If(phy.strobe & take):
            m.d.comb += departing.take.eq(1)
            m.d.sync += word.eq(departing.word)
        return m
