"""ARRAY and PERCPU_ARRAY: what array_map_lookup_elem, array_map_update_elem and array_map_delete_elem say
(kernel/bpf/arraymap.c; a program's update of a per-CPU array goes through array_map_update_elem too)."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import MapCall, MapDescriptor
from bpfnic.spec.maps import DEVMAPS, REDIRECT_MAPS, Errno, MapType, UpdateFlag

TYPES = (MapType.ARRAY, MapType.PERCPU_ARRAY)


def UnitCall(config: NicConfig) -> data.StructLayout:
    """Engine -> unit of a map type: a whole call. flags: the low bits; illegal: without LOCK they are above EXIST."""
    return data.StructLayout(
        {
            "call": MapCall,
            "illegal": 1,
            "flags": 3,
            "key": 64,
            "cpu": range(config.cores * config.threads),
            "descriptor": MapDescriptor(config),
        }
    )


def UnitResult(config: NicConfig) -> data.StructLayout:
    """Unit of a map type -> engine. value: if `found` the value's offset in map memory, else an error number or 0."""
    return data.StructLayout({"found": 1, "value": range(config.map_bytes)})


class ArrayUnit(Component):
    """A call each clock; its result 2 clocks later. Members: call (UnitCall), result (UnitResult)."""

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__({"call": In(UnitCall(config)), "result": Out(UnitResult(config))})

    def elaborate(self, platform) -> Module:
        m = Module()
        call, descriptor = self.call, self.call.descriptor
        offset_bits = len(descriptor.base)
        index = call.key[:32]

        # An index below `entries` has its value in map memory: the lower bits say it all.
        base, entry, copy = (Signal(offset_bits, name=name, reset_less=True) for name in ("base", "entry", "copy"))
        error, missing, outside = Signal(6, reset_less=True), Signal(reset_less=True), Signal()
        m.d.comb += outside.eq(index >= descriptor.entries)
        m.d.sync += [
            base.eq(descriptor.base),
            entry.eq(index[:offset_bits] * descriptor.stride),
            copy.eq(call.cpu * descriptor.cpu_stride),
            missing.eq(outside),
            error.eq(0),
        ]
        queues = Cat(descriptor.type == each for each in sorted(REDIRECT_MAPS - DEVMAPS)).any()
        with m.If((call.call == MapCall.REDIRECT) & outside & queues):
            m.d.sync += error.eq(Errno.ENOENT)  # what spec.maps says of an entry that isn't there
        with m.If(call.call == MapCall.DELETE):
            m.d.sync += error.eq(Errno.EINVAL)
        with m.If(call.call == MapCall.UPDATE):
            with m.If(call.illegal):
                m.d.sync += error.eq(Errno.EINVAL)
            with m.Elif(outside):
                m.d.sync += error.eq(Errno.E2BIG)
            with m.Elif(call.flags & UpdateFlag.NOEXIST):
                m.d.sync += error.eq(Errno.EEXIST)
            with m.Elif((call.flags & UpdateFlag.LOCK).any() & ~descriptor.lock.any()):
                m.d.sync += error.eq(Errno.EINVAL)

        found = ~missing & (error == 0)
        result = Signal(UnitResult(self.config), reset_less=True)
        m.d.sync += [result.found.eq(found), result.value.eq(Mux(found, base + entry + copy, error))]
        m.d.comb += self.result.eq(result)
        return m
