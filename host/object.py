"""A BPF object opened: its programs, maps and global variables, before anything is created on a device.

    object = open_object("program.o")
    object.rodata["limit"] = 100
    program = object.program("xdp_main")
    instructions = program.link(DeviceAddresses(handles, values))

What a program refers to stays symbolic (`program.references`) until it is linked for a device or the kernel."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bpfnic.host import kconfig, runtime, sections
from bpfnic.host.btf import Btf
from bpfnic.host.btf.extension import Extension, read_extension
from bpfnic.host.btf.target import NIC
from bpfnic.host.elf import Elf
from bpfnic.host.link import Linked, Linker, Reference
from bpfnic.host.maps import Globals, MapDefinition, set_variable
from bpfnic.host.maptable import MapTable
from bpfnic.host.prototypes import Prototype
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import SLOT_BYTES, Instruction
from bpfnic.spec.programs import ProgramType

_TEXT = ".text"  # functions that programs call; a program where it is all that there is (libbpf: prog_is_subprog)


class Addresses(Protocol):
    """How a linker's target names maps in a 64-bit immediate: `src` and the two immediates, 32 bits each."""

    def map(self, name: str) -> tuple[int, int, int]:
        """For the map itself (`struct bpf_map *`)."""

    def value(self, name: str, offset: int) -> tuple[int, int, int]:
        """For byte `offset` of the one value of the map that holds global variables."""


@dataclass(frozen=True)
class DeviceAddresses:
    """A NIC: plain constants. `handles` by map name (spec.addresses.map_handle), `values` the address of entry 0."""

    handles: Mapping[str, int]
    values: Mapping[str, int]

    def map(self, name: str) -> tuple[int, int, int]:
        return 0, self.handles[name] & 0xFFFF_FFFF, self.handles[name] >> 32

    def value(self, name: str, offset: int) -> tuple[int, int, int]:
        address = self.values[name] + offset
        return 0, address & 0xFFFF_FFFF, address >> 32


@dataclass(frozen=True)
class FileDescriptors:
    """The kernel: BPF_PSEUDO_MAP_FD and BPF_PSEUDO_MAP_VALUE with the maps' file descriptors."""

    descriptors: Mapping[str, int]

    def map(self, name: str) -> tuple[int, int, int]:
        return 1, self.descriptors[name], 0

    def value(self, name: str, offset: int) -> tuple[int, int, int]:
        return 2, self.descriptors[name], offset


@dataclass(frozen=True)
class SourceLine:
    """A line of the source: its file's path as the compiler knew it, number from 1, and text without indent."""

    file: str
    line: int
    text: str


