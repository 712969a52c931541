"""Random programs: on the golden model and the RTL, on all threads at once and racing for map values; that they are
what they are said to be; and that a NIC with one wrong operator is found out."""

import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from bpfnic.host.device import Arrival, Capabilities, DeviceOptions
from bpfnic.sim.fuzz import command, compare, coverage, raw, rounds, values, world
from bpfnic.sim.fuzz.campaign import Campaign
from bpfnic.sim.fuzz.compare import Case, Pair
from bpfnic.sim.fuzz.generate import Device, Generator
from bpfnic.sim.fuzz.program import Line, Program, make, of_bytes
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.sim.golden.hash import Hash
from bpfnic.sim.golden.interpreter import Code
from bpfnic.sim.golden.maps import Maps
from bpfnic.sim.golden.thread import Step
from bpfnic.spec import addresses, isa
from bpfnic.spec.assembly import assemble
from bpfnic.spec.helpers import BY_NAME as HELPERS
from bpfnic.spec.instruction import WIDE_OPCODE, Instruction, decode
from bpfnic.spec.isa import Group, Legal, Operation
from bpfnic.spec.maps import MapType, UpdateFlag
from tests import vectors
from tests.sim.bench import ONE_CORE, TWO_CORES
from tests.sim.defects import defective_library

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

SEED = 2026
KNOWN = ("map_lookup_elem", "map_update_elem", "map_delete_elem", "ktime_get_ns", "get_prandom_u32", "redirect",
         "get_smp_processor_id", "xdp_adjust_head", "xdp_adjust_tail", "tail_call", "map_push_elem", "map_pop_elem",
         "map_peek_elem", "redirect_map", "ringbuf_output", "ringbuf_reserve", "ringbuf_submit", "ringbuf_discard",
         "ringbuf_query", "perf_event_output", "spin_lock", "spin_unlock", "csum_diff", "xdp_adjust_meta",
         "ktime_get_boot_ns", "ktime_get_coarse_ns")  # fmt: skip
EVERYTHING = Capabilities("barrel", 16, 2, 4096, 1 << 17, 64, 2048, frozenset(Group), frozenset(MapType),
                          frozenset(HELPERS[name].number for name in KNOWN))  # fmt: skip


@pytest.fixture(scope="module")
def library():
    return compare.the_library()


def programs(count: int, **options: float):
    device = Device(EVERYTHING)
    return [Generator(device, random.Random(f"{SEED}/{n}"), **options).program(30) for n in range(count)]


# ---------------------------------------------------------------- what is generated


def test_the_same_seed_gives_the_same_batch():
    device = Device(EVERYTHING)
    for mode in ("programs", "bytes"):
        batches = [rounds.batch(rounds.chance_of(SEED, mode, 7, 3), device, mode, 4096) for _ in range(2)]
        assert batches[0] == batches[1]
        assert batches[0] != rounds.batch(rounds.chance_of(SEED + 1, mode, 7, 3), device, mode, 4096)


def test_every_row_is_generated():
    seen = {isa.find(one).name for program in programs(150, slips=0.0) for one in program.instructions()}
    resolved_by_the_loader = {row.name for row in isa.ROWS if row.operation is Operation.LDDW_REFERENCE}
    assert {row.name for row in isa.ROWS} - seen == resolved_by_the_loader | {"call_btf"}


def test_a_device_is_given_what_it_has():
    """Without slips no program uses a row, a helper or a map that the device lacks."""
    groups = frozenset({Group.BASE32, Group.BASE64})
    helpers = frozenset({HELPERS["map_lookup_elem"].number, HELPERS["redirect"].number})
    device = Device(replace(EVERYTHING, groups=groups, helpers=helpers, map_types=frozenset({MapType.ARRAY})))
    for n in range(60):
        for one in Generator(device, random.Random(n), slips=0.0).program(30).instructions():
            row = isa.find(one)
            assert row.group in groups
            assert row.operation is not Operation.CALL_HELPER or one.imm in helpers


def test_jumps_stay_in_the_program():
    for program in programs(40, slips=0.0):
        places = set(program.slots()[:-1])
        for slot, one in zip(program.slots(), program.instructions(), strict=False):
            row = isa.find(one)
            if row.offset is Legal.BRANCH:
                assert slot + 1 + one.offset in places
            elif row.imm is Legal.BRANCH:
                assert slot + 1 + one.imm in places


