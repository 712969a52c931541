"""The thread table: where each running thread's packet lies. Distributed memory, written by Dispatch, Service and
Complete."""

from amaranth import Module, Mux
from amaranth.lib import memory
from amaranth.lib.wiring import Component, In

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.packets.records import Resume, Thread, ThreadRead, ThreadWrite


class Threads(Component):
    """Members
    -------
    resume : Complete's write; always done.
    change : Service's write; waits while a program `ends`, which may resume.
    launch : Dispatch's write; waits for both, for a program that runs waits for the other.
    reads : rows, in the same clock.
    """

    def __init__(self, config: NicConfig, reads: int):
        self.config = config
        super().__init__(
            {
                "ends": In(1),
                "resume": In(Resume(config)),
                "launch": In(ThreadWrite(config)),
                "change": In(ThreadWrite(config)),
                "reads": In(ThreadRead(config)).array(reads),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.rows = rows = memory.Memory(shape=Thread(self.config), depth=self.config.threads, init=[])
        write = rows.write_port()
        m.d.comb += [self.change.ready.eq(~self.ends), self.launch.ready.eq(~self.ends & ~self.change.valid)]
        with m.If(self.ends):
            m.d.comb += [write.addr.eq(self.resume.thread), write.data.eq(self.resume.row)]
        with m.Elif(self.change.valid):
            m.d.comb += [write.addr.eq(self.change.thread), write.data.eq(self.change.row)]
        with m.Else():
            m.d.comb += [write.addr.eq(self.launch.thread), write.data.eq(self.launch.row)]
        m.d.comb += write.en.eq(Mux(self.ends, self.resume.valid, self.launch.valid | self.change.valid))
        for read in self.reads:
            port = rows.read_port(domain="comb")
            m.d.comb += [port.addr.eq(read.thread), read.row.eq(port.data)]
        return m
