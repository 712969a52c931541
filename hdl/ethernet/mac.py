"""The MAC: between a PHY's bytes in the PHY's clocks and the packet path's streams in the core's. docs/ethernet.md."""

from amaranth import DomainRenamer, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.fifo import AsyncFIFO, AsyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.ethernet.interfaces import Link, Outcome, PhyReceive, PhyTransmit, StatisticsPort, Word
from bpfnic.hdl.ethernet.receive import Receive
from bpfnic.hdl.ethernet.statistics import Statistics
from bpfnic.hdl.ethernet.transmit import Transmit
from bpfnic.hdl.interfaces import EGRESS_USER, INGRESS_USER, Beat
from bpfnic.hdl.lanes import count_run

FIFO_BUFFERS = 2  # what each FIFO of words holds, in packet buffers
OUTCOMES = 16  # as many as a column of distributed memory has


class Mac(Component):
    """One port's MAC: full duplex, without pause frames.

    Parameters
    ----------
    config : buffer_bytes is the longest frame, with its FCS on receive.
    receive_domain, transmit_domain : the PHY's clocks. A byte a clock at most in either.

    Members
    -------
    phy_receive, phy_transmit : the adapter's, in those domains.
    link : what the adapter knows of the link, in the receive domain.
    received : frames to the packet path; user bit 0 of the last beat says that it is bad (hdl.interfaces Beat). Bytes
        don't wait: while `ready` is low they gather in the FIFO; where it is full frames are cut (bad), or lost whole.
    transmitted : frames from it, of at most config.buffer_bytes. One goes out when its last beat is in the FIFO, so
        that it never runs dry in the middle.
    statistics : the counters (spec.ethernet.MacCounter).
    """

    def __init__(self, config: NicConfig, *, receive_domain: str, transmit_domain: str):
        self.config, self.receive_domain, self.transmit_domain = config, receive_domain, transmit_domain
        super().__init__(
            {
                "phy_receive": In(PhyReceive),
                "phy_transmit": Out(PhyTransmit),
                "link": In(Link),
                "received": Out(stream.Signature(Beat(INGRESS_USER))),
                "transmitted": In(stream.Signature(Beat(EGRESS_USER))),
                "statistics": In(StatisticsPort),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.statistics = statistics = Statistics()
        connect(m, flipped(self.statistics), statistics.port)
        m.submodules.link = FFSynchronizer(self.link.as_value(), statistics.link.as_value())
        self._receive(m, statistics)
        self._transmit(m, statistics)
        return m

    def _words(self, **domains) -> AsyncFIFOBuffered:
        depth = FIFO_BUFFERS * self.config.buffer_bytes // 8
        return AsyncFIFOBuffered(width=Word.size, depth=depth + 1, exact_depth=True, **domains)

    def _receive(self, m: Module, statistics: Statistics) -> None:
        domain = self.receive_domain
        m.submodules.receive = receive = DomainRenamer(domain)(Receive(self.config.buffer_bytes))
        m.submodules.arrivals = arrivals = self._words(w_domain=domain, r_domain="sync")
        m.submodules.outcomes = outcomes = AsyncFIFO(width=Outcome.size, depth=OUTCOMES, w_domain=domain,
                                                     r_domain="sync")  # fmt: skip
        connect(m, flipped(self.phy_receive), receive.phy)
        m.d[domain] += receive.room.eq(arrivals.w_level <= arrivals.depth - 5)
        word, beat = Signal(Word), self.received.payload
        m.d.comb += [
            arrivals.w_data.eq(receive.word.payload),
            arrivals.w_en.eq(receive.word.valid),
            outcomes.w_data.eq(receive.ended.payload),
            outcomes.w_en.eq(receive.ended.valid),
            word.eq(arrivals.r_data),
            beat.data.eq(word.data),
            beat.keep.eq(Mux(word.last, (2 << word.count) - 1, 0xFF)),
            beat.last.eq(word.last),
            beat.user[0].eq(word.last & word.bad),
            self.received.valid.eq(arrivals.r_rdy),
            arrivals.r_en.eq(self.received.ready),
            statistics.received.payload.eq(outcomes.r_data),
            statistics.received.valid.eq(outcomes.r_rdy),
            outcomes.r_en.eq(statistics.received.ready),
        ]

    def _transmit(self, m: Module, statistics: Statistics) -> None:
        domain = self.transmit_domain
        m.submodules.transmit = transmit = DomainRenamer(domain)(Transmit())
        m.submodules.departures = departures = self._words(w_domain="sync", r_domain=domain)
        m.submodules.results = results = AsyncFIFO(width=Outcome.size, depth=OUTCOMES, w_domain=domain,
                                                   r_domain="sync")  # fmt: skip
        connect(m, flipped(self.phy_transmit), transmit.phy)
        beat = self.transmitted.payload
        word = Signal(Word)
        m.d.comb += [
            word.data.eq(beat.data),
            word.count.eq(count_run(beat.keep) - 1),
            word.last.eq(beat.last),
            departures.w_data.eq(word),
            departures.w_en.eq(self.transmitted.valid),
            self.transmitted.ready.eq(departures.w_rdy),
            transmit.words.payload.eq(departures.r_data),
            transmit.words.valid.eq(departures.r_rdy),
            departures.r_en.eq(transmit.words.ready),
            results.w_data.eq(transmit.ended.payload),
            results.w_en.eq(transmit.ended.valid),
            statistics.sent.payload.eq(results.r_data),
            statistics.sent.valid.eq(results.r_rdy),
            results.r_en.eq(statistics.sent.ready),
        ]
        # How many frames are whole, counted in Gray code for the way between the clocks, and how many have gone out. A
        # frame has a word at least, so that they never differ by more than the FIFO's depth.
        shape = range(2 * departures.depth)
        whole, crossed, gone = Signal(shape), Signal(shape), Signal(shape)
        self._count(m, "sync", self.transmitted.valid & self.transmitted.ready & beat.last, whole)
        self._count(m, domain, transmit.ended.valid, gone)
        m.submodules.whole = FFSynchronizer(whole, crossed, o_domain=domain)
        m.d.comb += transmit.pending.eq(crossed != gone)

    def _count(self, m: Module, domain: str, event, code: Signal) -> None:
        """`code` is how often there was the event, in Gray code."""
        count, following = Signal.like(code), Signal.like(code)
        m.d.comb += following.eq(count + 1)
        with m.If(event):
            m.d[domain] += [count.eq(following), code.eq(following ^ following[1:])]
