"""In which order bpftool prints all types of a graph as C: by what they are and are called, so that headers of two
kernels can be compared."""

from collections.abc import Callable
from functools import cache

from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import COMPOSITES, ENUMS, MODIFIERS, Kind, Type

_LAST = 10
_REFERRING = MODIFIERS | {Kind.PTR, Kind.DECL_TAG}


def arranged(btf: Btf) -> list[int]:
    """Numbers of types. The first in order is left out, as bpftool does, which counts void among them and then passes
    over the first: it is there only where another type needs it."""
    hashes = _hasher(btf)

    def key(number: int) -> tuple[int, str, str, int, int]:
        return _rank(btf, btf[number]), _sort_name(btf, btf[number]), btf[number].name, hashes(number, True), number

    return sorted(range(len(btf)), key=key)[1:]


def _rank(btf: Btf, type: Type) -> int:
    """Enumerations first, then numbers, structures, functions; last what has no name. A type that refers to others,
    and that or one of which has a name, is with the last of them."""
    named = bool(type.name)
    while type.kind in _REFERRING or type.kind is Kind.ARRAY:
        if not named:
            return _LAST
        type = btf[type.target]
    if type.kind in ENUMS:
        return 1 if named or type.name else 0
    if type.kind in (Kind.INT, Kind.FLOAT):
        return 2
    if type.kind in COMPOSITES or type.kind is Kind.FUNC_PROTO:
        return (3 if type.kind in COMPOSITES else 4) if named or type.name else _LAST
    return _LAST


def _sort_name(btf: Btf, type: Type) -> str:
    if type.kind in ENUMS and not type.name and type.parts:
        return type.parts[0].name
    while type.kind in _REFERRING or type.kind is Kind.ARRAY:
        type = btf[type.target]
    return type.name


def _hasher(btf: Btf) -> Callable[[int, bool], int]:
    """Tells types of one name apart by their members' names."""

    @cache
    def of(number: int, members: bool) -> int:
        type = btf[number]
        value = _with_name(0, type.name)
        if type.kind in ENUMS:
            for part in type.parts:
                value = _with_name(value, part.name)
        elif type.kind in COMPOSITES and members:
            for part in type.parts:
                value = _with(_with_name(value, part.name), of(part.type, False))
        elif type.kind in _REFERRING:
            value = _with(value, of(type.target, members))
        elif type.kind is Kind.ARRAY:
            value = _with(_with(value, type.count), of(type.target, members))
        return value

    return of


def _with(value: int, other: int) -> int:
    return (value * 31 + other) & (1 << 64) - 1


def _with_name(value: int, name: str) -> int:
    return _with(value, _text(name)) if name else value


@cache
def _text(name: str) -> int:
    value = 0
    for byte in name.encode():
        value = _with(value, (byte ^ 0x80) - 0x80)
    return value
