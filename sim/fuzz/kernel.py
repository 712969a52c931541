"""The golden model against the running kernel: programs that its verifier accepts, run by BPF_PROG_TEST_RUN, a packet
after the other on one CPU. r0 to r5 (the program leaves them in the packet), frame and map must come out alike."""

import os
from collections.abc import Sequence
from dataclasses import replace

from bpfnic.host.device import DeviceOptions, Retirement
from bpfnic.host.linux import bpf
from bpfnic.sim.bare import BareNic
from bpfnic.sim.fuzz import world
from bpfnic.sim.fuzz.compare import Case, Parting
from bpfnic.sim.fuzz.friendly import ENTRIES, VALUE_BYTES
from bpfnic.sim.fuzz.program import Program
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.sim.golden.interpreter import Code
from bpfnic.spec import isa
from bpfnic.spec.instruction import encode
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import ProgramType, XdpAction

_MAP_FD = isa.BY_NAME["lddw_map_fd"]
_PAGE = 4096
BUDGET = 1 << 20


class KernelRefused(Exception):
    """The verifier did not accept a program."""


class Judge:
    """The golden model, with every row whatever the hardware has, and the kernel; a map of their own for each."""

    def __init__(self) -> None:
        transport = GoldenTransport(DeviceOptions(threads=8, buffer_bytes=_PAGE))
        nic = transport.nic
        nic.code = Code(nic.size.program_slots)
        self.golden = BareNic(transport)
        self.golden.array(0, 0, ENTRIES, VALUE_BYTES, VALUE_BYTES)
        self.golden.write("BUDGET", BUDGET)
        self.map = bpf.map_create(MapType.ARRAY, 4, VALUE_BYTES, ENTRIES)

    def close(self) -> None:
        self.golden.device.close()
        os.close(self.map)

    def fails(self, case: Case) -> Parting | None:
        """The first difference; none for a program that the kernel refuses."""
        try:
            return self.run(case)
        except KernelRefused:
            return None

    def run(self, case: Case) -> Parting | None:
        """The first difference. Raises KernelRefused."""
        (program,) = case.programs
        try:
            fd, _ = bpf.prog_load(ProgramType.XDP, _linked(program, _MAP_FD.src, self.map))
        except OSError as refused:
            raise KernelRefused from refused
        try:
            return self._compare(case, fd)
        finally:
            os.close(fd)

    def _compare(self, case: Case, fd: int) -> Parting | None:
        self._prepare(case)
        for key in range(ENTRIES):
            value = case.memory[key * VALUE_BYTES :][:VALUE_BYTES]
            bpf.map_update(self.map, key.to_bytes(4, "little"), value)
        for number, arrival in enumerate(case.frames):
            (golden,) = self.golden.run([arrival]).packets
            kernel = bpf.prog_test_run(fd, arrival.data, room=_PAGE)
            if golden.verdict != kernel.value:
                what = golden.cause.name if golden.verdict is None else f"verdict {golden.verdict:#x}"
                return Parting(f"packet {number}: kernel verdict {kernel.value:#x}, golden {what}", number)
            if golden.action is XdpAction.XDP_PASS and golden.data != kernel.data:
                return Parting(f"packet {number}: {_first(kernel.data, golden.data or b'')}", number)
            if difference := self._map_difference():
                return Parting(f"packet {number}: {difference}", number)
        return None

    def _prepare(self, case: Case) -> None:
        self.golden.load(_linked(case.programs[0], 0, world.handle(0)))
        self.golden.attach(0, [0])
        self.golden.set_memory(0, case.memory[: ENTRIES * VALUE_BYTES])

    def _map_difference(self) -> str | None:
        golden = self.golden.memory(0, ENTRIES * VALUE_BYTES)
        kernel = b"".join(bpf.map_lookup(self.map, key.to_bytes(4, "little"), VALUE_BYTES) for key in range(ENTRIES))
        return None if golden == kernel else f"map, {_first(kernel, golden)}"

    def memory_after(self, case: Case) -> bytes:
        """Map memory behind a run on the golden model alone; what the map doesn't have stays."""
        self._prepare(case)
        self.golden.run(case.frames)
        used = ENTRIES * VALUE_BYTES
        return self.golden.memory(0, used) + case.memory[used:]

    def trace(self, case: Case) -> Sequence[Retirement]:
        """The golden model's own retired instructions."""
        self._prepare(case)
        return self.golden.run(case.frames, retirements=True).retirements or []


def _first(kernel: bytes, golden: bytes) -> str:
    if len(kernel) != len(golden):
        return f"length: kernel {len(kernel)}, golden {len(golden)}"
    at = next(at for at, pair in enumerate(zip(kernel, golden, strict=True)) if pair[0] != pair[1])
    return f"byte {at}: kernel 0x{kernel[at]:02x}, golden 0x{golden[at]:02x}"


def _linked(program: Program, src: int, number: int) -> bytes:
    """Program text with its map named: a file descriptor, or a handle as a plain constant."""
    return encode(
        replace(one, src=src, imm=number) if (one.opcode, one.src) == (_MAP_FD.opcode, _MAP_FD.src) else one
        for one in program.instructions()
    )
