"""What the verifier accepts runs on the golden NIC without a trap, and at each instruction every register that is still
needed holds something that the verifier said it may hold, in one and the same of its states."""

import random
from collections import Counter

import pytest

from bpfnic.host.compile import compile_object
from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.nic import Nic
from bpfnic.host.object import open_object
from bpfnic.host.verifier.verdict import Subject
from bpfnic.sim.bare import BareNic
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.sim.golden.interpreter import Code
from bpfnic.spec import addresses, isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction, encode
from bpfnic.spec.programs import ProgramType
from tests.firmware.shipped import PROGRAMS, entries, opened, start
from tests.host.conftest import HEADER
from tests.host.deepprograms import tangle
from tests.host.verifier.inside import Watch
from tests.host.verifier.mutants import program
from tests.host.verifier.subjects import MAPS
from tests.verifierfuzz import watched

PACKETS = 60
"""Of the sample capture, and as many random ones."""


def spoiled(chance, arrivals):
    """Packets with bytes changed, cut or made longer."""
    for arrival in chance.sample(arrivals, min(PACKETS, len(arrivals))):
        data = bytearray(arrival.data)
        for _ in range(chance.randrange(6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        yield Arrival(arrival.interface, bytes(data[: chance.randrange(14, len(data) + 1)]))
    for _ in range(PACKETS // 4):
        yield Arrival(0, chance.randbytes(chance.randrange(14, 200)))


def before(whole, subject):
    """How many slots the loader put in front of a program: as many as there are before its first instructions."""
    opcodes = [one and one.opcode for one in subject.code[:4]]
    code = [one and one.opcode for one in whole.instructions]
    return next(at for at in range(len(code)) if code[at : at + len(opcodes)] == opcodes)


@pytest.mark.parametrize("name", PROGRAMS)
def test_shipped_programs_do_what_the_verifier_saw(arrivals, name, monkeypatch):
    chance, watch, object = random.Random(name), Watch(), opened(name)
    with Nic("golden", threads=1, map_bytes=1 << 20) as nic:
        start(nic, name, object, entries(name, object))
        for loaded in nic.programs.values():
            subject = Subject.of(object, loaded.loaded.program)
            verdict = watch.add(loaded.loaded.entry + before(loaded.loaded.whole, subject), subject)
            assert verdict.accepted, verdict.error
        watch.install(monkeypatch)
        packets = nic.run([*arrivals[:PACKETS], *spoiled(chance, arrivals)]).packets
    causes = {packet.cause for packet in packets} - {Cause.REDIRECT}  # what a table has no entry for
    assert causes <= {Cause.NONE}
    assert watch.checked > len(packets)
    assert not watch.outside, watch.outside[:3]


GLOBAL = HEADER + """
struct pair { __u32 a, b; };
static __attribute__((noinline)) int bits(__u32 n) { int count = 0; for (; n; n &= n - 1) count++; return count; }
__attribute__((noinline)) int sum(struct pair *p, __u32 by)
{
    __u32 kept[4] = {1, 2, 3, 4};
    asm volatile("" :: "r"(&kept) : "memory");
    return p ? p->a + kept[by & 3] + bits(p->b & 255) : 7;
}
SEC("xdp") int program(struct xdp_md *ctx)
{
    unsigned char *data = (void *)(long)ctx->data;
    if (data + 20 > (unsigned char *)(long)ctx->data_end)
        return XDP_DROP;
    struct pair here = {data[0], data[1]};
    int found = sum(&here, data[2]) + sum(0, 9) + sum((void *)(data + 8), data[3]);
    return found & 1 ? XDP_PASS : XDP_TX;
}
"""


def test_global_functions_do_what_the_verifier_saw(tmp_path, monkeypatch):
    chance, watch, path = random.Random("global"), Watch(), tmp_path / "program.bpf.c"
    path.write_text(GLOBAL)
    object = open_object(compile_object(path))
    with Nic("golden", threads=1) as nic:
        nic.load(object)
        (loaded,) = nic.programs.values()
        subject = Subject.of(object, loaded.loaded.program)
        verdict = watch.add(loaded.loaded.entry + before(loaded.loaded.whole, subject), subject)
        assert verdict.accepted, verdict.error
        nic.attach(0, loaded)
        watch.install(monkeypatch)
        packets = nic.run([Arrival(0, chance.randbytes(chance.randrange(14, 60))) for _ in range(40)]).packets
    assert {packet.cause for packet in packets} <= {Cause.NONE}
    assert watch.checked > 40 * len(subject.code) // 2 and not watch.outside, watch.outside[:3]


def causes(object, names, unsafe):
    """How a packet ends in each of the programs, as the first to run."""
    with Nic("golden", threads=1) as nic:
        for name in names:
            if name not in nic.programs:
                nic.load(object, name, unsafe=unsafe)
        return {Cause[nic.programs[name].test_run(bytes(64)).cause] for name in names}


def test_what_is_refused_for_its_tail_calls_is_what_traps(tmp_path, thorough):
    """Random programs that tail-call each other from functions: they are loaded together if and only if no packet would
    run out of frames or stack in any of them."""
    path, trapped = tmp_path / "program.bpf.c", Counter()
    for number in range(1000 if thorough else 60):
        text, names = tangle(random.Random(f"tangle/{number}"))
        path.write_text(HEADER + text)
        compiled = compile_object(path)
        traps = causes(open_object(compiled), names, unsafe=True) & {Cause.CALL_DEPTH, Cause.MEMORY_ACCESS}
        try:
            assert causes(open_object(compiled), names, unsafe=False) <= {Cause.NONE, Cause.VERDICT}, number
            refused = False
        except BpfnicError as error:
            assert "tail calls would take" in str(error)
            refused = True
        assert refused == bool(traps), number
        trapped[bool(traps)] += 1
    assert min(trapped.values()) > 15


VALUE_BYTES, ENTRIES = 16, 4
PLACES = {"array": 0, "readonly": 1}


def linked(subject):
    """Program text with the handles of the two maps that random programs use."""
    code = list(subject.code)
    for slot, reference in subject.references.items():
        one = code[slot]
        handle = addresses.map_handle(PLACES[reference.map])
        code[slot] = Instruction(one.opcode, one.dst, 0, 0, handle, 0)
    return encode(code)


def test_random_programs_do_what_the_verifier_saw(monkeypatch):
    accepted = checked = 0
    assert MAPS[0].value_size == VALUE_BYTES and MAPS[0].max_entries == ENTRIES
    for number in range(120):
        chance = random.Random(f"sound/{number}")
        subject = program(chance, ProgramType.XDP, chance.randrange(2, 10))
        if {reference.map for reference in subject.references.values()} - PLACES.keys():
            continue
        watch = Watch()
        if not watch.add(0, subject, limit=3_000).accepted:
            continue
        accepted += 1
        transport = GoldenTransport(DeviceOptions(threads=8))
        transport.nic.code = Code(transport.nic.size.program_slots)
        with BareNic(transport) as nic, monkeypatch.context() as patch:
            for place in PLACES.values():
                nic.array(place, place * VALUE_BYTES * ENTRIES, ENTRIES, VALUE_BYTES, VALUE_BYTES)
            nic.set_memory(0, chance.randbytes(2 * VALUE_BYTES * ENTRIES))
            nic.load(linked(subject))
            nic.attach(0, [0])
            watch.install(patch)
            packets = nic.run([Arrival(0, chance.randbytes(chance.randrange(14, 90))) for _ in range(6)]).packets
        assert {packet.cause for packet in packets} <= {Cause.NONE}
        assert not watch.outside, (number, watch.outside[:3])
        checked += watch.checked
    assert accepted > 20 and checked > 3_000


def test_the_fuzzers_programs_do_what_the_verifier_saw():
    """`make fuzz-verifier` has many more."""
    outcome = watched.fuzz(40, 2026)
    assert outcome.problems == []
    assert outcome.accepted > outcome.programs // 2 and outcome.checked > 4_000


def test_a_state_that_is_too_narrow_is_found(monkeypatch):
    """The watch itself: with a verifier that thinks every sum smaller than it is, it finds registers outside."""
    from bpfnic.host.verifier import arithmetic
    from tests.host.verifier.subjects import subject

    operators = dict(arithmetic._OPERATORS)
    operators[isa.Operation.ADD] = operators[isa.Operation.AND]
    monkeypatch.setattr(arithmetic, "_OPERATORS", operators)
    watch = Watch()
    text = subject("r0 = *(u32 *)(r1 + 0)\nr2 = *(u32 *)(r1 + 4)\nr2 -= r0\nr2 &= 255\nr2 += 256\nr0 = r2\nexit")
    assert watch.add(0, text).accepted
    with BareNic(GoldenTransport(DeviceOptions(threads=8))) as nic:
        nic.load(encode(text.code))
        nic.attach(0, [0])
        watch.install(monkeypatch)
        nic.run([Arrival(0, bytes(60))])
    assert watch.outside
