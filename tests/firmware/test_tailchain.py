"""firmware/programs/tailchain.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

from collections import Counter

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
)
from scapy.layers.l2 import ARP
from scapy.layers.sctp import SCTP

from tests.firmware.frames import ethernet, flow, layers, total, vlans
from tests.firmware.shipped import entries, opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

OTHER, TCP_OPENING, TCP_SEGMENT, DNS, UDP_DATAGRAM, ECHO, ICMP_MESSAGE = range(7)
STAGES = ["vlan", "ipv4", "ipv6", "tcp", "udp", "icmp", "account", "verdict"]


def kind(data: bytes) -> int:
    """What a frame is, as scapy reads it."""
    found = flow(data)
    if found is None or found[4] not in (1, 6, 17, 58):
        return OTHER
    *_, transport = layers(data)
    if isinstance(transport, TCP):
        return TCP_OPENING if transport.flags.S and not transport.flags.A else TCP_SEGMENT
    if isinstance(transport, UDP):
        return DNS if 53 in found[2:4] else UDP_DATAGRAM
    if isinstance(transport, ICMP):
        return ECHO if transport.type in (0, 8) else ICMP_MESSAGE
    return ECHO if isinstance(transport, ICMPv6EchoRequest | ICMPv6EchoReply) else ICMP_MESSAGE


def test_the_policy_of_the_sample_capture(nic, arrivals):
    object = opened("tailchain")
    start(nic, "tailchain", object, entries("tailchain", object))
    assert {index: held.name for index, held in nic.maps["stages"].items()} == dict(enumerate(STAGES))
    packets, sizes = Counter(), Counter()
    for arrival, packet in zip(arrivals, nic.run(arrivals).packets, strict=True):
        found = kind(arrival.data)
        assert packet.action.name == {TCP_OPENING: "XDP_DROP", DNS: "XDP_TX", ECHO: "XDP_TX"}.get(found, "XDP_PASS")
        packets[found] += 1
        sizes[found] += len(arrival.data)
    counted = {found: total(values) for found, values in nic.maps["traffic"].items()}
    assert counted == {found: {"packets": packets[found], "bytes": sizes[found]} for found in range(7)}
    assert all(packets[found] for found in range(7))
    assert any(vlans(arrival.data) for arrival in arrivals)


FRAMES = [
    (OTHER, ethernet(ARP())),
    (OTHER, ethernet(IP() / SCTP())),
    (OTHER, ethernet(IP(frag=1) / TCP())),
    (OTHER, ethernet(IP() / TCP())[: 14 + 20 + 19]),
    (OTHER, ethernet(IP() / UDP())[: 14 + 20 + 3]),
    (OTHER, ethernet(IP() / ICMP())[: 14 + 20]),
    (OTHER, ethernet(IP(), 3)[:17]),
    (OTHER, ethernet(IPv6() / IPv6ExtHdrDestOpt(len=255) / TCP())),
    (TCP_OPENING, ethernet(IP() / TCP(flags="S"))),
    (TCP_OPENING, ethernet(IPv6() / IPv6ExtHdrDestOpt() / TCP(flags="SE"), 7)),
    (TCP_SEGMENT, ethernet(IP() / TCP(flags="SA"))),
    (TCP_SEGMENT, ethernet(IPv6() / TCP(flags="A"))),
    (DNS, ethernet(IP() / UDP(sport=53, dport=999))),
    (DNS, ethernet(IPv6() / UDP(sport=999, dport=53))),
    (UDP_DATAGRAM, ethernet(IP() / UDP(sport=54, dport=54))),
    (ECHO, ethernet(IP() / ICMP(type=8), 1, 2, 3, 4)),
    (ECHO, ethernet(IP() / ICMP(type=0))),
    (ECHO, ethernet(IPv6() / ICMPv6EchoReply())),
    (ICMP_MESSAGE, ethernet(IP() / ICMP(type=3))),
    (ICMP_MESSAGE, ethernet(IPv6() / ICMPv6DestUnreach())),
]


def counts(nic):
    return [total(nic.maps["traffic"][found])["packets"] for found in range(7)]


def test_each_kind(nic):
    start(nic, "tailchain", opened("tailchain"), [])
    for number, (found, data) in enumerate(FRAMES):
        nic.maps["policy"].update({each: "XDP_TX" if each == found else "XDP_DROP" for each in range(7)})
        assert nic.programs["ethernet"].test_run(data).action.name == "XDP_TX", number
    assert counts(nic) == [sum(found == each for found, _ in FRAMES) for each in range(7)]


def test_no_more_than_33_tail_calls(nic):
    """Each tag is one; ipv4, udp, account and verdict are four. A call too many passes the packet, wherever it is."""
    start(nic, "tailchain", opened("tailchain"), [])
    nic.maps["policy"][DNS] = "XDP_DROP"
    run = nic.programs["ethernet"].test_run
    for tags, action, counted in ((29, "XDP_DROP", 1), (30, "XDP_PASS", 2), (31, "XDP_PASS", 2), (40, "XDP_PASS", 2)):
        assert run(ethernet(IP() / UDP(dport=53), *range(tags))).action.name == action
        assert counts(nic) == [0, 0, 0, counted, 0, 0, 0]


def test_stages_are_taken_out_and_replaced(nic):
    start(nic, "tailchain", opened("tailchain"), [])
    run, stages = nic.programs["ethernet"].test_run, nic.maps["stages"]
    nic.maps["policy"].update({DNS: "XDP_DROP", OTHER: "XDP_DROP"})
    frame = ethernet(IP() / UDP(dport=53))
    del stages[STAGES.index("udp")]
    assert run(frame).action.name == "XDP_PASS" and counts(nic) == [0] * 7
    stages[STAGES.index("udp")] = nic.programs["vlan"]  # reads the ports as a tag: no type that it knows
    assert run(frame).action.name == "XDP_DROP" and counts(nic) == [1, 0, 0, 0, 0, 0, 0]
    stages[STAGES.index("udp")] = nic.programs["udp"]
    stages[STAGES.index("account")] = nic.programs["verdict"]
    assert run(frame).action.name == "XDP_DROP" and counts(nic) == [1, 0, 0, 0, 0, 0, 0]
