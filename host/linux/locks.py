"""What the kernel asks to know of a map whose values have a spin lock: BTF of its keys and values (map_check_btf() in
kernel/bpf/syscall.c). It doesn't need what else is in them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from bpfnic.spec.maps import LOCK_BYTES, MapType

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition

_STRINGS = b"\0int\0key\0value\0lock\0bpf_spin_lock\0"
_INT, _KEY, _VALUE, _LOCK, _SPIN_LOCK = (_STRINGS.index(name + b"\0") for name in _STRINGS.split(b"\0")[1:-1])
_KIND = 24  # where a type's kind stands in its second word; below it is the number of members
_INT_TYPE, _LOCK_TYPE, _KEY_TYPE, VALUE_TYPE = range(1, 5)


def key_type(definition: MapDefinition) -> int:
    """The type of the keys: an array's are numbers."""
    return _INT_TYPE if definition.type is MapType.ARRAY else _KEY_TYPE


def btf(definition: MapDefinition, lock: int) -> bytes:
    """Type information for a map with a spin lock at byte `lock` of its values."""
    structure = 4 << _KIND
    types = struct.pack("<4I", _INT, 1 << _KIND, 4, 32)
    types += struct.pack("<6I", _SPIN_LOCK, structure | 1, LOCK_BYTES, _VALUE, _INT_TYPE, 0)
    types += struct.pack("<3I", _KEY, structure, definition.key_size)
    types += struct.pack("<6I", _VALUE, structure | 1, definition.value_size, _LOCK, _LOCK_TYPE, 8 * lock)
    return struct.pack("<HBB 5I", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(_STRINGS)) + types + _STRINGS
