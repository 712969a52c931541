"""Programs by chance, of which most instructions do something: they keep to their windows but for a slip now and then,
jump forward, loop a few times, call helpers and functions of their own, and race on the same few map values.

r6 to r9 stay what the prologue makes of them in every function, unless a slip overwrites one: r6 the context, r7 the
packet's first byte, r8 a map value, r9 a number that counts loops. The rest is for anything."""

import random

from bpfnic.spec import addresses, engine, isa
from bpfnic.spec.addresses import code_address
from bpfnic.spec.assembly import assemble
from bpfnic.spec.instruction import SLOT_BYTES, Instruction
from bpfnic.spec.isa import Class, Group, Legal, Operation, Row

MAP_WINDOW = 96  # bytes of map values around r8 that programs use
ENTRIES = 8
ARRAYS = (  # by handle: offset in map memory, size of a value, stride, stride of CPUs
    (0, 24, 24, 0),
    (1024, 5, 8, 80),  # the last one: 16 CPUs have copies
    (256, 1, 1, 0),
    (288, 13, 24, 0),
)
LEAST_FRAME = 60

ROWS = [row for row in isa.ROWS if row.group in engine.GROUPS]
PACKET_LOADS = [row for row in ROWS if row.group is Group.PACKET]
ORDERED = (Operation.LOAD_ACQUIRE, Operation.STORE_RELEASE)
ALIGNED = [row for row in ROWS if row.operation.name.startswith("ATOMIC") or row.operation in ORDERED]
LOADS = [row for row in ROWS if row.operation in (Operation.LDX, Operation.LDXS)]
STORES = [row for row in ROWS if row.operation in (Operation.ST, Operation.STX)]
JUMPS = [row for row in ROWS if row.offset is Legal.BRANCH or row.operation is Operation.JA]
ARITHMETIC = [row for row in ROWS if row.instruction_class in (Class.ALU, Class.ALU64)]
NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 64, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, -1, -2, -8, -128,
           -32768, -(1 << 31))  # fmt: skip
SCRATCH = range(6)
CONTEXT, PACKET, MAP, LOOP = 6, 7, 8, 9

PROLOGUE = f"""
    r6 = r1
    r7 = *(u32 *)(r1 + 0)
    r8 = {addresses.MAP_VALUES + 48:#x} ll
    r9 = 0
    r0 = *(u64 *)(r7 + 14)
    r2 = *(u64 *)(r7 + 21)
    r3 = *(s16 *)(r7 + 3)
    r4 = *(u32 *)(r7 + 9)
    r5 = 0x8000000000000001 ll
"""


