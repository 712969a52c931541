"""firmware/programs/tunnel.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

import json
from collections import Counter
from ipaddress import ip_network
from random import Random

import pytest
from scapy.layers.inet import IP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, Dot1Q, Ether
from scapy.packet import Packet

from bpfnic.host.device import Arrival
from tests.firmware.frames import ethernet, total
from tests.firmware.prefixes import longest
from tests.firmware.shipped import entries, opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

HOST = 2
MACS = {"dst": "02:00:00:00:00:0a", "src": "02:00:00:00:00:0b"}
MAC_FIELDS = {"destination": MACS["dst"], "source": MACS["src"]}
IPIP = {"local": "10.0.0.1", "remote": "10.0.0.2", "ifindex": 2, "kind": "IPIP", "mtu": 1480} | MAC_FIELDS
GRE_TUNNEL = {"local": "10.0.0.1", "remote": "10.9.0.3", "ifindex": 1, "kind": "GRE", "mtu": 700} | MAC_FIELDS


def sent(rules: dict[str, dict], data: bytes) -> tuple[int, int, int, bytes] | None:
    """Of a frame that goes into a tunnel: which, by which port, bytes inside, and the frame as scapy makes it; None for
    what the host gets."""
    inner = Ether(data).payload
    if type(inner) not in (IP, IPv6) or int(data[0]) & 1:
        return None
    four = type(inner) is IP
    number = longest(rules["routes" if four else "routes6"], inner.dst)
    tunnel = rules["tunnels"].get(str(number), {"mtu": 0})
    length = inner.len if four else inner.plen + 40
    if (inner.ttl if four else inner.hlim) <= 1 or length > min(tunnel["mtu"], len(data) - 14):
        return None
    if four:
        inner.ttl -= 1
        del inner.chksum
    else:
        inner.hlim -= 1
    body = bytes(inner)
    protocol, kind = (4, 0x0800) if four else (41, 0x86DD)
    header = b""
    if tunnel["kind"] == "GRE":
        protocol, header = 47, bytes(GRE(proto=kind))
    outer = IP(src=tunnel["local"], dst=tunnel["remote"], tos=inner.tos if four else inner.tc, flags="DF", id=0, ttl=64,
               proto=protocol, len=20 + len(header) + length)  # fmt: skip
    frame = bytes(Ether(dst=tunnel["destination"], src=tunnel["source"], type=0x0800) / outer) + header + body
    return number, tunnel["ifindex"] - 1, length, frame


def check(nic, rules, arrivals) -> Counter:
    """Runs frames, and says how many went into each tunnel."""
    packets, sizes = Counter(), Counter()
    for arrival, packet in zip(arrivals, nic.run(arrivals).packets, strict=True):
        expected = sent(rules, arrival.data)
        if expected is None:
            assert (packet.action.name, packet.egress, packet.data) == ("XDP_PASS", HOST, arrival.data)
        else:
            number, egress, length, data = expected
            assert (packet.action.name, packet.egress, packet.data) == ("XDP_REDIRECT", egress, data)
            packets[number] += 1
            sizes[number] += length
    counted = {number: total(values) for number, values in nic.maps["traffic"].items()}
    assert counted == {number: {"sent": packets[number], "sent_bytes": sizes[number], "received": 0,
                                "received_bytes": 0} for number in range(64)}  # fmt: skip
    return packets


def test_the_tunnels_of_the_sample_capture(nic, samples, arrivals):
    object = opened("tunnel")
    start(nic, "tunnel", object, entries("tunnel", object))
    met = check(nic, json.loads((samples / "tunnel.json").read_text()), arrivals)
    assert met[1] > 50 and met[2] > 20


RULES = {
    "routes": {"203.0.113.0/24": 1, "203.0.113.128/25": 2, "198.51.100.0/24": 3},
    "routes6": {"2001:db8:1::/48": 1, "2001:db8:2::/48": 2},
    "tunnels": {"1": IPIP, "2": GRE_TUNNEL},
}


@pytest.fixture
def ends(nic):
    """A NIC with two tunnels, for prefixes of both families."""
    start(nic, "tunnel", opened("tunnel"), [])
    for name, content in RULES.items():
        nic.maps[name].update({int(key) if name == "tunnels" else key: value for key, value in content.items()})
    nic.maps["ends"][{"remote": "10.0.0.2", "local": "10.0.0.1", "kind": "IPIP"}] = 1
    nic.maps["ends"][{"remote": "10.9.0.3", "local": "10.0.0.1", "kind": "GRE"}] = 2
    return nic


def inner_packet(random: Random) -> Packet:
    body = UDP(sport=random.randrange(65536)) / random.randbytes(random.choice((0, 1, 10, 300, random.randrange(1450))))
    if random.randrange(2):
        address = ip_network(random.choice(["203.0.113.0/25", "203.0.113.128/25", "198.51.100.0/24", "10.0.0.0/8"]))
        return IP(src="192.0.2.1", dst=str(address[random.randrange(128)]), ttl=random.randrange(1, 256),
                  tos=random.randrange(256), id=random.randrange(65536)) / body  # fmt: skip
    return IPv6(src="2001:db8::1", dst=f"2001:db8:{random.randrange(4)}::9", hlim=random.randrange(1, 256),
                tc=random.randrange(256), fl=random.randrange(1 << 20)) / body  # fmt: skip


def test_into_tunnels(ends):
    random = Random(8)
    arrivals = [Arrival(number % 2, ethernet(inner_packet(random))) for number in range(160)]
    met = check(ends, RULES, arrivals)
    assert min(met[1], met[2]) > 25


def test_out_of_tunnels(ends):
    """The host gets what was inside, with the frame's addresses."""
    random = Random(9)
    arrivals, expected, packets, sizes = [], [], Counter(), Counter()
    for number in range(120):
        inner = inner_packet(random)
        body = bytes(inner)
        tunnel = random.choice((1, 2))
        outer = IP(src=RULES["tunnels"][str(tunnel)]["remote"], dst="10.0.0.1", tos=random.choice((0, 0x5C, 1, 2)),
                   flags=random.choice(("DF", 0)), id=number, ttl=random.randrange(1, 256))  # fmt: skip
        arrivals.append(Arrival(number % 2, ethernet((outer / GRE() if tunnel == 2 else outer) / inner)))
        padding = len(arrivals[-1].data) - 14 - (44 if tunnel == 2 else 40) + 20 - len(body)
        ethertype = b"\x08\x00" if isinstance(inner, IP) else b"\x86\xdd"
        expected.append(arrivals[-1].data[:12] + ethertype + body + bytes(padding))
        packets[tunnel] += 1
        sizes[tunnel] += len(body)
    results = ends.run(arrivals).packets
    assert [(packet.action.name, packet.egress) for packet in results] == [("XDP_PASS", HOST)] * len(arrivals)
    assert [packet.data for packet in results] == expected
    for tunnel in (1, 2):
        assert total(ends.maps["traffic"][tunnel]) == {
            "sent": 0, "sent_bytes": 0, "received": packets[tunnel], "received_bytes": sizes[tunnel]
        }  # fmt: skip


