"""Functions that are no part of the program, and not helpers: the iterator of numbers (kernel: kernel/bpf/bpf_iter.c,
process_iter_next_call), of which bpf_for() and bpf_repeat() are made, receive metadata (net/core/xdp.c), and those that
compilers take for granted (memcpy and its kin; Linux has them not, here the runtime does)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from bpfnic.host.verifier import memory, stack, subprograms, text
from bpfnic.host.verifier.pointers import LARGEST
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.host.verifier.state import PLACE_BYTES, Frame
from bpfnic.host.verifier.values import (
    CONTEXT,
    END,
    FUNCTION,
    ITEM,
    ITERATOR,
    MAP,
    NOTHING,
    NUMBER,
    PACKET_KINDS,
    STACK,
    UNKNOWN_NUMBER,
    ZERO,
    Held,
    Place,
    number,
)
from bpfnic.spec.programs import ProgramType

if TYPE_CHECKING:
    from bpfnic.host.verifier.walk import Walk

NEXT = "bpf_iter_num_next"
_ITEM_BYTES = 4


def call(walk: "Walk", name: str) -> None:
    """A call of that function at the current instruction."""
    state = walk.state
    if state.lock is not None:
        raise Refusal("function calls are not allowed while holding a lock", fix="call bpf_spin_unlock first")
    function = _FUNCTIONS.get(name)
    if function is None:
        raise Refusal(f"calling kernel function {name} is not allowed",
                      why=f"bpfnic's verifier doesn't follow what {name} does.")  # fmt: skip
    result = function(walk)
    regs = state.frame.regs
    regs[0:6] = [result, *[NOTHING] * 5]
    walk.go(state.slot + 1)


# The iterator of numbers: 8 bytes of the stack that the program may not touch.


def _place(walk: "Walk") -> tuple[Frame, int]:
    """Where r1 points, a place of the stack."""
    given = walk.readable(1)
    if given.kind is not STACK or given.number.mask or given.off % PLACE_BYTES:
        raise Refusal("arg#0 expected pointer to an iterator on stack", register=1,
                      why="The iterator must lie on the stack, aligned.")  # fmt: skip
    stack.within(walk, 1, given, 0, PLACE_BYTES, write=True)
    return walk.state.frames[given.frame], -(given.off // PLACE_BYTES) - 1


def _running(walk: "Walk") -> tuple[Frame, int, Held]:
    frame, index = _place(walk)
    held = frame.place(index).held
    if held is None or held.kind is not ITERATOR:
        raise Refusal("expected an initialized iter_num as arg #0", register=1,
                      why="No iterator was begun here, or it has been destroyed.",
                      fix="call bpf_iter_num_new before, on every path")  # fmt: skip
    walk.reads(frame, *stack.extent(index))
    return frame, index, held


def _number(walk: "Walk", register: int) -> None:
    given = walk.readable(register)
    if given.kind is not NUMBER:
        raise Refusal(f"R{register} is not a scalar", register=register)


def _new(walk: "Walk") -> Held:
    frame, index = _place(walk)
    _number(walk, 2)
    _number(walk, 3)
    held = frame.place(index).held
    if held is not None and held.kind is ITERATOR:
        raise Refusal("expected uninitialized iter_num as arg #0", register=1,
                      why="An iterator is under way here already.", fix="destroy it before")  # fmt: skip
    ref = walk.new_id()
    walk.state.refs += (ref,)
    walk.taken_at[ref] = walk.state.slot
    frame.stack[index] = Place("ssssssss", Held(ITERATOR, ZERO, ref=ref))
    walk.overwrites(frame, *stack.extent(index))
    return UNKNOWN_NUMBER


def _next(walk: "Walk") -> Held:
    """Both ways: the end, and another pass, which need not know what the one before it did to numbers."""
    state = walk.state
    _running(walk)
    ended = state.copy()
    assert ended.history
    ended.history = (*ended.history[:3], ("ended",))
    ended.frame.regs[0:6] = [number(ZERO), *[NOTHING] * 5]
    ended.previous, ended.slot = state.slot, state.slot + 1
    walk.push(ended)
    state.may_goto += 1
    earlier = subprograms.earlier(walk, state, skip=1)
    if earlier is not None:
        subprograms.widen(walk, earlier, state)
    return Held(ITEM, ZERO, size=_ITEM_BYTES)


def _destroy(walk: "Walk") -> Held:
    frame, index, held = _running(walk)
    walk.state.refs = tuple(ref for ref in walk.state.refs if ref != held.ref)
    frame.stack[index] = Place("m" * PLACE_BYTES)
    walk.overwrites(frame, *stack.extent(index))
    return NOTHING


# memcpy and its kin.


def _bytes(walk: "Walk") -> int:
    """The most that r3 says."""
    given = walk.readable(3)
    if given.kind is not NUMBER:
        raise Refusal(f"R3 type={text.kind(given)} expected=scalar", register=3)
    walk.need_exact(3)
    if given.number.umax >= LARGEST:
        raise Refusal("R3 unbounded memory access, use 'var &= const' or 'if (var < const)'", register=3,
                      why="The size has no upper bound here.", fix="compare it with its largest value before this call")
    return given.number.umax


def _reach(walk: "Walk", register: int, size: int, write: bool) -> Held:
    pointer = walk.readable(register)
    if not size:
        return pointer
    if pointer.kind is CONTEXT:
        raise Refusal(f"R{register} type=ctx expected=fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem",
                      register=register, why="Members of the context are loaded one by one.")  # fmt: skip
    if pointer.nullable or not pointer.pointer or pointer.kind in (END, MAP, FUNCTION):
        raise Refusal(f"R{register} invalid mem access '{text.kind(pointer)}'", register=register,
                      why=f"r{register} may be no pointer to memory here.")  # fmt: skip
    memory.reach(walk, register, pointer, size, reads=not write, writes=write)
    if write and pointer.kind is STACK:
        stack.spoil(walk, pointer, 0, size)
    if write and pointer.kind in PACKET_KINDS and walk.subject.type is ProgramType.SOCKET_FILTER:
        raise Refusal("cannot write into packet", register=register)
    return pointer


def _copy(walk: "Walk") -> Held:
    size = _bytes(walk)
    _reach(walk, 2, size, write=False)
    return _reach(walk, 1, size, write=True)


def _set(walk: "Walk") -> Held:
    size = _bytes(walk)
    _number(walk, 2)
    return _reach(walk, 1, size, write=True)


def _compare(walk: "Walk") -> Held:
    size = _bytes(walk)
    _reach(walk, 1, size, write=False)
    _reach(walk, 2, size, write=False)
    return UNKNOWN_NUMBER


# Receive metadata (spec/metadata.py), which the NIC has for XDP programs.


def _metadata(*sizes: int) -> Callable[["Walk"], Held]:
    """A function that takes the context and writes so many bytes at each further argument."""

    def call(walk: "Walk") -> Held:
        if not walk.subject.device_bound:
            raise Refusal("metadata kfuncs require device-bound program",
                          why="Only a program that is bound to a NIC may ask for metadata.")  # fmt: skip
        context = walk.readable(1)
        if context.kind is not CONTEXT or context.off or context.number.mask or context.number.value:
            raise Refusal(f"arg#0 expected pointer to ctx, but got {text.kind(context)}", register=1)
        for register, size in enumerate(sizes, 2):
            memory.aligned(walk, register, walk.readable(register), 0, size, walk.readable(register).kind is STACK)
            _reach(walk, register, size, write=True)
        return UNKNOWN_NUMBER

    return call


_FUNCTIONS: dict[str, Callable[["Walk"], Held]] = {
    "bpf_iter_num_new": _new,
    NEXT: _next,
    "bpf_iter_num_destroy": _destroy,
    "bpf_xdp_metadata_rx_timestamp": _metadata(8),
    "bpf_xdp_metadata_rx_hash": _metadata(4, 4),
    "bpf_xdp_metadata_rx_vlan_tag": _metadata(2, 2),
    "memcpy": _copy,
    "memmove": _copy,
    "memset": _set,
    "memcmp": _compare,
}
