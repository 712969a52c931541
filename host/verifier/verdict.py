"""The verifier's answer: accepted or not, the log, and for people how the failing path came there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bpfnic.host.structure import check, tail_calls
from bpfnic.host.verifier import graph, text
from bpfnic.host.verifier.log import Log
from bpfnic.host.verifier.refusal import Refusal, TooComplex
from bpfnic.host.verifier.state import State
from bpfnic.host.verifier.values import Held
from bpfnic.host.verifier.walk import LIMIT, Subject, Walk
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.isa import Class, Operation
from bpfnic.spec.maps import MapType

__all__ = ["StackUse", "Step", "Subject", "Verdict", "verify"]


@dataclass(frozen=True)
class Step:
    """An instruction of the failing path: its slot, the frame's number, and the registers and stack before it."""

    slot: int
    frame: int
    registers: tuple[Held, ...]
    shown: str


class StackUse(NamedTuple):
    """What frames and tail calls depend on, of an accepted program. In order of code, of each function: `depths`, bytes
    of stack that it uses; `callbacks`, the positions of the functions that helpers call which it calls. And of each
    tail call: `tail_calls`, what it may be given, maps by name, with the index or None where that isn't known; nothing
    where no path leads to it."""

    depths: Sequence[int]
    callbacks: Sequence[frozenset[int]]
    tail_calls: Sequence[frozenset[tuple[str, int | None]]]


@dataclass
class Verdict:
    """`error`: why not, None of an accepted program. `log`: lines in Linux's format. `path`: instructions that led to
    the error (none to a program's being too complex). `processed` instructions, `states` kept, `peak` of them at once,
    `most` at one instruction. `depth`: bytes of stack by function's first slot. `warnings`: by slot. `map_calls`:
    helpers by number with the type of map that they are given, and the slot of the first such call. `stack_use` of an
    accepted program, else None."""

    subject: Subject
    error: Refusal | None
    log: list[str]
    processed: int
    states: int
    peak: int
    most: int
    seconds: float
    path: list[Step] = field(default_factory=list)
    depth: dict[int, int] = field(default_factory=dict)
    warnings: dict[int, str] = field(default_factory=dict)
    map_calls: dict[tuple[int, MapType], int] = field(default_factory=dict)
    stack_use: StackUse | None = None

    @property
    def accepted(self) -> bool:
        return self.error is None


def verify(subject: Subject, level: int = 0, *, limit: int = LIMIT,
           observe: Callable[[State], None] | None = None) -> Verdict:  # fmt: skip
    """Verify a program; it is never run. `level` of the log. `limit`: instructions that are walked. `observe` is given
    each state that the walk meets, and makes it compare states by all their numbers, so that every state which the
    program can be in is covered by one of those."""
    log = Log(level)
    began = time.perf_counter()
    walk = Walk(subject, log, limit, observe)
    error: Refusal | None = None
    try:
        _check_structure(subject)
        walk.run()
    except Refusal as refusal:
        error = refusal
        log.end((refusal.message, *refusal.behind))
    log.end([f"processed {walk.processed} insns (limit {walk.limit}) max_states_per_insn {walk.most_states} "
             f"total_states {walk.states} peak_states {walk.peak_states} mark_read 0"])  # fmt: skip
    path = [] if error is None or error.before or isinstance(error, TooComplex) else _path(subject, walk)
    return Verdict(subject, error, log.lines, walk.processed, walk.states, walk.peak_states, walk.most_states,
                   time.perf_counter() - began, path, dict(walk.depths), dict(walk.warnings),
                   dict(walk.map_calls), None if error else _stack_use(walk))  # fmt: skip


def _stack_use(walk: Walk) -> StackUse:
    entries = walk.graph.entries
    return StackUse(
        [walk.depths.get(entry, 0) for entry in entries],
        [frozenset(map(entries.index, walk.callbacks.get(entry, ()))) for entry in entries],
        [frozenset(walk.tail_calls.get(slot, ())) for slot in tail_calls(walk.code)],
    )


def _check_structure(subject: Subject) -> None:
    """What needs no walk, as a refusal."""
    try:
        check(subject.code, subject.name, line=subject.line, calls=False)
    except BpfnicError as error:
        raise Refusal(str(error), before=True) from None


def _path(subject: Subject, walk: Walk) -> list[Step]:
    """The failing path, walked once more with its states kept."""
    taken: list[tuple[int, bool]] = []
    history, checkpoint = walk.state.history, walk.state.parent
    while True:
        while history is not None:
            taken.append((history[1], history[3] == ("ended",)))
            history = history[0]
        if checkpoint is None:
            break
        history, checkpoint = checkpoint.state.history, checkpoint.parent
    taken.reverse()
    again = Walk(subject, Log(0))
    again.prepare()
    again.state = again.begin(taken[0][0] if taken else 0)
    steps: list[Step] = []
    for slot, ended in taken:
        if again.state.slot != slot:
            other = next((state for state, _ in again.waiting if state.slot == slot), None)
            if other is None:
                break
            again.state = other
        again.waiting.clear()
        frame = again.state.frame
        steps.append(Step(slot, frame.number, tuple(frame.regs), text.state(again.state)))
        row, instruction = again.graph.rows[slot], subject.code[slot]
        assert row and instruction
        again.state.history = (None, slot, frame.number, None)
        try:
            again._step(row, instruction)
        except Refusal:
            break
        if ended:
            again.state = again.waiting[-1][0]
    return steps


def history_of(verdict: Verdict, register: int) -> list[tuple[int, Held]]:
    """Where the register got what it holds at the error: (slot, what it held behind that instruction), first to last;
    followed back through moves, to where the value began."""
    if not verdict.path:
        return []
    frame = verdict.path[-1].frame
    found: list[tuple[int, Held]] = []
    for before, after in zip(verdict.path[-2::-1], verdict.path[:0:-1], strict=False):
        if after.frame != frame or before.frame != frame:
            if before.frame < frame:
                break
            continue
        held = after.registers[register]
        if held is before.registers[register] or held.parts() == before.registers[register].parts():
            continue
        found.append((before.slot, held))
        instruction = verdict.subject.code[before.slot]
        row = graph.isa.find(instruction) if instruction else None
        if row is None or instruction is None:
            break
        if row.operation is Operation.MOV and row.register_operand and instruction.dst == register:
            register = instruction.src
        elif row.instruction_class in (Class.LDX, Class.LD) or row.operation in (Operation.MOV, Operation.CALL_HELPER):
            break
    return found[::-1]
