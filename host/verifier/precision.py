"""Which numbers had to be known exactly. A state is compared with an earlier one by the ranges of numbers only where
the earlier one's safety rested on them; this finds where those numbers came from, backwards over the path.

(Kernel: mark_chain_precision, whose backtracking it follows instruction by instruction.)"""

from typing import TYPE_CHECKING

from bpfnic.host.verifier.state import Checkpoint, History
from bpfnic.host.verifier.values import NUMBER
from bpfnic.spec import isa
from bpfnic.spec.isa import Class, Legal, Operation

if TYPE_CHECKING:
    from bpfnic.host.verifier.walk import Walk

_FRAMES = 8
_ARGUMENTS, _CLOBBERED = 0b111110, 0b111111


class Needed:
    """Registers and places whose numbers are needed, as bits, for each frame."""

    __slots__ = ("regs", "places")

    def __init__(self) -> None:
        self.regs, self.places = [0] * (_FRAMES + 1), [0] * (_FRAMES + 1)

    def __bool__(self) -> bool:
        return any(self.regs) or any(self.places)


def mark(walk: "Walk", history: History | None, checkpoint: Checkpoint | None, needed: Needed) -> None:
    """Mark what is needed behind `history` where it came from, in the checkpoints before it, the last of which is
    `checkpoint`."""
    if walk.log.level > 1:
        _Traced(walk).mark(history, checkpoint, needed)
        return
    while needed:
        _back(walk, history, needed)
        if checkpoint is None:
            return
        _keep_new(checkpoint, needed)
        history, checkpoint = checkpoint.state.history, checkpoint.parent


class _Traced:
    """The same, with each step in the log."""

    def __init__(self, walk: "Walk"):
        self.walk, self.behind, self.function = walk, -1, walk.state.frame.number

    def mark(self, history: History | None, checkpoint: Checkpoint | None, needed: Needed) -> None:
        walk, last = self.walk, self.walk.state.slot
        while needed:
            first = checkpoint.state.slot if checkpoint else walk.state.frames[0].entry
            walk.log.backtracks(self.function, last, first, self.behind)
            self.behind = last
            while history is not None and needed:
                entry = history[1:]
                walk.log.backtracked(walk, self.function, entry[0], needed)
                _back(walk, (None, *entry), needed)
                history, self.behind, self.function = history[0], entry[0], entry[1]
            if checkpoint is None or not needed:
                return
            _keep_new(checkpoint, needed)
            walk.log.backtracked_checkpoint(checkpoint, self.function, needed)
            history, checkpoint = checkpoint.state.history, checkpoint.parent
            last = history[1] if history else self.behind


def _keep_new(checkpoint: Checkpoint, needed: Needed) -> None:
    """Note in a checkpoint what is needed, and go on with what it didn't know."""
    count = len(checkpoint.state.frames)
    for frame in range(_FRAMES + 1):
        if frame >= count:
            needed.regs[frame] = needed.places[frame] = 0
            continue
        needed.regs[frame] &= ~checkpoint.precise_regs[frame]
        needed.places[frame] &= ~checkpoint.precise_places[frame]
        held = checkpoint.state.frames[frame].regs
        bits = needed.regs[frame]
        while bits:  # pointers are compared exactly anyway
            bit = bits & -bits
            bits ^= bit
            if held[bit.bit_length() - 1].kind is not NUMBER:
                needed.regs[frame] ^= bit
        checkpoint.precise_regs[frame] |= needed.regs[frame]
        checkpoint.precise_places[frame] |= needed.places[frame]


def _back(walk: "Walk", history: History | None, needed: Needed) -> None:
    """From behind the last instruction of `history` to before its first."""
    rows, kinds, code, passes = walk.graph.rows, walk.graph.kinds, walk.code, walk.graph.passes
    regs = needed.regs
    while history is not None:
        history, slot, frame, note = history
        if note is None and not regs[frame] & passes[slot]:
            continue
        row, instruction = rows[slot], code[slot]
        assert row and instruction
        _undo(kinds[slot], row, instruction, frame, note, needed)
        if not (any(needed.regs) or any(needed.places)):
            return


def _undo(kind: Class | None, row: isa.Row, instruction, frame: int, note, needed: Needed) -> None:  # type: ignore[no-untyped-def]
    regs = needed.regs
    dst, src = 1 << instruction.dst, 1 << instruction.src
    match kind:
        case Class.ALU | Class.ALU64:
            if regs[frame] & dst:
                if row.operation in (Operation.MOV, Operation.MOVSX):
                    regs[frame] &= ~dst
                if row.register_operand:
                    regs[frame] |= src
        case Class.LDX:
            if regs[frame] & dst:
                regs[frame] &= ~dst
                if note:
                    needed.places[note[1]] |= 1 << note[2]
        case Class.ST | Class.STX:
            if row.operation is Operation.LOAD_ACQUIRE:
                if regs[frame] & dst:
                    regs[frame] &= ~dst
                    if note:
                        needed.places[note[1]] |= 1 << note[2]
            elif row.operation in (Operation.ST, Operation.STX, Operation.STORE_RELEASE):
                if note and needed.places[note[1]] >> note[2] & 1:
                    needed.places[note[1]] &= ~(1 << note[2])
                    if kind is Class.STX:
                        regs[frame] |= src
            elif row.operation is Operation.ATOMIC_CMPXCHG:
                regs[frame] &= ~1
            elif row.src is Legal.WRITTEN:
                regs[frame] &= ~src
        case Class.LD:
            if note and note[0] == "call":
                regs[frame - 1] &= ~1  # r0, which the load outside the packet left
            regs[frame] &= ~1 if row.operation in (Operation.LD_ABS, Operation.LD_IND) else ~dst
        case Class.JMP | Class.JMP32:
            _undo_jump(row, instruction, frame, note, needed)


def _undo_jump(row: isa.Row, instruction, frame: int, note, needed: Needed) -> None:  # type: ignore[no-untyped-def]
    regs = needed.regs
    match row.operation:
        case Operation.CALL_LOCAL | Operation.CALL_HELPER | Operation.CALL_BTF:
            if note and note[0] == "enters":
                callee = frame + 1
                if row.operation is Operation.CALL_LOCAL:
                    regs[frame] |= regs[callee] & _ARGUMENTS
                regs[callee] = needed.places[callee] = 0
            elif note and note[0] == "call":
                regs[frame - 1] &= ~1  # r0, which the tail call's program left
                regs[frame] &= ~_CLOBBERED
            else:
                regs[frame] &= ~_CLOBBERED
        case Operation.EXIT:
            if frame and note and note[0] == "call":
                if regs[frame - 1] & 1:
                    regs[frame] |= 1
                regs[frame - 1] &= ~_CLOBBERED
        case Operation.JA | Operation.MAY_GOTO:
            pass
        case _:
            dst, src = 1 << instruction.dst, 1 << instruction.src
            if row.register_operand and regs[frame] & (dst | src):
                regs[frame] |= dst | src
            if note and note[0] == "linked":
                _spread(note[1], needed)
                if row.register_operand and regs[frame] & (dst | src):
                    regs[frame] |= dst | src


def _spread(linked: tuple[tuple[int, int], ...], needed: Needed) -> None:
    """All of a group are needed where one is: (frame, register or -1 - place)."""
    if any(needed.regs[frame] >> where & 1 if where >= 0 else needed.places[frame] >> -1 - where & 1
           for frame, where in linked):  # fmt: skip
        for frame, where in linked:
            if where >= 0:
                needed.regs[frame] |= 1 << where
            else:
                needed.places[frame] |= 1 << -1 - where