class Program:
    """One program with the functions that it calls behind it.

    `name` of its function; `section`; `type` (None where the section name tells none); `attach`, what the section name
    says besides ("ingress", "devmap", …); `frags`: it takes packets of several buffers (`xdp.frags`); `autoload`: false
    for a section whose name begins with `?`; `license`.

    Linking is done when `instructions` or what follows from it is first asked for, and raises BpfnicError there."""

    def __init__(self, name: str, section: str, type: ProgramType | None, license: str, linker: Linker, unit: int,
                 firmware: frozenset[int] = frozenset(), names: bool = False):  # fmt: skip
        self.name, self.section, self.type, self.license = name, section, type, license
        place = sections.read(section)
        self.autoload, self.frags, self.attach = place.autoload, place.frags, place.attach
        self._linker, self._unit, self._firmware, self._names = linker, unit, firmware, names
        self._linked: Linked | None = None

    def with_firmware(self, helpers: frozenset[int]) -> "Program":
        """The same program with the runtime's routines behind it, in place of these helpers (by number)."""
        return Program(self.name, self.section, self.type, self.license, self._linker, self._unit, helpers)

    def with_names(self, helpers: frozenset[int]) -> "Program":
        """The program as a verifier takes it, for a device on which the runtime's routines stand for these helpers:
        calls of other functions of the runtime stay, see `named`. Its slots are as of the program."""
        return Program(self.name, self.section, self.type, self.license, self._linker, self._unit, helpers, names=True)

    def _link(self) -> Linked:
        if self._linked is None:
            routines = runtime.Runtime(self.type, self._firmware, self._names)
            self._linked = self._linker.link(self._unit, self.name, routines)
        return self._linked

    @property
    def instructions(self) -> list[Instruction | None]:
        """One entry a slot, as spec.instruction.decode gives them. Calls are resolved, maps are not: see `link`."""
        return self._link().instructions

    @property
    def references(self) -> dict[int, Reference]:
        """What the 64-bit immediates at these slots stand for."""
        return self._link().references

    @property
    def functions(self) -> dict[int, str]:
        """Name of the function that starts at each of these slots; the program itself at 0."""
        return self._link().functions

    @property
    def prototypes(self) -> dict[int, Prototype]:
        """What BTF says of the functions that start at these slots."""
        return self._link().prototypes

    @property
    def named(self) -> dict[int, str]:
        """Functions of the runtime that are called at these slots, of a program `with_names`."""
        return self._link().named

    @property
    def maps(self) -> list[str]:
        """Names of the maps that the program refers to, each once, but for the hidden ones."""
        return [name for name in dict.fromkeys(one.map for one in self.references.values()) if name not in self.hidden]

    @property
    def hidden(self) -> dict[str, MapDefinition]:
        """The runtime's maps that its routines refer to, by the names in `references`."""
        return self._link().hidden

    @property
    def own(self) -> int:
        """How many slots are the program's own. Behind them are routines of the runtime."""
        return min(self._link().routines, default=len(self.instructions))

    @property
    def privileged(self) -> set[int]:
        """Slots of the calls of privileged routines."""
        return self._link().privileged

    def line(self, slot: int) -> SourceLine | None:
        """The source line of an instruction, where the object has line info."""
        line = self._link().line(slot)
        return SourceLine(_shown(line.file), line.line, _shown(line.text.strip())) if line else None

    @property
    def path(self) -> Path:
        """Of its object."""
        return self._linker.path

    def resolved(self, helpers: frozenset[int]) -> list[Instruction | None]:
        """The instructions for a target that has these helpers, by number: weak functions (ksyms.py) that it doesn't
        have are absent."""
        resolved = list(self.instructions)
        there = helpers | self._firmware
        for slot, extern in self._link().externs.items():
            instruction = resolved[slot]
            assert instruction
            if extern.weak and extern.helper and extern.helper.number not in there:
                resolved[slot] = extern.put(instruction, present=False)
        return resolved

    def link(self, addresses: Addresses, helpers: frozenset[int] | None = None) -> list[Instruction | None]:
        """The instructions with every map and variable in its place. `helpers`: as of `resolved`; None: all. Raises
        KeyError for a map that `addresses` doesn't have."""
        linked = list(self.instructions) if helpers is None else self.resolved(helpers)
        for slot, reference in self.references.items():
            instruction = linked[slot]
            assert instruction
            src, low, high = (
                addresses.map(reference.map) if reference.offset is None
                else addresses.value(reference.map, reference.offset)
            )  # fmt: skip
            linked[slot] = Instruction(instruction.opcode, instruction.dst, src, 0, _signed(low), _signed(high))
        return linked


