"""Several graphs in one, each type once: what a static linker does with the types of its objects.

Two types are the same where nothing tells them apart: neither what they say themselves, nor what the types say that
they refer to, nor those behind them, through any loop of pointers. So all types are put into one class for each thing
that they say themselves, and classes are split while types of one class refer to types of different classes.

A declaration (FWD) is the definition that another object has, where all definitions of that name are one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import COMPOSITES, VOID, Kind, Type
from bpfnic.spec.errors import BpfnicError


@dataclass(frozen=True)
class Merged:
    """`types` from number 1 on; `numbers`, for each graph, the new number of each of its types by the old one."""

    types: list[Type]
    numbers: list[dict[int, int]]


def merge(graphs: Sequence[Btf]) -> Merged:
    """The types of all graphs (none of them split), in their order. Sections of variables (DATASEC) are left out, which
    depend on where a linker puts the variables; variables (VAR) stay apart, for each is its own. Raises BpfnicError: a
    type refers to such a section."""
    types: list[Type] = [graphs[0][VOID]] if graphs else []
    numbers: list[dict[int, int]] = []
    for graph in graphs:
        kept = [type for type in graph if type.kind is not Kind.DATASEC]
        new = {VOID: VOID} | {type.number: len(types) + i for i, type in enumerate(kept)}
        for type in kept:
            if lost := [number for number in type.references() if number not in new]:
                raise BpfnicError(f"{graph.where}: type {type.number} {type.name!r} refers to section {lost[0]}")
        types += [renumbered(type, new) for type in kept]
        numbers.append(new)
    same = _same(types)
    chosen: dict[int, int] = {}  # the type that stands for a class: a declaration only where there is no other
    for number, type in enumerate(types):
        if same[number] not in chosen or (types[chosen[same[number]]].kind is Kind.FWD and type.kind is not Kind.FWD):
            chosen[same[number]] = number
    places = {number: place for place, number in enumerate(sorted(chosen.values()))}
    final = {number: places[chosen[same[number]]] for number in range(len(types))}
    result = [renumbered(types[number], final) for number in list(places)[1:]]
    return Merged(result, [{old: final[number] for old, number in new.items()} for new in numbers])


def renumbered(type: Type, numbers: dict[int, int]) -> Type:
    """The same type where types have other numbers."""
    parts = type.parts
    if type.kind not in (Kind.ENUM, Kind.ENUM64):
        parts = tuple(replace(part, type=numbers[part.type]) for part in parts)
    return replace(type, number=numbers[type.number], target=numbers[type.target], index=numbers[type.index],
                   parts=parts)  # fmt: skip


def _same(types: Sequence[Type]) -> list[int]:
    """A number of its class for each type."""
    definitions: dict[tuple[bool, str], list[int]] = {}
    for number, type in enumerate(types):
        if type.kind in COMPOSITES and type.name:
            definitions.setdefault((type.kind is Kind.UNION, type.name), []).append(number)
    while True:
        stands_for = [
            definitions[type.flag, type.name][0] if type.kind is Kind.FWD and (type.flag, type.name) in definitions
            else number
            for number, type in enumerate(types)
        ]  # fmt: skip
        classes = _refine(types, stands_for)
        differing = [key for key, found in definitions.items() if len({classes[number] for number in found}) > 1]
        if not differing:
            return classes
        for key in differing:
            del definitions[key]


def _refine(types: Sequence[Type], stands_for: Sequence[int]) -> list[int]:
    classes = _numbered(_says(types[stands_for[number]]) for number in range(len(types)))
    while True:
        finer = _numbered(
            (classes[number], *(classes[other] for other in types[stands_for[number]].references()))
            for number in range(len(types))
        )
        if max(finer) == max(classes):
            return finer
        classes = finer


def _says(type: Type) -> tuple[Any, ...]:
    """What a type says itself."""
    own = type.number if type.kind is Kind.VAR else 0
    parts = tuple((part.name, part.offset, part.bits, part.size, part.value) for part in type.parts)
    return type.kind, type.name, type.size, type.flag, type.count, type.detail, parts, own


def _numbered(keys: Iterable[Any]) -> list[int]:
    """Equal keys get equal numbers, from 0 in the order of their first."""
    seen: dict[Any, int] = {}
    return [seen.setdefault(key, len(seen)) for key in keys]

