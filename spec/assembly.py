"""Assembler and disassembler in the syntax of llvm-objdump -d (and of clang's assembler), both read off `Row.syntax`.

In a row's syntax `{field}` stands for a field of the instruction, written as what it may hold asks for:

- a register's number (`r{dst}` is `r3`),
- `0x5`, `-0x1`: an immediate, a frame size, and `{imm64}`, the constant of a wide instruction (signed here),
- `+0x5`, `-0x3`: a branch distance,
- `+ 0x8`, `- 0x8`: a distance from a base register; `{imm:signed}` writes an immediate like this.

llvm-objdump can't tell calls and 64-bit immediates of different `src` apart; for these the text is bpftool's
(`call pc+0x5`) or RFC 9669's (`r1 = map_by_fd(0x3) ll`), so that assemble(disassemble(x)) == x for every instruction.

The assembler takes one statement a line: an instruction, or `label:`, alone or before an instruction. Comments start
with `;`, `#` or `//`. Numbers are decimal or hexadecimal. A label may stand for a branch distance (`goto loop`,
`if r1 > 3 goto out`, `gotol far`, `may_goto out`, `call function`, `call_firmware routine`,
`r1 = code_addr(function) ll`). As in clang, loads and stores of 32 bits and less may name `w` registers
(`w1 = *(u8 *)(r2 + 0)`): the same instructions.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from bpfnic.spec import isa
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Legal, Operation, Row

_FIELD = re.compile(r"\{(\w+)(:signed)?\}")


def disassemble(instruction: Instruction, row: Row | None = None) -> str:
    """The text of one instruction. Raises BpfnicError, from isa.find, for an illegal one; `row`, its row, saves that
    look-up where the caller has it."""
    row = row or isa.find(instruction)

    def field_text(match: re.Match[str]) -> str:
        field = match[1]
        if field == "imm64":
            return f"{instruction.imm64 - (instruction.imm64 >> 63 << 64):#x}"
        value, legal = getattr(instruction, field), getattr(row, field)
        if legal in (Legal.REGISTER, Legal.WRITTEN):
            return str(value)
        if legal is Legal.SIGNED16 or match[2]:
            return f"{'-' if value < 0 else '+'} {abs(value):#x}"
        return f"{value:{'+' if legal is Legal.BRANCH else ''}#x}"

    return _FIELD.sub(field_text, row.syntax).removesuffix(" frame 0x0")


def assemble(text: str) -> bytes:
    """Program text of `text`. Raises BpfnicError naming the line of what can't be assembled."""
    statements: list[tuple[int, int, str]] = []  # line number, slot, instruction
    labels: dict[str, int] = {}
    slot = 0
    for number, line in enumerate(text.splitlines(), 1):
        line = re.split(r";|#|//", line, maxsplit=1)[0].strip()
        while label := re.match(r"([A-Za-z_.][\w.]*):\s*", line):
            if label[1] in labels:
                raise BpfnicError(f"line {number}: label {label[1]} is defined twice")
            labels[label[1]] = slot
            line = line[label.end() :]
        if line:
            statements.append((number, slot, line))
            slot += 2 if re.search(r"\bll$", line) else 1
    code = bytearray()
    for number, slot, line in statements:
        try:
            code += _instruction(_resolve(line, slot, labels)).encode()
        except BpfnicError as error:
            raise BpfnicError(f"line {number}: `{line}`: {error}") from None
    return bytes(code)


_LABEL = re.compile(
    r"\b(goto|gotol|may_goto|call|call_firmware|code_addr)(\s+|\()(?!pc\b|btf\b)([A-Za-z_.][\w.]*)(?=\)|$)"
)


def _resolve(line: str, slot: int, labels: dict[str, int]) -> str:
    """The line with its label, if it has one, replaced by a distance from the slot behind this one."""

    def distance(match: re.Match[str]) -> str:
        word, space, label = match.groups()
        if label not in labels:
            raise BpfnicError(f"label {label} is not defined")
        # code_addr, too, counts from its first slot + 1, as Linux's BPF_PSEUDO_FUNC does, not from behind its second.
        return f"{word}{space}{'pc' if word == 'call' else ''}{labels[label] - slot - 1:+d}"

    return _LABEL.sub(distance, line)


