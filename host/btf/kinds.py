"""What a type of BTF is (`struct btf_type` in linux/btf.h, and what follows it). A type is named by its number; 0 is
void."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

VOID = 0
DEEPEST = 32  # types within types; the kernel's MAX_RESOLVE_DEPTH


class Kind(IntEnum):
    """BTF_KIND_*: all of them. UNKN is void's, which no file has."""

    UNKN = 0
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


QUALIFIERS = frozenset({Kind.VOLATILE, Kind.CONST, Kind.RESTRICT, Kind.TYPE_TAG})
"""Kinds that only qualify their target (the kernel's modifiers, typedefs left out)."""
MODIFIERS = QUALIFIERS | {Kind.TYPEDEF}
"""Kinds that only rename or qualify their target."""
COMPOSITES = frozenset({Kind.STRUCT, Kind.UNION})
ENUMS = frozenset({Kind.ENUM, Kind.ENUM64})
SIZED = frozenset({Kind.INT, Kind.STRUCT, Kind.UNION, Kind.ENUM, Kind.ENUM64, Kind.DATASEC, Kind.FLOAT})
"""Kinds whose third word is a size in bytes; of the others it is the target's number."""


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
    function's result); `flag` is kind_flag; `count` and `index` an array's length and the type of its index; `detail`
    an INT's encoding word, a VAR's or FUNC's linkage, a DECL_TAG's component index."""

    number: int
    kind: Kind
    name: str
    size: int = 0
    target: int = VOID
    flag: bool = False
    parts: tuple[Part, ...] = ()
    count: int = 0
    detail: int = 0
    index: int = VOID

    @property
    def bits(self) -> int:
        """Width of an INT in bits."""
        return self.detail & 0xFF

    @property
    def bit_offset(self) -> int:
        """First bit of an INT in its bytes: not 0 only in the bitfields of old compilers."""
        return self.detail >> 16 & 0xFF

    @property
    def encoding(self) -> int:
        """An INT's BTF_INT_SIGNED 1, BTF_INT_CHAR 2, BTF_INT_BOOL 4."""
        return self.detail >> 24 & 0xF

    @property
    def signed(self) -> bool:
        """True of an INT with BTF_INT_SIGNED, and of an enumeration whose kind_flag says so."""
        return bool(self.encoding & 1) if self.kind is Kind.INT else self.flag

    @property
    def boolean(self) -> bool:
        """True of an INT with BTF_INT_BOOL."""
        return bool(self.encoding & 4)

    @property
    def component(self) -> int:
        """Which member or parameter a DECL_TAG is about; -1 for the whole."""
        return (self.detail ^ 1 << 31) - (1 << 31)

    def references(self) -> Iterator[int]:
        """The numbers of the types that this one refers to."""
        if self.kind not in SIZED:
            yield self.target
        if self.kind is Kind.ARRAY:
            yield self.index
        if self.kind not in ENUMS:
            for part in self.parts:
                yield part.type
