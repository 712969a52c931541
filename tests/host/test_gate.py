"""Nothing reaches a device unverified: what is refused leaves it as it was, and what is let through says so."""

import dataclasses
import json

import pytest

from bpfnic import BpfnicError, Nic
from bpfnic.host import pcap
from bpfnic.host.btf import Kind
from bpfnic.host.device import DeviceOptions
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.link import Reference
from bpfnic.host.prototypes import Prototype
from bpfnic.host.verifier import gate
from bpfnic.host.verifier.walk import Subject
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.spec.maps import MapFlag
from tests.host.verifier.subjects import subject

FRAME = bytes(60)
UNCHECKED = """struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");
SEC("xdp") int unchecked(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data;
	__u32 key = 1;
	__u64 *count = bpf_map_lookup_elem(&counts, &key);
	if (count)
		*count += 1;
	return data[13] ? XDP_DROP : XDP_TX;
}
SEC("xdp") int fine(struct xdp_md *ctx)
{
	__u32 key = 1;
	return bpf_map_lookup_elem(&counts, &key) ? XDP_PASS : XDP_DROP;
}
"""
HEAD = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
SAID = (r"program unchecked, instruction \d+: r\d = \*\(u8 \*\)\(r\d \+ 0xd\) \(.*\.c:\d+: return data\[13\].*\): The "
        "access needs 14 bytes .*nothing was compared with data_end. What would help: compare pkt . 14 with data_end")


@pytest.fixture
def golden():
    with Nic("golden", map_bytes=4096, maps=2) as card:
        yield card


@pytest.fixture
def obj(build):
    return build(HEAD + UNCHECKED)


def held(device):
    """What a load could change."""
    hardware = device._transport.nic
    slots = [hardware.code.read(slot) for slot in range(64)]
    return bytes(hardware.map_memory), slots, list(device._maps), list(device._programs)


def test_it_is_refused_in_one_line_and_the_device_is_as_it_was(golden, obj):
    golden.load(obj, "fine").attach()
    golden.maps["counts"][1] = 7
    before = held(golden.device)
    with pytest.raises(BpfnicError, match=SAID) as refused:
        golden.load(obj, "unchecked")
    assert "\n" not in str(refused.value) and held(golden.device) == before
    assert golden.maps["counts"][1] == 7 and list(golden.programs) == ["fine"]


def test_the_driver_refuses_it_too(golden, obj):
    """Whoever goes past Nic.load meets the same gate."""
    counts = golden.device.create_map(obj.maps["counts"])
    before = held(golden.device)
    with pytest.raises(BpfnicError, match=SAID):
        golden.device.load(obj.program("unchecked"), {"counts": counts})
    assert held(golden.device) == before


def test_no_map_is_made_for_it(obj):
    """Where map memory would be too small besides, the verifier's word comes first."""
    with Nic("golden", map_bytes=16) as card, pytest.raises(BpfnicError, match=SAID):
        card.load(obj, "unchecked")


def test_unsafe_loads_it_and_the_result_says_so(golden, obj):
    program = golden.load(obj, "unchecked", unsafe=True)
    run = program.test_run(FRAME)
    assert (run.action.name, run.verified, program.verified) == ("XDP_TX", False, False)
    fine = golden.load(obj, "fine")
    assert fine.verified and fine.test_run(FRAME).verified


def test_what_nobody_can_run_is_refused_even_so(golden, build):
    """`unsafe` leaves out the verifier alone."""
    wrong = build(HEAD + 'SEC("xdp") int x(struct xdp_md *c) { asm volatile("goto +1000"); return 2; }')
    with pytest.raises(BpfnicError, match=r"goto \+0x3e8: offset 1000 jumps to \d+, outside the program"):
        golden.load(wrong, unsafe=True)


def test_a_nic_with_wires_takes_nothing_unverified(obj):
    transport = GoldenTransport(DeviceOptions(threads=8))
    transport.wired = True
    device = RegisterDevice(transport)
    counts = {"counts": device.create_map(obj.maps["counts"])}
    with pytest.raises(BpfnicError, match="program fine: golden takes no unverified program; simulated NICs do"):
        device.load(obj.program("fine"), counts, unsafe=True)
    assert device.load(obj.program("fine"), counts).verified


