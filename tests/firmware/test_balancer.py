"""firmware/programs/balancer.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

import json
from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP

from bpfnic.host.device import Arrival, Pacing
from tests.firmware.frames import ethernet, total
from tests.firmware.maglev import ring
from tests.firmware.shipped import VARIABLES, entries, opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

RING = 251
MACS = {"dst": VARIABLES["balancer"]["gateway_mac"], "src": VARIABLES["balancer"]["port_mac"]}
SOURCE, SOURCE6 = (ip_address(VARIABLES["balancer"][name]) for name in ("source", "source6"))
ALL = 2**64 - 1
NUMBERS = {"TCP": 6, "UDP": 17}


def six(address: str) -> IPv6Address:
    """As the program's tables have addresses."""
    return IPv6Address(address if ":" in address else f"::ffff:{address}")


def hash_of(client: str, port: int, by: str) -> int:
    """SplitMix64's finalizer over address and port (in memory order, on a little-endian machine)."""
    data = six(client).packed
    value = int.from_bytes(data[:8], "little") * 0x9E3779B97F4A7C15 + int.from_bytes(data[8:], "little") & ALL
    if by == "ADDRESS_AND_PORT":
        value ^= int.from_bytes(port.to_bytes(2, "big"), "little") << 32
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & ALL
    value = (value ^ value >> 27) * 0x94D049BB133111EB & ALL
    return value ^ value >> 31


class Judge:
    """The balancer, from its comment. `services`: (address, port, protocol) to number and `by`; `rings` by number;
    `servers` by number."""

    def __init__(self, services: dict, rings: dict[int, list[int]], servers: dict[int, str]):
        self.services, self.rings, self.servers = services, rings, servers
        self.connections: dict[tuple, int] = {}
        self.traffic = {number: Counter(packets=0, bytes=0, connections=0) for number in range(16)}
        self.served = {server: Counter(packets=0, bytes=0) for server in range(64)}

    def __call__(self, data: bytes) -> bytes | None:
        """The frame that leaves, None for one that passes as it came."""
        ip = Ether(data).payload
        seen = self._connection(ip)
        if seen is None or seen[:3] not in self.services:
            return None
        number, by = self.services[seen[:3]]
        value = hash_of(*seen[3:], by)
        opens = isinstance(ip.payload, TCP) and ip.payload.flags.S and not ip.payload.flags.A
        server, fresh = None if opens else self.connections.get(seen), 0
        if server is None:
            server, fresh = self.rings.get(number, [0] * RING)[(value & 0xFFFFFFFF) % RING], 1
            if not server:
                return None
            self.connections[seen] = server
        length = ip.len if isinstance(ip, IP) else ip.plen + 40
        self.traffic[number].update(packets=1, bytes=length, connections=fresh)
        self.served[server].update(packets=1, bytes=length)
        return self._encapsulated(data, ip, length, self.servers[server], value)

    @staticmethod
    def _connection(ip) -> tuple | None:
        """Service's address, port and protocol; client's address and port."""
        if type(ip) not in (IP, IPv6) or (type(ip) is IP and (ip.frag or ip.flags.MF or ip.options)):
            return None
        error, quoted = ip.payload, None
        if isinstance(error, ICMPv6DestUnreach | ICMPv6PacketTooBig) or (isinstance(error, ICMP) and error.type == 3):
            quoted = error.payload
        away = quoted if quoted is not None else ip
        ports = away.payload
        if not isinstance(ports, TCP | UDP):
            return None
        client, service = (away.dst, ports.dport), (away.src, ports.sport)
        if quoted is None:
            client, service = service, client
        return (*service, 6 if isinstance(ports, TCP) else 17, *client)

    @staticmethod
    def _encapsulated(data: bytes, ip: IP | IPv6, length: int, server: str, value: int) -> bytes:
        protocol, service = (4, ip.tos) if isinstance(ip, IP) else (41, ip.tc)
        low = value.to_bytes(8, "little")
        if isinstance(ip_address(server), IPv4Address):
            source = IPv4Address(SOURCE.packed[:2] + low[:2])
            outer = IP(src=str(source), dst=server, tos=service, flags="DF", id=0, proto=protocol, len=20 + length)
        else:
            source = IPv6Address(SOURCE6.packed[:12] + low[:4])
            outer = IPv6(src=str(source), dst=server, tc=service, plen=length, hlim=64, nh=protocol)
        return bytes(Ether(**MACS) / outer) + data[14:]


def check(nic, judge: Judge, arrivals: list[Arrival]) -> None:
    """Runs frames, those of a client one after the other: it is always behind the same port."""
    for arrival, packet in zip(arrivals, nic.run(arrivals, Pacing(flows_apart=True)).packets, strict=True):
        expected = judge(arrival.data)
        if expected is None:
            assert (packet.action.name, packet.egress, packet.data) == ("XDP_PASS", 2, arrival.data)
        else:
            assert (packet.action.name, packet.egress, packet.data) == ("XDP_TX", arrival.interface, expected)
    assert {number: total(values) for number, values in nic.maps["traffic"].items()} == judge.traffic
    assert {number: total(values) for number, values in nic.maps["served"].items()} == judge.served


