"""The divider alone, against Python's integers."""

import random
from itertools import product

import pytest
from amaranth.sim import Simulator

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.divider import Divider

THREADS = 8
POSITIVE = [0, 1, 2, 7, 1 << 16, 1 << 31, (1 << 63) - 1]
EDGES = sorted({n & (1 << 64) - 1 for edge in POSITIVE for n in (edge, -edge, ~edge)})


def quotient_and_remainder(dividend: int, divisor: int, signed: bool) -> tuple[int, int]:
    """RFC 9669 section 4.1, in 64 bits: towards 0, the remainder with its dividend's sign; by 0: 0 and the dividend."""
    if divisor == 0:
        return 0, dividend
    a, b = ((n - (1 << 64) if signed and n >> 63 else n) for n in (dividend, divisor))
    quotient, remainder = divmod(abs(a), abs(b))
    quotient, remainder = quotient if (a < 0) == (b < 0) else -quotient, -remainder if a < 0 else remainder
    return quotient & (1 << 64) - 1, remainder & (1 << 64) - 1


def clocks(dividend: int, signed: bool) -> int:
    size = (1 << 64) - dividend if signed and dividend >> 63 else dividend
    return 10 + 15 * max(1, -(-size.bit_length() // 16))


def run(divisions: list[tuple[int, int, bool, bool]], threads: int, stall: float) -> list[tuple[int, int]]:
    """Divisions (dividend, divisor, signed, modulo), one after the other on each thread: each one's result, and the
    clocks from its push, or from the answer before it if that came later, to its own."""
    divider, choose = Divider(NicConfig(threads=THREADS)), random.Random(1)
    results: list[tuple[int, int]] = []
    numbers: dict[int, int] = {}  # thread -> the division that it waits for

    async def bench(ctx) -> None:
        waiting, pushed, answered, now = list(enumerate(divisions)), {}, 0, 0
        found: dict[int, tuple[int, int]] = {}
        while len(found) < len(divisions):
            ctx.set(divider.push, 0)
            ctx.set(divider.keep, 0)
            idle = [thread for thread in range(threads) if thread not in numbers]
            if waiting and idle and choose.random() < 0.5:
                thread = choose.choice(idle)
                number, (dividend, divisor, signed, modulo) = waiting.pop(0)
                numbers[thread], pushed[number] = number, now
                ctx.set(divider.keep, 1)
                ctx.set(divider.keeper, thread)
                ctx.set(divider.divisor, divisor)
                ctx.set(divider.push, 1)
                ctx.set(divider.division, {"thread": thread, "signed": signed, "modulo": modulo, "dividend": dividend})
            ctx.set(divider.answer.ready, choose.random() >= stall)
            if ctx.get(divider.answer.valid) and ctx.get(divider.answer.ready):
                number = numbers.pop(ctx.get(divider.answer.payload.thread))
                found[number] = ctx.get(divider.answer.payload.value), now - max(pushed[number], answered)
                answered = now
            await ctx.tick()
            now += 1
        results.extend(found[number] for number in range(len(divisions)))

    simulator = Simulator(divider)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return results


def sample(choose: random.Random) -> int:
    bits = choose.choice([1, 4, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64])
    return choose.getrandbits(bits) * choose.choice([1, -1]) % (1 << 64)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("modulo", [False, True])
def test_edges(signed: bool, modulo: bool) -> None:
    pairs = list(product(EDGES, EDGES))
    results = run([(a, b, signed, modulo) for a, b in pairs], threads=1, stall=0)
    for (a, b), (value, took) in zip(pairs, results, strict=True):
        assert value == quotient_and_remainder(a, b, signed)[modulo], (a, b)
        assert took == clocks(a, signed), (a, b)


@pytest.mark.parametrize("stall", [0, 0.7])
def test_all_threads_at_once(stall: float) -> None:
    choose = random.Random(2)
    divisions = [(sample(choose), sample(choose), choose.random() < 0.5, choose.random() < 0.5) for _ in range(500)]
    results = run(divisions, THREADS, stall)
    for (a, b, signed, modulo), (value, took) in zip(divisions, results, strict=True):
        assert value == quotient_and_remainder(a, b, signed)[modulo], (a, b, signed, modulo)
        assert took >= clocks(a, signed) and (stall or took == clocks(a, signed))
