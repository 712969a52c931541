"""The job `bpfnic gen object`: several objects in one, as bpftool's command of that name (libbpf's linker.c) makes it.

Sections of one name are put one behind the other, symbols are resolved, types and what `.BTF.ext` says of instructions
are merged. Rules for names:

- a definition serves the declarations (extern) of all other objects, whose types must be alike;
- of weak definitions, or a weak and a strong one, one stays: the strong one, else the first;
- two strong ones are an error, but for maps that are defined alike, which become one;
- static names are their object's own;
- `license` and `version` must say the same.

What stays undefined is left to who loads the result."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bpfnic.host.btf import Btf, Kind, Part, Type
from bpfnic.host.btf.encode import encode_object
from bpfnic.host.btf.extension import Extension, read_extension
from bpfnic.host.btf.merge import Merged, merge, renumbered
from bpfnic.host.elf import (
    R_BPF_64_32,
    R_BPF_64_64,
    SHF_ALLOC,
    SHN_COMMON,
    SHN_LORESERVE,
    SHN_UNDEF,
    Elf,
    Relocation,
    Section,
    Symbol,
)
from bpfnic.host.elfwriter import KINDS, OutSection, OutSymbol, write
from bpfnic.host.maps import MapDefinition
from bpfnic.host.maptable import LARGEST_SECTION, LEGACY_SECTION, MAPS_SECTION, MapTable
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import SLOT_BYTES

_SAID_ONCE = ("license", "version")
_DROPPED = (".eh_frame",)
_MOST_ALIGN = 4096
_EXTERN = 2  # linkage of a VAR or FUNC
_DATA_WORD = 8  # bytes of a pointer in data


@dataclass
class _Input:
    """An object and where its parts went: `sections` by number, with the offset in the section that they are in now;
    `symbols`, in the object's order."""

    elf: Elf
    btf: Btf | None
    extension: Extension
    maps: MapTable
    sections: dict[int, tuple[OutSection, int]] = field(default_factory=dict)
    symbols: dict[int, OutSymbol] = field(default_factory=dict)


def link(paths: Sequence[Path]) -> bytes:
    """The object that these objects make. Raises BpfnicError that names file and symbol."""
    inputs = [_read(path) for path in paths]
    return _Link(inputs).run()


def _read(path: Path) -> _Input:
    elf = Elf(path)
    types, about = elf.section(".BTF"), elf.section(".BTF.ext")
    try:
        btf = Btf(types.data).read_all() if types else None
        extension = read_extension(about.data, btf) if btf and about else Extension()
    except BpfnicError as error:
        raise elf.refuse(str(error)) from None
    return _Input(elf, btf, extension, MapTable(elf, btf))


