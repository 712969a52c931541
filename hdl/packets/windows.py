"""A core's local memory: its threads' stacks and contexts, and its side of the packet buffers.

A stack needs no clearing between packets. Each of its words has a bit that says whether this packet has written it; a
word without it reads as 0, and the first write to it, of whatever size, writes zeroes around. A new packet makes all of
its thread's bits count as 0 at once, through `fresh`, until its first write.

A context is no memory: its few fields are read from the thread table.
"""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import LocalPort, Region
from bpfnic.hdl.memory import SimpleRam
from bpfnic.hdl.packets.buffers import PairPort
from bpfnic.hdl.packets.lanes import rotate_up, spread
from bpfnic.hdl.packets.records import WORD_BYTES, ThreadRead, ThreadStrobe
from bpfnic.spec import addresses, programs

STACK_WORDS = addresses.STACK_BYTES // WORD_BYTES
CONTEXT_WORDS = addresses.CONTEXT_BYTES // WORD_BYTES


def _two_later(m: Module, value: Value) -> Signal:
    """`value`, 2 clocks later: as late as a word of block RAM that was asked for with it."""
    first, second = Signal(len(value)), Signal(len(value))
    m.d.sync += [first.eq(value), second.eq(first)]
    return second


class Windows(Component):
    """Executes a core's local accesses, one a clock.

    Members
    -------
    local : the core's port.
    pair : to the packet buffers.
    thread : to the thread table.
    ifindex : of each interface.
    launch : a packet begins on a thread (before the thread's first access).
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "local": In(LocalPort(config)),
                "pair": Out(PairPort(config)),
                "thread": Out(ThreadRead(config)),
                "ifindex": In(32).array(config.interfaces),
                "launch": In(ThreadStrobe(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        local = self.local

        # The request: bytes move up to their lanes, in one word or over two neighbours.
        lane = local.offset[:3]
        ones, lanes = Signal(8), Signal(16)
        m.d.comb += [ones.eq((1 << (1 << local.size)) - 1), lanes.eq(ones << lane)]
        rotated = rotate_up(m, local.write_data, lane)
        write = local.enable & local.write
        m.d.comb += [
            self.pair.buffer.eq(local.buffer),
            self.pair.word.eq(local.offset[3:]),
            self.pair.mask.eq(Mux(write & (local.region == Region.PACKET), lanes, 0)),
            self.pair.data.eq(rotated),
        ]
        stack = self._stack(m, write & (local.region == Region.STACK), lanes[:8], rotated)
        context = self._context(m)

        # The answer, 2 clocks later: lanes from `lane` on are the first word's, those below it the second word's. Then
        # all move down, and pass a register.
        lane, ones = _two_later(m, lane), _two_later(m, ones)
        of_packet = _two_later(m, local.region == Region.PACKET)
        below = Signal(8)
        m.d.comb += below.eq((1 << lane) - 1)
        joined = Signal(64)
        with m.If(of_packet):
            m.d.comb += joined.eq((self.pair.first & ~spread(below)) | (self.pair.second & spread(below)))
        with m.Else():
            m.d.comb += joined.eq(stack | context)
        down = rotate_up(m, joined, (-lane)[:3])
        m.d.sync += local.read_data.eq(down & spread(ones))
        return m

    def _stack(self, m: Module, write: Value, lanes: Value, rotated: Value) -> Value:
        """The stack's answer, 2 clocks after the request; 0 unless it is the stack's."""
        config, local = self.config, self.local
        m.submodules.stack = stack = SimpleRam(
            width=64, depth=config.threads * STACK_WORDS, lane=8, target=config.target
        )
        m.submodules.written = written = memory.Memory(shape=STACK_WORDS, depth=config.threads, init=[])
        fresh = Signal(config.threads, init=-1)
        look, record = written.read_port(domain="comb"), written.write_port()
        word = local.offset[3:9]
        bits, known = Signal(STACK_WORDS), Signal()
        m.d.comb += [
            look.addr.eq(local.thread),
            bits.eq(Mux(fresh.bit_select(local.thread, 1), 0, look.data)),
            known.eq(bits.bit_select(word, 1)),
            record.addr.eq(local.thread),
            record.data.eq(bits | (1 << word)),
            record.en.eq(write),
            stack.read.address.eq(Cat(word, local.thread)),
            stack.write.address.eq(Cat(word, local.thread)),
            stack.write.data.eq(rotated & spread(lanes)),
            stack.write.enable.eq(Mux(write, Mux(known, lanes, 0xFF), 0)),
        ]
        with m.If(write):
            m.d.sync += fresh.bit_select(local.thread, 1).eq(0)
        with m.If(self.launch.enable):
            m.d.sync += fresh.bit_select(self.launch.thread, 1).eq(1)
        shown = _two_later(m, known & (local.region == Region.STACK))
        return Mux(shown, stack.read.data, 0)

    def _context(self, m: Module) -> Value:
        """The context's answer, 2 clocks after the request; 0 unless it is the context's."""
        local, row = self.local, self.thread.row
        m.d.comb += self.thread.thread.eq(local.thread)
        ifindex = Signal(32)
        with m.Switch(row.ingress):
            for number, value in enumerate(self.ifindex):
                with m.Case(number):
                    m.d.comb += ifindex.eq(value)
        # An offset in the buffer and the window's base have no bit in common.
        values = {
            "data": row.data | addresses.PACKET,
            "data_end": row.data_end | addresses.PACKET,
            "data_meta": row.data | addresses.PACKET,
            "ingress_ifindex": ifindex,
            "rx_queue_index": 0,
            "egress_ifindex": 0,
        }
        context = Signal(8 * addresses.CONTEXT_BYTES)
        for field in programs.XDP_MD:
            m.d.comb += context[8 * field.offset :][: 8 * field.size].eq(values[field.name])
        asked = Signal(64)
        with m.If(local.region == Region.CONTEXT):
            m.d.comb += asked.eq(context.word_select(local.offset[3:6], 64))
        return _two_later(m, asked)
