"""firmware/programs/sampler.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

from collections import Counter
from dataclasses import replace

import pytest

from bpfnic.host.device import Arrival, Pacing
from tests.firmware.shipped import opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

HEAD = 64
GAP = 30_000
"""Nanoseconds between packets, in which one is through."""


def sample(arrival: Arrival) -> tuple[int, int, bytes]:
    """What a record says of a packet, but for its time."""
    return arrival.interface + 1, len(arrival.data), arrival.data[:HEAD].ljust(HEAD, b"\0")


def records(nic) -> list[tuple[int, tuple[int, int, bytes]]]:
    """Those that have come: time, and the rest."""
    found = nic.maps["samples"].of("sample")
    return [(one["time"], (one["ifindex"], one["length"], bytes(one["head"]))) for one in found]


@pytest.mark.parametrize("one_in", [1, 16, 419])
def test_every_so_manyth_packet(nic, arrivals, one_in):
    """One packet after the other: it is known which."""
    object = opened("sampler")
    object.rodata["one_in"] = one_in
    start(nic, "sampler", object, [])
    apart = [Arrival(arrival.interface, arrival.data, GAP * number) for number, arrival in enumerate(arrivals)]
    traffic = nic.run(apart, Pacing(back_to_back=False))
    assert [(packet.action.name, packet.data) for packet in traffic.packets] == [
        ("XDP_PASS", arrival.data) for arrival in arrivals
    ]
    found = records(nic)
    assert [rest for _, rest in found] == [sample(arrival) for arrival in apart[::one_in]]
    times = [time for time, _ in found]
    assert times == sorted(times)
    if nic.device.name == "rtl":
        for time, arrival in zip(times, apart[::one_in], strict=True):
            assert abs(time - times[0] - arrival.time_ns) < GAP / 2
    assert dict(nic.maps[".bss"]) == {"packets": len(arrivals), "lost": 0}
    assert records(nic) == []


@pytest.mark.parametrize("one_in", [1, 7])
def test_all_cpus_at_once(nic, arrivals, one_in):
    """Whichever packets they are: so many whole records, no packet's twice; what finds no room is counted."""
    object = opened("sampler")
    object.rodata["one_in"] = one_in
    start(nic, "sampler", object, [])
    frames = [replace(arrival, data=arrival.data[:12] + number.to_bytes(2, "big") + arrival.data[14:])
              for number, arrival in enumerate(arrivals)]  # fmt: skip
    nic.run(frames)
    found = Counter(rest for _, rest in records(nic))
    assert sum(found.values()) + nic.maps[".bss"]["lost"] == -(-len(arrivals) // one_in)
    assert found <= Counter(map(sample, frames))
    assert nic.maps[".bss"]["packets"] == len(arrivals)
