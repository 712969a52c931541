"""Dispatch: frames of one core to its free threads, with the first program on their way, or, where there is none, on to
Complete. A packet goes by a port's hooks xdp, tcx/ingress and socket, or tcx/egress where it leaves; Complete sends it
on.

A frame waits in one queue with the others of its core. In a register behind the queue its first program is looked up,
on its way to the register that is the queue's head: a frame every second clock, and none come faster. Where packets of
a flow are to be kept `apart`, the head waits further, until it is the oldest of its ingress that waits anywhere, no
thread of any core runs a packet of its flow, and it was this core's `turn` in the clock before (so that no two cores
begin one flow in the same clock). All this is looked at in the clock of the turn, in which others may begin too.

The entry of a program is latched here, after the frame got its number: a program may be replaced once every packet has
left whose number was given before its entry was moved.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import DispatchTrace, Entry, Hook, InterfaceControl, Start
from bpfnic.hdl.packets.flow import FLOW_BITS
from bpfnic.hdl.packets.records import Completion, Frame, Kind, Order, Resume, Thread, ThreadStrobe, ThreadWrite
from bpfnic.hdl.queue import Queue


def Again(config: NicConfig) -> data.StructLayout:
    """A thread that is to be started again; of its row what the trace shows."""
    shown = ("program_type", "hook", "device") if config.trace else ()
    row = Thread(config)
    return data.StructLayout(
        {"thread": range(config.threads), "slot": range(config.program_slots)}
        | {name: row[name].shape for name in shown}
    )


def Head(config: NicConfig) -> data.StructLayout:
    """The queue's head, and which program is the first on its way: none, unless `entry` is valid. device: the interface
    at whose `hook` it stands."""
    return data.StructLayout(
        {"frame": Frame(config), "entry": Entry(config), "hook": Hook, "device": range(config.interfaces)}
    )


class Dispatch(Component):
    """A frame may go on 3 clocks after it came, and the next one 2 clocks later.

    Members
    -------
    frame_valid, frame : from Receive; there is a place for every buffer.
    control : of each interface.
    start : to the core, 1 clock after the thread table has the row.
    launch : the thread's row.
    resume : a thread goes on, and is started as soon as may be; it has its row.
    freed : a thread has finished.
    apart, turn : packets of one flow never run at the same time; this core may go on in the next clock.
    due : of each ingress, the frame that leaves the queues next; `passes`: in this clock. left, left_ingress : the head
    leaves this queue.
    flow : of the queue's head; `running` : of each thread. asked, held : the heads' flows of all cores, and whether a
    thread here runs each, or begins to. conflict : a thread of any core does so with the head's flow.
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
                "resume": In(Resume(config)),
                "freed": In(ThreadStrobe(config)),
                "apart": In(1),
                "turn": In(1),
                "due": In(Order(config)).array(config.ingresses),
                "passes": In(config.ingresses),
                "left": Out(1),
                "left_ingress": Out(range(config.ingresses)),
                "flow": Out(FLOW_BITS),
                "running": Out(FLOW_BITS).array(config.threads),
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
        m.submodules.queue = queue = Queue(Frame(config), config.packet_buffers)
        frame, waits, takes = Signal(Frame(config)), Signal(), Signal()  # takes: the head's register
        m.d.comb += [queue.push.eq(self.frame_valid), queue.entry.eq(self.frame), queue.pop.ready.eq(~waits)]
        m.d.sync += waits.eq(Mux(waits, ~takes, queue.pop.valid))
        with m.If(~waits):
            m.d.sync += frame.eq(queue.pop.payload)

        # The first program on its way.
        names = "xdp", "ingress", "egress", "socket"
        xdp, ingress, egress, socket = (Signal(Entry(config), name=name) for name in names)
        with m.Switch(frame.device):
            for number, control in enumerate(self.control):
                with m.Case(number):
                    m.d.comb += [xdp.eq(control.xdp), ingress.eq(control.ingress), egress.eq(control.egress)]
                    m.d.comb += socket.eq(control.socket)
        of_host, of_clones = frame.ingress == config.ports, frame.ingress == config.interfaces
        following = Signal(Head(config))
        m.d.comb += [
            following.frame.eq(frame),
            following.entry.eq(Mux(ingress.valid, ingress.as_value(), socket.as_value())),
            following.hook.eq(Mux(ingress.valid, Hook.TCX_INGRESS, Hook.SOCKET)),
            following.device.eq(frame.device),
        ]
        with m.If(frame.leaving):
            m.d.comb += [following.entry.eq(egress), following.hook.eq(Hook.TCX_EGRESS)]
        with m.If(of_host & self.control[config.ports].xdp.valid):
            m.d.comb += [following.entry.eq(self.control[config.ports].xdp), following.hook.eq(Hook.XDP)]
            m.d.comb += following.device.eq(config.ports)
        with m.Elif(~frame.leaving & ~of_clones & xdp.valid):
            m.d.comb += [following.entry.eq(xdp), following.hook.eq(Hook.XDP)]
        queue_head, there, goes = Signal(Head(config)), Signal(), Signal()
        m.d.comb += takes.eq(~there | goes)
        with m.If(takes):
            m.d.sync += [there.eq(waits), queue_head.eq(following)]

        head, entry, hook, device = queue_head.frame, queue_head.entry, queue_head.hook, queue_head.device
        oldest, alone, stays = Signal(), Signal(), Signal()  # what is known of the head is of a clock ago, if it stays
        with m.Switch(head.ingress):
            for number, due in enumerate(self.due):
                behind = (due + 1)[: len(due)]
                with m.Case(number):
                    m.d.comb += oldest.eq(Mux(self.passes[number], head.order == behind, head.order == due))
        m.d.sync += [alone.eq(self.turn & oldest & ~self.conflict), stays.eq(~takes)]
        may_go = there & (~self.apart | (alone & stays))

        # The thread for it is chosen a clock before: the lowest that is free, with and without the one that goes now.
        launches = Signal()
        free, ready = Signal(config.threads, init=-1), Signal(init=1)
        chosen, thread = Signal(config.threads, init=1), Signal(range(config.threads))  # chosen: one-hot, or 0
        others, lowest_other, lowest_free = (Signal(config.threads, name=name) for name in
                                             ("others", "lowest_other", "lowest_free"))  # fmt: skip
        lowest = Mux(launches, lowest_other, lowest_free)
        m.d.comb += [others.eq(free & ~chosen), lowest_other.eq(others & -others), lowest_free.eq(free & -free)]
        m.d.sync += [ready.eq(Mux(launches, others.any(), free.any())), chosen.eq(lowest)]
        for bit in range(len(thread)):
            ones = sum(1 << i for i in range(config.threads) if i >> bit & 1)
            m.d.sync += thread[bit].eq(Mux(launches, (lowest_other & ones).any(), (lowest_free & ones).any()))

        # On to a thread. One that goes on with its packet has it already, and comes first.
        again = Again(config)
        m.submodules.resuming = resuming = Queue(again, config.threads)
        resumed, resume = resuming.pop.payload, Signal(again)
        for name in again.members:
            of_resume = name in ("thread", "slot")
            m.d.comb += resume[name].eq(getattr(self.resume, name) if of_resume else self.resume.row[name])
        may_start = ~self.start.valid | self.start.ready
        m.d.comb += [
            resuming.push.eq(self.resume.valid),
            resuming.entry.eq(resume),
            resuming.pop.ready.eq(may_start),
            launches.eq(may_go & entry.valid & ready & may_start & ~resuming.pop.valid & self.launch.ready),
            self.launch.valid.eq(launches),
            self.launch.thread.eq(thread),
            self.launch.row.buffer.eq(head.buffer),
            self.launch.row.device.eq(device),
            self.launch.row.iif.eq(head.iif),
            self.launch.row.data_meta.eq(head.data),
            self.launch.row.data.eq(head.data),
            self.launch.row.data_end.eq(head.data_end),
            self.launch.row.lowest.eq(head.data),
            self.launch.row.program_type.eq(entry.program_type),
            self.launch.row.hook.eq(hook),
            self.launch.row.following.eq(entry.following),
            self.launch.row.hops.eq(head.hops),
        ]
        with m.If(may_start):
            m.d.sync += [
                self.start.valid.eq(resuming.pop.valid),
                self.start.payload.thread.eq(resumed.thread),
                self.start.payload.pc.eq(resumed.slot),
                self.trace.resumed.eq(resuming.pop.valid),
            ]
            if config.trace:
                m.d.sync += [self.trace[name].eq(resumed[name]) for name in ("program_type", "hook", "device")]
        with m.If(launches):
            m.d.sync += [
                self.start.valid.eq(1),
                self.start.payload.thread.eq(thread),
                self.start.payload.pc.eq(entry.slot),
                self.trace.ingress.eq(head.ingress),
                self.trace.sequence.eq(head.sequence),
                self.trace.program_type.eq(entry.program_type),
                self.trace.hook.eq(hook),
                self.trace.device.eq(device),
            ]
        freed = Signal(config.threads)
        with m.If(self.freed.enable):
            m.d.comb += freed.bit_select(self.freed.thread, 1).eq(1)
        m.d.sync += free.eq((free & ~Mux(launches, chosen, 0)) | freed)
        m.d.comb += [
            self.trace.valid.eq(self.start.valid & self.start.ready),
            self.trace.thread.eq(self.start.payload.thread),
            self.trace.pc.eq(self.start.payload.pc),
        ]

        # Which flows run here.
        flows = self.running
        for number, flow in enumerate(flows):
            with m.If(launches & chosen[number]):
                m.d.sync += flow.eq(head.flow)
        m.d.comb += [
            self.flow.eq(head.flow),
            self.held.eq(
                Cat(
                    Cat(~free[number] & (flow == asked) for number, flow in enumerate(flows)).any()
                    | (launches & (head.flow == asked))
                    for asked in self.asked
                )
            ),
            self.left.eq(goes),
            self.left_ingress.eq(head.ingress),
        ]

        # Or past the core.
        outcome = self.direct.payload.outcome
        sent = Mux(head.ingress == config.ports, Kind.TRANSMITTED, Kind.REDIRECTED)
        m.d.comb += [
            self.direct.valid.eq(may_go & ~entry.valid),
            self.direct.payload.buffer.eq(head.buffer),
            outcome.egress.eq(Mux(head.leaving, head.device, config.ports)),
            outcome.kind.eq(Mux(head.leaving, sent, Kind.PASSED)),
            outcome.iif.eq(head.iif),
            outcome.data.eq(head.data),
            outcome.length.eq(head.data_end - head.data),
            goes.eq(launches | (self.direct.valid & self.direct.ready)),
        ]
        return m
