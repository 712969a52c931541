"""Programs of `bpfnic fuzz` (sim/fuzz/friendly.py) that the verifier accepts, on the golden NIC: none may trap, and at
each instruction each register that is still needed holds what one of the verifier's states allows."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.link import Reference
from bpfnic.host.maps import MapDefinition
from bpfnic.host.verifier.verdict import Subject
from bpfnic.sim.bare import BareNic
from bpfnic.sim.fuzz import world
from bpfnic.sim.fuzz.friendly import ENTRIES, VALUE_BYTES, Friendly
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.sim.golden.interpreter import Code
from bpfnic.spec import isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.instruction import Instruction, decode, encode
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import ProgramType
from tests.host.verifier.inside import Watch

MAP = MapDefinition("values", MapType.ARRAY, 4, VALUE_BYTES, ENTRIES)
LIMIT = 20_000
"""Instructions that are walked of one program."""
FRAMES = 6
_MAP_FD = isa.BY_NAME["lddw_map_fd"]
_HARMLESS = {Cause.NONE, Cause.VERDICT, Cause.REDIRECT}


@dataclass
class Outcome:
    """`checked`: instructions at which the registers were compared. `problems`, a line each."""

    programs: int = 0
    accepted: int = 0
    checked: int = 0
    problems: list[str] = field(default_factory=list)


def fuzz(count: int, seed: int, say: Callable[[str], None] = lambda text: None) -> Outcome:
    outcome = Outcome()
    for number in range(count):
        before = len(outcome.problems)
        _try(random.Random(f"watched/{seed}/{number}"), outcome)
        for problem in outcome.problems[before:]:
            say(f"program {seed}/{number}: {problem}")
    return outcome


def _try(chance: random.Random, outcome: Outcome) -> None:
    code = decode(encode(Friendly(chance).program(chance.randrange(3, 20)).instructions()))
    references = {slot: Reference(MAP.name, None) for slot, one in enumerate(code) if _names_map(one)}
    watch = Watch()
    outcome.programs += 1
    subject = Subject("friendly", ProgramType.XDP, code, references, {MAP.name: MAP})
    if not watch.add(0, subject, limit=LIMIT).accepted:
        return
    outcome.accepted += 1
    transport = GoldenTransport(DeviceOptions(threads=8))
    transport.nic.code = Code(transport.nic.size.program_slots)
    with BareNic(transport) as nic, _watching(watch):
        nic.array(0, 0, ENTRIES, VALUE_BYTES, VALUE_BYTES)
        nic.set_memory(0, chance.randbytes(ENTRIES * VALUE_BYTES))
        nic.load(encode([_linked(one) for one in code]))
        nic.attach(0, [0])
        lengths = [chance.randrange(world.LEAST_FRAME - 8, 200) for _ in range(FRAMES)]
        packets = nic.run([Arrival(0, chance.randbytes(length)) for length in lengths]).packets
    outcome.checked += watch.checked
    outcome.problems += [f"ends a packet with {packet.cause.name}" for packet in packets
                         if packet.cause not in _HARMLESS]  # fmt: skip
    outcome.problems += [f"outside of every state: {place}" for place in watch.outside[:3]]


@contextmanager
def _watching(watch: Watch) -> Iterator[None]:
    step = Code.step
    watch.install_with(setattr)
    try:
        yield
    finally:
        Code.step = step  # type: ignore[method-assign]


def _names_map(one: Instruction | None) -> bool:
    return one is not None and (one.opcode, one.src) == (_MAP_FD.opcode, _MAP_FD.src)


def _linked(one: Instruction | None) -> Instruction | None:
    """With the map's handle as a plain constant."""
    if one is None or not _names_map(one):
        return one
    return Instruction(one.opcode, one.dst, 0, 0, world.handle(0), 0)
