"""firmware/programs/flows.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

import time
from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, UDP

from bpfnic.host.device import Arrival, Pacing
from tests.firmware.frames import ethernet, flow
from tests.firmware.shipped import opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC


def key(flow: tuple) -> dict:
    """A key of the map for what tests.firmware.frames.flow gives."""
    mapped = [address if ":" in address else f"::ffff:{address}" for address in flow[:2]]
    return dict(zip(("saddr", "daddr", "sport", "dport", "protocol"), (*mapped, *flow[2:]), strict=True))


def flow_of(key: dict) -> tuple:
    addresses = [ip_address(key[name]) for name in ("saddr", "daddr")]
    plain = [str(address.ipv4_mapped or address) for address in addresses]
    return (*plain, key["sport"], key["dport"], key["protocol"])


def test_the_flows_of_the_sample_capture(nic, arrivals):
    start(nic, "flows", opened("flows"), [])
    left = nic.run(arrivals).departures
    assert sorted(departure.data for departure in left) == sorted(arrival.data for arrival in arrivals)
    packets = Counter(flow(arrival.data) for arrival in arrivals)
    sizes = Counter()
    for arrival in arrivals:
        sizes[flow(arrival.data)] += len(arrival.data)
    del packets[None]
    found = {flow_of(key): value for key, value in nic.maps["flows"].lookup_batch()}
    assert {one: (value["packets"], value["bytes"]) for one, value in found.items()} == {
        one: (packets[one], sizes[one]) for one in packets
    }
    assert all(value["last"] == value["first"] for value in found.values() if value["packets"] == 1)


def test_first_and_last(nic):
    """In nanoseconds, on the clock that goes on while no packet runs."""
    start(nic, "flows", opened("flows"), [])
    frame = ethernet(IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=1, dport=2))
    gap = 3_000_000
    if nic.device.name == "linux":  # which runs packets as they come
        for _ in range(3):
            nic.run([Arrival(0, frame)])
            time.sleep(gap / 1e9)
    else:
        nic.run([Arrival(0, frame, gap * number) for number in range(3)], Pacing(back_to_back=False))
    (value,) = (value for _, value in nic.maps["flows"].lookup_batch())
    took = value["last"] - value["first"]
    assert (value["packets"], value["bytes"]) == (3, 3 * len(frame))
    if nic.device.name == "rtl":
        assert abs(took - 2 * gap) < 10_000
    elif nic.device.name == "linux":
        assert took >= 2 * gap
    else:
        assert took >= 0  # golden alone has no clocks


def udp(number: int) -> bytes:
    return ethernet(IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=number, dport=9))


def test_packets_of_a_new_flow_at_once_are_none_lost(nic):
    start(nic, "flows", opened("flows"), [])
    nic.run([Arrival(number % 2, udp(number // 40)) for number in range(400)])
    assert {flow_of(key)[2]: value["packets"] for key, value in nic.maps["flows"].lookup_batch()} == dict.fromkeys(
        range(10), 40
    )


def test_a_full_table_forgets_what_was_not_seen_for_long(nic):
    """A flow that goes on is kept, by exact NICs; a new one is there in any case."""
    object = opened("flows")
    object.maps["flows"] = replace(object.maps["flows"], max_entries=64)
    start(nic, "flows", object, [])
    for number in range(1, 200):
        nic.run([Arrival(0, udp(0)), Arrival(0, udp(number))], Pacing(flows_apart=True))
        assert nic.maps["flows"][key(flow(udp(number)))]["packets"] == 1
    assert len(nic.maps["flows"]) <= 64
    if nic.device.name != "linux":
        assert {flow_of(key)[2] for key, _ in nic.maps["flows"].lookup_batch()} == {0, *range(137, 200)}
        assert nic.maps["flows"][key(flow(udp(0)))]["packets"] == 199
