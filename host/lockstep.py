"""Lockstep: a reference goes along with a device, instruction by instruction, and stops it at the first difference.

    device.run(…, observe=follower.see)     each batch of events, while the device runs
    follower = reference.follow(arrivals)   steps its own threads as the events say, and compares

The device is observed as it runs, in batches, so that a run of any length takes the memory of one batch. Shared
accesses are events too, in the order of their serial numbers: the reference makes its own in that order, so that
programs that race compare exactly. `run` does it all:

    outcome = lockstep.run(device, reference, arrivals)
    if outcome.difference: print(outcome.difference)

Both devices must stand alike before (programs, maps, registers). After a difference neither is of further use: the
device stopped in the middle of its work. Close it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bpfnic.spec.assembly import disassemble
from bpfnic.spec.instruction import Instruction

if TYPE_CHECKING:
    from bpfnic.host.device import Arrival, Device, OnStep, Pacing, Traffic

PAST = 16
"""Instructions of the thread that a difference shows, the one at fault included."""


class Happening(IntEnum):
    """What an event is."""

    RETIRED = 0  # an instruction, whole
    PENDING = 1  # an instruction whose value comes with a later RESULT of its CPU (or, after a trap, never)
    RESULT = 2
    SHARED = 3  # one access to map memory was granted
    BEGAN = 4  # a program at slot `pc`; `value`: its type, hook and interface (BEGAN_*)
    ENDED = 5  # a program: `value` is the low half of r0, or `cause` (spec.causes) is why it was ended
    WRITTEN = 6  # the last SHARED access of this CPU wrote `value` at `address` of map memory
    EMITTED = 7  # the oldest record of map `value` left its ring (spec.rings), or was passed over: no packet's doing
    CLONED = 8  # the program of this CPU made a clone of its packet, which is packet `packet`


class Event(NamedTuple):
    """One thing that a device did for `packet` (numbered as in a Recording) on `cpu`. Events of a CPU are in the order
    of their clocks, and
    those of kind SHARED and EMITTED in that of their serial numbers. Batches may hold plain tuples of the same fields.

    register: the one that the instruction wrote (0 to 9) with `value`, or NO_REGISTER. A store shows what it stored as
    its `value`; where it crosses a row of map memory, the second part. address: of its memory access, or NO_ADDRESS.
    pc, next_pc: slots; the last instruction's next_pc means nothing, for nothing comes behind it.
    """

    clock: int
    value: int
    address: int
    packet: int
    pc: int
    next_pc: int
    kind: int
    cpu: int
    register: int
    cause: int


BEGAN_HOOK_BIT, BEGAN_DEVICE_BIT, BEGAN_MASK = 8, 16, 0xFF
"""Of the value of BEGAN, 8 bits each: from bit 0 on the number in registers.ENTRY_TYPES, then that in programs.Hook,
then the interface."""
NO_REGISTER = 0xFF
NO_ADDRESS = -1

Observe = Callable[[Iterable[tuple]], None]
"""Called with batches of events (tuples of Event's fields) while a device runs."""


class State(NamedTuple):
    """A thread behind an instruction: r0 to r10 of the running function, the slot where it goes on (None: nowhere), and
    how many callers that function has."""

    registers: tuple[int, ...]
    pc: int | None
    depth: int


class Step(NamedTuple):
    """An instruction that both did alike: its slot, itself, as in Event what it wrote and accessed, and the bytes that
    it stored."""

    clock: int
    pc: int
    instruction: Instruction
    register: int
    value: int
    address: int
    stored: bytes | None


@dataclass(frozen=True)
class Difference:
    """The first instruction at which a device and its reference parted.

    what: it is in ("r3", "next pc", "address", "stored", "verdict", "cause", "pc", …), `actual` and `expected`: both
    sides as text. packet, cpu: whose. clock: of the device, counted from reset. number: of the instruction in its
    program's run, from 0. entry: first slot of its program. pc, instruction: where the reference is. actual_state,
    expected_state: behind the instruction; the device's as far as it shows (what a call or an exit does to r6 to r10 is
    taken from the reference). past: up to PAST - 1 instructions before it.
    """

    what: str
    actual: str
    expected: str
    packet: int
    cpu: int
    clock: int
    number: int
    entry: int
    pc: int
    instruction: Instruction | None
    actual_state: State
    expected_state: State
    past: tuple[Step, ...]

    def __str__(self) -> str:
        """All of it, with instructions numbered from the program's first."""
        found = {step.pc: step.instruction for step in self.past} | {self.pc: self.instruction}

        def describe(slot: int) -> list[str]:
            instruction = found.get(slot)
            return [f"instruction {slot - self.entry}: {disassemble(instruction) if instruction else 'none'}"]

        return "\n".join(self.lines("device", "reference", describe))

    def sides(self, describe: Callable[[int], list[str]]) -> tuple[str, str]:
        """`actual` and `expected`; slots as `describe` says them, for a tail call goes on in another program."""
        if self.what == "next pc":
            return _place(self.actual_state.pc, describe), _place(self.expected_state.pc, describe)
        return self.actual, self.expected

    def lines(self, actual: str, expected: str, describe: Callable[[int], list[str]]) -> list[str]:
        """Where it is, both states and the past, for people. actual, expected: names of the two. describe: says what is
        at a slot ("instruction 3: r0 = 1"), and in a second line its line of source if there is one."""
        first, *source = describe(self.pc)
        lines = [f"packet {self.packet}, {first}", *source]
        ours, theirs = self.sides(describe)
        lines += [f"{self.what}: {actual} {ours}, {expected} {theirs}"]
        lines += [f"on CPU {self.cpu} at clock {self.clock}", ""]
        rows = [(f"behind it ({self.number} went before)", actual, expected)]
        registers = zip(self.actual_state.registers, self.expected_state.registers, strict=True)
        rows += [(f"  r{number}", f"{ours:#x}", f"{theirs:#x}") for number, (ours, theirs) in enumerate(registers)]
        rows.append(("  pc", _place(self.actual_state.pc, describe), _place(self.expected_state.pc, describe)))
        rows.append(("  callers", str(self.actual_state.depth), str(self.expected_state.depth)))
        for number, (name, ours, theirs) in enumerate(rows):
            differs = "  <" if number and ours != theirs else ""
            lines.append(f"{name:28}{ours:>20}  {theirs:>20}{differs}")
        if self.past:
            lines += ["", f"the {len(self.past)} instructions before it"]
        shown: list[str] = []
        for step in self.past:
            text, *source = describe(step.pc)
            lines += [f"  {line}" for line in source if source != shown]
            shown = source
            wrote = "" if step.register == NO_REGISTER else f"   r{step.register} = {step.value:#x}"
            if step.stored is not None:
                wrote = f"   {int.from_bytes(step.stored, 'little'):#x}"
            place = "" if step.address == NO_ADDRESS else f"   at {step.address:#x}"
            lines.append(f"    {text}{wrote}{place}")
        return lines


def _place(slot: int | None, describe: Callable[[int], list[str]]) -> str:
    return "ended" if slot is None else describe(slot)[0].partition(":")[0]


class Parted(Exception):
    """Raised by Follower.see at the first difference; it passes through the device's run."""

    def __init__(self, difference: Difference):
        super().__init__(difference)
        self.difference = difference


class Follower(Protocol):
    """A reference that goes along with a device's run."""

    def see(self, events: Iterable[tuple]) -> None:
        """An Observe: do what the device did. Raises Parted."""

    def end(self, numbers: Sequence[int]) -> "Traffic":
        """The device's run is over: let the frames leave. What became of the arrivals `numbers`, as from a run of just
        these; the others were lost before they reached a program."""


class Outcome(NamedTuple):
    """What `run` gives: the device's traffic and the reference's, or the difference at which they stopped."""

    actual: "Traffic | None"
    follower: Follower
    difference: Difference | None


def run(
    device: "Device",
    reference: "Device",
    arrivals: "Sequence[Arrival]",
    pacing: "Pacing",
    on_step: "OnStep | None" = None,
) -> Outcome:
    """Run frames on a device with a reference at its side. device: whatever has a `run` as a Device or a Transport has;
    reference: a Device that can `follow`. What instructions don't show (frames as they left, counters) is not compared
    here: host/check.py does, with the follower's end."""
    follower = reference.follow(arrivals)
    try:
        actual = device.run(arrivals, pacing, on_step, None, False, follower.see)
    except Parted as parted:
        return Outcome(None, follower, parted.difference)
    return Outcome(actual, follower, None)

