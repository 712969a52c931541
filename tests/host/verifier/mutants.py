"""Random programs that are nearly safe: pieces that verifiers think about (comparisons with data_end, indexes, spills,
null checks, loops, calls), put together carelessly, and then often with a field changed."""

import random
from dataclasses import replace

from bpfnic.spec import isa
from bpfnic.spec.assembly import assemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import WIDE_OPCODE, decode, encode
from bpfnic.spec.programs import ProgramType
from tests.host.verifier.subjects import subject

_ALU = ("+=", "-=", "*=", "&=", "|=", "^=", "<<=", ">>=", "s>>=", "/=", "%=", "=")
_CONDITIONS = ("==", "!=", "<", "<=", ">", ">=", "s<", "s<=", "s>", "s>=", "&")
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 12, 13, 14, 15, 16, 31, 32, 63, 64, 255, 256, -1, -2, -8, 0xFFFF, 0x7FFF_FFFF,
            -(1 << 31))  # fmt: skip
_SIZES = ("u8", "u16", "u32", "u64")


class Text:
    """One program from a seed. r6: the context, r7: data, r8: data_end, r9: often a map value."""

    def __init__(self, chance: random.Random, type: ProgramType):
        self.chance, self.type = chance, type
        self.lines: list[str] = []
        self.labels = 0
        self.functions: list[str] = []

    def add(self, *lines: str) -> None:
        self.lines += lines

    def any(self) -> int:
        return self.chance.randrange(6)

    def number(self) -> int:
        return self.chance.choice(_NUMBERS)

    def label(self) -> str:
        self.labels += 1
        return f"l{self.labels}"

    def program(self, pieces: int) -> str:
        chance = self.chance
        self.add("r6 = r1")
        if self.type is not ProgramType.SOCKET_FILTER:
            data, end = (0, 4) if self.type is ProgramType.XDP else (76, 80)
            self.add(f"r7 = *(u32 *)(r1 + {data})", f"r8 = *(u32 *)(r1 + {end})")
        else:
            self.add("r7 = 1", "r8 = 2")
        self.look_up()
        self.refill()
        for _ in range(pieces):
            self.piece()
        self.add("out:", "r0 = 1", "exit")
        for name in self.functions:
            self.add(f"{name}:", "r0 = r1")
            if chance.random() < 0.5:
                self.add("if r0 > 9 goto +1", "r0 += 1")
            if chance.random() < 0.3:
                self.add("*(u64 *)(r10 - 16) = 0", "r3 = *(u64 *)(r10 - 16)")
            if chance.random() < 0.3:
                self.add(f"*(u32 *)(r2 + {chance.choice((0, 0, 4, 16))}) = 3")
            self.add("exit")
        return "\n".join(self.lines)

    def refill(self) -> None:
        """Numbers for r0 to r5."""
        for register in range(6):
            if self.chance.random() < 0.97:
                self.add(f"r{register} = {self.number()}" if self.chance.random() < 0.4
                         else f"r{register} = *(u32 *)(r6 + {16 if self.type is ProgramType.XDP else 8})")  # fmt: skip

    def look_up(self) -> None:
        where = self.chance.choice((-4, -8, -8, -16))
        self.add(f"*(u32 *)(r10 {where:+d}) = {self.chance.choice((0, 1, 3, 4, 9))}", "r2 = r10", f"r2 += {where}",
                 f"r1 = map_by_fd({self.chance.choice((0, 0, 0, 7))}) ll", "call 1")  # fmt: skip
        if self.chance.random() < 0.9:
            self.add("if r0 == 0 goto out")
        self.add("r9 = r0")

    def piece(self) -> None:
        chance = self.chance
        kind = chance.randrange(14)
        a, b = self.any(), self.any()
        if kind <= 2:
            self.arithmetic(a, b)
        elif kind <= 4:
            self.condition(a, b)
        elif kind == 5:  # the packet's length
            length = chance.choice((1, 4, 8, 14, 20))
            comparison = chance.choice(("> r8", ">= r8", "> r8"))
            self.add(f"r{a} = r7", f"r{a} += {length}", f"if r{a} {comparison} goto out")
        elif kind == 6:  # an access to the packet
            size = chance.choice(_SIZES)
            base = chance.choice((7, 7, a))
            self.add(f"r{b} = *({size} *)(r{base} + {chance.choice((0, 0, 1, 3, 6, 13))})")
        elif kind == 7:  # an index into the packet
            self.add(f"r{a} = r{b}", f"r{a} &= {chance.choice((7, 15, 255, 0xFFFF))}", f"r{a} += r7",
                     f"r{b} = r{a}", f"r{b} += {chance.choice((1, 4, 8))}", f"if r{b} > r8 goto out",
                     f"r{b} = *({chance.choice(_SIZES)} *)(r{a} + {chance.choice((0, 0, 1, 4))})")  # fmt: skip
        elif kind == 8:  # an index into the map value
            limit = chance.choice((3, 4, 8, 12, 15, 16))
            bound = chance.choice((f"r{a} &= {limit}", f"if r{a} > {limit} goto out", f"if w{a} > {limit} goto out",
                                   f"if r{a} s> {limit} goto out"))  # fmt: skip
            if chance.random() < 0.3:
                self.add(f"r{b} = r{a}", bound)
            else:
                self.add(bound, f"r{b} = r{a}")
            self.add(f"r{a} = r9", f"r{a} += r{chance.choice((b, b, self.any()))}",
                     f"r{b} = *({chance.choice(_SIZES)} *)(r{a} + {chance.choice((0, 0, 0, 1, 4, 8))})")  # fmt: skip
        elif kind == 9:  # the stack
            size = chance.choice(_SIZES)
            width = int(size[1:]) // 8
            where = -width * chance.randrange(1, 5)
            register = chance.choice((a, a, 7, 9, 6))
            if chance.random() < 0.6:
                self.add(f"*({size} *)(r10 {where:+d}) = r{register}")
            else:
                self.add(f"r{a} = *({size} *)(r10 {where:+d})")
        elif kind == 10:  # a loop
            top = self.label()
            comparison, last = chance.choice(("<", "!=", "<")), chance.choice((2, 5, 8))
            self.add(f"r{a} = {chance.choice((0, 0, 1))}", f"{top}:", f"r{b} += 1",
                     f"r{a} += {chance.choice((1, 1, 2))}", f"if r{a} {comparison} {last} goto {top}")  # fmt: skip
        elif kind == 11:  # a function
            if len(self.functions) < 2:
                self.functions.append(f"f{len(self.functions)}")
            self.add(f"r1 = r{a}", f"r2 = r{chance.choice((9, 9, b, 10))}", f"call {chance.choice(self.functions)}")
            self.refill()
        elif kind == 12:
            self.look_up()
            self.refill()
        else:
            self.copies(a, b)

    def arithmetic(self, a: int, b: int) -> None:
        chance, sign, letter = self.chance, self.chance.choice(_ALU), self.chance.choice("rrw")
        if chance.random() < 0.15:
            self.add(f"{letter}{a} = -{letter}{a}")
        elif chance.random() < 0.1:
            self.add(f"r{a} = (s{chance.choice((8, 16, 32))})r{b}")
        elif chance.random() < 0.5:
            self.add(f"{letter}{a} {sign} {letter}{b}")
        else:
            value = chance.randrange(70) if "<<" in sign or ">>" in sign else self.number()
            self.add(f"{letter}{a} {sign} {value}")

    def condition(self, a: int, b: int) -> None:
        chance, letter = self.chance, self.chance.choice("rrw")
        right = f"{letter}{b}" if chance.random() < 0.4 else str(self.number())
        label = self.label()
        self.add(f"if {letter}{a} {chance.choice(_CONDITIONS)} {right} goto {chance.choice((label, 'out'))}")
        for _ in range(chance.randrange(3)):
            self.piece()
        self.add(f"{label}:")

    def copies(self, a: int, b: int) -> None:
        """Copies that are compared."""
        chance, letter = self.chance, self.chance.choice("rrw")
        self.add(f"{letter}{a} = {letter}{b}")
        if chance.random() < 0.5:
            self.add(f"{chance.choice('rrw')}{a} {chance.choice(('+=', '-='))} {chance.choice((1, 4, -1))}")
        self.condition(a, b)


def program(chance: random.Random, type: ProgramType, pieces: int):
    """A program's text as bytes."""
    while True:
        text = Text(chance, type).program(pieces)
        try:
            code = decode(assemble(text))
        except BpfnicError:
            continue  # a field that no instruction has
        if chance.random() < 0.4:
            code = changed(chance, code)
        return subject("", type, code=encode(code))


def changed(chance: random.Random, code):
    """The program with a field or two of its instructions changed, still legal ones."""
    code = list(code)
    for _ in range(chance.choice((1, 1, 2))):
        at = chance.randrange(len(code))
        one = code[at]
        if one is None:
            continue
        row = isa.find(one)
        field = chance.choice(("dst", "src", "offset", "imm"))
        named = field == "imm" and one.opcode in (WIDE_OPCODE, isa.BY_NAME["call_local"].opcode)
        if isinstance(getattr(row, field), int) or named:
            continue
        value = chance.randrange(11) if field in ("dst", "src") else getattr(one, field) + chance.choice((-8, -1, 1, 8))
        new = replace(one, **{field: value})
        try:
            isa.find(new)
        except BpfnicError:
            continue
        code[at] = new
    return code
