"""Types as `bpftool btf dump file F format raw` prints them: a line a type, an indented line a part."""

from collections.abc import Iterable, Iterator

from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import Kind, Part, Type

_ENCODINGS = {0: "(none)", 1: "SIGNED", 2: "CHAR", 4: "BOOL"}
_LINKAGES = {0: "static", 1: "global", 2: "extern"}


def dump_raw(btf: Btf, roots: Iterable[int] = ()) -> Iterator[str]:
    """The text, a type at a time: of the types `roots`, or all of the file."""
    chosen = [btf[number] for number in roots]
    for type in chosen or btf:
        parts = "".join(f"\n\t{_part(btf, type, part)}" for part in type.parts)
        yield f"[{type.number}] {_name(type.kind)} '{type.name or '(anon)'}'{_detail(type)}{parts}\n"


def _name(kind: Kind) -> str:
    return "UNKNOWN" if kind is Kind.UNKN else kind.name


def _detail(type: Type) -> str:
    size, length = f" size={type.size}", f" vlen={len(type.parts)}"
    match type.kind:
        case Kind.INT:
            encoding = _ENCODINGS.get(type.encoding, "UNKN")
            return f"{size} bits_offset={type.bit_offset} nr_bits={type.bits} encoding={encoding}"
        case Kind.ARRAY:
            return f" type_id={type.target} index_type_id={type.index} nr_elems={type.count}"
        case Kind.STRUCT | Kind.UNION | Kind.DATASEC:
            return size + length
        case Kind.ENUM | Kind.ENUM64:
            return f" encoding={'SIGNED' if type.flag else 'UNSIGNED'}{size}{length}"
        case Kind.FWD:
            return f" fwd_kind={'union' if type.flag else 'struct'}"
        case Kind.FUNC:
            return f" type_id={type.target} linkage={_LINKAGES.get(type.detail, '(unknown)')}"
        case Kind.FUNC_PROTO:
            return f" ret_type_id={type.target}{length}"
        case Kind.VAR:
            return f" type_id={type.target}, linkage={_LINKAGES.get(type.detail, '(unknown)')}"
        case Kind.FLOAT:
            return size
        case Kind.DECL_TAG:
            return f" type_id={type.target} component_idx={type.component}"
        case Kind.UNKN:
            return ""
    return f" type_id={type.target}"


def _part(btf: Btf, type: Type, part: Part) -> str:
    name = f"'{part.name or '(anon)'}'"
    match type.kind:
        case Kind.STRUCT | Kind.UNION:
            width = f" bitfield_size={part.bits}" if part.bits else ""
            return f"{name} type_id={part.type} bits_offset={part.offset}{width}"
        case Kind.ENUM:
            return f"{name} val={part.value}"
        case Kind.ENUM64:
            return f"{name} val={part.value}{'LL' if type.flag else 'ULL'}"
        case Kind.DATASEC:
            variable = btf[part.type]
            what = f" ({_name(variable.kind)} '{variable.name or '(anon)'}')"
            return f"type_id={part.type} offset={part.offset} size={part.size}{what}"
    return f"{name} type_id={part.type}"
