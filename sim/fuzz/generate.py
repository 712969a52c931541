"""Programs by chance, made from the rows of the instruction table that a device executes.

r6 to r9 are what the first lines of a function make of them: r6 the context, r7 the packet's first byte, r8 a place in
map memory, r9 a count of rounds; r0 to r5 are for anything. Most instructions keep to their windows. A *slip* doesn't:
it stands behind a look at a byte of the packet, so that few packets come to it. Operands come from cells of the packet,
which differ with each packet, from map values, on which the threads race, and from immediates.
"""

import random
from collections.abc import Callable, Sequence

from bpfnic.host.device import Capabilities
from bpfnic.sim.fuzz import values, world
from bpfnic.sim.fuzz.mapcalls import Known, MapCalls
from bpfnic.sim.fuzz.program import Program, make
from bpfnic.sim.fuzz.text import Label, Text
from bpfnic.spec import addresses, isa
from bpfnic.spec.helpers import BY_NAME as HELPERS
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Legal, Operation, Row

SCRATCH = range(6)
CONTEXT, PACKET, MAP, ROUNDS, FRAME = 6, 7, 8, 9, isa.FRAME_POINTER
STACK_REACH = 64
"""Bytes below r10 that a function uses. Frames are as small as 16, so that functions meet there."""

_CONDITIONS = frozenset(row.operation for row in isa.ROWS if row.offset is Legal.BRANCH and row.dst is Legal.REGISTER)
LOADS = (Operation.LDX, Operation.LDXS, Operation.LOAD_ACQUIRE)
STORES = (Operation.ST, Operation.STX, Operation.STORE_RELEASE)
ORDERED = (Operation.LOAD_ACQUIRE, Operation.STORE_RELEASE)
_EXACT = (Operation.LDDW_REFERENCE, Operation.CALL_BTF)  # always trap


class Device:
    """Which rows, helpers and maps the programs may use: what a device says that it has."""

    def __init__(self, has: Capabilities):
        self.has = has
        self.rows = [row for row in isa.ROWS if row.group in has.groups]
        self.lacking = [row for row in isa.ROWS if row not in self.rows or row.operation in _EXACT]
        self.helpers = [name for name in sorted(HELPERS) if HELPERS[name].number in has.helpers]
        self.maps = Known(has)
        self.tables = self.maps.hashes + self.maps.queues
        kinds = {row: row.operation.name for row in self.rows}
        self.arithmetic = [row for row in self.rows if row.instruction_class in (Class.ALU, Class.ALU64)]
        self.conditions = [row for row in self.rows if row.operation in _CONDITIONS]
        self.jumps = [row for row in self.rows if row.operation is Operation.JA]
        self.loads = [row for row in self.rows if row.operation in LOADS]
        self.stores = [row for row in self.rows if row.operation in STORES]
        self.atomics = [row for row in self.rows if kinds[row].startswith("ATOMIC")]
        self.packet_loads = [row for row in self.rows if row.operation in (Operation.LD_ABS, Operation.LD_IND)]
        self.may_goto = [row for row in self.rows if row.operation is Operation.MAY_GOTO]
        self.ordered = ORDERED
        self.calls_registers = any(row.operation is Operation.CALLX for row in self.rows)
        self.calls_routines = any(row.operation is Operation.CALL_FIRMWARE for row in self.rows)


