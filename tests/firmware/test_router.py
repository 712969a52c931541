"""firmware/programs/router.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

import json
from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import Random

import pytest
from scapy.layers.inet import ICMP, IP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from bpfnic.host.device import Arrival
from bpfnic.host.network import IPV4, IPV6, Link, Neighbour, Network, NextHop, Route
from tests.firmware.frames import ethernet, total
from tests.firmware.prefixes import longest, prefixes
from tests.firmware.shipped import entries, opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC
HOST = 2


def routed(rules: dict[str, dict], data: bytes) -> tuple[int, bytes] | None:
    """The port that a frame leaves by and what it is then, checksum computed afresh; None for what the host gets."""
    frame = Ether(data)
    ip = frame.payload
    if type(ip) is IP:
        family, unspecified, hops = "", "0.0.0.0", ip.ttl
    elif type(ip) is IPv6:
        family, unspecified, hops = "6", "::", ip.hlim
    else:
        return None
    route = longest(rules["routes" + family], ip.dst)
    if route is None or hops <= 1 or (not family and ip.options) or int(frame.dst[:2], 16) & 1:
        return None
    gateway = route.get("gateway", unspecified)
    neighbour = rules["neighbours" + family].get(ip.dst if gateway == unspecified else gateway)
    port = rules["ports"].get(str(route["port"]), {"mtu": 0})
    if neighbour is None or len(data) - 14 > port["mtu"]:
        return None
    frame.dst, frame.src = neighbour["mac"], port["mac"]
    if family:
        ip.hlim -= 1
    else:
        ip.ttl -= 1
        del ip.chksum
    return route["port"], bytes(frame)


def check(nic, rules, arrivals, first: int = 0) -> Counter:
    """Runs frames, and says how many left by each port; `first`: what the tables call port0."""
    packets, sizes = Counter(), Counter()
    for arrival, packet in zip(arrivals, nic.run(arrivals).packets, strict=True):
        expected = routed(rules, arrival.data)
        if expected is None:
            assert (packet.action.name, packet.egress, packet.data) == ("XDP_PASS", HOST, arrival.data)
        else:
            port, data = expected
            assert (packet.action.name, packet.egress, packet.data) == ("XDP_REDIRECT", port - first, data)
            sizes[packet.egress] += len(arrival.data)
        packets[packet.egress] += 1
    counted = {port - first: total(values) for port, values in nic.maps["traffic"].items()}
    assert counted == {
        port - first: {"packets": packets[port - first] * (port - first < HOST), "bytes": sizes[port - first]}
        for port in range(16)
    }
    return packets


def test_the_routes_of_the_sample_capture(nic, samples, arrivals):
    object = opened("router")
    start(nic, "router", object, entries("router", object))
    met = check(nic, json.loads((samples / "router.json").read_text()), arrivals)
    assert min(met[egress] for egress in range(3)) > 20


def test_random_routes(nic):
    """Longest match in both families, destinations at the edges of prefixes, neighbours that aren't known."""
    random = Random(5)
    start(nic, "router", opened("router"), [])
    rules = {"ports": {"0": {"mac": "02:00:00:00:00:f0", "mtu": 120}, "1": {"mac": "02:00:00:00:00:f1", "mtu": 1500}}}
    rules |= {name: {} for name in ("routes", "routes6", "neighbours", "neighbours6")}
    arrivals = []
    for family, address, layer in (("", IPv4Address, IP), ("6", IPv6Address, IPv6)):
        made = prefixes(random, address, 50)
        gateways = [str(address(random.getrandbits(address(0).max_prefixlen))) for _ in range(6)]
        edges = [str(edge) for prefix in map(ip_network, made) for edge in (prefix[0], prefix[-1])]
        for prefix in made[1:]:  # not the one of no bits
            rules["routes" + family][prefix] = {"port": random.randrange(3)}
            if random.randrange(3):
                rules["routes" + family][prefix]["gateway"] = random.choice(gateways)
        for known in [*gateways[1:], *random.sample(edges, 70)]:
            rules["neighbours" + family][known] = {"mac": f"02:00:00:00:{random.randrange(256):02x}:0{family or 4}"}
        for number in range(120):
            packet = layer(src=random.choice(edges), dst=random.choice(edges)) / UDP(sport=number) / bytes(number)
            if layer is IP:
                packet.ttl, packet.id = random.randrange(1, 256), random.randrange(65536)
            else:
                packet.hlim = random.randrange(1, 256)
            arrivals.append(Arrival(number % 2, ethernet(packet)))
    for name, content in rules.items():
        nic.maps[name].update({int(key) if name == "ports" else key: value for key, value in content.items()})
    nic.maps["interfaces"].update({0: "port0", 1: "port1"})
    met = check(nic, rules, arrivals)
    assert min(met[egress] for egress in range(3)) > 20