@pytest.mark.linux
def test_nor_does_the_kernel(obj, run, source):
    with Nic("linux") as card, pytest.raises(BpfnicError, match="the kernel takes no unverified program"):
        card.load(obj, "fine", unsafe=True)
    status, out, err = run(source(UNCHECKED), "--program", "fine", "--unsafe", "--backend", "linux")
    assert (status, out) == (2, "")
    assert err == "bpfnic: --unsafe: the kernel takes no unverified program; simulated NICs do\n"


def test_the_command_line(run, refused, source, tmp_path):
    text, out = source(UNCHECKED), tmp_path / "out.pcapng"
    assert "program unchecked, instruction" in refused(text, "--program", "unchecked")
    status, shown, _ = run(text, "--program", "unchecked", "--unsafe", "--out", out)
    assert status == 0 and "note: the program was loaded unverified (--unsafe)" in shown
    assert {packet.comment for packet in pcap.read(out).packets} == {"the program was loaded unverified (--unsafe)"}
    report = json.loads(run(text, "--program", "unchecked", "--unsafe", "--json")[1])
    assert report["program"]["verified"] is False
    assert report["notes"] == ["the program was loaded unverified (--unsafe)"]
    report = json.loads(run(text, "--program", "fine", "--json", "--out", out)[1])
    assert report["program"]["verified"] is True and report["notes"] == []
    assert {packet.comment for packet in pcap.read(out).packets} == {""}


LIMITED = """
const volatile __u32 limit = 8;
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, char[16]); }
	bytes SEC(".maps");
SEC("xdp") int limited(struct xdp_md *ctx)
{
	__u32 key = 0;
	char *value = bpf_map_lookup_elem(&bytes, &key);
	return value ? *(volatile char *)(value + limit) : 1;
}
"""


def test_constants_are_those_of_the_device_and_stay(golden, build):
    """Set in the object they decide; once a program that was verified with them is there, nobody changes them."""
    obj = build(HEAD + LIMITED)
    obj.rodata["limit"] = 16
    with pytest.raises(BpfnicError, match="program limited, .*: The access reaches bytes 16 to 16 of 16"):
        golden.load(obj)
    obj.rodata["limit"] = 15
    golden.load(obj)
    with pytest.raises(PermissionError):
        golden.maps[".rodata"]["limit"] = 16
    assert golden.maps[".rodata"]["limit"] == 15


def test_a_program_on_shared_constants_is_verified_with_those_on_the_device(golden, build):
    two = LIMITED + LIMITED[LIMITED.index("SEC(\"xdp\")"):].replace("limited", "other")
    obj = build(HEAD + two)
    golden.load(obj, "limited")
    obj.rodata["limit"] = 16  # too late
    golden.load(obj, "other")


def test_a_verdict_is_kept_by_its_content(monkeypatch, obj, build):
    asked = []
    verify = gate.verify
    monkeypatch.setattr(gate, "verify", lambda subject: asked.append(subject.name) or verify(subject))
    gate._verdicts.clear()
    for _ in range(2):
        with Nic("golden") as card:
            card.load(obj, "fine")
            with pytest.raises(BpfnicError, match=SAID):
                card.load(obj, "unchecked")
    assert asked == ["fine", "unchecked"]


def test_whatever_a_verdict_depends_on_tells_it_from_others(build):
    one = subject("r1 = map_by_fd(0) ll\nr0 = 1\nexit")
    array = one.maps["array"]
    changed = {
        "name": "other",
        "type": subject("exit", type(one.type).SCHED_CLS).type,
        "code": subject("r1 = map_by_fd(0) ll\nr0 = 2\nexit").code,
        "references": {0: Reference("hash")},
        "maps": one.maps | {"array": dataclasses.replace(array, flags=MapFlag.RDONLY_PROG)},
        "license": "none",
        "attach": "devmap",
        "device_bound": True,
        "named": {2: "memcpy"},
        "prototypes": {0: Prototype.of(btf := build(HEAD + UNCHECKED).btf, btf.find(Kind.FUNC, "fine").number)},
    }
    assert set(changed) | {"line"} == {field.name for field in dataclasses.fields(Subject)}
    digests = {gate._digest(dataclasses.replace(one, **{name: value})) for name, value in changed.items()}
    assert len(digests | {gate._digest(one)}) == len(changed) + 1
    for field, value in (("value_size", 8), ("max_entries", 5), ("key_size", 8)):
        other = dataclasses.replace(one, maps=one.maps | {"array": dataclasses.replace(array, **{field: value})})
        assert gate._digest(other) != gate._digest(one)
