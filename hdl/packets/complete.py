"""Complete: the end of a program's run, turned into what becomes of its packet."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import Finish, FinishTrace
from bpfnic.hdl.packets.records import Completion, Kind, QueueRead, ThreadRead, ThreadStrobe
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import TC_DROPS, ProgramType, TcAction, XdpAction
from bpfnic.spec.registers import ENTRY_TYPES

_SCHED_CLS, _SOCKET_FILTER = (ENTRY_TYPES.index(each) for each in (ProgramType.SCHED_CLS, ProgramType.SOCKET_FILTER))
_OTHER = 15  # a verdict above those with a name, of either type


class Complete(Component):
    """Members
    -------
    finish : from the core; always ready.
    thread : to the thread table. queue : to the queue that its program has chosen.
    direct : from Dispatch; waits for `finish`.
    done_valid, done : a packet is done; 1 clock after `finish`.
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
        ran, thread = self.freed.enable, self.freed.thread
        verdict, cause = Signal(4), Signal(4)  # verdict: OTHER stands for everything above those with a name
        kept = Signal.like(self.done.outcome.length)  # of a socket filter: the bytes it says, or all
        m.d.sync += [
            ran.eq(self.finish.valid),
            thread.eq(finish.thread),
            verdict.eq(Mux(finish.verdict >= _OTHER, _OTHER, finish.verdict)),
            cause.eq(finish.cause),
            kept.eq(Mux(finish.verdict[len(kept) :].any(), ~0, finish.verdict)),
        ]

        row = self.thread.row
        length = Signal.like(kept)
        m.d.comb += [self.thread.thread.eq(thread), self.queue.thread.eq(thread), length.eq(row.data_end - row.data)]
        with m.If(ran):
            outcome = self.done.outcome
            m.d.comb += [
                self.done_valid.eq(1),
                self.done.buffer.eq(row.buffer),
                outcome.ran.eq(1),
                outcome.data.eq(row.data),
                outcome.length.eq(length),
                outcome.kind.eq(Kind.ABORTED),
                outcome.cause.eq(cause),
            ]
            redirects = Signal()
            with m.If((cause == Cause.NONE) & (row.program_type == _SOCKET_FILTER)):
                with m.If(kept == 0):
                    m.d.comb += outcome.kind.eq(Kind.DROPPED)
                with m.Else():
                    m.d.comb += [outcome.kind.eq(Kind.PASSED), outcome.egress.eq(self.config.ports)]
                with m.If(kept < length):
                    m.d.comb += outcome.length.eq(kept)
            with m.Elif((cause == Cause.NONE) & (row.program_type == _SCHED_CLS)):
                m.d.comb += [outcome.kind.eq(Kind.PASSED), outcome.egress.eq(self.config.ports)]
                with m.Switch(verdict):
                    with m.Case(*TC_DROPS):
                        m.d.comb += outcome.kind.eq(Kind.DROPPED)
                    with m.Case(TcAction.REDIRECT):
                        m.d.comb += redirects.eq(1)
            with m.Elif(cause == Cause.NONE):
                with m.Switch(verdict):
                    with m.Case(XdpAction.XDP_ABORTED):
                        m.d.comb += outcome.cause.eq(Cause.PROGRAM)
                    with m.Case(XdpAction.XDP_DROP):
                        m.d.comb += outcome.kind.eq(Kind.DROPPED)
                    with m.Case(XdpAction.XDP_PASS):
                        m.d.comb += [
                            outcome.kind.eq(Kind.PASSED),
                            outcome.egress.eq(self.config.ports),
                            outcome.queue.eq(self.queue.queue),
                        ]
                    with m.Case(XdpAction.XDP_TX):
                        m.d.comb += [outcome.kind.eq(Kind.TRANSMITTED), outcome.egress.eq(row.ingress)]
                    with m.Case(XdpAction.XDP_REDIRECT):
                        m.d.comb += redirects.eq(1)
                    with m.Default():
                        m.d.comb += outcome.cause.eq(Cause.VERDICT)
            with m.If(redirects):
                m.d.comb += [outcome.kind.eq(Kind.ABORTED), outcome.cause.eq(Cause.REDIRECT)]
                with m.If(row.redirected):
                    m.d.comb += [
                        outcome.kind.eq(Kind.REDIRECTED),
                        outcome.cause.eq(Cause.NONE),
                        outcome.egress.eq(row.target),
                        outcome.queue.eq(row.queue),
                    ]
        with m.Else():
            m.d.comb += [
                self.done_valid.eq(self.direct.valid),
                self.done.eq(self.direct.payload),
                self.direct.ready.eq(1),
            ]
        return m