def test_bytes_are_themselves_again():
    for program in programs(20):
        code = program.code(100)
        assert of_bytes(code).code() == code
    for n in range(200):
        code = random.Random(n).randbytes(8 * (1 + n % 9))
        assert of_bytes(code).code() == code


def test_lines_left_out():
    """Jumps over what is left out go where the next line that is left stands."""
    code = assemble("if r1 == 0 goto out\nr2 = 1\nr3 = 5 ll\nr4 = 1\nout:\nr0 = 2\nexit")
    program = of_bytes(code)
    assert program.keeping([0, 1, 4, 5]).code() == assemble("if r1 == 0 goto +1\nr2 = 1\nr0 = 2\nexit")
    assert program.keeping([0, 2, 5]).code() == assemble("if r1 == 0 goto +2\nr3 = 5 ll\nexit")
    assert program.keeping([0]).code() == assemble("if r1 == 0 goto +0")


def test_numbers_of_every_class():
    for width in (16, 32, 64):
        chance = random.Random(SEED)
        found = Counter(values.edge(values.number(chance, width), width) for _ in range(2000))
        assert set(found) == set(values.classes(width))
        assert min(found.values()) > 50
        immediates = {values.edge(values.immediate(chance, width), width) for _ in range(3000)}
        assert immediates == set(values.immediate_classes(width))
    assert values.edge(1 << 31, 64) == values.edge((1 << 32) - 1, 64) == "word"
    assert [values.edge(value, 32) for value in (31, 32, 33, 1 << 31, (1 << 31) - 1, 0xFFFF_FFFE)] == [
        "width-1", "width", "+", "min", "max", "-"]  # fmt: skip


# ---------------------------------------------------------------- what is counted


def hits(text: str, frame: bytes = bytes(64)) -> dict[tuple[str, str, str], int]:
    pair = Pair(GoldenTransport(DeviceOptions()))
    case = Case((of_bytes(assemble(text)),), (Arrival(0, frame),), bytes(world.MEMORY_BYTES), 1000)
    assert pair.run(case).parting is None
    return {item: count for item, count in pair.hits.items() if item[0] not in ("exit", "lddw", "mov64_imm")}


def test_counts_what_was_executed_with_what():
    assert hits("r1 = -1\nr2 = 1 ll\nw1 += w2\nif r1 == 0 goto +1\nr1 += r1\nexit") == {
        ("add32_reg", "register", "-1, 1"): 1,
        ("add32_reg", "upper half", "dst"): 1,
        ("jeq64_imm", "immediate", "0, 0"): 1,
        ("jeq64_imm", "taken", "yes"): 1,
    }
    assert hits("r1 = 0x1000000f ll\nr2 = 0x8000\n*(u16 *)(r1 + 0) = r2\nr1 = *(s16 *)(r1 + 0)\nexit") == {
        ("stxh", "map", "7"): 1, ("stxh", "crossing", "1"): 1, ("stxh", "value", "min"): 1,
        ("ldxsh", "map", "7"): 1, ("ldxsh", "crossing", "1"): 1, ("ldxsh", "value", "min"): 1}  # fmt: skip
    assert hits("r1 = 0x10000000 ll\nr2 = 1\nlock *(u64 *)(r1 + 0) += r2\nr2 = xchg_64(r1 + 0, r2)\nexit") == {
        ("atomic_add64", "map", "0"): 1, ("atomic_add64", "operands", "0, 1"): 1,
        ("atomic_xchg64", "map", "0"): 1, ("atomic_xchg64", "operands", "1, 1"): 1}  # fmt: skip


def test_does_not_count_what_trapped():
    assert hits("r1 = 0\nr0 = *(u64 *)(r1 + 0)\nr0 += r1\nexit") == {}
    assert hits("r1 = r10\nr0 = *(u64 *)(r1 + 0)\nexit") == {("mov64_reg", "register", "+"): 1}


def test_every_row_has_something_to_cover():
    for row in isa.ROWS:
        wanted = coverage.wanted(row, KNOWN, EVERYTHING.map_types)
        assert bool(wanted) == (row.operation not in (Operation.LDDW_REFERENCE, Operation.CALL_BTF)), row.name


