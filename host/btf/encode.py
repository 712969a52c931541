"""Writes types: `.BTF` and `.BTF.ext` from what graph.py and extension.py read."""

import struct
from collections.abc import Iterable, Sequence

from bpfnic.host.btf.extension import CORE_BYTES, FUNCTION_BYTES, LINE_BYTES, Extension
from bpfnic.host.btf.graph import HEADER_BYTES, MAGIC, Btf
from bpfnic.host.btf.kinds import SIZED, Kind, Part, Type

_EXTENSION_HEADER_BYTES = 32


class Strings:
    """A table of zero-terminated texts, each once; `base` the graph whose strings it continues."""

    def __init__(self, base: Btf | None = None):
        self._first = base.string_bytes if base else 0
        self._offsets = {"": 0}
        self._data = bytearray() if base else bytearray(b"\0")

    def __call__(self, text: str) -> int:
        """The offset of a text."""
        if text not in self._offsets:
            self._offsets[text] = self._first + len(self._data)
            self._data += text.encode() + b"\0"
        return self._offsets[text]

    def __bytes__(self) -> bytes:
        return bytes(self._data)


def encode(types: Iterable[Type], order: str = "<", base: Btf | None = None, strings: Strings | None = None) -> bytes:
    """`.BTF` of these types, numbered from 1, or from the end of `base`, in their order. `order`: "<" or ">".
    `strings`: texts that stand in it besides (those of encode_extension)."""
    strings = strings if strings is not None else Strings(base)
    body = b"".join(_encode(type, order, strings) for type in types)
    texts = bytes(strings)
    header = struct.pack(f"{order}HBBIIIII", MAGIC, 1, 0, HEADER_BYTES, 0, len(body), len(body), len(texts))
    return header + body + texts


def encode_object(types: Sequence[Type], extension: Extension, order: str = "<") -> tuple[bytes, bytes]:
    """`.BTF` and `.BTF.ext` of an object."""
    strings = Strings()
    behind = encode_extension(extension, strings, order)
    return encode(types, order, strings=strings), behind


def _encode(type: Type, order: str, strings: Strings) -> bytes:
    length = type.detail if type.kind is Kind.FUNC else len(type.parts)
    third = type.size if type.kind in SIZED else 0 if type.kind is Kind.ARRAY else type.target
    words = [strings(type.name), type.flag << 31 | type.kind << 24 | length, third]
    match type.kind:
        case Kind.INT | Kind.VAR | Kind.DECL_TAG:
            words.append(type.detail)
        case Kind.ARRAY:
            words += type.target, type.index, type.count
    for part in type.parts:
        words += _words(type, part, strings)
    return struct.pack(f"{order}{len(words)}I", *words)


def _words(type: Type, part: Part, strings: Strings) -> tuple[int, ...]:
    match type.kind:
        case Kind.STRUCT | Kind.UNION:
            return strings(part.name), part.type, part.bits << 24 | part.offset
        case Kind.ENUM:
            return strings(part.name), part.value & 0xFFFF_FFFF
        case Kind.ENUM64:
            return strings(part.name), part.value & 0xFFFF_FFFF, part.value >> 32 & 0xFFFF_FFFF
        case Kind.DATASEC:
            return part.type, part.offset, part.size
    return strings(part.name), part.type


def encode_extension(extension: Extension, strings: Strings, order: str = "<") -> bytes:
    """`.BTF.ext`, whose texts go into `strings`: encode the types with them."""
    functions = {section: [struct.pack(f"{order}2I", *pair) for pair in pairs]
                 for section, pairs in extension.functions.items()}  # fmt: skip
    lines = {
        section: [
            struct.pack(f"{order}4I", at.offset, strings(at.file), strings(at.text), at.line << 10 | at.column)
            for at in found
        ]
        for section, found in extension.lines.items()
    }
    relocations = {
        section: [struct.pack(f"{order}4I", one.offset, one.type, strings(one.access), one.kind) for one in found]
        for section, found in extension.relocations.items()
    }
    body, places = b"", []
    for width, table in ((FUNCTION_BYTES, functions), (LINE_BYTES, lines), (CORE_BYTES, relocations)):
        data = _table(table, width, order, strings) if table else b""
        places += [len(body), len(data)]
        body += data
    return struct.pack(f"{order}HBB7I", MAGIC, 1, 0, _EXTENSION_HEADER_BYTES, *places) + body


def _table(table: dict[str, list[bytes]], width: int, order: str, strings: Strings) -> bytes:
    groups = (struct.pack(f"{order}2I", strings(section), len(records)) + b"".join(records)
              for section, records in table.items())  # fmt: skip
    return struct.pack(f"{order}I", width) + b"".join(groups)
