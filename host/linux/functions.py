"""What the kernel asks to know of functions: BTF, and which type each has. It needs that for callbacks, for functions
that a tail call or LD_ABS may end (check_abnormal_return(), kernel/bpf/verifier.c), and to verify global functions. And
which line of the source an instruction is from, which its log shows."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bpfnic.host.btf import VOID, Kind, Type
from bpfnic.host.btf.encode import Strings, encode
from bpfnic.host.btf.merge import renumbered
from bpfnic.host.object import SourceLine
from bpfnic.host.prototypes import Prototype

_INT, _PROTOTYPE, _FUNCTION = 1, 2, 3
_LEAST = (
    Type(_INT, Kind.INT, "int", size=4, detail=1 << 24 | 32),
    Type(_PROTOTYPE, Kind.FUNC_PROTO, "", target=_INT),
    Type(_FUNCTION, Kind.FUNC, "function", target=_PROTOTYPE),
)
BTF = encode(_LEAST)
"""Type information with one function, static: what the kernel needs of functions that it walks for each call."""

RECORD_BYTES, LINE_RECORD_BYTES = 8, 16


@dataclass(frozen=True)
class Description:
    """`types` to load, and the `struct bpf_func_info` and `struct bpf_line_info` that refer to them."""

    types: bytes
    functions: bytes
    lines: bytes


def records(starts: Sequence[int]) -> bytes:
    """`struct bpf_func_info` of each function, by the slots where functions start."""
    return _records(dict.fromkeys(starts, _FUNCTION))


def _records(types: Mapping[int, int]) -> bytes:
    return b"".join(struct.pack("<2I", start, number) for start, number in sorted(types.items()))


def described(
    starts: Sequence[int], prototypes: Mapping[int, Prototype], lines: Mapping[int, SourceLine]
) -> Description:
    """The same with what is known of each function, and of the lines of its instructions by slot, of which the kernel
    takes none unless each function's first one has one. All `prototypes` are of one object."""
    strings = Strings()
    shown = _line_records(starts, lines, strings) if lines.keys() >= set(starts) else b""
    known = {start: prototypes[start] for start in starts if start in prototypes}
    if not known:
        return Description(encode(_LEAST, strings=strings), records(starts), shown)
    btf = next(iter(known.values())).btf
    reached = dict.fromkeys(number for prototype in known.values() for number in _reached(prototype))
    numbers = {VOID: VOID} | {number: len(_LEAST) + place for place, number in enumerate(reached, 1)}
    static = {prototype.function.number for prototype in known.values() if prototype.static}
    types = [replace(btf[number], detail=0) if number in static else btf[number] for number in reached]
    ours = {start: numbers[prototype.function.number] for start, prototype in known.items()}
    return Description(encode([*_LEAST, *(renumbered(type, numbers) for type in types)], strings=strings),
                       _records(dict.fromkeys(starts, _FUNCTION) | ours), shown)  # fmt: skip


def _line_records(starts: Sequence[int], lines: Mapping[int, SourceLine], strings: Strings) -> bytes:
    """A record where a function, or another line, begins."""
    found, before = [], None
    for slot, line in sorted(lines.items()):
        if line != before or slot in starts:
            found.append(struct.pack("<4I", slot, strings(line.file), strings(line.text), line.line << 10))
        before = line
    return b"".join(found)


def _reached(prototype: Prototype) -> Iterator[int]:
    """A function's type, and all that it refers to."""
    seen: set[int] = {VOID}
    waiting = [prototype.function.number, *(tag.number for tag in prototype.declared)]
    while waiting:
        number = waiting.pop(0)
        if number not in seen:
            seen.add(number)
            yield number
            waiting += prototype.btf[number].references()
