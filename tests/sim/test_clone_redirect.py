"""bpf_clone_redirect: what leaves the NIC is what leaves the links of the running kernel, where the same program
stands at the ingress of one of them; clones on golden and rtl, their order, and what happens when no buffer is free."""

import errno
import os
import random
import socket
import struct

import pytest

import bpfnic
from bpfnic.host.bench import Bench
from bpfnic.host.device import Arrival, Pacing
from bpfnic.host.linux import bpf
from bpfnic.host.linux.namespace import Namespace, link_name
from bpfnic.host.linux.packetsocket import PACKET_AUXDATA, SOL_PACKET, receive
from bpfnic.host.object import FileDescriptors
from bpfnic.spec import helpers
from bpfnic.spec.instruction import encode
from bpfnic.spec.programs import MAX_HOPS, ProgramType, TcAction, XdpAction
from tests.host.test_redirect_neigh import LINK_CREATE, TCX_INGRESS, _LinkCreate

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

PORTS, ENDS = (2, 3), (102, 103)
SO_RCVBUFFORCE = 33
CLONES = 3  # the ingress that they are counted at
PROGRAM = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";

struct call {
	__u32 ifindex, high, flags, change, verdict, to;
};

SEC("tc") int clone(struct __sk_buff *skb)
{
	struct call call;
	long result;

	if (bpf_skb_load_bytes(skb, 16, &call, sizeof call))
		return TC_ACT_OK;
	if (call.change & 1)
		bpf_skb_vlan_push(skb, 0xa888, 7); /* 88a8 in network order */
	if (call.change & 2)
		bpf_skb_change_head(skb, 14, 0);
	if (call.change & 4)
		bpf_skb_change_tail(skb, 300, 0);
	result = bpf_clone_redirect(skb, call.ifindex, (__u64)call.high << 32 | call.flags);
	if (call.change & 8)
		bpf_clone_redirect(skb, call.to, 0);
	bpf_skb_store_bytes(skb, 40, &result, sizeof result, 0);
	return call.verdict == TC_ACT_REDIRECT ? bpf_redirect(call.to, 0) : (int)call.verdict;
}
"""


def frame(number, ifindex=3, flags=0, *, high=0, change=0, verdict=TcAction.REDIRECT, to=3, tag=b"", size=64):
    """A frame that says what its program does; at byte 48 its number, at the end that too."""
    head = b"\2" + bytes(4) + b"\1" + bytes([2, 0, 0, 0, 0, 9]) + tag + b"\x88\xb5" + bytes(2)
    call = struct.pack("<6I", ifindex, high, flags, change, verdict, to)
    whole = (head + call + bytes(8)).ljust(48 + len(tag), b"\xee") + b"number" + number.to_bytes(4)
    return whole.ljust(size, bytes([number & 0xFF]))


def numbered(frames):
    """The test's frames among others, by number, in whatever order."""
    found = {}
    for each in frames:
        if b"number" in each:
            at = each.index(b"number") + 6
            found.setdefault(int.from_bytes(each[at : at + 4]), []).append(each)
    return {number: sorted(each) for number, each in found.items()}


@pytest.fixture(params=["golden", "rtl"])
def nic(request, build):
    with bpfnic.Nic(request.param, ports=2) as nic:
        for port, ifindex in enumerate(PORTS):
            nic.set_ifindex(port, ifindex)
        nic.load(build(PROGRAM)).attach(0)
        yield nic


def test_a_clone_leaves_and_the_program_goes_on(nic):
    arriving = frame(1, tag=b"\x81\x00\x20\x07")
    traffic = nic.run([Arrival(0, arriving)])
    (packet,), (clone,) = traffic.packets, traffic.clones
    assert (clone.action, clone.egress, clone.data) == (XdpAction.XDP_REDIRECT, 1, arriving)
    assert (clone.parent, clone.verdict, clone.accepted) == (0, None, True)
    assert (packet.action, packet.egress) == (XdpAction.XDP_REDIRECT, 1)
    assert packet.data == arriving[:44] + bytes(8) + arriving[52:]
    assert {(each.arrival, each.clone) for each in traffic.departures} == {(0, None), (0, 0)}


def test_a_clone_comes_in(nic):
    arriving = frame(1, flags=1, verdict=TcAction.SHOT)
    traffic = nic.run([Arrival(0, arriving)])
    (packet,), (clone,) = traffic.packets, traffic.clones
    assert packet.action is XdpAction.XDP_DROP and packet.data is None
    assert (clone.action, clone.egress, clone.data) == (XdpAction.XDP_PASS, 2, arriving)


@pytest.mark.parametrize("fields", [{"ifindex": 9}, {"ifindex": 0}, {"flags": 2}, {"high": 1}])
def test_a_wrong_call_makes_none(nic, fields):
    traffic = nic.run([Arrival(0, frame(1, **fields))])
    (packet,) = traffic.packets
    assert not traffic.clones and int.from_bytes(packet.data[40:48], "little", signed=True) == -errno.EINVAL


def many(count, seed):
    """Frames with calls of all kinds. None comes in by the port where its program is, which would clone it again."""
    chance = random.Random(seed)
    frames = []
    for number in range(count):
        flags = chance.choice([0, 0, 1, 2])
        options = {
            "ifindex": 3 if flags == 1 else chance.choice([2, 3, 3, 9]),
            "flags": flags,
            "change": chance.randrange(16),
            "verdict": chance.choice([TcAction.REDIRECT, TcAction.REDIRECT, TcAction.SHOT]),
            "tag": chance.choice([b"", b"", b"\x81\x00\x20\x07"]),
            "size": chance.choice([64, 65, 100, 259, 1000, 1400]),
        }
        frames.append(frame(number, **options))
    return frames


