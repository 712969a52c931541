"""Map memory and the map engine: random traffic against models written from their contracts."""

import errno
import random
from collections import deque

import pytest
from amaranth import ClockDomain, Module
from amaranth.sim import Simulator

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import MapCall, MapOperation
from bpfnic.hdl.maps import MapEngine, MapMemory
from bpfnic.spec.addresses import INDEX_BYTES, MAP_VALUES, map_handle
from bpfnic.spec.maps import MapType

CALLS = [MapCall.LOOKUP, MapCall.UPDATE, MapCall.DELETE, MapCall.TAIL, MapCall.REDIRECT]  # what array-like maps serve
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
    "cores, banks, places, idle, stall",
    [(1, 4, 2, 0, 0), (1, 1, 1, 0.3, 0.5), (2, 4, 2, 0, 0.5), (2, 4, 1, 0, 0.5), (3, 2, 2, 0.2, 0.1)],
)
def test_map_memory_in_the_order_of_its_trace(cores, banks, places, idle, stall):
    """Every access happens when the trace says so, atomically; every answer comes back once, to its requester."""
    config = NicConfig(cores=cores, threads=8, map_banks=banks, slice_places=places, map_bytes=4096)
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
        assert answers == [(clock + 6, clock) for clock in range(64)]

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
        assert answers == [(5 * i + 6, 3 * i) for i in range(len(answers))] and len(answers) == 11

    simulate(dut, bench)


def descriptor(**fields):
    return {"type": 0, "base": 0, "entries": 0, "stride": 0, "value_size": 0, "cpu_stride": 0,
            "key_size": INDEX_BYTES} | fields


DESCRIPTORS = {
    0: descriptor(type=MapType.ARRAY, base=0x40, entries=10, stride=24, value_size=20),
    3: descriptor(type=MapType.PERCPU_ARRAY, base=0x400, entries=5, stride=8, value_size=8, cpu_stride=48),
    5: descriptor(type=0, base=0, entries=5, stride=8, value_size=8),
    6: descriptor(type=MapType.RINGBUF, base=0, entries=5, stride=8, value_size=8),
    7: descriptor(type=MapType.PROG_ARRAY, base=0x200, entries=5, stride=4, value_size=4),
    8: descriptor(type=MapType.DEVMAP, base=0x300, entries=5, stride=4, value_size=4),
    9: descriptor(type=MapType.CPUMAP, base=0x340, entries=5, stride=4, value_size=8),
    10: descriptor(type=MapType.XSKMAP, base=0x380, entries=10, stride=4, value_size=4),
    63: descriptor(type=MapType.ARRAY, base=0, entries=65536, stride=1, value_size=1),
}


def kernel_says(call, handle, key, flags, cpu):
    """Answer of a helper, from kernel/bpf/arraymap.c; None for a handle that is no map."""
    index = next((i for i in DESCRIPTORS if map_handle(i) == handle), None)
    types = {
        MapCall.TAIL: (MapType.PROG_ARRAY,),
        MapCall.REDIRECT: (MapType.DEVMAP, MapType.CPUMAP, MapType.XSKMAP),
    }.get(call, (MapType.ARRAY, MapType.PERCPU_ARRAY))
    if index is None or DESCRIPTORS[index]["type"] not in types:
        return None
    at = DESCRIPTORS[index]
    place = MAP_VALUES + at["base"] + cpu * at["cpu_stride"] + key * at["stride"]
    if call in (MapCall.LOOKUP, MapCall.TAIL):
        return place if key < at["entries"] else 0
    if call == MapCall.REDIRECT:
        return place if key < at["entries"] else 0 if at["type"] == MapType.DEVMAP else -errno.ENOENT
    if call == MapCall.DELETE or flags & ~4 > 2:
        return -errno.EINVAL
    if key >= at["entries"]:
        return -errno.E2BIG
    if flags & 1:
        return -errno.EEXIST
    return -errno.EINVAL if flags & 4 else place