NETWORK = {
    "routes": {
        "0.0.0.0/0": {"gateway": "10.2.0.254", "port": 2},
        "10.2.0.0/24": {"port": 2},
        "10.3.0.0/24": {"port": 3},
        "203.0.113.0/24": {"gateway": "10.3.0.254", "port": 3},
        "203.0.113.128/25": {"gateway": "10.3.0.253", "port": 3},  # a neighbour that isn't known
        "203.0.113.129/32": {"gateway": "10.2.0.254", "port": 2},
        "198.51.100.0/24": {"gateway": "10.7.0.1", "port": 7},  # a link that is no port of the NIC
    },
    "routes6": {
        "2001:db8:2::/64": {"port": 2},
        "2001:db8:3::/64": {"port": 3},
        "2001:db8:9::/48": {"gateway": "2001:db8:3::254", "port": 3},
        "2001:db8:9:9::/64": {"gateway": "2001:db8:2::254", "port": 2},
        "2001:db8:7::/48": {"gateway": "2001:db8:3::253", "port": 3},
    },
    "neighbours": {
        "10.2.0.254": {"mac": "02:00:00:00:02:fe"}, "10.3.0.254": {"mac": "02:00:00:00:03:fe"},
        "10.3.0.9": {"mac": "02:00:00:00:03:09"}, "10.7.0.1": {"mac": "02:00:00:00:07:01"},
    },
    "neighbours6": {
        "2001:db8:2::254": {"mac": "02:00:00:00:62:fe"}, "2001:db8:3::254": {"mac": "02:00:00:00:63:fe"},
        "2001:db8:2::9": {"mac": "02:00:00:00:62:09"},
    },
    "ports": {"2": {"mac": "02:00:00:00:00:f2", "mtu": 1500}, "3": {"mac": "02:00:00:00:00:f3", "mtu": 1400}},
}  # fmt: skip


def host_network() -> Network:
    """The same as a host has it; a neighbour is on the link of the routes by it."""
    links = [Link(1, "lo", mtu=65536, loopback=True), Link(7, "eth7", bytes([2, 0, 0, 0, 0, 0xF7]))]
    links += [Link(int(port), f"eth{port}", bytes.fromhex(of["mac"].replace(":", "")), of["mtu"])
              for port, of in NETWORK["ports"].items()]  # fmt: skip
    routes, neighbours = [], []
    for family, name in ((IPV4, ""), (IPV6, "6")):
        for prefix, route in NETWORK["routes" + name].items():
            network, gateway = ip_network(prefix), route.get("gateway")
            hop = NextHop(route["port"], ip_address(gateway).packed if gateway else None, onlink=bool(gateway))
            routes.append(Route(family, network[0].packed, network.prefixlen, (hop,), metric=1024 * (family == IPV6)))
        for address, neighbour in NETWORK["neighbours" + name].items():
            packed = ip_address(address).packed
            link = packed[1 if family == IPV4 else 5]
            neighbours.append(Neighbour(link, packed, bytes.fromhex(neighbour["mac"].replace(":", ""))))
    return Network(tuple(links), tuple(routes), tuple(neighbours))


def test_routes_of_the_host(nic):
    """With use_fib: the host's own routes and neighbours instead of the tables."""
    random = Random(16)
    object = opened("router")
    object.rodata["use_fib"] = True
    for port in (0, 1):
        nic.set_ifindex(port, port + 2)
    nic.network = host_network()
    start(nic, "router", object, [])
    nic.maps["ports"].update({int(port): of for port, of in NETWORK["ports"].items()})
    nic.maps["interfaces"].update({2: "port0", 3: "port1"})
    to = ["10.2.0.254", "10.2.0.77", "10.3.0.9", "203.0.113.1", "203.0.113.127", "203.0.113.128", "203.0.113.129",
          "198.51.100.1", "8.8.8.8", "2001:db8:2::9", "2001:db8:3::9", "2001:db8:9::1", "2001:db8:9:9::1",
          "2001:db8:7::1", "2001:db8:5::1"]  # fmt: skip
    arrivals = []
    for number in range(150):
        destination = random.choice(to)
        if ":" in destination:
            ip = IPv6(src="2001:db8:ffff::1", dst=destination, hlim=random.randrange(1, 256), tc=random.randrange(256))
        else:
            ip = IP(src="192.0.2.1", dst=destination, ttl=random.randrange(1, 256), tos=random.randrange(256))
        packet = ip / UDP(sport=number) / bytes(random.choice((0, 10, 1300, 1400)))
        arrivals.append(Arrival(number % 2, ethernet(packet)))
    met = check(nic, NETWORK, arrivals, first=2)
    assert min(met[egress] for egress in range(3)) > 20


