"""Byte lanes of a 64-bit word."""

from amaranth import Cat, Const, Module, Signal, Value


def rotate_up(m: Module, word: Value, count: Value) -> Value:
    """`word` with each byte moved up by `count` (3 bits) places, the upper ones coming in below."""
    for level in range(3):
        rotated = Signal(64)
        m.d.comb += rotated.eq(word)
        with m.If(count[level]):
            m.d.comb += rotated.eq(word.rotate_left(8 << level))
        word = rotated
    return word


def even_row(offset: Value) -> Value:
    """Of the 8-byte word at `offset` (bytes) and the one behind it, the row of the one with an even number in a bank of
    such words; the row behind the last one is the first."""
    return (offset[4:] + offset[3])[: len(offset) - 4]


def touched(first: Value, size: Value) -> Value:
    """The 16 lanes of a word and the one behind it, of which 2**`size` (2 bits) are touched from lane `first` (3 bits)
    on."""
    cases = [(log2, lane) for log2 in range(4) for lane in range(8)]
    tables = (sum(1 << (log2 << 3 | lane) for log2, lane in cases if lane <= each < lane + (1 << log2))
              for each in range(16))  # fmt: skip
    return Cat(Const(table, 32).bit_select(Cat(first, size), 1) for table in tables)


def count_run(mask: Value) -> Value:
    """How many ones an 8-bit mask has that is a run from bit 0 on: 4 bits."""

    def bit(weight: int) -> Value:
        return Cat(mask[low] & ~mask[low + weight] for low in range(weight - 1, 7, 2 * weight)).any()

    return Cat(bit(1), bit(2), bit(4), mask[7])


def spread(m: Module, mask: Value) -> Value:
    """Each bit of a byte mask for all 8 bits of its byte."""
    lanes = Signal(len(mask))  # an expression would be written, and simulated, once for each of the bits
    m.d.comb += lanes.eq(mask)
    return Cat(lane.replicate(8) for lane in lanes)