class _Link:
    def __init__(self, inputs: list[_Input]):
        self.inputs = inputs
        self.sections: dict[str, OutSection] = {}
        self.symbols: list[OutSymbol] = []
        self.named: dict[str, tuple[OutSymbol, _Input]] = {}  # those that all objects share, and who defines them
        self.roots: dict[OutSection, OutSymbol] = {}

    def run(self) -> bytes:
        for one in self.inputs:
            for section in one.elf.sections:
                self._place(one, section)
        for one in self.inputs:
            for symbol in one.elf.symbols:
                self._resolve(one, symbol)
        for one in self.inputs:
            for section in one.elf.sections:
                for relocation in one.elf.relocations(section):
                    self._relocate(one, section, relocation)
        sections = list(self.sections.values())
        with_types = [one for one in self.inputs if one.btf]
        if with_types:
            types, about = _Types(self, with_types).merged()
            sections += [OutSection(".BTF", align=4, data=bytearray(types)),
                         OutSection(".BTF.ext", align=4, data=bytearray(about))]  # fmt: skip
        return write(sections, self.symbols)

    # Sections.

    def _place(self, one: _Input, section: Section) -> None:
        if not section.flags & SHF_ALLOC or section.name in _DROPPED or not section.size:
            return
        empty = section.type == "SHT_NOBITS"
        there = self.sections.get(section.name)
        if there and section.name in _SAID_ONCE:
            if bytes(there.data).rstrip(b"\0") != section.data.rstrip(b"\0"):
                raise one.elf.refuse(f"section {section.name!r} says {_said(section.data)}, and {_said(there.data)} in "
                                     f"{self.inputs[0].elf.path}")  # fmt: skip
            one.sections[section.number] = there, 0
            return
        if there is None:
            there = self.sections[section.name] = OutSection(section.name, section.flags, empty=empty)
            self.roots[there] = OutSymbol(section.name, "STT_SECTION", there, local=True)
            self.symbols.append(self.roots[there])
        if (there.flags, there.empty) != (section.flags, empty):
            raise one.elf.refuse(f"section {section.name!r} has other flags or another type than in the other objects")
        if section.align > _MOST_ALIGN or section.align & section.align - 1:
            raise one.elf.refuse(f"section {section.name!r} is aligned to {section.align} bytes")
        if empty and section.size > LARGEST_SECTION:
            raise one.elf.refuse(f"section {section.name!r}: {section.size} bytes of variables")
        content = bytes(section.size) if empty else section.data
        one.sections[section.number] = there, there.append(content, max(section.align, 1))

    # Symbols.

    def _resolve(self, one: _Input, symbol: Symbol) -> None:
        number = len(one.symbols)
        place = one.sections.get(symbol.section)
        if symbol.kind == "STT_SECTION":
            one.symbols[number] = self.roots[place[0]] if place else OutSymbol("", "STT_SECTION", None, local=True)
            return
        if place and symbol.value + symbol.size > one.elf.sections[symbol.section].size:
            raise one.elf.refuse(f"symbol {symbol.name!r} reaches beyond the end of section {place[0].name!r}")
        if symbol.section == SHN_COMMON:
            raise one.elf.refuse(f"{symbol.name!r} is a common symbol: compile with -fno-common")
        new = OutSymbol(symbol.name, symbol.kind, place and place[0], symbol.value + (place[1] if place else 0),
                        symbol.size, symbol.local, symbol.weak, symbol.visibility)  # fmt: skip
        if symbol.kind not in KINDS or symbol.section >= SHN_LORESERVE or (symbol.section != SHN_UNDEF and not place):
            one.symbols[number] = replace(new, section=None, local=True)  # a file's name, a symbol of what is dropped
            return
        if (symbol.local or not symbol.name) and not place:
            one.symbols[number] = replace(new, local=True)
            return
        if symbol.local or not symbol.name:
            new.local = True
            self.symbols.append(new)
            one.symbols[number] = new
            return
        one.symbols[number] = self._shared(one, new)

    def _shared(self, one: _Input, new: OutSymbol) -> OutSymbol:
        """The symbol of that name that all objects share."""
        if new.name not in self.named:
            self.named[new.name] = new, one
            self.symbols.append(new)
            return new
        old, other = self.named[new.name]
        if new.section and old.section:
            if new.section.name in _SAID_ONCE:
                return old
            if not (new.weak or old.weak) and not self._same_map(one, other, new, old):
                raise one.elf.refuse(f"{new.name!r} is defined here (section {new.section.name!r}), and in "
                                     f"{other.elf.path} too (section {old.section.name!r})")  # fmt: skip
        if "STT_NOTYPE" not in (new.kind, old.kind) and new.kind != old.kind:
            raise one.elf.refuse(f"{new.name!r} is {_kind(new)} here, and {_kind(old)} in {other.elf.path}")
        takes_over = bool(new.section) and (not old.section or (old.weak and not new.weak))
        visibility = min(filter(None, (old.visibility, new.visibility)), default=0)  # the least but the default's 0
        if takes_over:
            old.kind, old.section, old.value, old.size = new.kind, new.section, new.value, new.size
            old.weak = new.weak
            self.named[new.name] = old, one
        elif not new.section and not old.section:
            old.weak = old.weak and new.weak
        old.visibility = visibility
        return old

    def _same_map(self, one: _Input, other: _Input, new: OutSymbol, old: OutSymbol) -> bool:
        """Whether two definitions are of one map. Raises BpfnicError where two maps of a name differ."""
        assert new.section and old.section
        if new.section is not old.section or new.section.name not in (MAPS_SECTION, LEGACY_SECTION):
            return False
        if why := _differ(one.maps.definitions[new.name], other.maps.definitions[new.name]):
            raise one.elf.refuse(f"map {new.name!r} has {why} in {other.elf.path}")
        return True

    # Relocations.

    def _relocate(self, one: _Input, section: Section, relocation: Relocation) -> None:
        if section.number not in one.sections:
            return
        target, start = one.sections[section.number]
        if relocation.offset >= section.size:
            raise one.elf.refuse(f"section {section.name!r}, offset {relocation.offset:#x}: a relocation beyond its "
                                 "end")  # fmt: skip
        offset = start + relocation.offset
        symbol = one.symbols[relocation.number]
        if not symbol.section and (symbol.local or not symbol.name):
            which = f"symbol {relocation.number} ({relocation.symbol.name!r})"
            raise one.elf.refuse(f"section {section.name!r}, offset {relocation.offset:#x}: refers to {which}, which "
                                 "is nowhere")  # fmt: skip
        if relocation.symbol.kind == "STT_SECTION":
            self._move(one, section, target, offset, relocation, one.sections[relocation.symbol.section][1])
        elif relocation.symbol.section != SHN_UNDEF and section.name in _SAID_ONCE:
            raise one.elf.refuse(f"section {section.name!r} has a pointer")
        target.relocations.append((offset, relocation.kind, symbol))

    def _move(self, one: _Input, section: Section, target: OutSection, offset: int, relocation: Relocation,
              distance: int) -> None:  # fmt: skip
        """What a section's symbol stands for has moved: the addend, in the code, moves with it."""
        executable = section.executable
        if executable and relocation.kind == R_BPF_64_32:
            at, width, distance = offset + 4, 4, distance // SLOT_BYTES
        elif executable and relocation.kind == R_BPF_64_64:
            at, width = offset + 4, 4
        elif not executable:
            at, width = offset, _DATA_WORD
        else:
            raise one.elf.refuse(f"section {section.name!r}, offset {relocation.offset:#x}: a relocation of type "
                                 f"{relocation.kind} in code")  # fmt: skip
        if at + width > len(target.data):
            raise one.elf.refuse(f"section {section.name!r}, offset {relocation.offset:#x}: a relocation beyond its "
                                 "end")  # fmt: skip
        addend = int.from_bytes(target.data[at : at + width], "little")
        target.data[at : at + width] = (addend + distance & (1 << 8 * width) - 1).to_bytes(width, "little")


