"""The state of a path at an instruction: frames of registers and stack, and what the program holds."""

from __future__ import annotations

from typing import Any

from bpfnic.host.verifier.liveness import Instance
from bpfnic.host.verifier.values import CONTEXT, NOTHING, STACK, UNWRITTEN, ZERO, Held, Place
from bpfnic.spec.addresses import STACK_BYTES
from bpfnic.spec.isa import FRAME_POINTER, REGISTERS

PLACE_BYTES = 8
PLACES = STACK_BYTES // PLACE_BYTES

History = tuple[Any, int, int, Any]
"""An instruction that a path took: (what came before it or None, slot, number of the frame, note).
The note is what backtracking can't read from the instruction: ("stack", frame, places) for an access to the stack,
("linked", registers and places that got the same condition)."""


class Frame:
    """One function's activation. `instance`: the function, and the calls that led there; `call`: the slot of the last
    of them (-1: the program itself); `entry`: where the function begins; `kind`: "call", or for one that a helper calls
    its name; `depth`: how often the helper called back on this path."""

    __slots__ = ("instance", "number", "call", "entry", "kind", "regs", "stack", "depth")

    def __init__(self, instance: Instance, kind: str = "call"):
        self.instance, self.kind, self.depth = instance, kind, 0
        self.number, self.call, self.entry = instance.number, instance.call, instance.entry
        self.regs: list[Held] = [NOTHING] * REGISTERS
        self.regs[FRAME_POINTER] = Held(STACK, ZERO, frame=instance.number)
        self.stack: dict[int, Place] = {}

    def copy(self) -> Frame:
        other = Frame.__new__(Frame)
        other.instance, other.kind, other.depth = self.instance, self.kind, self.depth
        other.number, other.call, other.entry = self.number, self.call, self.entry
        other.regs, other.stack = self.regs[:], self.stack.copy()
        return other

    def place(self, index: int) -> Place:
        """The 8 bytes at r10 - 8 * (index + 1)."""
        return self.stack.get(index, UNWRITTEN)


class State:
    """A path under way. `refs`: numbers of what must be given back; `lock`: the value whose lock it holds; `parent`:
    the last checkpoint on the path; `history`: instructions since then; `steps`: how many of them
    Linux remembers, those where a jump, a call or a return led and those that moved a register to or from the stack or
    compared linked numbers; `may_goto`: passes of
    loops that it ends, or an iterator."""

    __slots__ = ("frames", "slot", "previous", "refs", "lock", "parent", "history", "steps", "may_goto")

    def __init__(self, entry: int) -> None:
        self.frames = [Frame(Instance(entry))]
        self.slot, self.previous = entry, 0
        self.refs: tuple[int, ...] = ()
        self.lock: object = None
        self.parent: Checkpoint | None = None
        self.history: History | None = None
        self.steps = 0
        self.may_goto = 0

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    def copy(self) -> State:
        other = State.__new__(State)
        other.frames = [frame.copy() for frame in self.frames]
        other.slot, other.previous, other.refs, other.lock = self.slot, self.previous, self.refs, self.lock
        other.parent, other.history, other.steps = self.parent, self.history, self.steps
        other.may_goto = self.may_goto
        return other

    def each(self) -> list[tuple[Frame, int, Held]]:
        """All registers, and all registers on the stack as -1 - place."""
        found = []
        for frame in self.frames:
            found += [(frame, index, held) for index, held in enumerate(frame.regs)]
            found += [(frame, -1 - index, place.held) for index, place in frame.stack.items() if place.held]
        return found

    def put(self, frame: Frame, where: int, held: Held) -> None:
        """Replace what `each` gave."""
        if where >= 0:
            frame.regs[where] = held
        else:
            frame.stack[-1 - where] = Place(frame.stack[-1 - where].bytes, held)


class Checkpoint:
    """A state that later ones at the same instruction are compared with. `branches`: paths from here that haven't
    ended; `awaits`: one before it to which a path from here came round, so that what follows this one is known only
    when that one's paths have ended; `number`: how many are before it; `precise_regs`, `precise_places`: for each frame
    those whose exact numbers made what followed safe. `live`: registers of each frame that are read later. `keys`:
    where it is kept (pruning.Kept)."""

    __slots__ = ("state", "parent", "branches", "awaits", "number", "precise_regs", "precise_places", "hits", "misses",
                 "live", "keys")  # fmt: skip

    def __init__(self, state: State, live: list[tuple[int, ...]]):
        self.state, self.parent, self.live = state, state.parent, live
        self.branches = 1
        self.awaits: Checkpoint | None = None
        self.number: int = state.parent.number + 1 if state.parent else 0
        count = len(state.frames)
        self.precise_regs, self.precise_places = [0] * count, [0] * count
        self.hits = self.misses = 0
        self.keys: Any = None


def initial(entry: int) -> State:
    """The state in which a program begins."""
    state = State(entry)
    state.frame.regs[1] = Held(CONTEXT, ZERO)
    return state
