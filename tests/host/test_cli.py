"""The command line as a user types it: what it prints and writes."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from bpfnic.host import compile, nic, pcap
from bpfnic.host.linux.permission import unavailable
from bpfnic.spec import engine
from bpfnic.spec.isa import Group
from tests.host.inputs import BY_PORT, COUNTER, FIRMWARE, PORTFILTER

SAMPLE, RULES = str(FIRMWARE / "samples" / "mixed.pcapng"), str(FIRMWARE / "samples" / "portfilter.json")


def capture(path, frames, interfaces=1, gap_ns=1000):
    packets = [pcap.Packet(10**9 + gap_ns * i, frame, i % interfaces) for i, frame in enumerate(frames)]
    pcap.write(path, pcap.Capture([pcap.Interface(f"eth{i}") for i in range(interfaces)], packets))
    return path


# -- what a run gives -------------------------------------------------------------------------------------------------


def test_json_says_what_the_tables_say(run, tmp_path):
    status, out, err = run(PORTFILTER, "--map", RULES, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    sample = pcap.read(SAMPLE).packets
    assert report["packets"]["received"] == len(sample) == sum(report["packets"]["verdicts"].values())
    assert sum(port["bytes_in"] for port in report["interfaces"]) == sum(len(packet.data) for packet in sample)
    assert (
        sum(port["packets_out"] for port in report["interfaces"])
        == len(sample) - report["packets"]["verdicts"]["XDP_DROP"]
    )
    assert {entry["key"]: entry["value"] for entry in report["maps"]["rules"]["entries"]} == {
        int(key): value for key, value in json.load(open(RULES))["rules"].items() if value
    }
    assert report["check"] is None and report["clocks"] is None
    status, out, err = run(PORTFILTER, "--map", RULES)
    assert (status, err) == (0, "")
    for action, count in report["packets"]["verdicts"].items():
        assert re.search(rf"{action} +{count} ", out)
    for port in report["interfaces"]:
        assert re.search(rf"{port['name']} .* {port['bytes_in']:,} .* {port['bytes_out']:,} ", out)
    assert re.search(r"Map rules \(ARRAY, 65,536 entries\)", out) and re.search(r"run: \d", out)


def test_what_programs_print_is_shown(run, source, tmp_path):
    program = source("""
SEC("xdp") int prints(struct xdp_md *ctx)
{
	bpf_printk("%u bytes", (__u32)(ctx->data_end - ctx->data));
	return XDP_PASS;
}
""")
    pcap = capture(tmp_path / "two.pcapng", [bytes(60), bytes(80)])
    status, out, err = run(program, "--threads", "8", pcap=pcap)
    assert status == 0 and "60 bytes" not in out
    assert sorted(line.partition(": bpf_trace_printk: ")[2] for line in err.splitlines()) == ["60 bytes", "80 bytes"]
    status, out, err = run(program, "--threads", "8", "--json", pcap=pcap)
    assert err == "" and len(json.loads(out)["trace"]) == 2


def test_it_runs_as_a_command_without_a_terminal():
    """Through the installed entry point: no progress bar, no colour codes."""
    command = [
        os.path.join(os.path.dirname(sys.executable), "bpfnic"),
        "run",
        COUNTER,
        "--pcap",
        SAMPLE,
        "--backend",
        "golden",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout and "Map by_protocol" in done.stdout


def test_version_needs_nothing_heavy():
    code = """
import sys
sys.argv = ["bpfnic", "--version"]
from bpfnic.host import cli
try:
    cli.main()
finally:
    print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("bpfnic ") and done.returncode == 0
    assert {"amaranth", "rich", "elftools", "bpfnic.host.elf", "bpfnic.host.run"}.isdisjoint(done.stdout.split())


