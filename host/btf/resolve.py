"""What types together must be for Linux to take them: each is followed to what it consists of, once (btf_resolve() and
the resolve and check_member operations in kernel/bpf/btf.c).

Where one begins decides how far one goes: from a pointer through pointers and qualifiers, from a structure or array
through structures, arrays and qualifiers, so that a structure may have a pointer to itself. What is met again while it
is followed is a loop."""

from enum import Enum, auto

from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import COMPOSITES, DEEPEST, ENUMS, MODIFIERS, SIZED, VOID, Kind, Part, Type
from bpfnic.host.btf.naming import is_name
from bpfnic.spec.errors import BpfnicError

_LARGEST = 0xFFFF_FFFF
_WIDEST = 128  # bits of a bitfield with those in front of it in its byte
_ENUM_BITS = 32
_POINTER_BYTES = 8
_NO_SIZE = frozenset({Kind.UNKN, Kind.FWD, Kind.FUNC, Kind.FUNC_PROTO, Kind.DECL_TAG})
_ONLY_SOURCES = frozenset({Kind.VAR, Kind.DECL_TAG, Kind.DATASEC})
"""What nothing but a section and a tag refers to."""
_MAY_BE_BEHIND = frozenset({Kind.UNKN, Kind.FWD, Kind.FUNC_PROTO})
"""Types without a size that a pointer or qualifier may refer to."""
_FOLLOWED = MODIFIERS | COMPOSITES | {Kind.PTR, Kind.ARRAY, Kind.VAR, Kind.FUNC, Kind.DECL_TAG, Kind.DATASEC}
_TAGGED = COMPOSITES | {Kind.FUNC, Kind.VAR, Kind.TYPEDEF}


class _Mode(Enum):
    ANY = auto()
    POINTER = auto()
    CONTENT = auto()


_THROUGH = {
    _Mode.ANY: _FOLLOWED,
    _Mode.POINTER: MODIFIERS | {Kind.PTR},
    _Mode.CONTENT: MODIFIERS | COMPOSITES | {Kind.ARRAY},
}


def is_regular(type: Type) -> bool:
    """An INT of 1, 2, 4, 8 or 16 whole bytes."""
    return type.bit_offset == 0 and type.bits in (8, 16, 32, 64, 128)


