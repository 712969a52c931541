"""bpf_fib_lookup and bpf_check_mtu: the firmware answers what the running kernel answers from the same routes."""

import random
import struct
from collections import Counter
from dataclasses import replace

import pytest

import bpfnic
from bpfnic.host.device import Arrival
from bpfnic.host.network import IPV4, IPV6, Address, Link, Network, NextHop, Route
from tests.networks import PORTS, Drawn, packed

HEAD = """
#include <linux/bpf.h>
#include <linux/errno.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
#ifdef TC
#define SECTION SEC("tc")
#define CONTEXT struct __sk_buff
#define DROP 2
#define PASS 0
#else
#define SECTION SEC("xdp")
#define CONTEXT struct xdp_md
#define DROP XDP_DROP
#define PASS XDP_PASS
#endif
"""
PROGRAM = """
struct call {
	char ethernet[14];
	__u16 plen;
	__u32 flags;
	__s32 result;
	struct bpf_fib_lookup params;
};

SECTION int look_up(CONTEXT *ctx)
{
	struct call *call = (void *)(long)ctx->data;
	if ((void *)(call + 1) > (void *)(long)ctx->data_end)
		return DROP;
	struct bpf_fib_lookup params = call->params;
	__u32 plen = call->plen;
	barrier_var(plen);
	if (plen < 1 || plen > sizeof params)
		return DROP;
	int result = bpf_fib_lookup(ctx, &params, plen, call->flags);
	call = (void *)(long)ctx->data;
	if ((void *)(call + 1) > (void *)(long)ctx->data_end)
		return DROP;
	call->result = result;
	call->params = params;
	return PASS;
}
"""
DIRECT, OUTPUT, SKIP_NEIGH, TBID, SRC, MARK = (1 << bit for bit in range(6))
SUCCESS, BLACKHOLE, UNREACHABLE, PROHIBIT, NOT_FWDED, FWD_DISABLED, UNSUPP_LWT, NO_NEIGH, FRAG_NEEDED, NO_SRC_ADDR = (
    range(10)
)
EINVAL, ENODEV, EAFNOSUPPORT = 22, 19, 97
AF = {IPV4: 2, IPV6: 10}
PARAMS = struct.Struct("<BBHHHI4s16s16sI6s6s")
CALL = struct.Struct(f"<14sHIi{PARAMS.size}s")


def call(source, destination, flags=0, plen=PARAMS.size, *, family=None, ifindex=PORTS[0], tos=0, tot_len=0, table=0,
         macs=bytes(12), protocol=17, ports=(1, 2)):  # fmt: skip
    """A frame with the arguments of a look-up."""
    params = PARAMS.pack(
        AF[IPV4 if len(destination) == 4 else IPV6] if family is None else family,
        protocol,
        *ports,
        tot_len,
        ifindex,
        bytes([tos, 0, 0, 0]),
        source.ljust(16, b"\0"),
        destination.ljust(16, b"\0"),
        table,
        macs[:6],
        macs[6:],
    )
    return CALL.pack(bytes(14), plen, flags, 0, params)


class Answer:
    def __init__(self, frame):
        *_, self.result, params = CALL.unpack(frame[: CALL.size])
        self.family, _, _, _, self.mtu, self.ifindex, metric, source, destination, self.vlan, self.smac, self.dmac = (
            PARAMS.unpack(params)
        )
        self.metric = int.from_bytes(metric, "little")
        size = 4 if self.family == AF[IPV4] else 16
        self.source, self.destination = source[:size], destination[:size]


class Card:
    def __init__(self, build, backend, network, kind="XDP", program=PROGRAM):
        self.nic = bpfnic.Nic(backend, ports=len(PORTS))
        for port, ifindex in enumerate(PORTS):
            self.nic.set_ifindex(port, ifindex)
        self.nic.network = network
        self.nic.load(build(HEAD + program, define=[kind])).attach()

    def answers(self, frames):
        return [packet.data for packet in self.nic.run([Arrival(0, frame) for frame in frames]).packets]

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.nic.close()


