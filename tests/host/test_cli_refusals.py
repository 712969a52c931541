"""One clear line, exit status 2 and no traceback for everything that can't be used (issue 2, "Bad input")."""

import re
import shutil
import struct
import sys

import pytest

from bpfnic.host import compile, nic
from tests.host.inputs import BY_PORT, COUNTER, PORTFILTER


@pytest.fixture
def patched(source, tmp_path):
    """An object whose one program starts with the given instructions, as encoded."""

    def patched(*instructions):
        text = 'SEC("xdp") int x(struct xdp_md *ctx) { return bpf_get_prandom_u32() + ctx->ingress_ifindex; }'
        raw = bytearray(compile.compile_object(source(text)).read_bytes())
        slots = [one.encode() for one in nic.open(source(text)).program().instructions]
        at = raw.index(b"".join(slots))
        for i, code in enumerate(instructions):
            raw[at + 8 * i : at + 8 * i + 8] = code
        (tmp_path / "patched.o").write_bytes(raw)
        return tmp_path / "patched.o"

    return patched


def code(opcode, dst=0, src=0, offset=0, imm=0):
    return struct.pack("<BBhi", opcode, src << 4 | dst, offset, imm)


def test_an_unknown_instruction(refused, patched):
    said = refused(patched(code(0xFF)))
    assert re.search(r"program 'x', instruction 0.*unknown opcode 0xff.*program\.bpf\.c:\d+", said)


def test_a_jump_out_of_range(refused, patched):
    assert re.search(
        r"program 'x', instruction 0: goto \+0x64: offset 100 jumps to 101, outside the program",
        refused(patched(code(5, offset=100))),
    )


@pytest.mark.parametrize(
    ("helper", "says"),
    [
        (9999, "program 'x', instruction 0: call 0x270f: unknown helper 9999"),
        (14, r"program x: helper bpf_get_current_pid_tgid \(14\) at instruction 0 \(program.bpf.c:\d+\) is not on this "
             "device: there is no process here"),
        (46, r"program 'x', instruction 0: call 0x2e: helper get_socket_cookie \(46\) is not for XDP programs"),
    ],
)
def test_a_helper_that_is_not_there(refused, patched, helper, says):
    assert re.search(says, refused(patched(code(0x85, imm=helper))))


def test_a_truncated_object(refused, tmp_path):
    whole = compile.compile_object(COUNTER).read_bytes()
    for size in (3, 40, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.o").write_bytes(whole[:size])
        assert str(tmp_path / "cut.o") in refused(tmp_path / "cut.o")


def test_files_that_are_no_bpf_object(refused, source, tmp_path):
    assert "no such file" in refused(tmp_path / "missing.o").lower()
    assert "no such file" in refused(tmp_path / "missing.bpf.c").lower()
    assert sys.executable in refused(sys.executable)
    assert "text.o" in refused(source("no ELF at all", "text.o"))


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("BPF_MAP_TYPE_CGROUP_ARRAY", r"program x: map kept \(CGROUP_ARRAY\) is not on this device, which has ARRAY"),
        ("99", "map 'kept' has unknown map type 99"),
    ],
)
def test_a_map_type_that_is_not_there(refused, source, kind, says):
    text = """
struct { __uint(type, KIND); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); } kept SEC(".maps");
SEC("xdp") int x(struct xdp_md *ctx) { __u32 key = 0; return bpf_map_lookup_elem(&kept, &key) ? 2 : 1; }"""
    assert re.search(says, refused(source(text.replace("KIND", kind))))


def test_a_map_type_that_a_small_nic_leaves_out(refused, run, source):
    text = """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); }
	kept SEC(".maps");
SEC("xdp") int x(struct xdp_md *ctx) { __u32 key = 0; return bpf_map_lookup_elem(&kept, &key) ? 2 : 1; }"""
    said = refused(source(text), "--map-types", "array,PERCPU_ARRAY")
    assert said.endswith("program x: map kept (HASH) is not on this device, which has ARRAY, PERCPU_ARRAY (needed by "
                         "instruction 4 (program.bpf.c:8))")  # fmt: skip
    assert run(source(text), "--map-types", "HASH")[0] == 0


def test_a_map_larger_than_map_memory(refused):
    said = refused(PORTFILTER, "--map-bytes", "32768")
    assert said == "map rules (ARRAY): max_entries 65536 takes 65536 bytes of map memory, 32768 more than golden has"


def test_a_program_longer_than_the_store(refused, source):
    text = """
SEC("xdp") int lengthy(struct xdp_md *ctx)
{
    volatile int n = 0;
#pragma clang loop unroll(full)
    for (int i = 0; i < 2000; i++)
        n += i;
    return n;
}"""
    assert re.search(r"program lengthy: \d+ instruction slots are more than this device's 4096", refused(source(text)))


def test_source_that_does_not_compile(run, source):
    status, out, err = run(source('SEC("xdp") int x(struct xdp_md *ctx) { return nothing; }'))
    assert (status, out) == (2, "") and re.search(r"program\.bpf\.c:\d+:\d+: error: .*nothing", err)
    assert "Traceback" not in err


