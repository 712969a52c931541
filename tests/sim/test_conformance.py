"""The conformance plugin: what the suite hands it, what it prints, and where it refuses."""

import json
import re
import subprocess
import sys

import pytest

from bpfnic.sim.conformance.case import BUDGET, MEMORY, Case
from bpfnic.sim.conformance.command import ENGINES
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.errors import BpfnicError

pytestmark = pytest.mark.timeout(900)  # a loaded machine compiles the core

LENGTHS = (1, 2, 7, 8, 9, 15, 16, 17, 64, 1499, 1500, 1501)
DATA = bytes(range(1, 252)) * 8


@pytest.fixture(scope="module", params=list(ENGINES))
def backend(request):
    """Its name; the first that is opened compiles it."""
    ENGINES[request.param]().close()
    return request.param


@pytest.fixture(scope="module")
def conformance(backend):
    """conformance(text, memory): r0, or the text of why there is none."""
    machine = ENGINES[backend]()

    def run(text, memory=b""):
        program = assemble(text)
        try:
            return machine.run(Case(program, memory))
        except BpfnicError as error:
            return str(error)

    yield run
    machine.close()


def test_r0_has_64_bits(conformance):
    assert conformance("r0 = 0x0123456789abcdef ll\nexit") == 0x0123456789ABCDEF
    assert conformance("r0 = -1\nexit") == 0xFFFF_FFFF_FFFF_FFFF
    assert conformance("exit") == 0


def test_without_memory_address_and_length_are_0(conformance):
    assert conformance("r0 = r1\nr0 |= r2\nexit") == 0
    assert conformance("r0 = *(u8 *)(r1 + 0)\nexit") == "MEMORY_ACCESS at instruction 0"
    assert conformance(f"r1 = {MEMORY} ll\nr0 = *(u8 *)(r1 + 0)\nexit") == "MEMORY_ACCESS at instruction 2"


@pytest.mark.parametrize("length", LENGTHS)
def test_the_memory_ends_exactly(conformance, length):
    memory = DATA[:length]
    assert conformance("r0 = r2\nexit", memory) == length
    for size in (1, 2, 4, 8):
        bits = 8 * size
        for at in {-1, 0, length - size, length - size + 1, length, length + 7, -size}:
            load = conformance(f"r0 = *(u{bits} *)(r1 {at:+})\nexit", memory)
            store = conformance(f"r0 = 7\n*(u{bits} *)(r1 {at:+}) = r0\nexit", memory)
            if 0 <= at <= length - size:
                assert (load, store) == (int.from_bytes(memory[at : at + size], "little"), 7)
            else:
                assert load == "MEMORY_ACCESS at instruction 0", (size, at)
                assert store == "MEMORY_ACCESS at instruction 1", (size, at)


def test_what_a_program_stores_it_reads_back(conformance):
    text = "r3 = 0x1122334455667788 ll\n*(u64 *)(r1 + 3) = r3\n*(u8 *)(r1 + 4) = -1\nr0 = *(u64 *)(r1 + 2)\nexit"
    assert conformance(text, bytes(16)) == 0x22334455_66FF_8800
    assert conformance("r0 = *(u64 *)(r1 + 2)\nexit", bytes(16)) == 0  # nothing is left of the case before
    assert conformance("r0 = *(u64 *)(r10 - 8)\n*(u64 *)(r10 - 8) = 5\nexit") == 0
    assert conformance("r0 = *(u64 *)(r10 - 8)\nexit") == 0


@pytest.mark.parametrize("size", [32, 64])
def test_atomics_on_the_memory_and_on_the_stack(conformance, size):
    r = "w" if size == 32 else "r"
    for base in ("r1", "r10"):
        text = f"""
            r3 = r1
            r3 = {base}
            r3 += {-16 if base == "r10" else 8}
            *(u64 *)(r3 + 0) = 40
            r4 = 2
            {r}4 = atomic_fetch_add((u{size} *)(r3 + 0), {r}4)
            r0 = *(u64 *)(r3 + 0)
            r0 <<= 8
            r0 += r4
            exit"""
        assert conformance(text, bytes(24)) == 42 << 8 | 40


