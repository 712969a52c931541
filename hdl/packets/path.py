"""The packet path: everything between the streams and the cores (docs/hardware.md)."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import memory
from amaranth.lib.wiring import Component, connect, flipped

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import Entry, IngressEvent, PacketPathPorts
from bpfnic.hdl.packets.buffers import PacketBuffers
from bpfnic.hdl.packets.clones import Clones
from bpfnic.hdl.packets.collect import Collect
from bpfnic.hdl.packets.complete import Complete
from bpfnic.hdl.packets.dispatch import Dispatch
from bpfnic.hdl.packets.metadata import ReceiveMetadata
from bpfnic.hdl.packets.pool import Pool
from bpfnic.hdl.packets.receive import Receive
from bpfnic.hdl.packets.records import Frame, Order
from bpfnic.hdl.packets.service import ServiceUnit
from bpfnic.hdl.packets.threads import Threads
from bpfnic.hdl.packets.transmit import Transmit
from bpfnic.hdl.packets.windows import Windows
from bpfnic.spec.registers import CHAIN_WORDS


class PacketPath(Component):
    """Receive, buffers, windows, Dispatch, Service, Complete, Collect, Transmit. Members: PacketPathPorts.

    Where nothing waits, Start is 7 clocks after a frame's last beat, and the first beat out 13 to 17 after Finish.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(PacketPathPorts(config))

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        m.submodules.receive = receive = Receive(config)
        m.submodules.clones = clones = Clones(config)
        m.submodules.collect = collect = Collect(config)
        m.submodules.transmit = transmit = Transmit(config)

        phase = Signal()
        m.d.sync += phase.eq(~phase)
        m.d.comb += [receive.phase.eq(phase), transmit.phase.eq(phase), receive.enable.eq(self.enable)]
        for number in range(config.interfaces):
            connect(m, flipped(self.ingress[number]), receive.ingress[number])
            connect(m, transmit.egress[number], flipped(self.egress[number]))
            connect(m, receive.arrival[number], collect.arrival[number])
            m.d.comb += [
                receive.waits[number].eq(self.control[number].ingress_waits),
                collect.waits[number].eq(self.control[number].egress_waits),
                collect.next_sequence[number].eq(receive.next_sequence[number]),
            ]
            self._status(m, number, receive.arrival[number], receive.next_sequence[number], collect)
            status = self.status[number]
            m.d.comb += [
                status.sent.eq(transmit.sent[number]),
                status.sent_bytes.eq(transmit.sent_bytes[number]),
                status.egress_dropped.eq(collect.egress_dropped[number]),
                self.refuse_trace.accepted[number].eq(receive.arrival[number].ended & receive.arrival[number].accepted),
                self.refuse_trace.refused[number].eq(receive.arrival[number].ended & ~receive.arrival[number].accepted),
            ]
        connect(m, clones.arrival, collect.arrival[config.interfaces])
        m.d.comb += collect.next_sequence[config.interfaces].eq(clones.next_sequence)
        self._status(m, config.interfaces, clones.arrival, clones.next_sequence, collect)
        m.d.comb += [
            transmit.push.eq(collect.push),
            transmit.departure.eq(collect.departure),
            collect.room.eq(transmit.room),
            self.causes.eq(collect.causes),
            self.release_trace.eq(collect.trace),
        ]
        m.submodules.chain = chain = memory.Memory(shape=Entry(config), depth=CHAIN_WORDS, init=[])
        write = chain.write_port()
        m.d.comb += [write.en.eq(self.chain.enable), write.addr.eq(self.chain.index), write.data.eq(self.chain.entry)]
        dispatchers = [
            self._core(m, core, phase, chain, receive, clones, collect, transmit) for core in range(config.cores)
        ]
        self._keep_apart(m, dispatchers)
        return m

    def _keep_apart(self, m: Module, dispatchers: list[Dispatch]) -> None:
        """Packets of one flow, over all cores. The mode changes while nothing is in flight."""
        config = self.config
        apart, turn = Signal(), Signal(config.cores, init=1)
        due = [Signal(Order(config), name=f"due{number}") for number in range(config.ingresses)]
        with m.If(~Cat(status.in_flight.any() for status in self.status).any()):
            m.d.sync += apart.eq(self.apart)
        m.d.sync += turn.eq(turn.rotate_left(1))
        for number, order in enumerate(due):
            leaving = [dispatch.left & (dispatch.left_ingress == number) for dispatch in dispatchers]
            m.d.sync += order.eq(order + sum(leaving))
            m.d.comb += [dispatch.passes[number].eq(Cat(leaving).any()) for dispatch in dispatchers]
        for core, dispatch in enumerate(dispatchers):
            m.d.comb += [
                dispatch.apart.eq(apart),
                dispatch.turn.eq(turn[core]),
                dispatch.conflict.eq(Cat(other.held[core] for other in dispatchers).any()),
            ]
            m.d.comb += [mine.eq(order) for mine, order in zip(dispatch.due, due, strict=True)]
            m.d.comb += [asked.eq(other.flow) for asked, other in zip(dispatch.asked, dispatchers, strict=True)]

    def _core(
        self,
        m: Module,
        core: int,
        phase,
        chain: memory.Memory,
        receive: Receive,
        clones: Clones,
        collect: Collect,
        transmit: Transmit,
    ) -> Dispatch:
        """What each core has for itself."""
        config = self.config
        m.submodules[f"pool{core}"] = pool = Pool(config)
        m.submodules[f"buffers{core}"] = buffers = PacketBuffers(config)
        m.submodules[f"windows{core}"] = windows = Windows(config)
        m.submodules[f"threads{core}"] = threads = Threads(config, reads=4)
        m.submodules[f"dispatch{core}"] = dispatch = Dispatch(config)
        m.submodules[f"service{core}"] = service = ServiceUnit(config)
        m.submodules[f"complete{core}"] = complete = Complete(config)

        # Buffers
        connect(m, receive.give[core], pool.give[0])
        connect(m, collect.give[core], pool.give[1])
        connect(m, transmit.give[core], pool.give[2])
        connect(m, receive.write[core], buffers.write)
        connect(m, transmit.read[core], buffers.read)
        connect(m, service.zero, receive.zero[core])
        if config.receive_metadata:
            m.submodules[f"metadata{core}"] = metadata = ReceiveMetadata(config)
            connect(m, service.received, metadata.question)
            connect(m, flipped(self.rss_key), metadata.key)
            m.d.comb += [
                metadata.beat.eq(receive.beat[core]),
                metadata.bytes.eq(receive.beat_bytes[core]),
                metadata.time.eq(self.time),
            ]
            m.d.comb += [
                getattr(metadata.write, name).eq(getattr(receive.write[core], name))
                for name in metadata.write.signature.members
            ]
        m.d.comb += [
            buffers.phase.eq(phase),
            receive.spare_ready[core].eq(pool.ready & pool.more & ~service.wants),
            receive.spare[core].eq(pool.spare),
            receive.empty[core].eq(~pool.more),
            service.spare_ready.eq(pool.ready),
            service.spare.eq(pool.spare),
            service.empty.eq(pool.empty),
            service.free.eq(phase),
            pool.take.eq(receive.take[core] | service.take),
        ]
        connect(m, service.clone, clones.clone[core])

        # A thread's life
        connect(m, dispatch.launch, threads.launch)
        connect(m, service.change, threads.change)
        connect(m, dispatch.direct, complete.direct)
        connect(m, complete.freed, dispatch.freed)
        connect(m, complete.resume, threads.resume)
        followed = chain.read_port(domain="comb")
        for name in complete.resume.signature.members:
            m.d.comb += getattr(dispatch.resume, name).eq(getattr(complete.resume, name))
        m.d.comb += [
            threads.ends.eq(complete.ends),
            service.taken_next.eq(~complete.ends_next),
            followed.addr.eq(complete.following),
            complete.followed.eq(followed.data),
        ]
        connect(m, dispatch.start, flipped(self.start[core]))
        connect(m, flipped(self.finish[core]), complete.finish)
        connect(m, flipped(self.service[core]), service.request)
        connect(m, service.answer, flipped(self.answer[core]))
        frame, came = Signal(Frame(config), name=f"frame{core}"), Signal(name=f"came{core}")
        m.d.sync += [
            came.eq(receive.frame_valid[core]),
            dispatch.frame_valid.eq(receive.frame_valid[core] | clones.frame_valid[core]),
            frame.eq(Mux(receive.frame_valid[core], receive.frame[core], clones.frame[core])),
        ]
        m.d.comb += dispatch.frame.eq(frame)
        with m.If(came):
            m.d.comb += dispatch.frame.flow.eq(receive.flow[core])
        m.d.comb += [
            clones.busy[core].eq(receive.frame_valid[core]),
            clones.flow[core].eq(Array(dispatch.running)[service.clone.payload.thread]),
            self.clone_trace[core].eq(clones.trace[core]),
            collect.done_valid[core].eq(complete.done_valid),
            collect.done[core].eq(complete.done),
            self.dispatch_trace[core].eq(dispatch.trace),
            self.finish_trace[core].eq(complete.trace),
        ]

        # The thread table and its readers
        of_core, of_windows, of_service, of_complete = threads.reads
        connect(m, windows.thread, of_windows)
        connect(m, service.thread, of_service)
        connect(m, complete.thread, of_complete)
        connect(m, complete.queue, windows.queue)
        bounds = self.bounds[core]
        m.d.comb += [
            of_core.thread.eq(bounds.thread),
            bounds.bounds.buffer.eq(of_core.row.buffer),
            bounds.bounds.data_meta.eq(of_core.row.data_meta),
            bounds.bounds.data.eq(of_core.row.data),
            bounds.bounds.data_end.eq(of_core.row.data_end),
        ]

        # Local memory
        connect(m, flipped(self.local[core]), windows.local)
        m.d.comb += [service.local.read_data.eq(windows.local.read_data), service.waits.eq(self.local[core].enable)]
        with m.If(~self.local[core].enable):
            names = [name for name in service.local.signature.members if name != "read_data"]
            m.d.comb += [getattr(windows.local, name).eq(getattr(service.local, name)) for name in names]
        connect(m, windows.pair, buffers.pair)
        resume = complete.resume
        m.d.sync += [  # a clock later is soon enough: Start is as late
            windows.launch.enable.eq(dispatch.launch.valid | resume.valid),
            windows.launch.thread.eq(Mux(resume.valid, resume.thread, dispatch.launch.thread)),
            windows.keeps.eq(resume.valid & resume.keeps),
        ]
        for number, control in enumerate(self.control):
            m.d.comb += [
                dispatch.control[number].eq(control),
                complete.control[number].eq(control),
                windows.ifindex[number].eq(control.ifindex),
            ]
            if number < config.ports:
                m.d.comb += service.ifindex[number].eq(control.ifindex)
        return dispatch

    def _status(self, m: Module, number: int, arrival, newest, collect: Collect) -> None:
        """What control counts for one ingress. arrival : Arrival. newest : the number of its next packet."""
        status = self.status[number]
        ended = {
            IngressEvent.RECEIVED: 1,
            IngressEvent.REFUSED_FULL: arrival.full,
            IngressEvent.REFUSED_LONG: arrival.long,
            IngressEvent.REFUSED_ERROR: arrival.error,
        }
        oldest = collect.oldest_sequence[number]
        m.d.comb += [
            status.events.eq(Cat(*(arrival.ended & ended[event] for event in ended), collect.outcome[number])),
            status.received_bytes.eq(arrival.bytes),
            status.in_flight.eq(newest - oldest),
            status.next_sequence.eq(newest),
            status.oldest_sequence.eq(oldest),
        ]