def content_of(samples) -> tuple[dict, dict[int, list[int]], dict[int, str]]:
    """What firmware/samples/balancer.json has, for the judge."""
    rules = json.loads((samples / "balancer.json").read_text())
    services = {
        (entry["key"]["address"].removeprefix("::ffff:"), entry["key"]["port"], entry["key"]["protocol"]):
            (entry["value"]["number"], entry["value"].get("by", "ADDRESS_AND_PORT"))
        for entry in rules["services"]
    }  # fmt: skip
    rings: dict[int, list[int]] = {}
    for place, server in rules["rings"].items():
        rings.setdefault(int(place) // RING, []).append(server)
    servers = {int(server): address.removeprefix("::ffff:") for server, address in rules["servers"].items()}
    return services, rings, servers


def test_the_services_of_the_sample_capture(nic, samples, arrivals):
    object = opened("balancer")
    start(nic, "balancer", object, entries("balancer", object))
    services, rings, servers = content_of(samples)
    assert rings == {0: ring([1, 2], RING), 1: ring([3], RING)}
    judge = Judge(services, rings, servers)
    check(nic, judge, arrivals)
    assert judge.traffic[0]["packets"] > 20 and judge.traffic[1]["packets"] > 5
    assert len([server for server in judge.served if judge.served[server]["packets"]]) == 3


SERVICES = {
    ("203.0.113.1", 80, 6): (0, "ADDRESS_AND_PORT"),
    ("203.0.113.1", 53, 17): (1, "ADDRESS_AND_PORT"),
    ("2001:db8::80", 443, 6): (2, "ADDRESS_AND_PORT"),
    ("203.0.113.2", 80, 6): (3, "ADDRESS"),
    ("203.0.113.3", 80, 6): (15, "ADDRESS_AND_PORT"),  # its ring is empty
}
SERVERS = {1: "10.0.0.1", 2: "10.0.0.2", 3: "10.0.1.3", 4: "2001:db8:9::4", 5: "2001:db8:9::5", 63: "10.255.0.63"}


def fill_ring(nic, judge: Judge, number: int, servers: list[int]) -> None:
    judge.rings[number] = ring(servers, RING)
    nic.maps["rings"].update_batch([(RING * number + place, at) for place, at in enumerate(judge.rings[number])])


@pytest.fixture
def ready(nic):
    """A balancer with five services, and its judge."""
    start(nic, "balancer", opened("balancer"), [])
    for (address, port, protocol), (number, by) in SERVICES.items():
        key = {"address": str(six(address)), "port": port, "protocol": protocol}
        nic.maps["services"][key] = {"number": number, "by": by}
    nic.maps["servers"].update({number: str(six(address)) for number, address in SERVERS.items()})
    judge = Judge(SERVICES, {}, SERVERS)
    for number, servers in enumerate(([1, 2, 3], [1, 4, 63], [2, 4, 5], [1, 2, 3, 63])):
        fill_ring(nic, judge, number, servers)
    return nic, judge


def client_packet(random: Random, client: int) -> Arrival:
    (service, port, protocol) = random.choice(list(SERVICES))
    ports = {"sport": random.choice((1024, 5000, 40000 + client)), "dport": port}
    body = (TCP(**ports, flags=random.choice(("S", "A", "PA", "SA", "FA"))) if protocol == 6 else UDP(**ports)) / (
        b"x" * random.choice((0, 1, 77, 600))
    )
    if ":" in service:
        ip = IPv6(src=f"2001:db8:1::{client:x}", dst=service, tc=random.randrange(256))
    else:
        ip = IP(src=f"192.0.2.{client}", dst=service, tos=random.randrange(256), id=client)
    return Arrival(client % 2, ethernet(ip / body))


def test_connections_keep_their_server(ready):
    """Servers come and go: connections that are known stay where they are, others go where the ring says then."""
    nic, judge = ready
    random = Random(10)
    clients = range(1, 30)
    check(nic, judge, [client_packet(random, random.choice(clients)) for _ in range(150)])
    for number, servers in enumerate(([1, 3, 63], [4], [2, 3, 4, 5], [2, 3])):
        fill_ring(nic, judge, number, servers)
    before = Counter(judge.served[2])
    check(nic, judge, [client_packet(random, random.choice(clients)) for _ in range(150)])
    assert judge.served[2]["packets"] > before["packets"]  # though two rings don't have it any more
    (entry, *_) = nic.maps["connections"].keys()
    assert len(nic.maps["connections"]) == len(judge.connections)
    del nic.maps["connections"][entry]
    service, client = entry["service"], entry["client"].removeprefix("::ffff:")
    gone = (service["address"].removeprefix("::ffff:"), service["port"], service["protocol"], client, entry["port"])
    del judge.connections[gone]
    check(nic, judge, [client_packet(random, random.choice(clients)) for _ in range(30)])


def test_errors_find_the_server(ready):
    """Those of routers on the way from a service to its client, which quote what the server sent."""
    nic, judge = ready
    four = {"src": "203.0.113.1", "dst": "192.0.2.7"}
    sixes = {"src": "2001:db8::80", "dst": "2001:db8:1::7"}
    frames = []
    for port in (1000, 2000, 3000, 4000):
        quotes = IP(**four) / TCP(sport=80, dport=port)
        quotes6 = IPv6(**sixes) / TCP(sport=443, dport=port)
        frames += [
            ethernet(IP(src="192.0.2.7", dst="203.0.113.1") / TCP(sport=port, dport=80, flags="S")),
            ethernet(IP(src="198.51.100.9", dst="203.0.113.1") / ICMP(type=3, code=4) / quotes),
            ethernet(IP(src="198.51.100.9", dst="203.0.113.1") / ICMP(type=3, code=1) / bytes(quotes)[:28]),
            ethernet(IPv6(src="2001:db8:2::1", dst="2001:db8::80") / ICMPv6PacketTooBig(mtu=1280) / quotes6),
            ethernet(IPv6(src="2001:db8:1::7", dst="2001:db8::80") / TCP(sport=port, dport=443, flags="A")),
            ethernet(IPv6(src="2001:db8:2::1", dst="2001:db8::80") / ICMPv6DestUnreach() / quotes6),
        ]
    results = [nic.programs["balancer"].test_run(frame) for frame in frames]
    for frame, result in zip(frames, results, strict=True):
        judged = Judge(judge.services, judge.rings, judge.servers)  # by the ring, which the table must agree with
        assert (result.action.name, result.data) == ("XDP_TX", judged(frame) or judge_quoted(judge, frame))
    assert len({result.data[30:34] for result in results[::6]}) > 1  # outer destinations
    assert [total(nic.maps["traffic"][number])["connections"] for number in (0, 2)] == [4, 4]


def judge_quoted(judge: Judge, frame: bytes) -> bytes:
    """An error whose quote is cut off behind the ports, which scapy doesn't take for a header."""
    ip = Ether(frame).payload
    port = int.from_bytes(frame[14 + 20 + 8 + 20 + 2 :][:2], "big")
    value = hash_of("192.0.2.7", port, "ADDRESS_AND_PORT")
    server = judge.servers[judge.rings[0][(value & 0xFFFFFFFF) % RING]]
    return Judge._encapsulated(frame, ip, ip.len, server, value)


TO = {"src": "192.0.2.1", "dst": "203.0.113.1"}
PASSES = {
    "another address": ethernet(IP(src="192.0.2.1", dst="203.0.113.9") / TCP(dport=80)),
    "another port": ethernet(IP(**TO) / TCP(dport=81)),
    "another protocol": ethernet(IP(**TO) / UDP(dport=80)),
    "SCTP": ethernet(IP(**TO) / SCTP(dport=80)),
    "an empty ring": ethernet(IP(src="192.0.2.1", dst="203.0.113.3") / TCP(dport=80)),
    "the first fragment": ethernet(IP(**TO, flags="MF") / TCP(dport=80)),
    "a later fragment": ethernet(IP(**TO, frag=1, proto=6) / TCP(dport=80)),
    "options": ethernet(IP(**TO, options=[IPOption_Router_Alert()]) / TCP(dport=80)),
    "a VLAN": ethernet(IP(**TO) / TCP(dport=80), 9),
    "ping": ethernet(IP(**TO) / ICMP()),
    "an error from it": ethernet(IP(**TO) / ICMP(type=3) / IP(**TO) / TCP(sport=9, dport=80)),
    "another error": ethernet(IP(**TO) / ICMP(type=11) / IP(src="203.0.113.1", dst="192.0.2.1") / TCP(sport=80)),
    "fragment, IPv6": ethernet(IPv6(dst="2001:db8::80") / IPv6ExtHdrFragment(m=1) / TCP(dport=443)),
    "ping, IPv6": ethernet(IPv6(dst="2001:db8::80") / ICMPv6EchoRequest()),
    "cut off": ethernet(IP(**TO) / TCP(dport=80))[: 14 + 20 + 19],
    "cut off in the header": ethernet(IP(**TO) / TCP(dport=80))[:33],
    "cut off by its length": ethernet(IP(**TO, len=200) / TCP(dport=80)),
    "no IP": ethernet(ARP()),
    "no frame": bytes(14),
}


def test_what_passes(ready):
    nic, _ = ready
    for name, frame in PASSES.items():
        result = nic.programs["balancer"].test_run(frame)
        assert (name, result.egress, result.data) == (name, "host", frame)
    assert not any(any(total(values).values()) for values in nic.maps["traffic"].values())


def test_the_rings_of_maglev():
    """Even, and of nine places in ten the same when one of ten servers goes (the paper: a bit more than its share)."""
    servers = list(range(1, 11))
    whole, without = ring(servers, RING), ring(servers[:-1], RING)
    assert set(Counter(whole).values()) <= {25, 26}
    stayed = sum(one == other for one, other in zip(whole, without, strict=True) if one != 10)
    assert stayed / sum(one != 10 for one in whole) > 0.85
    assert ring([], RING) == [0] * RING and set(ring([7], RING)) == {7}
