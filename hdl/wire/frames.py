"""Frames between the wire and the NIC's interfaces: one in, one out, and who is connected to an interface."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.interfaces import EGRESS_USER, INGRESS_USER, Beat
from bpfnic.hdl.memory import READ_LATENCY, SimpleRam
from bpfnic.spec.card import FRAME_BYTES

_WORDS = FRAME_BYTES // 4
_BEAT_BYTES = 8


class Injector(Component):
    """A frame from the wire.

    Members
    -------
    write, data : the next 4 bytes of the frame, not while busy.
    start, length, user : send it: 1 to 65,535 bytes (what lies behind FRAME_BYTES begins anew: the NIC refuses such a
        frame whole), all beats with these user bits.
    busy : from the clock behind start until the last beat was taken.
    frame : 8 clocks a beat.
    """

    def __init__(self, target: str = "generic"):
        self.target = target
        super().__init__(
            {
                "write": In(1),
                "data": In(32),
                "start": In(1),
                "length": In(16),
                "user": In(INGRESS_USER),
                "busy": Out(1),
                "frame": Out(stream.Signature(Beat(INGRESS_USER))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.ram = ram = SimpleRam(width=32, depth=_WORDS, target=self.target)
        pointer, timer = Signal(range(_WORDS)), Signal(range(READ_LATENCY + 1), reset_less=True)
        left, high, beat = Signal(16, reset_less=True), Signal(reset_less=True), self.frame.payload
        m.d.comb += [
            ram.write.enable.eq(self.write),
            ram.write.address.eq(pointer),
            ram.write.data.eq(self.data),
            ram.read.address.eq(pointer),
            beat.last.eq(left <= _BEAT_BYTES),
            beat.keep.eq(Mux(beat.last, ~(0xFF << left[:4]), 0xFF)),
        ]
        with m.If(self.write):
            m.d.sync += pointer.eq(pointer + 1)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [pointer.eq(0), timer.eq(0), high.eq(0), left.eq(self.length), beat.user.eq(self.user)]
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += timer.eq(timer + 1)
                with m.If(timer == READ_LATENCY):
                    m.d.sync += [timer.eq(0), pointer.eq(pointer + 1), high.eq(~high)]
                    m.d.sync += beat.data.eq(Cat(beat.data[32:], ram.read.data))
                    with m.If(high):
                        m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += [self.busy.eq(1), self.frame.valid.eq(1)]
                with m.If(self.frame.ready):
                    m.d.sync += left.eq(left - _BEAT_BYTES)
                    m.next = "READ"
                    with m.If(beat.last):
                        m.d.sync += pointer.eq(0)
                        m.next = "IDLE"
        return m


class Capture(Component):
    """A frame to the wire, in pieces of FRAME_BYTES where it is longer.

    Parameters
    ----------
    count : of streams that frames come from.

    Members
    -------
    frames : they wait until the wire has taken the one before. 2 clocks a beat.
    full : a piece is there: `length` bytes from stream `number`, with `user`; `more`: the frame goes on.
    data, advance : its next 4 bytes, 3 clocks behind `full` or `advance`.
    release : it has been read; in a clock of `full`.
    """

    def __init__(self, count: int, target: str = "generic"):
        self.target = target
        super().__init__(
            {
                "frames": In(stream.Signature(Beat(EGRESS_USER))).array(count),
                "full": Out(1),
                "length": Out(range(FRAME_BYTES + 1)),
                "number": Out(range(max(2, count))),
                "user": Out(EGRESS_USER),
                "more": Out(1),
                "data": Out(32),
                "advance": In(1),
                "release": In(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.ram = ram = SimpleRam(width=32, depth=_WORDS, target=self.target)
        pointer, high = Signal(range(_WORDS)), Signal()
        beat, valid, ready = Signal(Beat(EGRESS_USER)), Signal(), Signal()
        with m.Switch(self.number):
            for number, frame in enumerate(self.frames):
                with m.Case(number):
                    m.d.comb += [beat.eq(frame.payload), valid.eq(frame.valid), frame.ready.eq(ready)]
        size = sum(beat.keep[1:], beat.keep[0])
        m.d.comb += [
            ram.write.address.eq(pointer),
            ram.write.data.eq(beat.data.word_select(high, 32)),
            ram.read.address.eq(pointer),
            self.data.eq(ram.read.data),
        ]
        with m.FSM():
            with m.State("CHOOSE"):  # the next one that has a frame
                with m.If(valid):
                    m.next = "TAKE"
                with m.Else():
                    m.d.sync += self.number.eq(Mux(self.number == len(self.frames) - 1, 0, self.number + 1))
            with m.State("TAKE"):
                m.d.comb += ready.eq(high)
                with m.If(valid):
                    m.d.comb += ram.write.enable.eq(1)
                    m.d.sync += [pointer.eq(pointer + 1), high.eq(~high)]
                    with m.If(high):
                        m.d.sync += [self.length.eq(self.length + size), self.more.eq(~beat.last)]
                        m.d.sync += self.user.eq(beat.user)
                        with m.If(beat.last | (pointer == _WORDS - 1)):
                            m.d.sync += pointer.eq(0)
                            m.next = "FULL"
            with m.State("FULL"):
                m.d.comb += self.full.eq(1)
                with m.If(self.advance):
                    m.d.sync += pointer.eq(pointer + 1)
                with m.If(self.release):
                    m.d.sync += [pointer.eq(0), self.length.eq(0)]
                    m.next = "CHOOSE"
                    with m.If(self.more):
                        m.next = "TAKE"
                    with m.Else():
                        m.d.sync += self.number.eq(Mux(self.number == len(self.frames) - 1, 0, self.number + 1))
        return m


class Switch(Component):
    """Who a port's frames come from and go to: its MAC, or the wire. Frames that the MAC brings meanwhile are lost.

    Members
    -------
    wired : to the wire, as behind a reset. Takes effect between two frames, on each way for itself, and not while one
        is offered that nobody has begun to take.
    changes : it has not taken effect on both ways yet.
    mac_rx, mac_tx : the MAC.
    injected, captured : the wire.
    ingress, egress : the NIC.
    """

    def __init__(self):
        arriving, leaving = stream.Signature(Beat(INGRESS_USER)), stream.Signature(Beat(EGRESS_USER))
        super().__init__(
            {
                "wired": In(1),
                "changes": Out(1),
                "mac_rx": In(arriving),
                "injected": In(arriving),
                "ingress": Out(arriving),
                "egress": In(leaving),
                "mac_tx": Out(leaving),
                "captured": Out(leaving),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        within_mac, within_injected, within_egress = (_within(m, each) for each in (
            self.mac_rx, self.injected, self.egress))  # fmt: skip
        from_wire, to_wire = Signal(init=1), Signal(init=1)
        m.d.comb += self.changes.eq((from_wire != self.wired) | (to_wire != self.wired))
        arriving, leaving = self.ingress, self.egress
        with m.If(~within_mac & ~within_injected & (~arriving.valid | arriving.ready)):
            m.d.sync += from_wire.eq(self.wired)
        with m.If(~within_egress & (~leaving.valid | leaving.ready)):
            m.d.sync += to_wire.eq(self.wired)
        with m.If(from_wire):
            m.d.comb += [arriving.payload.eq(self.injected.payload), arriving.valid.eq(self.injected.valid)]
            m.d.comb += [self.injected.ready.eq(arriving.ready), self.mac_rx.ready.eq(1)]
        with m.Else():
            m.d.comb += [arriving.payload.eq(self.mac_rx.payload), arriving.valid.eq(self.mac_rx.valid)]
            m.d.comb += self.mac_rx.ready.eq(arriving.ready)
        m.d.comb += [self.mac_tx.payload.eq(leaving.payload), self.captured.payload.eq(leaving.payload)]
        with m.If(to_wire):
            m.d.comb += [self.captured.valid.eq(leaving.valid), leaving.ready.eq(self.captured.ready)]
        with m.Else():
            m.d.comb += [self.mac_tx.valid.eq(leaving.valid), leaving.ready.eq(self.mac_tx.ready)]
        return m


def _within(m: Module, frames) -> Signal:
    """Whether, behind this clock, a frame has begun and not ended."""
    before, behind = Signal(), Signal()
    m.d.comb += behind.eq(Mux(frames.valid & frames.ready, ~frames.payload.last, before))
    m.d.sync += before.eq(behind)
    return behind
