"""Vectors that can't fail say nothing: each mistake below, one that somebody's engine has made or could, is put into a
copy of the golden model, and a vector must find it."""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause
from tests import vectors

MODULES = ("arithmetic", "thread", "interpreter", "memory")  # each imports those before it

ARITHMETIC, THREAD, INTERPRETER, MEMORY = MODULES
MISTAKES = {
    # what it is: where, what stands there, what comes in its place
    "32-bit shifts by up to 63": (ARITHMETIC, "a << (b & width - 1)", "a << (b & 63)"),
    "arithmetic shifts of unsigned numbers": (ARITHMETIC, "signed(a, width) >> (b", "a >> (b"),
    "signed compares of the low half": (
        ARITHMETIC,
        "JSGT: lambda a, b, width: signed(a, width) > signed(b, width)",
        "JSGT: lambda a, b, width: signed(a, 32) > signed(b, 32)",
    ),
    "negative quotients are 0": (ARITHMETIC, "if (a < 0) == (b < 0) else -quotient", "if (a < 0) == (b < 0) else 0"),
    "division rounded down": (ARITHMETIC, "quotient = abs(a) // abs(b)", "return a // b"),
    "division by zero gives all ones": (ARITHMETIC, "a // b if b else 0", "a // b if b else -1"),
    "modulo by zero gives 0": (ARITHMETIC, "a % b if b else a", "a % b if b else 0"),
    "LE leaves the upper bytes": (
        INTERPRETER,
        "compute(registers[dst] & mask, constant, width) & mask",
        "compute(registers[dst], constant, width)",
    ),
    "32-bit results keep the upper half": (
        INTERPRETER,
        "registers[dst] = compute(registers[dst] & mask, registers[src]",
        "registers[dst] = registers[dst] & ~mask | compute(registers[dst] & mask, registers[src]",
    ),
    "32-bit sign extension to 64 bits": (
        INTERPRETER,
        "signed(thread.registers[src], bits) & mask",
        "signed(thread.registers[src], bits) & MASK[64]",
    ),
    "stored immediates are zero extended": (
        INTERPRETER,
        "instruction.imm if row.operation is Operation.ST",
        "instruction.imm & MASK[32] if row.operation is Operation.ST",
    ),
    "64-bit immediates are zero extended": (
        INTERPRETER,
        "constant = instruction.imm & mask\n    compute",
        "constant = instruction.imm & MASK[32]\n    compute",
    ),
    "loads don't extend the sign": (INTERPRETER, "signed(value, width) & MASK[64] if extends", "value if extends"),
    "addresses wrap at 2**32": (THREAD, "base + offset & MASK[64]", "base + offset & MASK[32]"),
    "32-bit jumps compare 64 bits": (
        INTERPRETER,
        "taken(registers[dst] & mask, registers[src] & mask, width)",
        "taken(registers[dst], registers[src], 64)",
    ),
    "far jumps by the 16-bit offset": (
        INTERPRETER,
        "(instruction.offset if row.offset is Legal.BRANCH else instruction.imm)",
        "instruction.offset",
    ),
    "a callee's registers stay": (
        THREAD,
        "self._windows[self.frame], registers[6:10] = registers[6:10], self._windows[frame]",
        "pass",
    ),
    "nine frames": (THREAD, "if self.frame + 1 >= addresses.FRAMES", "if self.frame >= addresses.FRAMES"),
    "frames beyond the stack": (THREAD, "or top < addresses.STACK:", "or top < addresses.STACK - 16:"),
    "routines call routines": (THREAD, "if self.frame == addresses.FIRMWARE_FRAME:", "if False:"),
    "the firmware stack is everybody's": (MEMORY, "if self.privileged else addresses.STACK_BYTES", "if True else 0"),
    "the firmware stack stays open": (THREAD, "self.memory.privileged = ", "self.memory.privileged |= "),
    "32-bit cmpxchg compares 64 bits": (INTERPRETER, "old == registers[0] & mask", "old == registers[0]"),
    "a missed cmpxchg writes": (INTERPRETER, "new = operand if old == registers[0] & mask else old", "new = operand"),
    "misaligned atomics": (
        MEMORY,
        "self._find(address, size, write)\n        self._align(address, size)",
        "self._find(address, size, write)",
    ),
    "packet loads in host order": (MEMORY, 'start + size], "big")', 'start + size], "little")'),
    "packet loads a byte beyond": (MEMORY, "> self.buffer.data_end", "> self.buffer.data_end + 1"),
    "packets end a byte late": (MEMORY, "<= buffer.data_end", "<= buffer.data_end + 1"),
    "packets begin a byte early": (MEMORY, "buffer.data_meta <= packet", "buffer.data_meta <= packet + 1"),
    "the stack begins a byte early": (MEMORY, "0 <= stack and", "-1 <= stack and"),
    "the stack ends a byte late": (MEMORY, "else addresses.STACK_BYTES)", "else addresses.STACK_BYTES + 1)"),
    "the context can be written": (MEMORY, "and not write:", ":"),
    "map memory ends a byte late": (MEMORY, "address + size <= behind", "address + size <= behind + 1"),
    "the stack takes any alignment": (
        MEMORY,
        "self._align(address, size)\n            return self.stack",
        "return self.stack",
    ),
}


