"""tc programs on golden, rtl and in the running kernel: verdicts, redirects, what they see of their packet and may
change, tail calls."""

import struct

import pytest

import bpfnic
from bpfnic.host import lockstep
from bpfnic.host.device import Arrival, Pacing
from bpfnic.spec.programs import TC_DROPS, TcAction, XdpAction

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC
BACKENDS = ["golden", "rtl", pytest.param("linux", marks=pytest.mark.linux)]

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
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u32[10]); __uint(max_entries, 1); }
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
	to[8] = skb->data_end - skb->data;
	to[9] = skb->data - skb->data_meta;
	return TC_ACT_OK;
}
"""
HOST, BROADCAST, MULTICAST = 0, 1, 2  # PACKET_* of linux/if_packet.h


@pytest.fixture(params=BACKENDS)
def nic(request):
    with bpfnic.Nic(request.param) as nic:
        yield nic


def frame(*words, to="020000000001", tag="", size=60):
    """Addresses, a tag, ETH_P_IP, two bytes, then 32-bit words and zeros."""
    header = bytes.fromhex(to + "020000000002" + tag + "0800") + b"\x45\x00"
    return (header + struct.pack(f"<{len(words)}I", *words)).ljust(size, b"\0")


def test_verdicts(nic, build):
    """As a filter in direct action gives them; what is unknown passes as UNSPEC does."""
    program = nic.load(build(HEAD + 'SEC("tc") int program(struct __sk_buff *skb) { return word(skb, 0); }'))
    for verdict in [*TcAction, 9, 0x8000_0002]:
        result = program.test_run(frame(verdict), port=1)
        expected = XdpAction.XDP_DROP if verdict in TC_DROPS else XdpAction.XDP_PASS
        if verdict == TcAction.REDIRECT:  # nobody said where to
            expected = XdpAction.XDP_ABORTED
        assert (result.retval, result.action) == (verdict, expected)
        passes = expected is XdpAction.XDP_PASS
        assert (result.data, result.egress) == ((frame(verdict), "host") if passes else (None, None))


def test_redirects(nic, build):
    program = nic.load(build(HEAD + """
        SEC("classifier") int program(struct __sk_buff *skb) { return bpf_redirect(word(skb, 0), word(skb, 1)); }
    """))  # fmt: skip
    there = program.test_run(frame(2))
    assert (there.retval, there.action, there.egress) == (TcAction.REDIRECT, XdpAction.XDP_REDIRECT, "port1")
    assert there.data == frame(2)
    nowhere = program.test_run(frame(7))
    assert (nowhere.retval, nowhere.action, nowhere.cause) == (TcAction.REDIRECT, XdpAction.XDP_ABORTED, "REDIRECT")
    unknown = program.test_run(frame(2, 2))
    assert (unknown.retval, unknown.action) == (TcAction.SHOT, XdpAction.XDP_DROP)


def test_a_packet_comes_in_again(nic, build):
    """By another port, where no tc program stands."""
    program = nic.load(build(HEAD + """
        SEC("tc") int program(struct __sk_buff *skb) { return bpf_redirect(2, BPF_F_INGRESS); }
    """))  # fmt: skip
    result = program.test_run(frame())
    assert (result.retval, result.action, result.egress) == (TcAction.REDIRECT, XdpAction.XDP_PASS, "host")
    assert result.data == frame()


def test_what_a_program_sees_of_its_packet(nic, build):
    program = nic.load(build(HEAD + FIELDS + 'SEC("tc") int program(struct __sk_buff *skb) { return look(skb); }'))
    for arriving, present, proto, tci, kind in [
        (frame(), 0, 0, 0, HOST),
        (frame(to="ffffffffffff"), 0, 0, 0, BROADCAST),
        (frame(to="01005e000001"), 0, 0, 0, MULTICAST),
        (frame(tag="8100 6123"), 1, 0x8100, 0x6123, HOST),
        (frame(tag="88a8 0fff 8100 0001", to="ffffffffffff"), 1, 0x88A8, 0x0FFF, BROADCAST),
    ]:
        result = program.test_run(arriving, port=1)
        protocol = arriving[16:18] if present else arriving[12:14]
        length = len(arriving) - 4 * present
        assert nic.maps["seen"][0] == [
            length,
            int.from_bytes(protocol, "little"),
            present,
            int.from_bytes(proto.to_bytes(2, "big"), "little"),
            tci,
            kind,
            2,
            2,
            length,
            0,
        ]
        assert result.data == arriving  # with the tag


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
static __noinline int inner(struct __sk_buff *skb)
{
	bpf_tail_call(skb, &next, 0);
	return word(skb, 0) ?: TC_ACT_SHOT;
}
SEC("tc") int outer(struct __sk_buff *skb)
{
	int verdict = inner(skb);

	return skb->vlan_present ? verdict : TC_ACT_SHOT;
}
"""


