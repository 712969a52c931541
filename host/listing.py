"""Instructions of a program as a user knows them: number, disassembly, line of C."""

from bpfnic.host.object import Program
from bpfnic.spec.assembly import disassemble


def source(program: Program, slot: int) -> str:
    """`file.c:41: text` of an instruction, "" where the object has no line info."""
    line = program.line(slot)
    return f"{line.file.rsplit('/', 1)[-1]}:{line.line}: {line.text}" if line else ""


def instruction(program: Program, slot: int) -> str:
    """`instruction 23: r3 = *(u16 *)(r2 + 0xc)`, with the map's name where it is a reference to one."""
    if not 0 <= slot < len(program.instructions) or (found := program.instructions[slot]) is None:
        return f"instruction {slot}: outside the program"
    if reference := program.references.get(slot):
        place = "" if reference.offset is None else f" + {reference.offset}"
        return f"instruction {slot}: r{found.dst} = {reference.map}{place} ll"
    return f"instruction {slot}: {disassemble(found)}"