def test_the_capture_that_leaves_has_verdicts_interfaces_and_numbers(run, source, tmp_path):
    program = source(
        """
SEC("xdp") int odd(struct xdp_md *ctx)
{
    unsigned char *data = (void *)(long)ctx->data;
    if (data + 14 > (unsigned char *)(long)ctx->data_end)
        return XDP_ABORTED;
    data[0] = 0x66;
    return data[13] & 1 ? XDP_TX : data[13] & 2 ? XDP_DROP : XDP_PASS;
}"""
    )
    frames = [bytes([i] * 60) for i in range(8)]
    out = tmp_path / "out.pcapng"
    assert run(program, "--out", out, pcap=capture(tmp_path / "in.pcapng", frames, 2))[0] == 0
    written = pcap.read(out)
    assert [interface.name for interface in written.interfaces] == ["port0", "port1", "host"]
    expected = {i: (i % 2, 3) if i & 1 else (2, 2) for i in range(8) if i & 3 != 2}
    assert {packet.packet_id: (packet.interface, packet.verdict[1]) for packet in written.packets} == expected
    assert all(packet.verdict[0] == pcap.VERDICT_XDP for packet in written.packets)
    assert all(packet.data == b"\x66" + frames[packet.packet_id][1:] for packet in written.packets)
    assert min(packet.timestamp for packet in written.packets) >= 10**9


def test_a_tc_programs_verdicts_are_said_to_be_that(run, source, tmp_path):
    program = source('SEC("tc") int pipe(struct __sk_buff *skb) { return 3; }')
    out = tmp_path / "out.pcapng"
    assert run(program, "--out", out, pcap=capture(tmp_path / "in.pcapng", [bytes(60)], 1))[0] == 0
    assert [packet.verdict for packet in pcap.read(out).packets] == [(pcap.VERDICT_TC, 3)]


def test_entries_of_a_map_that_leaves_them_to_its_loader(run, refused, source, tmp_path):
    program = source("""
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 0); __type(key, __u32); __type(value, __u64); }
	tally SEC(".maps");
volatile int seen;
SEC("xdp") int count(void *ctx)
{
	__u32 key = 3;
	__u64 *value = bpf_map_lookup_elem(&tally, &key);

	seen++;
	return value ? XDP_TX : XDP_DROP;
}
""")
    frames = capture(tmp_path / "in.pcapng", [bytes(60)], 1)
    for entries, verdict in ((3, "XDP_DROP"), (4, "XDP_TX")):
        status, out, _ = run(program, "--entries", f"tally={entries}", "--json", pcap=frames)
        assert (status, json.loads(out)["packets"]["verdicts"]) == (0, {verdict: 1})
    assert refused(program, pcap=frames) == "map tally (ARRAY): max_entries is 0"
    for wrong in ("tally=0", "tally=many", "none=4", ".bss=4"):
        assert f"--entries {wrong}: must be a map of the object (tally) and" in refused(
            program, "--entries", wrong, pcap=frames)  # fmt: skip


def test_rules_variables_and_ifindexes_reach_the_program(run, source, tmp_path):
    program = source(BY_PORT)
    rules = source('{"choices": {"1": {"verdict": 3}, "7": {"verdict": 2}}}', "rules.json")
    frames = capture(tmp_path / "in.pcapng", [bytes(60)] * 6, 2)

    def verdicts(*more):
        status, out, err = run(program, "--map", rules, "--json", *more, pcap=frames)
        assert (status, err) == (0, "")
        return json.loads(out)["packets"]["verdicts"]

    assert verdicts() == {"XDP_DROP": 3, "XDP_TX": 3}
    assert verdicts("--ifindex", "port1=7") == {"XDP_DROP": 3, "XDP_TX": 3}
    assert verdicts("--ifindex", "port1=7", "--global", "drop_from=0x10") == {"XDP_PASS": 3, "XDP_TX": 3}
    assert verdicts("--port", "0") == {"XDP_TX": 6}
    assert verdicts("--port", "1") == {"XDP_DROP": 6}


