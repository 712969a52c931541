"""DEVMAP, DEVMAP_HASH, CPUMAP and XSKMAP: where bpf_redirect_map sends packets. The host alone writes them.

A DEVMAP's value is the ifindex of a port (4 bytes, or `struct bpf_devmap_val`), and so is a DEVMAP_HASH's, whose index
is any number. A CPUMAP's is the length of a queue (4 bytes, or `struct bpf_cpumap_val`), an XSKMAP's a socket, for
which on a NIC the number of its queue stands: both lead to the host, to the queue that the index says. Programs that
run once more for an entry are refused.
"""

import re
import struct
from collections.abc import Sequence
from errno import E2BIG, EEXIST, EINVAL, ENODEV, ENOENT, EOVERFLOW
from typing import TYPE_CHECKING

from bpfnic.host import listing
from bpfnic.host.device import DeviceMap, error
from bpfnic.spec import helpers, isa
from bpfnic.spec.addresses import INDEX_BYTES
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.isa import Legal, Operation
from bpfnic.spec.maps import DEVMAPS, HOST_QUEUES, MapType, RedirectFlag, UpdateFlag

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition
    from bpfnic.host.object import Program

_CALL = helpers.BY_NAME["redirect_map"].number
_FLAGS_REGISTER = 3
_LONGEST_QUEUE = 16384
_LEAVES_THE_LINE = (Operation.JA, Operation.EXIT, Operation.CALL_LOCAL, Operation.CALL_HELPER, Operation.CALLX)
_PORT = re.compile(rb"port(\d+)")


class RedirectMap(DeviceMap):
    """Entries by index, a u32. A value that isn't as long as the map's is the name of a port, "port1": `update` takes
    it, and `dump`, which has the entries that are there alone, gives it.

    `ifindexes`: of the device's ports, as they are now."""

    ifindexes: Sequence[int]

    def kernels(self, values: Sequence[bytes]) -> bytes:
        """The value as the kernel has it. Raises OSError EINVAL: no such port, no such size."""
        (value,) = values
        size = self.definition.value_size
        if len(value) == size:
            return value
        named = _PORT.fullmatch(value) if self.definition.type in DEVMAPS else None
        if not named:
            raise OSError(EINVAL, f"{self.definition.name}: a value has {size} bytes, not {len(value)}")
        if int(named[1]) >= len(self.ifindexes):
            raise OSError(EINVAL, f"{self.definition.name}: there is no {value.decode()}")
        return self.of_port(int(named[1]))

    def target(self, index: int, value: bytes, flags: int, taken: bool) -> int | None:
        """The number of the port or queue that an update of entry `index` leads to, None where it empties it. `taken`:
        it has one; whether a DEVMAP_HASH is full, the device knows. Raises OSError as the kernel's update, and EINVAL
        for what no NIC does."""
        name, kind = self.definition.name, self.definition.type
        if flags > UpdateFlag.EXIST:
            raise error(EINVAL)
        first, program = struct.unpack("<Ii", value.ljust(8, b"\0"))
        if kind is MapType.DEVMAP_HASH:
            if not first:
                raise error(EINVAL)
        elif index >= self.definition.max_entries:
            raise error(E2BIG)
        if kind is MapType.XSKMAP:
            if index >= HOST_QUEUES:
                raise error(ENODEV)
            if first != index:
                raise OSError(EINVAL, f"{name}: the socket of queue {first} can't be at {index}")
            if taken and flags == UpdateFlag.NOEXIST:
                raise error(EEXIST)
            if not taken and flags == UpdateFlag.EXIST:
                raise error(ENOENT)
            return index
        if flags == UpdateFlag.NOEXIST and (taken or kind is not MapType.DEVMAP_HASH):
            raise error(EEXIST)
        if kind is MapType.CPUMAP and first > _LONGEST_QUEUE:
            raise error(EOVERFLOW)
        if kind is MapType.CPUMAP and index >= HOST_QUEUES:
            raise error(ENODEV)
        if kind in DEVMAPS and first and first not in self.ifindexes:
            raise OSError(EINVAL, f"{name}: no port has ifindex {first}")
        if program > 0:
            raise OSError(EINVAL, f"{name}: per-entry programs are not supported")
        if not first:
            return None
        return self.ifindexes.index(first) if kind in DEVMAPS else index

    def of_port(self, port: int) -> bytes:
        """A DEVMAP's value for a port."""
        return self.ifindexes[port].to_bytes(self.definition.value_size, "little")

    def shown(self, number: int, value: bytes) -> bytes:
        """A value as `dump` has it, for the port or queue that it leads to."""
        return b"port%d" % number if self.definition.type in DEVMAPS else value


def check(definition: "MapDefinition") -> None:
    """Raises BpfnicError for a redirect map whose keys or values have a size that the kernel doesn't know."""
    name = f"map {definition.name} ({definition.type.name})"
    if definition.key_size != INDEX_BYTES:
        raise BpfnicError(f"{name}: a key has {INDEX_BYTES} bytes, not {definition.key_size}")
    sizes = (4,) if definition.type is MapType.XSKMAP else (4, 8)
    if definition.value_size not in sizes:
        told = f"a value has {' or '.join(map(str, sizes))} bytes, not {definition.value_size}"
        raise BpfnicError(f"{name}: {told}")


_CALL_HELPER = (isa.BY_NAME["call_helper"].opcode, isa.BY_NAME["call_helper"].src)


def refuse_broadcast(program: "Program") -> None:
    """Raises BpfnicError where a program is seen to call bpf_redirect_map with BPF_F_BROADCAST, which no NIC knows: a
    packet leaves once. (Flags that can't be seen here get XDP_ABORTED when it runs.)"""
    image = program.instructions
    for slot, instruction in enumerate(image):
        if instruction is None or (instruction.opcode, instruction.src) != _CALL_HELPER:
            continue
        if instruction.imm == _CALL and (_constant(program, slot) or 0) & RedirectFlag.BROADCAST:
            where = f"{listing.instruction(program, slot)} {listing.source(program, slot)}".rstrip()
            why = "bpf_redirect_map with BPF_F_BROADCAST: a packet of a NIC leaves once"
            raise BpfnicError(f"program {program.name}: {why} ({where})")


def _constant(program: "Program", slot: int) -> int | None:
    """The flags of the call at `slot` where the straight line before it sets them to a constant."""
    for instruction in reversed(program.instructions[:slot]):
        if instruction is None:
            continue
        row = isa.find(instruction)
        if row.operation is Operation.MOV and not row.register_operand and instruction.dst == _FLAGS_REGISTER:
            return instruction.imm
        writes = row.dst is Legal.WRITTEN and instruction.dst == _FLAGS_REGISTER
        if writes or row.operation in _LEAVES_THE_LINE:
            return None
    return None
