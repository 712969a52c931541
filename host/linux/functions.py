"""What the kernel asks to know of callbacks, and of functions that a tail call or LD_ABS may end: BTF that says that
they are static and return an int (check_abnormal_return(), kernel/bpf/verifier.c). It doesn't need their names and
arguments."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_STRINGS = b"\0int\0function\0"
_INT, _FUNCTION = _STRINGS.index(b"int"), _STRINGS.index(b"function")
_KIND = 24  # where a type's kind stands in its second word; below it is the number of parts, or the linkage: static
# Types 1 to 3 as include/uapi/linux/btf.h lays them out: int, int (), a function of that type.
_TYPES = struct.pack("<4I 3I 3I", _INT, 1 << _KIND, 4, 1 << 24 | 32, 0, 13 << _KIND, 1, _FUNCTION, 12 << _KIND, 2)
_FUNCTION_TYPE = 3
_HEADER = struct.pack("<HBB 5I", 0xEB9F, 1, 0, 24, 0, len(_TYPES), len(_TYPES), len(_STRINGS))

BTF = _HEADER + _TYPES + _STRINGS
"""Type information with one function."""

RECORD_BYTES = 8


def records(starts: Sequence[int]) -> bytes:
    """`struct bpf_func_info` of each function, by the slots where functions start."""
    return b"".join(struct.pack("<2I", start, _FUNCTION_TYPE) for start in starts)
