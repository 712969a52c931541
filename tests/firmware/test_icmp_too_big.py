"""firmware/programs/icmp-too-big.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

from random import Random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from bpfnic.host.device import Arrival
from tests.firmware.frames import ethernet
from tests.firmware.shipped import opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

HOUR = 3600 * 10**9
FOUR = {"src": "192.0.2.1", "dst": "198.51.100.1", "flags": "DF"}
SIX = {"src": "2001:db8::1", "dst": "2001:db8:9::1"}


def limited_to(nic, mtu: int, burst: int = 1000):
    """A NIC with the program for an MTU, and a function that runs a frame."""
    object = opened("icmp-too-big")
    object.rodata.update({"mtu": mtu, "burst": burst, "interval": HOUR})
    start(nic, "icmp-too-big", object, [])
    return nic.programs["icmp_too_big"].test_run


def answer(frame: bytes, mtu: int) -> bytes:
    """As scapy makes it, with every checksum."""
    ethernet = Ether(frame)
    ip = ethernet.payload
    back = Ether(src=ethernet.dst, dst=ethernet.src)
    if isinstance(ip, IP):
        quoted = frame[14:][: 548 if ip.len >= 548 else 68]
        header = IP(src=ip.dst, dst=ip.src, tos=0xC0, flags="DF", id=0, ttl=64)
        return bytes(back / header / ICMP(type=3, code=4, nexthopmtu=mtu) / Raw(quoted))
    header = IPv6(src=ip.dst, dst=ip.src, tc=0xC0, hlim=64)
    return bytes(back / header / ICMPv6PacketTooBig(mtu=max(mtu, 1280)) / Raw(frame[14 : 14 + 1232]))


def long(layer, length: int, body=b"", **fields) -> bytes:
    """A frame with an IP packet of that many bytes."""
    packet = layer(**(FOUR if layer is IP else SIX) | fields) / body
    return ethernet(packet / Random(length).randbytes(length - len(bytes(packet))))


def test_packets_of_all_lengths(nic):
    """Those longer than the MTU are answered, in both families, whoever sends them by whichever port."""
    random = Random(15)
    run_with = 1400
    limited_to(nic, run_with)
    arrivals = []
    for number in range(60):
        length = random.choice((1399, 1400, 1401, 1402, 1403, 1404, random.randrange(100, 1500), 1600))
        if random.randrange(2):
            addresses = {"src": f"192.0.2.{number}", "dst": f"198.51.100.{number}"}
            frame = long(IP, length, TCP(sport=number), **addresses, id=number, ttl=random.randrange(1, 256))
        else:
            frame = long(IPv6, length, UDP(sport=number), src=f"2001:db8::{number:x}", tc=random.randrange(256))
        arrivals.append(Arrival(number % 2, frame))
    answered = 0
    for arrival, packet in zip(arrivals, nic.run(arrivals).packets, strict=True):
        length = len(arrival.data) - 14
        if length > run_with:
            assert (packet.action.name, packet.egress) == ("XDP_TX", arrival.interface)
            assert packet.data == answer(arrival.data, run_with)
            answered += 1
        else:
            assert (packet.action.name, packet.data) == ("XDP_PASS", arrival.data)
    assert 10 < answered < 50 and nic.maps[".bss"]["answers"] == answered


def test_what_is_quoted(nic):
    """548 bytes, or 68 of what has less: of short packets, one with the longest header, one with padding."""
    run = limited_to(nic, 68)
    frames = [long(IP, length, UDP()) for length in (69, 70, 71, 72, 100, 547, 548, 549, 551, 552, 1000)]
    frames.append(long(IP, 200, UDP(), options=[IPOption_Router_Alert()] * 10))
    frames.append(long(IP, 90, UDP()) + bytes(30))
    for frame in frames:
        result = run(frame)
        assert (result.action.name, result.data) == ("XDP_TX", answer(frame, 68))


ANSWERED = {
    "an echo": long(IP, 1500, ICMP()),
    "an echo's answer": long(IP, 1500, ICMP(type=0)),
    "an unknown protocol": long(IP, 1500, proto=200),
    "an echo, IPv6": long(IPv6, 1500, ICMPv6EchoRequest()),
    "an extension header": long(IPv6, 1500, IPv6ExtHdrDestOpt() / UDP()),
}
PASSES = {
    "may be fragmented": long(IP, 1500, UDP(), flags=0),
    "the first fragment": long(IP, 1500, UDP(), flags="DF+MF"),
    "a later fragment": long(IP, 1500, UDP(), frag=3),
    "an error": long(IP, 1500, ICMP(type=3)),
    "time exceeded": long(IP, 1500, ICMP(type=11)),
    "parameter problem": long(IP, 1500, ICMP(type=12)),
    "to a group": ethernet(IP(**FOUR) / UDP() / bytes(1472), destination="01:00:5e:00:00:01"),
    "from no address": long(IP, 1500, UDP(), src="0.0.0.0"),
    "from a group": long(IP, 1500, UDP(), src="224.0.0.1"),
    "from a broadcast address": long(IP, 1500, UDP(), src="255.255.255.255"),
    "cut off": long(IP, 1500, UDP())[:1000],
    "a header of 16 bytes": long(IP, 1500, UDP(), ihl=4, len=1500),
    "a VLAN": bytes(Ether(dst="02:00:00:00:00:01") / Dot1Q(vlan=3) / IP(**FOUR) / UDP() / bytes(1472)),
    "a fragment, IPv6": long(IPv6, 1500, IPv6ExtHdrFragment(m=1) / UDP()),
    "an error, IPv6": long(IPv6, 1500, ICMPv6PacketTooBig()),
    "from no address, IPv6": long(IPv6, 1500, UDP(), src="::"),
    "from a group, IPv6": long(IPv6, 1500, UDP(), src="ff02::1"),
    "cut off, IPv6": long(IPv6, 1500, UDP())[:1400],
    "padding": ethernet(IP(**FOUR) / UDP()) + bytes(1500),
    "no IP": ethernet(ARP()) + bytes(1500),
    "no header": bytes(20),
}


def test_what_is_answered(nic):
    run = limited_to(nic, 1400)
    for name, frame in ANSWERED.items():
        result = run(frame)
        assert (name, result.action.name, result.data) == (name, "XDP_TX", answer(frame, 1400))
    for name, frame in PASSES.items():
        result = run(frame)
        assert (name, result.action.name, result.data) == (name, "XDP_PASS", frame)


def test_the_least_mtu_of_ipv6(nic):
    """Every path takes 1,280 bytes: those pass, and no answer asks for less."""
    run = limited_to(nic, 576)
    short, longer = long(IPv6, 1280, UDP()), long(IPv6, 1281, UDP())
    assert (run(short).action.name, run(longer).data) == ("XDP_PASS", answer(longer, 576))
    assert Ether(run(longer).data)[ICMPv6PacketTooBig].mtu == 1280


def test_answers_are_limited(nic):
    limited_to(nic, 1000, burst=5)
    frames = [Arrival(number % 2, long(IP, 1001 if number % 3 else 1000, UDP())) for number in range(60)]
    actions = [packet.action.name for packet in nic.run(frames).packets]
    assert [actions.count(name) for name in ("XDP_TX", "XDP_DROP", "XDP_PASS")] == [5, 35, 20]
    assert nic.maps[".bss"]["answers"] == 5