def test_a_list_of_rules_sets_structured_keys_and_each_cpu(run, source):
    program = source(
        """
struct who { __be32 address; __u16 port; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 9); __type(key, struct who); __type(value, __u32); }
    table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u32); }
    each SEC(".maps");
SEC("xdp") int use(struct xdp_md *ctx)
{
    struct who who = {};
    __u32 key = 0;
    return bpf_map_lookup_elem(&table, &who) || bpf_map_lookup_elem(&each, &key) ? XDP_PASS : XDP_DROP;
}"""
    )
    rules = source(json.dumps({
        "table": [{"key": {"address": "10.1.2.3", "port": 80}, "value": 5}],
        "each": [{"key": 0, "value": 9}, {"key": 1, "values": [1, 2, 3, 4, 5, 6, 7, 8]}],
    }), "rules.json")  # fmt: skip
    status, out, _ = run(program, "--map", rules, "--threads", "8", "--json")
    maps = json.loads(out)["maps"]
    assert maps["table"]["entries"] == [{"key": {"address": "10.1.2.3", "port": 80}, "value": 5}]
    assert maps["each"]["entries"] == [
        {"key": 0, "values": {str(cpu): 9 for cpu in range(8)}},
        {"key": 1, "values": {str(cpu): cpu + 1 for cpu in range(8)}},
    ]


COUNTED = """
struct who { __be32 address; __be16 port; __u16 zero; };
struct traffic { __u64 packets, bytes; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 9); __type(key, struct who);
         __type(value, struct traffic); } by_who SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 3); __type(key, __u32);
         __type(value, struct traffic); } by_number SEC(".maps");
SEC("xdp") int use(struct xdp_md *ctx)
{
    struct who who = {};
    __u32 key = 0;
    return bpf_map_lookup_elem(&by_who, &who) || bpf_map_lookup_elem(&by_number, &key) ? XDP_PASS : XDP_DROP;
}"""


def test_tables_have_a_column_for_each_member(run, source):
    """In the order of keys, whatever a walk's is; the values of several CPUs as one."""
    ports = [9, 443, 7000, 80, 256, 1]
    rules = source(json.dumps({
        "by_who": [{"key": {"address": "10.1.2.3", "port": port}, "value": {"packets": port}} for port in ports],
        "by_number": [{"key": 0, "value": {"packets": 9, "bytes": 1000}},
                      {"key": 1, "values": [{"packets": cpu == 5} for cpu in range(8)]}],
    }), "rules.json")  # fmt: skip
    status, out, _ = run(source(COUNTED), "--map", rules, "--threads", "8")
    tables = {name: [line.split() for line in body.splitlines() if line.strip("─")]
              for name, body in re.findall(r"^Map (\w+) .*\n((?:.+\n)+)", out, re.MULTILINE)}  # fmt: skip
    assert tables["by_who"] == [["address", "port", "zero", "packets", "bytes"]] + [
        ["10.1.2.3", str(port), "0", f"{port:,}", "0"] for port in sorted(ports)
    ]
    assert tables["by_number"] == [
        ["key", "packets", "bytes"],
        ["0", "72", "8,000", "(sum", "of", "8", "CPUs)"],
        ["1", "1", "0", "(CPU", "5)"],
    ]


def test_one_of_several_programs_is_named(run, source, refused):
    program = source(
        """
SEC("xdp") int first(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp") int second(struct xdp_md *ctx) { return XDP_TX; }"""
    )
    assert re.search(r"several programs, name one of them: first, second", refused(program))
    assert re.search(r"no program 'third'; it has first, second", refused(program, "--program", "third"))
    status, out, _ = run(program, "--program", "second", "--json")
    assert json.loads(out)["packets"]["verdicts"] == {"XDP_TX": len(pcap.read(SAMPLE).packets)}


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_a_lowered_budget_names_the_packets_that_it_ends(run, source, backend):
    """From 100 bytes on, this program takes more than 8 instructions; below, less."""
    program = source(
        """
SEC("xdp") int some(struct xdp_md *ctx)
{
    if (ctx->data_end - ctx->data >= 100)
        asm volatile("r0 = 1; r0 += 1; r0 += 1; r0 += 1; r0 += 1; r0 += 1; r0 += 1; r0 += 1; r0 += 1" ::: "r0");
    return XDP_DROP;
}"""
    )
    long = [str(n) for n, packet in enumerate(pcap.read(SAMPLE).packets) if len(packet.data) >= 100]
    status, out, _ = run(program, "--backend", backend, "--budget", "8", "--json")
    report = json.loads(out)
    assert status == 0 and report["packets"]["aborted"] == {"BUDGET": len(long)}
    assert report["notes"] == [f"the instruction budget of 8 ended {len(long)} of 420 packets: {', '.join(long)}"]