def test_the_whole_stack(conformance):
    text = "r1 = r10\nr1 -= 512\n*(u64 *)(r1 + 0) = 9\n*(u64 *)(r10 - 8) = 1\nr0 = *(u64 *)(r10 - 512)\nexit"
    assert conformance(text) == 9
    assert conformance("*(u64 *)(r10 - 520) = 9\nexit") == "MEMORY_ACCESS at instruction 0"
    assert conformance("*(u8 *)(r10 + 0) = 9\nexit") == "MEMORY_ACCESS at instruction 0"


@pytest.mark.parametrize(("size", "value"), [(8, 0x83), (16, 0x8384), (32, 0x83848586)])
def test_packet_loads_read_the_memory(conformance, size, value):
    memory = bytes(range(0x81, 0x91))
    last = len(memory) - size // 8
    assert conformance(f"r6 = r1\nr0 = *(u{size} *)skb[2]\nexit", memory) == value
    assert conformance(f"r6 = r1\nr7 = 1\nr0 = *(u{size} *)skb[r7 + 1]\nexit", memory) == value
    assert conformance(f"r6 = r1\nr0 = *(u{size} *)skb[{last}]\nr0 = 1\nexit", memory) == 1
    assert conformance(f"r6 = r1\nr0 = *(u{size} *)skb[{last + 1}]\nr0 = 1\nexit", memory) == 0
    assert conformance(f"r6 = r1\nr0 = *(u{size} *)skb[0]\nr0 = 1\nexit") == 0


def test_helper_5_returns_its_first_argument(conformance):
    assert conformance("r1 = 0x123456789abcdef0 ll\nr0 = 7\ncall 5\nexit") == 0x123456789ABCDEF0
    assert conformance("r6 = 1\nr1 = 2\ncall 5\nr1 = r0\nr1 += 1\ncall 5\nr0 += r6\nexit") == 4


@pytest.mark.parametrize("register", [0, 2, 9])
def test_helper_5_by_register(conformance, register):
    assert conformance(f"r1 = -77\nr{register} = 5\ncallx r{register}\nr0 += 7\nexit") == 2**64 - 70
    assert conformance(f"r{register} = 6\ncallx r{register}\nexit") == "HELPER at instruction 1"
    assert conformance(f"r{register} = 0x100000005 ll\ncallx r{register}\nexit") == "HELPER at instruction 2"


def test_a_function_by_its_address(conformance):
    text = """
        r1 = 40
        r6 = 100
        *(u64 *)(r10 - 128) = 1000
        r2 = code_addr(f) ll
        callx r2
        r0 += r6
        r1 = *(u64 *)(r10 - 128)
        r0 += r1
        exit
    f:
        r6 = 9
        *(u64 *)(r10 - 8) = 5
        r0 = r1
        r0 += 2
        exit"""
    assert conformance(text) == 1142


def test_shift_counts_beyond_the_width_are_masked(conformance):
    assert conformance("r0 = 1\nr0 <<= 65\nexit") == 2
    assert conformance("r0 = 1\nw0 <<= 33\nexit") == 2
    assert conformance("r0 = -4\nr0 s>>= 65\nexit") == 2**64 - 2
    assert conformance("r0 = 8\nw0 >>= -31\nexit") == 4


def test_a_jump_farther_than_16_bits(conformance):
    """There and back again."""
    middle = "r0 += 1\n" * 40_000
    assert conformance(f"r0 = 1\ngotol there\nback: exit\n{middle}exit\nthere: r0 += 20\ngotol back") == 21


def test_calls_keep_their_frames(conformance):
    text = """
        *(u64 *)(r10 - 120) = 3
        r6 = 10
        call f
        r0 += r6
        r1 = *(u64 *)(r10 - 120)
        r0 += r1
        exit
    f:
        r6 = 1000
        *(u64 *)(r10 - 8) = 77
        *(u64 *)(r10 - 64) = 77
        r0 = 100
        exit"""
    assert conformance(text) == 113


