"""Every arithmetic, byte-swap and conditional jump row: the golden interpreter and the running kernel's engine give the
same on operands at random and at the edges."""

import os
import random
import struct

import pytest

from bpfnic.host.linux import bpf
from bpfnic.sim.golden.interpreter import Code
from bpfnic.sim.golden.memory import Buffer, Memory
from bpfnic.sim.golden.thread import Thread, finish
from bpfnic.spec import isa
from bpfnic.spec.assembly import assemble, disassemble
from bpfnic.spec.instruction import Instruction
from bpfnic.spec.isa import Class, Legal, Operation
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import ProgramType, XdpAction

EDGES = [0, 1, 2, 31, 32, 63, 64, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
IMMEDIATES = [1, -1, 7, -13, (1 << 31) - 1, -(1 << 31)]
SHIFTS = {Operation.LSH, Operation.RSH, Operation.ARSH}

ROWS = [
    row
    for row in isa.ROWS
    if row.instruction_class in (Class.ALU, Class.ALU64)
    or (row.instruction_class in (Class.JMP, Class.JMP32) and row.dst is Legal.REGISTER and row.offset is Legal.BRANCH)
]


def instructions(row: isa.Row) -> list[Instruction]:
    """r2 op= r3, or r2 op= each immediate that Linux takes."""
    if row.imm is not Legal.IMM32:
        imms = [row.imm]
    else:
        imms = [0, 1, row.width // 2, row.width - 1] if row.operation in SHIFTS else IMMEDIATES
    src = 3 if row.src is Legal.REGISTER else row.src
    offset = 1 if row.offset is Legal.BRANCH else row.offset
    return [Instruction(row.opcode, 2, src, offset, imm) for imm in imms]


def body(row: isa.Row, instruction: Instruction) -> str:
    """Leaves the result in r2: what the row writes, or whether it branches."""
    text = disassemble(instruction, row)
    if row.offset is not Legal.BRANCH:
        return text
    return f"r4 = 0\n{text}\ngoto +1\nr4 = 1\nr2 = r4"


def golden(text: str, a: int, b: int) -> int:
    code = Code(32)
    code.write(0, assemble(f"r2 = {a} ll\nr3 = {b} ll\n{text}\nr0 = r2\nexit"))
    memory = Memory(Buffer(bytes(64), 2048), 1, bytearray())
    return finish(Thread(code, memory, {}, budget=100).run(0))


@pytest.mark.linux
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_agrees_with_the_kernel(row: isa.Row):
    numbers = random.Random(row.name)
    pairs = [(numbers.choice(EDGES), numbers.choice(EDGES)) for _ in range(20)]
    pairs += [(numbers.getrandbits(64), numbers.getrandbits(numbers.choice((8, 32, 64)))) for _ in range(20)]
    map_fd = bpf.map_create(MapType.ARRAY, 4, 24, 1)
    try:
        for instruction in instructions(row):
            text = body(row, instruction)
            fd, _ = bpf.prog_load(
                ProgramType.XDP,
                assemble(f"""
                    r1 = map_val(map_by_fd({map_fd})) + 0 ll
                    r2 = *(u64 *)(r1 + 0)
                    r3 = *(u64 *)(r1 + 8)
                    {text}
                    *(u64 *)(r1 + 16) = r2
                    r0 = {XdpAction.XDP_PASS}
                    exit"""),
            )
            try:
                for a, b in pairs:
                    bpf.map_update(map_fd, bytes(4), struct.pack("<QQQ", a, b, 0))
                    assert bpf.prog_test_run(fd, bytes(64)).value == XdpAction.XDP_PASS
                    (result,) = struct.unpack_from("<Q", bpf.map_lookup(map_fd, bytes(4), 24), 16)
                    assert hex(golden(text, a, b)) == hex(result), f"{text}: {a:#x}, {b:#x}"
            finally:
                os.close(fd)
    finally:
        os.close(map_fd)