@pytest.mark.parametrize("sizes", [{}, {"cores": 2, "threads": 8}])
def test_the_nic_does_what_the_model_does(build, sizes):
    """Side by side, and as recorded; all counters, and the order of clones."""
    chance = random.Random(2)
    arrivals = [Arrival(chance.randrange(2), each) for each in many(150, 2)]
    for pacing in (Pacing(), Pacing(ingress_idle=10, egress_stall=50, seed=3, flows_apart=True)):
        options = bpfnic.DeviceOptions(ports=2, **sizes)
        bench = Bench("rtl", build(PROGRAM), arrivals, pacing, options, ifindexes=dict(enumerate(PORTS)))
        evidence = bench.run()
        verdict = bench.check(evidence)
        assert verdict["equal"], verdict
        _, verdict = bench.in_lockstep()
        assert verdict["equal"], verdict
        assert len(evidence.traffic.clones) > 10 and evidence.counters["REFUSED_FULL"][CLONES]
        outcomes = ("DROPPED", "PASSED", "REDIRECTED", "ABORTED", "TRANSMITTED", "IN_FLIGHT")
        names = ("RECEIVED", "REFUSED_FULL", *outcomes)
        counts = {name: evidence.counters[name][CLONES] for name in names}
        assert counts["RECEIVED"] - counts["REFUSED_FULL"] == len(evidence.traffic.clones)
        assert sum(counts[name] for name in outcomes) == len(evidence.traffic.clones) and counts["PASSED"]


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_clones_of_clones(build, backend):
    """Clones come in at the port where the program stands, which clones them again, until they have come too often; the
    last one is told that it was too often."""
    arrivals = [Arrival(0, frame(number, 2, flags=1, verdict=TcAction.OK)) for number in range(3)]
    bench = Bench(backend, build(PROGRAM), arrivals, options=bpfnic.DeviceOptions(ports=2), ifindexes={0: 2, 1: 3})
    evidence = bench.run()
    verdict = bench.check(evidence)
    assert verdict["equal"], verdict
    _, verdict = bench.in_lockstep()
    assert verdict["equal"], verdict
    traffic = evidence.traffic
    assert len(traffic.clones) == len(arrivals) * MAX_HOPS and len(traffic.departures) == len(arrivals) * (MAX_HOPS + 1)
    results = [int.from_bytes(each.data[40:48], "little", signed=True) for each in traffic.departures]
    assert sorted(results) == [-errno.ENETDOWN] * len(arrivals) + [0] * len(traffic.clones)
    for number, clone in enumerate(traffic.clones):
        at = clone.data.index(b"number") + 6
        assert traffic.origin(len(arrivals) + number) == int.from_bytes(clone.data[at : at + 4])


class Kernel:
    """The same in a namespace, the program at the ingress of the first port."""

    def __init__(self, obj):
        self._namespace = Namespace([ifindex for pair in zip(PORTS, ENDS, strict=True) for ifindex in pair])
        code = encode(obj.program().link(FileDescriptors({}), frozenset(each.number for each in helpers.HELPERS)))
        self._program, _ = bpf.prog_load(ProgramType.SCHED_CLS, code)
        self._namespace.call(self._enter)

    def _enter(self):
        for link in (*PORTS, *ENDS):
            name = link_name(link)
            os.system(f"ip link set dev {name} addrgenmode none && ip link set dev {name} up")
        self._link = bpf.call(LINK_CREATE, _LinkCreate(self._program, PORTS[0], TCX_INGRESS))
        self._wires = {link: self._wire(link) for link in (*ENDS, PORTS[1])}

    def _wire(self, link):
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        wire.bind((link_name(link), 0))
        wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)  # room for all frames
        wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        wire.settimeout(10)
        return wire

    def send(self, frames, last):
        """What comes out of each port, and what comes in at the second one. Frame `last` leaves by both ports and comes
        in there; it is the last one."""
        for each in frames:
            self._wires[ENDS[0]].send(each)
        return {link: self._received(wire, last) for link, wire in self._wires.items()}

    def _received(self, wire, last):
        found = []
        while last not in numbered(found):
            each, address = receive(wire)
            if address[2] != socket.PACKET_OUTGOING:
                found.append(each)
        return numbered(found)

    def close(self):
        for wire in self._wires.values():
            wire.close()
        os.close(self._link)
        os.close(self._program)
        self._namespace.close()


@pytest.mark.linux
def test_frames_leave_as_the_kernel_sends_them(nic, build):
    """Clones out of either port and into the other one; the last frames' do all three."""
    frames = many(300, 1)
    last = len(frames)
    drop = TcAction.SHOT
    frames += [frame(last, 2, verdict=drop), frame(last, 3, verdict=drop), frame(last, 3, 1, verdict=drop)]
    kernel = Kernel(build(PROGRAM))
    try:
        theirs = kernel.send(frames, last)
    finally:
        kernel.close()
    # One after the other, so that there is a buffer for each clone.
    arrivals = [Arrival(0, each, 40_000 * number) for number, each in enumerate(frames)]
    traffic = nic.run(arrivals, Pacing(back_to_back=False))
    for port, link in enumerate(ENDS):
        ours = numbered(each.data for each in traffic.departures if each.egress == port)
        for number, each in enumerate(frames):
            assert ours.get(number) == theirs[link].get(number), (port, number, each.hex())
    came_in = numbered(clone.data for clone in traffic.clones if clone.action is XdpAction.XDP_PASS)
    assert came_in == theirs[PORTS[1]]
    assert min(len(theirs[link]) for link in theirs) > 30