@pytest.mark.parametrize("cores", [1, 3])
def test_map_engine_answers_as_the_kernel(cores):
    config = NicConfig(cores=cores, threads=8)
    rng = random.Random(cores)
    dut = MapEngine(config)
    under_way = {}  # (core, thread) -> answer expected
    words = [deque() for _ in range(cores)]
    seen = set()

    def new_call(core, thread):
        call = rng.choice(CALLS)
        handle = map_handle(rng.choice([0, 0, 3, 3, 63, 5, 6, 7, 7, 8, 9, 10, 11, 64]))
        if rng.random() < 0.2:
            handle ^= rng.choice([1, 8, 1 << 10, 1 << 16, 1 << 21, 1 << 29, 1 << 63])
        key = rng.choice([0, 4, 5, 9, 10, 65535, 65536, 1 << 31, rng.randrange(12)])
        flags = rng.choice([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1 << 32, 1 << 63])
        common = {"thread": thread, "call": call, "handle": handle}
        if call == MapCall.UPDATE:
            words[core].append(common | {"flags": 1, "last": 0, "data": flags})
        words[core].append(common | {"flags": 0, "last": 1, "data": key | rng.getrandbits(32) << 32})
        cpu = core * config.threads + thread
        under_way[core, thread] = call, handle, kernel_says(call, handle, key, flags, cpu)

    async def bench(ctx):
        for index, fields in DESCRIPTORS.items():
            ctx.set(dut.write.enable, 1)
            ctx.set(dut.write.index, index)
            ctx.set(dut.write.descriptor, fields)
            await ctx.tick()
        ctx.set(dut.write.enable, 0)
        for clock in range(1500):
            for core, port in enumerate(dut.port):
                thread = rng.randrange(config.threads)
                if clock < 1400 and (core, thread) not in under_way:
                    new_call(core, thread)
                ctx.set(port.word.valid, bool(words[core]))
                if words[core]:
                    ctx.set(port.word.payload, words[core][0])
                ctx.set(port.answer.ready, rng.random() < 0.7)
            await ctx.delay(4e-7)
            for core, port in enumerate(dut.port):
                if ctx.get(port.word.valid) and ctx.get(port.word.ready):
                    words[core].popleft()
                if ctx.get(port.answer.valid) and ctx.get(port.answer.ready):
                    answer = ctx.get(port.answer.payload)
                    call, handle, expected = under_way.pop((core, answer["thread"]))
                    assert answer["trap"] == (expected is None)
                    if expected is not None:
                        assert answer["value"] == expected % 2**64
                        copies = call in (MapCall.UPDATE, MapCall.TAIL, MapCall.REDIRECT) and expected > 0
                        assert answer["copy"] == copies
                        if copies:
                            assert answer["size"] == DESCRIPTORS[handle >> 4 & config.maps - 1]["value_size"]
                    seen.add((call, None if expected is None else min(expected, 1)))
            await ctx.tick()
        assert not under_way

    simulate(dut, bench)
    errors = {-errno.EINVAL, -errno.E2BIG, -errno.EEXIST}
    assert seen == ({(call, None) for call in CALLS} | {(MapCall.UPDATE, says) for says in errors | {1}}
                    | {(MapCall.DELETE, -errno.EINVAL)}
                    | {(MapCall.REDIRECT, -errno.ENOENT)}
                    | {(call, found) for call in (MapCall.LOOKUP, MapCall.TAIL, MapCall.REDIRECT)
                       for found in (0, 1)})  # fmt: skip


def test_after_a_reset_no_handle_is_a_map():
    config = NicConfig(threads=8)
    m, domain, dut = Module(), ClockDomain("sync"), MapEngine(config)
    m.domains.sync, m.submodules.dut = domain, dut

    async def bench(ctx):
        port = dut.port[0]
        ctx.set(port.answer.ready, 1)
        ctx.set(dut.write.enable, 1)
        ctx.set(dut.write.descriptor, DESCRIPTORS[0])
        await ctx.tick()
        ctx.set(dut.write.enable, 0)
        word = {"thread": 1, "call": MapCall.LOOKUP, "flags": 0, "last": 1, "handle": map_handle(0), "data": 2}
        ctx.set(port.word.payload, word)
        for reset, traps in ((0, 0), (1, 1)):
            ctx.set(domain.rst, reset)
            await ctx.tick()
            ctx.set(domain.rst, 0)
            ctx.set(port.word.valid, 1)
            await ctx.tick()
            ctx.set(port.word.valid, 0)
            (answer,) = await ctx.tick().sample(port.answer.payload).until(port.answer.valid)
            assert answer["trap"] == traps

    simulate(m, bench)


def look_up(ctx, port, clock):
    """A look-up of another thread each clock, of another index."""
    word = {"thread": clock % 16, "call": MapCall.LOOKUP, "flags": 0, "last": 1, "handle": map_handle(0)}
    ctx.set(port.word.payload, word | {"data": clock % 10})
    ctx.set(port.word.valid, 1)


@pytest.mark.parametrize("cores", [1, 4])
def test_map_engine_takes_a_word_a_clock(cores):
    """One core's, while the others take no answers of theirs."""
    config = NicConfig(cores=cores, threads=16)
    dut = MapEngine(config)

    async def bench(ctx):
        *others, port = dut.port
        ctx.set(dut.write.enable, 1)
        ctx.set(dut.write.descriptor, DESCRIPTORS[0])
        await ctx.tick()
        ctx.set(dut.write.enable, 0)
        for other in others:
            look_up(ctx, other, 0)
            await ctx.tick()
            ctx.set(other.word.valid, 0)
        ctx.set(port.answer.ready, 1)
        answers = []
        for clock in range(40):
            look_up(ctx, port, clock)
            await ctx.delay(4e-7)
            assert ctx.get(port.word.ready)
            if ctx.get(port.answer.valid):
                answers.append((clock, ctx.get(port.answer.payload)["value"]))
            await ctx.tick()
        assert answers == [(clock + 5, MAP_VALUES + 0x40 + 24 * (clock % 10)) for clock in range(35)]
        assert all(ctx.get(other.answer.valid) for other in others)

    simulate(dut, bench)
