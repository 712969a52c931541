"""Whether Linux would take a type graph (BPF_BTF_LOAD of Linux 6.18: btf_parse() and what it calls in
kernel/bpf/btf.c), said before it is asked.

First each type alone: names, sizes, reserved bits, members in order and within their structure (btf_check_all_metas).
Then all together: what types refer to is there and of a kind that can be meant; nothing consists of itself; chains end
within 32 steps (btf_check_all_types); tags stand before other qualifiers (btf_check_type_tags)."""

import struct

from bpfnic.host.btf.graph import HEADER_BYTES, MAGIC, WORDS, Btf
from bpfnic.host.btf.kinds import DEEPEST, MODIFIERS, VOID, Kind, Type
from bpfnic.host.btf.naming import is_name, is_section
from bpfnic.host.btf.resolve import Resolution
from bpfnic.spec.errors import BpfnicError

LARGEST = 16 << 20  # bytes: BTF_MAX_SIZE
_MOST_TYPES = 0xF_FFFF  # BTF_MAX_TYPE
_RESERVED = 0x60FF_0000  # bits of a type's second word
_FLOAT_SIZES = (2, 4, 8, 12, 16)
_ENUM_SIZES = (1, 2, 4, 8)
_NO_FLAG = frozenset(Kind) - {Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.FWD, Kind.TYPE_TAG, Kind.DECL_TAG}
_NO_LENGTH = MODIFIERS | {Kind.INT, Kind.PTR, Kind.ARRAY, Kind.FWD, Kind.VAR, Kind.FLOAT, Kind.DECL_TAG}
_UNNAMED = {Kind.PTR, Kind.ARRAY, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.FUNC_PROTO}
_NAMED = {Kind.FWD, Kind.TYPEDEF, Kind.FUNC, Kind.VAR, Kind.DATASEC, Kind.TYPE_TAG, Kind.DECL_TAG}
_WIDEST = 128  # bits of an INT


def check(data: bytes, where: str = ".BTF") -> None:
    """Raises BpfnicError that names `where` and the type, if the kernel would not take these types."""
    _check_header(data, where)
    btf = Btf(data, where, encoding="latin-1")  # as the kernel knows letters, each a byte
    if not len(btf) - 1:
        raise BpfnicError(f"{where}: no types")
    for type in btf:
        if why := _refused_alone(type, btf.words(type.number)):
            raise BpfnicError(f"{where}: type {type.number} ({type.kind.name} {type.name!r}): {why}")
    resolution = Resolution(btf)
    for type in btf:
        resolution.check(type)
    _check_tags(btf)


def _check_header(data: bytes, where: str) -> None:
    if len(data) > LARGEST:
        raise BpfnicError(f"{where}: {len(data)} bytes, above {LARGEST}")
    if len(data) < HEADER_BYTES or data[:2] != MAGIC.to_bytes(2, "little"):
        raise BpfnicError(f"{where}: does not begin as little-endian BTF does")
    _, _, flags, length, type_at, type_size, string_at, string_size = struct.unpack_from("<HBB5I", data)
    if flags:
        raise BpfnicError(f"{where}: flags {flags:#x} in its header")
    if any(data[HEADER_BYTES:length]):
        raise BpfnicError(f"{where}: a header of {length} bytes with more in it than is known")
    if type_at % 4:
        raise BpfnicError(f"{where}: types begin at byte {type_at}, which is no multiple of 4")
    if (type_at, string_at, type_size + string_size) != (0, type_size, len(data) - length):
        raise BpfnicError(f"{where}: types and strings must fill what is behind its header")


