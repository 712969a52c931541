"""Complete: the end of a program's run, turned into what becomes of its packet: it is done, or goes on to the next
program on its way, on the same thread.

    xdp ─PASS─▶ tcx/ingress ─▶ … ─▶ socket ─▶ host     (… : UNSPEC, and there is another program at the hook)
     │ TX, REDIRECT     │ REDIRECT
     ▼                  ▼
    out           tcx/egress of that port ─▶ … ─▶ out, or REDIRECT again

In three clocks: the packet's row is read; it and the verdict say where the packet goes; and the program that stands
there, if one does, says whether it goes on.
"""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import QUEUE_BITS, Entry, Finish, FinishTrace, Hook, InterfaceControl
from bpfnic.hdl.packets.records import (
    SCHED_CLS,
    SOCKET_FILTER,
    XDP,
    Completion,
    Kind,
    Outcome,
    QueueRead,
    Resume,
    Thread,
    ThreadRead,
    ThreadStrobe,
)
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import MAX_HOPS, TC_DROPS, TcAction, XdpAction
from bpfnic.spec.registers import CHAIN_WORDS

_OTHER = 15  # a verdict above those with a name, of either type


class _Onward(Enum, shape=3):
    """Which program a packet comes to, if one stands there."""

    NOBODY = 0
    NEXT = 1  # of its hook
    ARRIVAL = 2  # of its interface: tcx/ingress, or socket where nobody stands there
    SOCKET = 3
    INWARD = 4  # of the interface it is redirected to: as ARRIVAL
    EGRESS = 5  # tcx/egress