def test_little_is_counted_that_nobody_wants():
    """What is hit and not wanted would say that the lists of what there is to cover are wrong."""
    pair = Pair(GoldenTransport(DeviceOptions()))
    device = Device(pair.has)
    for index in range(6):
        case = rounds.batch(rounds.chance_of(SEED, "programs", 0, index), device, "programs", pair.has.program_slots)
        assert pair.run(case).parting is None
    report = coverage.Report(pair.has, pair.hits)
    odd = {item for item in pair.hits if item not in report.wanted.get(item[0], ())}
    assert not odd
    assert 0.05 * report.all < report.covered < report.all


@pytest.fixture(scope="module")
def some_rounds():
    """What a few rounds hit, and how often updates under locks began and ended, by the map's type."""
    hits, locked, update = Counter(), Counter(), Maps._update_locked

    def watched(self, thread, descriptor, target, value):
        kind = MapType(descriptor.type).name
        locked[kind, "begins"] += 1
        result = yield from update(self, thread, descriptor, target, value)
        locked[kind, "ends"] += 1
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Maps, "_update_locked", watched)
        for number in range(5):
            pair = Pair(GoldenTransport(DeviceOptions()))
            hits += rounds.run_round(lambda pair=pair: pair, SEED, "programs", number).hits
    return hits, locked


def test_every_map_helper_is_seen_on_every_type(some_rounds):
    """Each result that coverage asks for, on all that the reference has: maps fill up, and programs meet in them."""
    seen, _ = some_rounds
    of_maps = {item for item in coverage.Report(Pair(GoldenTransport(DeviceOptions())).has, ()).wanted["call_helper"]
               if ", " in item[1]}  # fmt: skip
    assert len(of_maps) > 50
    assert len(of_maps - set(seen)) <= 0.05 * len(of_maps), of_maps - set(seen)


def test_values_are_updated_under_their_locks(some_rounds):
    """Of both types that may have locks, and most of them get through."""
    _, seen = some_rounds
    for kind in ("ARRAY", "HASH"):
        assert seen[kind, "begins"] > 10 and 2 * seen[kind, "ends"] > seen[kind, "begins"], seen


def test_a_program_in_a_table_says_nothing():
    """No loader lets one there: what it reads is not the reference's."""
    place = addresses.MAP_VALUES + Pair(GoldenTransport(DeviceOptions())).tables[0].private()[0].start
    for text, strayed in ((f"r1 = {place} ll\nr0 = *(u64 *)(r1 + 8)", True), (f"r1 = {place} ll\n*(u8 *)(r1 - 1) = 0",
                          False), (f"r1 = {place} ll\n*(u16 *)(r1 - 1) = 0", True)):  # fmt: skip
        case = Case((of_bytes(assemble(f"{text}\nexit")),), (Arrival(0, bytes(64)),), bytes(world.MEMORY_BYTES), 1000)
        result = Pair(GoldenTransport(DeviceOptions())).run(case)
        assert result.strayed == strayed and result.parting is None


# ---------------------------------------------------------------- golden, rtl, loader, kernel


@pytest.mark.parametrize("size", [ONE_CORE, TWO_CORES], ids=["1x16", "2x8"])
@pytest.mark.parametrize("mode", ["programs", "bytes"])
def test_rounds(mode, size):
    options = DeviceOptions(**size)
    library = compare.the_library(options)
    tally = rounds.run_round(lambda: compare.rtl_pair(library, options), SEED, mode, 2)
    assert not tally.failures, tally.failures[0]
    assert tally.programs == rounds.BATCHES * rounds.PROGRAMS
    assert tally.instructions > 2000
    ends = {"NONE", "BUDGET"} if mode == "programs" else set()  # bytes mostly end by what they must not do
    assert {"MEMORY_ACCESS", "ILLEGAL_INSTRUCTION"} | ends <= set(tally.causes)


def test_the_reference_replays_itself():
    pair = Pair(GoldenTransport(DeviceOptions()))
    device = Device(pair.has)
    for index in range(4):
        for mode in ("programs", "bytes"):
            case = rounds.batch(rounds.chance_of(SEED, mode, 1, index), device, mode, pair.has.program_slots)
            assert pair.run(case).parting is None
    assert pair.counters_differ() is None


