"""Loads and stores: whether an access stays within what its pointer leads to, and what a load leaves.

(Kernel: check_mem_access and what it calls.)"""

from typing import TYPE_CHECKING

from bpfnic.host.verifier import context, stack, text
from bpfnic.host.verifier.pointers import LARGEST
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.host.verifier.scalar import constant
from bpfnic.host.verifier.values import (
    CONTEXT,
    END,
    ITEM,
    MEMORY,
    META,
    NUMBER,
    PACKET,
    PACKET_KINDS,
    RECORD,
    STACK,
    UNKNOWN_NUMBER,
    VALUE,
    Held,
    loaded,
    number,
)
from bpfnic.host.verifier.width import SMIN
from bpfnic.spec.maps import MapFlag
from bpfnic.spec.programs import ProgramType

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition
    from bpfnic.host.verifier.walk import Walk

MOST_PACKET = 0xFFFF
"""No packet is longer (MAX_PACKET_OFF)."""


def load(walk: "Walk", base: int, offset: int, size: int) -> Held:
    """What a load of `size` bytes leaves, zero-extended."""
    pointer = walk.readable(base)
    access(walk, base, pointer, offset, size, write=False)
    if pointer.kind is STACK:
        return stack.load(walk, pointer, offset, size)
    if pointer.kind is CONTEXT:
        return context.load(walk, pointer, offset, size)
    if pointer.kind is VALUE and pointer.map is not None and not pointer.number.mask:
        content = pointer.map.constants
        if content is not None:
            at = pointer.off + pointer.number.value + offset
            return number(constant(int.from_bytes(content[at : at + size], "little")))
    return loaded(8 * size)


def store(walk: "Walk", base: int, offset: int, size: int, value: Held, source: int | None) -> None:
    """A store; `source`: the register that `value` is in, None for an immediate or where only the place matters."""
    pointer = walk.readable(base)
    access(walk, base, pointer, offset, size, write=True)
    if pointer.kind is STACK:
        stack.store(walk, pointer, offset, size, value, source)


def atomic(walk: "Walk", base: int, offset: int, size: int) -> None:
    """An access that reads and writes at once."""
    pointer = walk.readable(base)
    if pointer.kind in (CONTEXT, PACKET, META):
        raise Refusal(f"BPF_ATOMIC stores into R{base} {text.kind(pointer)} is not allowed", register=base,
                      why="Atomic operations are for the stack and for map values.")  # fmt: skip
    aligned(walk, base, pointer, offset, size, strict=True)
    access(walk, base, pointer, offset, size, write=False)
    access(walk, base, pointer, offset, size, write=True)
    if pointer.kind is STACK:
        stack.load(walk, pointer, offset, size)
        stack.spoil(walk, pointer, offset, size)


def aligned(walk: "Walk", base: int, pointer: Held, offset: int, size: int, strict: bool) -> None:
    """Raises Refusal for an access that isn't naturally aligned where it has to be."""
    if not strict or size == 1:
        return
    known = pointer.number
    total = known.value + pointer.off + offset
    if total % size or known.mask % size:
        kind = "stack" if pointer.kind is STACK else "value" if pointer.kind is VALUE else ""
        bits = text.tnum(known.value, known.mask)
        raise Refusal(f"misaligned {kind} access off {bits}+{pointer.off}+{offset} size {size}".replace("  ", " "),
                      register=base, why=f"{size} bytes here must lie at a multiple of {size}.")  # fmt: skip


def access(walk: "Walk", base: int, pointer: Held, offset: int, size: int, write: bool) -> None:
    """Raises Refusal unless `size` bytes at `pointer + offset` may be read or written."""
    kind = pointer.kind
    aligned(walk, base, pointer, offset, size, strict=kind is STACK)
    if pointer.nullable:
        raise Refusal(f"R{base} invalid mem access '{text.kind(pointer)}'", register=base,
                      why=f"r{base} may be NULL here.", fix=f"compare r{base} with NULL before this access")
    if kind is PACKET or kind is META:
        if write and walk.subject.type is ProgramType.SOCKET_FILTER:
            raise Refusal("cannot write into packet", register=base)
        packet(walk, base, pointer, offset, size)
    elif kind is STACK:
        stack.within(walk, base, pointer, offset, size, write)
    elif kind is VALUE:
        assert pointer.map
        if pointer.map.flags & (MapFlag.RDONLY_PROG if write else MapFlag.WRONLY_PROG):
            place = f", value_size={pointer.map.value_size} off={pointer.off + offset} size={size}"
            raise forbidden(pointer.map, base, write, place)
        region(walk, base, pointer, offset, size, pointer.map.value_size)
        walk.locks.untouched(pointer, offset, size)
    elif kind is MEMORY or kind is RECORD or kind is ITEM:
        if write and kind is ITEM:
            raise Refusal(f"R{base} cannot write into {text.kind(pointer)}", register=base,
                          why="The iterator's number is only to be read.")  # fmt: skip
        if write and pointer.map is not None:
            raise Refusal(f"write to change key R{base} not allowed", register=base)
        region(walk, base, pointer, offset, size, pointer.size)
    elif kind is CONTEXT:
        context.access(walk, base, pointer, offset, size, write)
    else:
        hint = "It is a number" if kind is NUMBER else "It is none that leads to memory"
        raise Refusal(f"R{base} invalid mem access '{text.kind(pointer)}'", register=base,
                      why=f"r{base} isn't a pointer that this access can go through. {hint}.")  # fmt: skip