def _said(content: bytes | bytearray) -> str:
    return repr(bytes(content).rstrip(b"\0").decode(errors="replace"))


def _kind(symbol: OutSymbol) -> str:
    return "a function" if symbol.kind == "STT_FUNC" else "a variable"


def _differ(ours: MapDefinition, theirs: MapDefinition) -> str:
    """How one of two definitions of a map differs from the other, "" where it doesn't."""
    for name in ("type", "key_size", "value_size", "max_entries", "flags", "pinned"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if mine != other:
            return f"{name} {getattr(mine, 'name', mine)} here, and {getattr(other, 'name', other)}"
    if (ours.inner is None) != (theirs.inner is None):
        return "an inner map in one object alone: none"
    return f"another inner map here: {why}" if ours.inner and theirs.inner and (
        why := _differ(ours.inner, theirs.inner)) else ""  # fmt: skip


class _Types:
    """The types of the objects, and what is said of instructions, for the linked one."""

    def __init__(self, link: _Link, inputs: list[_Input]):
        self.link, self.inputs = link, inputs
        self.graphs = [one.btf for one in inputs if one.btf]

    def merged(self) -> tuple[bytes, bytes]:
        """`.BTF` and `.BTF.ext`."""
        merged = merge(self.graphs)
        stands_for = self._resolved(merged)
        types, numbers = _without(merged, stands_for)
        for name, parts in self._sections(numbers).items():
            size = len(self.link.sections[name].data) if name in self.link.sections else 0
            types.append(Type(len(types) + 1, Kind.DATASEC, name, size=size, parts=tuple(parts)))
        return encode_object(types, self._extension(numbers))

    def _resolved(self, merged: Merged) -> dict[int, int]:
        """For declarations, and definitions that had to yield: the number of the one that stays. Raises BpfnicError
        where the two aren't of one type."""
        all_types: list[Type | None] = [None, *merged.types]
        found: dict[str, int] = {}
        names: list[tuple[_Input, Type, int]] = []
        for one, graph, numbers in zip(self.inputs, self.graphs, merged.numbers, strict=True):
            for type in graph:
                if type.kind not in (Kind.VAR, Kind.FUNC) or type.name not in self.link.named:
                    continue
                symbol, definer = self.link.named[type.name]
                linkage = type.detail
                if linkage == 0:
                    continue  # static: another thing of that name
                names.append((one, type, numbers[type.number]))
                if (definer is one and linkage != _EXTERN) or (not symbol.section and type.name not in found):
                    found[type.name] = numbers[type.number]
        stands_for: dict[int, int] = {}
        for one, type, number in names:
            stays = found.get(type.name, number)
            if stays == number:
                continue
            mine, theirs = all_types[number], all_types[stays]
            assert mine and theirs
            in_maps = self._is_map(type.name)
            if not in_maps and (mine.kind is not theirs.kind or not _alike(merged.types, mine.target, theirs.target)):
                raise one.elf.refuse(f"{type.name!r} is declared with another type than in "
                                     f"{self.link.named[type.name][1].elf.path}")  # fmt: skip
            stands_for[number] = stays
        return stands_for

    def _is_map(self, name: str) -> bool:
        symbol, definer = self.link.named[name]
        if not symbol.section or symbol.section.name != MAPS_SECTION:
            return False
        ours = definer.maps.definitions[name]
        for one in self.inputs:
            if (declared := one.maps.declared.get(name)) and (why := _differ(declared, ours)):
                raise one.elf.refuse(f"map {name!r} is declared with {why} in {definer.elf.path}")
        return True

    def _sections(self, numbers: list[dict[int, int]]) -> dict[str, list[Part]]:
        """The variables of each section, in the order of their places."""
        found: dict[str, dict[int, Part]] = {}
        for one, graph, new in zip(self.inputs, self.graphs, numbers, strict=True):
            locals_ = {(symbol.name, symbol.section.name): symbol for symbol in one.symbols.values()
                       if symbol.section and symbol.name}  # fmt: skip
            for section in graph:
                if section.kind is not Kind.DATASEC:
                    continue
                parts = found.setdefault(section.name, {})
                for part in section.parts:
                    variable = graph[part.type]
                    symbol = locals_.get((variable.name, section.name))
                    number = new[part.type]
                    if section.name in self.link.sections and symbol is None:
                        continue  # a declaration, or what yielded
                    start = symbol.value if symbol else None
                    if number not in parts and not any(start == there.offset for there in parts.values()):
                        parts[number] = Part("", number, offset=symbol.value if symbol else 0,
                                             size=part.size or (symbol.size if symbol else 0))  # fmt: skip
        return {name: sorted(parts.values(), key=lambda part: part.offset) for name, parts in found.items() if parts}

    def _extension(self, numbers: list[dict[int, int]]) -> Extension:
        result = Extension()
        for one, new in zip(self.inputs, numbers, strict=True):
            starts = {section.name: one.sections[section.number][1] for section in one.elf.sections
                      if section.number in one.sections}  # fmt: skip
            about = one.extension
            for name, start in starts.items():
                said = (*(at for at, _ in about.functions.get(name, ())),
                        *(line.offset for line in about.lines.get(name, ())),
                        *(each.offset for each in about.relocations.get(name, ())))  # fmt: skip
                if beyond := [at for at in said if start + at >= 1 << 32]:
                    raise one.elf.refuse(f"section '.BTF.ext' speaks of offset {beyond[0]:#x} of section {name!r}")
                functions = [(start + at, _new(one, new, type)) for at, type in about.functions.get(name, ())]
                if functions:
                    result.functions.setdefault(name, []).extend(functions)
                lines = [replace(line, offset=start + line.offset) for line in about.lines.get(name, ())]
                if lines:
                    result.lines.setdefault(name, []).extend(lines)
                relocations = [replace(each, offset=start + each.offset, type=_new(one, new, each.type))
                               for each in about.relocations.get(name, ())]  # fmt: skip
                if relocations:
                    result.relocations.setdefault(name, []).extend(relocations)
        return result


def _new(one: _Input, numbers: dict[int, int], type: int) -> int:
    """The new number of a type that `.BTF.ext` names."""
    if type not in numbers:
        raise one.elf.refuse(f"section '.BTF.ext' refers to type {type}, which no function or structure is")
    return numbers[type]


def _without(merged: Merged, stands_for: dict[int, int]) -> tuple[list[Type], list[dict[int, int]]]:
    """The types without those for which others stand; the new numbers of each object's types."""
    left = [type for type in merged.types if type.number not in stands_for]
    numbers = {0: 0} | {type.number: place for place, type in enumerate(left, 1)}
    numbers |= {number: numbers[stays] for number, stays in stands_for.items()}
    return ([renumbered(type, numbers) for type in left],
            [{old: numbers[number] for old, number in each.items()} for each in merged.numbers])  # fmt: skip


def _alike(types: Sequence[Type], ours: int, theirs: int) -> bool:
    """Whether a declaration fits a definition: prototypes by types alone, arrays of no length any."""
    if ours == theirs:
        return True
    if not ours or not theirs:
        return False
    mine, other = types[ours - 1], types[theirs - 1]
    if mine.kind is not other.kind:
        return False
    if mine.kind is Kind.FUNC_PROTO:
        pairs = zip([mine.target, *(part.type for part in mine.parts)],
                    [other.target, *(part.type for part in other.parts)], strict=False)  # fmt: skip
        return len(mine.parts) == len(other.parts) and all(one == another for one, another in pairs)
    return mine.kind is Kind.ARRAY and mine.target == other.target and 0 in (mine.count, other.count)