@dataclass(frozen=True)
class Object:
    """An opened object. `programs` and `maps` by name, in the file's order; `version` as its section says, else 0."""

    path: Path
    programs: dict[str, Program]
    maps: dict[str, MapDefinition]
    license: str
    version: int
    btf: Btf | None

    def program(self, name: str | None = None) -> Program:
        """The program of that name (or, where no program has it, in that section); without a name the only one, or the
        only one that its section doesn't keep from being loaded (`autoload`). Raises BpfnicError that lists them."""
        if name is None:
            programs = list(self.programs.values())
            wanted = [program for program in programs if program.autoload] or programs
            if len(wanted) == 1:
                return wanted[0]
            raise BpfnicError(f"{self.path} has several programs, name one of them: {', '.join(self.programs)}")
        if name in self.programs:
            return self.programs[name]
        in_section = [program for program in self.programs.values() if program.section == name]
        if len(in_section) == 1:
            return in_section[0]
        raise BpfnicError(f"{self.path} has no program {name!r}; it has {', '.join(self.programs)}")

    def _globals(self, section: str) -> Globals:
        definition = self.maps.get(section)
        if definition is None or definition.variables is None:
            return Globals(section, bytearray(), self.btf, {})
        return definition.variables

    @property
    def rodata(self) -> Globals:
        """Constants (`.rodata`), to be set before the object is loaded."""
        return self._globals(".rodata")

    @property
    def data(self) -> Globals:
        """Variables with an initial value (`.data`)."""
        return self._globals(".data")

    @property
    def bss(self) -> Globals:
        """Variables that start as zero (`.bss`)."""
        return self._globals(".bss")

    @property
    def kconfig(self) -> Globals:
        """Values of the kernel's configuration that programs ask for (kconfig.py)."""
        return self._globals(kconfig.SECTION)

    def set_global(self, name: str, value: Any) -> None:
        """Set the variable of that name in whichever section it is; `value` as Btf.parse takes it."""
        set_variable(self.maps, name, value)


def open_object(path: str | Path, program_type: ProgramType | None = None, types: str = NIC) -> Object:
    """Open an ELF object. `program_type`: of all its programs, whatever their sections' names say (None: that).
    `types`: what CO-RE relocations fit the programs to, by its name (btf/target.py).

    Raises BpfnicError that names the file and what in it can't be used."""
    elf = Elf(path)
    try:
        return _open(elf, program_type, types)
    except BpfnicError as error:
        if str(error).startswith(str(path)):
            raise
        raise elf.refuse(str(error)) from None


def _open(elf: Elf, program_type: ProgramType | None, types: str) -> Object:
    btf_section, extension_section = elf.section(".BTF"), elf.section(".BTF.ext")
    btf = Btf(btf_section.data).read_all() if btf_section else None
    extension = read_extension(extension_section.data, btf) if btf and extension_section else Extension()
    maps = MapTable(elf, btf)
    linker = Linker(elf, maps, extension, btf, types=types)
    license_section, version_section = elf.section("license"), elf.section("version")
    license = license_section.data.split(b"\0")[0].decode(errors="replace") if license_section else ""
    version = int.from_bytes(version_section.data[:4], "little") if version_section else 0
    programs: dict[str, Program] = {}
    starts: dict[tuple[int, int], str] = {}  # section number, byte offset
    for number, unit in enumerate(linker.units):
        section = elf.sections[unit.section].name
        if section == _TEXT and len(linker.units) > 1:
            continue
        if unit.start and not linker.names(unit.section):
            continue  # what the section's one program calls
        name = unit.name if unit.name not in programs else f"{section}/{unit.name}"
        starts[unit.section, unit.start * SLOT_BYTES] = name
        type = program_type or sections.read(section).type
        programs[name] = Program(name, section, type, license, linker, number)
    if not programs:
        hint = 'a program stands in a section of its own, such as SEC("xdp")'
        raise elf.refuse(f"no programs: {hint}")
    for value in maps.initial:
        if (place := (value.section, value.offset)) not in starts:
            raise elf.refuse(f"map {value.map!r}: at {value.index} is {value.symbol!r}, which is no program")
        maps.definitions[value.map].programs[value.index] = starts[place]
    for name, program in programs.items():
        if (place_in_map := sections.numbered(program.section)) and (table := maps.numbered(place_in_map[0])):
            table.programs[place_in_map[1]] = name
    return Object(elf.path, programs, maps.definitions, license, version, btf)


def _shown(text: str) -> str:
    """Without what would end a line of a message, or steer a terminal: a damaged object may say anything."""
    return text if text.isprintable() else "".join(each if each.isprintable() or each == "\t" else "?" for each in text)


def _signed(word: int) -> int:
    return (word & 0xFFFF_FFFF ^ 1 << 31) - (1 << 31)
