"""firmware/programs/nat.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP

from bpfnic.host.device import Arrival
from tests.firmware.frames import ethernet
from tests.firmware.shipped import opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

PUBLIC = "203.0.113.1"
INSIDE_MAC, OUTSIDE_MAC, GATEWAY_MAC = "02:00:00:00:00:1a", "02:00:00:00:00:2a", "02:00:00:00:00:2b"
INSIDE, OUTSIDE, HOST = range(3)
PROTOCOLS = {6: TCP, 17: UDP, 1: ICMP}

Connection = tuple[str, int, str, int, int]
"""Inner host, its port, the remote one, its port, protocol."""


def nat_of(nic, connections: int = 512) -> None:
    object = opened("nat")
    object.rodata.update({
        "inside_ifindex": INSIDE + 1, "outside_ifindex": OUTSIDE + 1, "inside_mac": INSIDE_MAC,
        "outside_mac": OUTSIDE_MAC, "gateway_mac": GATEWAY_MAC, "address": PUBLIC,
    })  # fmt: skip
    for name in ("outbound", "inbound"):
        object.maps[name] = replace(object.maps[name], max_entries=connections)
    start(nic, "nat", object, [])


def mac_of(host: str) -> str:
    return f"02:00:00:00:10:{int(host.rpartition('.')[2]):02x}"


def transport(connection: Connection, outward: bool, port: int, **fields):
    """The transport header of a packet, in which the inner host has `port`."""
    _, _, _, remote_port, protocol = connection
    if protocol == 1:
        return ICMP(type=8 if outward else 0, id=port, **fields)
    ports = (port, remote_port) if outward else (remote_port, port)
    return PROTOCOLS[protocol](sport=ports[0], dport=ports[1], **fields)


def inside(connection: Connection, outward: bool, body: bytes = b"", **fields) -> bytes:
    """A frame on the inner side, as scapy makes it."""
    host, port, remote, _, _ = connection
    addresses = {"src": host, "dst": remote} if outward else {"src": remote, "dst": host}
    macs = {"src": mac_of(host), "dst": INSIDE_MAC} if outward else {"src": INSIDE_MAC, "dst": mac_of(host)}
    return bytes(Ether(**macs) / IP(**addresses, **fields) / transport(connection, outward, port) / body)


def outside(connection: Connection, outward: bool, public: int, body: bytes = b"", **fields) -> bytes:
    """The same on the outer side, where the connection's port is `public`."""
    _, _, remote, _, _ = connection
    addresses = {"src": PUBLIC, "dst": remote} if outward else {"src": remote, "dst": PUBLIC}
    macs = {"src": OUTSIDE_MAC, "dst": GATEWAY_MAC} if outward else {"src": GATEWAY_MAC, "dst": OUTSIDE_MAC}
    return bytes(Ether(**macs) / IP(**addresses, **fields) / transport(connection, outward, public) / body)


def public_port(frame: bytes, protocol: int) -> int:
    """Of a frame that went out."""
    at = 14 + 20 + (4 if protocol == 1 else 0)
    return int.from_bytes(frame[at : at + 2], "big")


def random_connections(random: Random, count: int) -> list[Connection]:
    """Several hosts with the same ports, towards few remote ones: their own ports don't do for all."""
    made: set[Connection] = set()
    while len(made) < count:
        host, remote = f"10.0.0.{random.randrange(2, 12)}", f"198.51.100.{random.randrange(1, 4)}"
        port, protocol = random.choice((5000, 5001, 40000)), random.choice((6, 17, 1))
        made.add((host, port, remote, random.choice((80, 443)) * (protocol != 1), protocol))
    return sorted(made)


def both_ways(nic, random: Random, connections: list[Connection], ports: dict[Connection, int]) -> None:
    """A packet of each connection goes out and one comes back, each with every checksum as scapy makes it. `ports`: of
    those that are known, and what the others got."""
    bodies = {connection: random.randbytes(random.randrange(300)) for connection in connections}
    headers = {each: {"ttl": random.randrange(2, 256), "id": random.randrange(65536), "tos": random.randrange(256)}
               for each in connections}  # fmt: skip
    later = {connection: fields | {"ttl": fields["ttl"] - 1} for connection, fields in headers.items()}
    arrivals = [Arrival(INSIDE, inside(each, True, bodies[each], **headers[each])) for each in connections]
    for connection, packet in zip(connections, nic.run(arrivals).packets, strict=True):
        assert (packet.action.name, packet.egress) == ("XDP_REDIRECT", OUTSIDE)
        port = public_port(packet.data, connection[4])
        assert ports.setdefault(connection, port) == port
        assert packet.data == outside(connection, True, port, bodies[connection], **later[connection])
    arrivals = [Arrival(OUTSIDE, outside(each, False, ports[each], bodies[each], **headers[each]))
                for each in connections]  # fmt: skip
    for connection, packet in zip(connections, nic.run(arrivals).packets, strict=True):
        assert (packet.action.name, packet.egress) == ("XDP_REDIRECT", INSIDE)
        assert packet.data == inside(connection, False, bodies[connection], **later[connection])


