"""A NIC in cocotb: clock, reset, a source and a sink for each interface, and the registers by name."""

import itertools
import logging
import random
from collections.abc import Iterator

from cocotb.clock import Clock
from cocotb.handle import SimHandleBase
from cocotb.triggers import ClockCycles
from cocotbext.axi import (
    AxiLiteBus,
    AxiLiteMaster,
    AxiStreamBus,
    AxiStreamFrame,
    AxiStreamSink,
    AxiStreamSource,
)

from bpfnic.spec import registers
from bpfnic.spec.assembly import assemble

CLOCK_NS = 8


def pauses(percent: int, seed: int) -> Iterator[bool]:
    """Clocks in which a stream is held up, at random."""
    rng = random.Random(seed)
    return (rng.random() * 100 < percent for _ in itertools.count())


class Bench:
    """
    Attributes
    ----------
    names : of the interfaces, as hdl/nic.py's ports have them.
    sources, sinks : of cocotbext-axi, by interface number.
    """

    def __init__(self, dut: SimHandleBase, ports: int = 2):
        logging.getLogger("cocotb.nic").setLevel(logging.WARNING)
        self.dut = dut
        self.names = [f"port{port}" for port in range(ports)] + ["host"]
        self.sources = [self._stream(AxiStreamSource, f"s_axis_{name}") for name in self.names]
        self.sinks = [self._stream(AxiStreamSink, f"m_axis_{name}") for name in self.names]
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)

    def _stream(self, kind: type, prefix: str):
        return kind(AxiStreamBus.from_prefix(self.dut, prefix), self.dut.clk, self.dut.rst)

    async def start(self) -> None:
        """Start the clock and reset the NIC."""
        self.dut.rst.value = 1
        self.dut.advance.value = 0
        Clock(self.dut.clk, CLOCK_NS, unit="ns").start()
        await self.clocks(4)
        self.dut.rst.value = 0
        await self.clocks(2)

    async def clocks(self, count: int) -> None:
        """Let clocks pass."""
        await ClockCycles(self.dut.clk, count)

    def pace(self, idle: int, stall: int, seed: int = 1) -> None:
        """Percent of clocks in which sources are idle and sinks not ready."""
        for number, (source, sink) in enumerate(zip(self.sources, self.sinks, strict=True)):
            source.set_pause_generator(pauses(idle, seed * 16 + number))
            sink.set_pause_generator(pauses(stall, seed * 16 + 8 + number))

    # ---------------------------------------------------------------- registers

    async def write(self, name: str, value: int, index: int = 0) -> None:
        """Write a register of spec.registers."""
        await self.master.write_dword(registers.BY_NAME[name].address(index), value)

    async def read(self, name: str, index: int = 0) -> int:
        """Read a register of spec.registers."""
        return await self.master.read_dword(registers.BY_NAME[name].address(index))

    async def load(self, source: str, slot: int = 0) -> None:
        """Assemble a program into the program store."""
        code = assemble(source)
        await self.write("PROGRAM_ADDRESS", 2 * slot)
        for at in range(0, len(code), 4):
            await self.write("PROGRAM_DATA", int.from_bytes(code[at : at + 4], "little"))

    # ---------------------------------------------------------------- frames

    def offer(self, interface: int, data: bytes, user: int = 0) -> None:
        """Queue a frame. user: bit 0 bad; for the host bits 3..1 the egress."""
        self.sources[interface].send_nowait(AxiStreamFrame(data, tuser=user))

    def taken(self, interface: int) -> list[tuple[bytes, int]]:
        """Frames that an egress has sent until now, each once: bytes and tuser."""
        frames = []
        while not self.sinks[interface].empty():
            frame = self.sinks[interface].recv_nowait(compact=False)
            users = set(frame.tuser)
            assert len(users) == 1, f"tuser changed within a frame: {users}"
            keep = frame.tkeep
            length = sum(keep)
            assert keep == [1] * length + [0] * (len(keep) - length) and len(keep) - length < 8, "tkeep has holes"
            frames.append((bytes(frame.tdata[:length]), users.pop()))
        return frames
