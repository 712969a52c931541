"""Dispatch: frames of one core to its free threads, or, where no program is attached, on to Complete.

A frame waits in one queue with the others of its core. Where packets of a flow are to be kept `apart`, the queue's head
waits further, until it is the oldest of its ingress that waits anywhere, no thread of any core runs a packet of its
flow, and it is this core's `turn` (so that no two cores begin one flow in the same clock).

The entry of a program is latched here, long after the frame got its number: a program may be replaced once every packet
has left whose number was given before its entry was moved.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import DispatchTrace, InterfaceControl, Start
from bpfnic.hdl.packets.flow import FLOW_BITS
from bpfnic.hdl.packets.records import Completion, Frame, Kind, Order, ThreadStrobe, ThreadWrite
from bpfnic.spec import addresses


class Dispatch(Component):
    """Members
    -------
    frame_valid, frame : from Receive; there is a place for every buffer.
    control : of each interface.
    start : to the core, 1 clock after the thread table has the row.
    launch : the thread's row. It is written in the clock in which `launch.valid` is high.
    freed : a thread has finished.
    apart, turn : packets of one flow never run at the same time; it is this core's turn to go on.
    due : of each ingress, the frame that leaves the queues next. left, left_ingress : the head leaves this queue.
    flow : of the queue's head. asked, held : the heads' flows of all cores, and whether a thread here runs each.
    conflict : a thread of any core runs the head's flow.
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
                "apart": In(1),
                "turn": In(1),
                "due": In(Order(config)).array(config.interfaces),
                "left": Out(1),
                "left_ingress": Out(range(config.interfaces)),
                "flow": Out(FLOW_BITS),
                "asked": In(FLOW_BITS).array(config.cores),
                "held": Out(config.cores),
                "conflict": In(1),
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

        attached, entry, oldest = Signal(), Signal(range(config.program_slots)), Signal()
        program_type = Signal.like(self.launch.row.program_type)
        with m.Switch(head.ingress):
            for number, (control, due) in enumerate(zip(self.control, self.due, strict=True)):
                with m.Case(number):
                    m.d.comb += [
                        attached.eq(control.entry_valid),
                        entry.eq(control.entry),
                        program_type.eq(control.program_type),
                        oldest.eq(head.order == due),
                    ]
        may_go = queue.r_rdy & (~self.apart | (self.turn & oldest & ~self.conflict))

        free = Signal(config.threads, init=-1)
        lowest, thread = Signal(config.threads), Signal(range(config.threads))
        m.d.comb += lowest.eq(free & -free)
        for bit in range(len(thread)):
            m.d.comb += thread[bit].eq((lowest & sum(1 << i for i in range(config.threads) if i >> bit & 1)).any())

        # On to a thread.
        launches = self.launch.valid
        next_free = Signal(config.threads)
        m.d.comb += [
            launches.eq(may_go & attached & free.any() & (~self.start.valid | self.start.ready)),
            self.launch.thread.eq(thread),
            self.launch.row.buffer.eq(head.buffer),
            self.launch.row.ingress.eq(head.ingress),
            self.launch.row.data_meta.eq(addresses.HEADROOM),
            self.launch.row.data.eq(addresses.HEADROOM),
            self.launch.row.data_end.eq(head.data_end),
            self.launch.row.lowest.eq(addresses.HEADROOM),
            self.launch.row.program_type.eq(program_type),
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
                self.trace.program_type.eq(program_type),
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

        # Which flows run here.
        flows = [Signal(FLOW_BITS, name=f"flow_of_{number}") for number in range(config.threads)]
        for number, flow in enumerate(flows):
            with m.If(launches & lowest[number]):
                m.d.sync += flow.eq(head.flow)
        m.d.comb += [
            self.flow.eq(head.flow),
            self.held.eq(
                Cat(
                    Cat(~free[number] & (flow == asked) for number, flow in enumerate(flows)).any()
                    for asked in self.asked
                )
            ),
            self.left.eq(queue.r_en),
            self.left_ingress.eq(head.ingress),
        ]

        # Or past the core.
        outcome = self.direct.payload.outcome
        of_host = head.ingress == config.ports
        m.d.comb += [
            self.direct.valid.eq(may_go & ~attached),
            self.direct.payload.buffer.eq(head.buffer),
            outcome.egress.eq(Mux(of_host, head.port, config.ports)),
            outcome.kind.eq(Mux(of_host, Kind.TRANSMITTED, Kind.PASSED)),
            outcome.data.eq(addresses.HEADROOM),
            outcome.length.eq(head.data_end - addresses.HEADROOM),
            queue.r_en.eq(launches | (self.direct.valid & self.direct.ready)),
        ]
        return m
