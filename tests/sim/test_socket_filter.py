"""Socket filters on golden, rtl and at a packet socket of the running kernel: what they keep, what they see of their
packet, loads by offset in it."""

import random
import struct

import pytest

import bpfnic
from bpfnic.host import lockstep
from bpfnic.host.device import Arrival, Pacing
from bpfnic.spec.programs import XdpAction

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC
BACKENDS = ["golden", "rtl", pytest.param("linux", marks=pytest.mark.linux)]

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
unsigned long long load_byte(void *skb, unsigned long long off) asm("llvm.bpf.load.byte");
unsigned long long load_half(void *skb, unsigned long long off) asm("llvm.bpf.load.half");
unsigned long long load_word(void *skb, unsigned long long off) asm("llvm.bpf.load.word");
"""
KEEPS = HEAD + 'SEC("socket") int program(struct __sk_buff *skb) { return load_word(skb, 14); }'
FIELDS = HEAD + """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u32[8]); __uint(max_entries, 1); }
	seen SEC(".maps");
SEC("socket") int program(struct __sk_buff *skb)
{
	__u32 zero = 0, *to = bpf_map_lookup_elem(&seen, &zero);
	if (!to)
		return 0;
	to[0] = skb->len;
	to[1] = skb->protocol;
	to[2] = skb->vlan_present;
	to[3] = skb->vlan_tci;
	to[4] = skb->pkt_type;
	to[5] = skb->ifindex;
	to[6] = skb->ingress_ifindex;
	to[7] = skb->cb[3];
	skb->cb[3] = 5;
	return -1;
}
"""
LOADS = HEAD + """
SEC("socket") int program(struct __sk_buff *skb)
{
	__u32 at = load_half(skb, 14), how = load_byte(skb, 16), value;
	if (how == 1)
		value = load_byte(skb, at);
	else if (how == 2)
		value = load_half(skb, at);
	else
		value = load_word(skb, at);
	return value ? value % 64 : 77;
}
"""
COPIES = HEAD + """
SEC("socket") int program(struct __sk_buff *skb)
{
	__u8 bytes[4] = { 1, 2, 3, 4 };
	if (bpf_skb_load_bytes(skb, load_half(skb, 14), bytes, 4) < 0)
		return 20;
	return 30 + bytes[0] % 16;
}
"""


@pytest.fixture(params=BACKENDS)
def nic(request):
    with bpfnic.Nic(request.param) as nic:
        yield nic


def frame(content=b"", to="020000000001", tag="", size=60):
    """Addresses, a tag, ETH_P_IP, then `content` and numbers."""
    header = bytes.fromhex(to + "020000000002" + tag + "0800")
    return (header + content + bytes(range(1, 200)))[:size]


@pytest.mark.parametrize("tag", ["", "81000064", "88a80fff"])
def test_the_verdict_is_how_many_bytes_are_kept(nic, build, tag):
    """Of the packet as the filter sees it; the tag is beside it, and part of what is kept from 12 bytes on."""
    program = nic.load(build(KEEPS))
    for kept in (0, 1, 11, 12, 13, 14, 59, 60, 61, 4096, 0x10000, 0x8000_0000, 0xFFFF_FFFF):
        sent = frame(kept.to_bytes(4), tag=tag)
        result = program.test_run(sent, port=1)
        seen = sent[:12] + sent[12 + len(tag) // 2 :]
        left = seen[:kept]
        if len(left) >= 12:
            left = left[:12] + bytes.fromhex(tag) + left[12:]
        assert result.retval == len(left)
        assert (result.data, result.egress) == ((left, "host") if kept else (None, None))
        assert result.action == (XdpAction.XDP_PASS if kept else XdpAction.XDP_DROP)


def test_what_a_filter_sees_of_its_packet(nic, build):
    program = nic.load(build(FIELDS))
    for to, kind in [("020000000001", 0), ("ffffffffffff", 1), ("01005e000001", 2), ("020000000009", 0)]:
        for tag, tci in [("", 0), ("81006123", 0x6123)]:
            result = program.test_run(sent := frame(to=to, tag=tag, size=90), port=1)
            length = 90 - len(tag) // 2
            assert nic.maps["seen"][0] == [length, 8, int(bool(tag)), tci, kind, 2, 2, 0]
            assert result.data == sent


def test_loads_by_offset(nic, build):
    """From the MAC header on, in network order; one past the packet's end ends the filter, which keeps nothing."""
    program = nic.load(build(LOADS))
    for how, size in ((1, 1), (2, 2), (3, 4)):
        for at in (0, 13, 20, 60 - size, 61 - size, 60, 0xFFFF):
            sent = frame(struct.pack(">HB", at, how))
            value = int.from_bytes(sent[at : at + size])
            kept = 0 if at + size > 60 else value % 64 if value else 77
            assert program.test_run(sent).retval == min(kept, 60), (how, at)


def test_helpers_copy_from_the_packet(nic, build):
    program = nic.load(build(COPIES))
    for at in (0, 1, 56, 57, 60):
        sent = frame(struct.pack(">H", at))
        assert program.test_run(sent).retval == (20 if at > 56 else 30 + sent[at] % 16)


def test_a_frame_too_short_for_the_first_load(nic, build):
    result = nic.load(build(KEEPS)).test_run(frame(size=17))
    assert (result.retval, result.action, result.data) == (0, XdpAction.XDP_DROP, None)


def test_lockstep_follows_socket_filters(build):
    source = random.Random(5)
    with bpfnic.Nic("rtl") as nic, bpfnic.Nic("golden") as reference:
        for each in (nic, reference):
            each.load(build(LOADS)).attach(0)
            each.load(build(KEEPS.replace("program(", "other("))).attach(1)
        arrivals = [
            Arrival(n % 2, frame(struct.pack(">HB", source.randrange(100), source.randrange(4)) if n % 2 == 0
                                 else source.randrange(1, 100).to_bytes(4), tag=source.choice(["", "81000005"]),
                                 size=source.randrange(14, 130)))
            for n in range(200)
        ]  # fmt: skip
        assert lockstep.run(nic.device, reference.device, arrivals, Pacing()).difference is None
