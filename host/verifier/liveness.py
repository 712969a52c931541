"""Which bytes of the stack are read later. As the walk goes, each instruction's reads and writes are noted, for each
chain of calls by which it is reached; from them what is live flows backwards over the graph, through calls and returns,
to a fixed point. A state is compared with an earlier one by what is live there.

(Kernel: kernel/bpf/liveness.c, whose slots have 8 bytes. Here each byte is told apart.)

Why it suffices: a checkpoint is compared only when all paths from it have been walked (or may not yet end,
Checkpoint.awaits, where all bytes are compared). So all that they read was noted, and what an instruction is said to
overwrite, it overwrote in each visit. What is noted later only adds to what is live."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

from bpfnic.host.verifier.graph import CALLS, Graph
from bpfnic.spec.addresses import STACK_BYTES
from bpfnic.spec.isa import Class

FRAME = (1 << STACK_BYTES) - 1
"""All bytes of a frame. A mask has STACK_BYTES bits for each frame, the outermost one's lowest, and in each the byte
that is farthest from r10 first."""
EVERYTHING = -1
_WRITERS = (Class.ST, Class.STX)


def mask(frame: int, low: int, end: int) -> int:
    """Bytes of a frame from `low` on, below `end`, by their distance from r10."""
    return ((1 << end - low) - 1) << frame * STACK_BYTES + STACK_BYTES + low


class Instance:
    """A function as it is reached by one chain of calls (kernel: func_instance). `call`: the slot of its call in
    `parent`; `returns`: where that goes on, which for a function that a helper calls is the call itself; `callees` by
    their call and first slot. By slot, as masks: `reads`, `writes` (what each visit overwrote), `live` before the
    instruction. `ends`: instructions at which it returned."""

    __slots__ = ("parent", "call", "returns", "entry", "number", "callees", "reads", "writes", "live", "ends")

    def __init__(self, entry: int, parent: Instance | None = None, call: int = -1, returns: int = -1):
        self.entry, self.parent, self.call, self.returns = entry, parent, call, returns
        self.number: int = parent.number + 1 if parent else 0
        self.callees: dict[tuple[int, int], Instance] = {}
        self.reads: dict[int, int] = {}
        self.writes: dict[int, int] = {}
        self.live: dict[int, int] = {}
        self.ends: set[int] = set()

    def callee(self, call: int, entry: int, returns: int) -> Instance:
        """The function at `entry`, called at `call`."""
        found = self.callees.get((call, entry))
        if found is None:
            found = self.callees[call, entry] = Instance(entry, self, call, returns)
        return found


class Liveness:
    """What is live, of one program."""

    def __init__(self, graph: Graph):
        self._after = graph.after
        before: list[list[int]] = [[] for _ in graph.after]
        for slot, following in enumerate(graph.after):
            for to in following:
                before[to].append(slot)
        self._before: Sequence[Sequence[int]] = before
        # Before its first visit, what writes stops all that is live behind it: no path has come through it.
        self._unvisited = [EVERYTHING if kind in _WRITERS or row and row.operation in CALLS else 0
                           for kind, row in zip(graph.kinds, graph.rows, strict=True)]  # fmt: skip
        self._overwritten = 0
        self._changed: list[tuple[int, int, Instance]] = []

    def read(self, instance: Instance, slot: int, bytes: int) -> None:
        """The instruction reads these bytes."""
        known = instance.reads.get(slot, 0)
        if bytes & ~known:
            instance.reads[slot] = known | bytes
            self._change(instance, slot)

    def write(self, bytes: int) -> None:
        """The instruction under way overwrites these bytes."""
        self._overwritten |= bytes

    def visited(self, instance: Instance, slot: int) -> None:
        """An instruction that may write is done."""
        known = instance.writes.get(slot, EVERYTHING)
        overwritten = known & self._overwritten
        self._overwritten = 0
        if overwritten != known:
            instance.writes[slot] = overwritten
            self._change(instance, slot)

    def leaves(self, instance: Instance, slot: int) -> None:
        """The instruction ends its function."""
        if slot not in instance.ends:
            instance.ends.add(slot)
            self._change(instance, slot)

    def _change(self, instance: Instance, slot: int) -> None:
        heappush(self._changed, (-slot, id(instance), instance))

    def settle(self) -> None:
        """To the fixed point: from the instructions of which something was noted, backwards."""
        changed = self._changed
        while changed:
            slot, _, instance = heappop(changed)
            slot = -slot
            live = self._behind(instance, slot) & ~instance.writes.get(slot, self._unvisited[slot])
            live |= instance.reads.get(slot, 0)
            if live == instance.live.get(slot, 0):
                continue
            instance.live[slot] = live
            for before in self._before[slot]:
                self._change(instance, before)
            if slot == instance.entry and instance.parent:
                self._change(instance.parent, instance.call)
            for callee in instance.callees.values():
                if callee.returns == slot:
                    for end in callee.ends:
                        self._change(callee, end)

    def _behind(self, instance: Instance, slot: int) -> int:
        """What is live behind an instruction."""
        live = 0
        for after in self._after[slot]:
            live |= instance.live.get(after, 0)
        if instance.callees:
            called = [one for (call, _), one in instance.callees.items() if call == slot]
            if called:
                inside = 0
                for callee in called:
                    inside |= callee.live.get(callee.entry, 0)
                inside &= (1 << (instance.number + 1) * STACK_BYTES) - 1
                live = inside if called[0].returns != slot else live | inside
        if slot in instance.ends and instance.parent:
            live |= instance.parent.live.get(instance.returns, 0)
        return live
