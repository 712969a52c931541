"""Answers of map memory, engine, packet path and the core's own units: they wait for a clock in which the register file
is free."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.registers import ENTRIES, TARGET_ENTRY
from bpfnic.hdl.interfaces import Answer
from bpfnic.hdl.mapinterfaces import LOCK, EngineAnswer, MapAnswer
from bpfnic.hdl.slice import RegisterSlice

Expected = data.StructLayout(
    {"write": 1, "entry": range(ENTRIES), "size": 2, "extend": 1, "zero": 1, "final": 1, "register": 4}
)
"""What a thread does with its answer: write `entry` with it, cut (and with `extend` sign-extended) to 1 << size bytes,
or with `zero` with 0. final: it ends its instruction, which writes `register` (for the trace)."""

EngineSays = data.StructLayout({"trap": 1, "copy": 1, "insert": 1, "empty": 1, "locked": 1})
"""What the core keeps of an EngineAnswer. empty: `size` is 0."""

Copy = data.StructLayout({"size": range(4097), "lock": LOCK})
"""The rest of it."""


def _arrived(config: NicConfig) -> data.StructLayout:
    """An answer, whosever. from_engine: `says` and `copy` are valid. as_expected: it is cut as its thread expects."""
    return data.StructLayout(
        {
            "thread": range(config.threads),
            "value": 64,
            "from_engine": 1,
            "as_expected": 1,
            "says": EngineSays,
            "copy": Copy,
        }
    )


class Answers(Component):
    """Takes one answer a clock, at most, and holds it until it is done.

    Members
    -------
    map, engine, service, unit : the answers; `unit` of those of the core itself, divider and checksums.
    expect, expecting, expected : in this clock, thread `expecting` learns what to do with its next answer.
    free : the register file can be written in this clock. free_soon : and two clocks later.
    done : an answer was dealt with, of `thread`, and if `write` its register is written in this clock: `entry`,
        `value`, with `size` and `extend`. final, register : see Expected.
    wakes, woken : thread `woken` may go on: its answer will be done in the next clock, or in the one after that if it
        is the engine's, whose thread is known in time. wakes_late : `thread` may go on, whose answer is done and that
        was not woken before.
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

        # An answer that comes. Few come from services, engine and units, and each of their threads has to issue before
        # its next one, so that a fixed order starves nobody.
        m.submodules.arrived = arrived = RegisterSlice(_arrived(self.config), self.config.slice_places)
        coming, from_engine = arrived.i.payload, self.engine.payload
        held, held_woken, woken = Signal(name="held"), Signal(name="held_woken"), Signal(name="came_woken")
        m.d.comb += [
            self.service.ready.eq(arrived.i.ready),
            self.engine.ready.eq(self.service.ready & ~self.service.valid),
            self.unit.ready.eq(self.engine.ready & ~self.engine.valid),
            self.map.ready.eq(self.unit.ready & ~self.unit.valid),
            arrived.i.valid.eq(self.service.valid | self.engine.valid | self.unit.valid | self.map.valid),
            coming.from_engine.eq(~self.service.valid & self.engine.valid),
            coming.as_expected.eq(~self.service.valid & ~self.engine.valid),
            coming.says.trap.eq(from_engine.trap),
            coming.says.copy.eq(from_engine.copy),
            coming.says.insert.eq(from_engine.insert),
            coming.says.empty.eq(from_engine.size == 0),
            coming.says.locked.eq(from_engine.locked),
            coming.copy.size.eq(from_engine.size),
            coming.copy.lock.eq(from_engine.lock),
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
                    m.d.comb += [coming.thread.eq(answer.payload[of]), coming.value.eq(answer.payload[word])]

        # Nothing is in front of it: it is held two clocks later, when the register file is free.
        unhindered, early, wakes = Signal(), Signal(name="early"), Signal(name="came_wakes")
        m.d.comb += [
            unhindered.eq(~arrived.o.valid & ~held & self.free_soon),
            early.eq(unhindered & self.engine.valid & ~self.service.valid),
        ]
        m.d.sync += [woken.eq(unhindered & arrived.i.valid), wakes.eq(unhindered & arrived.i.valid & ~early)]

        # It has come. `says` and `copy` are kept for its thread's next passes.
        came, this = arrived.o.valid, arrived.o.payload
        free = arrived.o.ready
        m.submodules.expectations = expectations = memory.Memory(shape=Expected, depth=threads, init=[])
        write, read = expectations.write_port(), expectations.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.expect),
            write.addr.eq(self.expecting),
            write.data.eq(self.expected),
            read.addr.eq(this.thread),
        ]
        for name, word, reader, out in (
            ("says", this.says, self.asking, self.engine_says),
            ("copy", this.copy, self.copying, self.copy),
        ):
            m.submodules[name] = array = memory.Memory(shape=word.shape(), depth=threads, init=[])
            record, look = array.write_port(), array.read_port(domain="comb")
            m.d.comb += [
                record.en.eq(came & free & this.from_engine),
                record.addr.eq(this.thread),
                record.data.eq(word),
                look.addr.eq(reader),
                out.eq(look.data),
            ]

        # A clock later: what is to be done with it.
        expected = read.data
        writes, counts = Signal(), Signal()
        goes_on = this.from_engine & (this.says.copy | this.says.trap)
        m.d.comb += free.eq(~held | self.done)
        with m.If(free):
            m.d.sync += [
                held.eq(came),
                held_woken.eq(woken),
                self.thread.eq(this.thread),
                writes.eq(Mux(this.as_expected, expected.write, ~(this.from_engine & this.says.trap))),
                self.entry.eq(Mux(this.from_engine & this.says.copy, TARGET_ENTRY, expected.entry)),
                self.value.eq(Mux(this.as_expected & expected.zero, 0, this.value)),
                self.size.eq(Mux(this.as_expected, expected.size, 3)),
                self.extend.eq(this.as_expected & expected.extend),
                self.final.eq(expected.final & ~goes_on),
                self.register.eq(expected.register),
                counts.eq(this.from_engine & expected.final & ~goes_on),
            ]
        m.d.comb += [
            self.write.eq(held & writes),
            self.done.eq(held & (self.free | ~writes)),
            self.engine_done.eq(self.done & counts),
            self.wakes.eq(wakes | early),
            self.woken.eq(Mux(came, this.thread, self.engine.payload.thread)),
            self.wakes_late.eq(self.done & ~held_woken),
        ]
        return m
