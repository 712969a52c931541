"""The compiled NIC as a Python object: a thin layer over harness.h."""

import struct
from collections.abc import Iterator
from functools import cache as once
from pathlib import Path

import cffi

from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.rings import HEADER_BYTES, unpack_header

HEADER = Path(__file__).with_name("harness.h")
_EVENT = struct.Struct("=QQqIIIBBBB")  # nic_event


@once
def _interface() -> cffi.FFI:
    ffi = cffi.FFI()
    ffi.cdef(HEADER.read_text())
    return ffi


class Simulation:
    """A NIC in reset's clean state. Attribute `records` names of harness.h's structures are used as they are.

    Parameters
    ----------
    library : nic.so of `build.library`.
    waves : FST file to write, for a library built with waves. Raises BpfnicError where it can't be written.
    """

    def __init__(self, library: Path, waves: Path | None = None):
        self._ffi = _interface()
        self._library = self._ffi.dlopen(str(library))
        if waves is not None:
            try:
                waves.open("wb").close()
            except OSError as error:
                raise BpfnicError(f"{waves}: {error.strerror}") from None
        self._nic = self._library.nic_open(self._ffi.NULL if waves is None else str(waves).encode())
        if self._nic == self._ffi.NULL:
            raise BpfnicError(f"{library}: built without waves")

    def close(self) -> None:
        """Give the memory back and finish the waves."""
        if self._nic is not None:
            self._library.nic_close(self._nic)
        self._nic = None

    # ---------------------------------------------------------------- registers

    def read(self, address: int) -> int:
        """AXI4-Lite read. Raises BpfnicError for an address that answers with an error or not at all."""
        value = self._ffi.new("uint32_t *")
        self._answered(self._library.nic_read(self._nic, address, value), "read", address)
        return value[0]

    def write(self, address: int, value: int) -> None:
        """AXI4-Lite write. Raises BpfnicError for an address that answers with an error or not at all."""
        self._answered(self._library.nic_write(self._nic, address, value), "write", address)

    @staticmethod
    def _answered(response: int, what: str, address: int) -> None:
        if response < 0:
            raise BpfnicError(f"{what} of register 0x{address:03x}: no answer")
        if response:
            raise BpfnicError(f"{what} of register 0x{address:03x}: the NIC has no such register")

    # ---------------------------------------------------------------- traffic

    def set_clock_ns(self, nanoseconds: int) -> None:
        """What register CLOCK_NS holds: the time that a skipped clock adds."""
        self._library.nic_clock_ns(self._nic, nanoseconds)

    def set_watchdog(self, clocks: int) -> None:
        """Clocks without any movement after which a run is given up."""
        self._library.nic_watchdog(self._nic, clocks)

    def keep_events(self, keep: bool, observed: bool = False) -> None:
        """Whether to record what happens instruction by instruction. observed: `events` are taken while the NIC runs,
        and `samples` and `shared` are not recorded."""
        self._library.nic_keep_events(self._nic, keep, observed)

    def pace_ingress(self, interface: int, percent: int = 0, every: int = 0, seed: int = 1) -> None:
        """Clocks in which a source is idle: at random, `percent` of them, and each `every`-th."""
        self._library.nic_pace_ingress(self._nic, interface, percent, every, seed)

    def pace_egress(self, interface: int, percent: int = 0, every: int = 0, seed: int = 1) -> None:
        """Clocks in which a sink is not ready."""
        self._library.nic_pace_egress(self._nic, interface, percent, every, seed)

    def offer(self, ingress: int, data: bytes, clock: int = 0, user: int = 0) -> None:
        """Queue a frame: it enters at `clock` or later, behind the others of its ingress. user: bit 0 bad, host:
        bits 3..1 egress."""
        if not data:
            raise BpfnicError("a frame of 0 bytes can't be offered")
        self._library.nic_offer(self._nic, ingress, clock, user, data, len(data))

    def run(self, clocks: int = 1 << 63) -> bool:
        """Run until every offered frame is done (True) or clocks are up (False).

        Raises BpfnicError when nothing moves any more, or when the NIC broke a rule of AXI4-Stream or of its trace.
        """
        status = self._library.nic_run(self._nic, clocks)
        if status in (self._library.NIC_STUCK, self._library.NIC_BROKEN):
            raise BpfnicError(self._ffi.string(self._library.nic_error(self._nic)).decode())
        return status == self._library.NIC_DONE

    # ---------------------------------------------------------------- records

    def counts(self):
        """nic_counts."""
        return self._library.nic_count(self._nic)

    def packets(self):
        """nic_packet of every frame offered since `forget`, in the order of the offers, then of the clones."""
        return self._array("nic_packet", self._library.nic_packets)

    def executions(self):
        """nic_execution of every program that ran, in the order in which they began."""
        return self._array("nic_execution", self._library.nic_executions)

    def data(self) -> bytes:
        """Bytes that left; `data_offset` of a packet counts from its start."""
        return self._bytes(self._library.nic_data)

    def _bytes(self, call) -> bytes:
        first = self._ffi.new("const uint8_t **")
        length = call(self._nic, first)
        return bytes(self._ffi.buffer(first[0], length)) if length else b""

    def samples(self):
        """nic_sample: values no program can compute, in the order of their retirement."""
        return self._array("nic_sample", self._library.nic_samples)

    def records(self) -> Iterator[bytes]:
        """Frames of records (spec.rings) that left since they were last taken, in their order."""
        data = self._bytes(self._library.nic_records)
        self._library.nic_forget_records(self._nic)
        while data:
            end = HEADER_BYTES + unpack_header(data).length
            yield data[:end]
            data = data[end:]

    def shared(self):
        """nic_shared: accesses to map memory, in the order of their serial numbers."""
        return self._array("nic_shared", self._library.nic_shared_accesses)

    def events(self) -> Iterator[tuple]:
        """What happened since `forget_events`, where kept: tuples of the fields of host.lockstep.Event. To be used up
        before the NIC runs on."""
        first = self._ffi.new("const nic_event **")
        length = self._library.nic_events(self._nic, first)
        return _EVENT.iter_unpack(self._ffi.buffer(first[0], length * _EVENT.size)) if length else iter(())

    def forget_events(self) -> None:
        """Drop the events alone."""
        self._library.nic_forget_events(self._nic)

    def forget(self) -> None:
        """Drop all records. Only when the last run was done."""
        self._library.nic_forget(self._nic)

    def _array(self, kind: str, call):
        first = self._ffi.new(f"const {kind} **")
        length = call(self._nic, first)
        return self._ffi.unpack(first[0], length) if length else []