def test_a_missing_compiler(refused, source, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(compile.importlib.util, "find_spec", lambda name: None)
    compile.find_compiler.cache_clear()
    try:
        assert "install clang 18 or newer, or `pip install ziglang`" in refused(source(BY_PORT))
    finally:
        compile.find_compiler.cache_clear()


def pcap_header(link):
    return struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"\0" * 100, "starts neither a pcap nor a pcapng file"),
        (pcap_header(link=1), "ends without a packet"),
        (pcap_header(link=1) + struct.pack("<IIII", 0, 0, 60, 60) + bytes(20), "offset 24"),
        (pcap_header(link=101), "link type"),
    ],
    ids=["empty", "zeros", "packetless", "cut", "not ethernet"],
)  # fmt: skip
def test_a_capture_that_cannot_be_used(refused, tmp_path, content, says):
    (tmp_path / "in.pcap").write_bytes(content)
    said = refused(COUNTER, pcap=tmp_path / "in.pcap")
    assert said.startswith(str(tmp_path / "in.pcap")) and says in said


def test_captures_that_are_not_there(refused, tmp_path):
    assert "No such file" in refused(COUNTER, pcap=tmp_path / "missing.pcap")
    assert "out.pcapng" in refused(COUNTER, "--out", tmp_path / "no" / "out.pcapng")


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("{", "rules.json: line 1: "),
        ("[]", "must be an object of map names"),
        ('{"choice": {}}', "the program has no map 'choice'; it has .*choices"),
        ('{"choices": 5}', "map 'choices': must be an object, or a list"),
        ('{"choices": [{"key": 1}]}', "map 'choices': entry 0 must be an object with key and value"),
        ('{"choices": {"x": {}}}', "map 'choices': key: 'x' is not a number"),
        ('{"choices": {"9": {}}}', "map 'choices': key 9: Argument list too long"),
        ('{"choices": {"1": {"verdit": 1}}}', "map 'choices': value: struct choice has no member 'verdit'"),
        ('{"choices": {"1": {"verdict": 65536}}}', r"map 'choices': value\.verdict: 65536 does not fit 16 bits"),
        ('{"choices": [{"key": 1, "values": 3}]}', "map 'choices': values must be a list"),
        ('{"table": {"1": 1}}', "program by_port does not use map 'table'"),
    ],
)
def test_rules_that_do_not_fit(refused, source, rules, says):
    assert re.search(says, refused(source(BY_PORT), "--map", source(rules, "rules.json")))


def test_rules_that_are_not_there(refused, source, tmp_path):
    assert "rules.json: No such file" in refused(source(BY_PORT), "--map", tmp_path / "rules.json")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--global", "drop_form=1"], "no global variable 'drop_form'; the object has drop_from"),
        (["--global", "drop_from=many"], "drop_from: 'many' is not a number"),
        (["--timing", "fast"], "--timing fast: must be back-to-back, pcap or pps=N"),
        (["--timing", "pps=0"], "--timing pps=0: must be"),
        (["--ifindex", "port9=1"], "--ifindex port9=1: there is no port9; the NIC has port0, port1"),
        (["--ifindex", "port0=zero"], "--ifindex port0=zero: an ifindex is a number"),
        (["--ifindex", "port0=2"], "two ports have ifindex 2"),
        (["--port", "2"], "--port 2: the NIC has ports 0 to 1"),
        (["--mcpu", "v9"], "--mcpu v9: must be one of v1"),
        (["--check"], "--check compares with golden"),
        (["--waves", "out.fst"], "no signals to write waves of"),
        (["--backend", "paper"], "no backend 'paper'; there are board, golden, linux, rtl"),
        (["--backend", "linux", "--threads", "8"], "--threads is the NIC's"),
        (["--backend", "linux", "--map-types", "ARRAY"], "--map-types is the NIC's"),
        (["--map-types", "ARRAY,TEA"], "--map-types: there is no map type 'TEA'"),
        (["--map-types", "ARRAY,SOCKMAP,ARENA"], "map_types: the golden model has no SOCKMAP, ARENA"),
        (["--backend", "rtl", "--map-types", "ARENA"], "map_types must be some of HASH, ARRAY, .*, not ARENA"),
        (["--backend", "linux", "--budget", "8"], "--budget is the NIC's"),
        (["--budget", "0"], "instruction budget must be 1 to 16777215, not 0"),
        (["--backend", "linux", "--timing", "pcap"], "--timing pcap: the kernel takes the packets one by one"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be(refused, source, arguments, says):
    assert re.search(says, refused(source(BY_PORT), *arguments))


@pytest.mark.parametrize("arguments", [["--global", "drop_from"], ["--ifindex", "=1"], ["--port", "x"], ["--nonsense"]])
def test_misused_options_are_a_usage_error(run, arguments):
    status, out, err = run(COUNTER, *arguments)
    assert (status, out) == (2, "") and err.startswith("bpfnic run: ") and err.count("\n") == 1
