"""Calls on tables: they wait here, those of the host among them, until the serial unit can take them."""

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import SharedTrace
from bpfnic.hdl.mapinterfaces import LOCK, MapCall, MapDescriptor, MapHostPort, SearchPort, TurnPort
from bpfnic.hdl.maps.rings import Rings, RingsPorts
from bpfnic.hdl.maps.table import TableOperation, TableUnit
from bpfnic.hdl.queue import Queue
from bpfnic.spec import tables
from bpfnic.spec.maps import EVENTS, QUEUES, Errno
from bpfnic.spec.registers import MapCommand

_OF_CALL = {
    MapCall.LOOKUP: TableOperation.LOOKUP,
    MapCall.UPDATE: TableOperation.UPDATE,
    MapCall.DELETE: TableOperation.DELETE,
    MapCall.INSERT: TableOperation.INSERT,
    MapCall.PUSH: TableOperation.PUSH,
    MapCall.POP: TableOperation.POP,
    MapCall.PEEK: TableOperation.PEEK,
    MapCall.RELEASE: TableOperation.RELEASE,
    MapCall.WALK: TableOperation.WALK,
}
_OF_RINGS = (MapCall.RESERVE, MapCall.OUTPUT, MapCall.SUBMIT, MapCall.DISCARD, MapCall.QUERY, MapCall.EVENT)
_RING_PORTS = ("word_write", "word_cpu", "word", "write", "ended", "ended_thread", "frames", "emit_trace")
_COPIES = (MapCall.UPDATE, MapCall.PUSH, MapCall.POP, MapCall.PEEK)
_OF_COMMAND = {
    MapCommand.LOOKUP: TableOperation.READ,
    MapCommand.RESERVE: TableOperation.RESERVE,
    MapCommand.INSERT: TableOperation.INSERT,
    MapCommand.DELETE: TableOperation.DELETE,
    MapCommand.FIRST: TableOperation.FIRST,
    MapCommand.NEXT: TableOperation.NEXT,
    MapCommand.POP: TableOperation.TAKE,
}
_OF_QUEUES = {
    TableOperation.INSERT: TableOperation.ENQUEUE,
    TableOperation.READ: TableOperation.PEEK,
    TableOperation.TAKE: TableOperation.POP,
}
"""What operations are on maps without keys; there are none to delete or to walk through."""


def WaitingCall(config: NicConfig) -> data.StructLayout:
    """A program's call, whose key has been written. flags: the others than LOCK, which is `locked`; illegal: the map
    doesn't take them."""
    return data.StructLayout(
        {
            "core": (config.cores - 1).bit_length(),
            "thread": range(config.threads),
            "index": range(config.maps),
            "call": MapCall,
            "flags": 2,
            "locked": 1,
            "illegal": 1,
        }
    )


def a_clock_later(m: Module, bits, index) -> Value:
    """The bit at `index`, both as they were a clock ago: of many bits it is found in two steps."""
    low = min(3, len(index))
    group, place = Signal(1 << low, reset_less=True), Signal(low, reset_less=True)
    groups = [bits[at : at + (1 << low)] for at in range(0, len(bits), 1 << low)]
    m.d.sync += [group.eq(Array(groups)[index >> low]), place.eq(index)]
    return group.bit_select(place, 1)


