"""A NIC at its registers, for what no loader would let through: programs are put into the store as they are, and map
memory is read and written as bytes."""

import random
from collections.abc import Sequence
from typing import Self

from bpfnic.host.device import Arrival, OnStep, Pacing, Recording, Traffic, Transport
from bpfnic.host.driver import RegisterDevice
from bpfnic.spec import registers
from bpfnic.spec.addresses import HEADROOM
from bpfnic.spec.maps import MapType


class BareNic:
    """`device`: the driver on the transport; its maps and programs stay unused. `room`: the longest frame in bytes."""

    def __init__(self, transport: Transport):
        self.transport = transport
        same_each_time = random.Random(0).getrandbits  # what comes of a seed comes of it again
        self.device = RegisterDevice(transport, random_bits=same_each_time)
        self.room = self.device.capabilities.buffer_bytes - HEADROOM

    def __enter__(self) -> Self:
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
        self._stream("PROGRAM_DATA", code)

    def attach(self, slot: int, interfaces: Sequence[int] = (0, 1)) -> None:
        """Run the program at `slot` for frames of these interfaces."""
        for interface in interfaces:
            self.write("ENTRY", registers.ENTRY_VALID | slot, interface)

    def set_memory(self, offset: int, data: bytes) -> None:
        """Write map memory; offset and length are multiples of 4."""
        self.write("MAP_ADDRESS", offset)
        self._stream("MAP_DATA", data)

    def memory(self, offset: int, size: int) -> bytes:
        """Read map memory; offset and size are multiples of 4."""
        self.write("MAP_ADDRESS", offset)
        return b"".join(self.read("MAP_DATA").to_bytes(4, "little") for _ in range(0, size, 4))

    def array(self, index: int, base: int, entries: int, size: int, stride: int, cpu_stride: int = 0) -> None:
        """Make descriptor `index` an array of values of `size` bytes (with a `cpu_stride`: per CPU)."""
        kind = MapType.PERCPU_ARRAY if cpu_stride else MapType.ARRAY
        self.describe(index, kind, base, entries, size, stride, cpu_stride)

    def describe(
        self, index: int, kind: MapType, base: int, entries: int, size: int, stride: int, cpu_stride: int = 0,
        lock: int = 0
    ) -> None:
        """Make descriptor `index` a map; base, size and strides in bytes, `lock` as in register MAP_LOCK."""
        fields = {"TYPE": kind, "BASE": base, "ENTRIES": entries, "STRIDE": stride, "VALUE_SIZE": size,
                  "CPU_STRIDE": cpu_stride, "LOCK": lock}  # fmt: skip
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
        """As Device.run."""
        return self.device.run(arrivals, pacing, on_step, replay, retirements)

    def _stream(self, register: str, data: bytes) -> None:
        """Words to a register that goes on by itself."""
        write, address = self.transport.write, registers.BY_NAME[register].address()
        for at in range(0, len(data), 4):
            write(address, int.from_bytes(data[at : at + 4], "little"))
