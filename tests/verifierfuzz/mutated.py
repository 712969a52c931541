"""Objects, most of them real, with bytes changed, through the whole of `bpfnic verify` and of `nic.load`: each gets a
verdict or one line that says what is wrong, and what is accepted doesn't trap on the golden NIC."""

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bpfnic.host.compile import compile_object
from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.elf import Elf
from bpfnic.host.nic import Nic
from bpfnic.host.object import open_object
from bpfnic.host.verifier import command
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from tests.conftest import REPOSITORY

PROGRAMS = [*sorted((REPOSITORY / "firmware" / "programs").glob("*.bpf.c")),
            Path(__file__).parent / "tailcalls.bpf.c"]  # fmt: skip
HARMLESS = {Cause.NONE, Cause.PROGRAM, Cause.REDIRECT, Cause.VERDICT}
"""How a packet of a verified program may end: by its own word."""
_PARTS = ("code", "code", "code", "code", ".BTF", ".BTF.ext", ".rel", "any")
_INTERESTING = (0, 1, 2, 4, 8, 0x7F, 0x80, 0xFF)


@dataclass
class Outcome:
    """`counts` of what became of objects; `slowest` verdict in seconds; `problems`, a line each."""

    counts: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    problems: list[str] = field(default_factory=list)


def mutated(chance: random.Random, path: Path) -> bytes:
    """An object with a few bytes changed: of its code, of its types, of its relocations, or anywhere."""
    elf, data = Elf(path), bytearray(path.read_bytes())
    part = chance.choice(_PARTS)
    sections = [section for section in elf.sections if section.data and (
        section.executable and section.size if part == "code" else section.name.startswith(part))]  # fmt: skip
    low, high = 0, len(data)
    if part != "any" and sections:
        section = chance.choice(sections)
        low = data.index(section.data)
        high = low + len(section.data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(low, high)
        kind = chance.randrange(3)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at] = chance.choice(_INTERESTING)
        else:
            data[at] = data[chance.randrange(low, high)]
    return bytes(data)


def try_object(path: Path, chance: random.Random, outcome: Outcome) -> None:
    """Each program of an object through both, and what is accepted on packets."""
    try:
        object = open_object(path)
    except BpfnicError as error:
        _one_line(error, outcome)
        return
    for name in object.programs:
        began = time.process_time()
        accepted = False
        try:
            results = command.run(command.Job(program=path, name=name, level=chance.randrange(3), backend="golden"))
            command.as_text(results, 1)
            accepted = results[0].good
            outcome.counts["verdict: accepted" if accepted else "verdict: refused"] += 1
        except BpfnicError as error:
            _one_line(error, outcome)
        outcome.slowest = max(outcome.slowest, time.process_time() - began)
        _load(path, name, accepted, chance, outcome)


def _one_line(error: BpfnicError, outcome: Outcome) -> None:
    outcome.counts["refused before a verdict"] += 1
    if not str(error) or "\n" in str(error):
        outcome.problems.append(f"a refusal that isn't one line: {error!r}")


def _load(path: Path, name: str, accepted: bool, chance: random.Random, outcome: Outcome) -> None:
    with Nic("golden", DeviceOptions()) as nic:  # the one whose limits the command asked for
        try:
            program = nic.load(open_object(path), name)
        except BpfnicError:
            outcome.counts["load: refused"] += 1
            return
        outcome.counts["load: taken"] += 1
        if not accepted:
            outcome.problems.append(f"nic.load takes {name}, and bpfnic verify doesn't accept it")
        program.attach()
        frames = [chance.randbytes(chance.randrange(14, 200)) for _ in range(8)]
        for packet in nic.run([Arrival(number % 2, frame) for number, frame in enumerate(frames)]).packets:
            if packet.cause not in HARMLESS:
                outcome.problems.append(f"{name} is accepted and ends a packet with {packet.cause.name}")


def fuzz(count: int, seed: int, folder: Path, say: Callable[[str], None] = lambda text: None) -> Outcome:
    """So many objects. What has a problem stays in the folder, by number."""
    outcome = Outcome()
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        source = chance.choice(PROGRAMS)
        path = folder / f"{number}-{source.name.removesuffix('.c')}.o"
        path.write_bytes(mutated(chance, compile_object(source)))
        before = len(outcome.problems)
        try:
            try_object(path, chance, outcome)
        except Exception as error:  # whatever it is, a user would see it
            outcome.problems.append(f"{type(error).__name__}: {error}")
        for problem in outcome.problems[before:]:
            say(f"{path.name}: {problem}")
        if len(outcome.problems) == before:
            path.unlink()
    return outcome