def reach(
    walk: "Walk", register: int, pointer: Held, size: int, reads: bool, writes: bool, zero: bool = False
) -> None:
    """Raises Refusal unless a function may access `size` bytes from a pointer on (check_helper_mem_access)."""
    if pointer.kind in PACKET_KINDS:
        if size or not zero:
            packet(walk, register, pointer, 0, size)
    elif pointer.kind is STACK:
        stack.within(walk, register, pointer, 0, size, writes and not reads, zero)
        if reads and size:
            stack.note_read(walk, pointer, 0, size)
    elif pointer.kind is VALUE:
        assert pointer.map
        if writes and pointer.map.flags & MapFlag.RDONLY_PROG:
            raise forbidden(pointer.map, register, write=True)
        if reads and pointer.map.flags & MapFlag.WRONLY_PROG:
            raise forbidden(pointer.map, register, write=False)
        region(walk, register, pointer, 0, size, pointer.map.value_size, zero)
        walk.locks.untouched(pointer, 0, size)
    else:
        if writes and (pointer.map is not None or pointer.kind is ITEM):
            what = "map_key" if pointer.map else text.kind(pointer)
            raise Refusal(f"R{register} cannot write into {what}", register=register)
        region(walk, register, pointer, 0, size, pointer.size, zero)


def forbidden(definition: "MapDefinition", register: int, write: bool, place: str = "") -> Refusal:
    """What an access raises that the map's flags don't let a program make."""
    what, verb = ("write into", "written") if write else ("read from", "read")
    return Refusal(f"{what} map forbidden{place}", register=register,
                   why=f"Values of map {definition.name} may not be {verb} by programs.")  # fmt: skip


def forget_packet(walk: "Walk") -> None:
    """Pointers into the packet are but numbers: what was called may have changed it."""
    for frame, where, held in walk.state.each():
        if held.kind in PACKET_KINDS or held.kind is END:
            walk.state.put(frame, where, UNKNOWN_NUMBER)


def packet(walk: "Walk", base: int, pointer: Held, offset: int, size: int) -> None:
    """An access to the packet: within what was compared with data_end."""
    if pointer.number.smin < 0:
        raise Refusal(
            f"R{base} min value is negative, either use unsigned index or do a if (index >=0) check.", register=base,
            why="What was added to the packet pointer may be negative.")  # fmt: skip
    at = pointer.off + offset
    if pointer.range < 0 or at < 0 or at + size > pointer.range or size <= 0:
        bits = f"off={at} size={size}, R{base}(id={pointer.id},off={at},r={max(pointer.range, 0)})"
        walk.say(f"invalid access to packet, {bits}")
        known = f"only {pointer.range} bytes are known to be there" if pointer.range > 0 else "nothing was compared"
        raise Refusal(
            f"R{base} offset is outside of the packet", register=base,
            why=f"The access needs {at + size} bytes behind the packet pointer's base, and {known} with data_end.",
            fix=f"compare pkt + {at + size} with data_end before this access")  # fmt: skip


def region(walk: "Walk", base: int, pointer: Held, offset: int, size: int, room: int, zero: bool = False) -> None:
    """An access to `room` bytes of memory (check_mem_region_access); `zero`: it may be of no bytes."""
    known, at = pointer.number, pointer.off + offset
    if known.smin < 0 and (known.smin == SMIN or at + known.smin < 0):
        raise Refusal(
            f"R{base} min value is negative, either use unsigned index or do a if (index >=0) check.", register=base,
            why="The index may be negative here.", fix="make it unsigned, or compare it with 0 before this")
    _inside(walk, base, pointer, at + known.smin, size, room, zero, "min")
    if known.umax >= LARGEST:
        raise Refusal(
            f"R{base} unbounded memory access, make sure to bounds check any such access", register=base,
            why="The index has no upper bound here.", fix="compare it with its largest allowed value before this")
    _inside(walk, base, pointer, at + known.umax, size, room, zero, "max")


def _inside(walk: "Walk", base: int, pointer: Held, at: int, size: int, room: int, zero: bool, end: str) -> None:
    if at >= 0 and at + size <= room and (size > 0 or zero):
        return
    if pointer.kind is VALUE:
        walk.say(f"invalid access to map value, value_size={room} off={at} size={size}")
    else:
        walk.say(f"invalid access to memory, mem_size={room} off={at} size={size}")
    raise Refusal(
        f"R{base} {end} value is outside of the allowed memory range", register=base,
        why=f"The access reaches bytes {at} to {at + size - 1} of {room}.",
        fix="bound the index, or make what it indexes larger")  # fmt: skip