class Generator:
    """Programs from a seed. `slips`: how often an instruction leaves the rules, 0 to 1."""

    def __init__(self, seed: int, slips: float = 0.004):
        self.random = random.Random(seed)
        self.slips = slips

    def program(self, pieces: int, entry: int) -> bytes:
        """Program text for slot `entry`: a function, and behind it those that it calls."""
        functions = self.random.choice([0, 0, 1, 2, 4])
        texts = [assemble(PROLOGUE) + self.body(pieces) + self.verdict()]
        for _ in range(functions):
            # A callee has its own r6 to r9: what it finds there first is 0, then what it left.
            texts.append(assemble("r6 = r1\nr7 = r2\nr8 = r3\nr9 = r4") + self.body(pieces // 3) + assemble("exit"))
        return self.linked(texts, entry)

    CALL = b"call a function."

    def linked(self, texts: list[bytes], entry: int) -> bytes:
        """Places for calls become calls of any later function (or none is there, of nothing)."""
        starts, at = [], 0
        for text in texts:
            starts.append(at)
            at += len(text) // SLOT_BYTES
        code = bytearray(b"".join(texts))
        while (place := code.find(self.CALL)) >= 0:
            slot = place // SLOT_BYTES
            own = max(number for number, start in enumerate(starts) if start <= slot)
            later = range(own + 1, len(texts))
            frame = self.random.choice([0, 0, 16, 32, 64, 64, 128]) if self.random.random() > self.slips else 496
            if not later:
                call = [Instruction(0xB7, 0, imm=3), Instruction(0x07, 0, imm=1)]
            elif self.random.random() < 0.4:  # through a pointer
                callee = code_address(entry + starts[self.random.choice(later)])
                call = [Instruction(0xB7, 5, imm=callee), Instruction(0x8D, 5, offset=frame)]
            else:
                call = [Instruction(0x85, src=1, offset=frame, imm=starts[self.random.choice(later)] - slot - 1),
                        Instruction(0x07, 0, imm=1)]  # fmt: skip
            code[place : place + len(self.CALL)] = b"".join(one.encode() for one in call)
        return bytes(code)

    def verdict(self) -> bytes:
        chance = self.random.random()
        if chance < 0.1:
            return assemble("exit")  # whatever r0 is
        if chance < 0.3:
            return assemble(f"r1 = {self.random.choice([1, 1, 2, 2, 9])}\nr2 = 0\ncall 23\nexit")
        return assemble(f"r0 = {self.random.choice([1, 2, 2, 2, 2, 3, 3, 3])}\nexit")

    # -- pieces --

    def body(self, pieces: int) -> bytes:
        """Pieces, with jumps over some of those that follow and loops around some that went before."""
        made: list[bytes] = []
        for _ in range(pieces):
            made.append(self.piece())
        code: list[bytes] = []
        for number, piece in enumerate(made):
            chance = self.random.random()
            if chance < 0.12:  # over what follows; more rarely to anywhere in it
                distance = sum(map(len, made[number : number + self.random.choice([0, 1, 1, 2, 4])])) // SLOT_BYTES
                if self.random.random() < self.slips:
                    distance += self.random.choice([-1, 1, 100])
                code.append(self.jump(distance) + piece)
            elif chance < 0.15:  # three times round
                back = -(len(piece) // SLOT_BYTES) - 2
                loop = Instruction(0x07, LOOP, imm=-1).encode() + Instruction(0x65, LOOP, offset=back).encode()
                code.append(Instruction(0xB7, LOOP, imm=3).encode() + piece + loop)
            else:
                code.append(piece)
        # Measured without the jumps put in between: some land elsewhere, but inside the body.
        return b"".join(code)

    def jump(self, distance: int) -> bytes:
        row = self.random.choice(JUMPS)
        if row.imm is Legal.BRANCH:
            return self.filled(row, imm=distance)
        return self.filled(row, offset=distance)

    def piece(self) -> bytes:
        chance = self.random.random()
        if chance < self.slips:
            return self.slip()
        if chance < 0.40:
            return self.filled(self.random.choice(ARITHMETIC))
        if chance < 0.44:
            return Instruction(0x18, self.scratch(), imm=self.number(), next_imm=self.number()).encode()
        if chance < 0.78:
            return self.access()
        if chance < 0.84:
            return self.atomic()
        if chance < 0.90:
            return self.map_helper()
        if chance < 0.94:
            return self.helper()
        if chance < 0.97:
            return assemble("r1 = r6\nr2 = r7\nr3 = r8\nr4 = r9") + self.CALL
        return assemble(f"r{self.scratch()} = r{self.random.choice([10, 6, 7, 8, 9])}")

    def slip(self) -> bytes:
        chance = self.random.random()
        if chance < 0.3:
            return bytes(self.random.randrange(256) for _ in range(SLOT_BYTES))
        if chance < 0.5:
            return self.filled(self.random.choice(isa.ROWS))
        if chance < 0.6:
            return Instruction(0x85, imm=self.random.choice([0, 4, 999, -1])).encode()
        if chance < 0.8:
            return self.filled(self.random.choice(ARITHMETIC), dst=self.random.choice([6, 7, 8, 9, 10]))
        return self.filled(self.random.choice(LOADS + STORES))  # through any register

    def load_packet(self) -> bytes:
        row = self.random.choice(PACKET_LOADS)
        index, at = self.random.randrange(8), self.random.randrange(LEAST_FRAME - 46 - row.width // 8)
        if self.random.random() < self.slips:
            at = self.random.choice([LEAST_FRAME - 1, self.number()])
        if row.operation is Operation.LD_ABS:
            return self.filled(row, imm=at)
        return assemble(f"r3 = {index}") + self.filled(row, src=3, imm=at - index)

    def access(self) -> bytes:
        if self.random.random() < 0.05:
            return self.load_packet()
        row = self.random.choice(self.random.choice([LOADS, STORES]))
        size = row.width // 8
        base = self.random.choice([10, 10, PACKET, PACKET, MAP, MAP, CONTEXT])
        if base == CONTEXT and row in STORES:
            base = 10
        aligned = self.random.randrange(0, 8) * size
        offset = {
            10: aligned - 64,
            PACKET: self.random.randrange(LEAST_FRAME - 46 - size),
            MAP: self.random.randrange(-MAP_WINDOW // 2, MAP_WINDOW // 2 - size),
            CONTEXT: aligned,
        }[base]
        if self.random.random() < self.slips:
            offset = self.random.choice([self.random.randrange(-32768, 32768), offset + 1, offset - 300, offset + 2000])
        return self.filled(row, offset=offset, **{"src" if row in LOADS else "dst": base})

    def atomic(self) -> bytes:
        row = self.random.choice(ALIGNED)
        pointer = "src" if row.operation is Operation.LOAD_ACQUIRE else "dst"
        size = row.width // 8
        base = self.random.choice([MAP, MAP, 10, PACKET])
        first = {MAP: self.random.randrange(-2, 2), 10: self.random.randrange(-8, 0), PACKET: 0}[base]
        offset = first * 8 + self.random.choice([0, 8 - size])
        if self.random.random() < self.slips:
            offset += 1
        if base == PACKET:  # helpers have moved it to any alignment
            return assemble("r3 = r7\nr3 += 7\nr3 &= -8") + self.filled(row, **{pointer: 3}, offset=offset)
        if self.random.random() < self.slips:
            base = self.random.choice([PACKET, CONTEXT])
        return self.filled(row, **{pointer: base}, offset=offset)

    def map_helper(self) -> bytes:
        """A call, and then the value itself."""
        number, handle = self.random.choice([1, 1, 1, 2, 2, 3]), self.random.choice([0, 0, 1, 2, 3])
        key = self.random.choice([self.random.randrange(ENTRIES), 0, ENTRIES, -1])
        pointer = self.random.choice(["r10", "r10", "r7", "r8", "r6"])
        at = self.random.randrange(-60, -8) if pointer == "r10" else self.random.randrange(4)
        lines = [f"*(u32 *)({pointer} {at & -4 if pointer == 'r10' else at:+}) = {key}" if pointer != "r6" else "",
                 f"r1 = {addresses.map_handle(handle):#x} ll", f"r2 = {pointer}",
                 f"r2 += {at & -4 if pointer == 'r10' and self.random.random() < 0.8 else at}"]  # fmt: skip
        if number == 2:
            source = self.random.choice(["r10", "r7", "r8"])
            lines += [f"r3 = {source}", f"r3 += {self.random.randrange(-80, -40) if source == 'r10' else 0}"]
            lines += [f"r4 = {self.random.choice([0, 0, 0, 2, 1, 3, 4])}"]
        call = number if self.random.random() > self.slips else self.random.choice([1, 2, 3])
        lines.append(f"call {call}" if self.random.random() < 0.8 else f"r5 = {call}\ncallx r5")
        if number == 1:
            reach = ["r1 = *(u64 *)(r0 + 0)", "*(u8 *)(r0 + 5) = r1", "*(u32 *)(r0 + 14) = 77",
                                      "r5 = 3\nlock *(u64 *)(r0 + 8) += r5"]  # fmt: skip
            row = self.random.choice(reach if handle < 2 else ["r1 = *(u8 *)(r0 + 0)", "*(u8 *)(r0 + 0) = r1"])
            lines += [f"if r0 == 0 goto +{row.count(chr(10)) + 1}", row]
        return assemble("\n".join(lines))

    def helper(self) -> bytes:
        number = self.random.choice([5, 7, 8, 23, 44, 44, 65])
        delta = self.random.choice([0, -4, -7, -16, -63, 1, 4, 5, 400, -400, 2000, -(1 << 31) + 1])
        after = "r7 = *(u32 *)(r6 + 0)\n" if number in (44, 65) else ""
        if number == 65:
            delta = self.random.choice([delta, abs(delta)])  # 14 bytes stay, and accesses keep to them
        call = f"call {number}" if self.random.random() < 0.8 else f"r5 = {number}\ncallx r5"
        return assemble(f"r1 = r6\nr2 = {delta}\n{call}\n{after}")

    # -- fields --

    def scratch(self) -> int:
        return self.random.choice(SCRATCH)

    def number(self) -> int:
        return self.random.choice([*NUMBERS, self.random.randrange(-1 << 31, 1 << 31)])

    def filled(self, row: Row, **given: int) -> bytes:
        """An instruction of a row with the given fields, legal in the others."""
        fields: dict[str, int] = {}
        for name in ("dst", "src", "offset", "imm"):
            legal = getattr(row, name)
            if name in given:
                fields[name] = given[name]
            elif legal is Legal.WRITTEN:
                fields[name] = self.scratch()
            elif legal is Legal.REGISTER:
                fields[name] = self.random.choice([*SCRATCH, *SCRATCH, 6, 7, 8, 9, 10])
            elif legal in (Legal.FRAME, Legal.SIGNED16, Legal.BRANCH):
                fields[name] = self.random.choice([0, 0, 16, 64])
            elif legal is Legal.IMM32:
                fields[name] = self.number()
            else:
                fields[name] = legal
        next_imm = None if row.next_imm is None else 0
        return Instruction(row.opcode, **fields, next_imm=next_imm).encode()