class Generator:
    """Programs for a device. `slips`: how often a piece leaves the rules, 0 to 1. `focus`: the tables that they use, of
    Device.tables; None for some of them."""

    def __init__(
        self, device: Device, chance: random.Random, slips: float = 0.02, focus: Sequence[int] | None = None
    ):
        self.device, self.chance, self.slips = device, chance, slips
        self.text = Text([])
        self.maps = MapCalls(self, device.maps, focus_of(device, chance) if focus is None else focus)
        self.functions: list[Label] = []
        self.routine: Label | None = None  # a privileged one, which calls no function
        self.frames: tuple[int, ...] = (0,)
        self.function = 0
        pieces: list[tuple[float, Callable[[], None]]] = [
            (34, self.arithmetic), (14, self.condition), (2, self.jump), (20, self.access), (2, self.edge_access),
            (8, self.atomic), (2, self.constant), (5, self.maps.array), (3, self.helper), (3, self.call),
            (2, self.copy), (1, self.call_routine), (1, self.checksum), (4, self.loop),
            (2, self.packet_load), (1, self.long_loop), (0.5, self.tail_call), (12, self.maps.hash),
            (3, self.maps.queue), (2, self.maps.redirect), (2, self.maps.inner), (3, self.maps.ring),
            (2, self.maps.event), (1, self.maps.lock),
        ]  # fmt: skip
        lacking = {self.atomic: not device.atomics, self.packet_load: not device.packet_loads,
                   self.maps.array: not device.maps.arrays, self.maps.hash: not device.maps.hashes,
                   self.maps.queue: not device.maps.queues, self.maps.redirect: not device.maps.redirects,
                   self.maps.inner: not device.maps.outer, self.maps.ring: not device.maps.rings,
                   self.maps.event: not device.maps.perf,
                   self.maps.lock: not {"spin_lock", "spin_unlock"} <= set(device.helpers),
                   self.long_loop: not device.may_goto,
                   self.call_routine: not device.calls_routines,
                   self.checksum: "csum_diff" not in device.helpers,
                   self.tail_call: "tail_call" not in device.helpers}  # fmt: skip
        pieces = [(weight, piece) for weight, piece in pieces if not lacking.get(piece)]
        self.weights, self.pieces = zip(*pieces, strict=True)

    def program(self, pieces: int) -> Program:
        """A function of about so many pieces, and behind it those that it calls."""
        count = self.chance.choice((0, 0, 0, 1, 2, 3, addresses.FRAMES - 1))
        deep = count == addresses.FRAMES - 1
        self.frames = (0, 16, 16, 32) if deep else (0, 16, 32, 64, 128)
        self.functions = [Label() for _ in range(count)]
        self.routine = Label() if self.device.calls_routines and self.chance.random() < 0.4 else None
        self.start()
        self.body(pieces)
        self.verdict()
        for number, label in enumerate(self.functions, 1):
            self.function = number
            self.begin(label)
            self.body(1 if deep else max(2, pieces // 4))
            if deep and number < count:
                self.invoke(self.functions[number])
            self.text.add("exit")
        if self.routine:
            self.function, label, self.routine = count, self.routine, None
            self.begin(label)
            self.body(max(2, pieces // 4))
            self.text.add("exit")
        return self.text.program()

    def begin(self, function: Label) -> None:
        """Of r6 to r9 a callee has its own: what it finds there first is 0, then what it left."""
        self.text.place(function)
        for register in range(4):
            self.text.add("mov64_reg", dst=6 + register, src=1 + register)

    def start(self) -> None:
        """r6 to r9, and something in r0 to r5."""
        self.text.add("mov64_reg", dst=CONTEXT, src=1)
        self.text.add("ldxw", dst=PACKET, src=1, offset=0)
        self.text.add("lddw", dst=MAP, imm=addresses.MAP_VALUES + world.CENTRE)
        for register in (0, 2, 3, 4, 5):
            self.operand(register)

    def verdict(self) -> None:
        chance = self.chance.random()
        if chance < 0.2 and "redirect" in self.device.helpers:
            self.text.add("mov64_imm", dst=1, imm=self.chance.choice((1, 1, 2, 2, 9)))
            self.text.add("mov64_imm", dst=2, imm=self.chance.choice((0, 0, 0, 1)))
            self.helper_call("redirect")
        elif chance < 0.4 and self.device.maps.redirects:
            self.maps.redirect()
        elif chance < 0.95:
            self.text.add("mov32_imm", dst=0, imm=self.chance.choice((1, 2, 2, 2, 3, 3)))
        self.text.add("exit")  # else with whatever r0 is

    # -- pieces --

    def body(self, pieces: int) -> None:
        """Pieces, with jumps over some of those that follow."""
        open_labels: list[tuple[int, Label]] = []
        self.jumps_over: list[Label] = []
        for number in range(pieces):
            for end, label in open_labels:
                if end == number:
                    self.text.place(label)
            open_labels = [(end, label) for end, label in open_labels if end > number]
            self.jumps_over = []
            self.piece()
            for label in self.jumps_over:
                open_labels.append((min(pieces, number + self.chance.choice((1, 1, 2, 3, 5))), label))
        for _, label in open_labels:
            self.text.place(label)

    def piece(self) -> None:
        if self.chance.random() < self.slips:
            self.guarded(self.slip)
        else:
            self.chance.choices(self.pieces, self.weights)[0]()

    def ahead(self) -> Label:
        """A label that will stand behind a few of the pieces that follow."""
        self.jumps_over.append(label := Label())
        return label

    def scratch(self) -> int:
        return self.chance.choice(SCRATCH)

    def operand(self, register: int) -> None:
        """A number in a register: from the packet, from a map value, or a constant."""
        source = self.chance.random()
        if source < 0.6:
            self.text.add("ldxdw", dst=register, src=PACKET, offset=self.chance.choice(world.CELLS))
        elif source < 0.7:
            self.text.add("ldxdw", dst=register, src=MAP, offset=self.chance.randrange(-8, 8) * 8)
        elif source < 0.9:
            self.wide(register, values.cell(self.chance))
        else:
            self.text.add("mov64_imm", dst=register, imm=values.immediate(self.chance, 64))

    def wide(self, register: int, number: int) -> None:
        low, high = number & 0xFFFF_FFFF, number >> 32
        self.text.add("lddw", dst=register, imm=low - (low >> 31 << 32), next_imm=high - (high >> 31 << 32))

    def operands(self, row: Row) -> dict[str, int]:
        """Registers for an instruction's operands, and perhaps new numbers in them; its immediate."""
        fields = {"dst": self.scratch()}
        if self.chance.random() < 0.7:
            self.operand(fields["dst"])
        if row.register_operand:
            fields["src"] = self.chance.choice((fields["dst"], CONTEXT, PACKET, MAP, ROUNDS, FRAME)) \
                if self.chance.random() < 0.15 else self.scratch()  # fmt: skip
            if fields["src"] in SCRATCH and fields["src"] != fields["dst"] and self.chance.random() < 0.7:
                self.operand(fields["src"])
        elif row.imm is Legal.IMM32:
            fields["imm"] = values.immediate(self.chance, row.width)
        return fields

    def arithmetic(self) -> None:
        row = self.chance.choice(self.device.arithmetic)
        self.text.add(row, **self.operands(row))

    def condition(self) -> None:
        row = self.chance.choice(self.device.conditions)
        fields = self.operands(row)
        self.text.add(row, self.ahead(), **fields)

    def jump(self) -> None:
        self.text.add(self.chance.choice(self.device.jumps), self.ahead())

    def loop(self) -> None:
        """A few rounds, by a jump back."""
        top, out = Label(), Label()
        self.text.add("mov64_imm", dst=ROUNDS, imm=self.chance.choice((1, 2, 3)))
        self.text.place(top)
        kept, self.jumps_over = self.jumps_over, []
        if self.chance.random() < 0.5:
            self.piece()
            self.end_jumps()
            self.text.add("add64_imm", dst=ROUNDS, imm=-1)
            self.text.add("jsgt64_imm", top, dst=ROUNDS, imm=0)
        else:
            self.text.add("jsle64_imm", out, dst=ROUNDS, imm=0)
            self.text.add("sub64_imm", dst=ROUNDS, imm=1)
            self.piece()
            self.end_jumps()
            self.text.add(self.chance.choice(self.device.jumps), top)
        self.text.place(out)
        self.jumps_over = kept

    def long_loop(self) -> None:
        """One that the budget ends, for few packets; or a look at the budget that changes nothing."""
        top, out = Label(), Label()

        def rounds() -> None:
            self.text.place(top)
            self.arithmetic()
            self.text.add(self.device.may_goto[0], out)
            self.text.add(self.device.jumps[0], top)
            self.text.place(out)

        if self.chance.random() < 0.5:
            self.guarded(rounds)
        else:
            self.text.add(self.device.may_goto[0], self.ahead())

    def end_jumps(self) -> None:
        for label in self.jumps_over:
            self.text.place(label)
        self.jumps_over = []

    def constant(self) -> None:
        self.wide(self.scratch(), values.cell(self.chance))

    def copy(self) -> None:
        self.text.add("mov64_reg", dst=self.scratch(), src=self.chance.choice((FRAME, CONTEXT, PACKET, MAP, ROUNDS)))

    # -- memory --

    def access(self) -> None:
        row = self.chance.choice(self.chance.choice((self.device.loads, self.device.stores)))
        size, stores = row.width // 8, row in self.device.stores
        base = self.chance.choice((FRAME, FRAME, PACKET, PACKET, MAP, MAP) + (() if stores else (CONTEXT,)))
        offset = {
            FRAME: -size * self.chance.randrange(1, STACK_REACH // size + 1),
            PACKET: self.chance.randrange(world.LEAST_FRAME - size + 1),
            MAP: self.chance.randrange(-world.REACH, world.REACH - size + 1),
            CONTEXT: size * self.chance.randrange(addresses.CONTEXT_BYTES // size),
        }[base]
        if row.operation in ORDERED:
            offset -= offset % size
        self.at(row, base, offset)

    def at(self, row: Row, base: int, offset: int) -> None:
        """A load or store of a scratch register or an immediate."""
        if row in self.device.loads:
            self.text.add(row, dst=self.scratch(), src=base, offset=offset)
        elif row.register_operand:
            source = self.scratch()
            if self.chance.random() < 0.5:
                self.operand(source)
            self.text.add(row, dst=base, src=source, offset=offset)
        else:
            self.text.add(row, dst=base, offset=offset, imm=values.immediate(self.chance, min(row.width, 32)))

    def edge_access(self) -> None:
        """The first or last bytes of a window; now and then those behind them, for a few packets."""
        row = self.chance.choice(self.chance.choice((self.device.loads, self.device.stores)))
        size, base = row.width // 8, self.scratch()
        window = self.chance.choice(("packet", "packet end", "stack", "stack end", "map end", "context end"))
        if window == "context end" and row in self.device.stores:
            window = "map end"
        outside = self.chance.random() < 0.1

        def access() -> None:
            first = {
                "stack": addresses.STACK,
                "stack end": addresses.STACK_TOP,
                "map end": addresses.MAP_VALUES + self.device.has.map_bytes,
                "context end": addresses.CONTEXT + addresses.CONTEXT_BYTES,
            }
            if window in first:
                self.wide(base, first[window])
            else:
                self.text.add("ldxw", dst=base, src=CONTEXT, offset=4 if window == "packet end" else 0)
            offset = -size if window.endswith("end") else 0
            if outside:
                offset += self.chance.choice((1, -1, size, -size))
            self.at(row, base, offset)

        if outside:
            self.guarded(access)
        else:
            access()

    def atomic(self) -> None:
        row = self.chance.choice(self.device.atomics)
        size = row.width // 8
        base = self.chance.choice((MAP, MAP, PACKET, FRAME))
        aligned = size * self.chance.randrange(24 // size)
        offset = {MAP: aligned - 8, PACKET: world.CELLS.start + aligned, FRAME: aligned - STACK_REACH}[base]
        source = self.scratch()
        self.operand(source)
        if self.chance.random() < 0.4:
            self.text.add("stxdw" if size == 8 else "stxw", dst=base, src=source, offset=offset)
            self.operand(source)
        if self.chance.random() < 0.3:
            self.text.add("mov64_reg", dst=0, src=source)
        elif row.operation is Operation.ATOMIC_CMPXCHG and self.chance.random() < 0.5:
            self.text.add("ldxdw" if size == 8 else "ldxw", dst=0, src=base, offset=offset)
        self.text.add(row, dst=base, src=source, offset=offset)

    def packet_load(self) -> None:
        """LD_ABS or LD_IND; outside the packet it ends the function, so that few packets do that."""
        row = self.chance.choice(self.device.packet_loads)
        offset = self.chance.randrange(world.LEAST_FRAME - 4)

        def load() -> None:
            if row.operation is Operation.LD_IND:
                index, base = self.scratch(), self.chance.choice((0, 3, -5, offset))
                self.text.add("mov64_imm", dst=index, imm=base)
                self.text.add(row, src=index, imm=offset - base)
            else:
                self.text.add(row, imm=offset)

        if self.chance.random() < 0.1:
            offset = self.chance.choice((-1, 2000, 1 << 30, -(1 << 20)))
            self.guarded(load)
        else:
            load()

    # -- calls --

    def call(self) -> None:
        """Of a function behind this one; there may be none."""
        later = self.functions[self.function :]
        if len(self.functions) == addresses.FRAMES - 1:
            later = later[:1] if self.function == 0 else []
        if later:
            self.invoke(self.chance.choice(later))
        else:
            self.arithmetic()

    def invoke(self, function: Label) -> None:
        frame = self.chance.choice(self.frames)
        self.arguments()
        if self.device.calls_registers and self.chance.random() < 0.4:
            self.text.add("lddw", function, dst=5)
            self.text.add("callx", dst=5, offset=frame)
        else:
            self.text.add("call_local", function, offset=frame)

    def call_routine(self) -> None:
        if self.routine:
            self.arguments()
            self.text.add("call_firmware", self.routine)
        else:
            self.arithmetic()

    def arguments(self) -> None:
        for register in range(4):
            self.text.add("mov64_reg", dst=1 + register, src=6 + register)

    def helper_call(self, name: str) -> None:
        if self.device.calls_registers and self.chance.random() < 0.15:
            self.text.add("mov64_imm", dst=5, imm=HELPERS[name].number)
            self.text.add("callx", dst=5)
        else:
            self.text.add("call_helper", imm=HELPERS[name].number)

    def helper(self) -> None:
        """One that takes no map."""
        name = self.chance.choice([name for name in self.device.helpers if name in _PLAIN] or [""])
        if not name:
            return
        uneven = self.chance.random() < 0.3  # what must be aligned would trap behind it
        deltas = (-4, -7, -63, 1, 4, 5, -(1 << 31) + 1) if uneven else (0, -8, -16, 8, 400, -400, 2000)
        delta = self.chance.choice(deltas)
        if name == "xdp_adjust_tail" and delta < 0:  # most frames stay as long as the programs need
            delta = self.chance.choice((delta, -delta, 3))
        if name == "xdp_adjust_head" and delta > 0 and self.chance.random() < 0.8:
            delta = -delta
        self.text.add("mov64_reg", dst=1, src=CONTEXT)
        self.text.add("mov64_imm", dst=2, imm=delta)
        self.helper_call(name)
        if name in ("xdp_adjust_head", "xdp_adjust_tail"):
            self.text.add("ldxw", dst=PACKET, src=CONTEXT, offset=0)

    def checksum(self) -> None:
        sizes = (0, 0, 1, 2, 3, 4, 7, 8, 12, 17, 24)
        for register in (1, 3):
            base, size = self.chance.choice((FRAME, PACKET, PACKET, MAP)), self.chance.choice(sizes)
            offset = {FRAME: -STACK_REACH + self.chance.randrange(STACK_REACH - size),
                      PACKET: self.chance.randrange(world.LEAST_FRAME - size + 1),
                      MAP: self.chance.randrange(-world.REACH, world.REACH - size + 1)}[base]  # fmt: skip
            self.text.add("mov64_reg", dst=register, src=base)
            self.text.add("add64_imm", dst=register, imm=offset)
            self.text.add("mov64_imm", dst=register + 1, imm=size)
        self.operand(5)
        self.helper_call("csum_diff")

    def tail_call(self) -> None:
        self.guarded(self.maps.tail_call)

    # -- slips --

    def guarded(self, act: Callable[[], None]) -> None:
        """For one packet of eight or so."""
        over = Label()
        self.text.add("ldxb", dst=5, src=PACKET, offset=self.chance.randrange(14))
        self.text.add("jgt64_imm", over, dst=5, imm=self.chance.choice((15, 31, 47)))
        act()
        self.text.place(over)

    def slip(self) -> None:
        chance, device = self.chance, self.device
        text = self.text

        def fill(row: Row, **given: int) -> Instruction:
            fields = {name: chance.randrange(-100, 100) for name in ("offset", "imm")
                      if not isinstance(getattr(row, name), int)}  # fmt: skip
            if row.offset is Legal.FRAME:
                fields["offset"] = 16 * chance.randrange(33)
            registers = {name: chance.randrange(10) for name in ("dst", "src")
                         if isinstance(getattr(row, name), Legal)}  # fmt: skip
            return make(row, **fields | registers | given)

        match chance.randrange(9):
            case 0:
                text.put(Instruction(chance.choice((*isa.BY_OPCODE, chance.randrange(256))), chance.randrange(16),
                                     chance.choice((0, chance.randrange(16))), chance.choice((0, 1, 16, -1)),
                                     chance.choice((0, 1, 32, chance.randrange(-1 << 31, 1 << 31)))))  # fmt: skip
            case 1:
                text.put(fill(chance.choice(device.lacking or isa.ROWS)))
            case 2:
                text.add("call_helper", imm=chance.choice((0, 4, 199, 999, -1)))
            case 3:
                text.put(fill(chance.choice(device.arithmetic), dst=chance.choice((6, 7, 8, 9, 10))))
            case 4:
                text.put(fill(chance.choice(device.loads + device.stores + device.atomics)))
            case 5:
                base = chance.choice((FRAME, PACKET, MAP, CONTEXT))
                row = chance.choice(device.loads + device.stores)
                self.at(row, base, chance.choice((chance.randrange(-32768, 32768), 1, 3, -300, 2000)))
            case 6:
                row = chance.choice(device.atomics or device.stores)
                self.text.add(row, dst=chance.choice((FRAME, PACKET, MAP, CONTEXT)), src=2,
                              offset=chance.choice((-8, -4, -2, 1, 16)))  # fmt: skip
            case 7:
                frame, target = chance.choice((0, 16, 496, 512)), Label()
                text.place(target)
                text.add("call_local", target, offset=frame)  # itself, until the stack ends
            case 8:
                text.put(fill(chance.choice(device.conditions + device.jumps),
                              **{"offset": chance.choice((-1, 1, 100, -32768))} if chance.random() < 0.9 else {}))


def focus_of(device: Device, chance: random.Random) -> list[int]:
    """A few tables."""
    return chance.sample(device.tables, min(3, len(device.tables)))


_PLAIN = ("ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns", "get_prandom_u32", "get_smp_processor_id",
          "redirect", "xdp_adjust_head", "xdp_adjust_tail", "xdp_adjust_meta")  # fmt: skip
