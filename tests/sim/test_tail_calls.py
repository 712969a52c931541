"""Tail calls on the whole NIC, below the driver: tables of any content that change while they are read."""

import random

import pytest

from bpfnic.host.device import Arrival, Pacing
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.maps import PROGRAM_BYTES, MapType
from bpfnic.spec.registers import ENTRY_VALID
from tests.sim.bench import ONE_CORE, TWO_CORES, Bench, agreement

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

TABLE, BASE, ENTRIES = 3, 64, 6
STARTS = range(40, 3960, 40)
PACKETS = 200


def link(chance: random.Random) -> bytes:
    """One of the programs that call each other: most change the table first, some call from a function."""
    word = chance.choice([*chance.choices(STARTS, k=6), chance.randrange(1 << 31)])
    word -= (chance.random() < 0.95) << 31  # the bit that says valid
    place = addresses.MAP_VALUES + BASE + PROGRAM_BYTES * chance.randrange(ENTRIES)
    change = chance.choice([f"r4 = {place} ll\n*(u32 *)(r4 + 0) = {word}", "r6 += 1", "*(u64 *)(r10 - 8) = r6"])
    call = f"r2 = {addresses.map_handle(TABLE)} ll\nr3 = r0\ncall 12\nr0 &= 3"
    index = chance.choice(["call 7\nr0 &= 7", "call 7\nr0 &= 3", f"r0 = {chance.randrange(ENTRIES)}"])
    if chance.random() < 0.3:
        return assemble(f"call function\nr6 += r0\nr0 = r6\nr0 &= 3\nexit\nfunction: {change}\n{index}\n{call}\nexit")
    return assemble(f"{change}\n{index}\n{call}\nexit")


def prepare(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    for name, value in {"TYPE": MapType.PROG_ARRAY, "BASE": BASE, "ENTRIES": ENTRIES, "STRIDE": PROGRAM_BYTES,
                        "VALUE_SIZE": PROGRAM_BYTES, "CPU_STRIDE": 0}.items():  # fmt: skip
        bench.write(f"MAP_{name}", value)
    bench.write("MAP_COMMIT", TABLE)
    for slot in STARTS:
        bench.load(link(chance), slot)
    words = [ENTRY_VALID | chance.choice(STARTS) for _ in range(ENTRIES)]
    bench.set_memory(BASE, b"".join(word.to_bytes(PROGRAM_BYTES, "little") for word in words))
    bench.attach(STARTS[0])


@pytest.mark.parametrize("size", [ONE_CORE, TWO_CORES], ids=["1x16", "2x8"])
@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_tables_that_change(backend, size) -> None:
    chance = random.Random(7)
    arrivals = [Arrival(number % 2, chance.randbytes(64)) for number in range(PACKETS)]
    lengths = set()
    for seed in range(8 if backend == "rtl" else 2):
        with Bench(backend, **size) as bench, Bench("golden", **size) as reference:
            for each in (bench, reference):
                prepare(each, seed)
            traffic, difference, parting = agreement(bench, reference, arrivals, Pacing(seed=seed))
            assert difference is None and not parting, f"seed {seed}: {difference} {parting}"
            lengths |= {packet.instructions for packet in traffic.packets}
    assert len(lengths) > 20
