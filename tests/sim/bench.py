"""A NIC at its registers (sim/bare.py), in the two sizes that these tests build.

`agreement` is the comparison that the other tests are built on: the reference goes along with a device.
"""

from collections.abc import Sequence

from bpfnic.host import check, lockstep
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
    device: Bench, reference: Bench, arrivals: Sequence[Arrival], pacing: Pacing = Pacing(), memory: int = 1024
) -> tuple[Traffic, Difference | None, str]:
    """Runs frames on a device with the reference at its side, which must stand as the device does (programs, maps,
    counters). What the device did, the first difference in packets, counters or the first `memory` bytes of map memory,
    and what lockstep says of the first instruction that differs; then there is nothing else."""
    outcome = lockstep.run(device.device, reference.device, arrivals, pacing)
    if outcome.actual is None:
        return Traffic([], []), None, str(outcome.difference)
    actual = outcome.actual
    numbers = check.replayable(arrivals, actual, device.room)
    expected = outcome.follower.end(numbers)
    for number, wanted in zip(numbers, expected.packets, strict=True):
        assert actual.packets[number].instructions == wanted.instructions, f"instructions of packet {number}"
    evidence = [
        Evidence(bench.transport.name, bench.device.capabilities, traffic, bench.counters(),
                 {"memory": {b"": [bench.memory(0, memory)]}})
        for bench, traffic in ((device, actual), (reference, expected))
    ]  # fmt: skip
    return actual, check.compare(*evidence, arrivals, numbers, pacing), ""
