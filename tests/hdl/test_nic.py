"""The whole NIC at its pins: a program goes in over AXI4-Lite, frames go through."""

from amaranth.sim import Simulator

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.nic import Nic
from bpfnic.spec.assembly import assemble
from bpfnic.spec.registers import BY_NAME, CONTROL_ENABLE, ENTRY_VALID

_AXIS = ("data", "keep", "last", "user", "valid", "ready")
FRAME = bytes(range(64))


class Pins:
    """What a test does at the NIC's pins."""

    def __init__(self, ctx, nic):
        self.ctx, self.nic = ctx, nic

    async def _until(self, signal):
        while not self.ctx.get(signal):
            await self.ctx.tick()
        await self.ctx.tick()

    async def write(self, name, value, index=0):
        ctx, nic = self.ctx, self.nic
        for signal, setting in ((nic.s_axil_awaddr, BY_NAME[name].address(index)), (nic.s_axil_wdata, value),
                                (nic.s_axil_wstrb, 15), (nic.s_axil_bready, 1)):  # fmt: skip
            ctx.set(signal, setting)
        ctx.set(nic.s_axil_awvalid, 1)
        ctx.set(nic.s_axil_wvalid, 1)
        await self._until(nic.s_axil_awready)
        ctx.set(nic.s_axil_awvalid, 0)
        ctx.set(nic.s_axil_wvalid, 0)
        await self._until(nic.s_axil_bvalid)
        assert ctx.get(nic.s_axil_bresp) == 0

    async def read(self, name, index=0):
        ctx, nic = self.ctx, self.nic
        ctx.set(nic.s_axil_araddr, BY_NAME[name].address(index))
        ctx.set(nic.s_axil_arvalid, 1)
        await self._until(nic.s_axil_arready)
        ctx.set(nic.s_axil_arvalid, 0)
        ctx.set(nic.s_axil_rready, 1)
        while not ctx.get(nic.s_axil_rvalid):
            await ctx.tick()
        value = ctx.get(nic.s_axil_rdata)
        await ctx.tick()
        return value

    async def load(self, source, port=0):
        code = assemble(source)
        await self.write("PROGRAM_ADDRESS", 0)
        for i in range(0, len(code), 4):
            await self.write("PROGRAM_DATA", int.from_bytes(code[i : i + 4], "little"))
        await self.write("ENTRY", ENTRY_VALID, port)
        await self.write("CONTROL", CONTROL_ENABLE)

    def _axis(self, prefix):
        return {part: getattr(self.nic, f"{prefix}_t{part}") for part in _AXIS}

    async def send(self, name, frame):
        axis = self._axis(f"s_axis_{name}")
        for i in range(0, len(frame), 8):
            beat = frame[i : i + 8]
            self.ctx.set(axis["data"], int.from_bytes(beat, "little"))
            self.ctx.set(axis["keep"], (1 << len(beat)) - 1)
            self.ctx.set(axis["last"], i + 8 >= len(frame))
            self.ctx.set(axis["valid"], 1)
            await self._until(axis["ready"])
        self.ctx.set(axis["valid"], 0)

    async def receive(self, name):
        axis, frame, last = self._axis(f"m_axis_{name}"), b"", False
        self.ctx.set(axis["ready"], 1)
        while not last:
            while not self.ctx.get(axis["valid"]):
                await self.ctx.tick()
            frame += self.ctx.get(axis["data"]).to_bytes(8, "little")[: self.ctx.get(axis["keep"]).bit_count()]
            last, says = self.ctx.get(axis["last"]), self.ctx.get(axis["user"])
            await self.ctx.tick()
        self.ctx.set(axis["ready"], 0)
        return frame, says


def simulate(config, bench):
    nic = Nic(config)
    simulator = Simulator(nic)
    simulator.add_clock(1e-6)

    async def main(ctx):
        await bench(Pins(ctx, nic))

    simulator.add_testbench(main)
    simulator.run()


def test_a_frame_is_sent_back():
    async def bench(pins):
        await pins.load("r0 = 3\nexit")
        await pins.send("port0", FRAME)
        frame, user = await pins.receive("port0")
        assert frame == FRAME
        assert (user & 7, user >> 3) == (0, 3)
        await pins.write("SNAPSHOT", 0)
        counted = [await pins.read(name) for name in ("RECEIVED", "RECEIVED_BYTES", "TRANSMITTED", "SENT")]
        assert counted == [1, 64, 1, 1]
        assert await pins.read("RETIRED") == 2

    simulate(NicConfig(threads=8, program_slots=64, map_bytes=4096), bench)
