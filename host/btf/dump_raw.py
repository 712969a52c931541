"""Types as `bpftool btf dump` prints them one by one: in format raw a line a type, an indented line a part; in JSON
(-j, and -p with a line each) the same fields by the same names."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import Kind, Part, Type

_ENCODINGS = {0: "(none)", 1: "SIGNED", 2: "CHAR", 4: "BOOL"}
_LINKAGES = {0: "static", 1: "global", 2: "extern"}
_PARTS = {
    Kind.STRUCT: "members", Kind.UNION: "members", Kind.ENUM: "values", Kind.ENUM64: "values",
    Kind.FUNC_PROTO: "params", Kind.DATASEC: "vars",
}  # fmt: skip


def dump_raw(btf: Btf, roots: Iterable[int] = ()) -> Iterator[str]:
    """The text, a type at a time: of the types `roots`, or all of the file."""
    for type in _chosen(btf, roots):
        parts = "".join(f"\n\t{_part(btf, type, part)}" for part in type.parts)
        between = ", " if type.kind is Kind.VAR else " "
        fields = between.join(f"{name}={value}" for name, value in _fields(type).items())
        detail = f" {fields}" if fields else ""
        yield f"[{type.number}] {_name(type.kind)} '{type.name or '(anon)'}'{detail}{parts}\n"


def dump_json(btf: Btf, roots: Iterable[int] = (), pretty: bool = False) -> Iterator[str]:
    """One JSON object with a list `types`, a type at a time; `pretty`: each member in a line of its own, as bpftool -p
    has it."""
    yield f'{{{_line(1, pretty)}"types":{" " * pretty}['
    separator = ""
    for type in _chosen(btf, roots):
        shown = {"id": type.number, "kind": _name(type.kind), "name": type.name or "(anon)", **_fields(type)}
        if type.kind in _PARTS:
            shown[_PARTS[type.kind]] = [_part_fields(type, part) for part in type.parts]
        yield separator + _json(shown, 2, pretty)
        separator = ","
    yield f"{_line(1, pretty and bool(separator))}]{_line(0, pretty)}}}\n"


def _json(value: Any, depth: int, pretty: bool) -> str:
    """A value within `depth` others. What is in a list doesn't begin a line, what ends a list or an object does."""
    start, end = _line(depth + 1, pretty), _line(depth, pretty)
    match value:
        case dict():
            members = (f"{start}{json.dumps(name)}:{' ' * pretty}{_json(each, depth + 1, pretty)}"
                       for name, each in value.items())  # fmt: skip
            return f"{{{','.join(members)}{end}}}"
        case list():
            return f"[{','.join(_json(each, depth + 1, pretty) for each in value)}{end if value else ''}]"
    return json.dumps(value, ensure_ascii=False)


def _line(depth: int, pretty: bool) -> str:
    """What begins a line of pretty JSON."""
    return f"\n{'    ' * depth}" if pretty else ""


def _chosen(btf: Btf, roots: Iterable[int]) -> Iterable[Type]:
    return [btf[number] for number in roots] or btf


def _name(kind: Kind) -> str:
    return "UNKNOWN" if kind is Kind.UNKN else kind.name


def _fields(type: Type) -> dict[str, Any]:
    """What is said of a type besides its name."""
    size, length = {"size": type.size}, {"vlen": len(type.parts)}
    match type.kind:
        case Kind.INT:
            encoding = _ENCODINGS.get(type.encoding, "UNKN")
            return {**size, "bits_offset": type.bit_offset, "nr_bits": type.bits, "encoding": encoding}
        case Kind.ARRAY:
            return {"type_id": type.target, "index_type_id": type.index, "nr_elems": type.count}
        case Kind.STRUCT | Kind.UNION | Kind.DATASEC:
            return {**size, **length}
        case Kind.ENUM | Kind.ENUM64:
            return {"encoding": "SIGNED" if type.flag else "UNSIGNED", **size, **length}
        case Kind.FWD:
            return {"fwd_kind": "union" if type.flag else "struct"}
        case Kind.FUNC | Kind.VAR:
            return {"type_id": type.target, "linkage": _LINKAGES.get(type.detail, "(unknown)")}
        case Kind.FUNC_PROTO:
            return {"ret_type_id": type.target, **length}
        case Kind.FLOAT:
            return size
        case Kind.DECL_TAG:
            return {"type_id": type.target, "component_idx": type.component}
        case Kind.UNKN:
            return {}
    return {"type_id": type.target}


def _part_fields(type: Type, part: Part) -> dict[str, Any]:
    """What is said of a part."""
    if type.kind is Kind.DATASEC:
        return {"type_id": part.type, "offset": part.offset, "size": part.size}
    name = {"name": part.name or "(anon)"}
    match type.kind:
        case Kind.STRUCT | Kind.UNION:
            width = {"bitfield_size": part.bits} if part.bits else {}
            return {**name, "type_id": part.type, "bits_offset": part.offset, **width}
        case Kind.ENUM | Kind.ENUM64:
            return {**name, "val": part.value}
    return {**name, "type_id": part.type}


def _part(btf: Btf, type: Type, part: Part) -> str:
    fields = _part_fields(type, part)
    name = f"'{fields.pop('name')}' " if "name" in fields else ""
    text = name + " ".join(f"{key}={value}" for key, value in fields.items())
    match type.kind:
        case Kind.ENUM64:
            return text + ("LL" if type.flag else "ULL")
        case Kind.DATASEC:
            variable = btf[part.type]
            return f"{text} ({_name(variable.kind)} '{variable.name or '(anon)'}')"
    return text
