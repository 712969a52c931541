"""A core's local memory: its threads' stacks and contexts, and its side of the packet buffers.

A stack needs no clearing between packets. Each of its words has a bit that says whether this packet has written it; a
word without it reads as 0, and the first write to it, of whatever size, writes zeroes around. A new program makes all
of its thread's bits count as 0 at once, through `fresh`, until its first write; those of the skb context, through
`fresh_skb`, unless it is a tc program behind another one of the same packet.

A context is no memory: its few fields are read from the thread table. Of an skb context those fields are, and the
other words lie behind the stack. One word of an XDP context can be written: the queue of the host for the packet.
"""

from functools import reduce
from operator import or_

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import QUEUE_BITS, LocalPort, Region
from bpfnic.hdl.lanes import rotate_up, spread
from bpfnic.hdl.memory import SimpleRam
from bpfnic.hdl.packets.buffers import PairPort
from bpfnic.hdl.packets.records import WORD_BYTES, QueueRead, Thread, ThreadRead, ThreadStrobe
from bpfnic.spec import addresses, programs

STACK_WORDS = addresses.STACK_WINDOW_BYTES // WORD_BYTES
CONTEXT_WORDS = addresses.CONTEXT_BYTES // WORD_BYTES
SKB_WORDS = addresses.SKB_CONTEXT_BYTES // WORD_BYTES


def _later(m: Module, value: Value, clocks: int = 1) -> Value:
    """`value`, so many clocks later."""
    for _ in range(clocks):
        register = Signal(len(value))
        m.d.sync += register.eq(value)
        value = register
    return value