def draw_call(chance, drawn):
    family = chance.choice([IPV4, IPV6])
    usual = [0, 0, DIRECT, DIRECT | TBID, OUTPUT, SKIP_NEIGH, SRC, SRC | SKIP_NEIGH, MARK]
    flags = chance.choice([*usual, chance.randrange(64)])
    own = [address.address for link in drawn.links for address in link.addresses]
    sources = [bytes([203, 0, 113, 5]), packed("2001:db8:5::1"), bytes(4), bytes(16), *own]
    size = 4 if family == IPV4 else 16
    return call(
        chance.choice([each for each in sources if len(each) == size]),
        drawn.address(family),
        flags if chance.random() < 0.95 else 1 << chance.randrange(6, 32),
        PARAMS.size if chance.random() < 0.95 else chance.randrange(1, PARAMS.size),
        family=None if chance.random() < 0.95 else chance.choice([0, 1, 3]),
        ifindex=chance.choice([*PORTS, *PORTS, *PORTS, 1, 7, 9, 0, 77]),
        tos=chance.choice([0, 0x08, 0x10, 0x13, 0xB8, 255]),
        tot_len=chance.choice([0, 100, 1300, 1301, 1400, 1401, 1500, 1501, 9000, 65535]),
        table=chance.choice([0, 100, 253, 254, 255, 77]),
        macs=bytes([chance.randrange(4), *bytes(3)]) + chance.randbytes(8),  # the mark is there too
        protocol=chance.choice([6, 17]),
        ports=(chance.choice([0x0100, 0x0500, 0x0101, 5]), chance.choice([0x0200, 0x0102, 2])),
    )


KINDS = ["XDP", "TC"]


@pytest.mark.linux
@pytest.mark.parametrize("kind", KINDS)
def test_random_look_ups_in_random_networks(build, kind):
    results = Counter()
    for seed in range(4):
        chance = random.Random(f"{kind} {seed}")
        drawn = Drawn(chance, rules=seed % 2 == 1)
        frames = [draw_call(chance, drawn).ljust(chance.choice([100, 1318, 1319, 1518]), b"\0") for _ in range(300)]
        with Card(build, "golden", drawn.network, kind) as ours, Card(build, "linux", drawn.network, kind) as theirs:
            for frame, mine, kernel in zip(frames, ours.answers(frames), theirs.answers(frames), strict=True):
                assert mine == kernel, (seed, frame.hex(), vars(Answer(mine)), vars(Answer(kernel)))
                results[Answer(kernel).result] += 1
    every = {*range(FRAG_NEEDED + 1), -EINVAL, -ENODEV, -EAFNOSUPPORT}
    assert results.keys() == every and all(results[each] > 3 for each in every), results


LOOPBACK = Link(1, "lo", mtu=65536, loopback=True)
LINKS = tuple(
    Link(port, f"eth{port}", bytes([2, 0, 0, 0, 0, port]), addresses=(Address(bytes([10, port, 0, 1]), 24),))
    for port in PORTS
)
V4_HOPS = tuple(NextHop(port, bytes([10, port, 0, n]), weight) for port, n, weight in ((2, 5, 1), (3, 6, 2), (3, 7, 5)))
V6_HOPS = tuple(NextHop(hop.ifindex, packed(f"fe80::{hop.gateway[3]}"), hop.weight) for hop in V4_HOPS)
PATHS = Network(
    (LOOPBACK, *LINKS),
    (
        Route(IPV4, packed("10.0.0.0"), 8, V4_HOPS),
        Route(IPV6, packed("2001:db8::"), 32, V6_HOPS, metric=1024),
    ),
)


def paths_of(card, frames):
    answers = [Answer(frame) for frame in card.answers(frames)]
    assert {answer.result for answer in answers} == {SUCCESS}
    return [(answer.ifindex, answer.destination) for answer in answers]


@pytest.mark.linux
@pytest.mark.parametrize(("hops", "source", "destination"), [(V4_HOPS, "10.9.0.0", "10.8.0.0"),
                                                             (V6_HOPS, "2001:db8:9::", "2001:db8:8::")])  # fmt: skip
def test_several_paths(build, hops, source, destination):
    """Which path a flow takes is a matter of a hash that is not Linux's: each takes one, always the same, and the paths
    get shares of flows as their weights say. Where Linux doesn't hash, the path is Linux's."""
    chance = random.Random(1)
    pairs = [[packed(text)[:-2] + chance.randbytes(2) for text in (source, destination)] for _ in range(800)]
    frames = [call(*pair, SKIP_NEIGH) for pair in pairs]
    chosen = {(hop.ifindex, hop.gateway): hop.weight for hop in hops}
    with Card(build, "golden", PATHS) as ours, Card(build, "linux", PATHS) as theirs:
        for card in (ours, theirs):
            found = Counter(paths_of(card, frames))
            for path, weight in chosen.items():
                assert abs(found[path] - 100 * weight) < 60  # of 800 flows, for weights of 8 in all
            assert sum(found[path] for path in chosen) == len(frames)
        assert paths_of(ours, frames[:20]) == paths_of(ours, frames[:20])
        by_link = [call(*pair, SKIP_NEIGH | OUTPUT, ifindex=port) for pair in pairs[:5] for port in PORTS]
        assert paths_of(ours, by_link) == paths_of(theirs, by_link)
        if hops is V4_HOPS:  # a source address of one's own prefers its link, and the hash decides among the rest
            own = call(bytes([10, 2, 0, 1]), pairs[0][1], SKIP_NEIGH)
            assert paths_of(ours, [own]) == paths_of(theirs, [own]) == [(2, V4_HOPS[0].gateway)]


