"""Redirect maps on the whole NIC, below the driver: entries of any content that change while they are read."""

import random

import pytest

from bpfnic.host.device import Arrival, Pacing
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.maps import KEYED, REDIRECT_BYTES, REDIRECT_MAPS, redirect_word
from bpfnic.spec.programs import XdpAction
from tests.sim.bench import ONE_CORE, TWO_CORES, Bench, agreement

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

TYPES = sorted(REDIRECT_MAPS - KEYED)  # of maps 0, 1 and 2
ENTRIES, SPAN = 6, 32
PACKETS = 200


def program(chance: random.Random) -> bytes:
    """Redirects of all kinds, one after the other, among changes of the entries; then the last one's answer, mostly."""
    lines = ["r6 = 0"]
    for _ in range(6):
        table = chance.randrange(len(TYPES))
        number = chance.choice([None, *range(4), 63, 64, 255])
        word = chance.choice([redirect_word(TYPES[table], number), chance.getrandbits(32)]) - (1 << 31)
        place = addresses.MAP_VALUES + SPAN * table + REDIRECT_BYTES * chance.randrange(ENTRIES)
        if chance.random() < 0.5:
            lines.append(f"r4 = {place} ll\n*(u32 *)(r4 + 0) = {word}")
        flags = chance.choice([*range(4), chance.randrange(32), 1 << 63])
        index = chance.choice(["call 7\nr0 &= 7\nr2 = r0", f"r2 = {chance.randrange(ENTRIES)}"])
        redirect = f"{index}\nr1 = {addresses.map_handle(table)} ll\nr3 = {flags} ll\ncall 51"
        plain = f"r1 = {chance.randrange(4)}\nr2 = {int(chance.random() < 0.2)}\ncall 23"
        lines.append(chance.choices([redirect, plain], [5, 1])[0])
        lines.append("r6 <<= 3\nr6 |= r0")
    lines.append(chance.choice(["r0 = 4", "r6 &= 7\nr0 = r6", "r6 &= 7\nr0 = r6"]))
    return assemble("\n".join([*lines, "exit"]))


def prepare(bench: Bench, seed: int) -> None:
    chance = random.Random(seed)
    words = []
    for index, kind in enumerate(TYPES):
        for name, value in {"TYPE": kind, "BASE": SPAN * index, "ENTRIES": ENTRIES, "STRIDE": REDIRECT_BYTES,
                            "VALUE_SIZE": REDIRECT_BYTES, "CPU_STRIDE": 0}.items():  # fmt: skip
            bench.write(f"MAP_{name}", value)
        bench.write("MAP_COMMIT", index)
        words += [redirect_word(kind, chance.choice([None, 0, 1])) for _ in range(SPAN // REDIRECT_BYTES)]
    bench.set_memory(0, b"".join(word.to_bytes(REDIRECT_BYTES, "little") for word in words))
    bench.load(program(chance), 0)
    bench.attach(0)


@pytest.mark.parametrize("size", [ONE_CORE, TWO_CORES], ids=["1x16", "2x8"])
@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_entries_that_change(backend, size) -> None:
    chance = random.Random(7)
    arrivals = [Arrival(number % 2, chance.randbytes(64)) for number in range(PACKETS)]
    seen = set()
    for seed in range(16 if backend == "rtl" else 4):
        with Bench(backend, **size) as bench, Bench("golden", **size) as reference:
            for each in (bench, reference):
                prepare(each, seed)
            traffic, difference, parting = agreement(bench, reference, arrivals, Pacing(seed=seed))
            assert difference is None and not parting, f"seed {seed}: {difference} {parting}"
            seen |= {(packet.action, packet.egress, packet.queue) for packet in traffic.packets}
    if backend == "rtl":
        redirected = {(egress, queue) for action, egress, queue in seen if action is XdpAction.XDP_REDIRECT}
        assert {(0, None), (1, None)} < redirected and len({queue for _, queue in redirected}) > 3
