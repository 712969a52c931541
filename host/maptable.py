"""The maps that an object defines: BTF `.maps`, the older `maps` sections, and sections of global variables."""

import struct
from dataclasses import dataclass

from bpfnic.host import kconfig
from bpfnic.host.btf import VOID, Btf, Kind
from bpfnic.host.elf import SHN_UNDEF, Elf, Section, Symbol
from bpfnic.host.maps import PROG_ARRAY, Globals, MapDefinition
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import MAP_BYTES, OF_MAPS, MapFlag, MapType

MAPS_SECTION = ".maps"
LEGACY_SECTION = "maps"
_MAP_MEMBERS = {"type", "max_entries", "map_flags", "key_size", "value_size", "pinning", "numa_node", "map_extra"}
_EXTERN = 2  # linkage of a VAR (BTF_VAR_GLOBAL_EXTERN)
_POINTER_BYTES = 8
_LEAST_WORDS = 4  # of a legacy map: type, key_size, value_size, max_entries
_NOWHERE = 0xFFFF_FFFF  # iproute2's inner_idx of -1
_PINNINGS = {0, 1, 16}  # none, LIBBPF_PIN_BY_NAME, and Cilium's CILIUM_PIN_REPLACE, by name too
LARGEST_SECTION = 1 << 26  # bytes of .bss and its kin; no NIC has as much, and a damaged file may say anything


@dataclass(frozen=True)
class InitialProgram:
    """`.values = { [index] = (void *)&program }` of a map: where the program's first instruction is."""

    map: str
    index: int
    symbol: str
    section: int
    offset: int


@dataclass(frozen=True)
class _Legacy:
    """A legacy map, and what its definition says of others: see _read_legacy_map. `index`: of the inner map, among all
    legacy maps."""

    definition: MapDefinition
    id: int = 0
    inner_id: int = 0
    inner_index: int = 0
    index: int | None = None