TO = {"src": "192.0.2.1", "dst": "203.0.113.9"}
PASSED = {
    "expired": ethernet(IP(**TO, ttl=1) / UDP()),
    "no route": ethernet(IP(src="192.0.2.1", dst="203.0.114.9") / UDP()),
    "options": ethernet(IP(**TO, options=[IPOption_Router_Alert()]) / UDP()),
    "a VLAN": ethernet(IP(**TO) / UDP(), 7),
    "to a group": ethernet(IP(**TO) / UDP(), destination="01:00:5e:00:00:01"),
    "too long": bytes(Ether(dst="02:00:00:00:00:02") / IP(**TO) / UDP() / bytes(1473)),
    "cut off": ethernet(IP(**TO) / UDP())[:33],
    "a header of 16 bytes": ethernet(IP(**TO, ihl=4) / UDP()),
    "hop limit": ethernet(IPv6(src="2001:db8::1", dst="2001:db8:9::9", hlim=0) / UDP()),
    "cut off, IPv6": ethernet(IPv6(src="2001:db8::1", dst="2001:db8:9::9") / UDP())[:53],
    "no IP": ethernet(ARP()),
    "no frame": ethernet(IP())[:14],
}
SENT = {
    "IPv4": (IP(**TO, ttl=2) / UDP(), IP(**TO, ttl=1) / UDP()),
    "as long as may be": (IP(**TO) / UDP() / bytes(1472), IP(**TO, ttl=63) / UDP() / bytes(1472)),
    "a later fragment": (IP(**TO, frag=9, proto=1) / b"tail", IP(**TO, frag=9, proto=1, ttl=63) / b"tail"),
    "IPv6": (
        IPv6(src="2001:db8::1", dst="2001:db8:9::9", hlim=2) / ICMP(),
        IPv6(src="2001:db8::1", dst="2001:db8:9::9", hlim=1) / ICMP(),
    ),
}


@pytest.fixture
def router(nic):
    """A NIC with one route and one neighbour of each family, behind port1."""
    start(nic, "router", opened("router"), [])
    nic.maps["routes"]["203.0.113.0/24"] = {"port": 3}
    nic.maps["routes6"]["2001:db8:9::/48"] = {"port": 3}
    nic.maps["neighbours"]["203.0.113.9"] = nic.maps["neighbours6"]["2001:db8:9::9"] = {"mac": "02:00:00:00:00:99"}
    nic.maps["ports"][3] = {"mac": "02:00:00:00:00:03", "mtu": 1500}
    nic.maps["interfaces"][3] = "port1"
    return nic


def test_what_passes_to_the_host(router):
    for name, frame in PASSED.items():
        result = router.programs["router"].test_run(frame)
        assert (name, result.egress, result.data) == (name, "host", frame)


def test_what_leaves(router):
    for name, (packet, after) in SENT.items():
        result = router.programs["router"].test_run(ethernet(packet))
        expected = Ether(dst="02:00:00:00:00:99", src="02:00:00:00:00:03") / after
        assert (name, result.egress, result.data) == (name, "port1", bytes(expected).ljust(60, b"\0"))
    assert total(router.maps["traffic"][3])["packets"] == len(SENT)


def test_tables_change_under_the_router(router):
    run, frame = router.programs["router"].test_run, ethernet(IP(**TO) / UDP())
    router.maps["routes"]["203.0.113.9/32"] = {"port": 3, "gateway": "192.0.2.77"}
    assert run(frame).egress == "host"
    router.maps["neighbours"]["192.0.2.77"] = {"mac": "02:00:00:00:00:77"}
    assert Ether(run(frame).data).dst == "02:00:00:00:00:77"
    router.maps["interfaces"][3] = "port0"
    assert run(frame).egress == "port0"
    del router.maps["interfaces"][3]
    assert run(frame).action.name == "XDP_DROP"
    router.maps["ports"][3] = {"mtu": 20}
    assert (run(frame).egress, run(frame).data) == ("host", frame)
