"""How C lays out a structure, asked of BTF: alignment, packing, and the padding that makes a compiler put a member
where it is."""

from collections.abc import Iterator

from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import COMPOSITES, ENUMS, MODIFIERS, Kind, Type

_PADS = (("int", 32), ("short", 16), ("char", 8))  # behind long, which is as wide as a pointer


def size_of(btf: Btf, number: int) -> int:
    """Bytes of a member of that type, 0 for what has no size."""
    type = btf.resolve(number)
    return 0 if type.kind in (Kind.FUNC_PROTO, Kind.FUNC, Kind.FWD) else btf.size(number)


def align_of(btf: Btf, number: int) -> int:
    """Bytes to which C aligns a value of that type, 0 for what has no values."""
    type = btf[number]
    while type.kind in MODIFIERS or type.kind is Kind.ARRAY:
        type = btf[type.target]
    if type.kind is Kind.PTR:
        return btf.pointer_bytes
    if type.kind in ENUMS or type.kind in (Kind.INT, Kind.FLOAT):
        return min(btf.pointer_bytes, type.size)
    if type.kind not in COMPOSITES:
        return 0
    largest = 1
    for member in type.parts:
        align = align_of(btf, member.type)
        if not align:
            return 0
        largest = max(largest, align)
        if not member.bits and member.offset % (8 * align):
            return 1
    return 1 if type.size % largest else largest


def is_packed(btf: Btf, structure: Type) -> bool:
    """Whether members, or the size, are where only a packed structure has them."""
    largest = 1
    for member in structure.parts:
        align = align_of(btf, member.type)
        if align and not member.bits and member.offset % (8 * align):
            return True
        largest = max(largest, align)
    return structure.size % largest != 0


def padding(start: int, end: int, align: int, in_bits: bool, pointer_bytes: int) -> Iterator[tuple[str, int]]:
    """Unnamed bitfields (type, width) that move a member from bit `start` to bit `end`, where the compiler would not by
    itself: a member that is aligned to `align` bytes, or a bitfield behind a bitfield (`in_bits`).

    The largest integer to whose boundary one can go without passing `end` fills most of it; up to that boundary the
    compiler often goes alone, and otherwise a width of 0 makes it."""
    if start >= end:
        return
    pads = ("long", 8 * pointer_bytes), *_PADS
    name, width = next((pad for pad in pads if _up(start, pad[1]) <= end), pads[-1])
    boundary = _up(start, width)
    if start < boundary <= end:
        alone = boundary == _up(start, 8 * align) if boundary == end else end - boundary > boundary - start
        if in_bits or not alone:
            yield name, boundary - start if in_bits else 0
        start = boundary
    while start < end:
        bits = min(end - start, width)
        if bits < width:
            name = next(pad for pad, of in reversed(pads) if of >= bits)
        yield name, bits
        start += bits


def _up(bit: int, multiple: int) -> int:
    return -(-bit // multiple) * multiple if multiple else bit