def test_compiler_options_reach_the_compiler(run, source, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "verdict.h").write_text("#define VERDICT CHOSEN\n")
    program = source('#include "verdict.h"\nSEC("xdp") int x(struct xdp_md *ctx) { return VERDICT; }')
    for more in (["-D", "CHOSEN=3"], ["-D", "CHOSEN=XDP_TX", "--mcpu", "v2"]):
        status, out, _ = run(program, "-I", tmp_path / "own", *more, "--json")
        assert status == 0 and list(json.loads(out)["packets"]["verdicts"]) == ["XDP_TX"]


def test_an_object_runs_as_its_source_does(run, source):
    path = compile.compile_object(COUNTER)
    status, out, _ = run(path, "--json")
    assert status == 0 and json.loads(out)["maps"]["by_protocol"]["entries"]


def test_packets_that_do_not_fit_are_counted_by_the_nic_and_reported(run, tmp_path):
    frames = capture(tmp_path / "in.pcapng", [bytes(60), bytes(1793), bytes(1792), bytes(13), bytes(14)])
    status, out, err = run(COUNTER, "--json", pcap=frames)
    report = json.loads(out)["packets"]
    assert (status, err) == (0, "")
    assert report["refused"] == {"longer than the buffer": 1, "bad or short": 1}
    assert sum(report["verdicts"].values()) == 3
    assert re.search(r"refused: longer than the buffer +1 ", run(COUNTER, pcap=frames)[1])
    assert json.loads(run(COUNTER, "--json", "--buffer-bytes", "4096", pcap=frames)[1])["packets"]["refused"] == {
        "bad or short": 1
    }


def test_packets_that_the_capture_cut_are_noted(run, tmp_path):
    path = tmp_path / "in.pcapng"
    packets = [pcap.Packet(0, bytes(60)), pcap.Packet(0, bytes(60), length=900)]
    pcap.write(path, pcap.Capture([pcap.Interface("eth0")], packets))
    assert "note: 1 of 2 packets were cut by the capture" in run(COUNTER, pcap=path)[1]


def test_a_budget_and_an_unknown_verdict_are_counted_by_cause(run, source):
    program = source('SEC("xdp") int x(struct xdp_md *ctx) { return 5; }')
    report = json.loads(run(program, "--json")[1])["packets"]
    assert report["verdicts"] == {"XDP_ABORTED": report["received"]} and report["aborted"] == {
        "VERDICT": report["received"]
    }


CLOCK = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 8); __type(key, __u32); __type(value, __u64); }
    times SEC(".maps");
