"""Loads and stores of each size at each alignment in each window, and around the windows' ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bpfnic.spec import addresses
from tools.vectors.rfc import bits_of, loaded, signed, stored
from tools.vectors.tables import FRAME, TYPES, UNSIGNED_TYPES, VALUES, WRAPS, Lines, document, table

ROW = 16  # bytes of map memory that an access gets at once
CONTENT = FRAME[:24]
CONSTANTS = (0x7F, -1, -(2**31), 2**31 - 1, 0x12345678)

PACKET_BEGIN = """
    r2 = *(u32 *)(r1 + 4)
    r1 = *(u32 *)(r1 + 0)
    r3 = r1
    r3 += 24
    r0 = 2
    if r3 > r2 goto out
    r1 += $at
"""


def loads() -> Iterable[str]:
    """Eight places of a packet, of map values and of the stack at once."""
    text = "".join(f"r{2 + i} = *($type *)(r1 + {i})\n" for i in range(8))
    names = [f"r{2 + i}" for i in range(8)]
    lines = [
        ((kind, at, CONTENT.hex()), [loaded(CONTENT, at + i, kind) for i in range(8)])
        for kind in TYPES for at in (0, 5, 8)
    ]  # fmt: skip
    columns = ("type", "at")
    cleared = "".join(f"r{register} = 0\n" for register in range(4, 10))  # for where it goes out at once
    packet = f"{cleared}{PACKET_BEGIN}{text}out:\nexit"
    yield table("packet_loads", "5.1", packet, (*columns, "packet"), names, lines)
    text = f"r1 = $map ll\nr1 += $at\n{text}r0 = 0\nexit"
    yield table("map_loads", "5.1", text, (*columns, "map"), names, lines)
    for kind in TYPES:
        size = bits_of(kind) // 8
        places = range(0, 16, size)[:8]
        first, second = (int.from_bytes(CONTENT[i : i + 8], "little") for i in (0, 8))
        text = f"r1 = {first:#x} ll\nr2 = {second:#x} ll\n*(u64 *)(r10 - 16) = r1\n*(u64 *)(r10 - 8) = r2\n"
        text += "".join(f"r{2 + i} = *({kind} *)(r10 - {16 - at})\n" for i, at in enumerate(places))
        results = [loaded(CONTENT, at, kind) for at in places]
        yield table(f"stack_loads_{kind}", "5.1", text + "r0 = 0\nexit", (), names[: len(results)], [((), results)])


def stores() -> Iterable[str]:
    """What a packet and map values hold afterwards."""
    value = VALUES[0]
    for name, what, constant in (("stx", "r4", value), ("st", "$value", None)):
        cases = [(kind, at, value) for kind in UNSIGNED_TYPES for at in range(ROW)]
        if constant is None:
            cases = [(kind, at, each) for kind, at, _ in cases for each in CONSTANTS[: None if at == 7 else 1]]
        lines = [((kind, at, each, CONTENT.hex()), (stored(CONTENT, at, kind, each).hex(),))
                 for kind, at, each in cases]  # fmt: skip
        columns = ("type", "at", "value")
        store = ("r4 = $value ll\n" if constant else "") + f"*($type *)(r1 + 0) = {what}\n"
        yield table(f"packet_{name}", "5.1", f"{PACKET_BEGIN}{store}out:\nexit", (*columns, "packet"), ("packet",),
                    lines)  # fmt: skip
        text = f"r1 = $map ll\nr1 += $at\n{store}r0 = 0\nexit"
        yield table(f"map_{name}", "5.1", text, (*columns, "map"), ("map",), lines)


def misaligned() -> Iterable[str]:
    """The stack and the context ask for natural alignment, a rule of ours (and of Linux's verifier)."""
    for name, access in (("load", "r0 = *($type *)({base} $at)\n"), ("st", "*($type *)({base} $at) = 7\n"),
                         ("stx", "*($type *)({base} $at) = r0\n")):  # fmt: skip
        for base, first in (("r10", -16), ("r1", 0)):
            if base == "r1" and name != "load":
                continue
            lines = [
                ((kind, f"{at:+}"), ("MISALIGNED" if at * 8 % bits_of(kind) else "-",))
                for kind in (TYPES if name == "load" else UNSIGNED_TYPES) for at in range(first, first + 9)
            ]  # fmt: skip
            where = {"r10": "stack", "r1": "context"}[base]
            yield table(f"{where}_alignment_{name}", "-", f"r0 = 0\n{access.format(base=base)}r0 = 2\nexit",
                        ("type", "at"), ("trap",), lines)  # fmt: skip


def ends() -> Iterable[str]:
    """Around both ends of each window, with the base or the offset far away, and a multiple of 2**32 off."""
    data = addresses.PACKET + addresses.HEADROOM
    windows = {
        "context": (addresses.CONTEXT, addresses.CONTEXT + addresses.CONTEXT_BYTES),
        "stack": (addresses.STACK, addresses.STACK_TOP),
        "packet": (data, data + len(FRAME)),
    }

    def cases(kinds: Sequence[str], read_only: bool) -> Lines:
        for kind in kinds:
            size = bits_of(kind) // 8
            inside, outside = ("-", "MEMORY_ACCESS")
            for name, (start, end) in windows.items():
                fine = outside if read_only and name == "context" else inside
                for address, trap in ((start - size, outside), (start - 1, outside), (start, fine),
                                      (end - size, fine), (end - size + 1, outside), (end, outside)):  # fmt: skip
                    for offset in (0, 0x7FFF, -0x8000) if address in (start, end - size, end) else (0,):
                        yield (kind, f"{address - offset:#x}", f"{offset:+}", FRAME.hex()), (trap,)
                for far in (2**32, 2**63, 2**64 - 2**32):
                    yield (kind, f"{start + far:#x}", "+0", FRAME.hex()), (outside,)
            for base, offset in (("$map", -size), ("$map", -1), ("$map_end", -size + 1), ("$map_end", 0)):
                yield (kind, base, f"{offset:+}", FRAME.hex()), (outside,)
            for base, offset in (("$map", 0), ("$map_end", -size)):
                yield (kind, base, f"{offset:+}", FRAME.hex()), (inside,)
            for nowhere, offset in (*WRAPS, (2**32 - size + 1, 0)):
                yield (kind, f"{nowhere:#x}", f"{offset:+}", FRAME.hex()), (outside,)

    for name, access, kinds in (("load", "r0 = *($type *)(r1 $offset)", TYPES),
                                ("st", "*($type *)(r1 $offset) = -1", UNSIGNED_TYPES),
                                ("stx", "*($type *)(r1 $offset) = r0", UNSIGNED_TYPES)):  # fmt: skip
        text = f"r0 = 3\nr1 = $base ll\n{access}\nr0 = 2\nexit"
        yield table(f"window_ends_{name}", "-", text, ("type", "base", "offset", "packet"), ("trap",),
                    cases(kinds, name != "load"))  # fmt: skip


def acquire_and_release() -> Iterable[str]:
    """Extensions of Linux 6.18: as plain loads and stores, but aligned wherever they are (spec/isa.py)."""
    data = addresses.PACKET + addresses.HEADROOM
    for bits in (8, 16, 32, 64):
        size, w = bits // 8, "r" if bits == 64 else "w"
        for name, operation in (("load_acquire", f"{w}0 = load_acquire((u{bits} *)(r1 $offset))"),
                                ("store_release", f"store_release((u{bits} *)(r1 $offset), {w}0)")):  # fmt: skip
            context = "-" if name == "load_acquire" else "MEMORY_ACCESS"
            lines = [
                ((base if isinstance(base, str) else f"{base:#x}", f"{offset:+}", FRAME.hex()), (trap,))
                for base, first, last, inside in (
                    (addresses.CONTEXT, 0, addresses.CONTEXT_BYTES, context), (addresses.STACK, 0, 512, "-"),
                    (data, 0, len(FRAME), "-"), ("$map", 0, None, "-"),
                )
                for offset, trap in (
                    (first - size, "MEMORY_ACCESS"), (first, inside), (first + size, inside),
                    *([(first + 1, "MISALIGNED" if inside == "-" else inside)] if size > 1 else []),
                    *([] if last is None else [(last - size, inside), (last, "MEMORY_ACCESS")]),
                )
            ]  # fmt: skip
            text = f"r0 = -2\nr1 = $base ll\n{operation}\nr0 = 2\nexit"
            yield table(f"{name}{bits}_places", "-", text, ("base", "offset", "packet"), ("trap",), lines)


def packet_group() -> Iterable[str]:
    """LD_ABS, LD_IND (section 5.5): network order; outside the packet the function ends with r0 = 0 before r2 is 22."""

    def found(at: int, size: int) -> tuple[int, int]:
        whole = 0 <= at <= len(FRAME) - size
        return (int.from_bytes(FRAME[at : at + size], "big"), 22) if whole else (0, 0)

    last = len(FRAME)
    places = (*range(9), last - 8, last - 4, last - 3, last - 2, last - 1, last, last + 1, 2**31 - 1, -1, -4, -(2**31))
    indexes = ((0, 0), (5, 0), (0, 5), (7, -7), (6, -7), (last - 4, 0), (last - 3, 1), (2**32 - 1, 1), (2**32 + 3, 2),
               (2**64 - 1, 2), (2**31, -(2**31)), (2**63 + 9, 0), (2**31 - 1, 1), (0, -1), (last, 0))  # fmt: skip
    for kind in UNSIGNED_TYPES[:3]:
        size = bits_of(kind) // 8
        text = f"r2 = 0\nr0 = *({kind} *)skb[$at]\nr2 = 22\nexit"
        yield table(f"ld_abs_{kind}", "5.5", text, ("at", "packet"), ("r0", "r2"),
                    [((at, FRAME.hex()), found(at, size)) for at in places])  # fmt: skip
        text = f"r1 = $index ll\nr2 = 0\nr0 = *({kind} *)skb[r1 $at]\nr2 = 22\nexit"
        lines = [((index, f"{at:+}", FRAME.hex()), found(signed(index + at, 32), size)) for index, at in indexes]
        yield table(f"ld_ind_{kind}", "5.5", text, ("index", "at", "packet"), ("r0", "r2"), lines)


def memory() -> str:
    """The file edges_memory.vec."""
    return document("""
# Loads and stores (RFC 9669 sections 5.1 and 5.2): each size at each alignment in each window, and around the ends of
# all windows. Packets and map values take any alignment, stack and context the natural one (spec/addresses.py).""",
                    [*loads(), *stores(), *misaligned(), *ends(), *acquire_and_release()])  # fmt: skip


def packet() -> str:
    """The file edges_packet.vec."""
    return document("""
# The packet group (RFC 9669 section 5.5, deprecated; what it does is Linux's): every alignment, around the packet's
# end, sums in 32 bits.""", packet_group())