def test_a_recursion_that_ends(conformance):
    """The verifier refuses it; its encoding is legal."""
    text = "r1 = {}\ncall f\nexit\nf:\nr0 = 0\nif r1 == 0 goto out\nr1 -= 1\ncall f\nr0 += 3\nout:\nexit"
    assert conformance(text.format(6)) == 18
    assert conformance(text.format(7)) == "CALL_DEPTH at instruction 6"
    text = """
        r1 = {}
        call f
        exit
    f:
        r0 = 0
        if r1 == 0 goto out
        *(u64 *)(r10 - 120) = r1
        r1 -= 1
        call f
        r2 = *(u64 *)(r10 - 120)
        r0 += r2
    out:
        exit"""
    assert conformance(text.format(3)) == 6  # frames of 128 bytes: a fourth isn't whole
    assert conformance(text.format(4)) == "MEMORY_ACCESS at instruction 5"


def test_a_program_that_never_ends(conformance, monkeypatch):
    monkeypatch.setattr("bpfnic.sim.conformance.case.BUDGET", 1000)
    assert re.fullmatch("BUDGET at instruction [01]", conformance("r0 += 1\ngoto -2"))
    assert BUDGET > 1_000_000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ff 00 00 00 00 00 00 00", "instruction 0: ff 00 .*: unknown opcode 0xff"),
        ("b7 0b 00 00 00 00 00 00", "instruction 0: .*: mov64_imm: dst names r11, above r10"),
        ("b7 0a 00 00 00 00 00 00", "instruction 0: .*: mov64_imm: dst may not be r10, which is read-only"),
        ("b7 00 01 00 00 00 00 00", "instruction 0: .*: mov64_imm: offset must be 0, not 1"),
        ("05 00 05 00 00 00 00 00", "instruction 0: .* jumps to 6, outside the program"),
        ("b7 00 00 00 00 00 00 00", "instruction 0: .*: the function at 0 runs off its end here"),
        ("05 00 01 00 00 00 00 00 18 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 95 00 00 00 00 00 00 00",
         "instruction 0: .* jumps to 2, the second half of a 16-byte instruction"),
        ("18 00 00 00 00 00 00 00", "instruction 0: the second half of a 16-byte instruction is missing"),
        ("85 00 00 00 06 00 00 00 95 00 00 00 00 00 00 00", "instruction 0: .*: the device has no helper"),
        ("95 00 00 00", "instruction 0: truncated to 4 of 8 bytes"),
        ("", "has no instructions"),
    ],
)  # fmt: skip
def test_illegal_encodings_are_refused(backend, text, says):
    machine = ENGINES[backend]()
    with pytest.raises(BpfnicError, match=says):
        machine.run(Case(bytes.fromhex(text)))
    machine.close()


# ---------------------------------------------------------------- the command


def call(*arguments, program=b"", command=("bpfnic.sim.conformance.command", "main")):
    module, function = command
    text = f"import sys; sys.argv[0] = 'x'; from {module} import {function}; {function}()"
    return subprocess.run([sys.executable, "-c", text, *arguments], input=program, capture_output=True, timeout=600)


SUM = assemble("r0 = *(u16 *)(r1 + 0)\nr0 += r2\nexit").hex(" ").encode() + b"\n"


def test_the_command(backend):
    done = call("aa bb cc", "--backend", backend, program=SUM)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"bbad\n", b"")
    done = call("--backend", backend, program=assemble("r0 = -2\nexit").hex().encode())
    assert (done.returncode, done.stdout, done.stderr) == (0, b"fffffffffffffffe\n", b"")


def test_golden_is_the_default_and_bpfnic_has_the_same_command():
    for command in (("bpfnic.sim.conformance.command", "main"), ("bpfnic.host.cli", "main")):
        first = ["conformance"] if "host" in command[0] else []
        done = call(*first, "aabbcc", program=SUM, command=command)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"bbad\n", b"")


