"""RINGBUF and PERF_EVENT_ARRAY: places for records, and which are whole (kernel/bpf/ringbuf.c, bpf_xdp_event_output in
net/core/filter.c). Rings lie in map memory as spec/rings.py says; hdl/maps/events.py sends records to the host."""

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import EngineWord, MapCall, MapDescriptor, TurnPort
from bpfnic.spec.addresses import MAP_VALUES
from bpfnic.spec.maps import Errno
from bpfnic.spec.rings import (
    BUSY,
    CURRENT_CPU,
    DISCARDED,
    HEADER_BYTES,
    LONGEST_COPY,
    PACKET_BYTES_BITS,
    PACKET_BYTES_SHIFT,
    STATE_BYTES,
    RingFlag,
    RingQuery,
    RingState,
)

RESERVING = (MapCall.RESERVE, MapCall.OUTPUT, MapCall.EVENT)
COMMITTING = (MapCall.SUBMIT, MapCall.DISCARD, MapCall.INSERT)

RUN_BITS = 16
"""Bits of the number of a CPU's run: how many programs it has ended."""


def Header(config: NicConfig) -> data.StructLayout:
    """A record's header (spec.rings)."""
    return data.StructLayout({"length": 30, "discarded": 1, "busy": 1, "map": 8, "cpu": 8, "run": RUN_BITS})


def RingCall(config: NicConfig) -> data.StructLayout:
    """Calls -> unit: a call whose words have come. index: of the map (not of SUBMIT and DISCARD)."""
    return data.StructLayout(
        {"call": MapCall, "cpu": range(config.cores * config.threads), "index": range(config.maps)}
    )


def RingUnitPorts(config: NicConfig) -> dict:
    """Members of RingUnit."""
    cpu = range(config.cores * config.threads)
    return {
        "word_write": In(1),
        "word_cpu": In(cpu),
        "word": In(EngineWord(config)),
        "start": In(1),
        "call": In(RingCall(config)),
        "descriptor": In(MapDescriptor(config)),
        "busy": Out(1),
        "run_cpu": Out(cpu),
        "run": In(RUN_BITS),
        "decides": Out(1),
        "done": Out(1),
        "taken": In(1),
        "trap": Out(1),
        "copy": Out(1),
        "size": Out(range(LONGEST_COPY + 1)),
        "value": Out(64),
        "news": Out(1),
        "news_index": Out(range(config.maps)),
        "table": Out(TurnPort(config)),
    }


def _any_of(call, calls) -> Signal:
    return Cat(call == each for each in calls).any()


