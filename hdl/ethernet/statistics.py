"""A MAC's counters, in the core's clock: words of distributed memory and one adder.

An outcome takes a clock, one whose bytes count three: the frame, the bytes' low word, the carry into the high one.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import memory, stream
from amaranth.lib.wiring import Component, In

from bpfnic.hdl.ethernet.interfaces import Link, Outcome, StatisticsPort
from bpfnic.spec.ethernet import MacCounter


class Statistics(Component):
    """Members
    -------
    received, sent : frames' outcomes. Received ones go first.
    link : as the PHY says, synchronised.
    port : the reader's.

    Attributes
    ----------
    words : what the memory holds at configuration, for simulations.
    """

    def __init__(self):
        self.words = memory.MemoryData(shape=32, depth=max(MacCounter) + 1, init=[])
        super().__init__(
            {
                "received": In(stream.Signature(Outcome)),
                "sent": In(stream.Signature(Outcome)),
                "link": In(Link),
                "port": In(StatisticsPort),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.counters = counters = memory.Memory(self.words)
        write, old, shown = counters.write_port(), counters.read_port(domain="comb"), counters.read_port(domain="comb")
        m.d.comb += [shown.addr.eq(self.port.address), self.port.value.eq(shown.data)]
        with m.If(self.port.address == MacCounter.LINK):
            m.d.comb += self.port.value.eq(self.link.as_value())

        outcome = Signal(Outcome)
        add, carry = Signal.like(outcome.bytes), Signal()
        done = Signal()  # with this outcome
        receives, held = Signal(), Signal()  # whose it is, and stays until it is done
        counts = (outcome.counter == MacCounter.RECEIVED) | (outcome.counter == MacCounter.SENT)
        sent = outcome.counter == MacCounter.SENT
        m.d.comb += [
            receives.eq(held),
            outcome.eq(Mux(receives, self.received.payload, self.sent.payload)),
            self.received.ready.eq(done & receives),
            self.sent.ready.eq(done & ~receives),
            write.addr.eq(old.addr),
        ]
        total = Signal(33)
        m.d.comb += [total.eq(old.data + add), write.data.eq(total)]
        low = Mux(sent, MacCounter.SENT_BYTES.value, MacCounter.RECEIVED_BYTES.value)
        with m.FSM():
            with m.State("FRAME"):
                m.d.comb += [receives.eq(self.received.valid), old.addr.eq(outcome.counter), add.eq(1)]
                m.d.sync += held.eq(self.received.valid)
                with m.If(self.received.valid | self.sent.valid):
                    m.d.comb += [write.en.eq(1), done.eq(~counts)]
                    with m.If(counts):
                        m.next = "BYTES"
            with m.State("BYTES"):
                m.d.comb += [old.addr.eq(low), add.eq(outcome.bytes), write.en.eq(1)]
                m.d.sync += carry.eq(total[-1])
                m.next = "CARRY"
            with m.State("CARRY"):
                m.d.comb += [old.addr.eq(low | 1), add.eq(carry), write.en.eq(1), done.eq(1)]
                m.next = "FRAME"
        return m