class Calls(Component):
    """Members
    -------
    push, pushed : a call whose key is there, on a map of a type that it is for. There is room for one of every thread.
    looks : asks for the next clock's look at the descriptors, at `index`; `descriptor` 2 clocks later. present : a bit
        for each descriptor that has been written.
    done : a program's call is, as `answered` allows; of `thread` of `core`. copies: the thread copies `size`
        bytes to or from `value`; then, with `inserts`, it sends INSERT, or RELEASE behind what it read. locked, lock:
        see mapinterfaces.EngineAnswer.
    found, value, status : see TableUnit. cursor : a WALK's; of other calls 0. of_ring : a ring's
        call: then trap, and ring_value as in EngineAnswer.
    word_write, word_cpu, word, write, ended, ended_thread, frames, emit_trace : see Rings.
    host, search, tables : MapHostPort, SearchPort and TurnPorts of hdl/mapinterfaces.py: of the table unit, the ring
        unit and the emitter. shared_trace : the call that is decided in this clock.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        waiting, rings = WaitingCall(config), RingsPorts(config)
        super().__init__(
            {name: rings[name] for name in _RING_PORTS}
            | {
                "push": In(1),
                "pushed": In(waiting),
                "looks": Out(1),
                "index": Out(range(config.maps)),
                "descriptor": In(MapDescriptor(config)),
                "present": In(config.maps),
                "done": Out(1),
                "answered": In(1),
                "core": Out((config.cores - 1).bit_length()),
                "thread": Out(range(config.threads)),
                "copies": Out(1),
                "inserts": Out(1),
                "locked": Out(1),
                "lock": Out(LOCK),
                "size": Out(range(4097)),
                "found": Out(1),
                "value": Out(range(config.map_bytes)),
                "cursor": Out(32),
                "status": Out(6),
                "of_ring": Out(1),
                "trap": Out(1),
                "ring_value": Out(64),
                "host": In(MapHostPort(config)),
                "search": Out(SearchPort(config)),
                "tables": Out(TurnPort(config)).array(3 if EVENTS & config.map_types else 1),
                "shared_trace": Out(SharedTrace(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, host = self.config, self.host
        if not (tables.TYPES | EVENTS) & config.map_types:
            m.d.comb += [host.done.eq(host.command), host.status.eq(Errno.EINVAL)]
            return m
        m.submodules.unit = unit = TableUnit(config)
        m.submodules.waiting = waiting = Queue(WaitingCall(config), config.cores * config.threads)
        connect(m, unit.search, flipped(self.search))

        call, of_host = Signal(WaitingCall(config), reset_less=True), Signal(reset_less=True)
        descriptor = Signal(MapDescriptor(config), reset_less=True)
        walks, makes_way = Signal(), Signal()  # the host's walk is to be resumed, behind a call of a program
        operation = Signal(TableOperation, reset_less=True)
        known = Signal()  # there is such a command
        refused, on_ring = Signal(reset_less=True), Signal(reset_less=True)  # what it is not for; the ring unit's
        m.d.comb += [
            waiting.push.eq(self.push),
            waiting.entry.eq(self.pushed),
            unit.host_word.eq(host.key_word),
            unit.host_write.eq(host.key_write),
            unit.host_data.eq(host.key_data),
            host.key.eq(unit.host_key),
            self.index.eq(call.index),
            unit.descriptor.eq(descriptor),
            unit.call.operation.eq(operation),
            unit.call.host.eq(of_host),
            unit.call.cpu.eq(Mux(of_host, config.cores * config.threads, Cat(call.thread, call.core))),
            unit.call.flags.eq(Mux(of_host, host.flags, call.flags)),
            unit.call.locked.eq(~of_host & call.locked),
            unit.call.illegal.eq(~of_host & call.illegal),
            unit.waiting.eq(waiting.pop.valid),
            unit.taken.eq(of_host | self.answered),
            self.shared_trace.valid.eq(unit.decides & ~of_host),
            self.shared_trace.requester.eq(call.core),
            self.shared_trace.tag.eq(call.thread),
            self.done.eq(unit.done & ~of_host),
            self.core.eq(call.core),
            self.thread.eq(call.thread),
            self.copies.eq(unit.found & Cat(call.call == each for each in _COPIES).any()),
            self.inserts.eq(~unit.in_place),
            self.locked.eq(call.locked & unit.in_place),
            self.lock.eq(descriptor.lock),
            self.size.eq(descriptor.value_size),
            self.found.eq(unit.found),
            self.value.eq(unit.value),
            self.cursor.eq(Mux(call.call == MapCall.WALK, unit.cursor, 0)),
            self.status.eq(unit.status),
            host.found.eq(unit.found),
            host.value.eq(unit.value),
            host.status.eq(unit.status),
        ]

        # Rings have a unit of their own.
        connect(m, unit.table, flipped(self.tables[0]))
        ring_call, ring_type, ring_start, ring_done = Signal(), Signal(), Signal(), Signal()
        its = self.descriptor
        if EVENTS & config.map_types:
            rings = self._add_rings(m, call, descriptor)
            connect(m, rings.table, flipped(self.tables[1]))
            connect(m, rings.emitter_table, flipped(self.tables[2]))
            m.d.comb += [
                ring_call.eq(Cat(call.call == each for each in _OF_RINGS).any()),
                ring_type.eq(Cat(its.type == each for each in sorted(EVENTS)).any()),
                rings.start.eq(ring_start),
                ring_done.eq(rings.done & self.of_ring),
                rings.taken.eq(self.answered),
            ]

        served = Cat(its.type == each for each in sorted(tables.TYPES & config.map_types)).any()
        queue = Cat(its.type == each for each in sorted(QUEUES & config.map_types)).any()
        described = Signal()  # there is such a map
        m.d.sync += described.eq((host.index < config.maps) & a_clock_later(m, self.present, call.index))
        keyed = Signal()
        m.d.sync += keyed.eq(Cat(operation == TableOperation[name] for name in ("DELETE", "FIRST", "NEXT")).any())
        started = Signal()
        with m.FSM():
            with m.State("IDLE"):  # the host first, for it has a command at a time, and few; but its walks make way
                of_host_next = host.command & ~(makes_way & waiting.pop.valid)
                m.d.sync += [of_host.eq(of_host_next), call.eq(waiting.pop.payload)]
                with m.Switch(waiting.pop.payload.call):
                    for kind, each in _OF_CALL.items():
                        with m.Case(kind):
                            m.d.sync += operation.eq(each)
                with m.If(of_host_next):
                    m.d.sync += [call.index.eq(host.index), known.eq(1)]
                    with m.Switch(host.operation):
                        for number, each in _OF_COMMAND.items():
                            with m.Case(number):
                                m.d.sync += operation.eq(each)
                        with m.Default():
                            m.d.sync += known.eq(0)
                    with m.If(walks):
                        m.d.sync += operation.eq(TableOperation.RESUME)
                m.d.comb += waiting.pop.ready.eq(~of_host_next)
                with m.If(host.command | waiting.pop.valid):
                    m.d.comb += self.looks.eq(1)
                    m.next = "LOOK"
            with m.State("LOOK"):  # what is to be done is known, but for the end of an update or push
                m.d.sync += [makes_way.eq(0), started.eq(unit.start | (~of_host & ring_call)), self.of_ring.eq(0)]
                m.d.comb += unit.start.eq(~of_host & (call.call != MapCall.INSERT) & ~ring_call)
                m.next = "COMES"
            with m.State("COMES"):
                m.d.comb += ring_start.eq(~of_host & ring_call)
                m.next = "THERE"
            with m.State("THERE"):
                m.d.sync += [
                    descriptor.eq(its),
                    on_ring.eq(~of_host & (ring_call | ring_type)),
                    refused.eq(of_host & (~(known & described & served) | (queue & keyed))),
                ]
                for with_keys, without in _OF_QUEUES.items():
                    with m.If(queue & (operation == with_keys)):
                        m.d.sync += operation.eq(without)
                m.next = "START"
            with m.State("START"):
                m.next = "BUSY"
                m.d.sync += self.of_ring.eq(on_ring)
                m.d.comb += [
                    ring_start.eq(on_ring & ~started),
                    unit.start.eq(~on_ring & ~refused & ~started),
                ]
                with m.If(refused):
                    m.next = "REFUSE"
            with m.State("REFUSE"):
                m.d.comb += [host.done.eq(1), host.found.eq(0), host.status.eq(Errno.EINVAL)]
                m.next = "IDLE"
            with m.State("BUSY"):
                m.d.comb += host.done.eq(unit.done & of_host & ~unit.again)
                with m.If(ring_done & self.answered):
                    m.next = "IDLE"
                with m.If(unit.done & unit.taken):
                    with m.If(of_host):
                        m.d.sync += [walks.eq(unit.again), makes_way.eq(unit.again)]
                    m.next = "IDLE"
        return m

    def _add_rings(self, m: Module, call, descriptor) -> Rings:
        """Their calls, and what they tell."""
        m.submodules.rings = rings = Rings(self.config)
        for name in _RING_PORTS:
            outer, inner = getattr(self, name), getattr(rings, name)
            if name in ("write", "frames"):
                connect(m, *((flipped(outer), inner) if name == "write" else (inner, flipped(outer))))
            elif name == "ended_thread":
                m.d.comb += [own.eq(thread) for own, thread in zip(inner, outer, strict=True)]
            else:
                m.d.comb += outer.eq(inner) if name == "emit_trace" else inner.eq(outer)
        m.d.comb += [
            rings.call.call.eq(call.call),
            rings.call.cpu.eq(Cat(call.thread, call.core)),
            rings.call.index.eq(call.index),
            rings.descriptor.eq(descriptor),
            self.trap.eq(rings.trap & self.of_ring),
            self.ring_value.eq(rings.value),
        ]
        with m.If(self.of_ring):
            m.d.comb += [
                self.shared_trace.valid.eq(rings.decides),
                self.done.eq(rings.done),
                self.copies.eq(rings.copy),
                self.inserts.eq(1),
                self.size.eq(rings.size),
            ]
        return rings
