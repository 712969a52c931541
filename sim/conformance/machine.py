"""What a case runs on: one core of the NIC, its program store and its windows, with one thread in use.

Only a build imports this (it needs Amaranth); a warm start does not.
"""

from amaranth import Module
from amaranth.lib.wiring import Component, In, Out, connect

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core import Core
from bpfnic.hdl.maps import MapMemory
from bpfnic.hdl.packets.buffers import PacketBuffers
from bpfnic.hdl.packets.windows import Windows
from bpfnic.hdl.programs import ProgramStore
from bpfnic.spec import addresses


class Machine(Component):
    """Members
    -------
    load : writes `instruction` into `slot` of the program store.
    word, mask, data : write a word of the memory's buffer, a bit of `mask` for each byte; done 2 clocks later.
    data_end : where the memory ends in its buffer; it begins at HEADROOM.
    start : the thread begins at slot 0, in the clock after. Once after reset.
    budget : instructions that it may retire.
    retired : an instruction retired in this clock.
    finished, cause, verdict : its end: why, and the low half of r0.
    r0, pc : what the trace says that r0 holds, and the slot that comes next.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "slot": In(range(config.program_slots)),
                "load": In(1),
                "instruction": In(64),
                "word": In(range(config.buffer_bytes // 8)),
                "mask": In(8),
                "data": In(64),
                "data_end": In(range(config.buffer_bytes + 1)),
                "start": In(1),
                "budget": In(32),
                "retired": Out(1),
                "finished": Out(1),
                "cause": Out(4),
                "verdict": Out(32),
                "r0": Out(64),
                "pc": Out(range(config.program_slots)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        m.submodules.core = core = Core(config)
        m.submodules.store = store = ProgramStore(config)
        m.submodules.windows = windows = Windows(config)
        m.submodules.buffers = buffers = PacketBuffers(config)
        m.submodules.maps = maps = MapMemory(config)
        connect(m, core.fetch, store.read)
        connect(m, core.local, windows.local)
        connect(m, windows.pair, buffers.pair)
        connect(m, core.map, maps.port[0])
        bounds, row = core.bounds.bounds, windows.thread.row
        m.d.comb += [
            store.write.slot.eq(self.slot),
            store.write.enable.eq(self.load),
            store.write.data.eq(self.instruction),
            core.start.valid.eq(self.start),
            windows.launch.enable.eq(self.start),
            core.budget.eq(self.budget),
            core.finish.ready.eq(1),
            self.retired.eq(core.retired),
            self.finished.eq(core.finish.valid),
            self.cause.eq(core.finish.payload.cause),
            self.verdict.eq(core.finish.payload.verdict),
            bounds.data_meta.eq(addresses.HEADROOM),
            bounds.data.eq(addresses.HEADROOM),
            bounds.data_end.eq(self.data_end),
            row.data.eq(addresses.HEADROOM),
            row.data_end.eq(self.data_end),
            buffers.phase.eq(self.word[0]),
            buffers.write.word.eq(self.word),
            buffers.write.mask.eq(self.mask),
            buffers.write.data.eq(self.data),
        ]
        retire, result = core.retire_trace, core.result_trace
        with m.If(retire.valid):
            m.d.sync += self.pc.eq(retire.next_pc)
            with m.If(retire.write & (retire.register == 0)):
                m.d.sync += self.r0.eq(retire.value)
        with m.If(result.valid & result.write & (result.register == 0)):
            m.d.sync += self.r0.eq(result.value)
        return m