class RingUnit(Component):
    """One call after the other; what it says of it happens in the clock of `decides`.

    Members
    -------
    word_write, word_cpu, word : each word of a call on any map, as it arrives (EngineWord).
    start : begins `call`, on the map that `descriptor` says until it is `done` and `taken`.
    busy : nobody else may write a ring's state. It is low for some clocks of each call.
    run_cpu, run : the number of that CPU's run, in the same clock.
    decides : the call takes effect: of all before it sees everything, and of those after it nothing.
    done : up to the clock in which it is `taken`. trap, copy, size, value: as in EngineAnswer; with `copy` goes INSERT.
    news, news_index : a record of that map is reserved, is whole, or isn't wanted.
    table : mapinterfaces.TurnPort.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(RingUnitPorts(config))

    def elaborate(self, platform) -> Module:
        m = Module()
        config, descriptor, table = self.config, self.descriptor, self.table
        cpus = config.cores * config.threads
        offset_bits = exact_log2(config.map_bytes)
        call = Signal(RingCall(config), reset_less=True)
        commits, reserves = Signal(reset_less=True), Signal(reset_less=True)  # known from BEGIN on
        m.d.sync += [commits.eq(_any_of(call.call, COMMITTING)), reserves.eq(_any_of(call.call, RESERVING))]

        # What is left of each CPU's arguments: of its flags, of the word behind them or alone, of the packet's bounds.
        flags_layout = data.StructLayout(
            {"some": 1, "unknown": 1, "beyond": 1, "index": 32, "packet": PACKET_BYTES_BITS}
        )
        last_layout = data.StructLayout({"number": bits_for(config.map_bytes), "header": offset_bits - 3, "record": 1})
        sent, handle = self.word.data, self.word.handle
        flags_in, last_in, header_at = Signal(flags_layout), Signal(last_layout), Signal(64)
        m.d.comb += [
            flags_in.some.eq(sent.any()),
            flags_in.unknown.eq((sent & ~sum(RingFlag)).any()),
            flags_in.beyond.eq(sent[PACKET_BYTES_SHIFT + PACKET_BYTES_BITS :].any()),
            flags_in.index.eq(sent),
            flags_in.packet.eq(sent[PACKET_BYTES_SHIFT:]),
            last_in.number.eq(Mux(sent[offset_bits:].any(), config.map_bytes, sent[:offset_bits])),
            header_at.eq(handle - HEADER_BYTES),
            last_in.header.eq(header_at[3:]),
            last_in.record.eq((header_at[:3] == 0) & (header_at[offset_bits:] == MAP_VALUES >> offset_bits)),
        ]
        m.submodules.flags = all_flags = memory.Memory(shape=flags_layout, depth=cpus, init=[])
        m.submodules.last = all_last = memory.Memory(shape=last_layout, depth=cpus, init=[])
        packet_bits = bits_for(config.buffer_bytes)
        m.submodules.packets = all_packets = memory.Memory(shape=packet_bits, depth=cpus, init=[])
        m.submodules.copied = copied = memory.Memory(shape=offset_bits - 3, depth=cpus, init=[])  # headers
        bounds = (self.word.call == MapCall.EVENT) & self.word.last
        for store, entry, enable in (
            (all_flags, flags_in, self.word.flags),
            (all_last, last_in, ~bounds),
            (all_packets, (sent[32:] - sent[:32])[:packet_bits], bounds),
        ):
            write = store.write_port()
            m.d.sync += [write.en.eq(self.word_write & enable), write.addr.eq(self.word_cpu), write.data.eq(entry)]
        flags_read, last_read, packet_read, copied_read = (
            store.read_port(domain="comb") for store in (all_flags, all_last, all_packets, copied)
        )
        copied_write = copied.write_port()
        for port in (flags_read, last_read, packet_read, copied_read, copied_write):
            m.d.comb += port.addr.eq(call.cpu)
        flags, last = Signal(flags_layout, reset_less=True), Signal(last_layout, reset_less=True)

        # Words of map memory: `issued` requests have been granted, `got` have been answered.
        base, issued, got = Signal(table.address.shape()), Signal(2), Signal(2)
        m.d.sync += [issued.eq(issued + (table.request & table.grant)), got.eq(got + table.came)]
        m.d.comb += table.address.eq(base + issued)

        # What is known of the ring, and of the record.
        consumer, producer, lost = (Signal(64, name=name, reset_less=True) for name in ("consumer", "producer", "lost"))
        header = Signal(Header(config), reset_less=True)
        at = Signal(offset_bits - 3, reset_less=True)  # of the header
        length = Signal(range(config.map_bytes + (1 << PACKET_BYTES_BITS)), reset_less=True)
        room_bits = len(length) + 1
        record, used = Signal(room_bits, reset_less=True), Signal(offset_bits, reset_less=True)
        short, longest, known_query = (Signal(name=n, reset_less=True) for n in ("short", "longest", "known_query"))
        error = Signal(range(max(Errno) + 1), reset_less=True)
        room = Signal(signed(offset_bits + 1), reset_less=True)  # less than none where a program wrote to the ring
        fits = Signal(reset_less=True)
        came_header, ours = Signal(Header(config)), Signal(reset_less=True)
        empty = Signal()
        run = Signal(RUN_BITS, reset_less=True)  # it stays while its program waits for this call
        m.d.sync += [run.eq(self.run), used.eq(producer - consumer)]  # the third word comes behind both
        one_lost_more = Signal(64, reset_less=True)
        m.d.sync += one_lost_more.eq(lost + 1)
        m.d.comb += [
            self.run_cpu.eq(call.cpu),
            came_header.eq(table.word),
            empty.eq((call.call != MapCall.RESERVE) & (length == 0)),
        ]
        index = Signal(32, reset_less=True)  # a clock after the flags
        m.d.sync += index.eq(Mux(flags.index == CURRENT_CPU, call.cpu, flags.index))

        # What is asked for is said by registers: read, or written there; the header, LOST, or else the producer's.
        reads, writes, of_header, of_lost = (
            Signal(name=name) for name in ("reads", "writes", "of_header", "of_lost")
        )
        m.d.comb += [
            table.request.eq((reads & (issued < Mux(commits, 1, 3))) | writes),
            table.write.eq(writes.replicate(2)),
            table.data.eq(Mux(of_header, header, Mux(of_lost, one_lost_more, producer))),
        ]

        def ask(state: str) -> None:
            m.d.sync += [
                reads.eq(state == "READ"),
                writes.eq(state in ("HEADER", "COMMIT", "PRODUCER", "LOST")),
                of_header.eq(state in ("HEADER", "COMMIT")),
                of_lost.eq(state == "LOST"),
            ]
            m.next = state

        def seek(word, state: str) -> None:
            m.d.sync += [base.eq(word), issued.eq(0), got.eq(0)]
            ask(state)

        def finish(value=0, *, trap=0) -> None:
            m.d.sync += [self.value.eq(value), self.trap.eq(trap)]
            ask("DONE")

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += [call.eq(self.call), self.copy.eq(0), self.trap.eq(0)]
                with m.If(self.start):
                    m.next = "ARGUMENTS"
            with m.State("ARGUMENTS"):
                m.d.sync += [
                    flags.eq(flags_read.data),
                    last.eq(last_read.data),
                    at.eq(last_read.data.header),
                ]
                with m.If(call.call == MapCall.INSERT):
                    m.d.sync += [at.eq(copied_read.data), last.record.eq(1)]
                m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.sync += length.eq(last.number + Mux(call.call == MapCall.EVENT, flags.packet, 0))
                m.d.sync += known_query.eq(last.number <= max(RingQuery))
                m.d.sync += short.eq(flags.packet > packet_read.data)
                m.d.sync += longest.eq((call.call != MapCall.RESERVE) & (last.number > LONGEST_COPY))
                seek(Mux(commits, at, descriptor.base[3:]), "READ")
            with m.State("READ"):
                with m.If(table.came):
                    with m.If(commits):
                        m.d.sync += header.eq(came_header)
                        same = (came_header.cpu == call.cpu) & (came_header.run == run)
                        m.d.sync += ours.eq(last.record & came_header.busy & same)
                        ask("DECIDE")
                    with m.Else():
                        with m.Switch(got):
                            for number, position in ((0, consumer), (1, producer), (2, lost)):
                                with m.Case(number):
                                    m.d.sync += position.eq(table.word)
                        with m.If(got == 2):
                            ask("SUM")
            with m.State("SUM"):
                m.d.sync += [
                    room.eq(descriptor.table - used),
                    record.eq((length + (HEADER_BYTES + 7)) & ~7),
                    at.eq((descriptor.base + STATE_BYTES + (producer & descriptor.table))[3:offset_bits]),
                ]
                m.next = "ROOM"
            with m.State("ROOM"):
                m.d.sync += fits.eq((record <= room) & ~longest)
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += error.eq(0)
                with m.Switch(call.call):
                    with m.Case(MapCall.OUTPUT):
                        with m.If(flags.unknown):
                            m.d.sync += error.eq(Errno.EINVAL)
                        with m.Elif(~fits):
                            m.d.sync += error.eq(Errno.EAGAIN)
                    with m.Case(MapCall.EVENT):
                        with m.If(flags.beyond):
                            m.d.sync += error.eq(Errno.EINVAL)
                        with m.Elif(short):
                            m.d.sync += error.eq(Errno.EFAULT)
                        with m.Elif(index >= descriptor.entries):
                            m.d.sync += error.eq(Errno.E2BIG)
                        with m.Elif(index >= cpus):
                            m.d.sync += error.eq(Errno.ENOENT)
                        with m.Elif(index != call.cpu):
                            m.d.sync += error.eq(Errno.EOPNOTSUPP)
                        with m.Elif(~fits):
                            m.d.sync += error.eq(Errno.ENOSPC)
                    with m.Case(MapCall.RESERVE):
                        m.d.sync += error.eq(flags.some | ~fits)  # whatever: it returns 0
                m.next = "DECIDE"

            with m.State("DECIDE"):
                m.d.comb += self.decides.eq(1)
                m.d.sync += self.size.eq(last.number)
                with m.If(commits):
                    finish(trap=~ours)
                    with m.If(ours):
                        m.d.sync += [
                            header.busy.eq(0),
                            header.discarded.eq(call.call == MapCall.DISCARD),
                            header.run.eq(0),
                        ]
                        seek(at, "COMMIT")
                with m.Elif(reserves):
                    m.d.sync += [
                        header.length.eq(length),
                        header.busy.eq(~empty),
                        header.discarded.eq(0),
                        header.map.eq(call.index),
                        header.cpu.eq(call.cpu),
                        header.run.eq(Mux(empty, 0, run)),
                        producer.eq(producer + record),
                    ]
                    seek(at, "HEADER")
                    with m.If(error.any()):
                        finish(Mux(call.call == MapCall.RESERVE, 0, -error))
                        with m.If(error == Errno.ENOSPC):
                            seek((descriptor.base + RingState.LOST)[3:], "LOST")
                with m.Else():  # QUERY
                    finish()
                    with m.If(known_query):
                        with m.Switch(last.number[: bits_for(max(RingQuery))]):
                            with m.Case(RingQuery.AVAIL_DATA):
                                finish(used)
                            with m.Case(RingQuery.RING_SIZE):
                                finish(descriptor.table + 1)
                            with m.Case(RingQuery.CONS_POS):
                                finish(consumer)
                            with m.Case(RingQuery.PROD_POS):
                                finish(producer)

            # Changes: a new record's header before the position that makes it one.
            with m.State("HEADER"):
                m.d.comb += [copied_write.en.eq(1), copied_write.data.eq(at)]
                with m.If(table.grant):
                    seek((descriptor.base + RingState.PRODUCER)[3:], "PRODUCER")
            with m.State("PRODUCER"):
                with m.If(table.grant):
                    address = Cat(Const(0, 3), (at + HEADER_BYTES // 8)[: offset_bits - 3])
                    finish(Mux(empty, 0, MAP_VALUES | address))
                    m.d.sync += self.copy.eq((call.call != MapCall.RESERVE) & ~empty)
                    m.d.comb += self.news.eq(1)
            with m.State("COMMIT"):
                with m.If(table.grant):
                    m.d.comb += self.news.eq(1)
                    finish()
            with m.State("LOST"):
                with m.If(table.grant):
                    finish(-error)

            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                with m.If(self.taken):
                    m.next = "IDLE"
        rests = Cat(fsm.ongoing(state) for state in ("IDLE", "ARGUMENTS", "DONE")).any()
        m.d.sync += self.busy.eq(~rests)  # from READ on
        m.d.comb += self.news_index.eq(header.map)
        assert Header(config).size == 64 and BUSY == 1 << 31 and DISCARDED == 1 << 30
        return m
