"""Calls on keyed maps: they wait here, those of the host among them, until the table unit can take them."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import ceil_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.queue import Queue
from bpfnic.hdl.interfaces import EngineWord, MapCall, MapDescriptor, MapHostPort, SharedTrace, TablePort
from bpfnic.hdl.maps.hash import HashUnit, TableOperation
from bpfnic.spec.addresses import HANDLE_KEY_BIT, MAX_KEY_BYTES
from bpfnic.spec.maps import Errno, MapType
from bpfnic.spec.registers import MapCommand

_OF_CALL = {
    MapCall.LOOKUP: TableOperation.LOOKUP,
    MapCall.UPDATE: TableOperation.UPDATE,
    MapCall.DELETE: TableOperation.DELETE,
    MapCall.INSERT: TableOperation.INSERT,
}
_OF_COMMAND = {command: TableOperation[command.name] for command in MapCommand}


def WaitingCall(config: NicConfig) -> data.StructLayout:
    """A program's call, whose key has been written. illegal: the flags are above EXIST."""
    return data.StructLayout(
        {
            "core": (config.cores - 1).bit_length(),
            "thread": range(config.threads),
            "index": range(config.maps),
            "call": MapCall,
            "flags": 2,
            "illegal": 1,
        }
    )


class TableCalls(Component):
    """Members
    -------
    word_write, word_core, word : a word of a key arrives.
    push, pushed : a call whose key is there. There is room for one of every thread.
    looks : asks for the next clock's look at the descriptors, at `index`; `descriptor` 2 clocks later. present : a bit
        for each descriptor that has been written.
    done : a program's call is, as `answered` allows; of `thread` of `core`. `copies`, if `found`: an UPDATE, of `size`
        bytes. found, value, status : see HashUnit.
    host : interfaces.MapHostPort. table : interfaces.TablePort. shared_trace : the call that is decided in this clock.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        waiting = WaitingCall(config)
        super().__init__(
            {
                "word_write": In(1),
                "word_core": In((config.cores - 1).bit_length()),
                "word": In(EngineWord(config)),
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
                "size": Out(range(4097)),
                "found": Out(1),
                "value": Out(range(config.map_bytes)),
                "status": Out(6),
                "host": In(MapHostPort(config)),
                "table": Out(TablePort(config)),
                "shared_trace": Out(SharedTrace(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, host = self.config, self.host
        m.submodules.unit = unit = HashUnit(config)
        m.submodules.waiting = waiting = Queue(WaitingCall(config), config.cores * config.threads)
        connect(m, unit.table, flipped(self.table))

        # Keys: zeros behind their end.
        key_end = self.word.handle[HANDLE_KEY_BIT:][: ceil_log2(MAX_KEY_BYTES)]
        whole = self.word.number != key_end[3:]
        keep = Cat((whole | (byte <= key_end[:3])).replicate(8) for byte in range(8))
        m.d.comb += [
            unit.word_write.eq(self.word_write),
            unit.word_cpu.eq(Cat(self.word.thread, self.word_core)),
            unit.word_number.eq(self.word.number),
            unit.word.eq(self.word.data & keep),
            unit.host_word.eq(host.key_word),
            unit.host_write.eq(host.key_write),
            unit.host_data.eq(host.key_data),
            host.key.eq(unit.host_key),
            waiting.push.eq(self.push),
            waiting.entry.eq(self.pushed),
        ]

        call, of_host = Signal(WaitingCall(config), reset_less=True), Signal(reset_less=True)
        descriptor = Signal(MapDescriptor(config), reset_less=True)
        operation, known = Signal(TableOperation), Signal()
        with m.If(of_host):
            m.d.comb += known.eq(1)
            with m.Switch(host.operation):
                for number, each in _OF_COMMAND.items():
                    with m.Case(number):
                        m.d.comb += operation.eq(each)
                with m.Default():
                    m.d.comb += known.eq(0)
        with m.Else():
            with m.Switch(call.call):
                for kind, each in _OF_CALL.items():
                    with m.Case(kind):
                        m.d.comb += operation.eq(each)
        m.d.comb += [
            self.index.eq(call.index),
            unit.descriptor.eq(descriptor),
            unit.call.operation.eq(operation),
            unit.call.host.eq(of_host),
            unit.call.cpu.eq(Mux(of_host, config.cores * config.threads, Cat(call.thread, call.core))),
            unit.call.flags.eq(Mux(of_host, host.flags, call.flags)),
            unit.call.illegal.eq(~of_host & call.illegal),
            unit.taken.eq(of_host | self.answered),
            self.shared_trace.valid.eq(unit.decides & ~of_host),
            self.shared_trace.requester.eq(call.core),
            self.shared_trace.tag.eq(call.thread),
            self.done.eq(unit.done & ~of_host),
            self.core.eq(call.core),
            self.thread.eq(call.thread),
            self.copies.eq(call.call == MapCall.UPDATE),
            self.size.eq(descriptor.value_size),
            self.found.eq(unit.found),
            self.value.eq(unit.value),
            self.status.eq(unit.status),
            host.found.eq(unit.found),
            host.value.eq(unit.value),
            host.status.eq(unit.status),
        ]

        none = Signal()  # the host names no map of this unit
        served = descriptor.type == MapType.HASH
        in_range = host.index < config.maps
        m.d.comb += none.eq(of_host & ~(known & in_range & served & Array(self.present)[call.index]))
        with m.FSM():
            with m.State("IDLE"):  # the host first: it has a command at a time, and few
                m.d.sync += [of_host.eq(host.command), call.eq(waiting.pop.payload)]
                with m.If(host.command):
                    m.d.sync += call.index.eq(host.index)
                m.d.comb += waiting.pop.ready.eq(~host.command)
                with m.If(host.command | waiting.pop.valid):
                    m.d.comb += self.looks.eq(1)
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.next = "COMES"
            with m.State("COMES"):
                m.next = "THERE"
            with m.State("THERE"):
                m.d.sync += descriptor.eq(self.descriptor)
                m.next = "START"
            with m.State("START"):
                m.d.comb += unit.start.eq(~none)
                m.next = "BUSY"
                with m.If(none):
                    m.d.comb += [host.done.eq(1), host.found.eq(0), host.status.eq(Errno.EINVAL)]
                    m.next = "IDLE"
            with m.State("BUSY"):
                m.d.comb += host.done.eq(unit.done & of_host)
                with m.If(unit.done & unit.taken):
                    m.next = "IDLE"
        return m
