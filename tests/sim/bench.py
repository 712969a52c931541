"""A NIC at its registers (sim/bare.py), in the two sizes that these tests build.

`agreement` is the comparison that the other tests are built on: the reference replays what a device recorded.
"""

from collections.abc import Sequence

from bpfnic.host import check
from bpfnic.host.check import Difference, Evidence
from bpfnic.host.device import Arrival, DeviceOptions, Pacing, Traffic
from bpfnic.sim.bare import BareNic
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.sim.rtl.device import RtlTransport

ONE_CORE = {"cores": 1, "threads": 16}
TWO_CORES = {"cores": 2, "threads": 8}
"""The two sizes that these tests build: each is compiled once, and its library is shared by all of them."""

TRANSPORTS = {"golden": GoldenTransport, "rtl": RtlTransport}


class Bench(BareNic):
    """A device of one of the two sizes."""

    def __init__(self, backend: str, **size: int):
        super().__init__(TRANSPORTS[backend](DeviceOptions(**size)))

    def counters(self) -> dict[str, int | list[int]]:
        """Counters by name; raises AssertionError where those of an interface don't balance."""
        counters = self.device.counters()
        for interface in range(self.device.interfaces):
            ended = sum(counters[name][interface] for name in ENDS)
            assert counters["RECEIVED"][interface] == ended, f"interface {interface}: {counters}"
        assert sum(counters["CAUSES"]) == sum(counters["ABORTED"])
        return counters

ENDS = ("DROPPED", "PASSED", "TRANSMITTED", "REDIRECTED", "ABORTED", "REFUSED_FULL", "REFUSED_LONG", "REFUSED_ERROR",
        "IN_FLIGHT")  # fmt: skip


def agreement(
    device: Bench,
    reference: Bench,
    arrivals: Sequence[Arrival],
    pacing: Pacing = Pacing(),
    memory: int = 1024,
    retirements: bool = True,
) -> tuple[Traffic, Difference | None, str]:
    """Runs frames on a device and replays them on the reference, which must stand as the device does (programs, maps,
    counters). What the device did, the first difference in packets, counters or the first `memory` bytes of map memory,
    and, with `retirements`, the first two instructions that differ."""
    actual = device.run(arrivals, pacing, retirements=retirements)
    numbers = check.replayable(arrivals, actual, device.room)
    assert actual.recording
    replay = check.part_of(actual.recording, numbers)
    expected = reference.run([arrivals[n] for n in numbers], pacing, replay=replay, retirements=retirements)
    for number, wanted in zip(numbers, expected.packets, strict=True):
        assert actual.packets[number].instructions == wanted.instructions, f"instructions of packet {number}"
    evidence = [
        Evidence(bench.transport.name, bench.device.capabilities, traffic, bench.counters(),
                 {"memory": {b"": [bench.memory(0, memory)]}})
        for bench, traffic in ((device, actual), (reference, expected))
    ]
    difference = check.compare(*evidence, arrivals, numbers, pacing)
    parting = ""
    if retirements:
        theirs = [retired._replace(arrival=numbers[retired.arrival]) for retired in expected.retirements or []]
        pair = check.where_it_began(Difference("", "", ""), actual.retirements or [], theirs, numbers)
        parting = "" if pair is None else f"{device.transport.name} {pair[0]}, {reference.transport.name} {pair[1]}"
    return actual, difference, parting

