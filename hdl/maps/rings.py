"""All that RINGBUF and PERF_EVENT_ARRAY need: the unit of their calls, the emitter, and who is running."""

from amaranth import Module, Signal
from amaranth.lib import memory, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import EGRESS_USER, Beat, EmitTrace
from bpfnic.hdl.mapinterfaces import DescriptorWrite, TurnPort
from bpfnic.hdl.maps.events import Emitter
from bpfnic.hdl.maps.ring import RUN_BITS, RingUnit, RingUnitPorts


def RingsPorts(config: NicConfig) -> dict:
    """Members of Rings."""
    unit = RingUnitPorts(config)
    names = ("word_write", "word_cpu", "word", "start", "call", "descriptor", "decides", "done", "taken", "trap",
             "copy", "size", "value", "table")  # fmt: skip
    return {name: unit[name] for name in names} | {
        "write": In(DescriptorWrite(config)),
        "ended": In(config.cores),
        "ended_thread": In(range(config.threads)).array(config.cores),
        "emitter_table": Out(TurnPort(config)),
        "frames": Out(stream.Signature(Beat(EGRESS_USER))),
        "emit_trace": Out(EmitTrace(config)),
    }


class Rings(Component):
    """Members
    -------
    word_write, word_cpu, word, start, call, descriptor, decides, done, taken, trap, copy, size, value : see RingUnit.
    write : the engine's DescriptorWrite, as it happens.
    ended, ended_thread : of each core: in this clock a thread's program has ended (its Finish is taken).
    table, emitter_table : TurnPort of mapinterfaces.py, of the unit and of the emitter.
    frames, emit_trace : see Emitter.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(RingsPorts(config))

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        m.submodules.unit = unit = RingUnit(config)
        m.submodules.emitter = emitter = Emitter(config)
        for name, member in unit.signature.members.items():
            if name in self.signature.members and name != "table":
                outer, inner = getattr(self, name), getattr(unit, name)
                m.d.comb += inner.eq(outer) if member.flow is In else outer.eq(inner)
        for name in self.write.signature.members:
            m.d.sync += getattr(emitter.write, name).eq(getattr(self.write, name))
        connect(m, emitter.frames, flipped(self.frames))
        m.d.comb += [
            self.emit_trace.eq(emitter.emit_trace),
            emitter.news.eq(unit.news),
            emitter.news_index.eq(unit.news_index),
            emitter.blocked.eq(unit.busy),
        ]

        # How many programs each CPU has ended: the emitter hears of an end when the number says so.
        ended = Signal.like(self.ended)
        ended_thread = [Signal.like(each, reset_less=True) for each in self.ended_thread]
        m.d.sync += [ended.eq(self.ended), emitter.ended.eq(ended.any())]
        m.d.sync += [after.eq(before) for after, before in zip(ended_thread, self.ended_thread, strict=True)]
        thread_bits = exact_log2(config.threads)
        runs_of = []
        for core in range(config.cores):
            m.submodules[f"runs{core}"] = runs = memory.Memory(shape=RUN_BITS, depth=config.threads, init=[])
            write, ending, of_unit, of_emitter = (
                runs.write_port(),
                *(runs.read_port(domain="comb") for _ in range(3)),
            )
            m.d.comb += [
                ending.addr.eq(ended_thread[core]),
                write.addr.eq(ended_thread[core]),
                write.data.eq(ending.data + 1),
                write.en.eq(ended[core]),
                of_unit.addr.eq(unit.run_cpu[:thread_bits]),
                of_emitter.addr.eq(emitter.run_cpu[:thread_bits]),
            ]
            runs_of.append((of_unit.data, of_emitter.data))
        for number, user in enumerate((unit, emitter)):
            with m.Switch(user.run_cpu[thread_bits:]):
                for core, both in enumerate(runs_of):
                    with m.Case(core):
                        m.d.comb += user.run.eq(both[number])

        connect(m, unit.table, flipped(self.table))
        connect(m, emitter.table, flipped(self.emitter_table))
        return m
