"""RFC 9669 as expressions: what each row of the instruction table does, and which words are instances of it.

Written from the RFC's text, as Amaranth values; nothing of hdl/ is used. Lines of the tables name the operation of
isa.ROWS; operands come cut to the row's width.
"""

from amaranth import Cat, Const, Value

from bpfnic.spec import isa
from bpfnic.spec.isa import Legal, Operation, Row

ARITHMETIC = {  # section 4.1: a is dst, b is src or imm
    Operation.ADD: lambda a, b: a + b,
    Operation.SUB: lambda a, b: a - b,
    Operation.OR: lambda a, b: a | b,
    Operation.AND: lambda a, b: a & b,
    Operation.XOR: lambda a, b: a ^ b,
    Operation.LSH: lambda a, b: a << _count(b),
    Operation.RSH: lambda a, b: a >> _count(b),
    Operation.ARSH: lambda a, b: a.as_signed() >> _count(b),
    Operation.NEG: lambda a, b: -a,
    Operation.MOV: lambda a, b: b,
    Operation.LE: lambda a, b: a,  # section 4.2, on a little-endian host
    Operation.BE: lambda a, b: _reversed(a),
    Operation.BSWAP: lambda a, b: _reversed(a),
}

CONDITIONS = {  # section 4.3
    Operation.JEQ: lambda a, b: a == b,
    Operation.JGT: lambda a, b: a > b,
    Operation.JGE: lambda a, b: a >= b,
    Operation.JSET: lambda a, b: (a & b) != 0,
    Operation.JNE: lambda a, b: a != b,
    Operation.JSGT: lambda a, b: a.as_signed() > b.as_signed(),
    Operation.JSGE: lambda a, b: a.as_signed() >= b.as_signed(),
    Operation.JLT: lambda a, b: a < b,
    Operation.JLE: lambda a, b: a <= b,
    Operation.JSLT: lambda a, b: a.as_signed() < b.as_signed(),
    Operation.JSLE: lambda a, b: a.as_signed() <= b.as_signed(),
}


def _count(b: Value) -> Value:
    """"Shift operations use a mask of 0x3F (63) for 64-bit operations and 0x1F (31) for 32-bit operations" (4.1)."""
    return b[: 6 if len(b) == 64 else 5]


def _reversed(a: Value) -> Value:
    return Cat(a.word_select(byte, 8) for byte in reversed(range(len(a) // 8)))


def operands(row: Row, dst: Value, src: Value, imm: Value) -> tuple[Value, Value]:
    """a and b of the tables: the low `row.width` bits of dst, and of src or the sign-extended imm (section 4)."""
    return dst[: row.width], (src if row.register_operand else _extended(imm, 64))[: row.width]


def _extended(value: Value, bits: int) -> Value:
    """`value`, sign-extended to `bits`."""
    return Cat(value, value[-1].replicate(bits - len(value)))


def result(row: Row, dst: Value, src: Value, imm: Value) -> Value:
    """What an arithmetic row leaves in dst: 64 bits. A 32-bit one "zeroes the upper 32 bits" (section 4.1)."""
    a, b = operands(row, dst, src, imm)
    if row.operation is Operation.MOVSX:  # "sign-extends" the low `offset` bits to 32 or 64
        return _zero_extended(_extended(b[: row.offset], row.width))
    return _zero_extended(ARITHMETIC[row.operation](a, b)[: row.width])


def _zero_extended(value: Value) -> Value:
    return Cat(value, Const(0, 64 - len(value)))


def holds(row: Row, dst: Value, src: Value, imm: Value) -> Value:
    """Whether a conditional jump is taken."""
    return CONDITIONS[row.operation](*operands(row, dst, src, imm))


def matches(row: Row, instruction) -> Value:
    """Whether `instruction` (fields opcode, dst, src, offset, imm) has the row's opcode, and its integer in the field
    that tells rows of this opcode apart."""
    field = isa.DISCRIMINATOR[row.opcode]
    found = instruction.opcode == row.opcode
    return found if field is None else found & (getattr(instruction, field) == getattr(row, field))


def legal(row: Row, instruction) -> Value:
    """Whether `instruction` is an instance of the row, its second slot aside: what `isa.refusals` says of numbers."""
    conditions = [instruction.opcode == row.opcode]
    for name in ("dst", "src", "offset", "imm"):
        value, allowed = getattr(instruction, name), getattr(row, name)
        if isinstance(allowed, int):
            conditions.append(value == allowed)
        elif allowed is Legal.REGISTER:
            conditions.append(value <= 10)
        elif allowed is Legal.WRITTEN:
            conditions.append(value <= 9)
        elif allowed is Legal.FRAME:
            conditions.append((value[:4] == 0) & (value <= 512))
    return Cat(conditions).all()
