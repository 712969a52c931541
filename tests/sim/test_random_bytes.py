"""Random bytes as programs, past every loader: the program store is full of them, and each packet begins somewhere. The
NIC neither hangs nor differs from the reference, and frames of a sound program pass between them.

What each trap must be is in test_bad_input.py; here is what nobody thought of."""

import random

import pytest

from bpfnic.host.device import Arrival
from bpfnic.sim.fuzz.compare import describe_maps
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import XdpAction
from tests.encodings import soup
from tests.sim.bench import ONE_CORE, Bench, agreement

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

MEMORY = 2560
STORES = 5
ENTRIES_OF_EACH = 60
GOOD = assemble("r0 = 2\nexit")


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_random_bytes(backend) -> None:
    causes, programs = set(), 0
    with Bench(backend, **ONE_CORE) as bench, Bench("golden", **ONE_CORE) as reference:
        slots = bench.device.capabilities.program_slots
        for each in (bench, reference):
            describe_maps(each)
            each.write("BUDGET", 400)
        for seed in range(STORES if backend == "rtl" else 1):
            chance = random.Random(seed)
            code, memory = soup(chance, slots - 2) + GOOD, chance.randbytes(MEMORY)
            for each in (bench, reference):
                each.load(code)
                each.set_memory(0, memory)
            for _ in range(ENTRIES_OF_EACH):
                entries = [chance.randrange(slots - 2), chance.randrange(slots - 2), slots - 2]
                for each in (bench, reference):
                    for interface, entry in enumerate(entries):
                        each.attach(entry, [interface])
                frames = [Arrival(interface, chance.randbytes(chance.choice([60, 64, 200])), egress=0)
                          for interface in (0, 1, 2, 0, 1, 2)]  # fmt: skip
                traffic, difference, parting = agreement(bench, reference, frames, memory=MEMORY)
                assert not difference and not parting, f"seed {seed}, entries {entries}: {difference}\n{parting}"
                assert [traffic.packets[number].action for number in (2, 5)] == [XdpAction.XDP_PASS] * 2
                causes |= {packet.cause for packet in traffic.packets}
                programs += 2
        assert len(causes) >= 6 and Cause.ILLEGAL_INSTRUCTION in causes
    print(f"{programs} programs on {backend}; ended as {', '.join(sorted(cause.name for cause in causes))}")