@pytest.mark.linux
def test_no_source_address(build):
    """Without any address of its family: IPv4 gets 0.0.0.0, IPv6 an error, behind which the rest is written."""
    links = tuple(replace(link, addresses=()) for link in LINKS)
    network = Network(
        links,
        (Route(IPV4, packed("10.0.0.0"), 8, (NextHop(3, packed("10.3.0.7")),)),
         Route(IPV6, packed("2001:db8::"), 32, (NextHop(3, packed("fe80::7")),), metric=1024)),
    )  # fmt: skip
    frames = [call(bytes([9] * 4), packed("10.0.0.1"), SRC | SKIP_NEIGH),
              call(bytes([9] * 16), packed("2001:db8::1"), SRC | SKIP_NEIGH)]  # fmt: skip
    with Card(build, "golden", network) as ours, Card(build, "linux", network) as theirs:
        assert ours.answers(frames) == theirs.answers(frames)
        assert [Answer(frame).result for frame in ours.answers(frames)] == [SUCCESS, NO_SRC_ADDR]


@pytest.mark.parametrize("kind", KINDS)
def test_the_hardware_answers_as_the_reference(build, kind):
    chance = random.Random(f"{kind} 11")
    drawn = Drawn(chance, rules=True)
    frames = [draw_call(chance, drawn) for _ in range(150)]
    with Card(build, "golden", drawn.network, kind) as reference, Card(build, "rtl", drawn.network, kind) as hardware:
        assert hardware.answers(frames) == reference.answers(frames)


CHECK_MTU = """
struct call {
	char ethernet[14];
	__u16 padding;
	__u32 ifindex, mtu_len;
	__s32 len_diff;
	__u32 flags;
	__s32 result;
};

SECTION int check(CONTEXT *ctx)
{
	struct call *call = (void *)(long)ctx->data;
	if ((void *)(call + 1) > (void *)(long)ctx->data_end)
		return DROP;
	__u32 mtu_len = call->mtu_len;
	int result = bpf_check_mtu(ctx, call->ifindex, &mtu_len, call->len_diff, call->flags);
	call = (void *)(long)ctx->data;
	if ((void *)(call + 1) > (void *)(long)ctx->data_end)
		return DROP;
	call->result = result;
	call->mtu_len = mtu_len;
	return PASS;
}
"""


@pytest.mark.linux
@pytest.mark.parametrize("kind", KINDS)
def test_check_mtu(build, kind):
    chance = random.Random(1)
    eth = [replace(link, mtu=mtu) for link, mtu in zip(LINKS, (300, 1400), strict=True)]
    network = Network((LOOPBACK, *eth, Link(7, "eth7", mtu=1500, up=False)))
    lengths = [0, 1, 285, 286, 287, 299, 300, 301, 314, 315, 1400, 1401, 65536, 0x7FFFFFFF, 0xFFFFFFFF]
    frames = []
    for _ in range(400):
        length = chance.choice([60, 299, 300, 301, 313, 314, 315, 1414, 1415])
        arguments = (
            chance.choice([0, 0, *PORTS, 1, 7, 99]),
            chance.choice([0, 0, 0, *lengths]),
            chance.choice([0, 0, 1, -1, 14, -14, 1000, -1000, 0x7FFFFFFF, -0x80000000]),
            chance.choice([0] * 8 + [1, 1, 2, 1 << 31]),
        )
        frames.append((bytes(16) + struct.pack("<IIiIi", *arguments, 0)).ljust(length, b"\0"))
    results = Counter()
    with (
        Card(build, "golden", network, kind, CHECK_MTU) as ours,
        Card(build, "linux", network, kind, CHECK_MTU) as theirs,
    ):
        for frame, mine, kernel in zip(frames, ours.answers(frames), theirs.answers(frames), strict=True):
            assert mine == kernel, (len(frame), struct.unpack_from("<IIiI", frame, 16), mine[16:36].hex())
            results[struct.unpack_from("<i", kernel, 32)[0]] += 1
    assert results.keys() == {0, 1, -EINVAL, -ENODEV} and min(results.values()) > 10, results