def test_connections_both_ways(nic):
    random = Random(11)
    nat_of(nic)
    connections, ports = random_connections(random, 100), {}
    both_ways(nic, random, connections, ports)
    seen = {(port, *connection[2:]) for connection, port in ports.items()}
    assert len(seen) == len(connections)  # no two have the same port towards the same remote one
    own = {connection for connection, port in ports.items() if port == connection[1]}
    assert len(own) == len({connection[1:] for connection in connections})  # the first one keeps its own
    assert all(port >= 1024 for port in ports.values())
    random.shuffle(connections)
    both_ways(nic, random, connections[:40], ports)
    assert len(nic.maps["outbound"]) == len(nic.maps["inbound"]) == 100


def first_packets() -> Iterator[Arrival]:
    for number in range(300):
        connection = (f"10.0.0.{number % 3 + 2}", 4000 + number // 60, "198.51.100.1", 80, 17)
        yield Arrival(INSIDE, inside(connection, True, bytes([number % 3, number // 60])))


def test_cpus_agree_on_a_port(nic):
    """Many first packets of a connection at once, of three hosts that want the same port: each has one in the end, and
    from then on it is that one."""
    nat_of(nic)
    frames = list(first_packets())
    assert {packet.egress for packet in nic.run(frames).packets} == {OUTSIDE}
    assert len(nic.maps["outbound"]) == 15
    ports: dict[bytes, set[int]] = {}
    for packet in nic.run(frames).packets:
        ports.setdefault(packet.data[42:44], set()).add(public_port(packet.data, 17))
    assert [len(found) for found in ports.values()] == [1] * 15
    for port in range(4000, 4005):
        assert port in {next(iter(found)) for body, found in ports.items() if body[1] == port - 4000}
    held = [key["port"] for key in nic.maps["inbound"].keys()]
    assert sorted(held) == sorted(next(iter(found)) for found in ports.values())


def test_what_is_forgotten_comes_again(nic):
    """Whichever of the two tables has lost an entry: the connection goes on, with its own port where that is free."""
    nat_of(nic)
    connection = ("10.0.0.2", 5000, "198.51.100.1", 80, 6)
    ports: dict[Connection, int] = {}
    for lost in ("outbound", "inbound"):
        both_ways(nic, Random(12), [connection], ports)
        (entry,) = nic.maps[lost].keys()
        del nic.maps[lost][entry]
    run = nic.programs["nat"].test_run
    back = outside(connection, False, 5000)
    assert (run(back, port=OUTSIDE).egress, run(back, port=OUTSIDE).data) == ("host", back)
    both_ways(nic, Random(12), [connection], ports)
    assert ports == {connection: 5000}


def test_a_full_table_forgets_connections_in_both_directions(nic):
    nat_of(nic, connections=64)
    connections = [("10.0.0.2", port, "198.51.100.1", 80, 6) for port in range(2000, 2080)]
    ports: dict[Connection, int] = {}
    for connection in connections:
        both_ways(nic, Random(13), [connections[0], connection], ports)
    assert max(len(nic.maps["outbound"]), len(nic.maps["inbound"])) <= 64


def test_errors_reach_the_host(nic):
    """With the packet in them that the host had sent, whole or cut off, and every checksum that is there right."""
    random = Random(17)
    nat_of(nic)
    connections, ports = random_connections(random, 40), {}
    both_ways(nic, random, connections, ports)
    arrivals, expected = [], []
    for connection in connections:
        body = random.randbytes(random.randrange(80))
        fields = {"ttl": random.randrange(1, 256), "id": random.randrange(65536)}
        size = random.choice((28, 29, 36, 37, 38, 39, 46, 200))
        router, host = f"192.0.2.{random.randrange(1, 255)}", connection[0]
        error = ICMP(type=random.choice((3, 11, 12)), code=random.randrange(2), unused=random.randrange(1 << 16))
        padding = bytes(random.choice((0, 0, 12)))
        sent = outside(connection, True, ports[connection], body, **fields)[14:][:size]
        inner = inside(connection, True, body, **fields)[14:][:size]
        if connection[4] == 6 and size == 37:
            inner = inner[:36] + sent[36:]  # half a checksum can't follow
        comes = Ether(src=GATEWAY_MAC, dst=OUTSIDE_MAC) / IP(src=router, dst=PUBLIC, ttl=9) / error / sent
        arrivals.append(Arrival(OUTSIDE, bytes(comes) + padding))
        leaves = Ether(src=INSIDE_MAC, dst=mac_of(host)) / IP(src=router, dst=host, ttl=8) / error / inner
        expected.append(bytes(leaves) + padding)
    results = nic.run(arrivals).packets
    assert {packet.egress for packet in results} == {INSIDE}
    assert [packet.data for packet in results] == expected
    assert len(nic.maps["inbound"]) == len(connections)


CONNECTION = ("10.0.0.2", 5000, "198.51.100.1", 80, 17)
QUOTED = {"src": PUBLIC, "dst": "198.51.100.1"}
OUTER = {"src": "198.51.100.1", "dst": PUBLIC}
UNREACHABLE = IP(**OUTER) / ICMP(type=3)
QUOTED_UDP = IP(**QUOTED) / UDP(sport=5000, dport=80)
INNER = {"src": "10.0.0.2", "dst": "198.51.100.1"}
PASSES = {
    "expired": (INSIDE, ethernet(IP(**INNER, ttl=1) / UDP())),
    "options": (INSIDE, ethernet(IP(**INNER, options=[IPOption_Router_Alert()]) / UDP())),
    "the first fragment": (INSIDE, ethernet(IP(**INNER, flags="MF") / UDP())),
    "a later fragment": (INSIDE, ethernet(IP(**INNER, frag=1, proto=17) / UDP())),
    "SCTP": (INSIDE, ethernet(IP(**INNER) / SCTP())),
    "an echo's answer": (INSIDE, ethernet(IP(**INNER) / ICMP(type=0))),
    "an error": (INSIDE, ethernet(IP(**INNER) / ICMP(type=3) / IP() / UDP())),
    "a VLAN": (INSIDE, bytes(Ether(dst="02:00:00:00:00:01") / Dot1Q(vlan=1) / IP(**INNER) / UDP())),
    "to a group": (INSIDE, ethernet(IP(**INNER) / UDP(), destination="01:00:5e:00:00:01")),
    "TCP cut off": (INSIDE, ethernet(IP(**INNER) / TCP())[:53]),
    "UDP cut off": (INSIDE, ethernet(IP(**INNER) / UDP())[:41]),
    "ICMP cut off": (INSIDE, ethernet(IP(**INNER) / ICMP())[:41]),
    "IPv6": (INSIDE, ethernet(IPv6() / UDP())),
    "no IP": (INSIDE, ethernet(ARP())),
    "no frame": (INSIDE, bytes(14)),
    "another remote address": (OUTSIDE, ethernet(IP(src="198.51.100.2", dst=PUBLIC) / UDP(sport=80, dport=5000))),
    "another remote port": (OUTSIDE, ethernet(IP(**OUTER) / UDP(sport=81, dport=5000))),
    "another port": (OUTSIDE, ethernet(IP(**OUTER) / UDP(sport=80, dport=5001))),
    "another protocol": (OUTSIDE, ethernet(IP(**OUTER) / TCP(sport=80, dport=5000))),
    "another address": (OUTSIDE, ethernet(IP(src="198.51.100.1", dst="203.0.113.2") / UDP(sport=80, dport=5000))),
    "an echo": (OUTSIDE, ethernet(IP(**OUTER) / ICMP(type=8))),
    "an error about another": (OUTSIDE, ethernet(UNREACHABLE / IP(**QUOTED) / UDP(sport=5001, dport=80))),
    "an error to another": (OUTSIDE, ethernet(IP(src="198.51.100.1", dst="203.0.113.2") / ICMP(type=3) / QUOTED_UDP)),
    "an error of another type": (OUTSIDE, ethernet(IP(**OUTER) / ICMP(type=4) / QUOTED_UDP)),
    "a quote without ports": (OUTSIDE, ethernet(UNREACHABLE / bytes(QUOTED_UDP)[:27])),
    "a quote of a later fragment": (OUTSIDE, ethernet(
        UNREACHABLE / IP(**QUOTED, frag=1, proto=17) / bytes(QUOTED_UDP.payload))),
    "a quote of an echo's answer": (OUTSIDE, ethernet(UNREACHABLE / IP(**QUOTED) / ICMP(type=0))),
    "expired outside": (OUTSIDE, outside(CONNECTION, False, 5000, ttl=1)),
}


def test_what_passes_as_it_came(nic):
    nat_of(nic)
    both_ways(nic, Random(14), [CONNECTION], {})
    for name, (port, frame) in PASSES.items():
        result = nic.programs["nat"].test_run(frame, port=port)
        assert (name, result.egress, result.data) == (name, "host", frame)
    assert len(nic.maps["outbound"]) == len(nic.maps["inbound"]) == 1


def test_checksums_of_udp(nic):
    """None stays none; one that comes to 0 is written as 0xffff (RFC 768)."""
    nat_of(nic)
    run = nic.programs["nat"].test_run
    outer = IP(src=PUBLIC, dst=INNER["dst"]) / UDP(sport=5000, dport=80)
    body = IP(bytes(outer / b"\0\0"))[UDP].chksum.to_bytes(2, "big")  # what makes the sum 0xffff
    expected = outside(CONNECTION, True, 5000, body, ttl=63)
    assert Ether(expected)[UDP].chksum == 0xFFFF
    assert run(inside(CONNECTION, True, body)).data == expected
    without = Ether(src=mac_of("10.0.0.2"), dst=INSIDE_MAC) / IP(**INNER) / UDP(sport=5000, dport=80, chksum=0) / body
    assert Ether(run(bytes(without)).data)[UDP].chksum == 0
