"""Collects a program and the functions that it calls into one list of instructions, and says what it refers to.

A *unit* is a function, or a whole section where an object names no functions. A program's own unit comes first, then
each unit that it reaches by calls, in the order in which they are met; call distances are set accordingly. Units may be
of another object: routines of the runtime (runtime.py), which stand for helpers and for undefined functions."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from bpfnic.host import kconfig, ksyms
from bpfnic.host.btf import Btf
from bpfnic.host.btf.extension import Extension, Line
from bpfnic.host.btf.naming import essential
from bpfnic.host.btf.patch import patched
from bpfnic.host.btf.relocate import Relocator
from bpfnic.host.btf.target import NIC, target
from bpfnic.host.elf import (
    R_BPF_64_32,
    R_BPF_64_64,
    R_BPF_NONE,
    RELOCATION_NAMES,
    SHN_COMMON,
    SHN_LORESERVE,
    SHN_UNDEF,
    Elf,
    Relocation,
    Section,
    Symbol,
)
from bpfnic.host.maps import MapDefinition
from bpfnic.host.maptable import MapTable
from bpfnic.host.prototypes import Prototype
from bpfnic.spec import isa
from bpfnic.spec.addresses import STACK_TOP
from bpfnic.spec.assembly import assemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.helpers import Helper
from bpfnic.spec.instruction import SLOT_BYTES, WIDE_OPCODE, Instruction, decode
from bpfnic.spec.isa import Operation

_CALL = isa.BY_NAME["call_local"]
_CODE = isa.BY_NAME["lddw_code"]
# Exact integers, for they tell these rows apart.
_CALL_SRC, _CODE_SRC = cast(int, _CALL.src), cast(int, _CODE.src)
_FIRMWARE_SRC = cast(int, isa.BY_NAME["call_firmware"].src)
_HELPER_SRC, _BTF_SRC = (cast(int, isa.BY_NAME[name].src) for name in ("call_helper", "call_btf"))


@dataclass(frozen=True)
class Unit:
    """A function's place: slots `start` to `end` of a section. `hidden`: its symbol is."""

    name: str
    section: int
    start: int
    end: int
    hidden: bool = False


@dataclass(frozen=True)
class Reference:
    """What a 64-bit immediate stands for: a map, or byte `offset` of the map that holds global variables."""

    map: str
    offset: int | None = None


@dataclass(frozen=True)
class Routine:
    """A function that a call, or a 64-bit immediate, means: slot `slot` of unit `unit` of an object's code.
    `privileged`: it runs in the firmware's frame (isa.Group.FIRMWARE)."""

    linker: "Linker"
    unit: int
    slot: int = 0
    privileged: bool = False


@dataclass(frozen=True)
class Frame:
    """What runs around a program: routines, and the address that is its context."""

    enter: Routine
    leave: Routine
    context: int

    TAIL = 1
    """The slot where a tail call to the program goes on."""


class Routines(Protocol):
    """What the runtime has for a program."""

    named: bool
    """Calls of functions and of kernel functions stay, by name, for a verifier, who knows what they do."""
    frame: Frame | None
    loads: Routine | None
    """What is called in place of loads by offset in the packet: with the offset and how many bytes, it returns them in
    host order, or a negative number where the packet doesn't have them. None: the loads themselves."""

    def helper(self, number: int) -> Routine | None:
        """What is called in place of a helper; None: the helper itself."""

    def function(self, name: str) -> Routine | None:
        """A function that compilers take for granted (memcpy), None for others."""

    functions: frozenset[str]
    """Functions of the kernel that the program may call (spec.kfuncs)."""

    def kernel(self, name: str) -> Routine | None:
        """What is called in place of one of them, None where there is nothing."""


@dataclass(frozen=True)
class Named:
    """A call of a function of the runtime that isn't linked."""

    name: str

    def put(self, instruction: Instruction) -> Instruction:
        return replace(instruction, src=_BTF_SRC, offset=0, imm=ksyms.ABSENT)


@dataclass(frozen=True)
class Extern:
    """A function of the kernel that an instruction calls, or whose address it takes. `helper`: what the function is
    here, None for one that isn't (weak ones only), and for one of the runtime's. `routine`: it is one of those, which
    has an address. `name`: of a call of one that the runtime isn't linked for."""

    helper: Helper | None
    weak: bool
    routine: bool = False
    name: str | None = None

    def put(self, instruction: Instruction, present: bool) -> Instruction:
        """The call, or the 64-bit immediate. For its address, which a program can but compare with 0, stands the
        helper's number."""
        number = self.helper.number if self.helper and present else ksyms.ABSENT
        if instruction.opcode == WIDE_OPCODE:
            return replace(instruction, imm=1 if self.routine else number, next_imm=0)
        return replace(instruction, src=_HELPER_SRC if number else _BTF_SRC, offset=0, imm=number)


