"""Writes relocatable BPF objects: 64-bit little-endian ELF, as clang lays it out."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from bpfnic.host.elf import EM_BPF, SHN_UNDEF

_HEADER, _SECTION, _SYMBOL = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQ")
_ET_REL, _SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_NOBITS, _SHT_REL = 1, 1, 2, 3, 8, 9
KINDS = {"STT_NOTYPE": 0, "STT_OBJECT": 1, "STT_FUNC": 2, "STT_SECTION": 3}
_LOCAL, _GLOBAL, _WEAK = 0, 1, 2


@dataclass(eq=False)
class OutSymbol:
    """A symbol to be written; `section` None: undefined."""

    name: str
    kind: str
    section: "OutSection | None"
    value: int = 0
    size: int = 0
    local: bool = False
    weak: bool = False
    visibility: int = 0


@dataclass(eq=False)
class OutSection:
    """A section to be written. `empty`: its content isn't in the file (.bss). `relocations`: offset, type, symbol."""

    name: str
    flags: int = 0
    align: int = 1
    empty: bool = False
    data: bytearray = field(default_factory=bytearray)
    relocations: list[tuple[int, int, OutSymbol]] = field(default_factory=list)

    def append(self, data: bytes, align: int) -> int:
        """Puts bytes behind what is there. Returns their offset."""
        self.align = max(self.align, align)
        self.data += bytes(-len(self.data) % align)
        start = len(self.data)
        self.data += data
        return start


def write(sections: Sequence[OutSection], symbols: Sequence[OutSymbol]) -> bytes:
    """The file. Local symbols are put in front of the others, as the format asks."""
    ordered = [*(symbol for symbol in symbols if symbol.local), *(symbol for symbol in symbols if not symbol.local)]
    numbers = {symbol: number for number, symbol in enumerate(ordered, 1)}
    places = {section: number for number, section in enumerate(sections, 1)}
    texts = _Texts()
    table = bytes(_SYMBOL.size) + b"".join(_symbol(symbol, places, texts) for symbol in ordered)
    first_global = 1 + sum(symbol.local for symbol in ordered)
    symtab = len(sections) + sum(bool(section.relocations) for section in sections) + 1
    rows: list[tuple[str, int, int, int, int, int, int, bytes, int]] = []  # name, type, flags, link, info, align, …
    for section in sections:
        kind = _SHT_NOBITS if section.empty else _SHT_PROGBITS
        content = b"" if section.empty else bytes(section.data)
        rows.append((section.name, kind, section.flags, 0, 0, section.align, 0, content, len(section.data)))
    for section in sections:
        if section.relocations:
            entries = sorted(section.relocations, key=lambda entry: entry[0])
            content = b"".join(_RELOCATION.pack(at, numbers[symbol] << 32 | kind) for at, kind, symbol in entries)
            rows.append((f".rel{section.name}", _SHT_REL, 0, symtab, places[section], 8, _RELOCATION.size, content,
                         len(content)))  # fmt: skip
    rows.append((".symtab", _SHT_SYMTAB, 0, symtab + 1, first_global, 8, _SYMBOL.size, table, len(table)))
    names = [texts(name) for name, *_ in rows] + [texts(".strtab")]
    rows.append((".strtab", _SHT_STRTAB, 0, 0, 0, 1, 0, bytes(texts.data), len(texts.data)))
    body, headers = bytearray(), [bytes(_SECTION.size)]
    for name, (_, kind, flags, link, info, align, each, content, size) in zip(names, rows, strict=True):
        body += bytes(-(len(body) + _HEADER.size) % align)
        headers.append(_SECTION.pack(name, kind, flags, 0, _HEADER.size + len(body), size, link, info, align, each))
        body += content
    body += bytes(-len(body) % 8)
    identity = b"\x7fELF\2\1\1".ljust(16, b"\0")
    header = _HEADER.pack(identity, _ET_REL, EM_BPF, 1, 0, 0, _HEADER.size + len(body), 0, _HEADER.size, 0, 0,
                          _SECTION.size, len(headers), len(headers) - 1)  # fmt: skip
    return header + bytes(body) + b"".join(headers)


class _Texts:
    """A string table."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._offsets = {"": 0}

    def __call__(self, text: str) -> int:
        if text not in self._offsets:
            self._offsets[text] = len(self.data)
            self.data += text.encode() + b"\0"
        return self._offsets[text]


def _symbol(symbol: OutSymbol, places: dict[OutSection, int], texts: _Texts) -> bytes:
    bind = _LOCAL if symbol.local else _WEAK if symbol.weak else _GLOBAL
    name = 0 if symbol.kind == "STT_SECTION" else texts(symbol.name)
    number = places[symbol.section] if symbol.section else SHN_UNDEF
    return _SYMBOL.pack(name, bind << 4 | KINDS[symbol.kind], symbol.visibility, number, symbol.value, symbol.size)