class Resolution:
    """The state of following all types of a graph. Raises BpfnicError naming the type that can't be."""

    def __init__(self, btf: Btf):
        self._btf = btf
        self._open: set[int] = set()
        self._behind: dict[int, int] = {}  # of each type that is done: what is behind it
        self._sizes: dict[int, int] = {}  # of each array
        self._mode = _Mode.ANY
        self._depth = 0

    def check(self, type: Type) -> None:
        self._resolve(type)
        if type.kind is Kind.FUNC_PROTO:
            self._check_prototype(type)

    def _refuse(self, type: Type, why: str) -> BpfnicError:
        return BpfnicError(f"{self._btf.where}: type {type.number} ({type.kind.name} {type.name!r}): {why}")

    def _resolve(self, type: Type) -> None:
        if type.kind in _FOLLOWED and type.number not in self._behind:
            self._mode = _Mode.ANY
            self._visit(type)

    def _enter(self, inner: Type) -> bool:
        """Follows what a type consists of, as far as one goes. Whether that was done now."""
        if inner.kind not in _THROUGH[self._mode] or inner.number in self._behind:
            return False
        self._visit(inner)
        return True

    def _visit(self, type: Type) -> None:
        if self._depth == DEEPEST:
            raise self._refuse(type, f"more than {DEEPEST} types deep")
        if type.number in self._open:
            raise self._refuse(type, "a loop")
        if self._mode is _Mode.ANY and type.kind is Kind.PTR:
            self._mode = _Mode.POINTER
        elif self._mode is _Mode.ANY and (type.kind in COMPOSITES or type.kind is Kind.ARRAY):
            self._mode = _Mode.CONTENT
        self._open.add(type.number)
        self._depth += 1
        self._behind[type.number] = self._follow(type)
        self._depth -= 1
        self._open.discard(type.number)

    def _follow(self, type: Type) -> int:
        match type.kind:
            case Kind.STRUCT | Kind.UNION:
                for member in type.parts:
                    self._check_member(type, member)
                return VOID
            case Kind.ARRAY:
                return self._follow_array(type)
            case Kind.FUNC:
                return self._follow_function(type)
            case Kind.DATASEC:
                for variable in type.parts:
                    self._check_variable(type, variable)
                return VOID
            case Kind.DECL_TAG:
                return self._follow_tag(type)
        return self._follow_reference(type)

    def _sized(self, number: int) -> tuple[Type, int] | None:
        """The type behind qualifiers, and its bytes; None of what has no size, or isn't known yet."""
        type = self._btf[number]
        if type.kind in MODIFIERS or type.kind is Kind.VAR:
            type = self._btf[self._behind.get(number, VOID)]
        if type.kind is Kind.ARRAY:
            return type, self._sizes.get(type.number, 0)
        if type.kind is Kind.PTR:
            return type, _POINTER_BYTES
        return (type, type.size) if type.kind in SIZED else None

    def _follow_reference(self, type: Type) -> int:
        """A pointer, qualifier or variable."""
        target = self._btf[type.target]
        if target.kind in _ONLY_SOURCES:
            raise self._refuse(type, f"refers to {target.kind.name} {target.number}")
        self._enter(target)
        if type.kind in (Kind.PTR, Kind.VAR) and target.kind in MODIFIERS and target.number in self._behind:
            # Followed from a structure before, it stopped at a pointer: on from there.
            further = self._btf[self._behind[target.number]]
            if further.kind is Kind.PTR:
                self._enter(further)
        if found := self._sized(target.number):
            return found[0].number
        if type.kind is not Kind.VAR:
            number = self._behind.get(target.number, target.number)
            if self._btf[number].kind in _MAY_BE_BEHIND:
                return number
        raise self._refuse(type, f"refers to type {target.number} ({target.kind.name}), which has no size")

    def _follow_array(self, array: Type) -> int:
        found = []
        for what, number in (("index", array.index), ("element", array.target)):
            inner = self._btf[number]
            if inner.kind in _NO_SIZE or inner.kind in _ONLY_SOURCES:
                raise self._refuse(array, f"{what} of type {number} ({inner.kind.name})")
            self._enter(inner)
            sized = self._sized(number)
            if sized is None or (sized[0].kind is Kind.INT and not is_regular(sized[0])):
                raise self._refuse(array, f"{what} of type {number}, which has no whole size")
            found.append(sized)
        (index, _), (element, size) = found
        if index.kind is not Kind.INT:
            raise self._refuse(array, f"index of type {index.number} ({index.kind.name})")
        if size * array.count > _LARGEST:
            raise self._refuse(array, f"{size * array.count} bytes")
        self._sizes[array.number] = size * array.count
        return element.number

    def _follow_function(self, function: Type) -> int:
        prototype = self._btf[function.target]
        if prototype.kind is not Kind.FUNC_PROTO:
            raise self._refuse(function, f"refers to type {prototype.number} ({prototype.kind.name})")
        for place, parameter in enumerate(prototype.parts):
            if parameter.type != VOID and not parameter.name:
                raise self._refuse(function, f"parameter {place} has no name")
        return prototype.number

    def _follow_tag(self, tag: Type) -> int:
        target = self._btf[tag.target]
        if target.kind not in _TAGGED:
            raise self._refuse(tag, f"refers to type {target.number} ({target.kind.name})")
        self._enter(target)
        if tag.component != -1:
            parts = target.parts
            if target.kind is Kind.FUNC:
                parts = self._btf[target.target].parts
            elif target.kind not in COMPOSITES:
                parts = ()
            if tag.component >= len(parts):
                raise self._refuse(tag, f"component {tag.component} of {len(parts)}")
        return target.number

    def _check_variable(self, section: Type, variable: Part) -> None:
        type = self._btf[variable.type]
        if type.kind is not Kind.VAR:
            raise self._refuse(section, f"type {type.number} ({type.kind.name}) is no variable")
        if self._enter(type):
            return  # Linux compares the size only of a variable that was followed before
        found = self._sized(type.target)
        if found is None or variable.size < found[1]:
            raise self._refuse(section, f"{variable.size} bytes for variable {type.name!r}")

    def _check_prototype(self, prototype: Type) -> None:
        if prototype.target != VOID:
            self._check_passed(prototype, prototype.target, "a result")
        parameters = list(prototype.parts)
        if parameters and parameters[-1].type == VOID:
            if parameters.pop().name:
                raise self._refuse(prototype, "a last parameter of type void with a name")
        for place, parameter in enumerate(parameters):
            if parameter.name and not is_name(parameter.name):
                raise self._refuse(prototype, f"parameter {place}: no name that C could have")
            self._check_passed(prototype, parameter.type, f"parameter {place}")

    def _check_passed(self, prototype: Type, number: int, what: str) -> None:
        type = self._btf[number]
        if type.kind not in _ONLY_SOURCES:
            self._resolve(type)
        if type.kind in _ONLY_SOURCES or self._sized(number) is None:
            raise self._refuse(prototype, f"{what} of type {number} ({type.kind.name}), which has no size")

    # Members.

    def _check_member(self, structure: Type, member: Part) -> None:
        type = self._btf[member.type]
        if type.kind in _NO_SIZE or type.kind in _ONLY_SOURCES:
            raise self._refuse(structure, f"member {member.name!r} of type {type.number} ({type.kind.name})")
        self._enter(type)
        found = self._sized(member.type)
        if found is None:
            raise self._refuse(structure, f"member {member.name!r} of type {type.number}, which has no size")
        if why := self._refused_member(structure, member, *found):
            raise self._refuse(structure, f"member {member.name!r}: {why}")

    def _refused_member(self, structure: Type, member: Part, type: Type, size: int) -> str | None:
        first, bits = member.offset, 8 * size
        if type.kind is Kind.INT:
            if structure.flag and not is_regular(type):
                return f"a bitfield of an INT of {type.bits} bits"
            if member.bits > type.bits:
                return f"{member.bits} bits of an INT of {type.bits}"
            first, bits = first + type.bit_offset, member.bits or type.bits
            if structure.flag and not member.bits and first % 8:
                return f"begins at bit {first}"
            if first % 8 + bits > _WIDEST:
                return f"{bits} bits from bit {first} on"
        elif type.kind in ENUMS and structure.flag:
            bits = member.bits or _ENUM_BITS
            if member.bits > _ENUM_BITS or (not member.bits and first % 8):
                return f"{bits} bits of an enumeration from bit {first} on"
        elif member.bits:
            return f"a bitfield of {type.kind.name}"
        elif first % (8 * min(_POINTER_BYTES, size) if type.kind is Kind.FLOAT else 8):
            return f"begins at bit {first}"
        if (first + bits + 7) // 8 > structure.size:
            return f"reaches beyond its {structure.size} bytes"
        return None