@dataclass
class Linked:
    """A program's instructions, one entry a slot, with calls resolved; see Program."""

    instructions: list[Instruction | None] = field(default_factory=list)
    references: dict[int, Reference] = field(default_factory=dict)
    externs: dict[int, Extern] = field(default_factory=dict)
    functions: dict[int, str] = field(default_factory=dict)
    prototypes: dict[int, Prototype] = field(default_factory=dict)
    """Of the program's own functions, by first slot, where the object has BTF for them."""
    named: dict[int, str] = field(default_factory=dict)
    """Of Named, by slot of the call."""
    routines: set[int] = field(default_factory=set)
    """First slots of the functions that are the runtime's."""
    privileged: set[int] = field(default_factory=set)
    """Slots of the calls of privileged ones."""
    hidden: dict[str, MapDefinition] = field(default_factory=dict)
    """The maps of the runtime among the references."""
    sources: list[tuple[int, Unit, list[Line]]] = field(default_factory=list)
    """First slot, unit and its section's lines, in order."""

    def line(self, slot: int) -> Line | None:
        """The last line at or before `slot` within its unit."""
        if not 0 <= slot < len(self.instructions):
            return None
        source = bisect_right(self.sources, slot, key=lambda source: source[0]) - 1
        if source < 0:  # in front of a framed program
            return None
        first, unit, lines = self.sources[source]
        if slot >= first + unit.end - unit.start:  # behind it
            return None
        offset = (unit.start + slot - first) * SLOT_BYTES
        index = bisect_right(lines, offset, key=lambda line: line.offset) - 1
        return lines[index] if index >= 0 and lines[index].offset >= unit.start * SLOT_BYTES else None