INNER = IP(src="192.0.2.1", dst="192.0.2.9") / UDP() / b"inside"
FROM_IPIP, FROM_GRE = {"src": "10.0.0.2", "dst": "10.0.0.1"}, {"src": "10.9.0.3", "dst": "10.0.0.1"}
UNTOUCHED = {
    "another end": ethernet(IP(src="10.0.0.4", dst="10.0.0.1") / INNER),
    "another destination": ethernet(IP(src="10.0.0.2", dst="10.0.0.3") / INNER),
    "another kind": ethernet(IP(**FROM_GRE) / INNER),
    "options": ethernet(IP(**FROM_IPIP, options=[IPOption_Router_Alert()]) / INNER),
    "the first fragment": ethernet(IP(**FROM_IPIP, flags="MF") / INNER),
    "a later fragment": ethernet(IP(**FROM_IPIP, frag=2, proto=4) / INNER),
    "congestion": ethernet(IP(**FROM_IPIP, tos=3) / INNER),
    "a key": ethernet(IP(**FROM_GRE) / GRE(key_present=1, key=7) / INNER),
    "a checksum": ethernet(IP(**FROM_GRE) / GRE(chksum_present=1) / INNER),
    "a sequence number": ethernet(IP(**FROM_GRE) / GRE(seqnum_present=1) / INNER),
    "another version": ethernet(IP(**FROM_GRE) / GRE(version=1) / INNER),
    "Ethernet inside": ethernet(IP(**FROM_GRE) / GRE(proto=0x6558) / Ether(dst="02:00:00:00:00:01") / INNER),
    "nothing inside": ethernet(IP(**FROM_IPIP, proto=4))[:50],
    "cut off": ethernet(IP(**FROM_IPIP, len=900, proto=4) / INNER),
    "too short by its length": ethernet(IP(**FROM_IPIP, len=10, proto=4) / INNER),
    "a VLAN": ethernet(IP(**FROM_IPIP) / INNER, 5),
    "expired": ethernet(IP(dst="203.0.113.1", ttl=1) / UDP()),
    "hop limit": ethernet(IPv6(dst="2001:db8:1::1", hlim=1) / UDP()),
    "to a group": ethernet(IP(dst="203.0.113.1") / UDP(), destination="01:00:5e:00:00:01"),
    "longer than the MTU": ethernet(IP(dst="203.0.113.1") / UDP() / bytes(1453)),
    "longer than the frame": ethernet(IP(dst="203.0.113.1", len=100) / UDP()),
    "an empty tunnel": ethernet(IP(dst="198.51.100.1") / UDP()),
    "into a VLAN": bytes(Ether(dst="02:00:00:00:00:01") / Dot1Q(vlan=5) / IP(dst="203.0.113.1") / UDP()),
    "no IP": ethernet(ARP()),
    "no header": ethernet(IP(dst="203.0.113.1"))[:33],
    "no frame": ethernet(IP())[:14],
}


def test_what_passes_as_it_came(ends):
    run = ends.programs["tunnel"].test_run
    for name, frame in UNTOUCHED.items():
        result = run(frame)
        assert (name, result.egress, result.data) == (name, "host", frame)
    assert {tuple(total(values).values()) for values in ends.maps["traffic"].values()} == {(0, 0, 0, 0)}


def test_the_longest_packets(ends):
    """Of the tunnel's MTU, and one in a tunnel in a tunnel."""
    run = ends.programs["tunnel"].test_run
    frame = ethernet(IP(dst="203.0.113.1") / UDP() / bytes(1452))
    assert run(frame).data == sent(RULES, frame)[3] and len(sent(RULES, frame)[3]) == 1514
    nested = ethernet(IP(src="1.2.3.4", dst="203.0.113.200") / IP(**FROM_IPIP) / INNER)
    assert run(nested).data == sent(RULES, nested)[3]
    twice = IP(**FROM_IPIP) / IP(**FROM_IPIP) / INNER
    assert run(ethernet(twice)).data == ethernet(twice)[:14] + bytes(twice.payload)