def test_a_packet_begins_and_ends_once(nic, build):
    """Behind a tail call the tag isn't there again, and it isn't back yet where one came from a function: what it calls
    returns to that function's caller."""
    object = build(TAILS)
    program = nic.load(object, "program")
    assert program.test_run(frame(tag="8100 0005", size=64)).data == frame(size=60)
    assert nic.maps["seen"][0][2] == 0
    outer = nic.load(object, "outer")
    assert outer.test_run(frame(tag="8100 0005", size=64)).data == frame(tag="8100 0005", size=64)
    assert nic.maps["seen"][0][2] == 1


@pytest.mark.parametrize("backend", BACKENDS[:2])
@pytest.mark.parametrize(
    "access",
    [
        "skb->ifindex = 1;",  # live
        "skb->protocol = 1;",
        "verdict = skb->family;",
        "verdict = *(__u32 *)((char *)skb + 144);",  # half of flow_keys
        "verdict = *(__u8 *)((char *)skb + 192);",  # behind the structure
        "*(__u64 *)&skb->cb[4] = 1;",  # and `hash`
        "verdict = *(__u64 *)((char *)skb + 136);",  # data_meta may be read, local_port not
        "verdict = *(__u32 *)((char *)skb + 0x10200);",  # what lies where these words are kept
    ],
)
def test_fields_that_are_not_for_programs(build, backend, access):
    """What the kernel's verifier refuses ends the packet of an unverified program."""
    text = f"""
        SEC("tc") int program(struct __sk_buff *skb)
        {{ __u64 verdict = 0; {access} asm volatile("" :: "r"(verdict)); return 0; }}
    """
    with bpfnic.Nic(backend) as nic:
        result = nic.load(build(HEAD + text), unsafe=True).test_run(frame())
        assert (result.action, result.cause) == (XdpAction.XDP_ABORTED, "MEMORY_ACCESS")


@pytest.mark.parametrize("backend", BACKENDS[:2])
def test_the_context_is_naturally_aligned(build, backend):
    text = 'SEC("tc") int program(struct __sk_buff *skb) { return *(__u32 *)((char *)skb + 9); }'
    with bpfnic.Nic(backend) as nic:
        assert nic.load(build(HEAD + text), unsafe=True).test_run(frame()).cause == "MISALIGNED"


LOADS = HEAD + """
unsigned long long load_byte(void *skb, unsigned long long off) asm("llvm.bpf.load.byte");
unsigned long long load_half(void *skb, unsigned long long off) asm("llvm.bpf.load.half");
unsigned long long load_word(void *skb, unsigned long long off) asm("llvm.bpf.load.word");
SEC("tc") int program(struct __sk_buff *skb)
{
	__u32 at = load_half(skb, 14), how = load_byte(skb, 16);
	skb->mark = how == 1 ? load_byte(skb, at) : how == 2 ? load_half(skb, at) : load_word(skb, at);
	return skb->mark == load_word(skb, 20) ? TC_ACT_SHOT : TC_ACT_STOLEN;
}
"""


def test_loads_by_offset(nic, build):
    """In network order, from the MAC header on, without the tag. One past the packet's end ends the program with 0, and
    what comes behind a program comes behind this one too."""
    program = nic.load(build(LOADS))
    for how, size in ((1, 1), (2, 2), (3, 4)):
        for at in (0, 13, 20, 60 - size, 61 - size, 60, 0xFFFF):
            packet = bytearray(range(60))
            packet[12:14], packet[14:17] = b"\x08\x00", struct.pack(">HB", at, how)
            packet[20:24] = bytes(packet[at : at + size]).rjust(4, b"\0")
            value = int.from_bytes(packet[at : at + size])
            sent = bytes(packet[:12]) + bytes.fromhex("81000005") + bytes(packet[12:])
            result = program.test_run(sent)
            if at + size > 60:
                assert (result.retval, result.data) == (TcAction.OK, sent)
            else:
                expected = TcAction.SHOT if value == int.from_bytes(packet[20:24]) else TcAction.STOLEN
                assert (result.retval, result.data) == (expected, None)


def test_xdp_and_tc_programs_side_by_side(nic, build):
    """Each port's packets end by the type of their own program."""
    nic.load(build(HEAD + 'SEC("tc") int first(struct __sk_buff *skb) { return 2; }')).attach(0)
    nic.load(build(HEAD + 'SEC("xdp") int other(struct xdp_md *xdp) { return 2; }')).attach(1)
    arrivals = [Arrival(number % 2, frame(number)) for number in range(40)]
    actions = [packet.action for packet in nic.run(arrivals).packets]
    assert actions == [XdpAction.XDP_DROP, XdpAction.XDP_PASS] * 20


def test_lockstep_follows_a_tc_program(build):
    object = build(HEAD + FIELDS + 'SEC("tc") int program(struct __sk_buff *skb) { return look(skb); }')
    with bpfnic.Nic("rtl") as nic, bpfnic.Nic("golden") as reference:
        for each in (nic, reference):
            each.load(object).attach()
        arrivals = [Arrival(n % 2, frame(n, tag="8100 0005" if n % 3 else "")) for n in range(60)]
        assert lockstep.run(nic.device, reference.device, arrivals, Pacing()).difference is None
