"""Calls of the program's own functions, and of those that helpers call (kernel: check_func_call, prepare_func_exit,
push_callback_call)."""

from typing import TYPE_CHECKING

from bpfnic.host.verifier import memory
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.host.verifier.state import Frame, State
from bpfnic.host.verifier.values import (
    MAP,
    MEMORY,
    NOTHING,
    NUMBER,
    STACK,
    UNKNOWN_NUMBER,
    VALUE,
    ZERO,
    Held,
    Place,
)
from bpfnic.host.verifier.width import SMAX, SMIN
from bpfnic.spec.addresses import FRAMES
from bpfnic.spec.helpers import BY_NAME, Helper

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition
    from bpfnic.host.verifier.walk import Walk

_FOR_EACH = BY_NAME["for_each_map_elem"].number
_LOOP = BY_NAME["loop"].number


def call(walk: "Walk", target: int) -> None:
    """A call of the function at `target`: the walk goes on inside it, or behind the call of a global one."""
    state = walk.state
    caller = state.frame
    prototype = walk.globals.prototype(target)
    if prototype is not None:
        walk.globals.call(target, prototype)
        walk.go(state.slot + 1)
        return
    if state.lock is not None:
        raise Refusal("function calls are not allowed while holding a lock", fix="call bpf_spin_unlock first")
    callee = _enter(state, target, "call", state.slot + 1)
    callee.regs[1:6] = caller.regs[1:6]
    caller.regs[0:6] = [NOTHING] * 6
    walk.note(("enters",))
    state.slot = target


def _enter(state: State, target: int, kind: str, returns: int) -> Frame:
    if len(state.frames) == FRAMES:
        raise Refusal(f"the call stack of {FRAMES + 1} frames is too deep", why=f"At most {FRAMES} functions may be "
                      "under way at once.")  # fmt: skip
    callee = Frame(state.frame.instance.callee(state.slot, target, returns), kind)
    state.frames.append(callee)
    return callee


def leave(walk: "Walk") -> None:
    """The end of a function: back to its caller."""
    state = walk.state
    callee = state.frame
    result = callee.regs[0]
    if result.kind is STACK:
        raise Refusal("cannot return stack pointer to the caller", register=0)
    walk.liveness.leaves(callee.instance, state.slot)
    if callee.kind == "call":
        walk.note(("call",))
        walk.log.leaves(state)
        state.frames.pop()
        state.frame.regs[0] = result
        state.previous, state.slot = state.slot, callee.call + 1
        walk.log.returned(state)
        return
    walk.readable(0)
    if result.kind is not NUMBER:
        raise Refusal("R0 not a scalar value", register=0)
    walk.need_exact(0)
    if not 0 <= result.number.smin <= result.number.smax <= 1:
        known = result.number
        told = f" smin={known.smin}" if known.smin > SMIN else ""
        told += f" smax={known.smax}" if known.smax < SMAX else ""
        raise Refusal(f"At callback return the register R0 has{told or ' unknown scalar value'} should have been in "
                      "[0, 1]", register=0, why="A callback returns 0 to go on or 1 to stop.")  # fmt: skip
    walk.note(("callback",))
    walk.log.leaves(state)
    state.frames.pop()
    state.frame.depth += 1
    state.previous, state.slot = state.slot, callee.call
    walk.log.returned(state)
    before = earlier(walk, state)
    if before is not None:
        widen(walk, before, state)


def may_return(walk: "Walk", result: Held, changes_packet: bool) -> None:
    """Besides going on, the instruction under way may end its function, with `result`: so does a tail call whose
    program returns to the function's caller, and a load outside the packet. In a function that was called that is
    walked first."""
    state = walk.state
    if len(state.frames) == 1:
        return
    walk.push(state.copy())
    state.slot = state.previous
    state.frame.regs[0] = result
    if changes_packet:
        memory.forget_packet(walk)
    leave(walk)


def call_back(walk: "Walk", helper: Helper, definition: "MapDefinition | None") -> None:
    """A helper's call that calls a function of the program: what it does is walked besides what follows the call."""
    state = walk.state
    regs = state.frame.regs
    target = regs[2].target
    if helper.number == _LOOP:
        walk.need_exact(1)
        if state.frame.depth >= regs[1].number.umax:
            state.frame.depth = 0
            return
    walk.callbacks.setdefault(state.frame.entry, set()).add(target)
    inside = state.copy()
    assert inside.history
    inside.history = (*inside.history[:3], ("enters",))
    callee = _enter(inside, target, helper.name, inside.slot)
    if helper.number == _FOR_EACH:
        assert definition
        callee.regs[1] = Held(MAP, ZERO, map=definition)
        callee.regs[2] = Held(MEMORY, ZERO, size=definition.key_size, map=definition)
        callee.regs[3] = Held(VALUE, ZERO, map=definition)
        callee.regs[4] = regs[3]
    else:
        callee.regs[1] = UNKNOWN_NUMBER
        callee.regs[2] = regs[3]
    inside.previous, inside.slot = inside.slot, target
    walk.push(inside)
    walk.log.called_back()
    state.frame.depth = 0


def earlier(walk: "Walk", state: State, skip: int = 0) -> State | None:
    """The last state on the path at the same instruction, in the same functions; or the one before `skip` of them."""
    checkpoint = state.parent
    while checkpoint is not None:
        found = checkpoint.state
        if found.slot == state.slot and len(found.frames) == len(state.frames):
            if not skip:
                return found
            skip -= 1
        checkpoint = checkpoint.parent
    return None


def widen(walk: "Walk", earlier: State, state: State) -> None:
    """Forget what numbers are that changed since an earlier pass and that nothing needed exactly, so that the next pass
    is like this one."""
    checkpoint = state.parent
    while checkpoint is not None and checkpoint.state is not earlier:
        checkpoint = checkpoint.parent
    assert checkpoint
    for number, (old, new) in enumerate(zip(earlier.frames, state.frames, strict=True)):
        for index, held in enumerate(new.regs):
            precise = checkpoint.precise_regs[number] >> index & 1
            if not precise and _changed(old.regs[index], held):
                new.regs[index] = UNKNOWN_NUMBER
        for index, place in list(new.stack.items()):
            before = old.place(index).held
            precise = checkpoint.precise_places[number] >> index & 1
            if place.held and before and not precise and _changed(before, place.held):
                new.stack[index] = Place(place.bytes, UNKNOWN_NUMBER)


def _changed(old: Held, new: Held) -> bool:
    return old is not new and old.kind is NUMBER and new.kind is NUMBER and old.parts() != new.parts()
