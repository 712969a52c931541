"""ELF as the loader needs it: sections, symbols and relocations of a relocatable BPF object, checked against the file.

The layouts are those of the System V ABI (gABI 4.1, chapters 4 and 5) for 64 bits, little-endian. Every table, entry
and name is looked for in the file before it is read, so that a damaged file ends as one BpfnicError that says where."""

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bpfnic.spec.errors import BpfnicError

EM_BPF = 247
EM_NONE = 0  # what clang wrote before BPF had a number
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON = 0, 0xFF00, 0xFFF1, 0xFFF2
SHF_ALLOC, SHF_EXECINSTR = 2, 4
SHT_NULL, SHT_PROGBITS, SHT_SYMTAB, SHT_RELA, SHT_NOBITS, SHT_REL = 0, 1, 2, 4, 8, 9

R_BPF_NONE = 0
R_BPF_64_64 = 1
"""A 64-bit immediate instruction that names a map, variable or function."""
R_BPF_64_ABS64 = 2
"""An address among data."""
R_BPF_64_32 = 10
"""A call."""
RELOCATION_NAMES = {R_BPF_NONE: "R_BPF_NONE", R_BPF_64_64: "R_BPF_64_64", R_BPF_64_ABS64: "R_BPF_64_ABS64",
                    3: "R_BPF_64_ABS32", 4: "R_BPF_64_NODYLD32", R_BPF_64_32: "R_BPF_64_32"}  # fmt: skip

