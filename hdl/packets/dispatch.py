"""Dispatch: frames of one core to its free threads, or, where no program is attached, on to Complete.

A frame waits in one queue with the others of its core; the mode that keeps packets of a flow apart will choose from
it. The entry of a program is latched here, long after the frame got its number: a program may be replaced once every
packet has left whose number was given before its entry was moved.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import DispatchTrace, InterfaceControl, Start
from bpfnic.hdl.packets.records import Completion, Frame, Kind, ThreadStrobe, ThreadWrite
from bpfnic.spec import addresses


class Dispatch(Component):
    """Members
    -------
    frame_valid, frame : from Receive; there is a place for every buffer.
    control : of each interface.
    start : to the core, 1 clock after the thread table has the row.
    launch : the thread's row. It is written in the clock in which `launch.valid` is high.
    freed : a thread has finished.
    direct : a frame that no program runs on.
    trace : in the clock of the transfer of `start`.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "frame_valid": In(1),
                "frame": In(Frame(config)),
                "control": In(InterfaceControl(config)).array(config.interfaces),
                "start": Out(stream.Signature(Start(config))),
                "launch": Out(ThreadWrite(config)),
                "freed": In(ThreadStrobe(config)),
                "direct": Out(stream.Signature(Completion(config))),
                "trace": Out(DispatchTrace(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        m.submodules.queue = queue = SyncFIFO(width=Frame(config).size, depth=config.packet_buffers)
        head = Frame(config)(queue.r_data)
        m.d.comb += [queue.w_en.eq(self.frame_valid), queue.w_data.eq(self.frame)]

        attached, entry = Signal(), Signal(range(config.program_slots))
        with m.Switch(head.ingress):
            for number, control in enumerate(self.control):
                with m.Case(number):
                    m.d.comb += [attached.eq(control.entry_valid), entry.eq(control.entry)]

        free = Signal(config.threads, init=-1)
        lowest, thread = Signal(config.threads), Signal(range(config.threads))
        m.d.comb += lowest.eq(free & -free)
        for bit in range(len(thread)):
            m.d.comb += thread[bit].eq((lowest & sum(1 << i for i in range(config.threads) if i >> bit & 1)).any())

        # On to a thread.
        launches = self.launch.valid
        next_free = Signal(config.threads)
        m.d.comb += [
            launches.eq(queue.r_rdy & attached & free.any() & (~self.start.valid | self.start.ready)),
            self.launch.thread.eq(thread),
            self.launch.row.buffer.eq(head.buffer),
            self.launch.row.ingress.eq(head.ingress),
            self.launch.row.data.eq(addresses.HEADROOM),
            self.launch.row.data_end.eq(head.data_end),
            self.launch.row.lowest.eq(addresses.HEADROOM),
            next_free.eq(free),
        ]
        with m.If(launches):
            m.d.comb += next_free.eq(free & ~lowest)
            m.d.sync += [
                self.start.valid.eq(1),
                self.start.payload.thread.eq(thread),
                self.start.payload.pc.eq(entry),
                self.trace.ingress.eq(head.ingress),
                self.trace.sequence.eq(head.sequence),
            ]
        with m.Elif(self.start.ready):
            m.d.sync += self.start.valid.eq(0)
        freed = Signal(config.threads)
        with m.If(self.freed.enable):
            m.d.comb += freed.bit_select(self.freed.thread, 1).eq(1)
        m.d.sync += free.eq(next_free | freed)
        m.d.comb += [
            self.trace.valid.eq(self.start.valid & self.start.ready),
            self.trace.thread.eq(self.start.payload.thread),
            self.trace.pc.eq(self.start.payload.pc),
        ]

        # Or past the core.
        outcome = self.direct.payload.outcome
        of_host = head.ingress == config.ports
        m.d.comb += [
            self.direct.valid.eq(queue.r_rdy & ~attached),
            self.direct.payload.buffer.eq(head.buffer),
            outcome.egress.eq(Mux(of_host, head.port, config.ports)),
            outcome.kind.eq(Mux(of_host, Kind.TRANSMITTED, Kind.PASSED)),
            outcome.data.eq(addresses.HEADROOM),
            outcome.length.eq(head.data_end - addresses.HEADROOM),
            queue.r_en.eq(launches | (self.direct.valid & self.direct.ready)),
        ]
        return m
