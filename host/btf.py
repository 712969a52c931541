"""BTF, the types of a BPF object: reading `.BTF`, and turning bytes into values and back by type.

Layout: Documentation/bpf/btf.rst of the kernel, and `struct btf_type` in linux/btf.h. Little-endian, one base (no
split BTF). A type is named by its number; 0 is void.
"""

import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from bpfnic.host import netaddress
from bpfnic.spec.errors import BpfnicError

MAGIC = 0xEB9F
VOID = 0
_DEEPEST = 32  # types within types; the kernel's MAX_RESOLVE_DEPTH


class Kind(IntEnum):
    """BTF_KIND_*: all of them."""

    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


MODIFIERS = frozenset({Kind.TYPEDEF, Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
"""Kinds that only rename or qualify their target."""
NETWORK_ORDER = frozenset({"__be16", "__be32", "__be64"})
"""Typedefs of numbers whose first byte is the highest; a __be32 is an IPv4 address."""
ADDRESSES = frozenset({"in_addr", "in6_addr"})
"""Structures that are an IPv4 or IPv6 address."""
_SIZED = frozenset({Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.DATASEC, Kind.FLOAT})


@dataclass(frozen=True, slots=True)
class Part:
    """What a type is made of: a member (`offset` and `bits` in bits; `bits` is 0 but for a bitfield), a parameter, a
    variable of a section (`offset` and `size` in bytes), or an enumerator (`value`)."""

    name: str
    type: int = VOID
    offset: int = 0
    bits: int = 0
    size: int = 0
    value: int = 0


@dataclass(frozen=True, slots=True)
class Type:
    """One type. `size` in bytes where the kind has one; `target` is the type that it refers to (an array's element, a
    function's result); `flag` is kind_flag; `count` an array's length; `detail` an INT's encoding word, a VAR's or
    FUNC's linkage, a DECL_TAG's component index."""

    number: int
    kind: Kind
    name: str
    size: int = 0
    target: int = VOID
    flag: bool = False
    parts: tuple[Part, ...] = ()
    count: int = 0
    detail: int = 0

    @property
    def bits(self) -> int:
        """Width of an INT in bits."""
        return self.detail & 0xFF

    @property
    def signed(self) -> bool:
        """True of an INT with BTF_INT_SIGNED, and of an enumeration whose kind_flag says so."""
        return bool(self.detail >> 24 & 1) if self.kind is Kind.INT else self.flag

    @property
    def boolean(self) -> bool:
        """True of an INT with BTF_INT_BOOL."""
        return bool(self.detail >> 24 & 4)


class Reader:
    """Little-endian words from bytes, every one checked against the end."""

    def __init__(self, data: bytes, where: str):
        self.data, self.where, self.at = data, where, 0

    def words(self, count: int) -> tuple[int, ...]:
        end = self.at + 4 * count
        if end > len(self.data):
            raise BpfnicError(f"{self.where}: ends at byte {len(self.data)}, inside an entry (truncated?)")
        values = struct.unpack_from(f"<{count}I", self.data, self.at)
        self.at = end
        return values


class Btf:
    """The types of one object. `types[n]` is type n; entry 0 stands for void.

    Raises BpfnicError, naming `where`, for anything that is not well-formed."""

    def __init__(self, data: bytes, where: str = ".BTF"):
        self.where = where
        header, body = read_header(data, where, 24)
        type_offset, type_size, string_offset, string_size = struct.unpack_from("<4I", header, 8)
        if max(type_offset + type_size, string_offset + string_size) > len(body):
            raise BpfnicError(f"{where}: types or strings reach beyond its end (truncated?)")
        self._strings = body[string_offset : string_offset + string_size]
        if self._strings[:1] != b"\0" or self._strings[-1:] != b"\0":
            raise BpfnicError(f"{where}: its strings must begin and end with a zero byte")
        self.types: list[Type] = [Type(0, Kind.INT, "void")]
        reader = Reader(body[type_offset : type_offset + type_size], where)
        while reader.at < len(reader.data):
            self.types.append(self._read(reader, len(self.types)))
        for type in self.types:
            for number in (type.target, *(part.type for part in type.parts)):
                if number >= len(self.types):
                    raise BpfnicError(f"{where}: type {type.number} {type.name!r} refers to type {number}, "
                                      f"of {len(self.types)}")  # fmt: skip
        self._by_name: dict[tuple[Kind, str], int] = {}
        for type in self.types[1:]:
            self._by_name.setdefault((type.kind, type.name), type.number)

    def string(self, offset: int) -> str:
        """The zero-terminated text at that byte of the string table."""
        if offset >= len(self._strings):
            raise BpfnicError(f"{self.where}: string at {offset} of {len(self._strings)} bytes")
        return self._strings[offset : self._strings.index(b"\0", offset)].decode(errors="replace")

    def _read(self, reader: Reader, number: int) -> Type:
        name_offset, info, third = reader.words(3)
        code, length, flag = info >> 24 & 0x1F, info & 0xFFFF, bool(info >> 31)
        name = self.string(name_offset)
        try:
            kind = Kind(code)
        except ValueError:
            raise BpfnicError(f"{self.where}: type {number} {name!r} has unknown kind {code}") from None
        size, target = (third, VOID) if kind in _SIZED else (VOID, third)
        count = detail = 0
        parts: tuple[Part, ...] = ()
        match kind:
            case Kind.INT | Kind.VAR | Kind.DECL_TAG:
                (detail,) = reader.words(1)
            case Kind.FUNC:
                detail = length
            case Kind.ARRAY:
                target, _, count = reader.words(3)
            case Kind.STRUCT | Kind.UNION:
                parts = tuple(self._member(reader.words(3), flag) for _ in range(length))
            case Kind.ENUM:
                sign = 1 << 31 if flag else 0
                parts = tuple(
                    Part(self.string(text), value=(value ^ sign) - sign)
                    for text, value in (reader.words(2) for _ in range(length))
                )
            case Kind.ENUM64:
                sign = 1 << 63 if flag else 0
                parts = tuple(
                    Part(self.string(text), value=((high << 32 | low) ^ sign) - sign)
                    for text, low, high in (reader.words(3) for _ in range(length))
                )
            case Kind.FUNC_PROTO:
                parts = tuple(
                    Part(self.string(text), target) for text, target in (reader.words(2) for _ in range(length))
                )
            case Kind.DATASEC:
                parts = tuple(
                    Part("", variable, offset=offset, size=size)
                    for variable, offset, size in (reader.words(3) for _ in range(length))
                )
            case Kind.FWD:
                target = VOID
        return Type(number, kind, name, size, target, flag, parts, count, detail)

    def _member(self, words: tuple[int, ...], flag: bool) -> Part:
        name, target, offset = words
        bits = offset >> 24 if flag else 0
        return Part(self.string(name), target, offset=offset & 0xFF_FFFF if flag else offset, bits=bits)

    def find(self, kind: Kind, name: str) -> Type | None:
        """The first type of that kind and name."""
        number = self._by_name.get((kind, name))
        return None if number is None else self.types[number]

    def __getitem__(self, number: int) -> Type:
        if not 0 <= number < len(self.types):
            raise BpfnicError(f"{self.where}: there is no type {number}")
        return self.types[number]

    def resolve(self, number: int) -> Type:
        """The type behind typedefs and qualifiers."""
        for _ in range(_DEEPEST):
            type = self[number]
            if number == VOID or type.kind not in MODIFIERS:
                return type
            number = type.target
        raise BpfnicError(f"{self.where}: type {number} never ends")

    def size(self, number: int) -> int:
        """Bytes of a value of that type; 0 for void and functions."""
        return self._size(number, _DEEPEST)

    def _size(self, number: int, depth: int) -> int:
        type = self.resolve(number)
        if not depth:
            raise BpfnicError(f"{self.where}: type {number} contains itself")
        if type.kind is Kind.PTR:
            return 8
        if type.kind is Kind.ARRAY:
            return type.count * self._size(type.target, depth - 1)
        if type.kind is Kind.VAR:
            return self._size(type.target, depth - 1)
        return type.size

    def describe(self, number: int) -> str:
        """The type as C writes it: `struct counter`, `__u32`, `__u8[6]`, `struct x *`."""
        suffix = ""
        for _ in range(_DEEPEST):
            type = self[number]
            if number == VOID:
                return "void" + suffix
            if type.kind is Kind.ARRAY:
                suffix += f"[{type.count}]"
            elif type.kind is Kind.PTR:
                suffix = " *" + suffix.lstrip()
            elif type.kind not in MODIFIERS or type.kind is Kind.TYPEDEF:
                tags = {Kind.STRUCT: "struct ", Kind.UNION: "union ", Kind.ENUM: "enum ", Kind.ENUM64: "enum "}
                return (tags.get(type.kind, "") + type.name).rstrip() + suffix
            number = type.target
        raise BpfnicError(f"{self.where}: type {number} never ends")

    # Bytes to values.

    def format(self, number: int, data: bytes) -> Any:
        """The bytes as a Python value: int, bool or float; an enumerator's name (its number where it has none); text
        for a `char` array that holds text and for addresses (`__be32`, `struct in_addr`, `struct in6_addr`, four
        `__be32`, six unsigned bytes); else a list for an array; a dict by member name for a structure or union, with
        the members of anonymous ones among the rest."""
        return self._format(number, data, _DEEPEST)

    def _format(self, number: int, data: bytes, depth: int) -> Any:
        type = self.resolve(number)
        size = self._size(number, depth)
        if len(data) < size:
            raise BpfnicError(f"{self.describe(number)} has {size} bytes, not {len(data)}")
        data = data[:size]
        if self._is_address(number, type, size):
            return netaddress.format(data)
        match type.kind:
            case Kind.INT if self._names(number) & NETWORK_ORDER:
                return int.from_bytes(data, "big")
            case Kind.INT | Kind.ENUM | Kind.ENUM64:
                return self._name(type, int.from_bytes(data, "little", signed=type.signed))
            case Kind.FLOAT if size in _FLOATS:
                return struct.unpack(_FLOATS[size], data)[0]
            case Kind.ARRAY:
                if self._is_char(type.target) and (text := _text(data)) is not None:
                    return text
                each = self._size(type.target, depth)
                return [self._format(type.target, data[i : i + each], depth - 1)
                        for i in range(0, size, each or 1)]  # fmt: skip
            case Kind.STRUCT | Kind.UNION:
                result: dict[str, Any] = {}
                for member in type.parts:
                    value = self._format_member(member, data, depth)
                    result |= {member.name: value} if member.name else value
                return result
        return int.from_bytes(data, "little")

    def _format_member(self, member: Part, data: bytes, depth: int) -> Any:
        inner = self.resolve(member.type)
        start, width = self._bitfield(member, inner)
        if width:
            value = int.from_bytes(data, "little") >> start & (1 << width) - 1
            if inner.signed and value >> width - 1:
                value -= 1 << width
            return self._name(inner, value)
        value = self._format(member.type, data[member.offset // 8 :], depth - 1)
        return value if member.name or isinstance(value, dict) else {}

    def _bitfield(self, member: Part, inner: Type) -> tuple[int, int]:
        """First bit and width of a bitfield; width 0 for a plain member. Older compilers put them into the INT."""
        if member.bits:
            return member.offset, member.bits
        if inner.kind is Kind.INT and inner.bits != 8 * inner.size:
            return member.offset + (inner.detail >> 16 & 0xFF), inner.bits
        return member.offset, 0

    def _name(self, type: Type, value: int) -> Any:
        if type.boolean and type.kind is Kind.INT and value in (0, 1):
            return bool(value)
        return next((part.name for part in type.parts if part.value == value), value)

    def _is_address(self, number: int, type: Type, size: int) -> bool:
        """Whether a value is read as an address."""
        match type.kind:
            case Kind.INT:
                return size == 4 and "__be32" in self._names(number)
            case Kind.STRUCT:
                return type.name in ADDRESSES and size in (4, 16)
            case Kind.ARRAY if size == 6:
                byte = self.resolve(type.target)
                return byte.kind is Kind.INT and byte.size == 1 and not (byte.signed or byte.boolean)
            case Kind.ARRAY:
                return size == 16 and "__be32" in self._names(type.target)
        return False

    def _is_char(self, number: int) -> bool:
        type = self.resolve(number)
        return type.kind is Kind.INT and type.size == 1 and type.name == "char"

    # Values to bytes.

    def parse(self, number: int, value: Any, name: str = "value") -> bytes:
        """The bytes of a value given as JSON gives it: what `format` returns, and besides numbers as text ("0x10"), an
        IPv4 address as text for any 4 bytes, an IPv6 address for 16 bytes, a MAC address for 6. A number for a
        `__be16`, `__be32` or `__be64` is stored in network order. Members that a dict does not name are 0. Raises
        BpfnicError that says which part (`name`) does not fit."""
        return self._parse(number, value, name, _DEEPEST)

    def _parse(self, number: int, value: Any, name: str, depth: int) -> bytes:
        type = self.resolve(number)
        size = self._size(number, depth)
        match type.kind:
            case Kind.INT | Kind.ENUM | Kind.ENUM64 | Kind.PTR:
                names = self._names(number)
                if isinstance(value, str) and "__be32" in names and (address := netaddress.parse(value, size)):
                    return address
                data = _integer(self._number(type, value, name), size, type.signed, name)
                return data[::-1] if names & NETWORK_ORDER else data
            case Kind.FLOAT if size in _FLOATS:
                if not isinstance(value, int | float):
                    raise BpfnicError(f"{name}: {value!r} is no number")
                return struct.pack(_FLOATS[size], value)
            case Kind.ARRAY:
                return self._parse_array(type, size, value, name, depth)
            case Kind.STRUCT | Kind.UNION:
                return self._parse_structure(type, size, value, name, depth)
        raise BpfnicError(f"{name}: {self.describe(number)} can't be given as a value")

    def _number(self, type: Type, value: Any, name: str) -> int:
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

    def _names(self, number: int) -> set[str]:
        """The names of the typedefs that a type goes by."""
        names: set[str] = set()
        while number != VOID and self[number].kind in MODIFIERS and len(names) < _DEEPEST:
            names.add(self[number].name)
            number = self[number].target
        return names

    def _parse_array(self, type: Type, size: int, value: Any, name: str, depth: int) -> bytes:
        each = self._size(type.target, depth)
        if isinstance(value, str) and "__be32" in self._names(type.target) and (data := netaddress.parse(value, size)):
            return data  # an IPv6 address
        if isinstance(value, str) and each == 1:
            address = None if self._is_char(type.target) else netaddress.parse(value, size)
            data = address or value.encode()
            if address is None and not self._is_char(type.target):
                raise BpfnicError(f"{name}: {value!r} is no address of {size} bytes; give a list")
        elif isinstance(value, bytes | bytearray) and each == 1:
            data = bytes(value)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if len(value) > type.count:
                raise BpfnicError(f"{name}: {len(value)} elements, but it has {type.count}")
            data = b"".join(self._parse(type.target, item, f"{name}[{i}]", depth - 1) for i, item in enumerate(value))
        else:
            raise BpfnicError(f"{name}: {value!r} is no list")
        if len(data) > size:
            raise BpfnicError(f"{name}: {len(data)} bytes, but it has {size}")
        return data.ljust(size, b"\0")

    def _parse_structure(self, type: Type, size: int, value: Any, name: str, depth: int) -> bytes:
        if isinstance(value, str) and (address := netaddress.parse(value, size)):
            return address  # struct in_addr, struct in6_addr
        if not isinstance(value, Mapping):
            raise BpfnicError(f"{name}: {value!r} is no object with members of {self.describe(type.number)}")
        data = bytearray(size)
        for key, item in value.items():
            path = self._path(type, key, depth)
            if path is None:
                raise BpfnicError(f"{name}: {self.describe(type.number)} has no member {key!r}")
            start, member = path
            inner = self.resolve(member.type)
            first, width = self._bitfield(member, inner)
            if width:
                number = self._number(inner, item, f"{name}.{key}")
                _fits(number, width, inner.signed, f"{name}.{key}")
                first += start - member.offset
                whole = int.from_bytes(data, "little") & ~((1 << width) - 1 << first)
                data[:] = (whole | (number & (1 << width) - 1) << first).to_bytes(size, "little")
            else:
                content = self._parse(member.type, item, f"{name}.{key}", depth - 1)
                data[start // 8 : start // 8 + len(content)] = content
        if len(data) != size:
            raise BpfnicError(f"{self.where}: members of type {type.number} reach beyond its {size} bytes")
        return bytes(data)

    def _path(self, type: Type, key: str, depth: int) -> tuple[int, Part] | None:
        """Bit offset in the whole and the member of that name, in `type` or an anonymous member of it."""
        if not depth:
            raise BpfnicError(f"{self.where}: type {type.number} contains itself")
        for member in type.parts:
            if member.name == key:
                return member.offset, member
            inner = self.resolve(member.type)
            if not member.name and inner.kind in (Kind.STRUCT, Kind.UNION):
                found = self._path(inner, key, depth - 1)
                if found:
                    return member.offset + found[0], found[1]
        return None


_FLOATS = {2: "<e", 4: "<f", 8: "<d"}


def read_header(data: bytes, where: str, least: int) -> tuple[bytes, bytes]:
    """The header (by its own length) and what follows it."""
    if len(data) < least:
        raise BpfnicError(f"{where}: {len(data)} bytes are no BTF")
    magic, version, _, length = struct.unpack_from("<HBBI", data)
    if magic != MAGIC:
        if magic == int.from_bytes(MAGIC.to_bytes(2, "little"), "big"):
            raise BpfnicError(f"{where}: big-endian BTF; bpfnic is little-endian (compile with -target bpfel)")
        raise BpfnicError(f"{where}: does not begin as BTF does")
    if version != 1:
        raise BpfnicError(f"{where}: BTF version {version}, not 1")
    if not least <= length <= len(data):
        raise BpfnicError(f"{where}: a header of {length} bytes")
    return data[:length], data[length:]


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
    if not math.log2(size).is_integer():
        raise BpfnicError(f"{name}: a number of {size} bytes")
    _fits(number, 8 * size, signed, name)
    return (number & (1 << 8 * size) - 1).to_bytes(size, "little")
