"""firmware/programs/ratelimit.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

from collections import Counter
from random import Random

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP

from bpfnic.host.device import Arrival, Pacing
from tests.firmware.frames import ethernet
from tests.firmware.shipped import opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

HOUR = 3600 * 10**9


def limited(nic, interval: int, burst: int) -> None:
    object = opened("ratelimit")
    object.rodata.update({"interval": interval, "burst": burst})
    start(nic, "ratelimit", object, [])


def ipv4(number: int, *vlans: int) -> bytes:
    return ethernet(IP(src=f"192.0.2.{number}", dst="198.51.100.1") / UDP(), *vlans)


def ipv6(source: str) -> bytes:
    return ethernet(IPv6(src=source, dst="2001:db8::1") / UDP())


def passed(nic, arrivals, pacing=Pacing()) -> list[bool]:
    packets = nic.run(arrivals, pacing).packets
    assert {packet.action.name for packet in packets} <= {"XDP_PASS", "XDP_DROP"}
    return [packet.action.name == "XDP_PASS" for packet in packets]


@pytest.mark.parametrize("burst", [1, 7])
def test_each_source_has_its_burst(nic, burst):
    """Whichever packets of a source come first: so many pass, the others are dropped and counted."""
    limited(nic, HOUR, burst)
    frames = [ipv4(1), ipv4(2, 42), ipv4(3, 7, 8), ipv6("2001:db8:1::1"), ipv6("2001:db8:1:1::1")]
    arrivals = [Arrival(number % 2, frames[number % len(frames)]) for number in range(100)]
    met = Counter(frame.data for frame, went in zip(arrivals, passed(nic, arrivals), strict=True) if went)
    assert met == dict.fromkeys(frames, burst)
    sources = ["::ffff:192.0.2.1", "::ffff:192.0.2.2", "::ffff:192.0.2.3", "2001:db8:1::", "2001:db8:1:1::"]
    assert {key: value["dropped"] for key, value in nic.maps["buckets"].lookup_batch()} == dict.fromkeys(
        sources, 20 - burst
    )


def test_what_is_a_source(nic):
    limited(nic, HOUR, 1)
    run = nic.programs["ratelimit"].test_run
    seen = [run(frame).action.name == "XDP_PASS" for frame in (
        ipv4(1), ipv4(1), ipv4(1, 5), ipv4(2),
        ipv6("2001:db8::1"), ipv6("2001:db8::ffff:0:0:2"), ipv6("2001:db8:0:1::1"),
        ethernet(ARP()), ethernet(ARP()), ipv4(1)[:33], ipv4(1)[:34],
    )]  # fmt: skip
    assert seen == [True, False, False, True, True, False, True, True, True, True, False]


def test_tokens_come_back(nic):
    """As many as intervals have gone by: the host turns the time back by some, and later by more than a burst takes."""
    limited(nic, HOUR, 10)
    arrivals = [Arrival(number % 2, ipv4(9)) for number in range(25)]
    assert sum(passed(nic, arrivals)) == 10
    for intervals, tokens in ((1, 1), (4, 4), (0, 0), (10, 10), (25, 10)):
        bucket = nic.maps["buckets"]["::ffff:192.0.2.9"]
        nic.maps["buckets"]["::ffff:192.0.2.9"] = bucket | {"full": max(bucket["full"] - intervals * HOUR, 0)}
        assert sum(passed(nic, arrivals)) == tokens


@pytest.mark.parametrize("nic", ["golden", "rtl"], indirect=True)  # the kernel runs packets as they come
def test_the_rate(nic):
    """Against a bucket that is counted in tokens, on the NIC's clock; arrivals keep away from the moments in which a
    token comes, for a program asks for the time some clocks after its packet has come."""
    interval, burst, step = 200_000, 4, 20_000
    random = Random(6)
    limited(nic, interval, burst)
    tokens, last = dict.fromkeys((1, 2), float(burst)), dict.fromkeys((1, 2), 0)
    arrivals, expected, now = [], [], interval
    for _ in range(300):
        source = random.choice((1, 2))
        now += step * random.choice((1, 1, 1, 2, 3, 5, 15))

        def full(source, now):
            return min(burst, tokens[source] + (now - last[source]) / interval)

        while abs(full(source, now) - 1) < 0.05:
            now += step // 2
        tokens[source], last[source] = full(source, now), now
        expected.append(tokens[source] >= 1)
        tokens[source] -= expected[-1]
        arrivals.append(Arrival(0, ipv4(source), now))
    assert passed(nic, arrivals, Pacing(back_to_back=False)) == expected
    assert 50 < sum(expected) < 250
