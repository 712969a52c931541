"""The sample capture is what the issue asks for: real traffic of each kind, well-formed, small, nobody's address."""

from ipaddress import ip_address, ip_network
from itertools import pairwise
from pathlib import Path

import pytest
from scapy.layers.dns import DNS
from scapy.layers.inet import ICMP, IP, TCP, UDP, in4_chksum
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, in6_chksum
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import checksum

from bpfnic.host.pcap import read

SAMPLE = Path(__file__).parents[2] / "firmware" / "samples" / "mixed.pcapng"
DOCUMENTATION = [ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")]


@pytest.fixture(scope="module")
def packets():
    return read(SAMPLE).packets


@pytest.fixture(scope="module")
def frames(packets):
    return [Ether(packet.data) for packet in packets]


def test_size_interfaces_and_order(packets):
    assert SAMPLE.stat().st_size < 200_000
    assert [interface.name for interface in read(SAMPLE).interfaces] == ["port0", "port1"]
    assert 300 <= len(packets) <= 500
    assert all(60 <= len(packet.data) <= 1514 and packet.length is None for packet in packets)
    assert all(earlier.timestamp <= later.timestamp for earlier, later in pairwise(packets))


def test_each_direction_has_its_interface(packets):
    """The last byte of a host's MAC address is 1 for the client and 2 for the server."""
    assert {(packet.interface, packet.data[11]) for packet in packets} == {(0, 1), (1, 2)}


KINDS = {
    "ping": lambda f: ICMP in f and f[ICMP].type == 8,
    "ping over IPv6": lambda f: "ICMPv6 Echo Request" in f,
    "ARP": lambda f: ARP in f,
    "neighbour discovery": lambda f: "ICMPv6 Neighbor Discovery - Neighbor Solicitation" in f,
    "DNS answers": lambda f: DNS in f and UDP in f and f[DNS].ancount > 0,
    "DNS over TCP": lambda f: TCP in f and f[TCP].sport == 53,
    "HTTP": lambda f: TCP in f and Raw in f and bytes(f[Raw]).startswith(b"HTTP/1.0 200 OK"),
    "HTTP over IPv6": lambda f: IPv6 in f and TCP in f and Raw in f and bytes(f[Raw]).startswith(b"GET /"),
    "TCP options": lambda f: (
        TCP in f and {"MSS", "SAckOK", "Timestamp", "WScale"} <= {name for name, _ in f[TCP].options}
    ),
    "reset": lambda f: TCP in f and "R" in f[TCP].flags,
    "first IPv4 fragment": lambda f: IP in f and "MF" in f[IP].flags and f[IP].frag == 0,
    "last IPv4 fragment": lambda f: IP in f and "MF" not in f[IP].flags and f[IP].frag > 0,
    "IPv6 fragment": lambda f: IPv6ExtHdrFragment in f and f[IPv6ExtHdrFragment].offset > 0,
    "UDP behind IPv4 options": lambda f: IP in f and f[IP].ihl > 5 and UDP in f,
    "UDP behind IPv6 extension headers": lambda f: IPv6ExtHdrHopByHop in f and UDP in f,
    "VLAN": lambda f: Dot1Q in f and Dot1AD not in f and f[Dot1Q].vlan == 42 and TCP in f,
    "VLAN in a service VLAN": lambda f: Dot1AD in f and f[Dot1AD].vlan == 100 and f[Dot1Q].vlan == 42 and TCP in f,
    "padded to the shortest frame": lambda f: len(f) == 60 and "Padding" in f,
    "broadcast": lambda f: f.dst == "ff:ff:ff:ff:ff:ff",
    "full frame": lambda f: len(f) == 1514,
}


@pytest.mark.parametrize("kind", KINDS)
def test_traffic_of_each_kind(frames, kind):
    assert any(KINDS[kind](frame) for frame in frames)


def test_every_checksum_is_right(frames):
    """Recomputed over the bytes as captured: 0 when the checksum in them is right (RFC 1071)."""
    checked = 0
    for frame in frames:
        if IP in frame:
            ip = frame[IP]
            assert checksum(bytes(ip)[: ip.ihl * 4]) == 0
            segment = bytes(ip)[ip.ihl * 4 : ip.len]
            if ip.frag or "MF" in ip.flags:
                continue
            assert (checksum(segment) if ip.proto == 1 else in4_chksum(ip.proto, ip, segment)) == 0
            checked += 1
        elif IPv6 in frame and IPv6ExtHdrFragment not in frame:
            ip = frame[IPv6]
            last = ip
            while last.payload and type(last.payload).__name__.startswith("IPv6ExtHdr"):
                last = last.payload
            header = len(ip) - len(last.payload)
            segment = bytes(ip)[header : 40 + ip.plen]
            assert in6_chksum(last.nh, ip, segment) == 0
            checked += 1
    assert checked > 200


def test_addresses_are_for_documentation_or_of_the_link(frames):
    for frame in frames:
        for ip in (layer for layer in (frame.getlayer(IP), frame.getlayer(IPv6)) if layer):
            for address in map(ip_address, (ip.src, ip.dst)):
                local = address.is_link_local or address.is_multicast or address.is_unspecified
                assert local or any(address in net for net in DOCUMENTATION)
        assert frame.src.startswith("02:00:00:00:")
