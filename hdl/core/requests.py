"""What leaves the pipeline and waits for another block: accesses to map memory, words for the engine, service calls."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.control import Access
from bpfnic.hdl.interfaces import Service, ServiceRequest
from bpfnic.hdl.mapinterfaces import EngineWord, MapCall, MapOperation, MapRequest
from bpfnic.hdl.queue import Queue
from bpfnic.spec.addresses import MAX_KEY_BYTES


def SharedAccess(config: NicConfig) -> data.StructLayout:
    """A MapRequest without what `side` holds."""
    return data.StructLayout(
        {
            "thread": range(config.threads),
            "operation": MapOperation,
            "address": range(config.map_bytes),
            "bytes": 4,
            "shift": 3,
            "data": 64,
        }
    )


def Call(config: NicConfig) -> data.StructLayout:
    """A word for the engine, or with `serves` a service call. side: the thread's word beside it. holds: more words
    follow, and the thread waits until this one has gone."""
    return data.StructLayout(
        {
            "thread": range(config.threads),
            "serves": 1,
            "service": Service,
            "call": MapCall,
            "flags": 1,
            "last": 1,
            "number": range(MAX_KEY_BYTES // 8),
            "data": 64,
            "side": 64,
            "holds": 1,
        }
    )


PUSHED_BEHIND = 5
"""A pass sees in stage 10 whether the queue of calls is crowded, and pushes its word in stage 14."""


class Requests(Component):
    """Two queues, and a word for each thread beside them. Engine and service share a queue: neither ever waits for the
    other, and calls are rare. A call leaves in the clock of its push, when there is none before it.

    Members
    -------
    side, side_thread, side_value : sets the word of a thread: the map's handle, r1 of a service call, or what CMPXCHG
        compares with. It must be set two clocks before the request is pushed.
    push_shared, shared : an access to map memory. push_call, call : the other queue; the thread is said a clock before,
        as `pushing`, and `call.side` is found here.
    map, engine, service : what they lead to.
    crowded : so many calls are there that who pushes one has to wait for it, for its answer or because it `holds`. So
        there is always room: each thread has one word in the queue for which it waits, at most, and those for which
        nobody waits are no more than were there or on their way when it was not crowded.
    released, released_thread : a clock ago a word that `holds` has gone; the thread may send the next one.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        thread = range(config.threads)
        super().__init__(
            {
                "side": In(1),
                "side_thread": In(thread),
                "side_value": In(64),
                "push_shared": In(1),
                "shared": In(SharedAccess(config)),
                "pushing": In(thread),
                "push_call": In(1),
                "call": In(Call(config)),
                "map": Out(stream.Signature(MapRequest(config))),
                "engine": Out(stream.Signature(EngineWord(config))),
                "service": Out(stream.Signature(ServiceRequest(config))),
                "crowded": Out(1),
                "released": Out(1),
                "released_thread": Out(thread),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        m.submodules.accesses = accesses = Queue(SharedAccess(config), config.threads)
        m.submodules.calls = calls = Queue(Call(config), 2 * config.threads, through=True)
        m.submodules.side = side = memory.Memory(shape=64, depth=config.threads, init=[])
        write = side.write_port()
        compare, first = side.read_port(domain="comb"), side.read_port(domain="comb")
        pushed_side = Signal(64, reset_less=True)
        m.d.sync += pushed_side.eq(first.data)
        m.d.comb += [
            write.en.eq(self.side),
            write.addr.eq(self.side_thread),
            write.data.eq(self.side_value),
            accesses.push.eq(self.push_shared),
            accesses.entry.eq(self.shared),
            calls.push.eq(self.push_call),
            calls.entry.eq(self.call),
            calls.entry.side.eq(pushed_side),
            first.addr.eq(self.pushing),
            self.crowded.eq(calls.level > config.threads - PUSHED_BEHIND),
        ]

        access = accesses.pop.payload
        m.d.comb += [
            self.map.valid.eq(accesses.pop.valid),
            accesses.pop.ready.eq(self.map.ready),
            compare.addr.eq(access.thread),
            self.map.payload.tag.eq(access.thread),
            self.map.payload.operation.eq(access.operation),
            self.map.payload.address.eq(access.address),
            self.map.payload.bytes.eq(access.bytes),
            self.map.payload.shift.eq(access.shift),
            self.map.payload.data.eq(access.data),
            self.map.payload.compare.eq(compare.data),
        ]

        call, sent = calls.pop.payload, Signal()
        m.d.comb += [
            self.service.valid.eq(calls.pop.valid & call.serves),
            self.engine.valid.eq(calls.pop.valid & ~call.serves),
            sent.eq(Mux(call.serves, self.service.ready, self.engine.ready)),
            calls.pop.ready.eq(sent),
            self.engine.payload.thread.eq(call.thread),
            self.engine.payload.call.eq(call.call),
            self.engine.payload.flags.eq(call.flags),
            self.engine.payload.last.eq(call.last),
            self.engine.payload.number.eq(call.number),
            self.engine.payload.handle.eq(call.side),
            self.engine.payload.data.eq(call.data),
            self.service.payload.thread.eq(call.thread),
            self.service.payload.service.eq(call.service),
            self.service.payload.a.eq(call.side),
            self.service.payload.b.eq(call.data),
        ]
        m.d.sync += [
            self.released.eq(calls.pop.valid & sent & call.holds),
            self.released_thread.eq(call.thread),
        ]
        return m


def operation_of(m: Module, control) -> Signal:
    """The MapOperation of a pass with this Control."""
    operation = Signal(MapOperation)
    with m.Switch(control.access):
        with m.Case(Access.LOAD):
            m.d.comb += operation.eq(MapOperation.LOAD)
        with m.Case(Access.STORE):
            m.d.comb += operation.eq(MapOperation.STORE)
        with m.Default():
            m.d.comb += operation.eq(control.operation)
    return operation
