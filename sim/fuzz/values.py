"""Numbers that hardware gets wrong: the classes that coverage counts, and a source of them."""

import random
from functools import cache

CLASSES = ("0", "1", "-1", "min", "max", "width-1", "width", "word", "+", "-")
"""Of a number of `width` bits: four of its ends, the two shift counts around its width, (of 64 bits) those around the
32-bit line, and any other by its sign."""


@cache
def special(width: int) -> dict[int, str]:
    """The class of each number of `width` bits that is one by itself."""
    sign = 1 << width - 1
    found = {0: "0", 1: "1", 2 * sign - 1: "-1", sign: "min", sign - 1: "max"}
    if width >= 32:
        found |= {width - 1: "width-1", width: "width"}
    if width == 64:
        found |= dict.fromkeys(((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, -(1 << 31) & (1 << 64) - 1), "word")
    return found


def edge(value: int, width: int) -> str:
    """The class of the low `width` bits of a number."""
    value &= (1 << width) - 1
    return special(width).get(value) or ("-" if value >> width - 1 else "+")


@cache
def classes(width: int) -> tuple[str, ...]:
    """The classes that numbers of `width` bits fall into, in order."""
    found = {*special(width).values(), "+", "-"}
    return tuple(name for name in CLASSES if name in found)


@cache
def _immediates(width: int) -> dict[str, tuple[int, ...]]:
    """What signed 32-bit immediates say in `width` bits: those that are a class by themselves, by class."""
    found: dict[str, list[int]] = {}
    for value, name in special(width).items():
        signed = value - (value >> width - 1 << width)
        if -1 << 31 <= signed < 1 << 31:
            found.setdefault(name, []).append(signed)
    return {name: tuple(numbers) for name, numbers in found.items()} | {"+": (), "-": ()}


@cache
def immediate_classes(width: int) -> tuple[str, ...]:
    """The classes of what 32-bit immediates, extended by their sign, say in `width` bits."""
    return tuple(name for name in classes(width) if name in _immediates(width))


@cache
def _of_class(width: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {name: [] for name in classes(width)}
    for value, name in special(width).items():
        found[name].append(value)
    return {name: tuple(values) for name, values in found.items()}


def number(chance: random.Random, width: int) -> int:
    """An unsigned number of `width` bits, of each class as often."""
    name = chance.choice(classes(width))
    if name in ("+", "-"):
        small = chance.getrandbits(width - 1) >> chance.choice((0, 0, width // 2, width - 8))
        return small | (name == "-") << width - 1
    return chance.choice(_of_class(width)[name])


def cell(chance: random.Random) -> int:
    """64 bits that hold a number of 64, 32 or 16 bits, with something above it."""
    width = chance.choice((64, 64, 64, 32, 32, 16))
    above = chance.choice((0, (1 << 64) - 1, chance.getrandbits(64)))
    return number(chance, width) | above >> width << width


def immediate(chance: random.Random, width: int) -> int:
    """A signed 32-bit number, of each class that it can have in `width` bits as often."""
    name = chance.choice(immediate_classes(width))
    if name not in ("+", "-"):
        return chance.choice(_immediates(width)[name])
    size = chance.getrandbits(min(width, 32) - 1) >> chance.choice((0, 0, min(width, 32) - 8))
    return size if name == "+" else -size
