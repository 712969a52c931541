"""Values of BTF types: bytes to what JSON has, and back. Values are little-endian, as the NIC is.

No type may contain itself (Btf.read_all). Raises BpfnicError that says which part of a value doesn't fit, or which type
can't be used."""

import re
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bpfnic.host import netaddress
from bpfnic.host.btf.kinds import COMPOSITES, DEEPEST, MODIFIERS, Kind, Part, Type
from bpfnic.spec.errors import BpfnicError

if TYPE_CHECKING:
    from bpfnic.host.btf.graph import Btf

NETWORK_ORDER = frozenset({"__be16", "__be32", "__be64"})
"""Typedefs of numbers whose first byte is the highest; a __be32 is an IPv4 address."""
ADDRESSES = frozenset({"in_addr", "in6_addr"})
"""Structures that are an IPv4 or IPv6 address."""
_FLOATS = {2: "<e", 4: "<f", 8: "<d"}


def format(btf: "Btf", number: int, data: bytes) -> Any:
    """The bytes as a Python value: int, bool or float; an enumerator's name (its number where it has none); text
    for a `char` array that holds text and for addresses (`__be32`, `struct in_addr`, `struct in6_addr`, four
    `__be32`, six unsigned bytes); else a list for an array; a dict by member name for a structure or union, with
    the members of anonymous ones among the rest."""
    type = btf.resolve(number)
    size = btf.size(number)
    if len(data) < size:
        raise BpfnicError(f"{btf.describe(number)} has {size} bytes, not {len(data)}")
    data = data[:size]
    if _is_address(btf, number, type, size):
        return netaddress.format(data)
    match type.kind:
        case Kind.INT if _names(btf, number) & NETWORK_ORDER:
            return int.from_bytes(data, "big")
        case Kind.INT | Kind.ENUM | Kind.ENUM64:
            return _name(type, int.from_bytes(data, "little", signed=type.signed))
        case Kind.FLOAT if size in _FLOATS:
            return struct.unpack(_FLOATS[size], data)[0]
        case Kind.ARRAY:
            if _is_char(btf, type.target) and (text := _text(data)) is not None:
                return text
            each = btf.size(type.target)
            return [format(btf, type.target, data[i : i + each]) for i in range(0, size, each or 1)]
        case Kind.STRUCT | Kind.UNION:
            result: dict[str, Any] = {}
            for member in type.parts:
                value = _format_member(btf, member, data)
                if member.name:
                    result[member.name] = value
                elif isinstance(value, dict):  # of what else has no name there is nothing to show
                    result |= value
            return result
    return int.from_bytes(data, "little")