def mutant(module: str, right: str, wrong: str) -> dict[str, ModuleType]:
    """The golden model's modules, with one mistake."""
    folder = Path(find_spec("bpfnic.sim.golden").submodule_search_locations[0])
    names = {name: f"bpfnic.sim.golden.{name}" for name in MODULES}
    kept = {full: sys.modules.get(full) for full in names.values()}
    made = {}
    try:
        for name, full in names.items():
            text = (folder / f"{name}.py").read_text()
            if name == module:
                assert text.count(right) >= 1, f"{name}.py has no {right!r} any more"
                text = text.replace(right, wrong)
            made[name] = sys.modules[full] = ModuleType(full)
            exec(compile(text, f"mutant of {name}.py", "exec"), made[name].__dict__)
    finally:
        for full, original in kept.items():
            if original is None:
                del sys.modules[full]
            else:
                sys.modules[full] = original
    return made


def passes(vector: vectors.Vector, model: dict[str, ModuleType]) -> bool:
    thread, interpreter, memory = model["thread"], model["interpreter"], model["memory"]
    code = interpreter.Code(256)
    code.write(0, vector.code(addresses.MAP_VALUES, entry=0))
    reach = memory.Memory(memory.Buffer(vector.packet, 2048), 1, bytearray(vector.map))
    run = thread.Thread(code, reach, {}, budget=vector.budget)
    cause = Cause.NONE
    try:
        thread.finish(run.run(0))
    except thread.Trap as trap:
        cause = trap.cause
    except (ArithmeticError, IndexError, ValueError):
        return False
    return (
        cause is vector.trap
        and all(run.registers[number] == value for number, value in vector.registers.items())
        and (vector.packet_after is None or reach.buffer.frame == vector.packet_after)
        and (vector.map_after is None or reach.map_memory.startswith(vector.map_after))
    )


@pytest.fixture(scope="module")
def thinned() -> list[vectors.Vector]:
    """Every seventh case of large tests: enough to find them all, and quicker."""
    tests = vectors.by_test(vectors.read_all()).values()
    return [vector for cases in tests for vector in (cases if len(cases) < 30 else cases[::7])]


def test_without_a_mistake_all_pass(thinned: list[vectors.Vector]):
    model = mutant("memory", "", "")
    assert [vector.name for vector in thinned if not passes(vector, model)] == []


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(thinned: list[vectors.Vector], mistake: str):
    model = mutant(*MISTAKES[mistake])
    assert not all(passes(vector, model) for vector in thinned), f"no vector finds it: {mistake}"
