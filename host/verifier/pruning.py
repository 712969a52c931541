"""Checkpoints: states kept where paths join, and whether a later state is covered by one of them.

(Kernel: is_state_visited, states_equal, regsafe, stacksafe.)"""

from enum import Enum, auto
from typing import TYPE_CHECKING

from bpfnic.host.verifier import precision, text
from bpfnic.host.verifier.liveness import EVERYTHING, FRAME, Instance
from bpfnic.host.verifier.precision import Needed
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.host.verifier.scalar import Scalar
from bpfnic.host.verifier.state import PLACE_BYTES, PLACES, Checkpoint, Frame, State
from bpfnic.host.verifier.values import META, NONE, NUMBER, PACKET, UNKNOWN_NUMBER, UNWRITTEN, Held, Place
from bpfnic.spec.addresses import STACK_BYTES
from bpfnic.spec.isa import Operation

if TYPE_CHECKING:
    from bpfnic.host.verifier.walk import Walk

_JUMPS, _STEPS = 2, 8
"""A checkpoint is kept only this far behind the last one, in jumps and instructions…"""
_LOOP_JUMPS, _LOOP_STEPS = 20, 100
"""…within a loop this far…"""
_LONGEST = 40
"""…and whenever a path has State.steps above this."""
_EVICT = 3
"""A checkpoint that later states missed so often more than they hit it is forgotten, and one whose paths haven't ended,
behind which so many were kept, no longer keeps others apart; …"""
_EVICT_ROUND = 64
"""…one of a loop that ends by itself, while the loop is walked, after so many passes."""

_ROUNDS = (Operation.MAY_GOTO, Operation.CALL_BTF)
"""What counts its passes in State.may_goto."""


class Exactness(Enum):
    """How two states are compared."""

    SAFE = auto()
    """Numbers only where they were needed."""
    WITHIN = auto()
    """All numbers by their ranges: what the earlier state's way needs isn't known to its end."""
    EXACT = auto()
    """Everything must be the same."""


SAFE, WITHIN, EXACT = Exactness


class _Ids:
    """Which ids of two states correspond, one to one; those of what must be given back are apart, as negative ones."""

    __slots__ = ("_new", "_old")

    def __init__(self) -> None:
        self._new: dict[int, int] = {}
        self._old: dict[tuple[bool, int], int] = {}

    def __len__(self) -> int:
        return len(self._new)

    def same(self, old: int, new: int) -> bool:
        """Whether two correspond. If nothing was said of either, they do from now on."""
        if not new:
            return False
        found = self._new.get(old)
        if found is not None:
            return found == new
        if self._old.setdefault((old < 0, new), old) != old:
            return False
        self._new[old] = new
        return True


class Kept:
    """The checkpoints of one instruction. `done`: those whose paths have all ended, by what kinds of things they hold;
    `active`: the others, if the instruction is on a loop, by some of what they hold (_signature). `count` of both, and
    `kept`, of all there ever were. By the calls that led there: `rounds`, those whose paths haven't ended at a loop
    that ends by itself (_comes_round); `chains`, what `kept` was at each whose paths haven't ended; and `known`,
    registers of each frame that are read later, and whether the instruction, or one of the calls, is on a loop."""

    __slots__ = ("done", "active", "count", "kept", "rounds", "chains", "known")

    def __init__(self) -> None:
        self.done: dict[object, list[Checkpoint]] = {}
        self.active: dict[object, list[Checkpoint]] = {}
        self.count = self.kept = 0
        self.rounds: dict[Instance, list[Checkpoint]] = {}
        self.chains: dict[Instance, list[int]] = {}
        self.known: dict[Instance, tuple[list[tuple[int, ...]], bool]] = {}