def _format_member(btf: "Btf", member: Part, data: bytes) -> Any:
    inner = btf.resolve(member.type)
    start, width = _bitfield(member, inner)
    if width:
        value = int.from_bytes(data, "little") >> start & (1 << width) - 1
        if inner.signed and value >> width - 1:
            value -= 1 << width
        return _name(inner, value)
    return format(btf, member.type, data[member.offset // 8 :])


def _bitfield(member: Part, inner: Type) -> tuple[int, int]:
    """First bit and width of a bitfield; width 0 for a plain member. Older compilers put them into the INT."""
    if member.bits:
        return member.offset, member.bits
    if inner.kind is Kind.INT and inner.bits != 8 * inner.size:
        return member.offset + inner.bit_offset, inner.bits
    return member.offset, 0


def _name(type: Type, value: int) -> Any:
    if type.boolean and type.kind is Kind.INT and value in (0, 1):
        return bool(value)
    return next((part.name for part in type.parts if part.value == value), value)


def _is_address(btf: "Btf", number: int, type: Type, size: int) -> bool:
    """Whether a value is read as an address."""
    match type.kind:
        case Kind.INT:
            return size == 4 and "__be32" in _names(btf, number)
        case Kind.STRUCT:
            return type.name in ADDRESSES and size in (4, 16)
        case Kind.ARRAY if size == 6:
            byte = btf.resolve(type.target)
            return byte.kind is Kind.INT and byte.size == 1 and not (byte.signed or byte.boolean)
        case Kind.ARRAY:
            return size == 16 and "__be32" in _names(btf, type.target)
    return False


def _is_char(btf: "Btf", number: int) -> bool:
    type = btf.resolve(number)
    return type.kind is Kind.INT and type.size == 1 and type.name == "char"


# Values to bytes.


def parse(btf: "Btf", number: int, value: Any, name: str = "value") -> bytes:
    """The bytes of a value given as JSON gives it: what `format` returns, and besides numbers as text ("0x10"), an
    IPv4 address as text for any 4 bytes, an IPv6 address for 16 bytes, a MAC address for 6. A number for a
    `__be16`, `__be32` or `__be64` is stored in network order. Members that a dict does not name are 0. Raises
    BpfnicError that says which part (`name`) does not fit."""
    type = btf.resolve(number)
    size = btf.size(number)
    match type.kind:
        case Kind.INT | Kind.ENUM | Kind.ENUM64 | Kind.PTR:
            names = _names(btf, number)
            if isinstance(value, str) and "__be32" in names and (address := netaddress.parse(value, size)):
                return address
            data = _integer(_number(type, value, name), size, type.signed, name)
            return data[::-1] if names & NETWORK_ORDER else data
        case Kind.FLOAT if size in _FLOATS:
            if not isinstance(value, int | float):
                raise BpfnicError(f"{name}: {value!r} is no number")
            return struct.pack(_FLOATS[size], value)
        case Kind.ARRAY:
            return _parse_array(btf, type, size, value, name)
        case Kind.STRUCT | Kind.UNION:
            return _parse_structure(btf, type, size, value, name)
    raise BpfnicError(f"{name}: {btf.describe(number)} can't be given as a value")


def _number(type: Type, value: Any, name: str) -> int:
    if isinstance(value, str):
        for part in type.parts:
            if part.name == value:
                return part.value
        try:
            return int(value, 0)
        except ValueError:
            names = ", ".join(part.name for part in type.parts)
            expected = f"one of {names}" if names else "a number"
            raise BpfnicError(f"{name}: {value!r} is not {expected}") from None
    if not isinstance(value, int):
        raise BpfnicError(f"{name}: {value!r} is no number")
    return int(value)


def _names(btf: "Btf", number: int) -> set[str]:
    """The names of the typedefs that a type goes by."""
    names: set[str] = set()
    while btf[number].kind in MODIFIERS and len(names) < DEEPEST:
        names.add(btf[number].name)
        number = btf[number].target
    return names


def _parse_array(btf: "Btf", type: Type, size: int, value: Any, name: str) -> bytes:
    each = btf.size(type.target)
    if isinstance(value, str) and "__be32" in _names(btf, type.target) and (data := netaddress.parse(value, size)):
        return data  # an IPv6 address
    if isinstance(value, str) and each == 1:
        address = None if _is_char(btf, type.target) else netaddress.parse(value, size)
        data = address or value.encode()
        if address is None and not _is_char(btf, type.target):
            raise BpfnicError(f"{name}: {value!r} is no address of {size} bytes; give a list")
    elif isinstance(value, bytes | bytearray) and each == 1:
        data = bytes(value)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > type.count:
            raise BpfnicError(f"{name}: {len(value)} elements, but it has {type.count}")
        data = b"".join(parse(btf, type.target, item, f"{name}[{i}]") for i, item in enumerate(value))
    else:
        raise BpfnicError(f"{name}: {value!r} is no list")
    if len(data) > size:
        raise BpfnicError(f"{name}: {len(data)} bytes, but it has {size}")
    return data.ljust(size, b"\0")


def _parse_structure(btf: "Btf", type: Type, size: int, value: Any, name: str) -> bytes:
    if isinstance(value, str) and (address := netaddress.parse(value, size)):
        return address  # struct in_addr, struct in6_addr
    if not isinstance(value, Mapping):
        raise BpfnicError(f"{name}: {value!r} is no object with members of {btf.describe(type.number)}")
    data = bytearray(size)
    for key, item in value.items():
        path = _path(btf, type, key)
        if path is None:
            raise BpfnicError(f"{name}: {btf.describe(type.number)} has no member {key!r}")
        start, member = path
        inner = btf.resolve(member.type)
        first, width = _bitfield(member, inner)
        if width:
            number = _number(inner, item, f"{name}.{key}")
            _fits(number, width, inner.signed, f"{name}.{key}")
            first += start - member.offset
            whole = int.from_bytes(data, "little") & ~((1 << width) - 1 << first)
            data[:] = (whole | (number & (1 << width) - 1) << first).to_bytes(size, "little")
        else:
            content = parse(btf, member.type, item, f"{name}.{key}")
            data[start // 8 : start // 8 + len(content)] = content
    if len(data) != size:
        raise BpfnicError(f"{btf.where}: members of type {type.number} reach beyond its {size} bytes")
    return bytes(data)


def _path(btf: "Btf", type: Type, key: str) -> tuple[int, Part] | None:
    """Bit offset in the whole and the member of that name, in `type` or an anonymous member of it."""
    for member in type.parts:
        if member.name == key:
            return member.offset, member
        inner = btf.resolve(member.type)
        if not member.name and inner.kind in COMPOSITES:
            found = _path(btf, inner, key)
            if found:
                return member.offset + found[0], found[1]
    return None


def _text(data: bytes) -> str | None:
    """The text in a char array: printable ASCII, then zeros; None for anything else."""
    text = data.rstrip(b"\0")
    return text.decode() if re.fullmatch(rb"[\t\n\r -~]*", text) else None


def _fits(number: int, bits: int, signed: bool, name: str) -> None:
    """Any number whose bits say it without loss: a signed type takes 0xff…, an unsigned one no negative."""
    least = -(1 << bits - 1) if signed else 0
    if not least <= number < 1 << bits:
        raise BpfnicError(f"{name}: {number} does not fit {bits} bits")


def _integer(number: int, size: int, signed: bool, name: str) -> bytes:
    if size not in (1, 2, 4, 8, 16):
        raise BpfnicError(f"{name}: a number of {size} bytes")
    _fits(number, 8 * size, signed, name)
    return (number & (1 << 8 * size) - 1).to_bytes(size, "little")
