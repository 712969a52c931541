"""A NIC at its registers, for tests of what no loader would let through: programs are put into the store as they are,
and map memory is read and written as bytes.

`agreement` is the comparison that the other tests are built on: the reference replays what a device recorded.
"""

from collections.abc import Sequence

from bpfnic.host import check
from bpfnic.host.check import Difference, Evidence
from bpfnic.host.device import Arrival, DeviceOptions, OnStep, Pacing, Recording, Traffic
from bpfnic.host.driver import RegisterDevice
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.sim.rtl.device import RtlTransport
from bpfnic.spec import registers
from bpfnic.spec.addresses import HEADROOM
from bpfnic.spec.maps import MapType

ONE_CORE = {"cores": 1, "threads": 16}
TWO_CORES = {"cores": 2, "threads": 8}
"""The two sizes that these tests build: each is compiled once, and its library is shared by all of them."""

TRANSPORTS = {"golden": GoldenTransport, "rtl": RtlTransport}


class Bench:
    """A device of one of the two sizes. `device`: the driver on it; its maps and programs stay unused."""

    def __init__(self, backend: str, **size: int):
        self.transport = TRANSPORTS[backend](DeviceOptions(**size))
        self.device = RegisterDevice(self.transport)
        self.room = self.device.capabilities.buffer_bytes - HEADROOM

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_: object) -> None:
        self.device.close()

    def read(self, name: str, index: int = 0) -> int:
        return self.transport.read(registers.BY_NAME[name].address(index))

    def write(self, name: str, value: int, index: int = 0) -> None:
        self.transport.write(registers.BY_NAME[name].address(index), value)

    def load(self, code: bytes, slot: int = 0) -> None:
        """Put program text at a slot."""
        self.write("PROGRAM_ADDRESS", 2 * slot)
        for at in range(0, len(code), 4):
            self.write("PROGRAM_DATA", int.from_bytes(code[at : at + 4], "little"))

    def attach(self, slot: int, interfaces: Sequence[int] = (0, 1)) -> None:
        """Run the program at `slot` for frames of these interfaces."""
        for interface in interfaces:
            self.write("ENTRY", registers.ENTRY_VALID | slot, interface)

    def set_memory(self, offset: int, data: bytes) -> None:
        """Write map memory; offset and length are multiples of 4."""
        self.write("MAP_ADDRESS", offset)
        for at in range(0, len(data), 4):
            self.write("MAP_DATA", int.from_bytes(data[at : at + 4], "little"))

    def memory(self, offset: int, size: int) -> bytes:
        """Read map memory; offset and size are multiples of 4."""
        self.write("MAP_ADDRESS", offset)
        return b"".join(self.read("MAP_DATA").to_bytes(4, "little") for _ in range(0, size, 4))

    def array(self, index: int, base: int, entries: int, size: int, stride: int, cpu_stride: int = 0) -> None:
        """Make descriptor `index` an array of values of `size` bytes (with a `cpu_stride`: per CPU)."""
        kind = MapType.PERCPU_ARRAY if cpu_stride else MapType.ARRAY
        fields = {"TYPE": kind, "BASE": base, "ENTRIES": entries, "STRIDE": stride, "VALUE_SIZE": size,
                  "CPU_STRIDE": cpu_stride}  # fmt: skip
        for name, value in fields.items():
            self.write(f"MAP_{name}", value)
        self.write("MAP_COMMIT", index)

    def run(
        self,
        arrivals: Sequence[Arrival],
        pacing: Pacing = Pacing(),
        on_step: OnStep | None = None,
        replay: Recording | None = None,
        retirements: bool = False,
    ) -> Traffic:
        return self.device.run(arrivals, pacing, on_step, replay, retirements)

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