def visited(walk: "Walk", state: State) -> bool:
    """Whether a state is covered by an earlier one. Otherwise it may be kept as a checkpoint, and then becomes the
    state's parent. Raises Refusal for a state that repeats one which its own path came from."""
    slot, chain = state.slot, state.frame.instance
    kept = walk.checkpoints.get(slot)
    if kept is None:
        kept = walk.checkpoints[slot] = Kept()
    known = kept.known.get(chain)
    if known is None:
        known = kept.known[chain] = _live(walk, state), _loops(walk, state)
    live, loops = known
    forced = slot in walk.graph.forced or state.steps > _LONGEST
    add = forced or walk.jumps - walk.kept_jumps >= _JUMPS and walk.processed - walk.kept_processed >= _STEPS
    if slot in walk.graph.forced and _comes_round(walk, kept.rounds.get(chain, []), state, live):
        return True
    if loops and kept.chains.get(chain):
        # Paths from here are under way, and this may be one of them.
        found = kept.active.get(_signature(state, chain, live))
        for checkpoint in found or ():
            if _same(checkpoint.state, state, live) and _repeats(checkpoint, state):
                precise = checkpoint.precise_regs[-1], checkpoint.precise_places[-1]
                before = text.state(checkpoint.state, precise=precise)
                raise Refusal(f"infinite loop detected at insn {slot}", slot,
                              "The program comes back to this instruction with nothing changed.",
                              "count something that ends the loop",
                              behind=(f"cur state: {text.state(state)}", f"old state: {before}"))  # fmt: skip
        fresh = kept.kept - kept.chains[chain][-1] <= _EVICT
        if fresh and not forced and not (walk.jumps - walk.kept_jumps >= _LOOP_JUMPS
                               or walk.processed - walk.kept_processed >= _LOOP_STEPS):  # fmt: skip
            add = False
    shape = _shape(state, chain, live)
    removed = 0
    alike = kept.done.get(shape, ())
    read = chain.live.get(slot, 0)
    for checkpoint in reversed(alike):
        awaited = _awaited(checkpoint)
        if equal(checkpoint, state, walk.how, EVERYTHING if awaited else read):
            checkpoint.hits += 1
            _inherit(walk, checkpoint, state)
            if awaited:
                _await(state, awaited)
            return True
        if add:
            checkpoint.misses += 1
            removed += checkpoint.misses > checkpoint.hits * _EVICT + _EVICT
    walk.most_states = max(walk.most_states, kept.count)
    if removed:
        kept.count -= removed
        kept.done[shape] = [c for c in alike if c.misses <= c.hits * _EVICT + _EVICT]
        walk.kept_states -= removed
    if add:
        _keep(walk, state, kept, chain, shape)
    return False


def _keep(walk: "Walk", state: State, kept: Kept, chain: Instance, shape: object) -> None:
    walk.kept_jumps, walk.kept_processed = walk.jumps, walk.processed
    live, loops = kept.known[chain]
    checkpoint = Checkpoint(state.copy(), live)
    signature = None
    if loops:
        signature = _signature(state, chain, live)
        kept.active.setdefault(signature, []).append(checkpoint)
    if state.slot in walk.graph.forced:
        kept.rounds.setdefault(chain, []).append(checkpoint)
    kept.count += 1
    kept.kept += 1
    kept.chains.setdefault(chain, []).append(kept.kept)
    checkpoint.keys = kept, chain, signature, shape
    walk.count_checkpoint()
    state.parent, state.history, state.steps = checkpoint, None, 0


def finished(checkpoint: Checkpoint) -> None:
    """All paths from a checkpoint have ended: from now on later states are compared with it."""
    kept, chain, signature, shape = checkpoint.keys
    kept.chains[chain].pop()  # they end in the reverse order, as paths are walked depth first
    if checkpoint in kept.rounds.get(chain, ()):
        kept.rounds[chain].remove(checkpoint)
    if signature is not None:
        kept.active[signature].remove(checkpoint)
        if not kept.active[signature]:
            del kept.active[signature]
    kept.done.setdefault(shape, []).append(checkpoint)


def _shape(state: State, chain: Instance, live: list[tuple[int, ...]]) -> object:
    """What kinds of things a state's registers hold."""
    if len(state.frames) == 1:
        regs = state.frames[0].regs
        return tuple([regs[index].kind for index in live[0]])
    return chain, tuple([frame.regs[index].kind
                         for frame, indexes in zip(state.frames, live, strict=True) for index in indexes])  # fmt: skip


def _signature(state: State, chain: Instance, live: list[tuple[int, ...]]) -> object:
    """Enough of what a state holds to tell most states apart."""
    parts: list[object] = [chain]
    for frame, indexes in zip(state.frames, live, strict=True):
        helds = [frame.regs[index] for index in indexes]
        helds += [place.held for place in frame.stack.values() if place.held]
        parts += [(held.kind, held.off, held.number.value, held.number.umin, held.number.umax) for held in helds]
    return tuple(parts)