def _refused_alone(type: Type, words: tuple[int, ...]) -> str | None:
    """What is wrong with a type by itself, None if nothing is."""
    kind, info = type.kind, words[1]
    if info & _RESERVED:
        return f"reserved bits in {info:#x}"
    if kind in _NO_LENGTH and info & 0xFFFF:
        return f"a number of parts, {info & 0xFFFF}, where there are none"
    if kind in (Kind.ARRAY, Kind.FWD) and words[2]:
        return f"a size or target, {words[2]}, which it can't have"
    if kind in _NO_FLAG and type.flag:
        return "kind_flag, which it can't have"
    if _has_empty_name(type, words):
        return "a name that is empty"
    if why := _refused_name(type):
        return why
    if any(number > _MOST_TYPES for number in type.references()):
        return f"refers to a type above {_MOST_TYPES}"
    match kind:
        case Kind.INT:
            return _refused_int(type)
        case Kind.FLOAT if type.size not in _FLOAT_SIZES:
            return f"a size of {type.size} bytes"
        case Kind.ENUM | Kind.ENUM64:
            if type.size not in _ENUM_SIZES:
                return f"a size of {type.size} bytes"
            return next((f"enumerator {part.name!r} is no name" for part in type.parts if not is_name(part.name)), None)
        case Kind.STRUCT | Kind.UNION:
            return _refused_members(type)
        case Kind.DATASEC:
            return _refused_variables(type)
        case Kind.ARRAY if VOID in (type.target, type.index):
            return "an element or index of type void"
        case Kind.VAR:
            if type.target == VOID:
                return "a variable of type void"
            return None if type.detail in (0, 1) else f"linkage {type.detail}"
        case Kind.FUNC if type.detail > 1:
            return f"linkage {type.detail}"
        case Kind.DECL_TAG if type.component < -1:
            return f"component {type.component}"
    return None


def _has_empty_name(type: Type, words: tuple[int, ...]) -> bool:
    """Whether it says where a name is, and none is there: of itself (numbers may), or a part of it."""
    if words[0] and not type.name and type.kind not in (Kind.INT, Kind.FLOAT):
        return True
    fixed, each = WORDS[type.kind]
    if not each or type.kind is Kind.DATASEC:
        return False
    offsets = words[3 + fixed :: each]
    return any(offset and not part.name for offset, part in zip(offsets, type.parts, strict=True))


def _refused_name(type: Type) -> str | None:
    if type.kind in _UNNAMED:
        return "a name, which it can't have" if type.name else None
    if not type.name:
        return "no name" if type.kind in _NAMED else None
    if type.kind in (Kind.TYPE_TAG, Kind.DECL_TAG, Kind.INT, Kind.FLOAT):
        return None
    if type.kind is Kind.DATASEC:
        return None if is_section(type.name) else "a name that isn't printable"
    return None if is_name(type.name) else "no name that C could have"


def _refused_int(type: Type) -> str | None:
    if type.detail & ~0x0FFF_FFFF:
        return f"reserved bits in {type.detail:#x}"
    bits = type.bits + type.bit_offset
    if bits > _WIDEST or (bits + 7) // 8 > type.size:
        return f"{bits} bits in {type.size} bytes"
    return None if type.encoding in (0, 1, 2, 4) else f"encoding {type.encoding}"


def _refused_members(type: Type) -> str | None:
    last = 0
    for member in type.parts:
        name = member.name or "(anonymous)"
        if member.name and not is_name(member.name):
            return f"member {name!r}: no name that C could have"
        if member.type == VOID:
            return f"member {name!r} of type void"
        if type.kind is Kind.UNION and member.offset:
            return f"member {name!r} of a union at bit {member.offset}"
        if member.offset < last:
            return f"member {name!r} at bit {member.offset}, before the one in front of it"
        if (member.offset + 7) // 8 > type.size:
            return f"member {name!r} at bit {member.offset}, behind its {type.size} bytes"
        last = member.offset
    return None


def _refused_variables(type: Type) -> str | None:
    if not type.size:
        return "a section of 0 bytes"
    end = 0
    for variable in type.parts:
        if variable.type == VOID:
            return "a variable of type void"
        if not end <= variable.offset < type.size:
            return f"a variable at byte {variable.offset}, in front of {end} or behind {type.size}"
        end = variable.offset + variable.size
        if not variable.size or end > type.size:
            return f"a variable of {variable.size} bytes at byte {variable.offset}, of {type.size}"
    return None


def _check_tags(btf: Btf) -> None:
    """Tags come first in a chain of qualifiers, which has 32 at most."""
    good = VOID
    for type in btf:
        if type.kind not in MODIFIERS:
            continue
        behind = type
        in_tags, steps = type.kind is Kind.TYPE_TAG, 0
        while behind.kind in MODIFIERS:
            steps += 1
            if steps > DEEPEST:
                raise BpfnicError(f"{btf.where}: type {type.number}: more than {DEEPEST} qualifiers")
            if behind.kind is Kind.TYPE_TAG and not in_tags:
                raise BpfnicError(f"{btf.where}: type {type.number}: a tag behind another qualifier")
            in_tags = in_tags and behind.kind is Kind.TYPE_TAG
            if behind.number <= good:
                break
            behind = btf[behind.target]
        good = type.number
