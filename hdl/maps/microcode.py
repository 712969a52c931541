"""What the table unit executes: its instructions, and the assembler of its program (tableprogram.py).

A line is one instruction. Registers are names in small letters, of 32 bits; `zero` is 0. Sources are what else an
instruction can take as its second operand, in capitals.

    x = a + b            `a` is a register, or 4 or 8 times one; `b` is a register, a source or a number; also a - b
    x = [a + b]          the word of map memory there; what shares its 8 bytes is OTHER then
    x = place [a + b]    the same without a link word's tag
    [a + b] = x          with `| 4`, `| 8` or `| 12` behind b these bits of the address are set
    x = scan [a]         the first 8 bytes from there on, AT, that are not all zero, as far as the next multiple of 256
                         or the end of the buckets
    clear [a + b]        as many bytes as a value takes are 0
    x = (a + b) * STRIDE bytes from one place to the next; KEY_STRIDE: of keys; CPU_STRIDE: from CPU to CPU
    find, find scratch   begins to search for the call's key, or the scratch slot's; await: goes on with what came
    key from slot        the next 8 bytes of the call's key (from host: of the host's registers) are at hand
    x = key from slot    and their lower half is x, the upper one OTHER
    [a + b] = key        they go there, or to scratch, slot or host; bytes behind the end of a key as 0
    repeat label         goes there for the next 8 bytes of the key, if it has any; repeat all label: of a whole slot
    hold                 goes on when no look-up of a program is under way; none begins until the call is finished
    decide               the call takes effect now
    finish NUMBER        with an error number or 0; finish again: has to be resumed; finish at a + b: with a value there
    answer 0, answer at a + b, refuse NUMBER    the same, and it takes effect
    cursor = a + b       what the answer to a walk says besides
    goto label, call label, return: each also behind `if CONDITION` or `if not CONDITION`

`zero` and `negative` as conditions are about the number that last went into a register; `_` is a register for that
alone.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from amaranth import signed
from amaranth.lib import data
from amaranth.lib.enum import Enum

from bpfnic.spec.maps import Errno

TARGET_BITS = 9
REGISTERS = 16


class Code(Enum, shape=5):
    """What an instruction does."""

    COMPUTE = 0
    LOAD = 1
    STORE = 2
    SCAN = 3
    CLEAR = 4
    MULTIPLY = 5
    FIND = 6
    AWAIT = 7
    KEY_FROM_SLOT = 8
    KEY_FROM_HOST = 9
    KEY_TO_MEMORY = 10
    KEY_TO_SLOT = 11
    KEY_TO_HOST = 12
    HOLD = 13
    DECIDE = 14
    FINISH = 15
    JUMP = 16
    LOAD_PLACE = 17
    CURSOR = 18


AT_ONCE = frozenset({Code.COMPUTE, Code.DECIDE, Code.CURSOR, Code.JUMP})
"""Done with in a clock, whatever happens."""
ACCESSES = frozenset({Code.LOAD, Code.LOAD_PLACE, Code.STORE, Code.SCAN, Code.CLEAR, Code.KEY_TO_MEMORY})
"""To map memory."""


class Source(Enum, shape=4):
    """The second operand. Those below 8 are there when the instruction is fetched, and chosen then."""

    NUMBER = 0
    SMALL = 1  # which: Small
    TABLE = 2  # of the descriptor
    LINKS = 3
    KEYS = 4
    ORDER = 5
    BASE = 6
    ENTRIES = 7
    PLACE = 8  # of what was found
    LINK = 9
    BUCKET = 10
    TAG = 11  # in its bits of a link word
    OTHER = 12
    AT = 13
    WORD = 14  # bytes of the key before the ones at hand
    REGISTER = 15


class Small(Enum, shape=2):
    """Second operands of few bits."""

    CPU = 0
    LENGTH = 1  # of the key's prefix
    LENGTH_BIT = 2  # in its word of the bitmap
    LENGTH_WORD = 3  # offset of that in the bitmap


class Factor(Enum, shape=2):
    STRIDE = 0
    KEY_STRIDE = 1
    CPU_STRIDE = 2


class Condition(Enum, shape=4):
    """What a jump asks."""

    ALWAYS = 0
    ZERO = 1
    NEGATIVE = 2
    FOUND = 3
    HOST = 4  # calls
    MINE = 5  # a program calls for its CPU's own value
    CLAIMS = 6  # a program updates a value where it is: its CPU's own, or one that it found, with its lock
    INVALID = 7  # is a prefix longer than an address
    LRU = 8
    LPM = 9
    STACK = 10
    POPS = 11
    ILLEGAL = 12  # are flags above EXIST
    NOEXIST = 13  # flag
    EXIST = 14
    WAITING = 15  # are calls of programs


class Jump(Enum, shape=2):
    GOTO = 0
    CALL = 1
    RETURN = 2
    REPEAT = 3


Instruction = data.StructLayout(
    {
        "code": Code,
        "register": 4,  # of the result, or whose contents are stored
        "left": 4,
        "shift": 2,  # of `left`: logarithm
        "minus": 1,
        "source": Source,
        "bits": 2,  # of the address, from bit 2 on; Small; Factor
        "number": signed(10),  # or in its lowest bits a register
        "at_once": 1,  # these are what the code says, for it is asked where an instruction begins
        "accesses": 1,
        "finds": 1,
        "jumps": 1,
    }
)
"""Other codes use the fields so: JUMP: register is a Jump (and bit 2: all), left a Condition, minus negates it, number
is where to. FINISH: register bit 0: found, 1: again, 2: takes effect; number: the error. FIND, KEY_TO_SLOT: bits is 1
for the scratch slot."""

FOUND, AGAIN, DECIDES = 1, 2, 4  # of FINISH
ALL = 4  # of a JUMP that repeats
SCRATCH = 1


@dataclass(frozen=True)
class Line:
    """An instruction before its target is known."""

    text: str
    fields: dict = field(default_factory=dict)
    target: str = ""

    @property
    def goes_on(self) -> bool:
        """The next instruction may be executed behind it."""
        if self.fields["code"] is Code.FINISH:
            return False
        jumps = self.fields["code"] is Code.JUMP and self.fields["register"] in (Jump.GOTO.value, Jump.RETURN.value)
        return not jumps or self.fields["left"] != Condition.ALWAYS.value


_TERM = re.compile(r"(?:(?P<scale>[48]) )?(?P<name>[a-z_]+)$")
_FACTORS = {1: 0, 4: 2, 8: 3}


class Assembler:
    """Lines of one program. `absent` conditions never hold: what depends on them is left out, and so is what nobody
    reaches."""

    def __init__(self, absent: Iterable[Condition] = (), numbers: dict[str, int] | None = None):
        self.absent = frozenset(absent)
        self.numbers = numbers or {}
        self.lines: list[Line] = []
        self.labels: dict[str, int] = {}
        self.registers = {"zero": 0}

    def assemble(self, text: str, entries: list[str | None]) -> list[int]:
        """The program as words; word i leads to the label entries[i] (None: to an end with EINVAL)."""
        for line in text.splitlines():
            if line := line.split("#")[0].strip():
                label, _, rest = line.rpartition(":")
                if label:
                    assert label not in self.labels, line
                    self.labels[label] = len(self.lines)
                if rest.strip():
                    self._add(rest.strip())
        reached = self._reached(entry for entry in entries if entry)
        at = {number: len(entries) + i for i, number in enumerate(sorted(reached))}
        table = [self._jump(f"goto {entry}", entry) if entry else self._finish("finish EINVAL") for entry in entries]
        words = []
        for line in [*table, *(self.lines[number] for number in sorted(reached))]:
            fields = dict(line.fields)
            if line.target:
                fields["number"] = at[self.labels[line.target]]
            code = fields["code"]
            fields |= {"at_once": code in AT_ONCE, "accesses": code in ACCESSES}
            fields |= {"finds": code is Code.FIND, "jumps": code is Code.JUMP}
            words.append(Instruction.const(fields).as_bits())
        assert len(words) < 1 << TARGET_BITS and len(self.registers) <= REGISTERS
        return words

    def _reached(self, entries: Iterable[str]) -> set[int]:
        open_, reached = [self.labels[entry] for entry in entries], set()
        while open_:
            number = open_.pop()
            if number not in reached:
                reached.add(number)
                line = self.lines[number]
                if line.target:
                    open_.append(self.labels[line.target])
                if line.goes_on:
                    open_.append(number + 1)
        return reached

    def _add(self, text: str) -> None:
        condition, negated, rest = Condition.ALWAYS, False, text
        if found := re.match(r"if (not )?([a-z]+) (.+)", text):
            negated, rest = bool(found[1]), found[3]
            condition = Condition[found[2].upper()]
            if condition in self.absent:
                if not negated:
                    return
                condition, negated = Condition.ALWAYS, False
        line = self._parse(text, rest)
        if condition is not Condition.ALWAYS:
            assert line.fields["code"] is Code.JUMP, text
            line = replace(line, fields=line.fields | {"left": condition.value, "minus": negated})
        self.lines.append(line)

    def _parse(self, text: str, rest: str) -> Line:
        words = rest.split()
        plain = {"hold": Code.HOLD, "decide": Code.DECIDE, "find": Code.FIND, "await": Code.AWAIT}
        match words:
            case [("goto" | "call") as kind, target]:
                return self._jump(text, target, Jump[kind.upper()])
            case ["return"]:
                return self._jump(text, "", Jump.RETURN)
            case ["repeat", "all", target]:
                return self._jump(text, target, Jump.REPEAT, ALL)
            case ["repeat", target]:
                return self._jump(text, target, Jump.REPEAT)
            case [("finish" | "answer" | "refuse"), *_]:
                return self._finish(rest)
            case ["find", "scratch"]:
                return Line(text, {"code": Code.FIND, "bits": SCRATCH})
            case ["key", "from", ("slot" | "host") as source]:
                return Line(text, {"code": Code[f"KEY_FROM_{source.upper()}"]})
            case ["key", "to", ("slot" | "scratch") as target]:
                return Line(text, {"code": Code.KEY_TO_SLOT, "bits": SCRATCH if target == "scratch" else 0})
            case ["key", "to", "host"]:
                return Line(text, {"code": Code.KEY_TO_HOST})
            case ["clear", *_]:
                return Line(text, {"code": Code.CLEAR} | self._address(rest.removeprefix("clear ")))
            case [code] if code in plain:
                return Line(text, {"code": plain[code]})
        left, _, right = rest.partition(" = ")
        if left.startswith("["):
            if right == "key":
                return Line(text, {"code": Code.KEY_TO_MEMORY} | self._address(left))
            return Line(text, {"code": Code.STORE, "register": self._register(right)} | self._address(left))
        if left == "cursor":
            return Line(text, {"code": Code.CURSOR} | self._operands(right))
        result = {"register": self._register(left)}
        assert result["register"], text
        if right == "key from slot":
            return Line(text, result | {"code": Code.KEY_FROM_SLOT})
        if right.startswith("place "):
            return Line(text, result | {"code": Code.LOAD_PLACE} | self._address(right.removeprefix("place ")))
        if right.startswith("scan "):
            return Line(text, result | {"code": Code.SCAN} | self._address(right.removeprefix("scan ")))
        if right.startswith("["):
            return Line(text, result | {"code": Code.LOAD} | self._address(right))
        if product := re.match(r"\((.+)\) \* (\w+)$", right):
            operands = self._operands(product[1])
            assert "bits" not in operands, text
            return Line(text, result | operands | {"code": Code.MULTIPLY, "bits": Factor[product[2]].value})
        return Line(text, result | {"code": Code.COMPUTE} | self._operands(right))

    def _jump(self, text: str, target: str, kind: Jump = Jump.GOTO, more: int = 0) -> Line:
        fields = {"code": Code.JUMP, "register": kind.value | more, "left": Condition.ALWAYS.value}
        return Line(text, fields, target)

    def _finish(self, text: str) -> Line:
        verb, *words = text.split()
        kind = 0 if verb == "finish" else DECIDES
        fields = {"code": Code.FINISH, "register": kind}
        match words:
            case ["again"]:
                return Line(text, fields | {"register": kind | AGAIN})
            case ["at", *_]:
                return Line(text, fields | {"register": kind | FOUND} | self._operands(" ".join(words[1:])))
            case ["0"]:
                return Line(text, fields)
        return Line(text, fields | {"number": Errno[words[0]].value})

    def _address(self, text: str) -> dict:
        assert text[0] == "[" and text[-1] == "]", text
        sum_, _, bits = text[1:-1].partition(" | ")
        operands = self._operands(sum_)
        assert not bits or "bits" not in operands, text
        return operands | {"bits": int(bits or 0) >> 2}

    def _operands(self, text: str) -> dict:
        first, sign, second = re.fullmatch(r"([^+-]+?)(?: ([+-]) (.+))?", text).groups()
        if second is None:
            first, second = (first, "0") if _TERM.match(first) else ("zero", first)
        elif not _TERM.match(first) or (scaled := _TERM.match(second)) and scaled["scale"]:
            assert sign == "+", text
            first, second = second, first
        term = _TERM.match(first)
        assert term, text
        shift = _FACTORS[int(term["scale"] or 1)]
        fields = {"left": self._register(term["name"]), "shift": shift, "minus": sign == "-"}
        if second.islower():
            return fields | {"source": Source.REGISTER, "number": self._register(second)}
        if second in Small.__members__:
            return fields | {"source": Source.SMALL, "bits": Small[second].value}
        if second in Source.__members__:
            return fields | {"source": Source[second]}
        return fields | {"source": Source.NUMBER, "number": self.numbers.get(second) or int(second)}

    def _register(self, name: str) -> int:
        assert re.fullmatch("[a-z_]+", name), name
        return self.registers.setdefault(name, len(self.registers))
