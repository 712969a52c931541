"""When a type of a program and one of its target are the same thing for CO-RE, in three degrees.

| for | rule |
| --- | --- |
| a field that is read | any two structures or unions, pointers, floats, integers; enumerations of one name |
| type existence, size and number | one kind; what pointers, arrays and functions are of likewise |
| type matches | each member, enumerator and parameter of the program's type is there, sizes and signs too |

Typedefs and qualifiers count nowhere but for the name of the type asked for itself. (libbpf:
bpf_core_fields_are_compat, __bpf_core_types_are_compat, __bpf_core_types_match.)"""

from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import COMPOSITES, DEEPEST, ENUMS, Kind, Type
from bpfnic.host.btf.naming import essential
from bpfnic.spec.errors import BpfnicError

_TOO_DEEP = f"types nest over {DEEPEST} deep"


def same_kind(one: Type, other: Type) -> bool:
    """Enumerations of 32 and of 64 bits are one kind."""
    return one.kind is other.kind or (one.kind in ENUMS and other.kind in ENUMS)


def fields_are_compatible(local: Btf, one: int, target: Btf, other: int) -> bool:
    for _ in range(DEEPEST):
        mine, its = local.resolve(one), target.resolve(other)
        if mine.kind in COMPOSITES and its.kind in COMPOSITES:
            return True
        if not same_kind(mine, its):
            return False
        if mine.kind in (Kind.PTR, Kind.FLOAT):
            return True
        if mine.kind in ENUMS or mine.kind is Kind.FWD:
            names = essential(mine.name), essential(its.name)
            return not all(names) or names[0] == names[1]
        if mine.kind is Kind.INT:
            return mine.bit_offset == its.bit_offset == 0
        if mine.kind is not Kind.ARRAY:
            return False
        one, other = mine.target, its.target
    raise BpfnicError(_TOO_DEEP)


def types_are_compatible(local: Btf, one: int, target: Btf, other: int, level: int = DEEPEST) -> bool:
    if not same_kind(local[one], target[other]):
        return False
    for _ in range(DEEPEST):
        mine, its = local.resolve(one), target.resolve(other)
        if not same_kind(mine, its):
            return False
        if mine.kind is Kind.INT:
            return mine.bit_offset == its.bit_offset == 0
        if mine.kind is Kind.FUNC_PROTO:
            if len(mine.parts) != len(its.parts):
                return False
            for own, given in zip(mine.parts, its.parts, strict=True):
                if not level:
                    raise BpfnicError(_TOO_DEEP)
                parameter = local.resolve(own.type).number, target, target.resolve(given.type).number
                if not types_are_compatible(local, *parameter, level - 1):
                    return False
        elif mine.kind not in (Kind.PTR, Kind.ARRAY):
            return mine.kind in COMPOSITES or mine.kind in ENUMS or mine.kind in (Kind.UNKN, Kind.FWD)
        one, other = mine.target, its.target
    raise BpfnicError(_TOO_DEEP)


def types_match(
    local: Btf, one: int, target: Btf, other: int, behind_pointer: bool = False, level: int = DEEPEST
) -> bool:
    if level <= 0:
        raise BpfnicError(_TOO_DEEP)
    for _ in range(DEEPEST):
        mine, its = local.resolve(one), target.resolve(other)
        if essential(mine.name) != essential(its.name):
            return False
        if behind_pointer and (mine.kind is Kind.FWD or mine.kind in COMPOSITES):
            return _declares(mine) is _declares(its)
        if not same_kind(mine, its):
            return False
        match mine.kind:
            case Kind.FWD:
                return mine.flag == its.flag
            case Kind.ENUM | Kind.ENUM64:
                names = {essential(part.name) for part in its.parts}
                return mine.size == its.size and all(essential(part.name) in names for part in mine.parts)
            case Kind.STRUCT | Kind.UNION:
                return all(
                    any(types_match(local, part.type, target, given.type, behind_pointer, level - 1)
                        for given in its.parts if essential(given.name) == essential(part.name))
                    for part in mine.parts
                )  # fmt: skip
            case Kind.INT:
                return (mine.size, mine.signed) == (its.size, its.signed)
            case Kind.ARRAY if mine.count != its.count:
                return False
            case Kind.FUNC_PROTO:
                if len(mine.parts) != len(its.parts) or not all(
                    types_match(local, own.type, target, given.type, behind_pointer, level - 1)
                    for own, given in zip(mine.parts, its.parts, strict=True)
                ):
                    return False
            case Kind.PTR:
                behind_pointer = True
            case Kind.ARRAY:
                pass
            case _:
                return mine.kind is Kind.UNKN
        one, other = mine.target, its.target
    raise BpfnicError(_TOO_DEEP)


def _declares(type: Type) -> Kind | None:
    """Structure or union, whether defined or declared alone."""
    if type.kind is Kind.FWD:
        return Kind.UNION if type.flag else Kind.STRUCT
    return type.kind if type.kind in COMPOSITES else None
