"""Complete: the end of a program's run, turned into what becomes of its packet: it is done, or goes on to the next
program on its way, on the same thread.

    xdp ─PASS─▶ tcx/ingress ─▶ … ─▶ socket ─▶ host     (… : UNSPEC, and there is another program at the hook)
     │ TX, REDIRECT     │ REDIRECT
     ▼                  ▼
    out           tcx/egress of that port ─▶ … ─▶ out, or REDIRECT again
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import Entry, Finish, FinishTrace, Hook, InterfaceControl
from bpfnic.hdl.packets.records import (
    SCHED_CLS,
    SOCKET_FILTER,
    XDP,
    Completion,
    Kind,
    QueueRead,
    Resume,
    ThreadRead,
    ThreadStrobe,
)
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import MAX_HOPS, TC_DROPS, TcAction, XdpAction
from bpfnic.spec.registers import CHAIN_WORDS

_OTHER = 15  # a verdict above those with a name, of either type


class Complete(Component):
    """Members
    -------
    finish : from the core; always ready.
    thread : to the thread table. queue : to the queue that its program has chosen.
    direct : from Dispatch; waits for `finish`.
    control : of each interface. following, followed : a word of CHAIN, in the same clock.
    ends : 1 clock after `finish`. In that clock, one of:
    done_valid, done : a packet is done.
    resume : its thread goes on with it, for a program stands where it comes to.
    freed : its thread may start again, in the clock of `done`.
    trace : in the clock of the transfer of `finish`.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "finish": In(stream.Signature(Finish(config))),
                "thread": Out(ThreadRead(config)),
                "queue": Out(QueueRead(config)),
                "direct": In(stream.Signature(Completion(config))),
                "done_valid": Out(1),
                "done": Out(Completion(config)),
                "control": In(InterfaceControl(config)).array(config.interfaces),
                "following": Out(range(CHAIN_WORDS)),
                "followed": In(Entry(config)),
                "ends": Out(1),
                "resume": Out(Resume(config)),
                "freed": Out(ThreadStrobe(config)),
                "trace": Out(FinishTrace(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        finish = self.finish.payload
        m.d.comb += [
            self.finish.ready.eq(1),
            self.trace.valid.eq(self.finish.valid),
            self.trace.thread.eq(finish.thread),
            self.trace.verdict.eq(finish.verdict),
            self.trace.cause.eq(finish.cause),
        ]
        ran, thread, unspecified = self.ends, self.resume.thread, Signal()
        verdict, cause = Signal(4), Signal(4)  # verdict: OTHER stands for everything above those with a name
        kept = Signal.like(self.done.outcome.length)  # of a socket filter: the bytes it says, or all
        m.d.sync += [
            ran.eq(self.finish.valid),
            thread.eq(finish.thread),
            verdict.eq(Mux(finish.verdict >= _OTHER, _OTHER, finish.verdict)),
            unspecified.eq(finish.verdict == TcAction.UNSPEC),
            cause.eq(finish.cause),
            kept.eq(Mux(finish.verdict[len(kept) :].any(), ~0, finish.verdict)),
        ]

        row, host = self.thread.row, self.config.ports
        length = Signal.like(kept)
        m.d.comb += [self.thread.thread.eq(thread), self.queue.thread.eq(thread), length.eq(row.data_end - row.data)]
        onward, entry, of_tc = self.resume.row, Signal(Entry(self.config)), row.program_type == SCHED_CLS
        device = Signal.like(row.device)  # where it goes on, if it does
        ingress, egress, socket = (Signal(Entry(self.config), name=name) for name in ("ingress", "egress", "socket"))
        with m.Switch(device):
            for number, control in enumerate(self.control):
                with m.Case(number):
                    m.d.comb += [ingress.eq(control.ingress), egress.eq(control.egress), socket.eq(control.socket)]
        queue = Signal.like(row.queue)  # of the host, if it goes there
        m.d.comb += [
            queue.eq(Mux(row.program_type == XDP, self.queue.queue, row.queue)),
            self.following.eq(row.following),
            device.eq(row.device),
            onward.eq(row),
            onward.device.eq(device),
            onward.queue.eq(queue),
            onward.program_type.eq(entry.program_type),
            onward.following.eq(entry.following),
            onward.redirected.eq(0),
            self.resume.slot.eq(entry.slot),
            self.resume.valid.eq(ran & entry.valid),
            self.resume.keeps.eq(of_tc),
            self.freed.enable.eq(ran & ~entry.valid),
            self.freed.thread.eq(thread),
        ]
        passes, redirects, arrives = Signal(), Signal(), Signal()  # arrives: at the port's tcx/ingress
        with m.If(ran):
            outcome = self.done.outcome
            m.d.comb += [
                self.done_valid.eq(~entry.valid),
                self.done.buffer.eq(row.buffer),
                outcome.ran.eq(1),
                outcome.iif.eq(onward.iif),
                outcome.data.eq(row.data),
                outcome.length.eq(length),
                outcome.kind.eq(Kind.ABORTED),
                outcome.cause.eq(cause),
            ]
            with m.If((cause == Cause.NONE) & (row.program_type == SOCKET_FILTER)):
                with m.If(kept == 0):
                    m.d.comb += outcome.kind.eq(Kind.DROPPED)
                with m.Else():
                    m.d.comb += [outcome.kind.eq(Kind.PASSED), outcome.egress.eq(host), outcome.queue.eq(queue)]
                with m.If(kept < length):
                    m.d.comb += outcome.length.eq(kept)
            with m.Elif((cause == Cause.NONE) & of_tc):
                with m.Switch(verdict):
                    with m.Case(*TC_DROPS):
                        m.d.comb += outcome.kind.eq(Kind.DROPPED)
                    with m.Case(TcAction.REDIRECT):
                        m.d.comb += redirects.eq(1)
                    with m.Default():
                        m.d.comb += passes.eq(1)
            with m.Elif(cause == Cause.NONE):
                with m.Switch(verdict):
                    with m.Case(XdpAction.XDP_ABORTED):
                        m.d.comb += outcome.cause.eq(Cause.PROGRAM)
                    with m.Case(XdpAction.XDP_DROP):
                        m.d.comb += outcome.kind.eq(Kind.DROPPED)
                    with m.Case(XdpAction.XDP_PASS):
                        m.d.comb += passes.eq(1)
                    with m.Case(XdpAction.XDP_TX):
                        m.d.comb += [outcome.kind.eq(Kind.TRANSMITTED), outcome.egress.eq(row.device)]
                    with m.Case(XdpAction.XDP_REDIRECT):
                        m.d.comb += redirects.eq(1)
                    with m.Default():
                        m.d.comb += outcome.cause.eq(Cause.VERDICT)
            with m.If(passes):
                m.d.comb += [outcome.kind.eq(Kind.PASSED), outcome.egress.eq(host), outcome.queue.eq(queue)]
                with m.If(row.hook == Hook.TCX_EGRESS):
                    sent = Mux(row.hops.any(), Kind.REDIRECTED, Kind.TRANSMITTED)
                    m.d.comb += [outcome.kind.eq(sent), outcome.egress.eq(row.device), outcome.queue.eq(0)]
                with m.If(of_tc & unspecified & row.following.any()):
                    m.d.comb += entry.eq(self.followed)
                with m.Elif(~of_tc & (row.hook == Hook.XDP) & (row.device != host)):
                    m.d.comb += arrives.eq(1)
                with m.Elif(row.hook == Hook.TCX_INGRESS):
                    m.d.comb += [entry.eq(socket), onward.hook.eq(Hook.SOCKET)]
            with m.If(redirects):
                m.d.comb += [outcome.kind.eq(Kind.ABORTED), outcome.cause.eq(Cause.REDIRECT)]
                with m.If(row.redirected & ~(of_tc & (row.hops == MAX_HOPS))):
                    m.d.comb += [
                        outcome.kind.eq(Kind.REDIRECTED),
                        outcome.cause.eq(Cause.NONE),
                        outcome.egress.eq(row.target),
                        outcome.queue.eq(Mux(of_tc, 0, row.queue)),
                    ]
                    with m.If(of_tc):
                        m.d.comb += [
                            device.eq(row.target),
                            onward.hook.eq(Hook.TCX_EGRESS),
                            onward.hops.eq(row.hops + 1),
                            entry.eq(egress),
                            arrives.eq(row.inward),
                        ]
                        with m.If(row.inward):
                            m.d.comb += [onward.iif.eq(row.target), onward.queue.eq(0)]
                            m.d.comb += [outcome.kind.eq(Kind.PASSED), outcome.egress.eq(host)]
            with m.If(arrives):
                m.d.comb += [
                    entry.eq(Mux(ingress.valid, ingress.as_value(), socket.as_value())),
                    onward.hook.eq(Mux(ingress.valid, Hook.TCX_INGRESS, Hook.SOCKET)),
                ]
        with m.Else():
            m.d.comb += [
                self.done_valid.eq(self.direct.valid),
                self.done.eq(self.direct.payload),
                self.direct.ready.eq(1),
            ]
        return m