_ET_REL = 1
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
_SYMBOL = struct.Struct("<IBBHQQ")  # name, binding << 4 | type, visibility, section, value, size
_RELOCATION = {SHT_REL: struct.Struct("<QQ"), SHT_RELA: struct.Struct("<QQq")}  # offset, symbol << 32 | type, addend
_KINDS = {0: "STT_NOTYPE", 1: "STT_OBJECT", 2: "STT_FUNC", 3: "STT_SECTION", 4: "STT_FILE"}
_STB_LOCAL, _STB_WEAK = 0, 2
_STV_INTERNAL, _STV_HIDDEN = 1, 2


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol. `kind` is `STT_FUNC`, `STT_OBJECT`, `STT_SECTION`, `STT_NOTYPE`, `STT_FILE` or a number; `value` a
    byte offset in section number `section` (or SHN_UNDEF, SHN_ABS, SHN_COMMON); `size` in bytes; `local` and `weak` its
    binding; `visibility` as the file says."""

    name: str
    kind: str
    local: bool
    section: int
    value: int
    size: int
    weak: bool = False
    visibility: int = 0

    @property
    def hidden(self) -> bool:
        """Its visibility keeps it within the object."""
        return self.visibility in (_STV_INTERNAL, _STV_HIDDEN)


@dataclass(frozen=True, slots=True)
class Relocation:
    """`kind` (R_BPF_…) at byte `offset` of its section; the addend stands in the code. `number` of the symbol."""

    offset: int
    kind: int
    symbol: Symbol
    number: int


@dataclass(frozen=True)
class Section:
    """One section: `type` (SHT_…), `size` in bytes, `data` its content (empty for .bss: `size` of zeros), `align` as
    the file says."""

    number: int
    name: str
    type: int
    flags: int
    size: int
    data: bytes
    align: int

    @property
    def executable(self) -> bool:
        return bool(self.flags & SHF_EXECINSTR) and self.type == SHT_PROGBITS


class Elf:
    """A relocatable little-endian 64-bit BPF object.

    `sections` by number, `symbols` in the file's order. Raises BpfnicError, naming the file, for anything else."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._raw = self.path.read_bytes()
        except OSError as error:
            raise BpfnicError(f"{path}: {error.strerror}") from None
        self._check_identity()
        self._headers: list[tuple[int, ...]] = []
        self._read_sections()
        self.symbols: list[Symbol] = []
        for number, (_, type, *_, link, _, _, _) in enumerate(self._headers):
            if type == SHT_SYMTAB:
                names = self._contents(link, f"section {self.sections[number].name!r}: its names")
                self.symbols = [self._symbol(entry, names) for entry in self._entries(number, _SYMBOL)]
                break
        self._relocations: dict[int, list[Relocation]] = {}
        for number, (_, type, *_, target, _, _) in enumerate(self._headers):
            if type in _RELOCATION:
                self._read_relocations(number, _RELOCATION[type], target)

    def refuse(self, why: str) -> BpfnicError:
        """The error that names this file."""
        return BpfnicError(f"{self.path}: {why}")

    def _check_identity(self) -> None:
        if self._raw[:4] != b"\x7fELF":
            raise self.refuse("not an ELF file")
        if len(self._raw) < _HEADER.size:
            raise self.refuse(f"truncated: {len(self._raw)} bytes, less than an ELF header")
        bits, order = self._raw[4:6]
        machine = int.from_bytes(self._raw[18:20], "big" if order == 2 else "little")
        if machine not in (EM_BPF, EM_NONE):
            raise self.refuse(f"an ELF file for machine {machine}, not for BPF ({EM_BPF}): compile with -target bpfel")
        if order == 2:
            raise self.refuse("a big-endian BPF object (bpfeb); bpfnic is little-endian: compile with -target bpfel")
        if (bits, order) != (2, 1):
            raise self.refuse("not a 64-bit little-endian ELF file")

    def _read_sections(self) -> None:
        _, type, _, _, _, _, table, _, _, _, _, size, count, names = _HEADER.unpack_from(self._raw)
        if type != _ET_REL:
            raise self.refuse(f"an ELF file of type {type}, not a relocatable object: compile with -c")
        if size != _SECTION.size:
            raise self.refuse(f"damaged: section headers of {size} bytes, not {_SECTION.size}")
        if table + count * size > len(self._raw):
            raise self.refuse(f"truncated: the section headers end at byte {table + count * size} of {len(self._raw)}")
        self._headers = list(_SECTION.iter_unpack(self._raw[table : table + count * size]))
        texts = self._contents(names, "the names of sections")
        self.sections: list[Section] = []
        for number, (name_at, type, flags, _, start, size, _, _, align, _) in enumerate(self._headers):
            name = self._text(texts, name_at, f"the name of section {number}")
            empty = type in (SHT_NOBITS, SHT_NULL)
            if not empty and start + size > len(self._raw):
                raise self.refuse(f"truncated: section {name!r} ends at byte {start + size} of {len(self._raw)}")
            data = b"" if empty else self._raw[start : start + size]
            self.sections.append(Section(number, name, type, flags, size, data, align))

    def _contents(self, number: int, what: str) -> bytes:
        """Of the section that has the names of others or of symbols."""
        if number >= len(self._headers):
            raise self.refuse(f"damaged: {what} are in section {number} of {len(self._headers)}")
        _, _, _, _, start, size, *_ = self._headers[number]
        return self._raw[start : start + size]

    def _text(self, texts: bytes, at: int, what: str) -> str:
        end = texts.find(b"\0", at)
        if at and end < 0:
            raise self.refuse(f"damaged: {what} is at byte {at} of {len(texts)} of names")
        return texts[at:end].decode(errors="replace") if end >= 0 else ""

    def _entries(self, number: int, layout: struct.Struct) -> list[tuple[int, ...]]:
        """Of a section that is a table."""
        section = self.sections[number]
        if len(section.data) % layout.size:
            raise self.refuse(f"damaged: section {section.name!r} has {len(section.data)} bytes, no multiple of the "
                              f"{layout.size} of its entries")  # fmt: skip
        return list(layout.iter_unpack(section.data))

    def _symbol(self, entry: tuple[int, ...], names: bytes) -> Symbol:
        name_at, info, visibility, number, value, size = entry
        binding, type = info >> 4, info & 15
        name, kind = self._text(names, name_at, "the name of a symbol"), _KINDS.get(type, str(type))
        if number >= len(self.sections) and number not in (SHN_ABS, SHN_COMMON):
            raise self.refuse(f"symbol {name!r} is in section {number} of {len(self.sections)}")
        if kind == "STT_SECTION" and number < SHN_LORESERVE:
            name = self.sections[number].name
        return Symbol(name, kind, binding == _STB_LOCAL, number, value, size, binding == _STB_WEAK, visibility & 3)

    def _read_relocations(self, number: int, layout: struct.Struct, target: int) -> None:
        name = self.sections[number].name
        if target >= len(self.sections):
            raise self.refuse(f"section {name!r} relocates section {target} of {len(self.sections)}")
        if not self.sections[target].flags & SHF_ALLOC:
            return  # debug information: its numbers are right as they stand
        entries = self._relocations.setdefault(target, [])
        for offset, info, *addend in self._entries(number, layout):
            symbol = info >> 32
            if symbol >= len(self.symbols):
                raise self.refuse(f"section {name!r} refers to symbol {symbol} of {len(self.symbols)}")
            if any(addend):
                raise self.refuse(f"section {name!r}: relocation with an addend at {offset}")
            entries.append(Relocation(offset, info & 0xFFFF_FFFF, self.symbols[symbol], symbol))

    def section(self, name: str) -> Section | None:
        """The first section of that name."""
        return next((section for section in self.sections if section.name == name), None)

    def relocations(self, section: Section) -> list[Relocation]:
        """The section's relocations, in the file's order; empty for a section that isn't loaded."""
        return self._relocations.get(section.number, [])

    @cached_property
    def symbols_by_section(self) -> dict[int, list[Symbol]]:
        """Symbols in the order of their values, by section number."""
        result: dict[int, list[Symbol]] = {}
        for symbol in sorted(self.symbols, key=lambda symbol: symbol.value):
            result.setdefault(symbol.section, []).append(symbol)
        return result