@pytest.mark.parametrize(
    ("arguments", "program", "status", "says"),
    [
        ([], SUM, 1, b"bpfnic-conformance: MEMORY_ACCESS at instruction 0"),
        (["aa"], SUM, 1, b"bpfnic-conformance: MEMORY_ACCESS at instruction 0"),
        (["aa bb"], b"zz", 1, b"bpfnic-conformance: the program must be hex bytes, two digits each"),
        (["aa bb"], b"\xff\xfe", 1, b"bpfnic-conformance: the program must be hex bytes, two digits each"),
        (["aa b"], SUM, 1, b"bpfnic-conformance: the memory must be hex bytes, two digits each"),
        ([], b"", 1, b"bpfnic-conformance: program 'conformance': has no instructions"),
        (["--nonsense"], SUM, 2, b"bpfnic-conformance: No such option '--nonsense'."),
        (["--backend", "gold"], SUM, 2, b"bpfnic-conformance: Invalid value for '--backend': "),
        (["--batch", "/nowhere/x"], SUM, 2, b"bpfnic-conformance: Invalid value for '--batch': "),
        (["00", "--batch", "/dev/null"], b"", 2, b"bpfnic-conformance: with --batch, each line brings its own memory"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, program, status, says):
    done = call(*arguments, program=program)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (status, b"", 1)
    assert done.stderr.startswith(says), done.stderr


def test_a_batch(backend, tmp_path):
    cases = [
        {"name": "first", "program": SUM.decode(), "memory": "01 02"},
        {"name": "fault", "program": SUM.decode()},
        {"name": "refused", "program": "ff" * 8, "memory": ""},
        {"name": "no hex", "program": "9", "memory": ""},
        {"name": "last", "program": assemble("r0 = r1\nexit").hex(), "memory": "00" * 1500},
    ]
    file = tmp_path / "batch.json"
    file.write_text("".join(json.dumps(case) + "\n" for case in cases))
    done = call("--batch", str(file), "--backend", backend)
    assert (done.returncode, done.stderr) == (0, b"")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["name"] for result in results] == [case["name"] for case in cases]
    assert [result.get("r0") for result in results] == ["203", None, None, None, f"{addresses.PACKET + 256:x}"]
    errors = [result.get("error", "") for result in results]
    assert errors[1] == "MEMORY_ACCESS at instruction 0"
    assert "unknown opcode" in errors[2] and "must be hex bytes" in errors[3] and not errors[0] + errors[4]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", b"no JSON"),
        (b"\xff", b"no JSON"),
        (b"[" * 100_000, b"no JSON"),
        (b"[]", b"must be an object with name, program and perhaps memory"),
        (b'{"name": "x"}', b"must be an object with name, program and perhaps memory"),
        (b'{"name": "x", "program": "", "ram": ""}', b"must be an object with name, program and perhaps memory"),
        (b'{"name": "x", "program": 5}', b"name, program and memory must be text"),
    ],
)
def test_a_line_of_a_batch_that_is_no_case(tmp_path, line, says):
    file = tmp_path / "batch.json"
    file.write_bytes(b'\n{"name": "good", "program": "9500000000000000"}\n' + line + b"\n")
    done = call("--batch", str(file))
    assert (done.returncode, done.stdout) == (2, b'{"name": "good", "r0": "0"}\n')
    assert done.stderr == b"bpfnic-conformance: --batch, line 3: " + says + b"\n"


def test_the_default_backend_needs_nothing_heavy():
    """It is started once a case."""
    code = """
import io, sys
sys.argv = ["bpfnic-conformance"]
sys.stdin = io.TextIOWrapper(io.BytesIO(b"9500000000000000"))
from bpfnic.sim.conformance import command
try:
    command.main()
finally:
    print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("0\n") and done.returncode == 0
    assert {"amaranth", "cffi", "rich", "elftools", "bpfnic.host.elf", "bpfnic.sim.rtl"}.isdisjoint(done.stdout.split())
