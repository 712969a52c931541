"""What a register or a place on the stack holds. All of it is immutable, and shared between states."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from bpfnic.host.verifier.scalar import UNKNOWN, Scalar, constant, unsigned_upto

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition


class Kind(Enum):
    """What kind of thing. The value is Linux's name for it in the log."""

    NONE = "?"
    """Nothing that may be read: never written, or made unusable by a call."""
    NUMBER = "scalar"
    CONTEXT = "ctx"
    STACK = "fp"
    PACKET = "pkt"
    META = "pkt_meta"
    END = "pkt_end"
    MAP = "map_ptr"
    VALUE = "map_value"
    MEMORY = "mem"
    RECORD = "ringbuf_mem"
    FUNCTION = "func"
    ITERATOR = "iter_num"
    """On the stack alone."""
    ITEM = "rdonly_mem"

    __hash__ = object.__hash__


NONE, NUMBER, CONTEXT, STACK, PACKET, META, END, MAP, VALUE, MEMORY, RECORD, FUNCTION, ITERATOR, ITEM = Kind

PACKET_KINDS = (PACKET, META)
"""Pointers into the packet."""

BEYOND_END = -2
"""`range` of a packet pointer that is known to lie behind the packet's end; AT_END: at it or behind it."""
AT_END = -1


class Held:
    """What a register holds.

    `kind`; `number`: a NUMBER itself, of a pointer the part of its distance that isn't constant; `off`: the constant
    part (of a NUMBER: what was added since it got its `id`, in 32 bits if `word`; links.py). `id` is the same of all
    copies of the same unknown number, packet pointer or pointer that may be null, else 0. `range`: bytes of the packet
    behind the base of the pointers of that id that may be accessed. `map`: of MAP and VALUE. `size`: bytes of MEMORY,
    ITEM and RECORD. `frame`: of STACK, which function's. `nullable`: it may be 0 instead. `ref`: what must be given
    back, by number. `target`: of FUNCTION, its first slot."""

    __slots__ = ("kind", "number", "off", "id", "range", "map", "size", "frame", "nullable", "ref", "target", "word")

    def __init__(
        self,
        kind: Kind,
        number: Scalar,
        off: int = 0,
        id: int = 0,
        range: int = 0,
        map: MapDefinition | None = None,
        size: int = 0,
        frame: int = 0,
        nullable: bool = False,
        ref: int = 0,
        target: int = 0,
        word: bool = False,
    ):
        self.kind, self.number, self.off, self.id, self.range = kind, number, off, id, range
        self.map, self.size, self.frame, self.nullable, self.ref, self.target = map, size, frame, nullable, ref, target
        self.word = word

    def parts(self) -> tuple[object, ...]:
        return (self.kind, self.number.parts(), self.off, self.id, self.range, id(self.map) if self.map else 0,
                self.size, self.frame, self.nullable, self.ref, self.target, self.word)  # fmt: skip

    def but(self, **changes: object) -> Held:
        """A copy with some parts changed."""
        parts = {name: getattr(self, name) for name in Held.__slots__}
        return Held(**(parts | changes))  # type: ignore[arg-type]

    def moved(self, number: Scalar, off: int) -> Held:
        """The pointer at another distance."""
        return Held(self.kind, number, off, self.id, self.range, self.map, self.size, self.frame, self.nullable,
                    self.ref, self.target)  # fmt: skip

    @property
    def pointer(self) -> bool:
        return self.kind is not NUMBER and self.kind is not NONE

    @property
    def constant(self) -> bool:
        """Whether it is one number, known."""
        return self.kind is NUMBER and not self.number.mask


ZERO = constant(0)
NOTHING = Held(NONE, ZERO)
UNKNOWN_NUMBER = Held(NUMBER, UNKNOWN)
_LOADED = {bits: Held(NUMBER, unsigned_upto(bits)) for bits in (8, 16, 32, 64)}


def number(known: Scalar) -> Held:
    """A register with that number."""
    return Held(NUMBER, known)


def loaded(bits: int) -> Held:
    """What a load of that many bits leaves, where nothing is known of what was there."""
    return _LOADED[bits]


class Place:
    """8 aligned bytes of the stack. `bytes`: what each is, lowest address first: `u` never written, `m` written, `0`
    zero, `s` of the spilled register `held` (its lowest byte first, 8 or 4 of them)."""

    __slots__ = ("bytes", "held")

    def __init__(self, bytes: str, held: Held | None = None):
        self.bytes, self.held = bytes, held


UNWRITTEN = Place("uuuuuuuu")
ZEROS = Place("00000000")