class Complete(Component):
    """Members
    -------
    finish : from the core; always ready.
    thread : to the thread table, 1 clock after `finish`. queue : to the queue that its program has chosen, likewise.
    direct : from Dispatch; waits for `finish`.
    control : of each interface. following, followed : a word of CHAIN, in the same clock.
    ends_next, ends : 2 and 3 clocks after `finish`. In that of `ends`, one of:
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
                "ends_next": Out(1),
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

        # First clock: what is known of the packet.
        reads, ended = Signal(), Signal(Finish(self.config))
        m.d.sync += [reads.eq(self.finish.valid), ended.eq(finish)]
        m.d.comb += [self.thread.thread.eq(ended.thread), self.queue.thread.eq(ended.thread)]

        # Second clock: where it goes.
        ran, thread, unspecified = Signal(), Signal(range(self.config.threads)), Signal()
        verdict, cause = Signal(4), Signal(4)  # verdict: OTHER stands for everything above those with a name
        kept = Signal.like(self.done.outcome.length)  # of a socket filter: the bytes it says, or all
        row, chosen, length = Signal(Thread(self.config)), Signal(QUEUE_BITS), Signal.like(kept)
        m.d.sync += [
            ran.eq(reads),
            thread.eq(ended.thread),
            verdict.eq(Mux(ended.verdict[4:].any(), _OTHER, ended.verdict)),
            unspecified.eq(ended.verdict == TcAction.UNSPEC),
            cause.eq(ended.cause),
            kept.eq(Mux(ended.verdict[len(kept) :].any(), ~0, ended.verdict)),
            row.eq(self.thread.row),
            chosen.eq(self.queue.queue),
            length.eq(self.thread.row.data_end - self.thread.row.data),
        ]
        host = self.config.ports
        of_tc, queue = row.program_type == SCHED_CLS, Signal.like(row.queue)  # queue: of the host, if it goes there
        outcome, onward, to = Signal(Outcome(self.config)), Signal(Thread(self.config)), Signal(_Onward)
        m.d.comb += [
            queue.eq(Mux(row.program_type == XDP, chosen, row.queue)),
            self.following.eq(row.following),
            onward.eq(row),
            onward.queue.eq(queue),
            onward.redirected.eq(0),
            outcome.ran.eq(1),
            outcome.iif.eq(onward.iif),
            outcome.data.eq(row.data),
            outcome.length.eq(length),
            outcome.kind.eq(Kind.ABORTED),
            outcome.cause.eq(cause),
        ]
        passes, redirects = Signal(), Signal()
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
                m.d.comb += to.eq(_Onward.NEXT)
            with m.Elif(~of_tc & (row.hook == Hook.XDP) & (row.device != host)):
                m.d.comb += to.eq(_Onward.ARRIVAL)
            with m.Elif(row.hook == Hook.TCX_INGRESS):
                m.d.comb += to.eq(_Onward.SOCKET)
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
                    m.d.comb += [onward.device.eq(row.target), onward.hops.eq(row.hops + 1), to.eq(_Onward.EGRESS)]
                    with m.If(row.inward):
                        m.d.comb += [onward.iif.eq(row.target), onward.queue.eq(0), to.eq(_Onward.INWARD)]
                        m.d.comb += [outcome.kind.eq(Kind.PASSED), outcome.egress.eq(host)]

        # Third clock: whether a program stands there. What may stand there is looked up meanwhile.
        resume, done = self.resume, self.done.outcome
        went, where, left = Signal(Thread(self.config)), Signal(_Onward), Signal(Outcome(self.config))
        m.d.comb += self.ends_next.eq(ran)
        m.d.sync += [
            self.ends.eq(ran),
            resume.thread.eq(thread),
            resume.keeps.eq(of_tc),
            went.eq(onward),
            where.eq(to),
            left.eq(outcome),
        ]
        entry, hook, stands = Signal(Entry(self.config)), Signal(Hook), Signal()
        may_stand = {
            _Onward.NEXT: (self.followed, row.hook),
            _Onward.ARRIVAL: self._arriving(m, row.device, "device"),
            _Onward.SOCKET: (self._at(m, row.device, "device", "socket"), Hook.SOCKET),
            _Onward.INWARD: self._arriving(m, row.target, "target"),
            _Onward.EGRESS: (self._at(m, row.target, "target", "egress"), Hook.TCX_EGRESS),
        }
        found = {each: (Signal(Entry(self.config)), Signal(Hook)) for each in may_stand}
        for each, (its_entry, its_hook) in may_stand.items():
            m.d.sync += [found[each][0].eq(its_entry), found[each][1].eq(its_hook)]
        with m.Switch(to):
            for each, (its_entry, _) in may_stand.items():
                with m.Case(each):
                    m.d.comb += stands.eq(Entry(self.config)(its_entry).valid)
        m.d.sync += resume.valid.eq(ran & stands)
        m.d.comb += hook.eq(went.hook)
        with m.Switch(where):
            for each, (its_entry, its_hook) in found.items():
                with m.Case(each):
                    m.d.comb += [entry.eq(its_entry), hook.eq(its_hook)]
        m.d.comb += [
            resume.row.eq(went),
            resume.row.hook.eq(hook),
            resume.row.program_type.eq(entry.program_type),
            resume.row.following.eq(entry.following),
            resume.slot.eq(entry.slot),
            self.freed.enable.eq(self.ends & ~resume.valid),
            self.freed.thread.eq(resume.thread),
        ]
        with m.If(self.ends):
            m.d.comb += [self.done_valid.eq(~resume.valid), self.done.buffer.eq(went.buffer), done.eq(left)]
        with m.Else():
            m.d.comb += [
                self.done_valid.eq(self.direct.valid),
                self.done.eq(self.direct.payload),
                self.direct.ready.eq(1),
            ]
        return m

    def _at(self, m: Module, interface, name: str, hook: str):
        """The first program at a hook of `interface`, which is a packet's `name`."""
        entry = Signal(Entry(self.config), name=f"{hook}_of_{name}")
        with m.Switch(interface):
            for number, control in enumerate(self.control):
                with m.Case(number):
                    m.d.comb += entry.eq(control[hook])
        return entry

    def _arriving(self, m: Module, interface, name: str) -> tuple:
        """The first program that a packet meets that comes in by `interface`, and its hook."""
        ingress, socket = (self._at(m, interface, f"{name}_arriving", hook) for hook in ("ingress", "socket"))
        return (
            Mux(ingress.valid, ingress.as_value(), socket.as_value()),
            Mux(ingress.valid, Hook.TCX_INGRESS, Hook.SOCKET),
        )
