"""Types of an object that brings along what they build upon, a distilled base, put upon the types of a kernel (libbpf:
btf__relocate).

A distilled base (`.BTF.base`) has of each type no more than finds it again: a name, a size where values depend on it,
and of a structure or union of which there are only pointers a declaration (FWD)."""

from collections.abc import Iterator

from bpfnic.host.btf.encode import encode
from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import COMPOSITES, ENUMS, MODIFIERS, VOID, Kind, Type
from bpfnic.host.btf.merge import renumbered
from bpfnic.spec.errors import BpfnicError


def rebase(types: Btf, distilled: Btf, base: Btf) -> Btf:
    """`types`, which build upon `distilled`, upon `base`. Raises BpfnicError: a type of `distilled` isn't in `base`, or
    there are several that it could be."""
    alike: dict[str, list[Type]] = {type.name: [] for type in distilled}
    for number in range(1, len(base)):
        if base[number].name in alike:
            alike[base[number].name].append(base[number])
    embedded = {number for type in types for number in _embedded(types, type)}
    numbers = {VOID: VOID} | {type.number: type.number - types.first + len(base) for type in types}
    for type in distilled:
        found = [other.number for other in alike[type.name] if _is(type, other, alike, type.number in embedded)]
        if len(found) != 1:
            has = f"has {len(found)} (types {', '.join(map(str, found))})" if found else "has none"
            raise BpfnicError(f"{types.where}: builds upon {type.kind.name} {type.name!r} of {type.size} bytes "
                              f"(.BTF.base, type {type.number}), of which {base.where} {has}")  # fmt: skip
        numbers[type.number] = found[0]
    return Btf(encode((renumbered(type, numbers) for type in types), types.order, base), types.where, base)


def _embedded(types: Btf, type: Type) -> Iterator[int]:
    """The structures and unions of which it has one as a member, or an array."""
    for part in type.parts if type.kind in COMPOSITES else ():
        inner = types[part.type]
        while inner.kind in MODIFIERS or inner.kind is Kind.ARRAY:
            inner = types[inner.target]
        if inner.kind in COMPOSITES:
            yield inner.number


def _is(type: Type, other: Type, alike: dict[str, list[Type]], embedded: bool) -> bool:
    """Can a type of a distilled base be that one, which has its name?"""
    same_size = type.size == other.size
    match type.kind:
        case Kind.INT:
            return other.kind is Kind.INT and same_size and type.encoding == other.encoding
        case Kind.FLOAT:
            return other.kind is Kind.FLOAT and same_size
        case Kind.ENUM | Kind.ENUM64:
            return other.kind in ENUMS and same_size
        case Kind.STRUCT | Kind.UNION:
            several = sum(each.kind in COMPOSITES for each in alike[type.name]) > 1
            return other.kind is type.kind and (same_size or not (embedded or several))
        case Kind.FWD:
            declared = Kind.UNION if type.flag else Kind.STRUCT
            return other.kind is declared or (other.kind is Kind.FWD and other.flag == type.flag)
    return False
