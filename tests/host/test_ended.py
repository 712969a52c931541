"""Where a device ended programs: cause, instruction and line of C, in the table and JSON of `bpfnic run`."""

import json
import re

import pytest

from bpfnic.host import pcap

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
	map SEC(".maps");
int called(struct xdp_md *ctx);
extern int bpf_absent(void *ctx) __ksym __weak;
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 1); __type(key, __u32);
	__array(values, int(void *)); } next SEC(".maps") = { .values = { (void *)&called } };
SEC("xdp") int called(struct xdp_md *ctx)
{
	return *(volatile __u8 *)((long)ctx->data + 3000);
}
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, kind = data[0];
	__u32 key = kind;
	if (kind == 1)
		return data[2000];
	if (kind == 2)
		return bpf_absent(ctx);
	if (kind == 3)
		return bpf_map_lookup_elem(data, &key) ? 1 : 2;
	if (kind == 4)
		for (;;)
			asm volatile("r1 = 1" ::: "r1");
	if (kind == 5)
		bpf_tail_call(ctx, &next, 0);
	return kind == 6 ? XDP_ABORTED : XDP_PASS;
}
"""
WHERE = {
    1: ("MEMORY_ACCESS", "program", "return data[2000];"),
    2: ("HELPER", "program", "return bpf_absent(ctx);"),
    3: ("MAP", "program", "return bpf_map_lookup_elem(data, &key) ? 1 : 2;"),
    4: ("BUDGET", "program", 'asm volatile("r1 = 1" ::: "r1");'),
    5: ("MEMORY_ACCESS", "called", "return *(volatile __u8 *)((long)ctx->data + 3000);"),
}  # fmt: skip
TIMES = (7, 3, 2, 2, 1, 4, 5)  # packets of each kind


@pytest.fixture
def run(bpfnic, tmp_path):
    """Runs it on packets of all kinds. Returns status and output."""
    (tmp_path / "ends.bpf.c").write_text(SOURCE)
    packets = [bytes([kind]) + bytes(63) for kind, times in enumerate(TIMES) for _ in range(times)]
    capture = [pcap.Packet(timestamp=number, data=data, interface=0) for number, data in enumerate(packets)]
    pcap.write(tmp_path / "in.pcapng", pcap.Capture([pcap.Interface("eth0")], capture))
    fixed = [str(tmp_path / "ends.bpf.c"), "--program", "program", "--pcap", str(tmp_path / "in.pcapng")]
    return lambda *options: bpfnic("run", *fixed, "--unsafe", "--budget", "1000", *options)[:2]


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_each_place_is_told(run, backend):
    check = ["--check"] if backend == "rtl" else []
    status, out = run("--backend", backend, "--json", *check)
    report = json.loads(out)
    assert status == 0 and (not check or report["check"]["equal"])
    packets = report["packets"]
    assert packets["aborted"] == {"MEMORY_ACCESS": 7, "HELPER": 2, "MAP": 2, "BUDGET": 1, "PROGRAM": 5}
    told = {(each["cause"], each["program"]): each for each in packets["ended"]}
    assert len(told) == len(packets["ended"]) == len(WHERE)
    for kind, (cause, program, text) in WHERE.items():
        place = told[cause, program]
        line = next(number for number, each in enumerate(SOURCE.splitlines(), 1) if text in each)
        lines = {line, line - 1} if kind == 4 else {line}  # the jump back is the loop's
        assert (place["packets"], place["first"]) == (TIMES[kind], sum(TIMES[:kind]))
        assert int(re.fullmatch(r"ends\.bpf\.c:(\d+): .*", place["source"])[1]) in lines
    assert told["MEMORY_ACCESS", "program"]["text"].endswith("+ 0x7d0)")
    assert told["MAP", "program"]["text"] == "call 0x1"


def test_the_table_tells_it(run):
    status, out = run("--backend", "golden")
    assert status == 0
    rows = re.sub(r"\s+", " ", out)
    assert "MEMORY_ACCESS 7" in rows and "program, instruction" in rows and "called, instruction" in rows
    assert "ends.bpf.c:19: return data[2000];" in rows
