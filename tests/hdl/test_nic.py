"""The whole NIC at its pins: a program goes in over AXI4-Lite, frames go through."""

from amaranth.sim import Simulator

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.nic import Nic, interface_names
from bpfnic.spec.addresses import map_handle
from bpfnic.spec.assembly import assemble
from bpfnic.spec.maps import MapType
from bpfnic.spec.registers import BY_NAME, CONTROL_ENABLE, ENTRY_VALID, MODE_INGRESS_WAITS

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

    async def receive(self, name, frames):
        """Appends what comes out of an interface, for ever: (frame, user bits)."""
        axis, frame = self._axis(f"m_axis_{name}"), b""
        self.ctx.set(axis["ready"], 1)
        while True:
            await self.ctx.delay(4e-7)
            if self.ctx.get(axis["valid"]):
                frame += self.ctx.get(axis["data"]).to_bytes(8, "little")[: self.ctx.get(axis["keep"]).bit_count()]
                if self.ctx.get(axis["last"]):
                    frames.append((frame, self.ctx.get(axis["user"])))
                    frame = b""
            await self.ctx.tick()


def simulate(config, bench):
    nic = Nic(config)
    simulator = Simulator(nic)
    simulator.add_clock(1e-6)

    received = {name: [] for name in interface_names(config)}

    async def main(ctx):
        await bench(Pins(ctx, nic), received)

    simulator.add_testbench(main)
    for name, frames in received.items():

        async def receive(ctx, name=name, frames=frames):
            await Pins(ctx, nic).receive(name, frames)

        simulator.add_testbench(receive, background=True)
    simulator.run()


def test_a_frame_is_sent_back():
    async def bench(pins, received):
        await pins.load("r0 = 3\nexit")
        await pins.send("port0", FRAME)
        await pins.ctx.tick().repeat(100)
        assert received == {"port0": [(FRAME, 0 | 3 << 3)], "port1": [], "host": []}
        await pins.write("SNAPSHOT", 0)
        counted = [await pins.read(name) for name in ("RECEIVED", "RECEIVED_BYTES", "TRANSMITTED", "SENT")]
        assert counted == [1, 64, 1, 1]
        assert await pins.read("RETIRED") == 2

    simulate(NicConfig(threads=8, program_slots=64, map_bytes=4096, map_types=frozenset({MapType.ARRAY})), bench)


def test_map_helpers_of_two_cores_and_atomics():
    """Every packet adds 1 to a shared counter atomically and to its thread's own without; the two agree at the end."""
    arrays = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
    config = NicConfig(cores=2, threads=8, program_slots=64, map_bytes=4096, map_types=arrays)
    frames = 24
    program = f"""
        r6 = 0x12
        *(u32 *)(r10 - 4) = r6
        r1 = {map_handle(3)} ll
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto fail
        r1 = 1
        lock *(u64 *)(r0 + 0) += r1
        r7 = 1
        *(u32 *)(r10 - 4) = r7
        r1 = {map_handle(4)} ll
        r2 = r10
        r2 += -4
        call 1
        if r0 == 0 goto fail
        r1 = *(u64 *)(r0 + 0)
        r1 += 1
        *(u64 *)(r0 + 0) = r1
        r3 = 0x1122334455667788 ll
        *(u64 *)(r10 - 16) = r3
        r1 = {map_handle(3)} ll
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -16
        r4 = 0
        call 2
        if r0 != 0 goto fail
        r1 = {map_handle(3)} ll
        r2 = r10
        r2 += -4
        call 3
        if r0 != -22 goto fail
        r0 = 2
        exit
    fail:
        r0 = 1
        exit
    """

    async def bench(pins, received):
        shared = {"TYPE": MapType.ARRAY, "BASE": 0, "ENTRIES": 20, "STRIDE": 8, "VALUE_SIZE": 8, "CPU_STRIDE": 0}
        own = {"TYPE": MapType.PERCPU_ARRAY, "BASE": 1024, "ENTRIES": 2, "STRIDE": 8, "VALUE_SIZE": 8, "CPU_STRIDE": 16}
        for index, fields in ((3, shared), (4, own)):
            for name, value in fields.items():
                await pins.write(f"MAP_{name}", value)
            await pins.write("MAP_COMMIT", index)
        await pins.write("MODE", MODE_INGRESS_WAITS)
        await pins.load(program)
        for _ in range(frames):
            await pins.send("port0", FRAME)
        for _ in range(20):
            if len(received["host"]) < frames:
                await pins.ctx.tick().repeat(200)
        assert received["host"] == [(FRAME, 2 << 3)] * frames

        async def words(address, count):
            await pins.write("MAP_ADDRESS", address)
            halves = [await pins.read("MAP_DATA") for _ in range(2 * count)]
            return [low | high << 32 for low, high in zip(halves[::2], halves[1::2], strict=True)]

        assert await words(8 * 0x12, 1) == [frames]
        each = await words(1024, 2 * config.cores * config.threads)
        assert sum(each[1::2]) == frames and not any(each[::2])
        assert sum(count > 0 for count in each) > config.threads  # both cores took part
        assert await words(8, 1) == [0x1122334455667788]
        await pins.write("SNAPSHOT", 0)
        assert await pins.read("PASSED") == frames

    simulate(config, bench)
