"""firmware/programs/acl.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

import json
from collections import Counter
from ipaddress import IPv4Address, IPv6Address, ip_network
from random import Random

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP

from bpfnic.host.device import Arrival
from tests.firmware.frames import ethernet, network, total
from tests.firmware.prefixes import longest, prefixes
from tests.firmware.shipped import entries, opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC


def judge(rules: dict[str, dict[str, dict]], data: bytes) -> tuple[int, str]:
    """The rule for a frame, and what becomes of it."""
    ip = network(data)
    found = []
    if ip:
        family = "6" * isinstance(ip, IPv6)
        found = [longest(rules.get(name + family, {}), address)
                 for name, address in (("sources", ip.src), ("destinations", ip.dst))]  # fmt: skip
    counts = min((entry for entry in found if entry), key=lambda entry: entry["rule"], default=None)
    return (counts["rule"], counts["action"]) if counts else (0, "XDP_PASS")


def check(nic, rules, arrivals) -> Counter:
    """Runs frames, and says how many came to each rule."""
    packets, sizes = Counter(), Counter()
    for arrival, packet in zip(arrivals, nic.run(arrivals).packets, strict=True):
        rule, action = judge(rules, arrival.data)
        assert packet.action.name == action
        assert packet.data == (None if action == "XDP_DROP" else arrival.data)
        packets[rule] += 1
        sizes[rule] += len(arrival.data)
    counted = {rule: total(values) for rule, values in nic.maps["traffic"].items()}
    assert counted == {rule: {"packets": packets[rule], "bytes": sizes[rule]} for rule in range(64)}
    return packets


def test_the_rules_of_the_sample_capture(nic, samples, arrivals):
    object = opened("acl")
    start(nic, "acl", object, entries("acl", object))
    rules = json.loads((samples / "acl.json").read_text())
    met = check(nic, rules, arrivals)
    assert set(met) == {0, 3, 5, 10, 11, 12, 21, 22, 30, 50}  # of all four maps


def test_random_prefixes(nic):
    """Longest match in both families, with addresses at the edges of prefixes."""
    random = Random(4)
    object = opened("acl")
    start(nic, "acl", object, [])
    rules = {}
    for name in ("sources", "destinations", "sources6", "destinations6"):
        made = prefixes(random, IPv6Address if name.endswith("6") else IPv4Address, 60)
        rules[name] = {
            prefix: {"rule": random.randint(1, 63), "action": random.choice(["XDP_PASS", "XDP_DROP", "XDP_TX"])}
            for prefix in made[name.startswith("destinations") :]  # there is a rule for every source
        }
        for prefix, entry in rules[name].items():
            nic.maps[name][prefix] = entry
    arrivals = []
    for family, layer in (("", IP), ("6", IPv6)):
        edges = [address for name in ("sources", "destinations") for prefix in map(ip_network, rules[name + family])
                 for address in (prefix[0], prefix[-1])]  # fmt: skip
        for number in range(150):
            source, destination = random.choice(edges), random.choice(edges)
            packet = layer(src=str(source), dst=str(destination)) / UDP(sport=number)
            arrivals.append(Arrival(number % 2, ethernet(packet, *[7] * (number % 3))))
    arrivals += [Arrival(0, ethernet(ARP())), Arrival(1, ethernet(IP() / UDP())[:30])]
    assert len(check(nic, rules, arrivals)) > 40
