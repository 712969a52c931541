"""tc programs in the running kernel: what stands in front of them does what the receive path does."""

import struct

import pytest

import bpfnic
from bpfnic.host.device import DeviceOptions
from bpfnic.host.linux.device import open_device
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import TcAction, XdpAction

pytestmark = pytest.mark.linux

HEAD = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
static __always_inline __u32 word(struct __sk_buff *skb, int n)
{
	__u32 *words = (void *)(long)skb->data + 16;
	return (void *)(words + n + 1) <= (void *)(long)skb->data_end ? words[n] : 0;
}
"""
FIELDS = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u32[8]); __uint(max_entries, 1); }
	seen SEC(".maps");
static __always_inline int look(struct __sk_buff *skb)
{
	__u32 zero = 0, *to = bpf_map_lookup_elem(&seen, &zero);
	if (!to)
		return TC_ACT_SHOT;
	to[0] = skb->len;
	to[1] = skb->protocol;
	to[2] = skb->vlan_present;
	to[3] = skb->vlan_proto;
	to[4] = skb->vlan_tci;
	to[5] = skb->pkt_type;
	to[6] = skb->ifindex;
	to[7] = skb->ingress_ifindex;
	return TC_ACT_OK;
}
"""
HOST, BROADCAST, MULTICAST = 0, 1, 2  # PACKET_* of linux/if_packet.h


@pytest.fixture
def nic():
    with bpfnic.Nic(open_device(DeviceOptions(ports=2))) as nic:
        yield nic


def frame(*words, to="020000000001", tag="", size=60):
    """Addresses, a tag, ETH_P_IP, two bytes, then 32-bit words and zeros."""
    header = bytes.fromhex(to + "020000000002" + tag + "0800") + b"\x45\x00"
    return (header + struct.pack(f"<{len(words)}I", *words)).ljust(size, b"\0")


@pytest.mark.parametrize(
    ("verdict", "action"),
    [(action, XdpAction.XDP_PASS) for action in TcAction if action not in (2, 4, 7, 8)]
    + [(9, XdpAction.XDP_PASS), (TcAction.SHOT, XdpAction.XDP_DROP), (TcAction.STOLEN, XdpAction.XDP_DROP),
       (TcAction.TRAP, XdpAction.XDP_DROP), (TcAction.REDIRECT, XdpAction.XDP_ABORTED)],
)  # fmt: skip
def test_verdicts(nic, build, verdict, action):
    program = nic.load(build(HEAD + 'SEC("tc") int program(struct __sk_buff *skb) { return word(skb, 0); }'))
    result = program.test_run(frame(verdict), port=1)
    assert (result.retval, result.action) == (verdict, action)
    assert result.data == (frame(verdict) if action is XdpAction.XDP_PASS else None)


REDIRECT = HEAD + """
SEC("tc") int program(struct __sk_buff *skb) { return bpf_redirect(word(skb, 0), word(skb, 1)); }
"""


def test_redirects(nic, build):
    program = nic.load(build(REDIRECT))
    there = program.test_run(frame(2))
    assert (there.action, there.egress, there.data) == (XdpAction.XDP_REDIRECT, "port1", frame(2))
    nowhere = program.test_run(frame(7))
    assert (nowhere.retval, nowhere.action, nowhere.cause) == (TcAction.REDIRECT, XdpAction.XDP_ABORTED, "REDIRECT")
    unknown = program.test_run(frame(2, 2))
    assert (unknown.retval, unknown.action) == (TcAction.SHOT, XdpAction.XDP_DROP)
    with pytest.raises(BpfnicError, match="BPF_F_INGRESS: a NIC has no second way in"):
        program.test_run(frame(2, 1))


@pytest.mark.parametrize(
    ("arriving", "present", "proto", "tci", "kind"),
    [
        (frame(), 0, 0, 0, HOST),
        (frame(to="ffffffffffff"), 0, 0, 0, BROADCAST),
        (frame(to="01005e000001"), 0, 0, 0, MULTICAST),
        (frame(tag="8100 6123"), 1, 0x8100, 0x6123, HOST),
        (frame(tag="88a8 0fff 8100 0001"), 1, 0x88A8, 0x0FFF, HOST),
    ],
)
def test_what_a_program_sees_of_its_packet(nic, build, arriving, present, proto, tci, kind):
    program = nic.load(build(HEAD + FIELDS + 'SEC("tc") int program(struct __sk_buff *skb) { return look(skb); }'))
    result = program.test_run(arriving, port=1)
    protocol = arriving[16:18] if present else arriving[12:14]
    assert nic.maps["seen"][0] == [
        len(arriving) - 4 * present,
        int.from_bytes(protocol, "little"),
        present,
        int.from_bytes(proto.to_bytes(2, "big"), "little"),
        tci,
        kind,
        2,
        2,
    ]
    assert result.data == arriving  # with the tag


def test_a_tag_that_the_program_pushes_or_pops(nic, build):
    push = nic.load(build(HEAD + 'SEC("tc") int program(struct __sk_buff *skb) '
                          '{ return bpf_skb_vlan_push(skb, __builtin_bswap16(0x8100), 5); }'))  # fmt: skip
    assert push.test_run(frame(size=60)).data == frame(tag="8100 0005", size=64)
    pop = nic.load(build(HEAD + 'SEC("tc") int pop(struct __sk_buff *skb) { return bpf_skb_vlan_pop(skb); }'))
    assert pop.test_run(frame(tag="8100 0005", size=64)).data == frame(size=60)


TAILS = HEAD + FIELDS + """
int second(struct __sk_buff *skb);
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, int(struct __sk_buff *));
} next SEC(".maps") = { .values = { [0] = (void *)&second } };
SEC("tc") int second(struct __sk_buff *skb) { return look(skb); }
SEC("tc") int program(struct __sk_buff *skb)
{
	bpf_skb_vlan_pop(skb);
	bpf_tail_call(skb, &next, 0);
	return TC_ACT_SHOT;
}
"""


def test_a_packet_begins_once(nic, build):
    """The tag isn't there again for the program behind a tail call."""
    program = nic.load(build(TAILS), "program")
    assert program.test_run(frame(tag="8100 0005", size=64)).data == frame(size=60)
    assert nic.maps["seen"][0][2] == 0


def test_what_the_verifier_refuses_is_named_by_its_own_instruction(nic, build):
    with pytest.raises(BpfnicError, match=r"program program, instruction 1 .*: the kernel's verifier refuses it"):
        nic.load(build(HEAD + 'SEC("tc") int program(struct __sk_buff *skb) { skb->ifindex = 1; return 0; }'))