class Linker:
    """The code of one object, which is the file `path`. `units` in the order of sections and offsets. `runtime`: the
    name of an object of the runtime; its maps are called `runtime:name`, as no map of a program is, and are one for all
    routines, sections of variables `runtime:object:section`."""

    def __init__(self, elf: Elf, maps: MapTable, extension: Extension, btf: Btf | None, runtime: str = "",
                 types: str = NIC):  # fmt: skip
        self._elf, self._maps, self._extension, self._btf, self._runtime = elf, maps, extension, btf, runtime
        self._ksyms = ksyms.declared(btf)
        self._target_types, self._relocator = types, cast(Relocator | None, None)
        self._code: dict[int, list[Instruction | None]] = {}
        self.path = elf.path
        self.units: list[Unit] = []
        self._in_section: dict[int, list[int]] = {}  # numbers of units by section
        for section in elf.sections:
            if section.executable and section.size:
                first = len(self.units)
                self.units += self._split(section)
                self._in_section[section.number] = list(range(first, len(self.units)))
        self._relocations: dict[int, dict[int, Relocation]] = {}

    def names(self, section: int) -> bool:
        """Whether the functions of that section have names."""
        return any(symbol.kind == "STT_FUNC" and symbol.name
                   for symbol in self._elf.symbols_by_section.get(section, ()))  # fmt: skip

    def _split(self, section: Section) -> list[Unit]:
        functions = [symbol for symbol in self._elf.symbols_by_section.get(section.number, ())
                     if symbol.kind == "STT_FUNC" and symbol.name]  # fmt: skip
        if not functions:
            return self._split_by_calls(section)
        starts = sorted({symbol.value for symbol in functions})
        units = []
        for symbol in functions:
            following = next((start for start in starts if start > symbol.value), section.size)
            end = symbol.value + symbol.size if symbol.size else following
            if symbol.value % SLOT_BYTES or end % SLOT_BYTES or end > section.size:
                raise self._refuse(section, symbol.value, f"function {symbol.name!r} ends at byte {end} "
                                   f"of {section.size}")  # fmt: skip
            first, behind = symbol.value // SLOT_BYTES, end // SLOT_BYTES
            units.append(Unit(symbol.name, section.number, first, behind, symbol.hidden))
        return units

    def _split_by_calls(self, section: Section) -> list[Unit]:
        """The functions of a section that names none: they begin where its calls lead."""
        starts = {0}
        for slot, instruction in enumerate(self._decoded(section)):
            if instruction and instruction.opcode == _CALL.opcode and instruction.src == _CALL_SRC:
                starts.add(slot + 1 + instruction.imm)
        inside = sorted(start for start in starts if 0 <= start < section.size // SLOT_BYTES)
        ends = [*inside[1:], section.size // SLOT_BYTES]
        return [Unit(f"{section.name}+{start * SLOT_BYTES:#x}" if start else section.name, section.number, start, end)
                for start, end in zip(inside, ends, strict=True)]  # fmt: skip

    def _refuse(self, section: Section, offset: int, why: str) -> BpfnicError:
        return self._elf.refuse(f"section {section.name!r}, offset {offset:#x}: {why}")

    def link(self, number: int, program: str, routines: Routines) -> Linked:
        """The program that unit `number` starts. Raises BpfnicError naming file, section, offset and symbol."""
        try:
            return self._link(number, program, routines)
        except BpfnicError as error:
            if str(error).startswith(str(self._elf.path)):
                raise
            raise self._elf.refuse(f"program {program!r}: {error}") from None

    def _link(self, number: int, program: str, routines: Routines) -> Linked:
        linked = Linked()
        placed: dict[tuple[Linker, int], int] = {}  # first slot of each unit
        calls: list[tuple[int, Routine]] = []  # by slot of the instruction
        waiting = [Routine(self, number)]
        if frame := routines.frame:
            self._begin(linked, frame, calls)
        while waiting:
            waiting.sort(key=lambda called: called.linker is not self)  # the runtime's come last
            routine = waiting.pop(0)
            unit = routine.linker, routine.unit
            if unit not in placed:
                placed[unit] = len(linked.instructions)
                found = routine.linker._place(routine.unit, linked, program, routines)
                if routines.loads and routine.linker is self:
                    found += _call_loads(linked, placed[unit], routines.loads)
                calls += found
                if frame and len(placed) == 1:
                    self._end(linked, frame, calls)
                    waiting += [frame.enter, frame.leave]
                waiting += [called for _, called in found]
        for place, routine in calls:
            instruction = linked.instructions[place]
            assert instruction
            distance = placed[routine.linker, routine.unit] + routine.slot - place - 1
            if instruction.opcode == WIDE_OPCODE:
                linked.instructions[place] = replace(instruction, src=_CODE_SRC, imm=distance, next_imm=0)
            else:
                src = _FIRMWARE_SRC if routine.privileged else _CALL_SRC
                linked.instructions[place] = replace(instruction, src=src, imm=distance)
                if routine.privileged:
                    linked.privileged.add(place)
        return linked

    def _begin(self, linked: Linked, frame: Frame, calls: list[tuple[int, Routine]]) -> None:
        """What runs before the program: `enter`, and r1 becomes its context, which is all that a tail call repeats."""
        linked.instructions += decode(assemble(f"call pc+0\nw1 = {frame.context}"))
        calls.append((0, frame.enter))

    def _end(self, linked: Linked, frame: Frame, calls: list[tuple[int, Routine]]) -> None:
        """What runs behind the program, whose exits lead here: `leave` makes r0 of r0, if this is the outermost
        function. (It isn't where a tail call came from a function, which then returns to that one's caller.)"""
        end = len(linked.instructions)
        for slot, instruction in enumerate(linked.instructions):
            if instruction is not None and isa.find(instruction).operation is Operation.EXIT:
                linked.instructions[slot] = decode(assemble(f"gotol {end - slot - 1:+}"))[0]
        linked.instructions += decode(assemble(f"if r10 != {STACK_TOP} goto +2\nr1 = r0\ncall pc+0\nexit"))
        calls.append((end + 2, frame.leave))

    def _place(
        self, number: int, linked: Linked, program: str, routines: Routines
    ) -> list[tuple[int, Routine]]:
        """Puts a unit behind what is linked. Returns what it calls, by slot."""
        unit, base = self.units[number], len(linked.instructions)
        section = self._elf.sections[unit.section]
        linked.functions[base if linked.functions else 0] = unit.name if linked.functions else program
        linked.sources.append((base, unit, self._extension.lines.get(section.name, [])))
        if self._runtime:
            linked.routines.add(base)
        elif prototype := self._prototype(section, unit):
            linked.prototypes[base] = prototype
        code, relocations = self._fitted(section, unit), self._by_slot(section)
        calls: list[tuple[int, Routine]] = []
        for slot in range(unit.start, unit.end):
            instruction, place = code[slot], base + slot - unit.start
            linked.instructions.append(instruction)
            relocation = relocations.get(slot)
            if instruction is None:
                if relocation:
                    raise self._refuse(section, relocation.offset, "a relocation inside a 16-byte instruction")
                continue
            try:
                target = self._target(section, slot, instruction, relocation, routines)
            except ksyms.Missing as missing:
                raise self._refuse(section, slot * SLOT_BYTES, f"{missing}{_where(linked.line(place))}") from None
            if isinstance(target, Extern):
                linked.externs[place] = target
                linked.instructions[place] = instruction = target.put(instruction, present=True)
            elif isinstance(target, Named):
                linked.named[place] = target.name
                linked.instructions[place] = target.put(instruction)
            elif isinstance(target, Reference):
                linked.references[place] = target
                if self._runtime:
                    linked.hidden[target.map] = self._maps.definitions[target.map.rpartition(":")[2]]
            elif target:
                calls.append((place, target))
            if instruction.opcode == _CALL.opcode and instruction.src == _HELPER_SRC and not self._runtime:
                if routine := routines.helper(instruction.imm):
                    linked.externs.pop(place, None)
                    calls.append((place, routine))
        return calls

    def _prototype(self, section: Section, unit: Unit) -> Prototype | None:
        types = dict(self._extension.functions.get(section.name, ()))
        number = types.get(unit.start * SLOT_BYTES)
        return Prototype.of(self._btf, number, unit.hidden) if self._btf and number else None

    def _fitted(self, section: Section, unit: Unit) -> Sequence[Instruction | None]:
        """A section's code, where the CO-RE relocations of a unit are done."""
        code = self._decoded(section)
        wanted = [one for one in self._extension.relocations.get(section.name, ())
                  if unit.start <= one.offset // SLOT_BYTES < unit.end]  # fmt: skip
        if not wanted or self._btf is None:
            return code
        code = list(code)
        if self._relocator is None:
            self._relocator = Relocator(self._btf, target(self._target_types))
        for relocation in wanted:
            slot = relocation.offset // SLOT_BYTES
            try:
                if relocation.offset % SLOT_BYTES:
                    raise BpfnicError("between two instructions")
                instructions = patched(code, slot, self._relocator.value(relocation))
            except BpfnicError as error:
                of = self._btf.describe(relocation.type)
                raise self._refuse(section, relocation.offset, f"CO-RE relocation of {of!r} ({relocation.access}): "
                                   f"{error}{_where(self._line(section, unit, slot))}") from None  # fmt: skip
            code[slot : slot + len(instructions)] = instructions
        return code

    def _line(self, section: Section, unit: Unit, slot: int) -> Line | None:
        lines = self._extension.lines.get(section.name, [])
        return Linked([None] * unit.end, sources=[(unit.start, unit, lines)]).line(slot)

    def _decoded(self, section: Section) -> list[Instruction | None]:
        if section.number not in self._code:
            try:
                self._code[section.number] = decode(section.data)
            except BpfnicError as error:
                raise self._elf.refuse(f"section {section.name!r}: {error}") from None
        return self._code[section.number]

    def _by_slot(self, section: Section) -> dict[int, Relocation]:
        if section.number not in self._relocations:
            table: dict[int, Relocation] = {}
            for relocation in self._elf.relocations(section):
                if relocation.offset % SLOT_BYTES or relocation.offset >= section.size:
                    raise self._refuse(section, relocation.offset, "a relocation outside any instruction")
                if relocation.kind != R_BPF_NONE:
                    table[relocation.offset // SLOT_BYTES] = relocation
            self._relocations[section.number] = table
        return self._relocations[section.number]

    def _target(
        self, section: Section, slot: int, instruction: Instruction, relocation: Relocation | None, routines: Routines
    ) -> Reference | Extern | Named | Routine | None:
        """What an instruction refers to: a map or variable, an extern, a function, or nothing."""
        call = instruction.opcode == _CALL.opcode
        if relocation is None:
            if call and instruction.src == _CALL_SRC:
                return self._unit_at(section, slot, section.number, slot + instruction.imm + 1)
            return None
        symbol = relocation.symbol
        offset = slot * SLOT_BYTES
        expected = R_BPF_64_32 if call else R_BPF_64_64
        if relocation.kind != expected or not (call or instruction.opcode == WIDE_OPCODE):
            kind = RELOCATION_NAMES.get(relocation.kind, f"type {relocation.kind}")
            raise self._refuse(section, offset, f"relocation {kind} of {symbol.name!r} doesn't fit its instruction")
        if symbol.section == SHN_UNDEF and symbol.name in self._ksyms:
            function = essential(symbol.name)
            routine = routines.kernel(function)
            if routine and call:
                return Named(function) if routines.named else routine
            if not routine and not symbol.weak and function in routines.functions:
                return Extern(None, symbol.weak, routine=True, name=function)
            return Extern(None, symbol.weak, routine=True) if routine else self._extern(symbol)
        configuration = self._maps.configuration
        if symbol.section == SHN_UNDEF and not call and configuration and symbol.name in configuration:
            if symbol.name in configuration.missing:
                raise self._refuse(section, offset, f"{symbol.name!r} is of the kernel's configuration: give it with "
                                   f"--kconfig {symbol.name}=VALUE")  # fmt: skip
            return Reference(kconfig.SECTION, configuration.offset(symbol.name) + instruction.imm)
        if symbol.section == SHN_UNDEF and call and (routine := routines.function(symbol.name)):
            return Named(symbol.name) if routines.named else routine
        if symbol.section == SHN_UNDEF:
            raise self._refuse(section, offset, f"{symbol.name!r} is not defined in this object (an extern): "
                               "link the one that has it with `bpfnic gen object`")  # fmt: skip
        if symbol.section == SHN_COMMON:
            raise self._refuse(section, offset, f"{symbol.name!r} is a common symbol: compile with -fno-common")
        if symbol.section >= SHN_LORESERVE:
            raise self._refuse(section, offset, f"{symbol.name!r} is in no section")
        if call:
            return self._unit_at(section, slot, symbol.section, symbol.value // SLOT_BYTES + instruction.imm + 1)
        place = symbol.value + instruction.imm
        if name := self._maps.map_at(symbol.section, place):
            return Reference(f"runtime:{name}" if self._runtime else name)
        if name := self._maps.variables_in(symbol.section):
            if not 0 <= place <= self._elf.sections[symbol.section].size:
                raise self._refuse(section, offset, f"byte {place} of {name!r} is outside it")
            self._maps.refuse_pointer(symbol.section, place)
            return Reference(f"runtime:{self._runtime}:{name}" if self._runtime else name, place)
        if self._elf.sections[symbol.section].executable and place % SLOT_BYTES == 0:
            return self._unit_at(section, slot, symbol.section, place // SLOT_BYTES)
        where = self._elf.sections[symbol.section].name
        raise self._refuse(section, offset, f"{symbol.name!r} in section {where!r} is no map, variable or function")

    def _extern(self, symbol: Symbol) -> Extern:
        assert self._btf
        try:
            return Extern(ksyms.helper(self._btf, self._ksyms[symbol.name]), symbol.weak)
        except ksyms.Missing:
            if not symbol.weak:
                raise
            return Extern(None, weak=True)

    def _unit_at(self, section: Section, slot: int, number: int, target: int) -> Routine:
        for candidate in self._in_section.get(number, ()):
            unit = self.units[candidate]
            if unit.start <= target < unit.end:
                return Routine(self, candidate, target - unit.start)
        name = self._elf.sections[number].name
        raise self._refuse(section, slot * SLOT_BYTES, f"a call of byte {target * SLOT_BYTES:#x} of section {name!r}, "
                           "where no function is")  # fmt: skip


def _call_loads(linked: Linked, first: int, routine: Routine) -> list[tuple[int, Routine]]:
    """Has loads by offset in the packet done by a routine, of the function that is linked last, from slot `first` on.
    Each goes behind the function for that, and its end is that function's where the packet doesn't reach."""
    calls = []
    for slot in range(first, len(linked.instructions)):
        load = linked.instructions[slot]
        if load is None or (row := isa.find(load)).operation not in (Operation.LD_ABS, Operation.LD_IND):
            continue
        end = len(linked.instructions)
        register = row.operation is Operation.LD_IND
        offset = [f"w1 = w{load.src}", f"w1 += {load.imm}"] if register else [f"w1 = {load.imm}"]
        call = end + len(offset) + 1
        detour = [*offset, f"w2 = {row.width // 8}", "call pc+0", "if r0 s< 0 goto +1", f"gotol {slot - call - 2:+}",
                  "w0 = 0", "exit"]  # fmt: skip
        linked.instructions[slot] = decode(assemble(f"gotol {end - slot - 1:+}"))[0]
        linked.instructions += decode(assemble("\n".join(detour)))
        calls.append((call, routine))
    return calls


def _where(line: Line | None) -> str:
    return f" ({line.file}:{line.line}: {line.text.strip()})" if line else ""
