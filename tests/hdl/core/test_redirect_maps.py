"""bpf_redirect_map on the core alone: the entry that it finds, and what it answers."""

import random

import pytest

from bpfnic.sim.golden.maps import Descriptor
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.maps import REDIRECT_BYTES, MapType, redirect_word
from tests.hdl.core.bench import Scenario

PORTS, CPUS, SOCKETS, NUMBERS, EMPTY = 0, 1, 2, 3, 4  # maps
TYPES = {PORTS: MapType.DEVMAP, CPUS: MapType.CPUMAP, SOCKETS: MapType.XSKMAP}
ENTRIES = 6
BASES = {PORTS: 32, CPUS: 64, SOCKETS: 96}
FRAME = bytes(range(64))


def call(table: int, index: str, flags: str, before: str = "", after: str = "exit") -> bytes:
    handle = addresses.map_handle(table)
    return assemble(f"{before}\nr1 = {handle} ll\nr2 = {index}\nr3 = {flags}\ncall 51\n{after}")


def scenario(program: bytes, packets: int = 1, maps: int = 4, **more) -> Scenario:
    """The first `maps` of them. Index 3 of each has an entry, the other five have none."""
    memory = bytearray(256)
    for table, base in BASES.items():
        for index in range(ENTRIES):
            word = redirect_word(TYPES[table], 1 if index == 3 else None)
            memory[base + REDIRECT_BYTES * index : base + REDIRECT_BYTES * (index + 1)] = word.to_bytes(4, "little")
    descriptors = {table: Descriptor(TYPES[table], base, ENTRIES, REDIRECT_BYTES, 4) for table, base in BASES.items()}
    descriptors[NUMBERS] = Descriptor(MapType.ARRAY, 128, ENTRIES, 8, 8)
    descriptors = {table: descriptor for table, descriptor in descriptors.items() if table < maps}
    return Scenario({0: program}, [(0, FRAME)] * packets, map=bytes(memory), descriptors=descriptors, **more)


ABORTED, DROP, PASS, TX, REDIRECT = range(5)


@pytest.mark.parametrize("table", BASES, ids=["DEVMAP", "CPUMAP", "XSKMAP"])
@pytest.mark.parametrize(
    ("index", "flags", "verdict"),
    [
        ("3", "0", REDIRECT),
        ("3", "2", REDIRECT),
        ("0x700000003 ll", "1", REDIRECT),
        ("2", "0", ABORTED),
        ("2", "1", DROP),
        ("2", "2", PASS),
        ("2", "3", TX),
        ("6", "2", PASS),
        ("-1", "3", TX),
        ("0x80000003 ll", "1", DROP),
        ("3", "4", ABORTED),
        ("3", "8", ABORTED),
        ("2", "-1", ABORTED),
        ("3", "0x100000000 ll", ABORTED),
        ("6", "0x8000000000000002 ll", ABORTED),
    ],
)
def test_answers(core, table, index, flags, verdict):
    run = core.check(scenario(call(table, index, flags))).runs[0]
    assert (run.verdict, run.cause) == (verdict, Cause.NONE)


@pytest.mark.parametrize(("index", "found"), [("3", REDIRECT), ("2", PASS), ("6", PASS)])
def test_exclude_ingress_is_a_devmaps(core, index, found):
    assert core.check(scenario(call(PORTS, index, "18"))).runs[0].verdict == found
    for table in (CPUS, SOCKETS):
        assert core.check(scenario(call(table, index, "18"))).runs[0].verdict == ABORTED


def test_it_leaves_all_but_r0(core):
    before = "r0 = 11\nr4 = 13\nr5 = 14\nr9 = 15\n*(u64 *)(r10 - 8) = 16"
    after = "r0 += r1\nr0 += r2\nr0 += r3\nr0 += r4\nr0 += r5\nr0 += r9\nr6 = *(u64 *)(r10 - 8)\nr0 += r6\nexit"
    run = core.check(scenario(call(PORTS, "3", "2", before, after))).runs[0]
    assert run.verdict == REDIRECT + addresses.map_handle(PORTS) + 3 + 2 + 13 + 14 + 15 + 16


def test_by_register(core):
    handle = addresses.map_handle(PORTS)
    program = assemble(f"r6 = 51\nr1 = {handle} ll\nr2 = 3\nr3 = 0\ncallx r6\nexit")
    assert core.check(scenario(program)).runs[0].verdict == REDIRECT
    program = assemble(f"r6 = 51\nr1 = {handle} ll\nr2 = 9\nr3 = 2\ncallx r6\nexit")
    assert core.check(scenario(program)).runs[0].verdict == PASS


@pytest.mark.parametrize("handle", [addresses.map_handle(NUMBERS), addresses.map_handle(EMPTY),
                                    addresses.map_handle(PORTS) + 8, 0])  # fmt: skip
def test_by_another_map(core, handle):
    program = assemble(f"r1 = {handle} ll\nr2 = 3\nr3 = -1\ncall 51\nexit")
    run = core.check(scenario(program)).runs[0]
    assert run.cause is Cause.MAP
    assert len(run.retired) == 3


@pytest.mark.parametrize("table", BASES, ids=["DEVMAP", "CPUMAP", "XSKMAP"])
@pytest.mark.parametrize("helper", [1, 2, 3, 12])
def test_other_helpers_refuse_them(core, table, helper):
    handle = addresses.map_handle(table)
    where = f"r2 = {handle} ll\nr3 = 0" if helper == 12 else f"r1 = {handle} ll\nr2 = r10\nr2 += -8\nr3 = r2\nr4 = 0"
    assert core.check(scenario(assemble(f"{where}\ncall {helper}\nexit"))).runs[0].cause is Cause.MAP


def test_entries_of_any_kind(core, small_core):
    """Words that no driver writes, on all threads while the words change: the same on the core and on the reference."""
    for device in (core, small_core):
        chance = random.Random(4)
        for seed in range(6):
            pieces = ["r6 = 0"]
            for _ in range(12):
                place = addresses.MAP_VALUES + chance.choice([*BASES.values()]) + 4 * chance.randrange(ENTRIES)
                pieces.append(f"r4 = {place} ll\n*(u32 *)(r4 + 0) = {chance.randrange(-(1 << 31), 1 << 31)}")
                pieces.append("call 7\nr0 &= 7\nr7 = r0\ncall 7\nr0 &= 31\nr3 = r0")
                handle = addresses.map_handle(chance.randrange(min(len(BASES), device.config.maps)))
                pieces.append(f"r1 = {handle} ll\nr2 = r7\ncall 51\nr6 <<= 3\nr6 |= r0")
            program = assemble("\n".join([*pieces, "r0 = r6", "exit"]))
            result = device.check(scenario(program, 40, device.config.maps, threads=device.config.threads, stall=30,
                                           seed=seed))  # fmt: skip
            assert len({run.verdict for run in result.runs}) > 20
