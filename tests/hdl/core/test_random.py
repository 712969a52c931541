"""Random programs on all threads at once, against the golden interpreter."""

import random

import pytest

from bpfnic.sim.golden.maps import Descriptor
from bpfnic.spec import addresses, isa
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.instruction import Instruction, encode
from bpfnic.spec.isa import Legal, Operation
from bpfnic.spec.maps import MapType
from tests.hdl.core.bench import Scenario

INTERESTING = (0, 1, 2, 7, 8, 31, 32, 63, 64, 127, 128, 255, 0x7FFF, 0x8000, 0x7FFFFFFF, -1, -2, -128, -(1 << 31))
JUMPS = [row for row in isa.ROWS if row.offset is Legal.BRANCH or row.imm is Legal.BRANCH]
MEMORY = [row for row in isa.ROWS if row.offset is Legal.SIGNED16]
SIMPLE = [
    row for row in isa.ROWS
    if row not in JUMPS and row not in MEMORY and row.operation not in (Operation.CALL_HELPER, Operation.EXIT)
]  # fmt: skip
ENDING = (Operation.LD_ABS, Operation.LD_IND, Operation.LDDW_REFERENCE, Operation.CALL_BTF, Operation.CALLX)
PACKET, STACK, MAP = 6, 10, 7  # registers that the programs keep for addresses, besides what chance makes of the others

PROLOGUE = """
    r9 = r1
    r6 = *(u32 *)(r1 + 0)
    r7 = 0x10000000 ll
    r8 = *(u64 *)(r6 + 8)
    r5 = *(u32 *)(r6 + 17)
    r4 = r8
    r3 = 0x123456789abcdef0 ll
    r2 = *(s8 *)(r6 + 1)
"""
LOOKUP = f"""
    r1 = {addresses.map_handle(1)} ll
    r2 = r10
    r2 += -8
    *(u32 *)(r10 - 8) = KEY
    call CALL
    if r0 == 0 goto +1
    r1 = 3
"""
UPDATE = """
    r3 = SOURCE
    r3 += SHIFT
    r4 = 0
"""