def _spellings(row: Row) -> Iterator[str]:
    """The syntaxes that the assembler takes for a row: the disassembler's, and what else clang or people write."""
    yield row.syntax
    if row.offset is Legal.FRAME:
        yield row.syntax.removesuffix(" frame {offset}")
    if row.operation is Operation.LD_IND:
        yield row.syntax.replace(" {imm:signed}", "")
    if row.width <= 32 and row.operation is Operation.LDX:
        yield row.syntax.replace("r{dst}", "w{dst}")
    if row.width <= 32 and row.operation is Operation.STX:
        yield row.syntax.replace("r{src}", "w{src}")
    if row.width <= 32 and row.operation is Operation.LOAD_ACQUIRE:  # Linux's verifier log has r
        yield row.syntax.replace("w{dst}", "r{dst}")
    if row.width <= 32 and row.operation is Operation.STORE_RELEASE:
        yield row.syntax.replace("w{src}", "r{src}")


_TOKEN = re.compile(r"[rw]?\{\w+(?::signed)?\}|\w+|[^\w\s]")
_REGISTER = re.compile(r"([rw])(?:(\d+)|\{(\w+)\})")


def _scan(text: str) -> tuple[tuple[str, ...], list[int | str]]:
    """The shape of an instruction's text, which is the same for all instructions of one row (`r#`, `w#` for a register,
    `$` for a number with its sign), and what stood there: an integer, or in a row's syntax the name of a field."""
    shape: list[str] = []
    values: list[int | str] = []
    for token in _TOKEN.findall(text):
        if register := _REGISTER.fullmatch(token):
            shape.append(register[1] + "#")
            values.append(register[3] or int(register[2]))
        elif token[0] == "{" or token[0].isdigit():
            sign = shape.pop() if shape and shape[-1] in ("+", "-") else "+"
            shape.append("$")
            values.append(token[1:-1].removesuffix(":signed") if token[0] == "{" else _number(sign + token))
        else:
            shape.append(token)
    return tuple(shape), values


def _number(text: str) -> int:
    try:
        return int(text, 16 if "x" in text.lower() else 10)
    except ValueError:
        raise BpfnicError(f"{text} is no number") from None


_SHAPES: dict[tuple[str, ...], tuple[Row, list[int | str]]] = {}
for _row in isa.ROWS:
    for _syntax in _spellings(_row):
        _shape, _fields = _scan(_syntax)
        _SHAPES[_shape] = _row, _fields


@lru_cache(1 << 14)  # programs say the same few things over and over
def _instruction(text: str) -> Instruction:
    shape, values = _scan(text)
    if shape not in _SHAPES:
        raise BpfnicError("no such instruction")
    row, places = _SHAPES[shape]
    # Fields that the text leaves out are exact integers, or 0 where the spelling has no place for them.
    legal = {name: getattr(row, name) for name in ("dst", "src", "offset", "imm", "next_imm")}
    fields = {name: value if isinstance(value, int) else 0 for name, value in legal.items()}
    written: dict[str, int] = {}
    for place, value in zip(places, values, strict=True):
        must = place if isinstance(place, int) else written.setdefault(place, int(value))
        if value != must:
            raise BpfnicError(f"r{value} where {row.name} must name r{must}")
    imm64 = written.pop("imm64", None)
    fields |= written
    if imm64 is not None:
        if not -1 << 63 <= imm64 < 1 << 64:
            raise BpfnicError(f"{imm64:#x} does not fit 64 bits")
        fields["imm"], fields["next_imm"] = _signed32(imm64), _signed32(imm64 >> 32)
    elif row.imm is Legal.IMM32 and row.width <= 32 and 1 << 31 <= fields["imm"] < 1 << 32:
        fields["imm"] = _signed32(fields["imm"])  # w1 = 0xffffffff: at 32 bits, unsigned means the same
    next_imm = fields.pop("next_imm")
    instruction = Instruction(row.opcode, **fields, next_imm=None if row.next_imm is None else next_imm)
    if reasons := isa.refusals(row, instruction):
        raise BpfnicError(f"{row.name}: {reasons[0]}")
    return instruction


def _signed32(value: int) -> int:
    return (value & 0xFFFF_FFFF ^ 0x8000_0000) - 0x8000_0000
