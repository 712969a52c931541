"""firmware/programs/dnsfilter.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

import json
from collections import Counter
from random import Random

import pytest
from scapy.layers.dns import DNS
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt

from bpfnic.host.device import Arrival
from tests.firmware.frames import ethernet, flow, layers
from tests.firmware.shipped import entries, opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

Name = tuple[bytes, ...]
"""Labels, the root's domain last."""
TABLE_BYTES = 60


def name(text: str) -> Name:
    return tuple(text.encode().split(b".")) if text else ()


def key(domain: Name) -> dict:
    reversed = b"".join(label[::-1] + b"." for label in domain[::-1])
    return {"length": 8 * len(reversed), "reversed": reversed.decode()}


def wire(labels: Name) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def query(question: bytes, flags: int = 0x0100, questions: int = 1) -> bytes:
    header = b"\x12\x34" + flags.to_bytes(2, "big") + questions.to_bytes(2, "big") + bytes(6)
    return header + question + b"\0\1\0\1"


def frame(message: bytes, ip=IP, *vlans: int, **ports) -> bytes:
    return ethernet(ip() / UDP(**{"sport": 4000, "dport": 53} | ports) / message, *vlans)


def judge(rules: dict[Name, str], labels: Name) -> tuple[Name, str] | None:
    """The longest domain of the table that a name is or lies in."""
    lower = tuple(label.lower() for label in labels)
    found = [lower[at:] for at in range(len(lower) + 1) if lower[at:] in rules]
    return (found[0], rules[found[0]]) if found else None


def check(nic, rules: dict[Name, str], frames: list[tuple[bytes, Name | None]]) -> Counter:
    """Runs frames (with what they ask for; None: no query), and says how many came to each domain."""
    met = Counter()
    arrivals = [Arrival(number % 2, data) for number, (data, _) in enumerate(frames)]
    for (_, labels), packet in zip(frames, nic.run(arrivals).packets, strict=True):
        found = None if labels is None else judge(rules, labels)
        assert packet.action.name == (found[1] if found else "XDP_PASS"), labels
        met.update([found[0]] if found else [])
    counted = {entry["reversed"]: value["queries"] for entry, value in nic.maps["domains"].lookup_batch()}
    assert counted == {key(domain)["reversed"]: met[domain] for domain in rules}
    return met


def question_of(data: bytes) -> Name | None:
    """What a frame of the capture asks for, as scapy reads it."""
    found = flow(data)
    if found is None or found[3:] != (53, 17):
        return None
    *_, udp = layers(data)
    dns = udp[DNS]
    return None if dns.qr else tuple(dns.qd[0].qname.rstrip(b".").split(b"."))


def test_the_domains_of_the_sample_capture(nic, samples, arrivals):
    object = opened("dnsfilter")
    start(nic, "dnsfilter", object, entries("dnsfilter", object))
    rules = {}
    for entry in json.loads((samples / "dnsfilter.json").read_text())["domains"]:
        text = entry["key"]["reversed"][::-1]
        rules[name(text[1:])] = entry["value"]["action"]
        assert entry["key"]["length"] == 8 * len(text)
    met = check(nic, rules, [(arrival.data, question_of(arrival.data)) for arrival in arrivals])
    assert met == {name("www.example.test"): 18, name("nowhere.example.test"): 1, name("example.test"): 1}


def random_label(random: Random, longest: int = 63) -> bytes:
    length = random.choice((1, 2, 3, 8, random.randint(1, 63)))
    letters = b"abcxyzABCXYZ0189-_" + random.choice((b"", b"", b".@[`{\0\xff/"))
    return bytes(random.choices(letters, k=min(length, longest)))