@pytest.mark.linux
def test_the_kernel():
    tally = rounds.kernel_round(SEED, 0)
    assert not tally.failures, tally.failures[0]
    print(f"the kernel ran {tally.kernel} programs and refused {tally.kernel_refused}")
    assert tally.kernel > 4 * tally.kernel_refused


def test_the_loader_takes_and_refuses():
    tally = rounds.Tally()
    good = of_bytes(assemble("r0 = 2\nexit"))
    assert raw.offer_to_loader([good], random.Random(1), tally) is None
    bad = Program((Line(Instruction(0xFF)), Line(make("exit"))))
    assert raw.offer_to_loader([bad], random.Random(1), tally) is None
    assert (tally.loaded, tally.refused) == (1, 1)


# ---------------------------------------------------------------- a defect


class Wrong(Code):
    """A golden NIC's program store that takes one row for another."""

    def __init__(self, code: Code, row: str, other: str):
        super().__init__(code.slots, code.executes)
        self.row, self.other = isa.BY_NAME[row], isa.BY_NAME[other]

    def step(self, pc: int) -> Step:
        step = super().step(pc)
        (found, *_) = decode(self.read(pc)) if self.read(pc)[0] != WIDE_OPCODE else (None,)
        if found is None or found.opcode != self.row.opcode or isa.refusals(self.row, found):
            return step
        fields = {name: getattr(self.other, name) for name in ("src", "offset", "imm")}
        exact = {name: value for name, value in fields.items() if isinstance(value, int)}
        code = Code(1)
        code.write(0, replace(step.instruction, opcode=self.other.opcode, **exact).encode())
        return code.step(0)


def case_of(vector: vectors.Vector) -> Case:
    memory = vector.map.ljust(world.MEMORY_BYTES, b"\0")
    return Case((of_bytes(vector.code(0, 0)),), (Arrival(0, vector.packet),), memory, vector.budget)


MISTAKES = [
    ("arsh64_reg", "rsh64_reg"), ("sdiv32_imm", "div32_imm"), ("jsgt32_imm", "jgt32_imm"), ("ldxsh", "ldxh"),
    ("atomic_and32", "atomic_xor32"), ("ld_ind_h", "ld_ind_b"), ("exit", "ja"),
]  # fmt: skip
MORE_MISTAKES = [
    ("add32_reg", "add64_reg"), ("jset64_reg", "jeq64_reg"), ("stxh", "stxb"), ("bswap32", "be16"),
    ("atomic_fetch_xor64", "atomic_fetch_or64"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "other"), MISTAKES + [pytest.param(*each, marks=pytest.mark.thorough) for each in MORE_MISTAKES]
)
def test_mistakes_are_found_and_made_small(row, other, tmp_path):
    def open_pair() -> Pair:
        transport = GoldenTransport(DeviceOptions())
        transport.nic.code = Wrong(transport.nic.code, row, other)
        return Pair(transport)

    tallies = (rounds.run_round(open_pair, SEED, "programs", number) for number in range(4))
    failure = next(failure for tally in tallies for failure in tally.failures)
    assert len(failure.listing) <= 5, failure
    assert failure.vector, failure.no_vector
    (tmp_path / "found.vec").write_text(failure.vector)
    (vector,) = vectors.read(tmp_path / "found.vec")
    assert row in {found.name for found in vector.rows}
    assert open_pair().run(case_of(vector)).parting
    assert not Pair(GoldenTransport(DeviceOptions())).run(case_of(vector)).parting


def wrong_tables() -> Pair:
    """A NIC whose maps take EXIST for ANY."""
    transport = GoldenTransport(DeviceOptions())
    maps = transport.nic.maps
    sound = maps._empty

    def unsound(*arguments):
        entries = sound(*arguments)
        if isinstance(entries, Hash):
            refuses = entries.refuses
            entries.refuses = lambda key, flags: refuses(key, UpdateFlag.ANY if flags == UpdateFlag.EXIST else flags)
        return entries

    maps._empty = unsound
    return Pair(transport)


