"""Bytes as programs: past the loader into program memory, where both sides must end every packet alike; and to the
loader, which must take them or refuse them with one line."""

import random
import struct
import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.object import open_object
from bpfnic.sim.bare import BareNic
from bpfnic.sim.fuzz import world
from bpfnic.sim.fuzz.generate import Device, Generator
from bpfnic.sim.fuzz.program import Program, listing, of_bytes
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.spec import isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import SLOT_BYTES, Instruction
from bpfnic.spec.isa import Operation

BUDGET = 150
_NEVER = {Cause.ILLEGAL_INSTRUCTION, Cause.HELPER, Cause.UNSUPPORTED, Cause.PROGRAM_RANGE}
"""Causes that no packet of a loaded program ends with, but for what `_excused` says."""

_TRAPS = frozenset(Cause) - {Cause.NONE, Cause.PROGRAM, Cause.REDIRECT, Cause.VERDICT}
"""Those of a verified program's."""


class Count(Protocol):
    """Where it is written down what the loader did: took a program, refused it, and of those it took which the verifier
    accepts."""

    loaded: int
    refused: int
    verified: int


@dataclass(frozen=True)
class Problem:
    """What a loader may not do: `what` in one line, and the program."""

    what: str
    listing: list[str]


def program(chance: random.Random, device: Device) -> Program:
    """Anything: bytes, real opcodes with odd fields, a program with bits flipped, or cut, or put in disorder."""
    kind = chance.randrange(5)
    if kind == 0:
        return of_bytes(chance.randbytes(SLOT_BYTES * chance.randrange(1, 12)))
    if kind == 1:
        return of_bytes(b"".join(_odd(chance) for _ in range(chance.randrange(1, 24))))
    code = bytearray(Generator(device, chance).program(chance.randrange(3, 25)).code())
    slots = len(code) // SLOT_BYTES
    if kind == 2:
        for _ in range(chance.choice((1, 1, 2, 5))):
            code[chance.randrange(len(code))] ^= 1 << chance.randrange(8)
    elif kind == 3:
        del code[: SLOT_BYTES * chance.randrange(slots)]
        del code[SLOT_BYTES * chance.randrange(1, len(code) // SLOT_BYTES + 1) :]
    else:
        for _ in range(chance.randrange(1, 6)):
            one, other = (SLOT_BYTES * chance.randrange(slots) for _ in range(2))
            kept = code[one : one + SLOT_BYTES]
            code[one : one + SLOT_BYTES] = code[other : other + SLOT_BYTES]
            code[other : other + SLOT_BYTES] = kept
    return of_bytes(bytes(code))


def _odd(chance: random.Random) -> bytes:
    """A slot with a real opcode; its fields are often legal."""
    row = chance.choice(isa.ROWS)
    exact = {name: value for name in ("dst", "src", "offset", "imm") if isinstance(value := getattr(row, name), int)}
    numbers = (0, 1, 2, -1, 8, 16, 32, 64, chance.randrange(-1 << 15, 1 << 15))
    fields = {"dst": chance.randrange(12), "src": chance.randrange(12), "offset": chance.choice(numbers),
              "imm": chance.choice((*numbers, chance.randrange(-1 << 31, 1 << 31)))} | exact  # fmt: skip
    if chance.random() < 0.2:
        name = chance.choice(tuple(fields))
        fields[name] = chance.randrange(16)
    return Instruction(row.opcode, **fields).encode()


# ---------------------------------------------------------------- the loader


def elf(code: bytes) -> bytes:
    """An object with one XDP program (ELF64, EM_BPF): its section and the sections' names."""
    names = b"\0xdp\0.shstrtab\0"
    header = 64
    at_names = header + len(code)
    at_table = -(-(at_names + len(names)) // 8) * 8
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    text = ident + struct.pack("<HHIQQQIHHHHHH", 1, 247, 1, 0, 0, at_table, 0, header, 0, 0, 64, 3, 2) + code + names
    sections = (
        (0,) * 10,
        (1, 1, 6, 0, header, len(code), 0, 0, 8, 0),  # PROGBITS, ALLOC | EXECINSTR
        (5, 3, 0, 0, at_names, len(names), 0, 0, 1, 0),  # STRTAB
    )
    return text.ljust(at_table, b"\0") + b"".join(struct.pack("<IIQQQQIIQQ", *section) for section in sections)


def offer_to_loader(programs: Sequence[Program], chance: random.Random, count: Count) -> Problem | None:
    """Each program to the loader, and from there to the golden NIC if it is taken, first by a verifier too, then
    without: no packet may find in it what a loader is there to refuse, and nothing of what it verified may trap."""
    with tempfile.TemporaryDirectory(prefix="bpfnic-fuzz-") as folder:
        for each in programs:
            code = each.code()
            path = Path(folder) / "fuzz.o"
            path.write_bytes(elf(code))
            for unsafe in (False, True):
                if problem := _load(path, each, chance, count, unsafe):
                    return problem
    return None


def _load(path: Path, offered: Program, chance: random.Random, count: Count, unsafe: bool) -> Problem | None:
    lines = listing(offered.instructions())
    with BareNic(GoldenTransport(DeviceOptions())) as nic:
        try:
            loaded = nic.device.load(open_object(path).program(), {}, unsafe=unsafe)
        except BpfnicError as error:
            count.refused += unsafe
            return Problem(f"a refusal of {len(str(error).splitlines())} lines", lines) if "\n" in str(error) else None
        except Exception as error:  # whatever it is, a user would see it
            where = traceback.extract_tb(error.__traceback__)[-1]
            said = f"the loader raised {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
            return Problem(said, lines)
        count.loaded += unsafe
        count.verified += not unsafe
        nic.device.attach(0, loaded)
        if unsafe:
            nic.write("BUDGET", BUDGET)
        arrivals = [Arrival(0, world.frame(chance)) for _ in range(4)]
        for packet in nic.run(arrivals).packets:
            never = _NEVER - _excused(offered) if unsafe else _TRAPS
            if packet.cause in never and packet.verdict is None:
                how = "loaded" if unsafe else "verified"
                return Problem(f"a packet of a {how} program ended with {packet.cause.name}", lines)
    return None


def _excused(offered: Program) -> set[Cause]:
    """Causes that registers, which no loader knows, may lead to."""
    operations = set()
    for instruction in offered.instructions():
        try:
            operations.add(isa.find(instruction).operation)
        except BpfnicError:
            continue
    return {Cause.PROGRAM_RANGE, Cause.ILLEGAL_INSTRUCTION, Cause.HELPER} if Operation.CALLX in operations else set()
