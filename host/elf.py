"""ELF as the loader needs it: sections, symbols and relocations of a relocatable BPF object, checked against the file.

pyelftools reads the tables. It follows numbers as they are, so each that leads to another place is checked before, and
every way in which it can trip over a damaged file ends as one BpfnicError."""

import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from elftools.common.utils import struct_parse
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection
from elftools.elf.structs import ELFStructs

from bpfnic.spec.errors import BpfnicError

EM_BPF = 247
EM_NONE = 0  # what clang wrote before BPF had a number
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON = 0, 0xFF00, 0xFFF1, 0xFFF2
SHF_ALLOC, SHF_EXECINSTR = 2, 4

R_BPF_NONE = 0
R_BPF_64_64 = 1
"""A 64-bit immediate instruction that names a map, variable or function."""
R_BPF_64_ABS64 = 2
"""An address among data."""
R_BPF_64_32 = 10
"""A call."""
RELOCATION_NAMES = {R_BPF_NONE: "R_BPF_NONE", R_BPF_64_64: "R_BPF_64_64", R_BPF_64_ABS64: "R_BPF_64_ABS64",
                    3: "R_BPF_64_ABS32", 4: "R_BPF_64_NODYLD32", R_BPF_64_32: "R_BPF_64_32"}  # fmt: skip