class Generator:
    """Programs of which most instructions do something."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)

    def program(self, length: int) -> bytes:
        body = b"".join(self.piece(length) for _ in range(length))
        return assemble(PROLOGUE) + body + assemble("exit")

    def piece(self, length: int) -> bytes:
        choose = self.random.random()
        if choose < 0.45:
            row = self.random.choice(SIMPLE)
            while row.operation in ENDING and self.random.random() < 0.97:
                row = self.random.choice(SIMPLE)
            return self.fill(row, {})
        if choose < 0.8:
            return self.memory()
        if choose < 0.93:
            row = self.random.choice(JUMPS)
            distance = self.random.choice([0, 0, 1, 1, 2, 3, 5, -4, length])
            return self.fill(row, {"offset" if row.offset is Legal.BRANCH else "imm": distance})
        if choose < 0.94:
            return self.by_register()
        if choose < 0.96:
            call = self.random.choice([5, 7, 8, 8, 44, 65, 23] + [999] * (self.random.random() < 0.02))
            return assemble(f"r1 = r9\nr2 = {self.random.choice([0, 4, -6, 300, -300])}\ncall {call}")
        if choose < 0.98:
            text = LOOKUP.replace("KEY", str(self.random.choice([0, 1, 2, 3, 9])))
            call = self.random.choice(["1", "1", "2", "3"])
            update = UPDATE.replace("SOURCE", self.random.choice(["r6", "r7", "r10"]))
            update = update.replace("SHIFT", str(self.random.choice([0, 1, 13, -64, -63])))
            return assemble((update if call == "2" else "") + text.replace("CALL", call))
        return bytes(self.random.randrange(256) for _ in range(8)) if self.random.random() < 0.03 else b""

    def by_register(self) -> bytes:
        """A call of a helper, or of any slot of the store; or a load from the packet."""
        choose = self.random.random()
        if choose < 0.3:
            row = self.random.choice([row for row in SIMPLE if row.operation in (Operation.LD_ABS, Operation.LD_IND)])
            index = self.random.randrange(20)
            at = {"imm": self.random.randrange(-index - 1, 12), "src": 5} if row.operation is Operation.LD_IND else {
                "imm": self.random.randrange(12)}  # fmt: skip
            return assemble(f"r5 = {index}") + self.fill(row, at)
        if choose < 0.6:
            target = addresses.code_address(self.random.randrange(2048)) + (self.random.random() < 0.02)
            return assemble(f"r5 = {target:#x}\ncallx r5 frame {self.random.choice([16, 32, 64])}")
        number = self.random.choice([1, 5, 7, 8, 23, 44, 65])
        if number == 1:  # with a key that may be in map memory
            key = self.random.choice(["r10", "r7", "r6"])
            return assemble(f"r1 = {addresses.map_handle(1)} ll\nr2 = {key}\nr2 += -8\nr5 = 1\ncallx r5")
        return assemble(f"r1 = r9\nr2 = {self.random.choice([0, 4, -6, 300])}\nr5 = {number}\ncallx r5")

    def memory(self) -> bytes:
        row = self.random.choice(MEMORY)
        base = self.random.choice([PACKET, MAP, MAP, STACK, STACK])
        size = row.width // 8
        offset = self.random.randrange(0, 64)
        if row.operation.name.startswith("ATOMIC"):
            base = MAP
            offset -= offset % size
        elif base == STACK:
            offset = -64 + offset - offset % size
        if self.random.random() < 0.01:
            offset = self.random.randrange(-1 << 15, 1 << 15)
        return self.fill(row, {"offset": offset, "dst" if row.src is not Legal.REGISTER or row.dst is Legal.REGISTER
                               else "src": base})  # fmt: skip

    def fill(self, row: isa.Row, given: dict[str, int]) -> bytes:
        written = [0, 1, 2, 3, 4, 5, 8]
        fields = {}
        for name in ("dst", "src", "offset", "imm", "next_imm"):
            legal = getattr(row, name)
            if legal is Legal.REGISTER:
                fields[name] = self.random.choice([*written, 6, 7, 9, 10])
            elif legal is Legal.WRITTEN:
                fields[name] = self.random.choice(written)
            elif legal is Legal.FRAME:
                fields[name] = self.random.choice([0, 16, 32, 64, 128])
            elif legal in (Legal.IMM32, Legal.SIGNED16, Legal.BRANCH):
                fields[name] = self.random.choice([*INTERESTING, self.random.randrange(-1 << 15, 1 << 15)])
                if legal is not Legal.IMM32:
                    fields[name] = max(-1 << 15, min(fields[name], (1 << 15) - 1))
            else:
                fields[name] = legal
        if row.src is Legal.REGISTER and row.dst is Legal.WRITTEN and "dst" in given:
            given["src"] = given.pop("dst")  # a load's base
        return encode([Instruction(row.opcode, **fields | given)])


def run_random(core, seed: int):
    """1,500 packets through as many programs as fit."""
    generator = Generator(seed)
    programs, slot = {}, 0
    while slot < core.config.program_slots - 350:
        programs[slot] = generator.program(generator.random.choice([3, 8, 20, 40]))
        slot += len(programs[slot]) // 8 + generator.random.choice([0, 1])
    frames = [bytes(generator.random.randrange(256) for _ in range(generator.random.choice([14, 60, 64, 200])))
              for _ in range(10)]  # fmt: skip
    packets = [(generator.random.choice(list(programs)), generator.random.choice(frames)) for _ in range(1500)]
    result = core.check(Scenario(
        programs, packets, map=bytes(generator.random.randrange(256) for _ in range(256)),
        descriptors={1: Descriptor(MapType.PERCPU_ARRAY, 512, 5, 11, 11, 55)}, seed=seed,
        threads=min(generator.random.choice([1, 4, 16, 16]), core.config.threads),
        latency=(1, generator.random.choice([3, 60])), stall=generator.random.choice([0, 30, 80]),
        budget=generator.random.choice([60, 300]),
    ))  # fmt: skip
    assert {Cause.NONE, Cause.MEMORY_ACCESS} <= {run.cause for run in result.runs}


@pytest.mark.parametrize("seed", range(6))
def test_random_programs(core, seed):
    run_random(core, seed)


def test_small_core(small_core):
    for seed in range(100, 103):
        run_random(small_core, seed)
