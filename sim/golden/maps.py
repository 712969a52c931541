"""Maps in map memory, as the driver's descriptors lay them out, with the kernel's semantics (kernel/bpf/arraymap.c)."""

from dataclasses import dataclass
from errno import E2BIG, EEXIST, EINVAL

from bpfnic.sim.golden.interpreter import Suspending, Thread, Trap
from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause
from bpfnic.spec.maps import MapType, UpdateFlag

COPY_BYTES = 8
"""An update copies a value in steps of this many bytes, the lower addresses first; each is a shared access."""


@dataclass
class Descriptor:
    """One map (registers MAP_TYPE to MAP_CPU_STRIDE). Offsets and strides in bytes of map memory."""

    type: int = 0
    base: int = 0
    entries: int = 0
    stride: int = 0
    value_size: int = 0
    cpu_stride: int = 0


class Maps:
    """The maps of a device, as helpers see them: by handle, keys and values by address."""

    def __init__(self, descriptors: list[Descriptor]):
        self.descriptors = descriptors

    def lookup(self, thread: Thread, cpu: int, handle: int, key: int) -> Suspending:
        """bpf_map_lookup_elem: the address of the value, or 0. Raises Trap."""
        index = yield from _read(thread, key, 4)
        descriptor = self._find(handle)
        return self._value(descriptor, cpu, index) if index < descriptor.entries else 0

    def update(self, thread: Thread, cpu: int, handle: int, key: int, value: int, flags: int) -> Suspending:
        """bpf_map_update_elem: 0 or a negative error number. Raises Trap."""
        index = yield from _read(thread, key, 4)
        descriptor = self._find(handle)
        if flags > UpdateFlag.EXIST:
            return -EINVAL
        if index >= descriptor.entries:
            return -E2BIG
        if flags == UpdateFlag.NOEXIST:
            return -EEXIST
        target = self._value(descriptor, cpu, index)
        for done in range(0, descriptor.value_size, COPY_BYTES):
            size = min(COPY_BYTES, descriptor.value_size - done)
            chunk = yield from _read(thread, value + done, size)
            yield from thread.store(target + done, size, chunk)
        return 0

    def delete(self, thread: Thread, handle: int, key: int) -> Suspending:
        """bpf_map_delete_elem: arrays keep every entry. Raises Trap."""
        yield from _read(thread, key, 4)
        self._find(handle)
        return -EINVAL

    def _find(self, handle: int) -> Descriptor:
        index, rest = divmod(handle - addresses.MAP_HANDLES, 16)
        if rest or not 0 <= index < len(self.descriptors):
            raise Trap(Cause.MAP)
        descriptor = self.descriptors[index]
        if descriptor.type not in (MapType.ARRAY, MapType.PERCPU_ARRAY):
            raise Trap(Cause.MAP)
        return descriptor

    def _value(self, descriptor: Descriptor, cpu: int, index: int) -> int:
        offset = descriptor.base + descriptor.stride * index + descriptor.cpu_stride * cpu
        return addresses.MAP_VALUES + offset


def _read(thread: Thread, pointer: int, size: int) -> Suspending:
    """What a helper's argument points at: any alignment, in every window. Raises Trap MEMORY_ACCESS."""
    address = thread.effective_address(pointer, 0)
    if thread.memory.shared_parts(address, size):
        return (yield from thread.load(address, size))
    return thread.memory.load(address, size, aligned=False)
