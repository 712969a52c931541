"""Every row of the instruction table, legal and not, and every opcode that is in none."""

import pytest

from bpfnic.spec import isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.instruction import Instruction, encode
from bpfnic.spec.isa import Legal
from tests.hdl.core.bench import Scenario

FRAME = bytes(range(64))
VALUES = {
    "dst": (0, 1, 9, 10, 11, 15),
    "src": (0, 1, 2, 6, 7, 8, 9, 10, 11, 15),
    "offset": (0, 1, 2, 8, 15, 16, 17, 32, 64, 256 + 16, 512, 513, 528, -1, -16, -1 << 15),
    "imm": (0, 1, 8, 0x10, 16, 17, 32, 64, 0x40, 0x41, 0xA0, 0xE1, 0xF1, 0x1E1, 0x100, 0x110, 0x300, 0x10010, 128, 200,
            -1, -1 << 31, 65),
}
LEGAL = {Legal.REGISTER: 2, Legal.WRITTEN: 3, Legal.SIGNED16: 0, Legal.IMM32: 5, Legal.BRANCH: 1, Legal.FRAME: 32}
END = encode([Instruction(isa.BY_NAME["exit"].opcode)]) * 3


def instance(row: isa.Row) -> dict[str, int | None]:
    fields = {name: getattr(row, name) for name in ("dst", "src", "offset", "imm", "next_imm")}
    return {name: LEGAL[value] if isinstance(value, Legal) else value for name, value in fields.items()}


def cases():
    """Each row as it should be, with each field once something else, and with two registers of all kinds."""
    for row in isa.ROWS:
        yield row.opcode, instance(row)
        for name, values in VALUES.items():
            for value in values:
                yield row.opcode, instance(row) | {name: value}
    for opcode in range(256):
        if opcode not in isa.BY_OPCODE:
            yield opcode, {}


def run(core, programs: list[bytes]) -> list:
    """Each program once, as many at a time as the program store holds."""
    runs = []
    while programs:
        placed, slot = {}, 0
        while programs and slot + len(programs[0]) // 8 < core.config.program_slots:
            placed[slot] = programs.pop(0)
            slot += len(placed[slot]) // 8
        packets = [(entry, FRAME) for entry in placed]
        runs += core.check(Scenario(placed, packets, map=bytes(range(64)), budget=8)).runs
    return runs


def test_fields(core):
    programs = [encode([Instruction(opcode, **fields)]) + END for opcode, fields in cases()]
    causes = [each.cause for each in run(core, programs)]
    for cause in (Cause.NONE, Cause.ILLEGAL_INSTRUCTION, Cause.HELPER, Cause.MEMORY_ACCESS,
                  Cause.PROGRAM_RANGE, Cause.BUDGET):  # fmt: skip
        assert cause in causes


@pytest.mark.parametrize("name", ["lddw", "exit", "ja", "call_local"])
def test_last_slot(core, name):
    """What begins or goes on behind the store is out of range, as is the way back to there."""
    row = isa.BY_NAME[name]
    last = core.config.program_slots - 1
    text = encode([Instruction(row.opcode, **instance(row) | ({"imm": -4} if name == "call_local" else {}))])[:8]
    result = core.check(Scenario({last - 3: END, last: text}, [(last, FRAME)]))
    assert (result.runs[0].cause is Cause.NONE) == (name == "exit")