class Windows(Component):
    """Executes a core's local accesses, one a clock.

    Members
    -------
    local : the core's port.
    pair : to the packet buffers.
    thread : to the thread table.
    ifindex : of each interface.
    launch : a program begins on a thread (before the thread's first access). keeps : the skb context stays as it is.
    queue : of a thread, whose program's accesses are over.
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
                "queue": In(QueueRead(config)),
                "keeps": In(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        local = self.local

        # The request: bytes move up to their lanes, in one word or over two neighbours.
        lane, lanes = local.offset[:3], local.lanes
        ones = Signal(8)
        m.d.comb += ones.eq((1 << (1 << local.size)) - 1)
        rotated = rotate_up(m, local.write_data, lane)
        write = local.enable & local.write
        m.d.comb += [
            self.pair.buffer.eq(local.buffer),
            self.pair.word.eq(local.offset[3:]),
            self.pair.even_row.eq(local.even),
            self.pair.write.eq(write & (local.region == Region.PACKET)),
            self.pair.mask.eq(lanes),
            self.pair.data.eq(rotated),
        ]
        in_stack = (local.region == Region.STACK) | (local.region == Region.SKB)
        kept = Mux(local.region == Region.SKB, self._kept(), 0xFF)
        stack_even, stack_odd, known_even, known_odd = self._stack(m, write & in_stack, lanes[:8] & kept, rotated)
        context = self._context(m)

        # One clock later: where each lane of the answer comes from. Lanes below `lane` are the second word's.
        lane, ones, begins_odd = _later(m, lane), _later(m, ones), _later(m, local.offset[3])
        from_odd = Signal(8)
        m.d.comb += from_odd.eq(((1 << lane) - 1) ^ begins_odd.replicate(8))

        # Two clocks later the words are here. They join and move down, and pass a register.
        lane, ones, from_odd = _later(m, lane), _later(m, ones), _later(m, from_odd)
        of_packet, of_stack = (_later(m, value, 2) for value in (local.region == Region.PACKET, in_stack))

        def lanes_of(even: Value, odd: Value) -> tuple[Value, Value]:
            """The lanes that come from the even and from the odd word, each if it counts."""
            return spread(m, ~from_odd & even.replicate(8)), spread(m, from_odd & odd.replicate(8))

        packet_even, packet_odd = lanes_of(of_packet, of_packet)
        even_lanes, odd_lanes = lanes_of(of_stack & known_even, of_stack & known_odd)
        joined = Signal(64)
        m.d.comb += joined.eq(
            (self.pair.even & packet_even)
            | (self.pair.odd & packet_odd)
            | (stack_even & even_lanes)
            | (stack_odd & odd_lanes)
            | context
        )
        m.d.sync += local.read_data.eq(rotate_up(m, joined, (-lane)[:3]) & spread(m, ones))
        return m

    def _stack(self, m: Module, write: Value, lanes: Value, rotated: Value) -> list[Value]:
        """The even and the odd one of the two words, 2 clocks after the request, and whether this packet has written
        them.

        Two banks, of even and odd words: an instruction's access is aligned and takes one of them, but what a helper's
        argument points at may lie across both. What this packet has written is looked up a clock after the request,
        and the banks are written a clock later, before the thread's next access.
        """
        config, local = self.config, self.local
        rotated, lanes, begins_odd, thread_then, write = (
            _later(m, each, 2) for each in (rotated, lanes, local.offset[3], local.thread, write)
        )
        bits = rotated & spread(m, lanes)

        words, knowns = [], []
        for odd, (name, row) in enumerate((("even", local.even), ("odd", local.offset[4:]))):
            row = row[: exact_log2(STACK_WORDS // 2)]
            row_then = _later(m, row, 2)
            bank = SimpleRam(width=64, depth=config.threads * STACK_WORDS // 2, lane=8, target=config.target)
            m.submodules[f"stack_{name}"] = bank
            writes = write & (begins_odd == odd)
            known = self._known(m, name, row, row_then, thread_then, writes)
            m.d.comb += [
                bank.read.address.eq(Cat(row, local.thread)),
                bank.write.address.eq(Cat(row_then, thread_then)),
                bank.write.data.eq(bits),
                bank.write.enable.eq(writes),
                bank.write.lanes.eq(Mux(known, lanes, 0xFF)),
            ]
            words.append(bank.read.data)
            knowns.append(known)
        return words + knowns

    def _known(
        self, m: Module, name: str, row: Value, row_then: Value, thread_then: Value, writes: Value
    ) -> Value:
        """Whether this packet has written the row of a bank that two clocks ago was `row`, of the thread that was
        local.thread; in this clock `writes` writes it. A thread's bits lie together; each half of them is written as a
        whole, and the skb context's rows are the first of the upper one. In the clock of the request, whose row comes
        late, they are read, and a clock later found what they say of the row."""
        threads, thread = self.config.threads, self.local.thread
        skb_rows, half_rows = SKB_WORDS // 2, STACK_WORDS // 4
        m.submodules[f"written_{name}"] = written = memory.Memory(shape=2 * half_rows, depth=threads, init=[])
        look, record = written.read_port(domain="comb"), written.write_port(granularity=half_rows)
        m.d.comb += look.addr.eq(thread)
        bits, stale, stale_skb, row = (
            _later(m, each) for each in
            (look.data, *self._fresh(m, name, thread_then, row_then[-1], writes), row)
        )  # fmt: skip
        stale_upper = stale_skb.replicate(skb_rows), stale[1].replicate(half_rows - skb_rows)
        count = bits & ~Cat(stale[0].replicate(half_rows), *stale_upper)
        known = count.bit_select(row, 1)
        then, upper_then = _later(m, count.word_select(row[-1], half_rows)), row_then[-1]
        m.d.comb += [
            record.addr.eq(thread_then),
            record.data.eq((then | (1 << row_then[:-1])).replicate(2)),
            record.en.eq(Mux(writes, Cat(~upper_then, upper_then), 0)),
        ]
        return _later(m, known)

    def _fresh(self, m: Module, name: str, thread_then: Value, upper_then: Value, writes: Value) -> tuple[Value, Value]:
        """Of local.thread, for each half of its rows whether nothing has been written there since its program began,
        and whether nothing of the skb context; two clocks later it `writes`, as _known.

        Each is where two bits differ, one that the launch sets so and one that the first write makes equal, in
        distributed memory (see core/threads.py)."""
        bits = data.StructLayout({"halves": 2, "skb": 1})
        memories = [memory.Memory(shape=bits.size, depth=self.config.threads, init=[]) for _ in range(2)]
        m.submodules[f"launched_{name}"], m.submodules[f"reached_{name}"] = launched, reached = memories
        launch, reach = (each.write_port(granularity=1) for each in memories)
        now, reached_now, then, before = (
            each.read_port(domain="comb") for each in (launched, reached, launched, reached)
        )
        m.d.comb += [
            now.addr.eq(self.local.thread),
            reached_now.addr.eq(self.local.thread),
            before.addr.eq(self.launch.thread),
            launch.addr.eq(self.launch.thread),
            launch.data.eq(~before.data),
            launch.en.eq(Mux(self.launch.enable, Cat(Const(0b11, 2), ~self.keeps), 0)),
            then.addr.eq(thread_then),
            reach.addr.eq(thread_then),
            reach.data.eq(then.data),
            reach.en.eq(Mux(writes, Cat(~upper_then, upper_then, upper_then), 0)),
        ]
        fresh = data.View(bits, now.data ^ reached_now.data)
        return fresh.halves, fresh.skb

    def _kept(self) -> Value:
        """The bytes of a word of the skb context that keep what is written: of some fields the lower half."""
        lost = [0] * WORD_BYTES  # by lane, a bit for each word
        for half in programs.SK_BUFF_HALVES:
            word, lane = divmod(half * programs.WORD_BYTES, WORD_BYTES)
            for byte in (2, 3):
                lost[lane + byte] |= 1 << word
        word = self.local.offset[3:][: exact_log2(SKB_WORDS)]
        return ~Cat(Const(words, SKB_WORDS).bit_select(word, 1) for words in lost)

    def _queue(self, m: Module) -> Value:
        """What rx_queue_index reads as, a clock after the request: 0 until this packet's program writes a queue's
        number there."""
        local, chosen = self.local, Signal(self.config.threads)
        thread_then = _later(m, local.thread)
        m.submodules.queues = queues = memory.Memory(shape=QUEUE_BITS, depth=self.config.threads, init=[])
        write = queues.write_port()
        m.d.comb += [
            write.addr.eq(local.thread),
            write.data.eq(local.write_data),
            write.en.eq(local.enable & local.write & (local.region == Region.CONTEXT)
                        & ~local.write_data[QUEUE_BITS:32].any()),
        ]  # fmt: skip
        with m.If(write.en):
            m.d.sync += chosen.bit_select(local.thread, 1).eq(1)
        with m.If(self.launch.enable):
            m.d.sync += chosen.bit_select(self.launch.thread, 1).eq(0)

        def of(thread: Value) -> Value:
            read = queues.read_port(domain="comb")
            m.d.comb += read.addr.eq(thread)
            return read.data & chosen.bit_select(thread, 1).replicate(QUEUE_BITS)

        m.d.comb += self.queue.queue.eq(of(self.queue.thread))
        return of(thread_then)

    def _context(self, m: Module) -> Value:
        """The answer of an XDP context, or of the live fields of an skb context, whose other words are the stack's
        answer; 2 clocks after the request, 0 unless it is a context's. In the first clock the thread's row is read, and
        found which lanes of which words are asked for; in the second one they are put together."""
        local, row = self.local, Signal(Thread(self.config))
        m.d.comb += self.thread.thread.eq(local.thread)
        m.d.sync += row.eq(self.thread.row)
        queue = self._queue(m)
        ifindex, came_in = Signal(32), Signal(32)
        for interface, found in ((row.device, ifindex), (row.iif, came_in)):
            with m.Switch(interface):
                for number, value in enumerate(self.ifindex):
                    with m.Case(number):
                        m.d.comb += found.eq(value)
        # An offset in the buffer and the window's base have no bit in common.
        values = {
            "data": row.data | addresses.PACKET,
            "data_end": row.data_end | addresses.PACKET,
            "data_meta": row.data_meta | addresses.PACKET,
            "ingress_ifindex": ifindex,
            "rx_queue_index": queue,
            "egress_ifindex": 0,
        }
        of_skb = values | {"len": row.data_end - row.data, "ifindex": ifindex, "ingress_ifindex": came_in}
        contexts = (
            (Region.CONTEXT, programs.XDP_MD, values),
            (Region.SKB, [field for field in programs.SK_BUFF if field.live], of_skb),
        )
        # Two words, as from the stack: lanes below the access's first one are the second word's.
        below, asked = Signal(8), local.offset[3:][: exact_log2(SKB_WORDS)]
        m.d.comb += below.eq((1 << local.offset[:3]) - 1)
        found = []
        for region, fields, values in contexts:
            contents: dict[int, Signal] = {}  # by word
            for field in fields:
                number, lane = divmod(field.offset, WORD_BYTES)
                word = contents.setdefault(number, Signal(64, name=f"{region.name.lower()}_{number}"))
                m.d.comb += word[8 * lane :][:32].eq(values[field.name])
            here = local.region == region
            for number, word in contents.items():
                lanes = Signal(8, name=f"lanes_of_{word.name}", reset_less=True)
                of_first, of_second = here & (asked == number), here & (asked == (number - 1) % SKB_WORDS)
                m.d.sync += lanes.eq(Mux(of_first, ~below, Mux(of_second, below, 0)))
                found.append(word & spread(m, lanes))
        return _later(m, reduce(or_, found))