__u32 next;
SEC("xdp") int stamp(struct xdp_md *ctx)
{
    __u32 key = next++;
    __u64 *time = bpf_map_lookup_elem(&times, &key);
    if (time)
        *time = bpf_ktime_get_ns();
    return XDP_DROP;
}"""


@pytest.mark.parametrize(("timing", "gap"), [("pcap", 5_000_000), ("pps=1000", 1_000_000)])
def test_timing_says_when_packets_arrive(run, source, tmp_path, timing, gap):
    frames = capture(tmp_path / "in.pcapng", [bytes(60)] * 4, gap_ns=5_000_000)
    out = run(source(CLOCK), "--timing", timing, "--json", pcap=frames)[1]
    times = [entry["value"] for entry in json.loads(out)["maps"]["times"]["entries"]]
    assert len(times) == 4
    assert all(abs(later - earlier - gap) < 100_000 for earlier, later in zip(times, times[1:], strict=False))


def test_backends_are_listed_with_what_they_execute_or_why_not(bpfnic):
    status, out, _ = bpfnic("backends", "--json")
    listed = json.loads(out)
    assert status == 0 and set(listed) == {"board", "golden", "rtl", "linux"}
    golden, linux = listed["golden"], listed["linux"]
    assert not listed["board"]["usable"] and "board:PLACE" in listed["board"]["why_not"]
    assert (golden["usable"], golden["why_not"]) == (True, None)
    assert golden["groups"].keys() == {group.value for group in Group} - golden["extensions"].keys()
    assert golden["extensions"].keys() == {"callx", "acquire_release", "may_goto", "firmware"}
    said = golden["groups"] | golden["extensions"]
    assert {name for name, extent in said.items() if extent == "complete"} == {group.value for group in engine.GROUPS}
    assert set(said.values()) <= {"complete", "no"}
    assert "ARRAY" in golden["map_types"] and "map_lookup_elem" in golden["helpers"]
    for what in ("groups", "extensions"):  # what loads on one loads on the other
        assert golden[what] == listed["rtl"][what]
    for what in ("helpers", "map_types"):  # the golden model may have more
        assert set(golden[what]) >= set(listed["rtl"][what])
    assert linux["usable"] == (unavailable() is None)
    if linux["usable"]:
        assert set(linux["groups"].values()) == {"complete"}
        assert linux["extensions"] == {
            "callx": "no", "acquire_release": "complete", "may_goto": "complete", "firmware": "no"
        }  # fmt: skip


def test_backends_are_a_table(bpfnic, monkeypatch):
    monkeypatch.setattr(nic, "backends", lambda: ["golden", "nowhere"])
    status, out, _ = bpfnic("backends")
    lines = [line.split() for line in out.splitlines()]
    assert status == 0 and lines[0] == ["golden"]
    assert ["RFC", "9669:", "base32", "complete"] in lines
    assert any(line[:2] == ["extension:", "may_goto"] for line in lines)
    assert ["helpers", str(len(engine.HELPERS))] in lines
    assert out.splitlines()[-1].startswith("nowhere: no backend 'nowhere'")


@pytest.mark.linux
@pytest.mark.parametrize("program", [PORTFILTER, COUNTER])
def test_the_kernel_agrees_with_the_golden_model(bpfnic, program):
    rules = ["--map", RULES] if program == PORTFILTER else []
    status, out, err = bpfnic("run", program, "--pcap", SAMPLE, "--backend", "linux", "--check", *rules)
    assert (status, err) == (0, "") and out.splitlines()[-1] == "linux = golden"


@pytest.mark.linux
def test_a_program_whose_values_the_kernel_does_not_record_is_not_compared(bpfnic, source):
    program = source(CLOCK)
    status, _, err = bpfnic("run", program, "--pcap", SAMPLE, "--backend", "linux", "--check")
    assert status == 2
    assert re.search(r"linux doesn't record what bpf_ktime_get_ns returns \(instruction \d+: .*program.bpf.c:\d+", err)


def test_a_terminal_shows_the_progress_of_a_long_run(source, tmp_path):
    frames = capture(tmp_path / "in.pcapng", [bytes(60)] * 16_000)
    ours, theirs = pty.openpty()
    command = [os.path.join(os.path.dirname(sys.executable), "bpfnic"), "run", COUNTER, "--pcap", frames]
    done = subprocess.Popen([*command, "--backend", "golden"], stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    while chunk := _read(ours):
        shown += chunk
    os.close(ours)
    assert done.wait(60) == 0 and "16,000" in done.stdout.read()
    assert re.search(rb"\d+%", shown), shown


def _read(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # Linux's way to say that the other end is closed
        return b""
