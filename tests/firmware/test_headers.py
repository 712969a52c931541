"""firmware/programs/headers.bpf.c does what its comment says: on golden, rtl and at a packet socket of the running
kernel. Where a packet's headers end is what scapy says."""

from collections import Counter

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, PadN
from scapy.layers.l2 import ARP, Dot1Q, Ether

from bpfnic.host.device import Arrival
from tests.firmware.frames import ethernet, layers, total
from tests.firmware.shipped import opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC
OTHER = 256
ICMP6_HEADER = 8


def headers(data: bytes) -> tuple[int, int]:
    """The protocol of a frame, and how many bytes are headers."""
    *above, transport = layers(data)
    length, protocol, later = 0, OTHER, False
    for header in above:
        length += len(header) - len(header.payload)
        if isinstance(header, IP):
            protocol, later = header.proto, bool(header.frag)
        elif not isinstance(header, Ether | Dot1Q):
            protocol, later = header.nh, isinstance(header, IPv6ExtHdrFragment) and bool(header.offset)
    if later:
        return protocol, length
    if isinstance(transport, TCP):
        length += 4 * transport.dataofs
    elif protocol in (1, 17, 58):
        length += ICMP6_HEADER
    return protocol, length


@pytest.mark.parametrize("payload", [0, 20])
def test_the_sample_capture(nic, arrivals, payload):
    object = opened("headers")
    object.rodata["payload"] = payload
    start(nic, "headers", object, [])
    packets, kept = Counter(), Counter()
    for arrival, packet in zip(arrivals, nic.run(arrivals).packets, strict=True):
        protocol, length = headers(arrival.data)
        assert packet.data == arrival.data[: length + payload], packet.verdict
        packets[protocol] += 1
        kept[protocol] += len(packet.data) - 4 * (arrival.data[12:14] in (b"\x81\x00", b"\x88\xa8"))
    counted = {number: total(nic.maps["traffic"][number]) for number in packets}
    assert {number: each["packets"] for number, each in counted.items()} == packets
    assert {number: each["kept"] for number, each in counted.items()} == kept
    assert len(packets) >= 5  # ARP, ICMP, TCP, UDP, ICMPv6


@pytest.mark.parametrize(
    "frame",
    [
        ethernet(IP(options=b"\x01" * 8) / TCP(options=[("MSS", 1460)]) / b"data", 5, 6),
        ethernet(IP(frag=100) / UDP() / b"later"),
        ethernet(IP(flags="MF") / UDP() / b"first"),
        ethernet(IPv6() / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 12)]) / IPv6ExtHdrDestOpt() / TCP()),
        ethernet(IPv6() / IPv6ExtHdrFragment(offset=0, m=1) / UDP() / b"first", 7),
        ethernet(IPv6() / IPv6ExtHdrFragment(offset=9) / b"later fragment's bytes", 7),
        ethernet(IP() / ICMP() / b"ping"),
        ethernet(ARP()),
        ethernet(IP(proto=200) / b"something else"),
    ],
)
def test_headers_end_where_they_end(nic, frame):
    start(nic, "headers", opened("headers"), [])
    (packet,) = nic.run([Arrival(0, frame)]).packets
    assert packet.data == frame[: headers(frame)[1]]


def test_a_packet_that_ends_inside_a_header_is_not_kept(nic):
    whole = ethernet(IP() / TCP(options=[("Timestamp", (1, 2))]) / b"data")
    length = headers(whole)[1]
    start(nic, "headers", opened("headers"), [])
    kept = [packet.data for packet in nic.run([Arrival(0, whole[:cut]) for cut in range(14, length + 3)]).packets]
    assert kept == [None] * (length - 14) + [whole[:length]] * 3
