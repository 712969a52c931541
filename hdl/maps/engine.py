"""The map engine: takes helpers' arguments from all cores, finds the map, asks the unit of its type, answers."""

from amaranth import Array, Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, memory
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, connect, flipped
from amaranth.utils import ceil_log2, exact_log2

from bpfnic.hdl.arbiter import RoundRobin
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import EngineWord, MapCall, MapDescriptor, MapEnginePorts
from bpfnic.hdl.maps.array import TYPES, ArrayUnit, UnitResult
from bpfnic.hdl.maps.tablecalls import TableCalls
from bpfnic.hdl.memory import READ_LATENCY, SimpleRam
from bpfnic.spec.addresses import HANDLE_KEY_BIT, MAP_HANDLES, MAP_VALUES, MAX_KEY_BYTES
from bpfnic.spec.maps import KEYED, REDIRECT_MAPS, MapType, UpdateFlag

_UNIT_CLOCKS = 2  # every unit so far has this latency


class MapEngine(Component):
    """A word each clock, from the cores in turn; an answer 6 clocks after the last word of its call, but for calls on
    keyed maps, which wait for each other (TableCalls).

    Members: interfaces.MapEnginePorts. A thread has one call under way at most, so that the queue of answers to a core,
    which has a place for each thread, is never full. A handle is a map's if its descriptor was written since reset and
    has a type that a unit here serves.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(MapEnginePorts(config))

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        core_bits = (config.cores - 1).bit_length()
        stage = data.StructLayout(
            {
                "core": core_bits,
                "handle": 1,  # it has the form of one
                "key_end": ceil_log2(MAX_KEY_BYTES),  # bytes of its keys, less one
                "index": range(config.maps),
                "flags": 3,
                "illegal": 1,
                "word": EngineWord(config),
            }
        )

        # A word from one of the cores, but in a clock whose turn at the descriptors the table's next call takes.
        looks, to_table = Signal(), Signal()
        m.submodules.arbiter = arbiter = RoundRobin(config.cores)
        chosen = Signal(stage)
        index_bits = exact_log2(config.maps)
        for i, port in enumerate(self.port):
            m.d.comb += [arbiter.requests[i].eq(port.word.valid & ~looks), port.word.ready.eq(arbiter.grant[i])]
            with m.If(arbiter.grant[i]):
                m.d.comb += [chosen.word.eq(port.word.payload), chosen.core.eq(i)]
        handle = chosen.word.handle
        of_map = (config.maps - 1 << 4) | (MAX_KEY_BYTES - 1 << HANDLE_KEY_BIT)
        m.d.comb += [
            chosen.index.eq(handle[4 : 4 + index_bits]),
            chosen.handle.eq(handle & ~of_map == MAP_HANDLES),
            chosen.key_end.eq(handle[HANDLE_KEY_BIT:]),
        ]
        arrived, closes = Signal(), Signal()  # a word is in the first stage; it is a call's last
        fetched = [Signal(stage, name=f"stage{i}", reset_less=True) for i in range(1, READ_LATENCY + 2)]
        valid = Signal(READ_LATENCY + _UNIT_CLOCKS)  # a call's last word is in a stage after it
        m.d.sync += [
            arrived.eq(arbiter.grant.any()),
            valid.eq(Cat(arrived & closes, valid[0], valid[1] & ~to_table, valid[2])),
        ]
        moves = [arbiter.grant.any(), arrived, valid[0]]
        for moved, before, after in zip(moves, [chosen, *fetched[:-1]], fetched, strict=True):
            with m.If(moved):
                m.d.sync += after.eq(before)

        # The descriptor, and the flags that the update sent before its key.
        width = Shape.cast(MapDescriptor(config)).width
        m.submodules.descriptors = descriptors = SimpleRam(width=width, depth=max(2, config.maps), target=config.target)
        table_index = Signal(range(config.maps))
        m.submodules.flags = flags = memory.Memory(shape=4, depth=1 << core_bits + exact_log2(config.threads), init=[])
        present = Signal(config.maps)
        m.d.comb += [
            descriptors.write.enable.eq(self.write.enable),
            descriptors.write.address.eq(self.write.index),
            descriptors.write.data.eq(self.write.descriptor),
            descriptors.read.address.eq(Mux(arrived, fetched[0].index, table_index)),
        ]
        with m.If(self.write.enable):
            m.d.sync += present.bit_select(self.write.index, 1).eq(1)

        first = fetched[0]
        sent, write, read = first.word.data, flags.write_port(), flags.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(Cat(first.word.thread, first.core)),
            write.data.eq(Cat(sent[:3], (sent & ~UpdateFlag.LOCK) > UpdateFlag.EXIST)),
            write.en.eq(arrived & first.word.flags),
            read.addr.eq(write.addr),
        ]
        m.d.comb += closes.eq(first.word.last & ~first.word.flags)
        m.d.sync += Cat(fetched[1].flags, fetched[1].illegal).eq(read.data)

        # The unit, and what the engine itself knows of the call.
        last = fetched[-1]
        m.submodules.array = unit = ArrayUnit(config)
        descriptor = Signal(MapDescriptor(config))
        m.d.comb += [
            descriptor.eq(descriptors.read.data),
            unit.call.call.eq(last.word.call),
            unit.call.illegal.eq(last.illegal),
            unit.call.flags.eq(last.flags),
            unit.call.key.eq(last.word.data),
            unit.call.cpu.eq(Cat(last.word.thread, last.core)),
            unit.call.descriptor.eq(descriptor),
        ]
        answer = data.StructLayout(
            {
                "thread": range(config.threads),
                "trap": 1,
                "copy": 1,
                "insert": 1,
                "size": len(descriptor.value_size),
                "result": UnitResult(config),
            }
        )
        waiting = data.StructLayout({"core": core_bits, "answer": answer})
        pending = [Signal(waiting, name=f"pending{i}", reset_less=True) for i in range(_UNIT_CLOCKS)]
        tail, redirect = last.word.call == MapCall.TAIL, last.word.call == MapCall.REDIRECT
        served = Signal()  # the helper takes maps of this type
        with m.If(tail):
            m.d.comb += served.eq(descriptor.type == MapType.PROG_ARRAY)
        with m.Else():
            some = (REDIRECT_MAPS - KEYED, TYPES)
            types = (Cat(descriptor.type == each for each in sorted(served_by)).any() for served_by in some)
            m.d.comb += served.eq(Mux(redirect, *types))
        hashed = (descriptor.type == MapType.HASH) & ~tail & ~redirect
        right_size = descriptor.key_size == last.key_end + 1
        there = last.handle & Array(present)[last.index] & right_size & (served | hashed)
        m.d.comb += to_table.eq(valid[1] & there & hashed & (last.word.call != MapCall.CHECK))
        m.d.sync += [
            pending[0].core.eq(last.core),
            pending[0].answer.thread.eq(last.word.thread),
            pending[0].answer.trap.eq(~there),
            pending[0].answer.copy.eq((last.word.call == MapCall.UPDATE) | tail | redirect),
            pending[0].answer.insert.eq(0),
            pending[0].answer.size.eq(descriptor.value_size),
            pending[1].eq(pending[0]),
        ]

        # Or it is a call on a table.
        m.submodules.tables = calls = TableCalls(config)
        connect(m, flipped(self.table), calls.table)
        connect(m, flipped(self.host), calls.host)
        key_call = Value.cast(first.word.call).matches(MapCall.LOOKUP, MapCall.UPDATE, MapCall.DELETE)
        m.d.comb += [
            looks.eq(calls.looks),
            table_index.eq(calls.index),
            calls.descriptor.eq(descriptor),
            calls.present.eq(present),
            calls.word_write.eq(arrived & ~first.word.flags & key_call),
            calls.word_core.eq(first.core),
            calls.word.eq(first.word),
            calls.push.eq(to_table),
            calls.pushed.core.eq(last.core),
            calls.pushed.thread.eq(last.word.thread),
            calls.pushed.index.eq(last.index),
            calls.pushed.call.eq(last.word.call),
            calls.pushed.flags.eq(last.flags),
            calls.pushed.illegal.eq(last.illegal | last.flags[2]),
            calls.answered.eq(~valid[-1]),
            self.shared_trace.eq(calls.shared_trace),
        ]
        answering = Signal(core_bits)
        m.d.comb += answering.eq(pending[-1].core)

        done = Signal(answer)
        m.d.comb += [
            done.eq(pending[-1].answer),
            done.copy.eq(pending[-1].answer.copy & unit.result.found),
            done.result.eq(unit.result),
        ]
        with m.If(~valid[-1]):
            m.d.comb += [
                answering.eq(calls.core),
                done.thread.eq(calls.thread),
                done.trap.eq(0),
                done.copy.eq(calls.copies & calls.found),
                done.insert.eq(1),
                done.size.eq(calls.size),
                done.result.found.eq(calls.found),
                done.result.value.eq(Mux(calls.found, calls.value, calls.status)),
            ]
        for i, port in enumerate(self.port):
            m.submodules[f"queue{i}"] = queue = SyncFIFO(width=Shape.cast(answer).width, depth=config.threads)
            head = data.View(answer, queue.r_data)
            m.d.comb += [
                queue.w_en.eq((valid[-1] | calls.done) & (answering == i)),
                queue.w_data.eq(done),
                port.answer.valid.eq(queue.r_rdy),
                queue.r_en.eq(port.answer.ready),
                port.answer.payload.thread.eq(head.thread),
                port.answer.payload.trap.eq(head.trap),
                port.answer.payload.copy.eq(head.copy),
                port.answer.payload.insert.eq(head.insert),
                port.answer.payload.size.eq(head.size),
                port.answer.payload.value.eq(
                    Mux(head.result.found, MAP_VALUES | head.result.value, -head.result.value[:7].as_signed())
                ),
            ]
        return m
