"""Collect: what is done leaves in the order in which it came, for each ingress.

Each ingress has a table of the places of its packets by sequence number, with room for every buffer of the NIC; each
core has its outcomes by buffer, and a bit for those that are done. One ingress is looked at in each clock, in turn, and
its oldest packet leaves two clocks later, if it does. There are three ingresses at least (a port, the host, clones): so
the same one is never looked at too early.
"""

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import ceil_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import ReleaseTrace
from bpfnic.hdl.packets.receive import Arrival
from bpfnic.hdl.packets.records import BufferStrobe, Completion, Departure, Kind, Outcome, Place
from bpfnic.spec.causes import Cause
from bpfnic.spec.maps import QUEUE_USER_BIT
from bpfnic.spec.programs import XdpAction

NO_ACTION = 15  # egress user bits 6..3 when no program ran


class Collect(Component):
    """Members
    -------
    arrival, next_sequence : of each ingress, from Receive; of clones from Clones.
    done_valid, done : of each core, from Complete.
    push, departure : into an egress queue (`push`: one-hot, or 0). `room`: of each queue. `waits`: of each egress: what
        finds its queue full waits (and those behind it, of its ingress) instead of being dropped.
    give : to each core's Pool: a buffer that no egress will read.
    oldest_sequence : of each ingress; next_sequence if nothing is in flight.
    outcome : of each ingress, events: a bit for each Kind.
    egress_dropped : of each egress, an event.
    causes, trace : as interfaces.PacketPathPorts says.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "arrival": In(Arrival(config)).array(config.ingresses),
                "next_sequence": In(32).array(config.ingresses),
                "done_valid": In(config.cores),
                "done": In(Completion(config)).array(config.cores),
                "push": Out(config.interfaces),
                "departure": Out(Departure(config)),
                "room": In(config.interfaces),
                "waits": In(config.interfaces),
                "give": Out(BufferStrobe(config)).array(config.cores),
                "oldest_sequence": Out(32).array(config.ingresses),
                "outcome": Out(len(Kind)).array(config.ingresses),
                "egress_dropped": Out(config.interfaces),
                "causes": Out(16),
                "trace": Out(ReleaseTrace(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config

        # First clock: the place of one ingress's oldest packet.
        look = Signal(range(config.ingresses))
        m.d.sync += look.eq(Mux(look == config.ingresses - 1, 0, look + 1))
        present, looked, found = Signal(), Signal.like(look), Signal(Place(config))
        m.d.sync += looked.eq(look)
        index_bits = ceil_log2(config.cores * config.packet_buffers)
        for number, (arrival, newest, oldest) in enumerate(
            zip(self.arrival, self.next_sequence, self.oldest_sequence, strict=True)
        ):
            m.submodules[f"places{number}"] = places = memory.Memory(
                shape=Place(config), depth=1 << index_bits, init=[]
            )
            write, read = places.write_port(), places.read_port(domain="comb")
            m.d.comb += [
                write.en.eq(arrival.ended & arrival.accepted),
                write.addr.eq(newest[:index_bits]),
                write.data.eq(arrival.place),
                read.addr.eq(oldest[:index_bits]),
            ]
            with m.If(look == number):
                # No more are in flight than there are buffers.
                waits = newest[: index_bits + 1] != oldest[: index_bits + 1]
                m.d.sync += [found.eq(read.data), present.eq(waits)]

        # Second clock: is it done, and what became of it?
        ingress, place, leaves = Signal.like(look), Signal(Place(config)), Signal()
        done, outcome, to_egress = Signal(), Signal(Outcome(config)), Signal(config.interfaces)
        waits = Signal()  # for room in its egress's queue, if there is none
        m.d.sync += [ingress.eq(looked), place.eq(found)]
        for core in range(config.cores):
            flag, what = self._outcomes(m, core, found, leaves, place)
            with m.If(found.core == core):
                sent = (what.kind != Kind.DROPPED) & (what.kind != Kind.ABORTED)
                m.d.sync += [done.eq(present & flag), outcome.eq(what), to_egress.eq(Mux(sent, 1 << what.egress, 0))]
                m.d.sync += waits.eq(sent & self.waits.bit_select(what.egress, 1))

        # Third clock: may it leave?
        fits = (to_egress & self.room).any()
        m.d.comb += [
            leaves.eq(done & (~waits | fits)),
            self.push.eq(Mux(done, to_egress & self.room, 0)),
            self.egress_dropped.eq(Mux(done & ~waits, to_egress & ~self.room, 0)),
            self.departure.place.eq(place),
            self.departure.data.eq(outcome.data),
            self.departure.length.eq(outcome.length),
            self.departure.user[:3].eq(outcome.iif),
            self.departure.user[3:QUEUE_USER_BIT].eq(Mux(outcome.ran, outcome.kind.as_value() + 1, NO_ACTION)),
            self.departure.user[QUEUE_USER_BIT:].eq(outcome.queue),
        ]
        for core, give in enumerate(self.give):
            m.d.comb += [give.enable.eq(leaves & ~fits & (place.core == core)), give.buffer.eq(place.buffer)]
        with m.If(leaves):
            with m.If(outcome.kind == Kind.ABORTED):
                m.d.comb += self.causes.bit_select(outcome.cause, 1).eq(1)
            with m.Switch(ingress):
                for number, oldest in enumerate(self.oldest_sequence):
                    with m.Case(number):
                        m.d.comb += self.outcome[number].bit_select(outcome.kind, 1).eq(1)
                        m.d.comb += self.trace.sequence.eq(oldest)
                        m.d.sync += oldest.eq(oldest + 1)
        m.d.comb += [
            self.trace.valid.eq(leaves),
            self.trace.ingress.eq(ingress),
            self.trace.queued.eq(fits),
            self.trace.egress.eq(outcome.egress),
            self.trace.action.eq(Mux(outcome.kind == Kind.ABORTED, XdpAction.XDP_ABORTED, outcome.kind.as_value() + 1)),
            self.trace.cause.eq(Mux(outcome.kind == Kind.ABORTED, outcome.cause, Cause.NONE)),
        ]
        return m

    def _outcomes(self, m: Module, core: int, found, leaves, place) -> tuple[Value, Value]:
        """The packets of one core that are done: whether the one that was `found` is, and its outcome. The one at
        `place` no longer is when it `leaves`."""
        config = self.config
        m.submodules[f"outcomes{core}"] = outcomes = memory.Memory(
            shape=Outcome(config), depth=config.packet_buffers, init=[]
        )
        write, read = outcomes.write_port(), outcomes.read_port(domain="comb")
        flags = Signal(config.packet_buffers, name=f"done{core}")
        m.d.comb += [
            write.en.eq(self.done_valid[core]),
            write.addr.eq(self.done[core].buffer),
            write.data.eq(self.done[core].outcome),
            read.addr.eq(found.buffer),
        ]
        with m.If(leaves & (place.core == core)):
            m.d.sync += flags.bit_select(place.buffer, 1).eq(0)
        with m.If(self.done_valid[core]):
            m.d.sync += flags.bit_select(self.done[core].buffer, 1).eq(1)
        return flags.bit_select(found.buffer, 1), read.data
