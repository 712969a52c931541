"""Clones: what bpf_clone_redirect made, as frames of an ingress of their own.

So a clone has a place in the order of clones, apart from that of the packet that it was made of: clones leave in the
order in which they were made, and whether one leaves before or behind its original nobody says.
"""

from amaranth import Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import CloneTrace
from bpfnic.hdl.packets.flow import FLOW_BITS
from bpfnic.hdl.packets.receive import Arrival
from bpfnic.hdl.packets.records import Clone, Frame


class Clones(Component):
    """Takes one clone a clock, of the lowest core that has one while Receive hands it no frame.

    Members
    -------
    clone : from each core's service unit. flow : of the thread that it names.
    busy : of each core, Receive hands it a frame.
    frame_valid, frame : to each core's dispatcher, in the clock before the transfer of `clone`: what waits for the
        transfer doesn't wait for what Receive does in its clock.
    arrival : in the same clock as `frame`; an accepted clone is number `next_sequence`. One without a buffer is refused
        as `full`.
    trace : likewise.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "clone": In(stream.Signature(Clone(config))).array(config.cores),
                "flow": In(FLOW_BITS).array(config.cores),
                "busy": In(config.cores),
                "frame_valid": Out(config.cores),
                "frame": Out(Frame(config)).array(config.cores),
                "arrival": Out(Arrival(config)),
                "next_sequence": Out(32),
                "trace": Out(CloneTrace(config)).array(config.cores),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, arrival = self.config, self.arrival
        taken, handed = Signal(config.cores), Signal(config.cores)  # handed: in the clock before
        m.d.sync += handed.eq(taken)
        for core, (clone, frame, flow, trace) in enumerate(
            zip(self.clone, self.frame, self.flow, self.trace, strict=True)
        ):
            made = clone.payload
            m.d.comb += [
                clone.ready.eq(handed[core]),
                taken[core].eq(clone.valid & ~handed[core] & ~self.busy[core] & ~taken[:core].any()),
                self.frame_valid[core].eq(taken[core] & made.made),
                trace.valid.eq(taken[core]),
                trace.thread.eq(made.thread),
                trace.made.eq(made.made),
                frame.buffer.eq(made.buffer),
                frame.ingress.eq(config.interfaces),
                frame.iif.eq(made.iif),
                frame.device.eq(made.device),
                frame.leaving.eq(made.leaving),
                frame.hops.eq(made.hops),
                frame.data.eq(made.data),
                frame.data_end.eq(made.data_end),
                frame.flow.eq(flow),
                frame.order.eq(self.next_sequence),
                frame.sequence.eq(self.next_sequence),
            ]
            with m.If(taken[core]):
                m.d.comb += [
                    arrival.ended.eq(1),
                    arrival.accepted.eq(made.made),
                    arrival.full.eq(~made.made),
                    arrival.bytes.eq(made.data_end - made.data),
                    arrival.place.core.eq(core),
                    arrival.place.buffer.eq(made.buffer),
                ]
        with m.If(arrival.accepted):
            m.d.sync += self.next_sequence.eq(self.next_sequence + 1)
        return m
