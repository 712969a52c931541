"""Random type graphs, mostly such as Linux takes, and damage to them."""

import struct
from dataclasses import replace

from bpfnic.host.btf import VOID, Kind, Part, Type
from bpfnic.host.btf.encode import encode

_NAMES = ["a", "b_1", "Zed", "_x", "with.dot", "", "1st", "sp ace", "ü", "x" * 600, ".text", "license"]


def random_graph(rng, length=None):
    """A list of types. Each property is now and then what Linux refuses."""
    count = length or rng.randint(1, 12)
    types = [_random_type(rng, number, count) for number in range(1, count + 1)]
    if rng.random() < 0.8:  # otherwise loops and forward references are everywhere
        types = [_settled(rng, type, types) for type in types]
    return types


def _name(rng, usual=0.97):
    return f"n{rng.randint(0, 30)}" if rng.random() < usual else rng.choice(_NAMES)


def _random_type(rng, number, count):
    def other():
        if rng.random() < 0.9 and number > 1:
            return rng.randint(1, number - 1)
        return rng.randint(0, count + (rng.random() < 0.02))

    kind = rng.choice([*Kind][1:] + [Kind.INT] * 3 + [Kind.STRUCT] * 3 + [Kind.PTR] * 2)
    odd = rng.random() < 0.03
    match kind:
        case Kind.INT:
            size = rng.choice([1, 2, 4, 8, 16])
            bits = 8 * size if rng.random() < 0.9 else rng.randint(0, 140)
            detail = rng.choice([0, 1, 1, 2, 4, 3, 8] if odd else [0, 1, 4]) << 24 | bits
            detail |= (rng.randint(0, 20) << 16) if rng.random() < 0.05 else 0
            return Type(number, kind, _name(rng), size, flag=odd and rng.random() < 0.3, detail=detail)
        case Kind.ARRAY:
            length = rng.choice([0, 1, 3, 7, 1 << 30 if odd else 2])
            return Type(number, kind, _name(rng) if odd else "", target=other(), index=other(), count=length)
        case Kind.STRUCT | Kind.UNION:
            return _composite(rng, number, kind, other)
        case Kind.ENUM | Kind.ENUM64:
            parts = tuple(Part(_name(rng, 0.99), value=rng.randint(0, 9)) for _ in range(rng.randint(0, 3)))
            size = rng.choice([1, 2, 4, 8, 3, 0, 16] if odd else [4, 8])
            return Type(number, kind, rng.choice(["", _name(rng)]), size, flag=rng.random() < 0.5, parts=parts)
        case Kind.FWD:
            return Type(number, kind, _name(rng), flag=rng.random() < 0.5)
        case Kind.FUNC:
            return Type(number, kind, _name(rng), target=other(), detail=rng.choice([0, 1, 1, 2] if odd else [0, 1]))
        case Kind.FUNC_PROTO:
            parts = [Part(_name(rng), other()) for _ in range(rng.randint(0, 3))]
            if rng.random() < 0.3:
                parts.append(Part("" if rng.random() < 0.9 else "v", VOID))
            return Type(number, kind, "", target=rng.choice([VOID, other()]), parts=tuple(parts))
        case Kind.VAR:
            return Type(number, kind, _name(rng), target=other(), detail=rng.choice([0, 1, 2] if odd else [0, 1]))
        case Kind.DATASEC:
            parts, at = [], 0
            for _ in range(rng.randint(0, 3)):
                size = rng.choice([1, 4, 8, 64])
                parts.append(Part("", other(), offset=at + rng.choice([0, 0, 4]), size=size))
                at = parts[-1].offset + size - (1 if odd else 0)
            return Type(number, kind, rng.choice([".bss", _name(rng)]), max(at, 1), parts=tuple(parts))
        case Kind.FLOAT:
            return Type(number, kind, _name(rng), rng.choice([2, 4, 8, 12, 16, 3, 32] if odd else [4, 8]))
        case Kind.DECL_TAG:
            component = rng.choice([-1, -1, 0, 1, -2] if odd else [-1, -1, 0])
            return Type(number, kind, _name(rng), target=other(), detail=component & 0xFFFF_FFFF,
                        flag=rng.random() < 0.1)  # fmt: skip
    named = kind in (Kind.TYPEDEF, Kind.TYPE_TAG)
    return Type(number, kind, _name(rng) if named is not odd else "", target=other(),
                flag=kind is Kind.TYPE_TAG and rng.random() < 0.2)  # fmt: skip


def _composite(rng, number, kind, other):
    flag = rng.random() < 0.4
    parts, at = [], 0
    for _ in range(rng.randint(0, 4)):
        bits = rng.randint(1, 34) if flag and rng.random() < 0.4 else 0
        at += rng.choice([0, 0, 8, 64]) if bits or rng.random() < 0.95 else 3
        parts.append(Part(rng.choice(["", _name(rng), _name(rng)]), other(), at if kind is Kind.STRUCT else 0, bits))
        at += bits or 64
    if rng.random() < 0.03:
        rng.shuffle(parts)
    size = (at + 7) // 8 + rng.choice([0, 0, 8, 64, -1 if at else 0])
    return Type(number, kind, rng.choice(["", _name(rng)]), size, flag=flag, parts=tuple(parts))


_REFERRED = {
    Kind.FUNC: {Kind.FUNC_PROTO}, Kind.DATASEC: {Kind.VAR},
    Kind.DECL_TAG: {Kind.STRUCT, Kind.UNION, Kind.FUNC, Kind.VAR, Kind.TYPEDEF},
}  # fmt: skip
_VALUES = set(Kind) - {Kind.UNKN, Kind.FWD, Kind.FUNC, Kind.FUNC_PROTO, Kind.DECL_TAG, Kind.VAR, Kind.DATASEC}


def _settled(rng, type, types):
    """The same type, referring to types that it may refer to, where there are any."""
    wanted = _REFERRED.get(type.kind, _VALUES | ({Kind.FWD, Kind.FUNC_PROTO} if type.kind is Kind.PTR else set()))
    fitting = [one.number for one in types if one.kind in wanted and (one.number < type.number or rng.random() < 0.15)]
    numbers = [one.number for one in types if one.kind is Kind.INT]
    if not fitting:
        return type
    parts = tuple(replace(part, type=rng.choice(fitting)) if part.type else part for part in type.parts)
    if type.kind in (Kind.ENUM, Kind.ENUM64):
        parts = type.parts
    target = rng.choice(fitting) if type.target or type.kind in _REFERRED else VOID
    return replace(type, target=target if type.kind is not Kind.DATASEC else VOID, parts=parts,
                   index=rng.choice(numbers) if numbers and type.index else type.index)  # fmt: skip


def damaged(rng, data):
    """The bytes with one to three of them, or words, changed, left out or put in."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) or 1)
        match rng.randint(0, 4):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                at &= ~3
                word = rng.choice([0, 1, 0xFFFF_FFFF, 1 << 31, 0xFF_FFFF, rng.getrandbits(32), rng.randint(0, 40)])
                data[at : at + 4] = struct.pack("<I", word)
            case 2:
                data[at : at + 1] = bytes([data[at] ^ 1 << rng.randrange(8)] if data else b"")
            case 3 if rng.random() < 0.3:
                del data[at : at + rng.choice([1, 4, 12])]
            case 4 if rng.random() < 0.3:
                data[at:at] = rng.randbytes(rng.choice([1, 4]))
    return bytes(data)


def graph_bytes(rng):
    """`.BTF` of a random graph, one in three damaged."""
    data = encode(random_graph(rng))
    return damaged(rng, data) if rng.random() < 0.33 else data
