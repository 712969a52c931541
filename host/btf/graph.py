"""The types of one object, read from `.BTF`, and questions about them: names, sizes, what lies behind a typedef.

A file may build upon another one (split BTF): its types are numbered from where those of the base end, and its strings
go on likewise. Types are read when they are first asked for: a kernel has a hundred thousand."""

import hashlib
import struct
from collections.abc import Callable, Iterator
from typing import Any

from bpfnic.host.btf import values
from bpfnic.host.btf.kinds import COMPOSITES, DEEPEST, MODIFIERS, SIZED, VOID, Kind, Part, Type
from bpfnic.spec.errors import BpfnicError

MAGIC = 0xEB9F
HEADER_BYTES = 24
_DEEPEST = 100  # types within types: what may be walked by recursion
_ORDERS = {MAGIC.to_bytes(2, "little"): "<", MAGIC.to_bytes(2, "big"): ">"}
_VOID = Type(VOID, Kind.UNKN, "")
# Words behind a type's first three: so many, and so many for each part.
WORDS = {kind: (0, 0) for kind in Kind} | {
    Kind.INT: (1, 0), Kind.ARRAY: (3, 0), Kind.STRUCT: (0, 3), Kind.UNION: (0, 3), Kind.ENUM: (0, 2),
    Kind.FUNC_PROTO: (0, 2), Kind.VAR: (1, 0), Kind.DATASEC: (0, 3), Kind.DECL_TAG: (1, 0), Kind.ENUM64: (0, 3),
}  # fmt: skip
_KINDS = tuple(Kind)
_POINTER_BYTES = 8  # of BPF


class Reader:
    """Words of either byte order from a part of a section, every one checked against its end.

    `start` is where the part begins in the section `where`, for messages."""

    def __init__(self, data: bytes, where: str, order: str = "<", start: int = 0):
        self.data, self.where, self.order, self.start, self.at = data, where, order, start, 0

    def words(self, count: int) -> tuple[int, ...]:
        end = self.at + 4 * count
        if end > len(self.data):
            raise BpfnicError(f"{self.where}, offset {self.start + self.at:#x}: ends at byte "
                              f"{self.start + len(self.data)}, inside an entry (truncated?)")  # fmt: skip
        values = struct.unpack_from(f"{self.order}{count}I", self.data, self.at)
        self.at = end
        return values


