"""The queue between two clocks: edges of both in random order, and each clock standing still for long now and then."""

import random
from collections import deque

from amaranth import ClockDomain, Fragment
from amaranth.sim import Simulator

from bpfnic.hdl.ethernet.crossing import Crossing

DEPTH, SPARE = 16, 3


def simulate(bench) -> None:
    """Runs `bench` with the queue and its two domains, whose clocks it sets."""
    dut = Crossing(8, DEPTH, spare=SPARE, write_domain="write", read_domain="read")
    domains = ClockDomain("write"), ClockDomain("read")
    fragment = Fragment.get(dut, None)
    fragment.add_domains(*domains)

    async def edge(ctx, domain) -> None:
        ctx.set(domain.clk, 1)
        await ctx.delay(1e-9)
        ctx.set(domain.clk, 0)
        await ctx.delay(1e-9)

    async def process(ctx):
        await bench(ctx, dut, *domains, edge)

    simulator = Simulator(fragment)
    simulator.add_testbench(process)
    simulator.run()


def test_entries_come_out_in_order_once():
    """The writer takes `room` at its word: it writes up to `spare` entries in the clocks behind it. The queue is now
    full, now empty."""
    rng = random.Random(1)
    inside: deque[int] = deque()
    fills, taken = set(), 0

    async def bench(ctx, dut, writing, reading, edge):
        nonlocal taken
        wrote = deque([0, 0], maxlen=2)  # in the clocks that `room` doesn't know of
        for _ in range(200):
            writes, shares = rng.choice([0, 0.5, 0.95]), rng.choice([0.05, 0.5, 0.95])
            for _ in range(80):
                if rng.random() < shares:
                    entry, valid = rng.randrange(256), rng.random() < writes
                    valid = valid and bool(ctx.get(dut.room)) and sum(wrote) < SPARE
                    ctx.set(dut.write.payload, entry)
                    ctx.set(dut.write.valid, valid)
                    wrote.append(valid)
                    await edge(ctx, writing)
                    if valid:
                        inside.append(entry)
                else:
                    ready = rng.random() < 0.8
                    ctx.set(dut.read.ready, ready)
                    leaves = ready and ctx.get(dut.read.valid)
                    if leaves:
                        assert ctx.get(dut.read.payload) == inside.popleft()
                        taken += 1
                    await edge(ctx, reading)
                fills.add(len(inside))

    simulate(bench)
    assert taken > 1000 and min(fills) == 0 and max(fills) >= DEPTH


def test_a_reset_that_the_writer_hears_late():
    """Its clock stands still: what it had written doesn't come, nor anything else when its reset comes at last."""
    seen = []

    async def bench(ctx, dut, writing, reading, edge):
        async def read(clocks: int) -> None:
            ctx.set(dut.read.ready, 1)
            for _ in range(clocks):
                if ctx.get(dut.read.valid):
                    seen.append(ctx.get(dut.read.payload))
                await edge(ctx, reading)

        async def write(*entries: int) -> None:
            for entry in entries:
                ctx.set(dut.write.payload, entry)
                ctx.set(dut.write.valid, 1)
                await edge(ctx, writing)
            ctx.set(dut.write.valid, 0)

        await write(1, 2, 3, 4)
        await read(6)
        ctx.set(writing.rst, 1)
        ctx.set(reading.rst, 1)
        await edge(ctx, reading)
        ctx.set(reading.rst, 0)
        before = list(seen)
        await read(20)
        assert before and seen == before
        await edge(ctx, writing)
        await read(20)
        ctx.set(writing.rst, 0)
        await read(20)
        assert seen == before
        await write(5, 6)
        await read(20)
        assert seen == [*before, 5, 6]

    simulate(bench)
