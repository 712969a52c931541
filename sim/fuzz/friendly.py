"""Programs that the kernel's verifier accepts, most of them: nothing is read that nobody wrote, packets are accessed
behind a comparison with their end, no instruction is out of reach, constants keep to what it allows.

r6 is the context, r7 the packet's first byte (with LENGTH bytes behind it), r8 the value of a map's entry, r9 a count;
r0 to r5 are numbers, and so are the bytes of the stack. In a function that is called r6 to r8 are numbers too. At the
end the packet's first bytes are what r0 to r5 were."""

import random
from collections.abc import Callable

from bpfnic.sim.fuzz import values, world
from bpfnic.sim.fuzz.generate import CONTEXT, FRAME, MAP, PACKET, ROUNDS, SCRATCH
from bpfnic.sim.fuzz.program import Program
from bpfnic.sim.fuzz.text import Label, Text
from bpfnic.spec import isa
from bpfnic.spec.helpers import BY_NAME as HELPERS
from bpfnic.spec.isa import Class, Group, Legal, Operation, Row

LENGTH = world.LEAST_FRAME
VALUE_BYTES, ENTRIES = 64, 4
"""Of the one map, an array."""
STACK_BYTES = 64  # what a caller's frame is on the NIC where its call says nothing

_SHIFTS = (Operation.LSH, Operation.RSH, Operation.ARSH)
_DIVISIONS = (Operation.DIV, Operation.SDIV, Operation.MOD, Operation.SMOD)
_OF_THE_RFC = frozenset(Group) - {*isa.EXTENSIONS, Group.PACKET}
_ROWS = [row for row in isa.ROWS if row.group in _OF_THE_RFC]
_ARITHMETIC = [row for row in _ROWS if row.instruction_class in (Class.ALU, Class.ALU64)]
_CONDITIONS = [row for row in _ROWS if row.offset is Legal.BRANCH and row.dst is Legal.REGISTER]
_LOADS = [row for row in _ROWS if row.operation in (Operation.LDX, Operation.LDXS)]
_STORES = [row for row in _ROWS if row.operation in (Operation.ST, Operation.STX)]
_ATOMICS = [row for row in _ROWS if row.operation.name.startswith("ATOMIC")]


