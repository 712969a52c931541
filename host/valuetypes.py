"""What the kernel keeps in map values for itself (btf_parse_fields in kernel/bpf/btf.c knows it by its names). A spin
lock is one on a NIC, too. The others, timers, pointers to kernel objects, lists and trees of objects, are none: a map
whose values hold one is refused by name, for a program that takes it for plain bytes would be wrong."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from bpfnic.host.btf import MODIFIERS, VOID, Btf, Kind, Part, Type
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import LOCK_BYTES, LOCK_TYPES

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition

_LOCK = "bpf_spin_lock"
_STRUCTURES = {
    "bpf_timer": "timers",
    "bpf_wq": "work queues",
    "bpf_task_work": "work for tasks",
    "bpf_dynptr": "dynptrs",
    "bpf_list_head": "lists of objects",
    "bpf_list_node": "lists of objects",
    "bpf_rb_root": "trees of objects",
    "bpf_rb_node": "trees of objects",
    "bpf_refcount": "objects that are counted",
    "bpf_res_spin_lock": "resilient spin locks",
}
_TAGS = {
    "kptr": "pointers to kernel objects",
    "kptr_untrusted": "pointers to kernel objects",
    "percpu_kptr": "pointers to kernel objects",
    "uptr": "pointers to user memory",
}
_DEEPEST = 32


def check(definition: "MapDefinition") -> None:
    """Raises BpfnicError naming the map, the member of its values, and what that would need."""
    btf = definition.btf
    if btf is None:
        return
    parts = [Part("", definition.value_type)]
    if definition.variables is not None:
        section = btf.find(Kind.DATASEC, definition.name)
        parts = [Part(btf[one.type].name, btf[one.type].target) for one in section.parts] if section else []
    for part in parts:
        for path, what, needs in _found(btf, part, 0):
            where = "its variable" if definition.variables is not None else "a value's member" if path else "a value"
            name = f"map {definition.name} ({definition.type.name}): {where}{f' {path}' if path else ''}"
            raise BpfnicError(f"{name} is a {what}; bpfnic has no {needs}")
    if lock_offset(definition) is not None and definition.type not in LOCK_TYPES:
        kinds = " and ".join(sorted(kind.name for kind in LOCK_TYPES))
        name = f"map {definition.name} ({definition.type.name})"
        raise BpfnicError(f"{name}: its values have a spin lock, which {kinds} maps may have alone")
    if definition.inner is not None:
        check(definition.inner)


def lock_offset(definition: "MapDefinition") -> int | None:
    """Byte offset of the `struct bpf_spin_lock` in a map's values, None where they have none. Raises BpfnicError naming
    the map: they have two, or one that isn't aligned."""
    if definition.btf is None or definition.variables is not None:
        return None
    locks = list(_locks(definition.btf, Part("", definition.value_type), 0))
    name = f"map {definition.name} ({definition.type.name})"
    if len(locks) > 1:
        raise BpfnicError(f"{name}: its values have two spin locks, {locks[0].name} and {locks[1].name}")
    if locks and locks[0].offset % (8 * LOCK_BYTES):
        raise BpfnicError(f"{name}: the spin lock {locks[0].name} of its values lies at bit {locks[0].offset}")
    return locks[0].offset // 8 if locks else None


def _locks(btf: Btf, part: Part, depth: int) -> Iterator[Part]:
    """Each spin lock in a type, of structures within it too; `offset` counts bits from its beginning."""
    if part.type == VOID or depth == _DEEPEST:
        return
    found = btf.resolve(part.type)
    if found.kind is Kind.STRUCT and found.name == _LOCK:
        yield part
    elif found.kind is Kind.STRUCT:
        for member in found.parts:
            inner = ".".join(name for name in (part.name, member.name) if name)
            yield from _locks(btf, replace(member, name=inner, offset=part.offset + member.offset), depth + 1)


def _found(btf: Btf, part: Part, depth: int) -> Iterator[tuple[str, str, str]]:
    """(where, what it is, what it would need), of all in a type."""
    if part.type == VOID or depth == _DEEPEST:
        return
    tags, found = _stripped(btf, part.type)
    if found.kind is Kind.PTR:
        tags, _ = _stripped(btf, found.target) if found.target != VOID else ([], found)
        for tag in tags:
            if tag in _TAGS:
                yield part.name, f"pointer marked {tag}", _TAGS[tag]
    elif found.kind is Kind.ARRAY:
        yield from _found(btf, replace(part, type=found.target), depth + 1)
    elif found.kind is Kind.STRUCT and found.name in _STRUCTURES:
        yield part.name, f"struct {found.name}", _STRUCTURES[found.name]
    elif found.kind in (Kind.STRUCT, Kind.UNION):
        for member in found.parts:
            inner = ".".join(name for name in (part.name, member.name) if name)
            yield from _found(btf, replace(member, name=inner), depth + 1)


def _stripped(btf: Btf, number: int) -> tuple[list[str], Type]:
    """The type behind what only renames or qualifies it, and the tags on the way."""
    tags, found = [], btf[number]
    for _ in range(_DEEPEST):
        if found.kind not in MODIFIERS or found.target == VOID:
            break
        if found.kind is Kind.TYPE_TAG:
            tags.append(found.name)
        found = btf[found.target]
    return tags, found
