"""Map memory and the map engine: random traffic against models written from their contracts."""

import random
from collections import deque

import pytest
from amaranth.sim import Simulator

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import MapOperation
from bpfnic.hdl.maps import MapMemory

ATOMICS = [op for op in MapOperation if op not in (MapOperation.LOAD, MapOperation.STORE)]


def simulate(top, bench):
    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def random_request(rng, tag, rows):
    """Any access within a row of the first `rows`; atomics aligned; loads may bring a first half along."""
    operation = rng.choice([MapOperation.LOAD] * 4 + [MapOperation.STORE] * 4 + ATOMICS)
    row = 16 * rng.randrange(rows)
    request = {"tag": tag, "operation": operation, "shift": 0, "data": rng.getrandbits(64)}
    request["compare"] = rng.getrandbits(64)
    if operation in (MapOperation.LOAD, MapOperation.STORE):
        size = rng.randint(1, 8)
        request |= {"bytes": size, "address": row + rng.randint(0, 16 - size)}
        if operation == MapOperation.LOAD:
            first = rng.choice([0, rng.randint(0, 8 - size)])
            request |= {"shift": first, "data": rng.getrandbits(8 * first)}
    else:
        size = rng.choice([4, 8])
        request |= {"bytes": size, "address": row + size * rng.randrange(16 // size)}
    return request


def execute(memory, request):
    """What the request does to the bytes, and its answer."""
    size, start = request["bytes"], request["address"]
    place, mask = slice(start, start + size), (1 << 8 * size) - 1
    old, operand = int.from_bytes(memory[place], "little"), request["data"] & mask
    match request["operation"]:
        case MapOperation.LOAD:
            return request["data"] | old << 8 * request["shift"]
        case MapOperation.STORE:
            new, answer = operand, 0
        case MapOperation.ADD:
            new, answer = (old + operand) & mask, old
        case MapOperation.OR:
            new, answer = old | operand, old
        case MapOperation.AND:
            new, answer = old & operand, old
        case MapOperation.XOR:
            new, answer = old ^ operand, old
        case MapOperation.XCHG:
            new, answer = operand, old
        case MapOperation.CMPXCHG:
            new, answer = operand if old == request["compare"] & mask else old, old
    memory[place] = new.to_bytes(size, "little")
    return answer


@pytest.mark.parametrize(
    "cores, banks, idle, stall", [(1, 4, 0, 0), (1, 1, 0.3, 0.5), (2, 4, 0, 0.5), (3, 2, 0.2, 0.1)]
)
def test_map_memory_in_the_order_of_its_trace(cores, banks, idle, stall):
    """Every access happens when the trace says so, atomically; every answer comes back once, to its requester."""
    config = NicConfig(cores=cores, threads=8, map_banks=banks, map_bytes=4096)
    rng = random.Random(cores * 100 + banks)
    dut = MapMemory(config)
    memory = bytearray(config.map_bytes)
    waiting = [deque() for _ in dut.port]  # sent, not granted
    expected = [{} for _ in dut.port]  # tag -> answer
    counts = {"granted": 0, "answered": 0}

    async def bench(ctx):
        tag = 0
        offered = [None] * len(dut.port)
        for clock in range(2500):
            for i, port in enumerate(dut.port):
                may = clock < 2200 and not (i == cores and (waiting[i] or expected[i])) and rng.random() >= idle
                if offered[i] is None and may:
                    tag = (tag + 1) % 256
                    request = random_request(rng, tag, rows=6)
                    if request["operation"] == MapOperation.CMPXCHG and rng.random() < 0.5:
                        place = slice(request["address"], request["address"] + request["bytes"])
                        request["compare"] = int.from_bytes(memory[place], "little")
                    offered[i] = request
                    ctx.set(port.request.payload, request)
                ctx.set(port.request.valid, offered[i] is not None)
                ctx.set(port.answer.ready, i == cores or rng.random() >= stall)
            await ctx.delay(4e-7)  # everything is settled in the middle of a clock
            for bank in range(banks):
                trace = dut.shared_trace[bank]
                if ctx.get(trace.valid):
                    requester = ctx.get(trace.requester)
                    request = waiting[requester].popleft()
                    assert request["tag"] == ctx.get(trace.tag)
                    assert request["address"] // 16 % banks == bank
                    expected[requester][request["tag"]] = execute(memory, request)
                    counts["granted"] += 1
            for i, port in enumerate(dut.port):
                if ctx.get(port.answer.valid) and ctx.get(port.answer.ready):
                    answer = ctx.get(port.answer.payload)
                    assert answer["data"] == expected[i].pop(answer["tag"])
                    counts["answered"] += 1
                if offered[i] is not None and ctx.get(port.request.ready):
                    waiting[i].append(offered[i])
                    offered[i] = None
            await ctx.tick()
        assert not any(waiting) and not any(expected)

    simulate(dut, bench)
    assert counts["answered"] == counts["granted"] > 300


def test_map_memory_takes_a_request_a_clock():
    config = NicConfig(threads=16, map_bytes=4096)
    dut = MapMemory(config)

    async def bench(ctx):
        port = dut.port[0]
        ctx.set(port.answer.ready, 1)
        ctx.set(port.request.valid, 1)
        answers = []
        for clock in range(70):
            request = {"tag": clock, "operation": MapOperation.LOAD, "address": 16 * clock % 4096, "bytes": 8}
            ctx.set(port.request.payload, request | {"shift": 0, "data": clock, "compare": 0})
            await ctx.delay(4e-7)
            assert ctx.get(port.request.ready)
            if ctx.get(port.answer.valid):
                answers.append((clock, ctx.get(port.answer.payload)["data"]))
            await ctx.tick()
        assert answers == [(clock + 5, clock) for clock in range(65)]

    simulate(dut, bench)


def test_a_bank_takes_an_atomic_every_five_clocks():
    config = NicConfig(threads=16, map_bytes=4096)
    dut = MapMemory(config)

    async def bench(ctx):
        port = dut.port[0]
        ctx.set(port.answer.ready, 1)
        ctx.set(port.request.valid, 1)
        request = {"tag": 0, "operation": MapOperation.ADD, "address": 8, "bytes": 8, "shift": 0, "data": 3}
        ctx.set(port.request.payload, request | {"compare": 0})
        answers = []
        for clock in range(60):
            await ctx.delay(4e-7)
            if ctx.get(port.answer.valid):
                answers.append((clock, ctx.get(port.answer.payload)["data"]))
            await ctx.tick()
        assert answers == [(5 * i + 5, 3 * i) for i in range(len(answers))] and len(answers) == 11

    simulate(dut, bench)
