"""How many register accesses the host needs for an entry of a map."""

from collections.abc import Callable

from bpfnic.host.device import DeviceOptions
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.maps import MapDefinition
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.spec.maps import MapType

KEY, VALUE, ENTRIES = 4, 8, 1000


class CountingTransport(GoldenTransport):
    """Counts. What the driver reads and writes is the same on every NIC."""

    def __init__(self, options: DeviceOptions):
        super().__init__(options)
        self.accesses = 0
        read, write = self.read, self.write

        def counted_read(address: int) -> int:
            self.accesses += 1
            return read(address)

        def counted_write(address: int, value: int) -> None:
            self.accesses += 1
            write(address, value)

        self.read, self.write = counted_read, counted_write


def measure() -> dict[str, float]:
    """Accesses an entry of a HASH with keys of 4 bytes and values of 8, by operation."""
    transport = CountingTransport(DeviceOptions())
    device = RegisterDevice(transport)
    table = device.create_map(MapDefinition("table", MapType.HASH, KEY, VALUE, ENTRIES))
    keys = [number.to_bytes(KEY, "little") for number in range(ENTRIES)]
    entries = [(key, [bytes(VALUE)]) for key in keys]
    operations: dict[str, Callable[[], object]] = {
        "update_batch": lambda: table.update_batch(entries),
        "lookup_batch (all entries)": table.dump,
        "delete_batch": lambda: table.delete_batch(keys),
        "update": lambda: [table.update(*entry) for entry in entries],
        "lookup": lambda: [table.lookup(key) for key in keys],
        "delete": lambda: [table.delete(key) for key in keys],
    }
    found = {}
    for name, operation in operations.items():
        before = transport.accesses
        operation()
        found[name] = (transport.accesses - before) / ENTRIES
    return found