def test_a_mistake_in_a_table_is_found_and_made_small(tmp_path):
    tallies = (rounds.run_round(wrong_tables, SEED, "programs", number) for number in range(20))
    failure = next(failure for tally in tallies for failure in tally.failures if failure.vector)
    assert len(failure.listing) <= 6, failure
    (tmp_path / "found.vec").write_text(failure.vector)
    (vector,) = vectors.read(tmp_path / "found.vec")
    assert wrong_tables().run(case_of(vector)).parting
    assert not Pair(GoldenTransport(DeviceOptions())).run(case_of(vector)).parting


@pytest.fixture(scope="module")
def defective(tmp_path_factory):
    return defective_library(tmp_path_factory.mktemp("defective"))


def test_a_defect_is_found_and_made_small(defective, library, tmp_path):
    tally = Campaign(defective, SEED, "programs", rounds=3).run()
    (failure,) = tally.failures
    assert len(failure.listing) <= 5, failure
    assert failure.vector
    path = tmp_path / "found.vec"
    path.write_text(failure.vector)
    (vector,) = vectors.read(path)
    for nic, fails in ((library, False), (defective, True)):
        pair = compare.rtl_pair(nic)
        assert bool(pair.run(case_of(vector)).parting) == fails
        pair.close()


def test_rounds_do_not_depend_on_processes(library):
    tallies = [Campaign(library, SEED, "programs", jobs, rounds=2).run() for jobs in (1, 2)]
    assert [replace(tally, failures=[]) for tally in tallies][0] == tallies[1]


# ---------------------------------------------------------------- the command


@pytest.fixture
def fuzz(tmp_path, monkeypatch):
    """fuzz(arguments): exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def fuzz(*arguments: str) -> tuple[int, str, str]:
        command = [str(Path(sys.executable).with_name("bpfnic")), "fuzz", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=800)
        return done.returncode, done.stdout, done.stderr

    return fuzz


def test_the_command_counts(fuzz, library):
    status, out, err = fuzz("--rounds", "2", "--seed", "5", "--mode", "programs", "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert (report["seed"], report["rounds"], report["programs"]) == (5, 2, 2 * rounds.BATCHES * rounds.PROGRAMS)
    assert report["packets"] == report["programs"] * rounds.PACKETS == sum(report["causes"].values())
    assert report["instructions"] > 30_000 and report["instructions_a_second"] > 0
    covered = report["coverage"]
    assert covered["items"] - covered["items_covered"] == sum(map(len, covered["missing"].values()))
    assert {"call_btf", "lddw_map_fd"} <= set(covered["always_trap"]) and report["failures"] == []
    status, out, err = fuzz("--rounds", "2", "--seed", "5", "--mode", "programs", "--jobs", "2")
    assert (status, err) == (0, "")
    assert f"{report['instructions']:,} instructions compared" in out and out.endswith("no difference\n")
    assert "not covered: " in out and "\x1b" not in out


def test_the_command_ends_by_instructions_and_goes_on_elsewhere(fuzz, library):
    status, out, _ = fuzz("--instructions", "1000", "--mode", "bytes", "--round", "40", "--json")
    report = json.loads(out)
    assert (status, report["first_round"], report["rounds"]) == (0, 40, 1)
    assert report["loader"]["refused"] > 0


@pytest.mark.parametrize("arguments", [
    ("--seconds", "0"), ("--seconds", "x"), ("--jobs", "0"), ("--mode", "tea"), ("--vectors", "/none"),
    ("--round", "-1"), ("extra",),
    ("--threads", "12"), ("--cores", "0"),
])  # fmt: skip
def test_bad_options(fuzz, arguments):
    status, out, err = fuzz(*arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1 and arguments[-1] in err


def test_a_failure_is_told(monkeypatch, tmp_path, defective):
    """As a user sees it, with the defective NIC in place of the sound one."""
    monkeypatch.setattr(compare, "the_library", lambda options, say: defective)
    done = CliRunner().invoke(command.command, ["--rounds", "3", "--vectors", str(tmp_path)], standalone_mode=False)
    assert done.return_value == 1
    (path,) = tmp_path.glob("fuzz_*.vec")
    assert vectors.read(path)
    assert "repeat it: bpfnic fuzz --mode programs --seed 1 --round" in done.output
    assert f"vector: {path}" in done.output and "golden" in done.output
