"""firmware/programs/tc-police.bpf.c does what its comment says: on golden, rtl and in the running kernel. What must
become of a packet is written with scapy, which makes the checksums afresh."""

from collections import Counter

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether

from tests.firmware.frames import ethernet, flow, layers, vlans
from tests.firmware.shipped import entries, opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

CLASSES = {("TCP", 80): 1, ("UDP", 53): 2, ("UDP", 5353): 3}
LONGEST, DSCP, PORT = {1: 100, 2: 1514, 3: 1514}, {1: 46, 2: 10, 3: 8}, {1: 8080, 3: 53}
"""As firmware/samples/tc-police.json has them."""


def policed(data: bytes) -> tuple[int, bytes | None]:
    """The class of a frame, 0 for none, and what leaves of it."""
    *headers, transport = layers(data)
    ip = headers[-1] if headers else None
    plain = isinstance(ip, IP) and not (ip.frag or ip.flags.MF) or isinstance(ip, IPv6)
    tags = len(vlans(data))
    if not plain or not isinstance(transport, TCP | UDP) or flow(data) is None or tags > 1:
        return 0, data
    number = CLASSES.get((transport.name, transport.dport), 0)
    if not number:
        return 0, data
    if len(data) - 4 * tags > LONGEST[number]:
        return number, None
    frame = Ether(data)
    ip, transport = frame[type(ip)], frame[type(transport)]
    field = "tos" if isinstance(ip, IP) else "tc"
    setattr(ip, field, DSCP[number] << 2 | getattr(ip, field) & 3)
    if isinstance(ip, IP):
        del ip.chksum
    if number in PORT:
        transport.dport = PORT[number]
        if not (isinstance(transport, UDP) and transport.chksum == 0):
            del transport.chksum
    return number, bytes(frame)


def test_the_sample_capture(nic, arrivals):
    object = opened("tc-police")
    start(nic, "tc-police", object, entries("tc-police", object))
    packets, dropped, classes = Counter(), Counter(), nic.maps["classes"]
    for arrival, packet in zip(arrivals, nic.run(arrivals).packets, strict=True):
        number, leaves = policed(arrival.data)
        assert (packet.data, packet.action.name) == (leaves, "XDP_PASS" if leaves is not None else "XDP_DROP")
        packets[number] += 1
        dropped[number] += leaves is None
    assert {number: (classes[number]["packets"], classes[number]["dropped"]) for number in (1, 2, 3)} == {
        number: (packets[number], dropped[number]) for number in (1, 2, 3)
    }
    assert all(packets[number] for number in range(4)) and dropped[1]


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(IP(tos=0xFF) / TCP(dport=80) / b"request"),
        ethernet(IP(tos=1, options=b"\x01" * 8) / TCP(dport=80) / b"behind options"),
        ethernet(IPv6(tc=0xFF, fl=0xABCDE) / TCP(dport=80) / b"request"),
        ethernet(IPv6(tc=2) / UDP(dport=5353) / b"query", 7),
        ethernet(IP() / UDP(dport=5353) / b"query", 7),
        ethernet(IP() / UDP(dport=5353, chksum=0) / b"no checksum"),
        ethernet(IP() / UDP(dport=53) / b"query"),
        ethernet(IP() / UDP(dport=54) / b"nobody's"),
        ethernet(IP(flags="MF") / UDP(dport=5353) / bytes(64)),
        ethernet(IPv6() / IPv6ExtHdrFragment(m=1) / UDP(dport=5353) / b"a first fragment"),
        ethernet(IP() / TCP(dport=80) / bytes(560)),
        ethernet(IP() / UDP(dport=53) / b"query", 7, 8),
    ],
)
def test_packets_of_each_kind(nic, frame):
    object = opened("tc-police")
    start(nic, "tc-police", object, entries("tc-police", object))
    _, leaves = policed(frame)
    assert nic.programs["police"].test_run(frame).data == leaves


def test_headers_that_are_cut_off_pass(nic):
    object = opened("tc-police")
    start(nic, "tc-police", object, entries("tc-police", object))
    for packet in (IP() / TCP(dport=80), IPv6() / UDP(dport=5353)):
        whole = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / packet)
        for length in range(len(whole) - len(packet.payload), len(whole) - len(packet.payload) + 4):
            assert nic.programs["police"].test_run(whole[:length]).data == whole[:length]