def test_random_names(nic):
    """Names of up to 255 bytes, with every kind of letter; domains of up to 60, some in others; names in them, and some
    that only end alike."""
    random = Random(7)
    domains: list[Name] = [()]
    while len(domains) < 60:
        label = bytes(random.choices(b"abcxyz0189-", k=random.choice((1, 3, 7, 40, 59))))
        domain = (label, *random.choice(domains))
        if key(domain)["length"] <= 8 * TABLE_BYTES and domain not in domains:
            domains.append(domain)
    rules = {domain: random.choice(("XDP_DROP", "XDP_TX", "XDP_PASS")) for domain in domains[1:]}
    frames: list[tuple[bytes, Name]] = []
    while len(frames) < 150:
        labels = list(random.choice(domains))
        if random.randrange(3) == 0 and labels:
            labels[0] = random.choice((b"x", b"a.", b"0")) + labels[0][:62]  # ends alike
        while random.randrange(5) and len(wire(tuple(labels))) < 190:
            labels.insert(0, random_label(random))
        labels = [random.choice((label, label.upper())) for label in labels]
        frames.append((frame(query(wire(tuple(labels)))), tuple(labels)))
    start(nic, "dnsfilter", opened("dnsfilter"), [])
    nic.maps["domains"].update_batch([(key(domain), {"action": action}) for domain, action in rules.items()])
    met = check(nic, rules, frames)
    assert len(met) > 30 and max(map(len, met)) > 2


LONGEST = (b"a" * 63, b"b" * 63, b"c" * 63, b"d" * 48, b"blocked", b"test")
ASKS = {
    "the domain": frame(query(wire(name("blocked.test")))),
    "a name in it": frame(query(wire(name("www.BLOCKED.Test")))),
    "the longest name": frame(query(wire(LONGEST))),
    "127 labels": frame(query(wire((b"a",) * 126 + (b"b",)))),
    "a VLAN in a VLAN": frame(query(wire(name("blocked.test"))), IP, 5, 6),
    "IPv6": frame(query(wire(name("blocked.test"))), IPv6),
    "behind an extension header": ethernet(
        IPv6() / IPv6ExtHdrDestOpt() / UDP(sport=1, dport=53) / query(wire(name("blocked.test")))
    ),
    "two questions": frame(query(wire(name("blocked.test")) + b"\0\1\0\1" + wire(name("other.test")), questions=2)),
}
PASSES = {
    "its parent": frame(query(wire(name("test")))),
    "the root": frame(query(wire(()))),
    "ends alike": frame(query(wire(name("unblocked.test")))),
    "a dot is no end of a label": frame(query(wire((b"un.blocked", b"test")))),
    "begins alike": frame(query(wire(name("blocked.test.org")))),
    "an answer": frame(query(wire(name("blocked.test")), flags=0x8180)),
    "an update": frame(query(wire(name("blocked.test")), flags=0x2800)),
    "no question": frame(query(wire(name("blocked.test")), questions=0)),
    "another port": frame(query(wire(name("blocked.test"))), dport=5353),
    "TCP": ethernet(IP() / TCP(dport=53) / query(wire(name("blocked.test")))),
    "a later fragment": ethernet(IP(frag=1, proto=17) / bytes(UDP(dport=53) / query(wire(name("blocked.test"))))),
    "compressed": frame(query(b"\x03www\xc0\x0c")),
    "a label of 64": frame(query(b"\x40" + b"a" * 64 + wire(name("blocked.test")))),
    "256 bytes": frame(query(wire((*LONGEST[:3], b"d" * 49, *LONGEST[4:])))),
    "cut off in a label": frame(query(wire(LONGEST)))[: 14 + 20 + 8 + 12 + 252],
    "cut off before the root": frame(query(wire(LONGEST)))[: 14 + 20 + 8 + 12 + 254],
    "cut off in the header": frame(query(wire(LONGEST)))[: 14 + 20 + 8 + 11],
}


def test_what_is_a_query_for_the_domain(nic):
    start(nic, "dnsfilter", opened("dnsfilter"), [])
    assert len(wire(LONGEST)) == 255
    nic.maps["domains"].update_batch([(key(each), {"action": "XDP_DROP"}) for each in (name("blocked.test"), (b"b",))])
    run = nic.programs["dnsfilter"].test_run
    assert {each: run(data).action.name for each, data in (ASKS | PASSES).items()} == dict.fromkeys(
        ASKS, "XDP_DROP") | dict.fromkeys(PASSES, "XDP_PASS")  # fmt: skip
    assert nic.maps["domains"][key(name("blocked.test"))]["queries"] == len(ASKS) - 1
    assert nic.maps["domains"][key((b"b",))]["queries"] == 1  # the one of 127 labels
