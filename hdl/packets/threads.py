"""The thread table: where each running thread's packet lies. Distributed memory, written by Dispatch and Service."""

from amaranth import Module
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.packets.records import Thread, ThreadRead, ThreadWrite


class Threads(Component):
    """Members
    -------
    launch : Dispatch's write; always ready.
    change : Service's write; waits for Dispatch.
    reads : rows, in the same clock.
    """

    def __init__(self, config: NicConfig, reads: int):
        self.config = config
        super().__init__(
            {
                "launch": In(ThreadWrite(config)),
                "change": In(ThreadWrite(config)),
                "reads": In(ThreadRead(config)).array(reads),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.rows = rows = memory.Memory(shape=Thread(self.config), depth=self.config.threads, init=[])
        write = rows.write_port()
        m.d.comb += [self.launch.ready.eq(1), self.change.ready.eq(~self.launch.valid)]
        with m.If(self.launch.valid):
            m.d.comb += [write.addr.eq(self.launch.thread), write.data.eq(self.launch.row)]
        with m.Else():
            m.d.comb += [write.addr.eq(self.change.thread), write.data.eq(self.change.row)]
        m.d.comb += write.en.eq(self.launch.valid | self.change.valid)
        for read in self.reads:
            port = rows.read_port(domain="comb")
            m.d.comb += [port.addr.eq(read.thread), read.row.eq(port.data)]
        return m
