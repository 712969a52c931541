"""The map engine: takes helpers' arguments from all cores, finds the map, and asks who serves it."""

from collections.abc import Iterable

from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, connect, flipped
from amaranth.utils import bits_for, ceil_log2, exact_log2

from bpfnic.hdl.arbiter import RoundRobin
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import MapEnginePorts
from bpfnic.hdl.lanes import spread
from bpfnic.hdl.mapinterfaces import EngineAnswer, EngineWord, KeyWord, MapCall, MapDescriptor
from bpfnic.hdl.maps.array import ArrayUnit, UnitResult
from bpfnic.hdl.maps.calls import Calls, a_clock_later
from bpfnic.hdl.maps.finder import Finder, Result
from bpfnic.hdl.maps.sharing import Turns
from bpfnic.hdl.memory import SimpleRam
from bpfnic.hdl.queue import Queue
from bpfnic.spec import tables
from bpfnic.spec.addresses import HANDLE_KEY_BIT, MAP_HANDLES, MAP_VALUES, MAX_KEY_BYTES
from bpfnic.spec.maps import EVENTS, LRU, OF_MAPS, QUEUES, REDIRECT_MAPS, MapType, UpdateFlag

_UNIT_CLOCKS = 2
"""Clocks from a call to the array unit's result."""

_ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
_HASHES = frozenset({MapType.HASH, MapType.PERCPU_HASH})
_KEYED = _HASHES | LRU | {MapType.LPM_TRIE}

# Who serves a call on a map, by its type. What is in none of them is no map for that call.
_BY_ARRAY = {
    MapCall.LOOKUP: _ARRAYS | {MapType.ARRAY_OF_MAPS},
    MapCall.UPDATE: _ARRAYS,
    MapCall.DELETE: _ARRAYS,
    MapCall.TAIL: frozenset({MapType.PROG_ARRAY}),
    MapCall.REDIRECT: REDIRECT_MAPS - {MapType.DEVMAP_HASH},
}
_BY_FINDER = {
    MapCall.LOOKUP: _HASHES | {MapType.HASH_OF_MAPS},
    MapCall.REDIRECT: frozenset({MapType.DEVMAP_HASH}),
}
_BY_UNIT = {
    MapCall.LOOKUP: LRU | {MapType.LPM_TRIE},
    MapCall.UPDATE: _KEYED,
    MapCall.DELETE: _KEYED,
    MapCall.WALK: _HASHES | LRU,
    MapCall.INSERT: _KEYED | QUEUES | EVENTS,
    MapCall.PUSH: QUEUES,
    MapCall.POP: QUEUES,
    MapCall.PEEK: QUEUES,
    MapCall.RELEASE: QUEUES,
    MapCall.RESERVE: frozenset({MapType.RINGBUF}),
    MapCall.OUTPUT: frozenset({MapType.RINGBUF}),
    MapCall.QUERY: frozenset({MapType.RINGBUF}),
    MapCall.EVENT: frozenset({MapType.PERF_EVENT_ARRAY}),
}