class MapTable:
    """All maps of an object: `definitions` by name, and which one stands at a place in a section. `initial`: what the
    linker, which knows programs, is to put into their `programs`."""

    def __init__(self, elf: Elf, btf: Btf | None):
        self._elf, self._btf = elf, btf
        self.definitions: dict[str, MapDefinition] = {}
        self.declared: dict[str, MapDefinition] = {}
        """Maps that another object defines (`extern struct { … } name SEC(".maps")`)."""
        self.initial: list[InitialProgram] = []
        self._at: dict[tuple[int, int], str] = {}  # section number, byte offset
        self._global_sections: dict[int, str] = {}
        self._legacy: list[_Legacy] = []
        for section in elf.sections:
            if section.name == MAPS_SECTION:
                self._read_btf_maps(section)
            elif section.name == LEGACY_SECTION or section.name.startswith(LEGACY_SECTION + "/"):
                self._read_legacy_maps(section)
            elif _holds_variables(section):
                self._read_variables(section)
        self._find_inner_maps()
        self._read_declared_maps()
        self.configuration = kconfig.read(elf, btf)
        """What the object asks of a kernel's configuration, None: nothing."""
        if self.configuration:
            self.definitions[kconfig.SECTION] = self.configuration.definition

    def map_at(self, section: int, offset: int) -> str | None:
        """The name of the map defined at that byte of that section."""
        return self._at.get((section, offset))

    def variables_in(self, section: int) -> str | None:
        """The name of the map that holds the global variables of that section."""
        return self._global_sections.get(section)

    def refuse_pointer(self, section: int, place: int) -> None:
        """Raises BpfnicError where the variable at that byte of that section is or holds a pointer. What it points to
        has no address before it is loaded: libbpf leaves the number that stands in the file, and a program that follows
        it is refused, for to a verifier what is read from a map is a number."""
        where = self._elf.sections[section]
        if not (pointers := self._elf.relocations(where)):
            return
        for symbol in self._elf.symbols_by_section[section]:
            end = symbol.value + symbol.size
            for pointer in pointers if symbol.value <= place < end else ():
                if symbol.value <= pointer.offset < end:
                    to = f" to {pointer.symbol.name!r}" if pointer.symbol.name else ""
                    raise self._elf.refuse(f"section {where.name!r}, offset {pointer.offset:#x}: variable "
                                           f"{symbol.name!r} has a pointer{to}, and a verifier lets no program "
                                           "follow one that is read from a variable: use what it points to, or its "
                                           "index in an array")  # fmt: skip

    def _add(self, section: Section, offset: int, definition: MapDefinition) -> None:
        if definition.name in self.definitions:
            raise self._refuse(section, definition.name, "is defined twice")
        if definition.key_size > 512 or definition.value_size > LARGEST_SECTION:
            sizes = f"a key of {definition.key_size} and a value of {definition.value_size} bytes"
            raise self._refuse(section, definition.name, f"has {sizes}")
        self.definitions[definition.name] = definition
        if definition.variables is None:
            self._at[section.number, offset] = definition.name

    def _refuse(self, section: Section, name: str, why: str) -> BpfnicError:
        return self._elf.refuse(f"section {section.name!r}: map {name!r} {why}")

    def _type(self, section: Section, name: str, number: int) -> MapType:
        try:
            return MapType(number)
        except ValueError:
            raise self._refuse(section, name, f"has unknown map type {number}") from None

    def _flags(self, section: Section, name: str, number: int) -> MapFlag:
        if number & ~sum(MapFlag):
            raise self._refuse(section, name, f"has unknown flags {number:#x}")
        return MapFlag(number)

    # struct { __uint(type, …); __type(key, …); … } name SEC(".maps");

    def _read_btf_maps(self, section: Section) -> None:
        if self._btf is None or (datasec := self._btf.find(Kind.DATASEC, MAPS_SECTION)) is None:
            raise self._elf.refuse(f"section {section.name!r} needs BTF: compile with -g")
        places = {symbol.name: symbol.value for symbol in self._elf.symbols if symbol.section == section.number}
        value_places: dict[str, int] = {}  # first byte of each map's values, from its own first byte
        for variable in datasec.parts:
            var = self._btf[variable.type]
            if var.detail == _EXTERN:
                continue
            if var.name not in places:
                raise self._refuse(section, var.name, "has no symbol")
            self._add(section, places[var.name], self._read_btf_map(section, var.name, var.target))
            members = {member.name: member.offset // 8 for member in self._btf.resolve(var.target).parts}
            if "values" in members:
                value_places[var.name] = members["values"]
        for relocation in self._elf.relocations(section):
            names = [name for name, place in places.items() if place <= relocation.offset and name in self.definitions]
            name = max(names, key=places.__getitem__, default="?")
            values = value_places.get(name)
            if values is None or self.definitions[name].type not in OF_MAPS | {PROG_ARRAY}:
                raise self._refuse(section, name, f"has initial values ({relocation.symbol.name!r} at offset "
                                   f"{relocation.offset}), which bpfnic can set in a PROG_ARRAY or a map of maps "
                                   "alone")  # fmt: skip
            index, rest = divmod(relocation.offset - places[name] - values, _POINTER_BYTES)
            if rest or index < 0:
                raise self._refuse(section, name, f"has a value at offset {relocation.offset}, between two places")
            addend = int.from_bytes(section.data[relocation.offset :][:_POINTER_BYTES], "little")
            symbol = relocation.symbol
            if self.definitions[name].type in OF_MAPS:
                inner = self.map_at(symbol.section, symbol.value + addend)
                if inner is None:
                    raise self._refuse(section, name, f"has {symbol.name!r} at {index}, which is no map")
                self.definitions[name].maps[index] = inner
                continue
            self.initial.append(InitialProgram(name, index, symbol.name, symbol.section, symbol.value + addend))

    def _read_declared_maps(self) -> None:
        datasec = self._btf.find(Kind.DATASEC, MAPS_SECTION) if self._btf else None
        if self._btf is None or datasec is None:
            return
        section = Section(SHN_UNDEF, MAPS_SECTION, "SHT_NULL", 0, 0, b"", 1)
        for variable in datasec.parts:
            var = self._btf[variable.type]
            if var.kind is Kind.VAR and var.detail == _EXTERN:
                self.declared[var.name] = self._read_btf_map(section, var.name, var.target)

    def _read_btf_map(self, section: Section, name: str, number: int) -> MapDefinition:
        assert self._btf
        btf, structure = self._btf, self._btf.resolve(number)
        if structure.kind is not Kind.STRUCT:
            raise self._refuse(section, name, f"is a {btf.describe(number)}, not a structure")
        numbers: dict[str, int] = {}
        types: dict[str, int] = {}
        inner = None
        for member in structure.parts:
            target = btf.resolve(member.type)
            if target.kind is Kind.ARRAY and member.name == "values":
                element = btf.resolve(btf.resolve(target.target).target)
                if element.kind is Kind.STRUCT:
                    inner = self._read_btf_map(section, f"{name}.inner", element.number)
                numbers.setdefault("value_size", 4)
                continue
            if target.kind is not Kind.PTR:
                raise self._refuse(section, name, f"has a member {member.name!r} that is no __uint or __type")
            if member.name in ("key", "value"):
                types[member.name] = target.target
                continue
            array = btf.resolve(target.target)
            if array.kind is not Kind.ARRAY:
                raise self._refuse(section, name, f"has a member {member.name!r} that is no __uint")
            numbers[member.name] = array.count
        if unknown := sorted(numbers.keys() - _MAP_MEMBERS):
            raise self._refuse(section, name, f"has an unknown member {unknown[0]!r}")
        if numbers.get("map_extra"):
            raise self._refuse(section, name, f"has map_extra {numbers['map_extra']}, which no type of map here takes")
        if numbers.get("pinning", 0) not in _PINNINGS:
            raise self._refuse(section, name, f"has unknown pinning {numbers['pinning']}")
        for part in ("key", "value"):
            if part in types:
                size = btf.size(types[part])
                if numbers.setdefault(f"{part}_size", size) != size:
                    raise self._refuse(section, name, f"has a {part}_size of {numbers[f'{part}_size']} "
                                       f"and a {part} of {size} bytes")  # fmt: skip
        if "type" not in numbers:
            raise self._refuse(section, name, "has no type")
        map_type = self._type(section, name, numbers["type"])
        if map_type in OF_MAPS:
            numbers.setdefault("value_size", 4)
        return MapDefinition(
            name, map_type, numbers.get("key_size", 0), numbers.get("value_size", 0), numbers.get("max_entries", 0),
            self._flags(section, name, numbers.get("map_flags", 0)), btf, types.get("key", VOID),
            types.get("value", VOID), bool(numbers.get("pinning", 0)), inner,
        )  # fmt: skip

    # struct bpf_map_def name SEC("maps") = { … };

    def _read_legacy_maps(self, section: Section) -> None:
        symbols = [symbol for symbol in self._elf.symbols_by_section.get(section.number, ())
                   if symbol.kind in ("STT_OBJECT", "STT_NOTYPE") and symbol.name]  # fmt: skip
        if not symbols or section.size % len(symbols):
            raise self._elf.refuse(f"section {section.name!r}: {section.size} bytes don't divide into "
                                   f"{len(symbols)} maps")  # fmt: skip
        entry = section.size // len(symbols)
        if entry < 4 * _LEAST_WORDS or entry % 4:
            raise self._elf.refuse(f"section {section.name!r}: entries of {entry} bytes; a map takes "
                                   f"{4 * _LEAST_WORDS} and more, such as 20, 28 or 36")  # fmt: skip
        for symbol in symbols:
            raw = section.data[symbol.value : symbol.value + entry]
            if len(raw) < entry:
                raise self._refuse(section, symbol.name, "reaches beyond its section")
            self._read_legacy_map(section, symbol, [*struct.unpack(f"<{entry // 4}I", raw), *([0] * 5)], entry)

    def _read_legacy_map(self, section: Section, symbol: Symbol, words: list[int], entry: int) -> None:
        """One entry. The first five words are everybody's (struct bpf_map_def of libbpf). Behind them 28 bytes of the
        kernel's old samples have inner_map_idx and numa_node, 28 of iproute2 id and pinning, 36 of it inner_id and
        inner_idx too. The two of 28 bytes are told apart by what only one of them can mean."""
        type, key_size, value_size, entries, flags, *rest = words
        if entry not in (28, 36) and any(rest):
            raise self._refuse(section, symbol.name, f"has {entry} bytes whose last are not zero")
        map_type = self._type(section, symbol.name, type)
        has = self._flags(section, symbol.name, flags)
        definition = MapDefinition(symbol.name, map_type, key_size, value_size, entries, has)
        if map_type in OF_MAPS:
            definition.value_size = value_size or MAP_BYTES
        samples = entry == 28 and (map_type in OF_MAPS or MapFlag.NUMA_NODE in has)
        if samples:
            old = _Legacy(definition, index=rest[0] if map_type in OF_MAPS else None)
        else:
            definition.pinned = bool(rest[1])
            old = _Legacy(definition, rest[0], rest[2], rest[3])
        self._annotate(definition)
        self._add(section, symbol.value, definition)
        self._legacy.append(old)

    def _find_inner_maps(self) -> None:
        """What legacy maps of maps hold, once all are known: as the samples' bpf_load.c and iproute2's lib/bpf_legacy.c
        have it."""
        for old in self._legacy:
            outer = old.definition
            if outer.type not in OF_MAPS:
                continue
            if old.index is not None and old.index < len(self._legacy):
                outer.inner = self._legacy[old.index].definition
            for other in self._legacy:
                if other.id and other.id == old.inner_id and not other.inner_id:
                    outer.inner = outer.inner or other.definition
                    if other.inner_index != _NOWHERE:
                        outer.maps[other.inner_index] = other.definition.name

    def numbered(self, id: int | None) -> MapDefinition | None:
        """The PROG_ARRAY of that id among the legacy maps; for None the only one."""
        found = [old.definition for old in self._legacy
                 if old.definition.type is PROG_ARRAY and id in (None, old.id)]  # fmt: skip
        return found[0] if len(found) == 1 else None

    def _annotate(self, definition: MapDefinition) -> None:
        """Key and value types from BPF_ANNOTATE_KV_PAIR's structure, where its sizes are the map's."""
        pair = self._btf and self._btf.find(Kind.STRUCT, f"____btf_map_{definition.name}")
        if not pair or not self._btf:
            return
        types = {member.name: member.type for member in pair.parts}
        if set(types) == {"key", "value"} and self._btf.size(types["key"]) == definition.key_size \
                and self._btf.size(types["value"]) == definition.value_size:  # fmt: skip
            definition.btf, definition.key_type, definition.value_type = self._btf, types["key"], types["value"]

    # Global variables.

    def _read_variables(self, section: Section) -> None:
        if section.size > LARGEST_SECTION:
            raise self._elf.refuse(f"section {section.name!r}: {section.size} bytes of variables")
        content = bytearray(section.data or bytes(section.size))
        datasec = self._btf and self._btf.find(Kind.DATASEC, section.name)
        types = {}
        if self._btf and datasec:
            types = {self._btf[part.type].name: self._btf[part.type].target for part in datasec.parts}
        variables = {}
        for symbol in self._elf.symbols_by_section.get(section.number, ()):
            if symbol.kind != "STT_OBJECT" or not symbol.name:
                continue
            if symbol.value + symbol.size > section.size:
                raise self._elf.refuse(f"section {section.name!r}: variable {symbol.name!r} reaches beyond its end")
            type = types.get(symbol.name, VOID)
            if type != VOID and self._btf and self._btf.size(type) != symbol.size:
                type = VOID  # a flexible array member, or two variables of one name
            variables[symbol.name] = (type, symbol.value, symbol.size)
        frozen = section.name.startswith(".rodata")
        self._add(section, 0, MapDefinition(
            section.name, MapType.ARRAY, 4, section.size, 1, MapFlag.RDONLY_PROG if frozen else MapFlag(0), self._btf,
            variables=Globals(section.name, content, self._btf, variables),
        ))  # fmt: skip
        self._global_sections[section.number] = section.name


def _holds_variables(section: Section) -> bool:
    name = section.name
    kept = name in (".data", ".rodata", ".bss") or name.startswith((".data.", ".rodata.", ".bss."))
    return kept and bool(section.size)
