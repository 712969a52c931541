"""What a CO-RE relocation says of a program's own types (an access: "0:1:2" into a structure, or one enumerator), and
the same in the types of what the program is to run on.

An access has a step for each index of an array, the first (of the pointer that it starts from) included, and for each
*named* member: anonymous structures may come and go between two versions of a type. (libbpf: bpf_core_spec.)"""

import re
from dataclasses import dataclass, replace
from enum import IntEnum

from bpfnic.host.btf.compatible import fields_are_compatible
from bpfnic.host.btf.extension import CoreRelocation
from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import COMPOSITES, ENUMS, Kind, Part, Type
from bpfnic.host.btf.naming import essential
from bpfnic.spec.errors import BpfnicError

_LONGEST = 64  # indexes of an access: BPF_CORE_SPEC_MAX_LEN


class CoreKind(IntEnum):
    """`enum bpf_core_relo_kind`: what a relocation asks for."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12

    @property
    def of_field(self) -> bool:
        return self <= CoreKind.FIELD_RSHIFT_U64

    @property
    def of_enumerator(self) -> bool:
        return self in (CoreKind.ENUMVAL_EXISTS, CoreKind.ENUMVAL_VALUE)


@dataclass(frozen=True, slots=True)
class Step:
    """Member `index` of structure `type` where it has a name; else element `index` of elements of type `type`. Of an
    enumerator the enumeration and its place."""

    type: int
    index: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """From type `root` to a field at `bits` from where it begins. `indexes` counts those of anonymous members too."""

    btf: Btf
    root: int
    steps: tuple[Step, ...] = ()
    bits: int = 0
    indexes: int = 0

    def then(self, step: Step, bits: int) -> "Access":
        if self.indexes == _LONGEST:
            raise BpfnicError(f"an access of more than {_LONGEST} indexes")
        return replace(self, steps=(*self.steps, step), bits=self.bits + bits, indexes=self.indexes + 1)

    @property
    def member(self) -> Part | None:
        """The member that it ends at; None of an array's element."""
        last = self.steps[-1]
        return self.btf[last.type].parts[last.index] if last.name else None


def size_of(btf: Btf, number: int) -> int:
    """Bytes of a value. Raises BpfnicError for what has no values."""
    inner = btf.resolve(number)
    while inner.kind is Kind.ARRAY:
        inner = btf.resolve(inner.target)
    if inner.kind in (Kind.UNKN, Kind.FWD, Kind.FUNC_PROTO, Kind.FUNC):
        raise BpfnicError(f"{btf.describe(number)} has no size")
    return btf.size(number)


def local_access(btf: Btf, relocation: CoreRelocation) -> Access:
    """What the program's own types say. Raises BpfnicError where the relocation doesn't fit them."""
    kind = CoreKind(relocation.kind)
    if not (kind.of_field or kind.of_enumerator):
        if relocation.access != "0":
            raise BpfnicError(f"an access {relocation.access!r}, where a type alone is asked for")
        return Access(btf, relocation.type)
    if not re.fullmatch(r"\d{1,9}(:\d{1,9})*", relocation.access, re.ASCII):
        raise BpfnicError(f"an access {relocation.access!r}, which is no list of numbers")
    first, *rest = map(int, relocation.access.split(":"))
    root = btf.resolve(relocation.type)
    if kind.of_enumerator:
        if root.kind not in ENUMS or rest or first >= len(root.parts):
            raise BpfnicError(f"no enumerator {relocation.access} in {btf.describe(relocation.type)}")
        return Access(btf, relocation.type, (Step(root.number, first, root.parts[first].name),))
    access = Access(btf, relocation.type).then(Step(root.number, first), 8 * first * size_of(btf, root.number))
    number = root.number
    for index in rest:
        access, number = _further(access, btf.resolve(number), index)
    return access


def _further(access: Access, type: Type, index: int) -> tuple[Access, int]:
    """The access one index on, and the type that it leads to."""
    if type.kind in COMPOSITES and index < len(type.parts):
        member = type.parts[index]
        if member.name:
            return access.then(Step(type.number, index, member.name), member.offset), member.type
        return replace(access, bits=access.bits + member.offset, indexes=access.indexes + 1), member.type
    if type.kind is Kind.ARRAY and (index < type.count or _is_open(access, type)):
        element = access.btf.resolve(type.target).number
        return access.then(Step(element, index), 8 * index * size_of(access.btf, element)), element
    raise BpfnicError(f"no member {index} in {access.btf.describe(type.number)}")


def _is_open(access: Access, array: Type) -> bool:
    """Whether an array at an access's end is the last member of its structure, and without length."""
    last = access.steps[-1]
    return bool(last.name) and array.count == 0 and last.index == len(access.btf[last.type].parts) - 1


def matched(local: Access, kind: CoreKind, target: Btf, candidate: int) -> Access | None:
    """The same field or enumerator in type `candidate`; None where it isn't there, or is another thing."""
    access = Access(target, candidate)
    if kind.of_enumerator:
        enumeration = target.resolve(candidate)
        wanted = essential(local.steps[0].name)
        if enumeration.kind in ENUMS:
            for index, part in enumerate(enumeration.parts):
                if essential(part.name) == wanted:
                    return replace(access, steps=(Step(enumeration.number, index, part.name),))
        return None
    number = candidate
    for place, step in enumerate(local.steps):
        type = target.resolve(number)
        if step.name:
            found = _member(access, type, step.name)
            if found is None:
                return None
            access, number = found
            member = local.btf[step.type].parts[step.index]
            if not fields_are_compatible(local.btf, member.type, target, number):
                return None
        else:
            if place:  # the first is the root itself
                if type.kind is not Kind.ARRAY or not (step.index < type.count or _is_open(access, type)):
                    return None
                type = target.resolve(type.target)
            number = type.number
            access = access.then(Step(number, step.index), 8 * step.index * size_of(target, number))
    return access


def _member(access: Access, type: Type, name: str) -> tuple[Access, int] | None:
    """The access to a member of that name, in `type` or an anonymous member of it, and its type."""
    if type.kind not in COMPOSITES:
        return None
    for index, member in enumerate(type.parts):
        if member.name == name:
            return access.then(Step(type.number, index, name), member.offset), member.type
        if not member.name:
            inner = replace(access, bits=access.bits + member.offset, indexes=access.indexes + 1)
            if found := _member(inner, access.btf.resolve(member.type), name):
                return found
    return None
