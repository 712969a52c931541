"""`.BTF.ext`: what BTF says about instructions (functions, source lines, CO-RE relocations), section by section.

Layout: `struct btf_ext_header` and what follows it in the kernel's Documentation/bpf/btf.rst. Its strings and types are
those of the object's `.BTF`."""

import struct
from dataclasses import dataclass, field

from bpfnic.host.btf.graph import Btf, Reader, read_header
from bpfnic.spec.errors import BpfnicError


@dataclass(frozen=True, slots=True)
class Line:
    """Where an instruction came from: `offset` in bytes from its section's start."""

    offset: int
    file: str
    text: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class CoreRelocation:
    """A CO-RE relocation: `offset` in bytes from the section's start, type, access path ("0:1:2") and kind 0 to 12."""

    offset: int
    type: int
    access: str
    kind: int


@dataclass(frozen=True, slots=True)
class Extension:
    """The three tables, each by section name."""

    functions: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Pairs of byte offset and FUNC type."""
    lines: dict[str, list[Line]] = field(default_factory=dict)
    """In the order of their offsets."""
    relocations: dict[str, list[CoreRelocation]] = field(default_factory=dict)


FUNCTION_BYTES, LINE_BYTES, CORE_BYTES = 8, 16, 16
_LEAST_RECORD = FUNCTION_BYTES, LINE_BYTES, CORE_BYTES
"""Bytes of a record that every version of the format has, for each of the three tables."""


def read_extension(data: bytes, btf: Btf, where: str = ".BTF.ext") -> Extension:
    """The tables of `.BTF.ext`. Raises BpfnicError, naming `where`, for anything that is not well-formed."""
    header, body, order = read_header(data, where, 24)
    regions = [struct.unpack_from(f"{order}2I", header, at) for at in range(8, min(len(header), 32) - 7, 8)]
    result = Extension()
    for region, (offset, size) in enumerate(regions):
        if offset + size > len(body):
            raise BpfnicError(f"{where}, offset {len(header) + offset:#x}: a table of {size} bytes reaches beyond its "
                              f"{len(data)} (truncated?)")  # fmt: skip
        if size:
            reader = Reader(body[offset : offset + size], where, order, len(header) + offset)
            _read_table(reader, region, btf, result)
    return result


def _read_table(reader: Reader, region: int, btf: Btf, result: Extension) -> None:
    """One table: the size of its records, then groups of them, a section each."""
    (record_bytes,) = reader.words(1)
    if record_bytes < _LEAST_RECORD[region] or record_bytes % 4:
        raise BpfnicError(f"{reader.where}, offset {reader.start:#x}: records of {record_bytes} bytes, at least "
                          f"{_LEAST_RECORD[region]} expected")  # fmt: skip
    while reader.at < len(reader.data):
        place = reader.start + reader.at
        name_offset, count = reader.words(2)
        section = btf.string(name_offset)
        if count * record_bytes > len(reader.data) - reader.at:
            raise BpfnicError(f"{reader.where}, offset {place:#x}: {count} records of section {section!r} reach beyond "
                              "its end")  # fmt: skip
        records = [reader.words(record_bytes // 4) for _ in range(count)]
        if region == 0:
            result.functions.setdefault(section, []).extend((record[0], record[1]) for record in records)
        elif region == 1:
            lines = [Line(record[0], btf.string(record[1]), btf.string(record[2]), record[3] >> 10, record[3] & 0x3FF)
                     for record in records]  # fmt: skip
            result.lines[section] = sorted([*result.lines.get(section, []), *lines], key=lambda line: line.offset)
        else:
            result.relocations.setdefault(section, []).extend(
                CoreRelocation(record[0], record[1], btf.string(record[2]), record[3]) for record in records
            )
