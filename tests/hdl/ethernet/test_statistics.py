"""The counters: outcomes of both directions at once, each counted once, and bytes across a word's end."""

import random

from amaranth.sim import Simulator

from bpfnic.hdl.ethernet.statistics import Statistics
from bpfnic.spec.ethernet import MacCounter

COUNTERS = [each for each in MacCounter if each is not MacCounter.LINK]


def test_outcomes_of_both_directions():
    """In every order, with a new one coming in any clock of the one before."""
    rng = random.Random(1)
    dut = Statistics()
    kinds = [MacCounter.RECEIVED, MacCounter.FCS_ERROR, MacCounter.RUNT, MacCounter.OVERRUN]
    outcomes = {
        "received": [(rng.choice(kinds), rng.randrange(60, 1514)) for _ in range(200)],
        "sent": [(MacCounter.SENT, rng.randrange(60, 1514)) for _ in range(200)],
    }
    expected = dict.fromkeys(COUNTERS, 0)
    for counter, length in [*outcomes["received"], *outcomes["sent"]]:
        expected[counter] += 1
        if counter in (MacCounter.RECEIVED, MacCounter.SENT):
            low = MacCounter.RECEIVED_BYTES if counter is MacCounter.RECEIVED else MacCounter.SENT_BYTES
            expected[low] += length
    found = {}

    def feed(name):
        port = getattr(dut, name)

        async def process(ctx):
            for counter, length in outcomes[name]:
                await ctx.tick().repeat(rng.randrange(1, 5))
                ctx.set(port.payload, {"counter": counter.value, "bytes": length})
                ctx.set(port.valid, 1)
                await ctx.tick().until(port.ready)
                ctx.set(port.valid, 0)

        return process

    async def read(ctx):
        await ctx.tick().repeat(4000)
        for counter in COUNTERS:
            ctx.set(dut.port.address, counter.value)
            await ctx.tick()
            found[counter] = ctx.get(dut.port.value)

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    for name in outcomes:
        simulator.add_testbench(feed(name), background=True)
    simulator.add_testbench(read)
    simulator.run()
    assert found == expected


def test_bytes_carry_into_the_high_word():
    """From a low word that is nearly full."""
    dut = Statistics()
    dut.words.init[MacCounter.SENT_BYTES] = 2**32 - 8191
    found = []

    async def bench(ctx):
        ctx.set(dut.sent.payload, {"counter": MacCounter.SENT.value, "bytes": 8191})
        ctx.set(dut.sent.valid, 1)
        for _ in range(3):
            await ctx.tick().until(dut.sent.ready)
        ctx.set(dut.sent.valid, 0)
        for counter in (MacCounter.SENT_BYTES, MacCounter.SENT_BYTES_HIGH):
            ctx.set(dut.port.address, counter.value)
            await ctx.tick()
            found.append(ctx.get(dut.port.value))

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert found == [2 * 8191, 1]
