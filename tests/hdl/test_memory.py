"""Block memories: the DP16KD version against its behavioural twin, both in Verilator, and the twin's rules."""

import subprocess
from pathlib import Path

import pytest
from amaranth import Array, Cat, ClockDomain, ClockSignal, Const, Module, Signal
from amaranth.back import verilog
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator

from bpfnic.hdl.memory import DualPortRam, SimpleRam
from bpfnic.spec.errors import BpfnicError

# Every block shape, lanes of 8 and 9 bits and whole words, words that fill no block.
SIMPLE = [(72, 256, None), (72, 512, 9), (24, 512, 8), (40, 1024, 8), (36, 1024, 9), (16, 2048, 8), (16, 4096, 16),
          (8, 8192, 8), (2, 16384, None)]  # fmt: skip
DUAL = [(64, 256, 8), (72, 1024, None), (27, 1024, 9), (16, 2048, 8), (9, 2048, 9), (8, 4096, 8), (8, 8192, None),
        (2, 16384, 1)]  # fmt: skip


class Comparison(Component):
    """Drives a DP16KD memory and its twin with the same traffic; `wrong` where defined data differ.

    Addresses take 3 random bits, so that ports meet often, times a step that reaches the memory's last word.
    """

    def __init__(self, dual: bool, width: int, depth: int, lane: int | None, **more: str | int):
        self.dual, self.shape = dual, {"width": width, "depth": depth, "lane": lane, **more}
        lanes = width // (lane or width)
        super().__init__(
            {
                "enable": In(1).array(2), "lanes": In(lanes).array(2), "address": In(3).array(2),
                "data": In(width).array(2), "wrong": Out(1), "compared": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        places = Array(Const(i * (self.shape["depth"] - 1) // 7) for i in range(8))
        a, b = (places[address] for address in self.address)
        kind = DualPortRam if self.dual else SimpleRam
        m.submodules.device = device = kind(**self.shape, target="ecp5")
        m.submodules.twin = twin = kind(**self.shape)
        writes_a, writes_b = self.enable[0], Signal()
        wrong, compared = [], []
        if self.dual:
            # What both write is undefined for good: side B writes only where A doesn't.
            m.d.comb += writes_b.eq(self.enable[1] & ~(writes_a & (a == b)))
            for ram in (device, twin):
                m.d.comb += [ram.a.enable.eq(writes_a), ram.a.address.eq(a), ram.a.write_data.eq(self.data[0])]
                m.d.comb += [ram.b.enable.eq(writes_b), ram.b.address.eq(b), ram.b.write_data.eq(self.data[1])]
                if "lanes" in ram.a.signature.members:
                    m.d.comb += [ram.a.lanes.eq(self.lanes[0]), ram.b.lanes.eq(self.lanes[1])]
            ports = [(device.a.read_data, twin.a.read_data, writes_a, writes_b),
                     (device.b.read_data, twin.b.read_data, writes_b, writes_a)]  # fmt: skip
        else:
            for ram in (device, twin):
                m.d.comb += [ram.write.enable.eq(writes_a), ram.write.address.eq(a), ram.read.address.eq(b)]
                if "lanes" in ram.write.signature.members:
                    m.d.comb += ram.write.lanes.eq(self.lanes[0])
                m.d.comb += ram.write.data.eq(self.data[0])
            ports = [(device.read.data, twin.read.data, Const(0), writes_a)]
        for device_data, twin_data, writes, other_writes in ports:
            latched = Signal(init=1)  # the array's output is defined
            valid = Signal(init=1)
            m.d.sync += [latched.eq(~writes & ~(other_writes & (a == b))), valid.eq(latched)]
            defined = latched if self.shape.get("latency") == 1 else valid
            wrong.append(defined & (device_data != twin_data))
            compared.append(defined)
        m.d.comb += [self.wrong.eq(Cat(wrong).any()), self.compared.eq(Cat(compared).all())]
        return m


class AllComparisons(Component):
    """One random word drives all of them. The last two read without an output register, and in a domain of its own,
    whose clock is the same."""

    def __init__(self):
        self.each = [Comparison(dual, *shape) for dual, shapes in ((False, SIMPLE), (True, DUAL)) for shape in shapes]
        self.each.append(Comparison(True, 64, 2048, None, latency=1))
        self.each.append(Comparison(False, 72, 512, None, read_domain="reads"))
        count = len(self.each)
        super().__init__({"random": In(256), "wrong": Out(count), "compared": Out(count)})

    def elaborate(self, platform):
        m = Module()
        m.domains += ClockDomain("reads", reset_less=True)
        m.d.comb += ClockSignal("reads").eq(ClockSignal())
        for number, each in enumerate(self.each):
            m.submodules[f"comparison{number}"] = each
            bits = self.random
            for side in range(2):
                half = bits[128 * side : 128 * side + 128]
                # Writes in half of the clocks, in random lanes.
                m.d.comb += [each.enable[side].eq(half[0]), each.lanes[side].eq(half[1:32])]
                m.d.comb += [each.address[side].eq(half[32:35]), each.data[side].eq(half[35:])]
            m.d.comb += [self.wrong[number].eq(each.wrong), self.compared[number].eq(each.compared)]
        return m


MAIN = """
#include "Vcomparisons.h"
#include "verilated.h"
#include <cstdint>
#include <cstdio>
static uint64_t state = 88172645463325252ull;
static uint32_t next() { state ^= state << 13; state ^= state >> 7; state ^= state << 17; return state >> 16; }
int main() {
    Vcomparisons top;
    unsigned long compared[32] = {0};
    top.rst = 0;
    for (int clock = 0; clock < 50000; clock++) {
        for (int i = 0; i < 8; i++) top.random[i] = next();
        top.clk = 0; top.eval(); top.clk = 1; top.eval();
        if (top.wrong) { printf("clock %d: comparisons 0x%x differ\\n", clock, (unsigned)top.wrong); return 1; }
        for (int i = 0; i < 32; i++) compared[i] += top.compared >> i & 1;
    }
    for (int i = 0; i < COUNT; i++) printf("%lu\\n", compared[i]);
    top.final();
    return 0;
}
"""


def test_device_and_twin_agree_under_random_traffic(tmp_path, verilate):
    top = AllComparisons()
    source = tmp_path / "comparisons.v"
    source.write_text(verilog.convert(top, name="comparisons", emit_src=False))
    model = Path(__file__).parent / "dp16kd.v"
    simulation = verilate([source, model], MAIN.replace("COUNT", str(len(top.each))), "comparisons")
    run = subprocess.run([simulation], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    compared = [int(line) for line in run.stdout.split()]
    assert len(compared) == len(top.each) and min(compared) > 10_000


def test_latency_is_two_clocks():
    ram = DualPortRam(width=16, depth=16, lane=8)

    async def bench(ctx):
        async def step(lanes, address, data=0):
            ctx.set(ram.a.enable, lanes != 0)
            ctx.set(ram.a.lanes, lanes)
            ctx.set(ram.a.address, address)
            ctx.set(ram.a.write_data, data)
            await ctx.tick()
            return ctx.get(ram.a.read_data)

        await step(0b11, 3, 0x1234)
        await step(0b10, 3, 0xAB00)
        await step(0b11, 4, 0x5678)
        assert await step(0, 3) == 0  # data is in the array's output
        assert await step(0b11, 3, 0xFFFF) == 0xAB34
        await step(0, 4)
        assert await step(0, 3) == 0x5678
        assert await step(0, 0) == 0xFFFF

    simulator = Simulator(ram)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"width": 16, "depth": 24}, "depth must be a power of two"),
        ({"width": 20, "depth": 32, "lane": 8}, "width must be a multiple of the lane's 8 bits, not 20"),
        ({"width": 16, "depth": 32768, "target": "ecp5"}, "depth must be at most 16384 on ecp5"),
        ({"width": 16, "depth": 32, "target": "ice40"}, "target must be generic or ecp5, not 'ice40'"),
    ],
)
@pytest.mark.parametrize("kind", [SimpleRam, DualPortRam])
def test_refused_shapes(kind, arguments, message):
    with pytest.raises(BpfnicError, match=message):
        kind(**arguments)