class Friendly:
    """One program from a seed."""

    def __init__(self, chance: random.Random):
        self.chance = chance
        self.text = Text([])
        self.drop = Label()
        self.functions = [Label() for _ in range(chance.choice((0, 0, 1, 2)))]
        self.called = False  # in a function, where there is no packet and no map
        self.ends: list[Label] = []

    def program(self, pieces: int) -> Program:
        """About so many pieces. The map is what `lddw_map_fd` of descriptor 0 names."""
        add = self.text.add
        add("mov64_reg", dst=CONTEXT, src=1)
        self.packet()
        self.key(0)
        self.helper("map_lookup_elem")
        add("jeq64_imm", self.drop, dst=0, imm=0)
        add("mov64_reg", dst=MAP, src=0)
        add("mov64_imm", dst=ROUNDS, imm=0)
        self.numbers(0)
        self.stack()
        self.body(pieces)
        for register in SCRATCH:
            add("stxdw", dst=PACKET, src=register, offset=8 * register)
        add("mov64_imm", dst=0, imm=2)
        add("exit")
        self.text.place(self.drop)
        add("mov64_imm", dst=0, imm=1)
        add("exit")
        self.called = True
        for label in [label for label in self.functions if label in self.used()]:
            self.text.place(label)
            for register in range(4):
                add("mov64_reg", dst=6 + register, src=1 + register)
            add("mov64_imm", dst=0, imm=self.immediate(64))
            self.stack()
            self.body(max(2, pieces // 4))
            add("exit")
        return self.text.program()

    def used(self) -> set[Label]:
        return {label for _, label in self.text.lines if label}

    # -- what has to stand --

    def packet(self) -> None:
        """r7 at LENGTH bytes of packet, or the end; r1 to r3 are used for it."""
        add = self.text.add
        add("ldxw", dst=PACKET, src=CONTEXT, offset=0)
        add("ldxw", dst=1, src=CONTEXT, offset=4)
        add("mov64_reg", dst=2, src=PACKET)
        add("add64_imm", dst=2, imm=LENGTH)
        add("jgt64_reg", self.drop, dst=2, src=1)

    def numbers(self, first: int) -> None:
        """Numbers in r`first` to r5."""
        for register in range(first, 6):
            self.number(register)

    def number(self, register: int) -> None:
        if not self.called and self.chance.random() < 0.6:
            self.text.add("ldxdw", dst=register, src=PACKET, offset=self.chance.choice(world.CELLS))
        else:
            value = values.cell(self.chance)
            low, high = value & 0xFFFF_FFFF, value >> 32
            self.text.add("lddw", dst=register, imm=low - (low >> 31 << 32), next_imm=high - (high >> 31 << 32))

    def stack(self) -> None:
        for offset in range(-STACK_BYTES, 0, 8):
            self.text.add("stxdw", dst=FRAME, src=self.chance.choice((0, 1, 2, 3, 4)), offset=offset)

    def key(self, key: int) -> None:
        """r1 and r2 for a map helper."""
        self.text.add("stw", dst=FRAME, offset=-8, imm=key)
        self.text.add("mov64_reg", dst=2, src=FRAME)
        self.text.add("add64_imm", dst=2, imm=-8)
        self.text.add("lddw_map_fd", dst=1)

    def helper(self, name: str) -> None:
        self.text.add("call_helper", imm=HELPERS[name].number)

    def immediate(self, width: int) -> int:
        return values.immediate(self.chance, width)

    # -- pieces --

    def body(self, pieces: int) -> None:
        kinds: list[Callable[[], None]] = [self.arithmetic] * 10 + [self.condition] * 4 + [self.access] * 6
        kinds += [self.atomic] * 2 + [self.loop, self.jump]
        if not self.called:
            kinds += [self.map_helper] * 2 + [self.change] + [self.call] * bool(self.functions)
        open_labels: list[tuple[int, Label]] = []
        for number in range(pieces):
            for end, label in open_labels:
                if end == number:
                    self.text.place(label)
            open_labels = [(end, label) for end, label in open_labels if end > number]
            self.ends = []
            self.chance.choice(kinds)()
            open_labels += [(min(pieces, number + self.chance.choice((1, 2, 3))), label) for label in self.ends]
        for _, label in open_labels:
            self.text.place(label)

    def arithmetic(self) -> None:
        row = self.chance.choice(_ARITHMETIC)
        fields = {"dst": self.chance.choice(SCRATCH)}
        if row.register_operand:
            fields["src"] = self.chance.choice(SCRATCH)
        elif row.imm is Legal.IMM32:
            fields["imm"] = self.chance.randrange(row.width) if row.operation in _SHIFTS else self.immediate(row.width)
            if row.operation in _DIVISIONS and not fields["imm"]:
                fields["imm"] = -1
        if self.chance.random() < 0.5:
            self.number(fields["dst"])
        self.text.add(row, **fields)

    def condition(self) -> None:
        row = self.chance.choice(_CONDITIONS)
        self.ends.append(end := Label())
        operand = {"src": self.chance.choice(SCRATCH)} if row.register_operand else {"imm": self.immediate(row.width)}
        self.text.add(row, end, dst=self.chance.choice(SCRATCH), **operand)

    def jump(self) -> None:
        """To the next instruction: one that nothing leads to would be refused."""
        end = Label()
        self.text.add(self.chance.choice(("ja", "ja32")), end)
        self.text.place(end)

    def loop(self) -> None:
        top = Label()
        self.text.add("mov64_imm", dst=ROUNDS, imm=self.chance.choice((1, 2, 3)))
        self.text.place(top)
        self.chance.choice((self.arithmetic, self.access))()
        self.text.add("add64_imm", dst=ROUNDS, imm=-1)
        self.text.add("jsgt64_imm", top, dst=ROUNDS, imm=0)

    def place(self, row: Row, atomic: bool = False) -> tuple[int, int]:
        """A base register, and an offset that a row's access may have there."""
        size = row.width // 8
        base = self.chance.choice((FRAME, FRAME, *(() if self.called else (MAP, MAP) if atomic else (PACKET, MAP))))
        if base == FRAME:
            return base, -size * self.chance.randrange(1, STACK_BYTES // size + 1)
        offset = self.chance.randrange((LENGTH if base == PACKET else VALUE_BYTES) - size + 1)
        return base, offset - offset % size if atomic else offset

    def access(self) -> None:
        row = self.chance.choice(self.chance.choice((_LOADS, _STORES)))
        base, offset = self.place(row)
        if row in _LOADS:
            self.text.add(row, dst=self.chance.choice(SCRATCH), src=base, offset=offset)
        elif row.register_operand:
            self.text.add(row, dst=base, src=self.chance.choice(SCRATCH), offset=offset)
        else:
            self.text.add(row, dst=base, offset=offset, imm=self.immediate(min(row.width, 32)))

    def atomic(self) -> None:
        row = self.chance.choice(_ATOMICS)
        base, offset = self.place(row, atomic=True)
        self.text.add(row, dst=base, src=self.chance.choice(SCRATCH), offset=offset)
        if row.operation is Operation.ATOMIC_CMPXCHG and row.width == 32:
            # x86 leaves r0 as it was where the exchange succeeds, and Linux 6.18 doesn't always add what zeroes its
            # upper half, as the RFC has it: seed 3, round 319.
            self.text.add("mov32_reg", dst=0, src=0)

    def call(self) -> None:
        self.text.add("call_local", self.chance.choice(self.functions))
        self.numbers(1)

    def map_helper(self) -> None:
        name = self.chance.choice(("map_lookup_elem", "map_update_elem", "map_delete_elem"))
        self.key(self.chance.choice((0, 1, 2, 3, ENTRIES, -1)))
        if name == "map_update_elem":
            self.text.add("mov64_reg", dst=3, src=(base := self.chance.choice((FRAME, MAP, PACKET))))
            self.text.add("add64_imm", dst=3, imm={FRAME: -STACK_BYTES, MAP: 0, PACKET: 3}[base])
            self.text.add("mov64_imm", dst=4, imm=self.chance.choice((0, 0, 2, 1)))
        self.helper(name)
        self.numbers(1)
        if name == "map_lookup_elem":
            none = Label()
            self.text.add("jeq64_imm", none, dst=0, imm=0)
            row = self.chance.choice(_STORES)
            if row.register_operand:
                self.text.add(row, dst=0, src=self.chance.choice((1, 2, 3)), offset=self.chance.randrange(50))
            self.text.add("ldxdw", dst=0, src=0, offset=self.chance.randrange(50))
            self.text.place(none)

    def change(self) -> None:
        """The packet's bounds move, and are looked at again."""
        name = self.chance.choice(("xdp_adjust_head", "xdp_adjust_tail"))
        self.text.add("mov64_reg", dst=1, src=CONTEXT)
        self.text.add("mov64_imm", dst=2, imm=self.chance.choice((0, -4, -7, -16, 1, 4, 200, -1000, 5000)))
        self.helper(name)
        self.packet()
        self.numbers(1)
