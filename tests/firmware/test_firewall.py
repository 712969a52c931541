"""firmware/programs/firewall.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

import json
from collections import Counter

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP
from scapy.layers.sctp import SCTP

from bpfnic.spec.programs import XdpAction
from tests.firmware.frames import ethernet, flow, total
from tests.firmware.shipped import entries, opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

NUMBERS = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMP6": 58, "SCTP": 132}
NOWHERE, HOST = None, 2


def key_of(key: dict) -> tuple:
    """A key as tests.firmware.frames.flow has it."""
    return key["saddr"], key["daddr"], key.get("sport", 0), key.get("dport", 0), NUMBERS[key["protocol"]]


def test_the_rules_of_the_sample_capture(nic, samples, arrivals):
    object = opened("firewall")
    start(nic, "firewall", object, entries("firewall", object))
    rules = {key_of(rule["key"]): rule["value"]
             for part in json.loads((samples / "firewall.json").read_text()).values() for rule in part}  # fmt: skip
    packets, sizes, verdicts = Counter(), Counter(), Counter()
    for arrival, packet in zip(arrivals, nic.run(arrivals).packets, strict=True):
        rule = rules.get(flow(arrival.data), {"action": "XDP_PASS"})
        egress = {"XDP_PASS": HOST, "XDP_DROP": NOWHERE, "XDP_REDIRECT": rule.get("ifindex", 0) - 1}[rule["action"]]
        assert (packet.action.name, packet.egress) == (rule["action"], egress)
        assert packet.data == (None if egress is NOWHERE else arrival.data)
        packets[flow(arrival.data)] += 1
        sizes[flow(arrival.data)] += len(arrival.data)
        verdicts[packet.action] += 1
    for name in ("rules", "rules6"):
        for key, value in nic.maps[name].lookup_batch():
            assert (value["packets"], value["bytes"]) == (packets[key_of(key)], sizes[key_of(key)]) > (0, 0)
    assert {action: total(nic.maps["verdicts"][action]) for action in XdpAction} == {
        action: verdicts[action] for action in XdpAction
    }
    assert set(verdicts) == {XdpAction.XDP_PASS, XdpAction.XDP_DROP, XdpAction.XDP_REDIRECT}


FLOW = {"saddr": "192.0.2.1", "daddr": "192.0.2.2", "sport": 1111, "dport": 80, "protocol": "TCP"}
FLOW6 = FLOW | {"saddr": "2001:db8::1", "daddr": "2001:db8::2"}
PING = FLOW | {"sport": 0, "dport": 0, "protocol": "ICMP"}


def four(transport, **fields):
    return IP(**{"src": FLOW["saddr"], "dst": FLOW["daddr"]} | fields) / transport


def six(packet, **fields):
    return IPv6(**{"src": FLOW6["saddr"], "dst": FLOW6["daddr"]} | fields) / packet


MEETS = {
    "TCP": ethernet(four(TCP(sport=1111, dport=80))),
    "in a VLAN": ethernet(four(TCP(sport=1111, dport=80)), 42),
    "in a VLAN in another": ethernet(four(TCP(sport=1111, dport=80)), 100, 42),
    "IPv4 options": ethernet(four(TCP(sport=1111, dport=80), options=[IPOption_Router_Alert()])),
    "the first fragment": ethernet(four(TCP(sport=1111, dport=80), flags="MF")),
    "IPv6": ethernet(six(TCP(sport=1111, dport=80))),
    "IPv6 extension headers": ethernet(six(IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / TCP(sport=1111, dport=80)), 1),
    "no ports": ethernet(four(ICMP())),
}
MISSES = {
    "other source": ethernet(four(TCP(sport=1111, dport=80), src="192.0.2.3")),
    "other destination": ethernet(four(TCP(sport=1111, dport=80), dst="192.0.3.2")),
    "other source port": ethernet(four(TCP(sport=1112, dport=80))),
    "other destination port": ethernet(four(TCP(sport=1111, dport=81))),
    "other protocol": ethernet(four(UDP(sport=1111, dport=80))),
    "the way back": ethernet(four(TCP(sport=80, dport=1111), src=FLOW["daddr"], dst=FLOW["saddr"])),
    "other protocol, IPv6": ethernet(six(SCTP(sport=1111, dport=80))),
    "other destination, IPv6": ethernet(six(TCP(sport=1111, dport=80), dst="2001:db8:0:1::2")),
    "three tags": ethernet(four(TCP(sport=1111, dport=80)), 1, 2, 3),
    "a later fragment": ethernet(four(TCP(sport=1111, dport=80), frag=1)),
    "a later fragment, IPv6": ethernet(six(IPv6ExtHdrFragment(offset=1, nh=6) / TCP(sport=1111, dport=80))),
    "cut off": ethernet(four(TCP(sport=1111, dport=80)))[:37],
    "no IP": ethernet(ARP()),
}


@pytest.fixture
def ruled(nic):
    """A NIC that drops the three flows, and sends anything else back."""
    object = opened("firewall")
    object.rodata["otherwise"] = "XDP_TX"
    start(nic, "firewall", object, [])
    for name, key in (("rules", FLOW), ("rules", PING), ("rules6", FLOW6)):
        nic.maps[name][key] = {"action": "XDP_DROP"}
    return nic


def test_every_field_of_a_flow_counts(ruled):
    program = ruled.programs["firewall"]
    assert {name: program.test_run(frame).action.name for name, frame in (MEETS | MISSES).items()} == dict.fromkeys(
        MEETS, "XDP_DROP") | dict.fromkeys(MISSES, "XDP_TX")  # fmt: skip
    counted = [ruled.maps[name][key]["packets"] for name, key in (("rules", FLOW), ("rules6", FLOW6), ("rules", PING))]
    assert counted == [5, 2, 1]
    assert [total(ruled.maps["verdicts"][action]) for action in range(5)] == [0, 8, 0, len(MISSES), 0]


def test_rules_come_change_and_go(ruled):
    program, rules, frame = ruled.programs["firewall"], ruled.maps["rules"], MEETS["TCP"]
    rules[FLOW] = {"action": "XDP_REDIRECT", "ifindex": 2}
    assert program.test_run(frame).egress == "port1"
    rules[FLOW] = {"action": "XDP_PASS"}
    assert program.test_run(frame).egress == "host"
    assert rules[FLOW] == {"action": "XDP_PASS", "ifindex": 0, "packets": 1, "bytes": len(frame)}
    del rules[FLOW]
    assert program.test_run(frame).egress == "port0"