def _everything(state: State, live: list[tuple[int, ...]]) -> object:
    """All that a state's registers hold, with ids by the order in which they come."""
    ids: dict[int, int] = {}
    parts = []
    for frame, indexes in zip(state.frames, live, strict=True):
        for index in indexes:
            held = frame.regs[index]
            kind, known, off, id, *rest = held.parts()
            parts.append((kind, known, off, ids.setdefault(held.id, len(ids)) if id else -1, *rest))
    return parts


def _loops(walk: "Walk", state: State) -> bool:
    """Whether a path may come back to this instruction in the same functions."""
    loop = walk.graph.loop
    return loop[state.slot] or any(frame.kind != "call" or loop[frame.call] for frame in state.frames[1:])


def _live(walk: "Walk", state: State) -> list[tuple[int, ...]]:
    """Registers of each frame that are read later: where a frame has called, what is live behind the call."""
    found = []
    for number in range(len(state.frames)):
        if number + 1 < len(state.frames):
            callee = state.frames[number + 1]
            if callee.kind == "call":
                bits = walk.graph.live[walk.graph.after[callee.call][0]] & ~0b111111
            else:
                bits = walk.graph.live[callee.call]  # the helper's call is made again
        else:
            bits = walk.graph.live[state.slot]
        found.append(tuple(index for index in range(10) if bits >> index & 1))
    return found


def _same(old: State, new: State, live: list[tuple[int, ...]]) -> bool:
    if _everything(old, live) != _everything(new, live):
        return False
    ids = _Ids()
    return all(_stack_covers(a, b, FRAME, 0, EXACT, ids) for a, b in zip(old.frames, new.frames, strict=True))


def _repeats(old: Checkpoint, new: State) -> bool:
    """Whether this path came from that checkpoint, with no bound of its own on its passes."""
    if old.state.may_goto != new.may_goto or old.state.refs != new.refs or old.state.lock != new.lock:
        return False
    if any(a.depth != b.depth for a, b in zip(old.state.frames, new.frames, strict=True)):
        return False
    parent = new.parent
    while parent is not None:
        if parent is old:
            return True
        parent = parent.parent
    return False


def _comes_round(walk: "Walk", rounds: list[Checkpoint], new: State, live: list[tuple[int, ...]]) -> bool:
    """At a loop that ends by itself (may_goto, a helper that calls back): whether another pass would only see what an
    earlier one allows for. `rounds`: those whose paths haven't ended, from which this one comes, as it is walked depth
    first."""
    row = walk.graph.rows[new.slot]
    assert row
    for old in reversed(rounds):
        before = old.state
        counts = (before.may_goto, new.may_goto) if row.operation in _ROUNDS else (
            before.frame.depth, new.frame.depth)  # fmt: skip
        if counts[0] != counts[1] and equal(old, new, WITHIN, EVERYTHING):
            break
        old.misses += 1
    else:
        rounds[:] = [old for old in rounds if old.misses <= _EVICT_ROUND]
        return False
    # What the comparison rested on is all that is live here. So all of it is needed, for this pass and those before it.
    needed = Needed()
    for number, frame in enumerate(new.frames):
        needed.regs[number] = sum(1 << index for index in live[number])
        needed.places[number] = sum(1 << index for index, place in frame.stack.items() if place.held)
    precision.mark(walk, new.history, new.parent, needed)
    _await(new, old)
    return True


def _await(state: State, old: Checkpoint) -> None:
    """The path goes on as from that checkpoint before it, whose paths haven't ended."""
    checkpoint = state.parent
    while checkpoint is not None and checkpoint is not old:
        awaited = _awaited(checkpoint)
        if awaited is None or awaited.number > old.number:
            checkpoint.awaits = old
        checkpoint = checkpoint.parent


def _awaited(checkpoint: Checkpoint) -> Checkpoint | None:
    """The one whose paths must end before all is known that follows from a checkpoint."""
    awaited = checkpoint.awaits
    while awaited is not None and not awaited.branches:
        awaited = checkpoint.awaits = awaited.awaits
    return awaited


def _inherit(walk: "Walk", old: Checkpoint, new: State) -> None:
    """What the earlier state's way needed, this one's would need too."""
    needed = Needed()
    for number, bits in enumerate(old.precise_regs):
        needed.regs[number] = bits
        needed.places[number] = old.precise_places[number]
    if needed:
        if walk.log.level > 1:
            walk.log.propagates(needed, len(new.frames))
        precision.mark(walk, new.history, new.parent, needed)


