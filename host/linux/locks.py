"""What the kernel asks to know of a map whose values have a spin lock: BTF of its keys and values (map_check_btf() in
kernel/bpf/syscall.c). It doesn't need what else is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpfnic.host.btf import Kind, Part, Type
from bpfnic.host.btf.encode import encode
from bpfnic.spec.maps import LOCK_BYTES, MapType

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition

_INT_TYPE, _LOCK_TYPE, _KEY_TYPE, VALUE_TYPE = range(1, 5)


def key_type(definition: MapDefinition) -> int:
    """The type of the keys: an array's are numbers."""
    return _INT_TYPE if definition.type is MapType.ARRAY else _KEY_TYPE


def btf(definition: MapDefinition, lock: int) -> bytes:
    """Type information for a map with a spin lock at byte `lock` of its values."""
    return encode([
        Type(_INT_TYPE, Kind.INT, "int", 4, detail=32),
        Type(_LOCK_TYPE, Kind.STRUCT, "bpf_spin_lock", LOCK_BYTES, parts=(Part("value", _INT_TYPE),)),
        Type(_KEY_TYPE, Kind.STRUCT, "key", definition.key_size),
        Type(VALUE_TYPE, Kind.STRUCT, "value", definition.value_size, parts=(Part("lock", _LOCK_TYPE, 8 * lock),)),
    ])  # fmt: skip
