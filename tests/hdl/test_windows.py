"""Stack memory against bytes in Python: random threads, offsets, sizes, new packets, an access each clock, of a thread
that had none in the two clocks before."""

import random

from amaranth.sim import Simulator

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import Region
from bpfnic.hdl.packets.windows import Windows
from bpfnic.spec.addresses import STACK_WINDOW_BYTES

ACCESSES = 3000
LATENCY = 3


def test_stack_loads_take_any_alignment_and_start_at_zero() -> None:
    config = NicConfig(threads=8)
    windows = Windows(config)
    choose = random.Random(1)
    stacks = [bytearray(STACK_WINDOW_BYTES) for _ in range(config.threads)]
    expected: list[int | None] = []

    async def bench(ctx) -> None:
        local, launch = windows.local, windows.launch
        ctx.set(local.region, Region.STACK)
        threads = [0, 1, 2]
        for clock in range(ACCESSES + LATENCY):
            if clock >= LATENCY and (value := expected[clock - LATENCY]) is not None:
                assert ctx.get(local.read_data) == value
            thread, other = choose.sample([each for each in range(config.threads) if each not in threads[1:]], 2)
            threads = [*threads[1:], thread]
            size, write = choose.randrange(4), choose.random() < 0.4
            # A few places, so that words are met again; near the window's ends too.
            end = STACK_WINDOW_BYTES
            offset = choose.choice((0, 8, 200, 208, 504, 512, end - 16, end - 8)) + choose.randrange(8)
            offset = offset >> size << size if write else min(offset, STACK_WINDOW_BYTES - (1 << size))
            data = choose.getrandbits(64)
            starts = choose.random() < 0.02
            ctx.set(launch.enable, starts)
            ctx.set(launch.thread, other)
            ctx.set(local.enable, 1)
            ctx.set(local.write, write)
            ctx.set(local.thread, thread)
            ctx.set(local.offset, offset)
            ctx.set(local.even, offset + 8 >> 4)
            ctx.set(local.size, size)
            ctx.set(local.lanes, (1 << (1 << size)) - 1 << offset % 8)
            ctx.set(local.write_data, data)
            place = slice(offset, offset + (1 << size))
            if write:
                stacks[thread][place] = data.to_bytes(8, "little")[: 1 << size]
                expected.append(None)
            else:
                expected.append(int.from_bytes(stacks[thread][place], "little"))
            if starts:
                stacks[other] = bytearray(STACK_WINDOW_BYTES)
            await ctx.tick()

    simulator = Simulator(windows)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert sum(value is not None and value != 0 for value in expected) > ACCESSES // 4
