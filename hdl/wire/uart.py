"""A UART, 8N1, and messages over it as SLIP frames (RFC 1055)."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.wire.link import Link
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import SLIP_END, SLIP_ESC, SLIP_ESC_END, SLIP_ESC_ESC

_BITS = 8


def _check(clocks_per_bit: int) -> None:
    if clocks_per_bit < 4:
        raise BpfnicError(f"clocks_per_bit must be at least 4, not {clocks_per_bit!r}")


class UartReceiver(Component):
    """Bytes from a line that is high when idle.

    Parameters
    ----------
    clocks_per_bit : 4 or more. Each bit is sampled in its middle.

    Members
    -------
    line : of any clock.
    byte, data : strobe of one clock, and the byte, in the middle of its stop bit.
    broken : strobe: there was no stop bit. The byte is lost.
    """

    def __init__(self, clocks_per_bit: int):
        _check(clocks_per_bit)
        self.clocks_per_bit = clocks_per_bit
        super().__init__({"line": In(1, init=1), "byte": Out(1), "data": Out(8), "broken": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        line = Signal(init=1)
        m.submodules += FFSynchronizer(self.line, line, init=1)
        timer, bits = Signal(range(self.clocks_per_bit)), Signal(range(_BITS + 2))
        sampled = timer == 0
        m.d.sync += timer.eq(Mux(sampled, self.clocks_per_bit - 1, timer - 1))
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [timer.eq(self.clocks_per_bit // 2 - 1), bits.eq(0)]
                with m.If(~line):
                    m.next = "BITS"
            with m.State("BITS"):  # start bit, data from the lowest bit on, stop bit
                with m.If(sampled):
                    m.d.sync += bits.eq(bits + 1)
                    with m.If(bits == 0):
                        with m.If(line):  # a glitch
                            m.next = "IDLE"
                    with m.Elif(bits <= _BITS):
                        m.d.sync += self.data.eq(Cat(self.data[1:], line))
                    with m.Elif(line):
                        m.d.comb += self.byte.eq(1)
                        m.next = "IDLE"
                    with m.Else():
                        m.d.comb += self.broken.eq(1)
                        m.next = "BREAK"
            with m.State("BREAK"):
                with m.If(line):
                    m.next = "IDLE"
        return m


class UartTransmitter(Component):
    """Bytes to a line, which is high when idle.

    Members
    -------
    bytes : a stream; each byte takes 10 bits' time.
    line : a register.
    """

    def __init__(self, clocks_per_bit: int):
        _check(clocks_per_bit)
        self.clocks_per_bit = clocks_per_bit
        super().__init__({"bytes": In(stream.Signature(8)), "line": Out(1, init=1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        timer, shift = Signal(range(self.clocks_per_bit)), Signal(_BITS + 1)  # stop bit last: none left, none sent
        m.d.comb += self.bytes.ready.eq((shift == 0) & (timer == 0))
        with m.If(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Elif(shift != 0):
            m.d.sync += [Cat(self.line, shift).eq(shift), timer.eq(self.clocks_per_bit - 1)]
        with m.Elif(self.bytes.valid):
            m.d.sync += [self.line.eq(0), shift.eq(Cat(self.bytes.payload, Const(1, 1))),
                         timer.eq(self.clocks_per_bit - 1)]  # fmt: skip
        return m


class UartLink(Component):
    """Messages over a UART.

    Parameters
    ----------
    clocks_per_bit : as of UartReceiver.

    Members
    -------
    link : link.Link. A message that a broken byte or a wrong escape is in never ends.
    rx, tx : the lines.
    """

    def __init__(self, clocks_per_bit: int):
        self.clocks_per_bit = clocks_per_bit
        super().__init__({"link": Out(Link), "rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.receiver = receiver = UartReceiver(self.clocks_per_bit)
        m.submodules.transmitter = transmitter = UartTransmitter(self.clocks_per_bit)
        m.d.comb += [receiver.line.eq(self.rx), self.tx.eq(transmitter.line)]
        self._receive(m, receiver)
        self._send(m, transmitter.bytes)
        return m

    def _receive(self, m: Module, receiver: UartReceiver) -> None:
        link, data = self.link, receiver.data
        escaped, open_ = Signal(), Signal()  # behind an END, and nothing broken since
        begin = Signal()  # an END is a message's end, and the next one's beginning a clock later
        m.d.sync += begin.eq(0)
        m.d.comb += [link.begin.eq(begin), link.data.eq(data)]
        with m.If(receiver.broken):
            m.d.sync += open_.eq(0)
        with m.If(receiver.byte):
            m.d.sync += escaped.eq(0)
            with m.If(data == SLIP_END):
                m.d.comb += link.end.eq(open_)
                m.d.sync += [open_.eq(1), begin.eq(1)]
            with m.Elif(escaped):
                m.d.comb += link.data.eq(Mux(data == SLIP_ESC_END, SLIP_END, SLIP_ESC))
                m.d.comb += link.byte.eq(1)
                with m.If((data != SLIP_ESC_END) & (data != SLIP_ESC_ESC)):
                    m.d.sync += open_.eq(0)
            with m.Elif(data == SLIP_ESC):
                m.d.sync += escaped.eq(1)
            with m.Else():
                m.d.comb += link.byte.eq(1)

    def _send(self, m: Module, line) -> None:
        reply = self.link.reply
        byte = reply.payload.data
        special = (byte == SLIP_END) | (byte == SLIP_ESC)
        m.d.comb += line.valid.eq(reply.valid)
        with m.FSM():
            with m.State("BEGIN"):
                m.d.comb += line.payload.eq(SLIP_END)
                with m.If(line.valid & line.ready):
                    m.next = "BYTE"
            with m.State("BYTE"):
                m.d.comb += line.payload.eq(Mux(special, SLIP_ESC, byte))
                m.d.comb += reply.ready.eq(line.ready & ~special)
                with m.If(line.valid & line.ready):
                    with m.If(special):
                        m.next = "ESCAPED"
                    with m.Elif(reply.payload.last):
                        m.next = "END"
            with m.State("ESCAPED"):
                m.d.comb += line.payload.eq(Mux(byte == SLIP_END, SLIP_ESC_END, SLIP_ESC_ESC))
                m.d.comb += reply.ready.eq(line.ready)
                with m.If(line.valid & line.ready):
                    m.next = "BYTE"
                    with m.If(reply.payload.last):
                        m.next = "END"
            with m.State("END"):
                m.d.comb += [line.valid.eq(1), line.payload.eq(SLIP_END)]
                with m.If(line.ready):
                    m.next = "BEGIN"