class MapEngine(Component):
    """A word each clock, from the cores in turn. The answer to a call on an array is there 5 clocks after its last
    word, to a look-up as the Finder says; other calls wait for each other (Calls).

    Members: interfaces.MapEnginePorts. A thread has one call under way at most, so that no queue here is ever full. A
    handle is a map's if its descriptor was written since reset, has keys of that size, and a type that serves the call.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(MapEnginePorts(config))

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        core_bits, thread_bits = (config.cores - 1).bit_length(), exact_log2(config.threads)
        m.submodules.calls = calls = Calls(config)
        search = calls.search
        stage = data.StructLayout(
            {
                "core": core_bits,
                "handle": 1,  # it has the form of one; known when it is the last one
                "key_bytes": bits_for(MAX_KEY_BYTES),  # of its keys
                "keep": 8,  # the bytes of the word that are of a key
                "index": range(config.maps),
                "word": EngineWord(config),
            }
        )

        # Chosen: a word of one of the cores, but in a clock in which the serial unit has the descriptors or the keys.
        looked, takes = Signal(), Signal()
        m.d.sync += looked.eq(calls.looks)
        m.d.comb += takes.eq(~looked & ~search.key.valid)
        m.submodules.arbiter = arbiter = RoundRobin(config.cores)
        chosen = Signal(stage)
        index_bits = exact_log2(config.maps)
        of_map = (config.maps - 1 << 4) | (MAX_KEY_BYTES - 1 << HANDLE_KEY_BIT)
        m.d.comb += [search.key.ready.eq(1), arbiter.takes.eq(takes)]
        for i, port in enumerate(self.port):
            word, mine = port.word.payload, Signal(stage, name=f"of_core{i}")  # found before it is known who is chosen
            key_end = word.handle[HANDLE_KEY_BIT:][: ceil_log2(MAX_KEY_BYTES)]
            whole = word.number != key_end[3:]
            walks = word.call == MapCall.WALK  # its word waits where a key does
            m.d.comb += [
                arbiter.requests[i].eq(port.word.valid),
                port.word.ready.eq(arbiter.grant[i] & takes),
                mine.core.eq(i),
                mine.word.eq(word),
                mine.index.eq(word.handle[4 : 4 + index_bits]),
                mine.key_bytes.eq(key_end + 1),
                mine.keep.eq(Cat(whole | walks | (byte <= key_end[:3]) for byte in range(8))),
            ]
            with m.If(arbiter.grant[i] if i else Const(1)):  # what nobody chose is not looked at
                m.d.comb += chosen.eq(mine)
        width = Shape.cast(MapDescriptor(config)).width
        m.submodules.descriptors = descriptors = SimpleRam(width=width, depth=max(2, config.maps), target=config.target)
        present = Signal(config.maps)
        written, written_index = Signal(), Signal.like(self.write.index, reset_less=True)
        m.d.sync += [written.eq(self.write.enable), written_index.eq(self.write.index)]
        m.d.comb += [
            descriptors.write.enable.eq(self.write.enable),
            descriptors.write.address.eq(self.write.index),
            descriptors.write.data.eq(self.write.descriptor),
            descriptors.read.address.eq(Mux(looked, calls.index, chosen.index)),
        ]
        with m.If(written):
            m.d.sync += present.bit_select(written_index, 1).eq(1)

        # Arrived: it is put with the other words of its key, and hashed; or it is the flags of a call.
        arrived, first = Signal(), Signal(stage, reset_less=True)
        made_up, key = Signal(), Signal(KeyWord(config), reset_less=True)
        m.d.sync += [arrived.eq(arbiter.grant.any() & takes), first.eq(chosen), made_up.eq(search.key.valid)]
        m.d.sync += key.eq(search.key.payload)
        sent, cpu = first.word.data, Cat(first.word.thread, first.core)
        has_key = Value.cast(first.word.call).matches(
            MapCall.LOOKUP, MapCall.UPDATE, MapCall.DELETE, MapCall.REDIRECT, MapCall.WALK
        )  # an INSERT comes back to the key of its UPDATE
        m.submodules.finder = finder = Finder(config)
        m.d.comb += [
            *(number.eq(port.word.payload.number) for number, port in zip(finder.next_number, self.port, strict=True)),
            finder.next_core.eq(chosen.core),
            finder.key_valid.eq(made_up | (arrived & ~first.word.flags & has_key)),
            finder.key.slot.eq(cpu),
            finder.key.number.eq(first.word.number),
            finder.key.data.eq(sent & spread(m, first.keep)),
        ]
        with m.If(search.key.valid):
            m.d.comb += [finder.next_number[0].eq(search.key.payload.number), finder.next_core.eq(0)]
        with m.If(made_up):
            m.d.comb += finder.key.eq(key)
        connect(m, flipped(self.secret), finder.secret)
        m.submodules.flags = flags = memory.Memory(shape=4, depth=1 << core_bits + thread_bits, init=[])
        flags_write, flags_read = flags.write_port(), flags.read_port(domain="comb")
        sent_flags = Cat(sent[:3], sent[3:].any() | sent[:2].all())  # UpdateFlag, and whether it is none of these
        m.d.comb += [
            flags_write.addr.eq(cpu),
            flags_write.data.eq(sent_flags),
            flags_write.en.eq(arrived & first.word.flags),
            flags_read.addr.eq(cpu),
        ]

        # Known: the call's map. Who serves it?
        called, last, described = Signal(), Signal(stage, reset_less=True), Signal()
        m.d.comb += described.eq(a_clock_later(m, present, first.index))
        its_flags, illegal = Signal(3, reset_less=True), Signal(reset_less=True)
        m.d.sync += [called.eq(arrived & first.word.last), last.eq(first)]
        m.d.sync += last.handle.eq(first.word.handle & ~of_map == MAP_HANDLES)
        m.d.sync += Cat(its_flags, illegal).eq(Mux(first.word.flags, sent_flags, flags_read.data))
        descriptor, call = Signal(MapDescriptor(config)), last.word.call
        m.d.comb += descriptor.eq(descriptors.read.data)
        right_size = (descriptor.key_size == last.key_bytes) | (descriptor.key_size == 0)
        is_map, by_array, by_finder, by_unit = Signal(), Signal(), Signal(), Signal()
        m.d.comb += is_map.eq(last.handle & described & right_size)
        for serves, table in ((by_array, _BY_ARRAY), (by_finder, _BY_FINDER), (by_unit, _BY_UNIT)):
            types = Signal(max(MapType) + 1, reset_less=True)  # that it serves the call on: a bit of each
            with m.Switch(first.word.call):
                for each in MapCall:
                    with m.Case(each):
                        m.d.sync += types.eq(sum(1 << kind for kind in config.map_types & table.get(each, frozenset())))
            m.d.comb += serves.eq(is_map & types.bit_select(descriptor.type, 1))
        if EVENTS & config.map_types:
            with m.If(Value.cast(call).matches(MapCall.SUBMIT, MapCall.DISCARD)):  # of a record, which has no handle
                m.d.comb += by_unit.eq(1)
        checked = self._is(descriptor, _ARRAYS | _KEYED | {MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS})
        m.submodules.array = unit = ArrayUnit(config)
        m.d.comb += [
            unit.call.call.eq(call),
            unit.call.illegal.eq(illegal),
            unit.call.flags.eq(its_flags),
            unit.call.key.eq(last.word.data),
            unit.call.cpu.eq(Cat(last.word.thread, last.core)),
            unit.call.descriptor.eq(descriptor),
        ]

        # An array's answer, and that of what is no map.
        waiting = data.StructLayout(
            {
                "core": core_bits,
                "thread": range(config.threads),
                "trap": 1,
                "copy": 1,
                "locked": 1,
                "lock": len(descriptor.lock),
                "size": len(descriptor.value_size),
                "result": UnitResult(config),
            }
        )
        pending = [Signal(waiting, name=f"pending{i}", reset_less=True) for i in range(_UNIT_CLOCKS)]
        coming = Signal(_UNIT_CLOCKS)
        of_maps = (call == MapCall.LOOKUP) & self._is(descriptor, OF_MAPS)
        m.d.sync += [
            coming.eq(Cat(called & ~by_finder & ~by_unit, coming)),
            pending[0].core.eq(last.core),
            pending[0].thread.eq(last.word.thread),
            pending[0].trap.eq(~Mux(call == MapCall.CHECK, is_map & checked, by_array)),
            pending[0].copy.eq(Value.cast(call).matches(MapCall.UPDATE, MapCall.TAIL, MapCall.REDIRECT) | of_maps),
            pending[0].locked.eq((its_flags & UpdateFlag.LOCK).any()),
            pending[0].lock.eq(descriptor.lock),
            pending[0].size.eq(descriptor.value_size),
            pending[1].eq(pending[0]),
        ]
        # A core that can't take its answer now keeps no other core's back.
        of_arrays = [Queue(waiting, config.threads, through=True) for _ in self.port]
        for i, queue in enumerate(of_arrays):
            m.submodules[f"of_arrays{i}"] = queue
            m.d.comb += [
                queue.push.eq(coming[-1] & (pending[-1].core == i)),
                queue.entry.eq(pending[-1]),
                queue.entry.copy.eq(pending[-1].copy & unit.result.found),
                queue.entry.result.eq(unit.result),
            ]

        # A look-up by the finder, and what the serial unit wants of it.
        found_by = Signal()
        m.d.sync += [
            found_by.eq(called & by_finder),
            finder.look_up.slot.eq(Cat(last.word.thread, last.core)),
            finder.look_up.descriptor.eq(descriptor),
        ]
        m.d.comb += [
            finder.look_up_valid.eq(found_by),
            search.found.eq(finder.found),
            finder.find.eq(search.find),
            finder.descriptor.eq(search.descriptor),
            finder.hold.eq(search.hold),
            search.idle.eq(finder.idle),
        ]
        connect(m, search.read, finder.read)
        connect(m, finder.rows, flipped(self.rows))
        of_finder = [Queue(Result(config), config.threads, through=True) for _ in self.port]
        for i, queue in enumerate(of_finder):
            m.submodules[f"of_finder{i}"] = queue
            m.d.comb += [
                queue.push.eq(finder.result_valid & (finder.result.slot[thread_bits:] == i)),
                queue.entry.eq(finder.result),
            ]

        # Way B: the serial unit's, or the finder's while that has no use for it.
        if (tables.TYPES | EVENTS) & config.map_types:
            m.submodules.turns = turns = Turns(config, users=len(calls.tables) + 1)
            for user, unit_table in zip(turns.users, (*calls.tables, finder.table), strict=True):
                connect(m, unit_table, user)
            connect(m, turns.table, flipped(self.table))

        # Other calls, one after the other.
        connect(m, flipped(self.host), calls.host)
        connect(m, flipped(self.write), calls.write)
        connect(m, calls.frames, flipped(self.frames))
        m.d.comb += [own.eq(thread) for own, thread in zip(calls.ended_thread, self.ended_thread, strict=True)]
        m.d.comb += [
            calls.word_write.eq(arrived),
            calls.word_cpu.eq(cpu),
            calls.word.eq(first.word),
            calls.ended.eq(self.ended),
            self.emit_trace.eq(calls.emit_trace),
            calls.descriptor.eq(descriptor),
            calls.present.eq(present),
            self.shared_trace[0].eq(calls.shared_trace),
            self.shared_trace[1].valid.eq(finder.result_valid),
            self.shared_trace[1].requester.eq(finder.result.slot[thread_bits:]),
            self.shared_trace[1].tag.eq(finder.result.slot[:thread_bits]),
        ]
        m.d.sync += [
            calls.push.eq(called & by_unit),
            calls.pushed.core.eq(last.core),
            calls.pushed.thread.eq(last.word.thread),
            calls.pushed.index.eq(last.index),
            calls.pushed.call.eq(call),
            calls.pushed.flags.eq(its_flags),
            calls.pushed.illegal.eq(illegal | (its_flags[2] & ~descriptor.lock.any())),
            calls.pushed.locked.eq(its_flags[2] & (call == MapCall.UPDATE)),  # an event's flags may look like it
        ]

        # The serial unit's answer waits here, so that it goes on whatever other answers there are.
        served, served_core = Signal(), Signal(core_bits, reset_less=True)
        from_unit = Signal(EngineAnswer(config), reset_less=True)
        m.d.comb += calls.answered.eq(~served)
        with m.If(~served):
            m.d.sync += [
                served.eq(calls.done),
                served_core.eq(calls.core),
                from_unit.thread.eq(calls.thread),
                from_unit.trap.eq(calls.trap),
                from_unit.copy.eq(calls.copies),
                from_unit.insert.eq(calls.inserts),
                from_unit.locked.eq(calls.locked),
                from_unit.lock.eq(calls.lock),
                from_unit.size.eq(calls.size),
                from_unit.value.eq(
                    Mux(calls.of_ring, calls.ring_value, _helpers(calls.found, calls.value, calls.status))
                    | calls.cursor << 32
                ),
            ]

        # Answers: arrays first, then the finder. A register has the next one, for the core goes on by it in its clock.
        for i, (port, arrays, searches) in enumerate(zip(self.port, of_arrays, of_finder, strict=True)):
            answer, takes = Signal(EngineAnswer(config), name=f"answer{i}"), Signal(name=f"takes_answer{i}")
            from_array, from_finder = arrays.pop.payload, searches.pop.payload
            found = from_array.result
            unit_here = served & (served_core == i)
            m.d.comb += [
                takes.eq(~port.answer.valid | port.answer.ready),
                arrays.pop.ready.eq(takes),
                searches.pop.ready.eq(takes & ~arrays.pop.valid),
            ]
            with m.If(takes):
                m.d.sync += port.answer.valid.eq(arrays.pop.valid | searches.pop.valid | unit_here)
                m.d.sync += port.answer.payload.eq(answer)
            with m.If(unit_here & takes & ~arrays.pop.valid & ~searches.pop.valid):
                m.d.sync += served.eq(0)
            with m.If(arrays.pop.valid):
                m.d.comb += [
                    answer.thread.eq(from_array.thread),
                    answer.trap.eq(from_array.trap),
                    answer.copy.eq(from_array.copy),
                    answer.locked.eq(from_array.locked),
                    answer.lock.eq(from_array.lock),
                    answer.size.eq(from_array.size),
                    answer.value.eq(_helpers(found.found, found.value, found.value)),
                ]
            with m.Elif(searches.pop.valid):
                m.d.comb += [
                    answer.thread.eq(from_finder.slot[:thread_bits]),
                    answer.copy.eq(from_finder.found & from_finder.entry),
                    answer.value.eq(_helpers(from_finder.found, from_finder.value, Const(0, 1))),
                ]
            with m.Else():
                m.d.comb += answer.eq(from_unit)
        return m

    def _is(self, descriptor, types: Iterable[MapType]) -> Value:
        """Whether the map is of one of these types, and this engine has it."""
        return Cat(descriptor.type == each for each in sorted(self.config.map_types & frozenset(types))).any()


def _helpers(found, value, error) -> Value:
    """What a helper returns: an address in map memory, or an error number, negated."""
    negative = -(Cat(error, Const(0, 7))[:7].as_signed())
    return Mux(found, MAP_VALUES | value, negative)