class Btf:
    """The types of one object, `base` the graph that it builds upon. Entry 0 stands for void. `encoding` of names.

    Raises BpfnicError, naming `where`, for anything that is not well-formed: of the header, the strings, and where
    types begin and end here; of a type itself when it is read, and of all with `read_all`."""

    def __init__(self, data: bytes, where: str = ".BTF", base: "Btf | None" = None, encoding: str = "utf-8"):
        self.where, self.base, self._encoding = where, base, encoding
        self.pointer_bytes: int = base.pointer_bytes if base else _POINTER_BYTES
        """Of every pointer: an object's, but where who opens it knows better."""
        header, body, self.order = read_header(data, where, HEADER_BYTES)
        type_offset, type_size, string_offset, string_size = struct.unpack_from(f"{self.order}4I", header, 8)
        if max(type_offset + type_size, string_offset + string_size) > len(body):
            raise BpfnicError(f"{where}: types or strings reach beyond its {len(data)} bytes (truncated?)")
        self._strings = body[string_offset : string_offset + string_size]
        if (self._strings[:1] != b"\0" and not base) or self._strings[-1:] not in (b"\0", b"" if base else b"\0"):
            raise BpfnicError(f"{where}: its strings must begin and end with a zero byte")
        self.first, self._first_string = (len(base), base.string_bytes) if base else (1, 0)
        self._data, self._start = body[type_offset : type_offset + type_size], len(header) + type_offset
        self.digest: bytes = hashlib.sha256(data + (base.digest if base else b"")).digest()
        """Of all that was read."""
        self._places = self._walk()
        self._read: dict[int, Type] = {}
        self._names: dict[tuple[Kind, str], int] | None = None

    def _walk(self) -> list[int]:
        """Where each type begins."""
        places, at, end = [], 0, len(self._data)
        head = struct.Struct(f"{self.order}2I")
        while at < end:
            places.append(at)
            if at + 12 > end:
                raise self._truncated(at)
            _, info = head.unpack_from(self._data, at)
            code = info >> 24 & 0x1F
            if not 0 < code < len(_KINDS):
                raise BpfnicError(f"{self.where}, offset {self._start + at:#x}: type {self.first + len(places) - 1} "
                                  f"has unknown kind {code}")  # fmt: skip
            fixed, each = WORDS[_KINDS[code]]
            at += 12 + 4 * (fixed + each * (info & 0xFFFF))
        if at > end:
            raise self._truncated(places[-1])
        return places

    def _truncated(self, at: int) -> BpfnicError:
        return BpfnicError(f"{self.where}, offset {self._start + at:#x}: types end at byte "
                           f"{self._start + len(self._data)}, inside this one (truncated?)")  # fmt: skip

    @property
    def string_bytes(self) -> int:
        """Where the strings of a graph that builds upon this one begin."""
        return self._first_string + len(self._strings)

    def string(self, offset: int) -> str:
        """The zero-terminated text at that byte of the string table."""
        if self.base and offset < self._first_string:
            return self.base.string(offset)
        at = offset - self._first_string
        if at >= len(self._strings):
            raise BpfnicError(f"{self.where}: string at {offset} of {self.string_bytes} bytes")
        return self._strings[at : self._strings.index(b"\0", at)].decode(self._encoding, errors="replace")

    def __len__(self) -> int:
        """Numbers of types are below this."""
        return self.first + len(self._places)

    def __getitem__(self, number: int) -> Type:
        found = self._read.get(number)
        if found is not None:
            return found
        if number == VOID:
            return _VOID
        if self.base and 0 < number < self.first:
            return self.base[number]
        if not self.first <= number < len(self):
            raise BpfnicError(f"{self.where}: there is no type {number}")
        found = self._read[number] = self._decode(number)
        return found

    def __iter__(self) -> Iterator[Type]:
        """The types of this file, without void and those of its base."""
        return (self[number] for number in range(self.first, len(self)))

    def read_all(self) -> "Btf":
        """Itself, with each type read, and none that contains itself, or is a pointer to itself without a structure or
        function between: what is wrong is said now."""
        for onwards in (self._within, self._behind):
            ends = {VOID}
            for type in self:
                self._follow(type.number, ends, onwards)
        return self

    def _follow(self, number: int, ends: set[int], onwards: Callable[[int], Iterator[int]]) -> None:
        """Adds a type to `ends`, and those `onwards` from it, if there is an end to that."""
        path = [(number, onwards(number))]
        open = {number}
        while path:
            inner = next((other for other in path[-1][1] if other not in ends and other >= self.first), None)
            if inner is None:
                open.discard(path[-1][0])
                ends.add(path.pop()[0])
            elif inner in open or len(path) == _DEEPEST:
                what = "contains itself" if inner in open else f"nests over {_DEEPEST} deep"
                place = self._start + self._places[inner - self.first]
                raise BpfnicError(f"{self.where}, offset {place:#x}: type {inner} {self[inner].name!r} {what}")
            else:
                path.append((inner, onwards(inner)))
                open.add(inner)

    def _within(self, number: int) -> Iterator[int]:
        """The types whose values are part of a type's."""
        type = self[number]
        if type.kind in MODIFIERS or type.kind in (Kind.ARRAY, Kind.VAR):
            yield type.target
        elif type.kind in COMPOSITES:
            yield from (part.type for part in type.parts)

    def _decode(self, number: int) -> Type:
        place = self._places[number - self.first]
        reader = Reader(self._data, self.where, self.order, self._start)
        reader.at = place
        try:
            type = self._read_type(reader, number)
        except BpfnicError as error:
            prefix = f"{self.where}, offset {self._start + place:#x}: type {number}: "
            raise BpfnicError(prefix + str(error).removeprefix(f"{self.where}: ")) from None
        for other in type.references():
            if other >= len(self):
                raise BpfnicError(f"{self.where}, offset {self._start + place:#x}: type {number} {type.name!r} refers "
                                  f"to type {other}, of {len(self)}")  # fmt: skip
        return type

    def _read_type(self, reader: Reader, number: int) -> Type:
        name_offset, info, third = reader.words(3)
        kind, length, flag = _KINDS[info >> 24 & 0x1F], info & 0xFFFF, bool(info >> 31)
        size, target = (third, VOID) if kind in SIZED else (0, third)
        count = detail = index = 0
        parts: tuple[Part, ...] = ()
        match kind:
            case Kind.INT | Kind.VAR | Kind.DECL_TAG:
                (detail,) = reader.words(1)
            case Kind.FUNC:
                detail = length
            case Kind.ARRAY:
                target, index, count = reader.words(3)
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
        return Type(number, kind, self.string(name_offset), size, target, flag, parts, count, detail, index)

    def _member(self, words: tuple[int, ...], flag: bool) -> Part:
        name, target, offset = words
        bits = offset >> 24 if flag else 0
        return Part(self.string(name), target, offset=offset & 0xFF_FFFF if flag else offset, bits=bits)

    def _behind(self, number: int) -> Iterator[int]:
        """What a pointer, an array, a tag or a name refers to."""
        type = self[number]
        if type.kind in MODIFIERS or type.kind in (Kind.PTR, Kind.ARRAY, Kind.DECL_TAG):
            yield type.target

    def words(self, number: int) -> tuple[int, ...]:
        """A type as it stands in the file: where its name is; kind, kind_flag, length and reserved bits; and so on."""
        at = number - self.first
        end = self._places[at + 1] if at + 1 < len(self._places) else len(self._data)
        place = self._places[at]
        return struct.unpack_from(f"{self.order}{(end - place) // 4}I", self._data, place)

    # Questions.

    def find(self, kind: Kind, name: str) -> Type | None:
        """The first type of that kind and name."""
        found = self.base.find(kind, name) if self.base else None
        if found:
            return found
        if self._names is None:
            self._names = {}
            for number, (of, text) in self.headings():
                self._names.setdefault((of, text), number)
        first = self._names.get((kind, name))
        return None if first is None else self[first]

    def headings(self) -> Iterator[tuple[int, tuple[Kind, str]]]:
        """Number, kind and name of each type of this file, for looking through many."""
        head = struct.Struct(f"{self.order}2I")
        for number, place in enumerate(self._places, self.first):
            name, info = head.unpack_from(self._data, place)
            yield number, (_KINDS[info >> 24 & 0x1F], self.string(name))

    def resolve(self, number: int) -> Type:
        """The type behind typedefs and qualifiers."""
        for _ in range(DEEPEST):
            type = self[number]
            if type.kind not in MODIFIERS:
                return type
            number = type.target
        raise BpfnicError(f"{self.where}: type {number} never ends")

    def size(self, number: int) -> int:
        """Bytes of a value of that type; 0 for void and functions."""
        count = 1
        for _ in range(DEEPEST):
            type = self.resolve(number)
            if type.kind is Kind.PTR:
                return self.pointer_bytes * count
            if type.kind is Kind.ARRAY:
                count *= type.count
            elif type.kind is not Kind.VAR:
                return type.size * count
            number = type.target
        raise BpfnicError(f"{self.where}: type {number} contains itself")

    def describe(self, number: int) -> str:
        """The type as C writes it: `struct counter`, `__u32`, `__u8[6]`, `struct x *`."""
        suffix = ""
        for _ in range(DEEPEST):
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

    def format(self, number: int, data: bytes) -> Any:
        """The bytes as a Python value: values.format."""
        return values.format(self, number, data)

    def parse(self, number: int, value: Any, name: str = "value") -> bytes:
        """The bytes of a value: values.parse."""
        return values.parse(self, number, value, name)


def read_header(data: bytes, where: str, least: int) -> tuple[bytes, bytes, str]:
    """The header (by its own length), what follows it, and the byte order as struct has it."""
    if len(data) < least:
        raise BpfnicError(f"{where}: {len(data)} bytes are no BTF")
    order = _ORDERS.get(data[:2])
    if order is None:
        raise BpfnicError(f"{where}: does not begin as BTF does")
    _, version, _, length = struct.unpack_from(f"{order}HBBI", data)
    if version != 1:
        raise BpfnicError(f"{where}: BTF version {version}, not 1")
    if not least <= length <= len(data):
        raise BpfnicError(f"{where}: a header of {length} bytes, at least {least} of {len(data)} expected")
    return data[:length], data[length:], order
