"""bpf_redirect_neigh: what leaves the NIC is what leaves a link of the running kernel, where the same program stands at
the ingress of another. BPF_PROG_TEST_RUN sends nothing, so that here frames really go through veth pairs."""

import ctypes
import os
import random
import socket
import struct

import pytest

import bpfnic
from bpfnic.host.device import Arrival
from bpfnic.host.linux import bpf
from bpfnic.host.linux import network as kernel_network
from bpfnic.host.linux.namespace import Namespace, link_name
from bpfnic.host.network import (
    IPV4,
    IPV6,
    TABLE_LOCAL,
    Address,
    Link,
    Neighbour,
    Network,
    NextHop,
    Route,
    RouteType,
    Scope,
)
from bpfnic.host.object import FileDescriptors
from bpfnic.spec import helpers
from bpfnic.spec.instruction import encode
from bpfnic.spec.programs import ProgramType
from tests.networks import packed

PORTS, ENDS = (2, 3), (102, 103)
PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";

struct call {
	__u32 ifindex;
	__u16 plen;
	__u16 flags;
	struct bpf_redir_neigh next;
};

SEC("tc") int redirect(struct __sk_buff *ctx)
{
	struct call call;
	if (bpf_skb_load_bytes(ctx, 60, &call, sizeof call))
		return 2;
	struct bpf_redir_neigh next = call.next;
	if (call.flags == 2) { /* the last call counts */
		bpf_redirect_neigh(call.ifindex, 0, 0, 0);
		return bpf_redirect(call.ifindex, 0);
	}
	if (call.plen == sizeof next)
		return bpf_redirect_neigh(call.ifindex, &next, sizeof next, call.flags);
	if (call.plen)
		return bpf_redirect_neigh(call.ifindex, &next, sizeof next - 1, call.flags);
	return bpf_redirect_neigh(call.ifindex, 0, 0, call.flags);
}
"""
CALL = struct.Struct("<IHHI16s")
MACS = {name: bytes([2, 0xAA, 0, 0, 0, number]) for number, name in enumerate(("four", "six", "gate", "gate6"))}
KNOWN = {
    "four": packed("10.3.0.7"),
    "gate": packed("10.3.0.9"),
    "six": packed("2001:db8:3::7"),
    "gate6": packed("fe80::9"),
}
LINKS = tuple(
    Link(
        port,
        f"eth{port}",
        bytes([2, 0, 0, 0, 0, port]),
        addresses=(Address(bytes([10, port, 0, 1]), 24), Address(packed(f"2001:db8:{port}::1"), 64)),
    )
    for port in PORTS
)
NETWORK = Network(
    (Link(1, "lo", mtu=65536, loopback=True), *LINKS),
    (
        *(Route(IPV4, bytes([10, port, 0, 1]), 32, (NextHop(port),), RouteType.LOCAL, TABLE_LOCAL, scope=Scope.HOST)
          for port in PORTS),
        Route(IPV4, bytes([10, 3, 0, 255]), 32, (NextHop(3),), RouteType.BROADCAST, TABLE_LOCAL, scope=Scope.LINK),
        *(Route(IPV4, bytes([10, port, 0, 0]), 24, (NextHop(port),), scope=Scope.LINK) for port in PORTS),
        Route(IPV4, packed("10.9.0.0"), 16, (NextHop(3, KNOWN["gate"]),)),
        Route(IPV4, packed("10.8.0.0"), 16, (NextHop(3, KNOWN["gate6"]),)),
        Route(IPV4, packed("10.7.0.0"), 16, (NextHop(2, packed("10.2.0.9")),)),
        Route(IPV4, packed("10.6.0.0"), 16, type=RouteType.BLACKHOLE),
        Route(IPV4, packed("10.5.0.0"), 16, (NextHop(3, packed("10.3.0.200")),)),
        *(Route(IPV6, packed(f"2001:db8:{port}::"), 64, (NextHop(port),), metric=256) for port in PORTS),
        Route(IPV6, packed("2001:db8:9::"), 48, (NextHop(3, KNOWN["gate6"]),), metric=1024),
        Route(IPV6, packed("2001:db8:6::"), 48, type=RouteType.BLACKHOLE, metric=1024),
    ),
    tuple(Neighbour(3, address, MACS[name]) for name, address in KNOWN.items()),
)  # fmt: skip
FOUR = ["10.3.0.7", "10.3.0.8", "10.9.0.1", "10.8.0.1", "10.7.0.1", "10.6.0.1", "10.5.0.1", "172.16.0.1", "224.0.0.9",
        "255.255.255.255", "10.3.0.255"]  # fmt: skip
SIX = ["2001:db8:3::7", "2001:db8:3::8", "2001:db8:9::1", "2001:db8:6::1", "2001:db8:5::1"]


def frame(destination, number, *, ifindex=3, plen=0, flags=0, next_hop=b"", kind=None, to=bytes([2, 0, 0, 0, 0, 2]),
          tag=b""):  # fmt: skip
    """A UDP packet, whose payload from byte 60 on says what the program calls; at the end its number."""
    target = packed(destination)
    if len(target) == 4:
        packet = b"\x08\x00" + struct.pack(">BBHIBBH4s4s", 0x45, 0, 100, 0, 64, 17, 0, packed("198.51.100.5"), target)
    else:
        source = packed("2001:db8:2::5")
        packet = b"\x86\xdd" + struct.pack(">IHBB16s16s", 6 << 28, 80, 17, 64, source, target)
    family = {0: 0, 4: 2, 16: 10}[len(next_hop)] if kind is None else kind
    call = CALL.pack(ifindex, plen, flags, family, next_hop.ljust(16, b"\0"))
    whole = (to + bytes([2, 0, 0, 0, 0, 9]) + packet).ljust(60, b"\0") + call + b"number" + number.to_bytes(4)
    return whole[:12] + tag + whole[12:]


def numbered(found):
    """The frames of the test among others, by their numbers."""
    return {int.from_bytes(each[-4:]): each for each in found if each[-10:-4] == b"number"}


@pytest.fixture(params=["golden", "rtl"])
def nic(request, build):
    with bpfnic.Nic(request.param, ports=2) as nic:
        for port, ifindex in enumerate(PORTS):
            nic.set_ifindex(port, ifindex)
        nic.network = NETWORK
        nic.load(build(PROGRAM)).attach(0)
        yield nic


class _LinkCreate(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("prog_fd", "target_ifindex", "attach_type", "flags")]


LINK_CREATE, TCX_INGRESS = 28, 46


class Kernel:
    """The same in a namespace, the program at the ingress of the first port."""

    def __init__(self, obj):
        self._namespace = Namespace([ifindex for pair in zip(PORTS, ENDS, strict=True) for ifindex in pair])
        self._namespace.call(kernel_network.install, NETWORK)
        code = encode(obj.program().link(FileDescriptors({}), frozenset(each.number for each in helpers.HELPERS)))
        self._program, _ = bpf.prog_load(ProgramType.SCHED_CLS, code)
        self._namespace.call(self._enter)

    def _enter(self):
        for end in ENDS:
            os.system(f"ip link set dev {link_name(end)} addrgenmode none && ip link set dev {link_name(end)} up")
        self._link = bpf.call(LINK_CREATE, _LinkCreate(self._program, PORTS[0], TCX_INGRESS))
        self._ends = []
        for end in ENDS:
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            wire.bind((link_name(end), 0))
            wire.settimeout(10)
            self._ends.append(wire)

    def send(self, frames, last):
        """What comes out of the second port. The frame numbered `last` is one that does."""
        found = []
        for each in frames:
            self._ends[0].send(each)
        while last not in numbered(found):
            found.append(self._ends[1].recv(4096))
        return numbered(found)

    def close(self):
        for wire in self._ends:
            wire.close()
        os.close(self._link)
        os.close(self._program)
        self._namespace.close()


@pytest.mark.linux
def test_frames_leave_as_the_kernel_sends_them(nic, build):
    chance = random.Random(1)
    frames = []
    for number in range(300):
        destination = chance.choice(FOUR + SIX)
        options = chance.choice([
            {}, {}, {},
            {"plen": 20, "next_hop": chance.choice([*KNOWN.values(), packed("10.3.0.8")])},
            {"plen": 20, "next_hop": packed("10.3.0.7"), "kind": 3},
            {"plen": 19, "next_hop": packed("10.3.0.7")},
            {"flags": 1}, {"flags": 2}, {"ifindex": 99}, {"to": bytes([3, 0, 0, 0, 0, 1])},
        ])  # fmt: skip
        frames.append(frame(destination, number, **options))
    frames.append(frame("10.3.0.7", len(frames)))
    kernel = Kernel(build(PROGRAM))
    try:
        theirs = kernel.send(frames, len(frames) - 1)
    finally:
        kernel.close()
    ours = numbered(each.data for each in nic.run([Arrival(0, each) for each in frames]).departures if each.egress == 1)
    for number, each in enumerate(frames):
        assert ours.get(number) == theirs.get(number), (number, each.hex())
    assert 60 < len(theirs) < 200 and {each[:6] for each in theirs.values()} > set(MACS.values())


def test_a_tag_stays_in_front_of_what_the_header_says(nic):
    tagged = frame("10.9.0.1", 5, tag=b"\x81\x00\x20\x07")
    (left,) = nic.run([Arrival(0, tagged)]).departures
    assert left.egress == 1 and left.data == MACS["gate"] + LINKS[1].mac + tagged[12:]


@pytest.mark.linux
def test_the_linux_backend_refuses_what_it_cannot_follow(build):
    with bpfnic.Nic("linux") as nic, pytest.raises(bpfnic.BpfnicError, match="linux backend has no bpf_redirect_neigh"):
        nic.load(build(PROGRAM))
