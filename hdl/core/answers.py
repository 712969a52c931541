"""Answers of map memory, engine, packet path and the core's own units: they wait for a clock in which the register file
is free."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.registers import ENTRIES, TARGET_ENTRY
from bpfnic.hdl.interfaces import Answer
from bpfnic.hdl.mapinterfaces import LOCK, EngineAnswer, MapAnswer

Expected = data.StructLayout(
    {"write": 1, "entry": range(ENTRIES), "size": 2, "extend": 1, "zero": 1, "final": 1, "register": 4}
)
"""What a thread does with its answer: write `entry` with it, cut (and with `extend` sign-extended) to 1 << size bytes,
or with `zero` with 0. final: it ends its instruction, which writes `register` (for the trace)."""

EngineSays = data.StructLayout({"trap": 1, "copy": 1, "insert": 1, "empty": 1, "locked": 1})
"""What the core keeps of an EngineAnswer. empty: `size` is 0."""

Copy = data.StructLayout({"size": range(4097), "lock": LOCK})
"""The rest of it."""


class Answers(Component):
    """Takes one answer a clock, at most, and holds it until it is done.

    Members
    -------
    map, engine, service, unit : the answers; `unit` of those of the core itself, divider and checksums.
    expect, expecting, expected : in this clock, thread `expecting` learns what to do with its next answer.
    free : the register file can be written in this clock. free_soon : and two clocks later.
    done : an answer was dealt with, of `thread`, and if `write` its register is written in this clock: `entry`,
        `value`, with `size` and `extend`. final, register : see Expected.
    wakes, woken : thread `woken` may go on: an answer comes that will be done two clocks later, before its next pass
        reads registers. wakes_late : `thread` may go on, whose answer is done and that was not woken before.
    engine_done : it is an engine's answer that ends its instruction.
    asking, copying : threads; `engine_says` of the last answer to `asking`, and the `copy` of the one to `copying`, in
        the same clock.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        thread = range(config.threads)
        super().__init__(
            {
                "map": In(stream.Signature(MapAnswer)),
                "engine": In(stream.Signature(EngineAnswer(config))),
                "service": In(stream.Signature(Answer(config))),
                "unit": In(stream.Signature(Answer(config))),
                "expect": In(1),
                "expecting": In(thread),
                "expected": In(Expected),
                "free": In(1),
                "free_soon": In(1),
                "wakes": Out(1),
                "woken": Out(thread),
                "wakes_late": Out(1),
                "done": Out(1),
                "thread": Out(thread),
                "write": Out(1),
                "entry": Out(range(ENTRIES)),
                "value": Out(64),
                "size": Out(2),
                "extend": Out(1),
                "final": Out(1),
                "register": Out(4),
                "engine_done": Out(1),
                "asking": In(thread),
                "engine_says": Out(EngineSays),
                "copying": In(thread),
                "copy": Out(Copy),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        threads = self.config.threads

        # An answer that has come. Few come from services, engine and units, and each of their threads has to issue
        # before its next one, so that a fixed order starves nobody.
        comes, coming_thread, coming_value = Signal(), Signal(range(threads)), Signal(64)
        came, woken, as_expected, from_engine = (
            Signal(name=name) for name in ("came", "came_woken", "as_expected", "from_engine")
        )
        thread, value = Signal(range(threads), name="came_thread"), Signal(64)
        says, copy = Signal(EngineSays), Signal(Copy)
        free, moves = Signal(), Signal()
        m.d.comb += [
            moves.eq(came & free),
            self.service.ready.eq(~came | free),
            self.engine.ready.eq(self.service.ready & ~self.service.valid),
            self.unit.ready.eq(self.engine.ready & ~self.engine.valid),
            self.map.ready.eq(self.unit.ready & ~self.unit.valid),
            comes.eq(self.service.valid | self.engine.valid | self.unit.valid | self.map.valid),
        ]
        with m.If(self.service.ready):
            m.d.sync += [
                came.eq(comes),
                woken.eq(self.wakes),
                thread.eq(coming_thread),
                value.eq(coming_value),
                from_engine.eq(~self.service.valid & self.engine.valid),
                as_expected.eq(~self.service.valid & ~self.engine.valid),
                says.trap.eq(self.engine.payload.trap),
                says.copy.eq(self.engine.payload.copy),
                says.insert.eq(self.engine.payload.insert),
                says.empty.eq(self.engine.payload.size == 0),
                says.locked.eq(self.engine.payload.locked),
                copy.size.eq(self.engine.payload.size),
                copy.lock.eq(self.engine.payload.lock),
            ]
        # Which one, in two bits: a multiplexer of four 64-bit words should not look at their order.
        early = self.service.valid | self.engine.valid
        with m.Switch(Cat(Mux(early, self.service.valid, self.unit.valid), early)):
            for number, (answer, of, word) in enumerate(
                (
                    (self.map, "tag", "data"),
                    (self.unit, "thread", "value"),
                    (self.engine, "thread", "value"),
                    (self.service, "thread", "value"),
                )
            ):
                with m.Case(number):
                    m.d.comb += [coming_thread.eq(answer.payload[of]), coming_value.eq(answer.payload[word])]

        m.submodules.expectations = expectations = memory.Memory(shape=Expected, depth=threads, init=[])
        write, read = expectations.write_port(), expectations.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.expect),
            write.addr.eq(self.expecting),
            write.data.eq(self.expected),
            read.addr.eq(thread),
        ]
        for name, word, reader, out in (
            ("says", says, self.asking, self.engine_says),
            ("copy", copy, self.copying, self.copy),
        ):
            m.submodules[name] = array = memory.Memory(shape=word.shape(), depth=threads, init=[])
            record, look = array.write_port(), array.read_port(domain="comb")
            m.d.comb += [
                record.en.eq(moves & from_engine),
                record.addr.eq(thread),
                record.data.eq(word),
                look.addr.eq(reader),
                out.eq(look.data),
            ]

        # A clock later: what is to be done with it.
        held, held_woken, writes, counts = (Signal(name=name) for name in ("held", "held_woken", "writes", "counts"))
        expected = read.data
        goes_on = from_engine & (says.copy | says.trap)
        m.d.comb += free.eq(~held | self.done)
        with m.If(free):
            m.d.sync += [
                held.eq(came),
                held_woken.eq(woken),
                self.thread.eq(thread),
                writes.eq(Mux(as_expected, expected.write, ~(from_engine & says.trap))),
                self.entry.eq(Mux(from_engine & says.copy, TARGET_ENTRY, expected.entry)),
                self.value.eq(Mux(as_expected & expected.zero, 0, value)),
                self.size.eq(Mux(as_expected, expected.size, 3)),
                self.extend.eq(as_expected & expected.extend),
                self.final.eq(expected.final & ~goes_on),
                self.register.eq(expected.register),
                counts.eq(from_engine & expected.final & ~goes_on),
            ]
        m.d.comb += [
            self.write.eq(held & writes),
            self.done.eq(held & (self.free | ~writes)),
            self.engine_done.eq(self.done & counts),
            # Nothing is in front of an answer that comes: it is held in two clocks, in which the register file is free.
            self.wakes.eq(comes & ~came & ~held & self.free_soon),
            self.woken.eq(coming_thread),
            self.wakes_late.eq(self.done & ~held_woken),
        ]
        return m