def equal(old: Checkpoint, new: State, how: Exactness, read: int) -> bool:
    """Whether all that may follow from `new` was seen to be safe from `old`, behind which these bytes of the stack are
    read (liveness.mask)."""
    before = old.state
    if before.refs != new.refs and len(before.refs) != len(new.refs):
        return False
    if (before.lock is None) != (new.lock is None):
        return False
    ids = _Ids()
    for ref, now in zip(before.refs, new.refs, strict=True):
        if not ids.same(-ref, now):
            return False
    for number, (a, b) in enumerate(zip(before.frames, new.frames, strict=True)):
        precise = old.precise_regs[number]
        for index in old.live[number]:
            x, y = a.regs[index], b.regs[index]
            if x is y and not x.id:
                continue
            if how is SAFE and x.kind is NUMBER and y.kind is NUMBER and not precise >> index & 1:
                continue
            if not _covers(x, y, bool(precise >> index & 1), how, ids):
                return False
        if not _stack_covers(a, b, read >> number * STACK_BYTES & FRAME, old.precise_places[number], how, ids):
            return False
    return True


def _covers(old: Held, new: Held, precise: bool, how: Exactness, ids: _Ids) -> bool:
    if old.kind is NONE:
        return True
    if old.kind is not new.kind or old.nullable is not new.nullable:
        return False
    if how is EXACT:
        return old is new or old.parts() == new.parts()
    if old.kind is NUMBER:
        if how is SAFE and not precise:
            return True
        if not old.number.covers(new.number):
            return False
        if old.id:  # equal numbers must be equal here too
            if old.off != new.off or old.word is not new.word:
                return False
            return ids.same(old.id, new.id or -(1 << 40) - len(ids))
        return True
    if old is new and not old.id:
        return True
    if old.map is not new.map or old.size != new.size or old.frame != new.frame or old.target != new.target:
        return False
    if old.off != new.off:
        return False
    if old.kind in (PACKET, META):
        if old.range > new.range or (old.range < 0) is not (new.range < 0):
            return False
        if old.id and not ids.same(old.id, new.id):
            return False
        return _scalar_covers(old.number, new.number)
    if old.id and old.nullable and not ids.same(old.id, new.id):
        return False
    if old.ref and not ids.same(-old.ref, new.ref):
        return False
    return _scalar_covers(old.number, new.number)


def _scalar_covers(old: Scalar, new: Scalar) -> bool:
    return old is new or old.covers(new)


def _stack_covers(a: Frame, b: Frame, read: int, precise: int, how: Exactness, ids: _Ids) -> bool:
    for index, x in a.stack.items():
        bytes = read >> (PLACES - 1 - index) * PLACE_BYTES & 0xFF
        if not bytes:
            continue
        y = b.stack.get(index, UNWRITTEN)
        if x is y and not (x.held and x.held.id):
            continue
        if not _place_covers(x, y, bytes, bool(precise >> index & 1), how, ids):
            return False
    return how is not EXACT or all(index in a.stack for index in b.stack)


def _place_covers(old: Place, new: Place, read: int, precise: bool, how: Exactness, ids: _Ids) -> bool:
    """`read`: which of the place's bytes, as bits."""
    if how is EXACT:
        return old.bytes == new.bytes and (old.held is None) is (new.held is None) and (
            old.held is None or new.held is None or old.held.parts() == new.held.parts())  # fmt: skip
    if "0" in old.bytes:
        zero = new.held is not None and new.held.constant and not new.held.number.value
        for at, (x, y) in enumerate(zip(old.bytes, new.bytes, strict=True)):
            if x == "0" and read >> at & 1 and not (y == "0" or y == "s" and zero):
                return False
    if old.held is None or not read & (1 << old.bytes.count("s")) - 1:
        return True  # anything may be read from it, as a number
    if new.held is None:
        # A register that was spilled, and bytes of which nothing is known.
        if old.held.kind is not NUMBER or "s" in new.bytes:
            return False
        if how is SAFE and not precise:
            return True
        return old.bytes == "ssssssss" and old.held.number.covers(UNKNOWN_NUMBER.number) and not old.held.id
    if old.bytes.count("s") != new.bytes.count("s"):
        return False
    return _covers(old.held, new.held, precise, how, ids)