STV_INTERNAL, STV_HIDDEN = 1, 2
_HEADER_BYTES = _SECTION_BYTES = 64  # of the file's header, and of a section's (gABI 4.1, chapter 4, for 64 bits)
_ENTRY_BYTES = {"SHT_SYMTAB": 24, "SHT_REL": 16, "SHT_RELA": 24}
_EMPTY = ("SHT_NOBITS", "SHT_NULL")
_VISIBILITIES = {"STV_DEFAULT": 0, "STV_INTERNAL": STV_INTERNAL, "STV_HIDDEN": STV_HIDDEN, "STV_PROTECTED": 3}


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol. `kind` is `STT_FUNC`, `STT_OBJECT`, `STT_SECTION`, `STT_NOTYPE` or what else pyelftools calls it;
    `value` a byte offset in section number `section` (or SHN_UNDEF, SHN_ABS, SHN_COMMON); `size` in bytes; `local` and
    `weak` its binding; `visibility` as the file says (STV_…)."""

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
        return self.visibility in (STV_INTERNAL, STV_HIDDEN)


@dataclass(frozen=True, slots=True)
class Relocation:
    """`kind` (R_BPF_…) at byte `offset` of its section; the addend stands in the code. `number` of the symbol."""

    offset: int
    kind: int
    symbol: Symbol
    number: int


@dataclass(frozen=True)
class Section:
    """One section: `size` in bytes, `data` its content (zeros without end for .bss: ask for `size` of them), `align`
    as the file says."""

    number: int
    name: str
    type: str
    flags: int
    size: int
    data: bytes
    align: int

    @property
    def executable(self) -> bool:
        return bool(self.flags & SHF_EXECINSTR) and self.type == "SHT_PROGBITS"


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
        try:
            self._check_tables()
            self._read(ELFFile(io.BytesIO(self._raw)))
        except BpfnicError:
            raise
        except Exception as error:  # pyelftools lets a dozen kinds through for a damaged file
            raise self.refuse(f"damaged ELF file ({type(error).__name__}: {error})".replace("\n", " ")) from None

    def refuse(self, why: str) -> BpfnicError:
        """The error that names this file."""
        return BpfnicError(f"{self.path}: {why}")

    def _check_identity(self) -> None:
        if self._raw[:4] != b"\x7fELF":
            raise self.refuse("not an ELF file")
        if len(self._raw) < _HEADER_BYTES:
            raise self.refuse(f"truncated: {len(self._raw)} bytes, less than an ELF header")
        bits, order = self._raw[4:6]
        machine = int.from_bytes(self._raw[18:20], "big" if order == 2 else "little")
        if machine not in (EM_BPF, EM_NONE):
            raise self.refuse(f"an ELF file for machine {machine}, not for BPF ({EM_BPF}): compile with -target bpfel")
        if order == 2:
            raise self.refuse("a big-endian BPF object (bpfeb); bpfnic is little-endian: compile with -target bpfel")
        if (bits, order) != (2, 1):
            raise self.refuse("not a 64-bit little-endian ELF file")

    def _check_tables(self) -> None:
        """Sections, their names and the entries of tables lie in the file."""
        structs, stream = ELFStructs(little_endian=True, elfclass=64), io.BytesIO(self._raw)
        structs.create_basic_structs()
        elf = struct_parse(structs.Elf_Ehdr, stream, 0)
        structs.create_advanced_structs(elf["e_type"], elf["e_machine"], elf["e_ident"]["EI_OSABI"])
        if elf["e_type"] != "ET_REL":
            raise self.refuse(f"an ELF file of type {elf['e_type']}, not a relocatable object: compile with -c")
        table, size, count, names = (elf[name] for name in ("e_shoff", "e_shentsize", "e_shnum", "e_shstrndx"))
        if size != _SECTION_BYTES:
            raise self.refuse(f"damaged: section headers of {size} bytes, not {_SECTION_BYTES}")
        if table + count * size > len(self._raw):
            raise self.refuse(f"truncated: the section headers end at byte {table + count * size} of {len(self._raw)}")
        if names >= count:
            raise self.refuse(f"damaged: the names of sections are in section {names} of {count}")
        headers = [struct_parse(structs.Elf_Shdr, stream, table + size * number) for number in range(count)]
        texts = self._raw[headers[names]["sh_offset"] :][: headers[names]["sh_size"]]
        for number, header in enumerate(headers):
            at, kind, end = header["sh_name"], header["sh_type"], header["sh_offset"] + header["sh_size"]
            if at and b"\0" not in texts[at:]:
                raise self.refuse(f"damaged: the name of section {number} is at byte {at} of {len(texts)} of names")
            name = texts[at:].partition(b"\0")[0].decode(errors="replace")
            if kind not in _EMPTY and end > len(self._raw):
                raise self.refuse(f"truncated: section {name!r} ends at byte {end} of {len(self._raw)}")
            if header["sh_size"] % _ENTRY_BYTES.get(kind, 1):
                raise self.refuse(f"damaged: section {name!r} has {header['sh_size']} bytes, no multiple of the "
                                  f"{_ENTRY_BYTES[kind]} of its entries")  # fmt: skip
            if kind == "SHT_SYMTAB" and header["sh_link"] >= count:
                raise self.refuse(f"damaged: section {name!r}: its names are in section {header['sh_link']} of {count}")

    def _read(self, elf: ELFFile) -> None:
        headers = [(section.name, section.header) for section in elf.iter_sections()]
        self.sections: list[Section] = []
        for number, (name, header) in enumerate(headers):
            start, size = header["sh_offset"], header["sh_size"]
            data = b"" if header["sh_type"] in _EMPTY else self._raw[start : start + size]
            self.sections.append(Section(number, name, str(header["sh_type"]), header["sh_flags"], size, data,
                                         header["sh_addralign"]))  # fmt: skip
        self.symbols: list[Symbol] = []
        self._relocations: dict[int, list[Relocation]] = {}
        for section in elf.iter_sections():
            if isinstance(section, SymbolTableSection) and section.header["sh_type"] == "SHT_SYMTAB":
                self.symbols = [self._symbol(symbol) for symbol in section.iter_symbols()]
                break
        for section in elf.iter_sections():
            if not isinstance(section, RelocationSection):
                continue
            target = section.header["sh_info"]
            if target >= len(self.sections):
                raise self.refuse(f"section {section.name!r} relocates section {target} of {len(self.sections)}")
            if not self.sections[target].flags & SHF_ALLOC:
                continue  # debug information: its numbers are right as they stand
            entries = self._relocations.setdefault(target, [])
            for entry in section.iter_relocations():
                number = entry["r_info_sym"]
                if number >= len(self.symbols):
                    raise self.refuse(f"section {section.name!r} refers to symbol {number} of {len(self.symbols)}")
                if entry.is_RELA() and entry["r_addend"]:
                    raise self.refuse(f"section {section.name!r}: relocation with an addend at {entry['r_offset']}")
                entries.append(Relocation(entry["r_offset"], entry["r_info_type"], self.symbols[number], number))

    def _symbol(self, symbol) -> Symbol:
        number = symbol["st_shndx"]
        special = {"SHN_UNDEF": SHN_UNDEF, "SHN_ABS": SHN_ABS, "SHN_COMMON": SHN_COMMON}
        number = special.get(number, number)
        if not isinstance(number, int) or (number < SHN_LORESERVE and number >= len(self.sections)):
            raise self.refuse(f"symbol {symbol.name!r} is in section {number} of {len(self.sections)}")
        name, kind = symbol.name, symbol["st_info"]["type"]
        if kind == "STT_SECTION" and number < SHN_LORESERVE:
            name = self.sections[number].name
        binding = symbol["st_info"]["bind"]
        return Symbol(name, str(kind), binding == "STB_LOCAL", number, symbol["st_value"], symbol["st_size"],
                      weak=binding == "STB_WEAK",
                      visibility=_VISIBILITIES.get(symbol["st_other"]["visibility"], 0))  # fmt: skip

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
