"""The MAC: between a PHY's bytes in the PHY's clocks and the packet path's streams in the core's. docs/ethernet.md."""

from amaranth import DomainRenamer, Module, Mux
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.ethernet.crossing import Crossing
from bpfnic.hdl.ethernet.departures import Departures
from bpfnic.hdl.ethernet.interfaces import Link, Outcome, PhyReceive, PhyTransmit, StatisticsPort, Word
from bpfnic.hdl.ethernet.receive import ROOM, Receive
from bpfnic.hdl.ethernet.statistics import Statistics
from bpfnic.hdl.ethernet.transmit import Transmit
from bpfnic.hdl.interfaces import EGRESS_USER, INGRESS_USER, Beat
from bpfnic.hdl.lanes import count_run

BUFFERS = 2  # what each way's words take, in packet buffers
OUTCOMES = 16  # as many as a column of distributed memory has
OUTCOMES_SPARE = 2  # empty frames end in every second clock, so that `room` doesn't know of one


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
        don't wait: while `ready` is low they gather in a queue; where it is full frames are cut (bad), or lost whole.
    transmitted : frames from it, of at most config.buffer_bytes. One goes out when its last beat is in the memory, so
        that it never runs dry in the middle.
    statistics : the counters (spec.ethernet.MacCounter).
    """

    def __init__(self, config: NicConfig, *, receive_domain: str, transmit_domain: str):
        self.config, self.receive_domain, self.transmit_domain = config, receive_domain, transmit_domain
        self.words = BUFFERS * config.buffer_bytes // 8
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

    def _receive(self, m: Module, statistics: Statistics) -> None:
        domain = self.receive_domain
        m.submodules.receive = receive = DomainRenamer(domain)(Receive(self.config.buffer_bytes))
        m.submodules.arrivals = arrivals = Crossing(Word, self.words, spare=ROOM, write_domain=domain,
                                                    read_domain="sync")  # fmt: skip
        connect(m, flipped(self.phy_receive), receive.phy)
        connect(m, receive.word, arrivals.write)
        m.d.comb += receive.room.eq(arrivals.room)
        self._outcomes(m, "outcomes", domain, receive.ended, statistics.received)
        word, beat = arrivals.read.payload, self.received.payload
        m.d.comb += [
            beat.data.eq(word.data),
            beat.keep.eq(Mux(word.last, (2 << word.count) - 1, 0xFF)),
            beat.last.eq(word.last),
            beat.user[0].eq(word.last & word.bad),
            self.received.valid.eq(arrivals.read.valid),
            arrivals.read.ready.eq(self.received.ready),
        ]

    def _transmit(self, m: Module, statistics: Statistics) -> None:
        domain = self.transmit_domain
        m.submodules.departures = departures = Departures(self.words, transmit_domain=domain, target=self.config.target)
        m.submodules.transmit = transmit = DomainRenamer(domain)(Transmit())
        connect(m, departures.departing, transmit.departing)
        connect(m, flipped(self.phy_transmit), transmit.phy)
        self._outcomes(m, "results", domain, transmit.ended, statistics.sent)
        beat, words = self.transmitted.payload, departures.words
        m.d.comb += [
            words.payload.data.eq(beat.data),
            words.payload.count.eq(count_run(beat.keep) - 1),
            words.payload.last.eq(beat.last),
            words.valid.eq(self.transmitted.valid),
            self.transmitted.ready.eq(words.ready),
        ]

    def _outcomes(self, m: Module, name: str, domain: str, ended, counted) -> None:
        """A direction's outcomes to the statistics. One that finds no room isn't counted."""
        m.submodules[name] = outcomes = Crossing(Outcome, OUTCOMES, spare=OUTCOMES_SPARE, write_domain=domain,
                                                 read_domain="sync")  # fmt: skip
        connect(m, outcomes.read, counted)
        m.d.comb += [
            outcomes.write.valid.eq(ended.valid & outcomes.room),
            outcomes.write.payload.eq(ended.payload),
        ]
