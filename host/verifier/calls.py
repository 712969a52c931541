"""Calls of helpers: what each may be given, and what it leaves (kernel: check_helper_call, check_func_arg)."""

from typing import TYPE_CHECKING

from bpfnic.host.verifier import memory, stack, subprograms, text
from bpfnic.host.verifier.graph import TAIL_CALL
from bpfnic.host.verifier.pointers import LARGEST
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.host.verifier.scalar import UNKNOWN
from bpfnic.host.verifier.values import (
    CONTEXT,
    FUNCTION,
    ITEM,
    MAP,
    MEMORY,
    NOTHING,
    NUMBER,
    PACKET_KINDS,
    RECORD,
    STACK,
    UNKNOWN_NUMBER,
    VALUE,
    ZERO,
    Held,
)
from bpfnic.spec import helpers
from bpfnic.spec.helpers import Argument, Helper, Result
from bpfnic.spec.maps import OF_MAPS, MapFlag, MapType

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition
    from bpfnic.host.verifier.walk import Walk

_FREE_LICENSES = {"GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL"}
_READS = (Argument.READ, Argument.READ_OR_NULL)
_SIZED = (Argument.READ, Argument.READ_OR_NULL, Argument.WRITE, Argument.CHANGE)


def _numbers(*names: str) -> frozenset[int]:
    return frozenset(helpers.BY_NAME[name].number for name in names)


LOOKUP = helpers.BY_NAME["map_lookup_elem"].number
_LOOKUPS = _numbers("map_lookup_elem", "map_lookup_percpu_elem")
_WRITES = _numbers("map_update_elem", "map_delete_elem", "map_push_elem", "map_pop_elem")
_LOCK, _UNLOCK = helpers.BY_NAME["spin_lock"].number, helpers.BY_NAME["spin_unlock"].number
TAKES_PACKET = _numbers("map_lookup_elem", "map_update_elem", "map_delete_elem", "map_push_elem",
                        "map_lookup_percpu_elem", "csum_diff")  # fmt: skip
"""Helpers that read the packet through a pointer (pkt_access in their prototypes)."""

_ORDINARY = _numbers("map_lookup_elem", "map_update_elem", "map_delete_elem")
_ITERATED = _numbers("for_each_map_elem")
_ARRAYS = _ORDINARY | _ITERATED
# What may be called with each type of map (kernel: check_map_func_compatibility); other types take the ordinary ones.
_OF_TYPE: dict[MapType, frozenset[int]] = {
    MapType.PROG_ARRAY: _numbers("tail_call"),
    MapType.PERF_EVENT_ARRAY: _numbers("perf_event_read", "perf_event_output", "perf_event_read_value"),
    MapType.CGROUP_ARRAY: _numbers("skb_under_cgroup"),
    MapType.DEVMAP: _numbers("redirect_map", "map_lookup_elem"),
    MapType.DEVMAP_HASH: _numbers("redirect_map", "map_lookup_elem"),
    MapType.CPUMAP: _numbers("redirect_map"),
    MapType.XSKMAP: _numbers("redirect_map", "map_lookup_elem"),
    MapType.ARRAY_OF_MAPS: _numbers("map_lookup_elem"),
    MapType.HASH_OF_MAPS: _numbers("map_lookup_elem"),
    MapType.QUEUE: _numbers("map_push_elem", "map_pop_elem", "map_peek_elem"),
    MapType.STACK: _numbers("map_push_elem", "map_pop_elem", "map_peek_elem"),
    MapType.BLOOM_FILTER: _numbers("map_push_elem", "map_peek_elem"),
    MapType.RINGBUF: _numbers("ringbuf_output", "ringbuf_reserve", "ringbuf_query"),
    MapType.ARRAY: _ARRAYS,
    MapType.HASH: _ARRAYS,
    MapType.LRU_HASH: _ARRAYS,
    MapType.PERCPU_ARRAY: _ARRAYS | _numbers("map_lookup_percpu_elem"),
    MapType.PERCPU_HASH: _ARRAYS | _numbers("map_lookup_percpu_elem"),
    MapType.LRU_PERCPU_HASH: _ARRAYS | _numbers("map_lookup_percpu_elem"),
    MapType.LPM_TRIE: _ORDINARY,
}


def call(walk: "Walk", number: int) -> None:
    """A call of a helper at the current instruction: the walk goes on behind it."""
    helper = helpers.BY_NUMBER.get(number)
    if helper is None:
        raise Refusal(f"invalid func unknown#{number}", why=f"There is no helper {number}.")
    name = f"bpf_{helper.name}#{number}"
    if walk.subject.type not in helper.programs:
        raise Refusal(f"program of this type cannot use helper {name}",
                      why=f"Helper {helper.name} isn't for {walk.subject.type.name} programs.")  # fmt: skip
    if helper.gpl and walk.subject.license not in _FREE_LICENSES:
        raise Refusal("cannot call GPL-restricted function from non-GPL compatible program",
                      why=f"Helper {helper.name} is for programs under a GPL-compatible license; this one's is "
                      f"{walk.subject.license!r}.", fix='char _license[] SEC("license") = "GPL";')  # fmt: skip
    if helper.takes is None:
        raise Refusal(f"program cannot use helper {name}: not followed",
                      why=f"bpfnic's verifier doesn't follow what {helper.name} takes or gives.")  # fmt: skip
    state = walk.state
    if state.lock is not None and number != _UNLOCK:
        raise Refusal("function calls are not allowed while holding a lock",
                      fix="call bpf_spin_unlock first")  # fmt: skip
    arguments = Arguments(walk, helper)
    for index, kind in enumerate(helper.takes):
        arguments.check(index + 1, kind)
    if arguments.map:
        walk.map_calls.setdefault((number, arguments.map.type), state.slot)
    if number == TAIL_CALL:
        if state.refs:
            raise unreleased(walk, "tail_call would lead to reference leak")
        assert arguments.map
        walk.tail_calls.setdefault(state.slot, set()).add((arguments.map.name, _index(walk, arguments.map)))
    if number in _WRITES and arguments.map and arguments.map.flags & MapFlag.RDONLY_PROG:
        raise memory.forbidden(arguments.map, 1, write=True)
    for pointer, size in arguments.written:
        if pointer.kind is STACK and size:
            stack.spoil(walk, pointer, 0, size)
    if number == _LOCK:
        walk.locks.take(arguments.given(1))
    elif number == _UNLOCK:
        walk.locks.release(arguments.given(1))
    if Argument.FUNCTION in helper.takes:
        subprograms.call_back(walk, helper, arguments.map)
    regs = state.frame.regs
    released = regs[1].ref if Argument.RECORD in helper.takes else 0
    result = _result(walk, helper, arguments)
    for index in range(6):
        regs[index] = NOTHING
    if released:
        _release(walk, released)
    if number in helpers.CHANGES_PACKET:
        memory.forget_packet(walk)
    regs[0] = result
    walk.go(state.slot + 1)
    if number == TAIL_CALL:
        subprograms.may_return(walk, UNKNOWN_NUMBER, changes_packet=True)


def _index(walk: "Walk", programs: "MapDefinition") -> int | None:
    """Which of its programs a tail call names, None where that isn't known (kernel: record_func_key)."""
    given = walk.state.frame.regs[3]
    if not given.constant or given.number.value >= programs.max_entries:
        return None
    walk.need_exact(3)
    return given.number.value


class Arguments:
    """What a call passes, as far as later arguments and the result depend on it."""

    def __init__(self, walk: "Walk", helper: Helper):
        self._walk, self._helper = walk, helper
        self.map: MapDefinition | None = None
        self.key: int | None = None
        self.record_size = 0
        self.written: list[tuple[Held, int]] = []

    def given(self, register: int) -> Held:
        return self._walk.state.frame.regs[register]

    def check(self, register: int, kind: Argument) -> None:
        """Raises Refusal unless the register holds what the helper takes there."""
        walk = self._walk
        if kind is Argument.ANY:
            return
        given = walk.readable(register)
        if kind is Argument.SCALAR:
            return  # any value will do; as root, pointers too
        if kind in (Argument.READ_OR_NULL, Argument.LOCAL_OR_NULL) and given.constant and not given.number.value:
            return
        if kind is Argument.MAP:
            self._map(register, given)
        elif kind in (Argument.KEY, Argument.VALUE, Argument.ROOM):
            self._entry(register, kind)
        elif kind in _SIZED:
            self._pointer(register, given)  # how many bytes, the next argument says
        elif kind in (Argument.SIZE, Argument.SIZE_OR_ZERO):
            self._size(register, given, kind)
        elif kind in (Argument.U32, Argument.LONG):
            self._pointer(register, given)
            size = 4 if kind is Argument.U32 else 8
            reach(walk, self._helper, register, size, reads=kind is Argument.U32, writes=True)
            memory.aligned(walk, register, given, 0, size, strict=True)
            self.written.append((given, size))
        elif kind is Argument.CONTEXT:
            self._of(register, given, CONTEXT)
            if given.off or given.number.mask or given.number.value:
                raise Refusal(f"dereference of modified ctx ptr R{register} off={given.off} disallowed",
                              register=register)  # fmt: skip
        elif kind is Argument.TEXT:
            self._text(register, given)
        elif kind is Argument.FUNCTION:
            self._of(register, given, FUNCTION)
        elif kind is Argument.LOCAL_OR_NULL:
            self._of(register, given, STACK)
        elif kind is Argument.LOCK:
            self._of(register, given, VALUE)
        elif kind is Argument.RECORD:
            self._of(register, given, RECORD)
            if not given.ref or given.off or given.number.mask:
                raise Refusal(f"R{register} must have zero offset when passed to release func or trusted arg to kfunc",
                              register=register)  # fmt: skip
        elif kind is Argument.RECORD_SIZE:
            if not given.constant:
                raise Refusal(f"R{register} is not a known constant'", register=register,
                              why="The size of a record must be a constant.")  # fmt: skip
            walk.need_exact(register)
            self.record_size = given.number.value

    def _of(self, register: int, given: Held, kind: object) -> None:
        if given.kind is not kind or given.nullable:
            wanted = kind.value  # type: ignore[attr-defined]
            fix = f"compare r{register} with NULL before this call" if given.nullable else ""
            raise Refusal(f"R{register} type={text.kind(given)} expected={wanted}", register=register, fix=fix,
                          why=f"Argument {register} of bpf_{self._helper.name} must be {_WORDS[wanted]}.")

    def _pointer(self, register: int, given: Held) -> None:
        if given.nullable or given.kind not in (*PACKET_KINDS, STACK, VALUE, MEMORY, RECORD, ITEM):
            wanted = "fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_"
            fix = f"compare r{register} with NULL before this call" if given.nullable else ""
            raise Refusal(f"R{register} type={text.kind(given)} expected={wanted}", register=register, fix=fix,
                          why=f"Argument {register} of bpf_{self._helper.name} must be a pointer to memory.")

    def _map(self, register: int, given: Held) -> None:
        self._of(register, given, MAP)
        assert given.map
        allowed = _OF_TYPE.get(given.map.type, _ORDINARY)
        if self._helper.number == TAIL_CALL and given.map.type is not MapType.PROG_ARRAY:
            raise Refusal("expected prog array map for tail call", register=register, why=f"Map {given.map.name} is a "
                          f"{given.map.type.name}; tail calls take a PROG_ARRAY.")  # fmt: skip
        if self._helper.number not in allowed:
            raise Refusal(
                f"cannot pass map_type {int(given.map.type)} into func bpf_{self._helper.name}#{self._helper.number}",
                register=register, why=f"Map {given.map.name} is a {given.map.type.name}, which bpf_"
                f"{self._helper.name} doesn't take.")  # fmt: skip
        self.map = given.map

    def _entry(self, register: int, kind: Argument) -> None:
        walk, definition = self._walk, self.map
        given = self.given(register)
        if definition is None:
            raise Refusal("invalid map_ptr to access map->key", register=register)
        size = definition.key_size if kind is Argument.KEY else definition.value_size
        self._pointer(register, given)
        writes = kind is Argument.ROOM
        reach(walk, self._helper, register, size, reads=not writes, writes=writes)
        if writes:
            self.written.append((given, size))
        if kind is Argument.KEY and given.kind is STACK and definition.type in (MapType.ARRAY, MapType.PERCPU_ARRAY):
            found = stack.constant_at(walk, given, 4)
            if found is not None:
                self.key, place = found
                if place and self._helper.number == LOOKUP and self.key < definition.max_entries:
                    frame, index = place
                    walk.need_place(frame.number, index)

    def _size(self, register: int, given: Held, kind: Argument) -> None:
        walk = self._walk
        if given.kind is not NUMBER:
            raise Refusal(f"R{register} type={text.kind(given)} expected=scalar", register=register)
        assert self._helper.takes
        before = self._helper.takes[register - 2]
        known = given.number
        if known.smin < 0:
            raise Refusal(f"R{register} min value is negative, either use unsigned or 'var &= const'",
                          register=register, why="The size may be negative here.")  # fmt: skip
        zero = kind is Argument.SIZE_OR_ZERO
        if known.umin == 0 and not zero:
            raise Refusal(f"R{register} invalid zero-sized read: u64=[{known.umin},{known.umax}]", register=register,
                          why="The size may be 0 here.", fix="compare it with 0 before this call")  # fmt: skip
        if known.umax >= LARGEST:
            raise Refusal(
                f"R{register} unbounded memory access, use 'var &= const' or 'if (var < const)'", register=register,
                why="The size has no upper bound here.", fix="compare it with its largest value before this call")
        pointer = self.given(register - 1)
        reads, writes = before is not Argument.WRITE, before in (Argument.WRITE, Argument.CHANGE)
        if not pointer.pointer:  # NULL, which only goes with no bytes
            if known.umax:
                raise Refusal(f"R{register - 1} type={text.kind(pointer)} expected=fp, pkt, pkt_meta, map_key, "
                              "map_value, mem, ringbuf_mem, buf, trusted_ptr_", register=register - 1)  # fmt: skip
        else:
            reach(walk, self._helper, register - 1, known.umax, reads=reads, writes=writes, zero=zero)
            if writes:
                self.written.append((pointer, known.umax))
        walk.need_exact(register)

    def _text(self, register: int, given: Held) -> None:
        self._of(register, given, VALUE)
        assert given.map
        content = given.map.constants
        if content is None:
            raise Refusal(f"R{register} does not point to a readonly map'", register=register,
                          why="The text must be a constant of the program.")  # fmt: skip
        if given.number.mask:
            raise Refusal(f"R{register} is not a constant address'", register=register)
        at = given.off + given.number.value
        if not 0 <= at < len(content) or 0 not in content[at:]:
            raise Refusal("string is not zero-terminated", register=register)


_WORDS = {"map_ptr": "a map", "ctx": "the program's context", "func": "a function", "fp": "a pointer into the stack",
          "map_value": "a pointer to a map value", "ringbuf_mem": "a record as bpf_ringbuf_reserve gave it",
          "scalar": "a number"}  # fmt: skip


def reach(
    walk: "Walk", helper: Helper, register: int, size: int, reads: bool, writes: bool, zero: bool = False
) -> None:
    """Raises Refusal unless a helper may access `size` bytes from a pointer on."""
    pointer = walk.readable(register)
    if pointer.kind in PACKET_KINDS and (helper.number not in TAKES_PACKET or writes):
        raise Refusal("helper access to the packet is not allowed", register=register,
                      why=f"bpf_{helper.name} doesn't take pointers into the packet.",
                      fix="copy the bytes to the stack first")  # fmt: skip
    memory.reach(walk, register, pointer, size, reads, writes, zero)


def _result(walk: "Walk", helper: Helper, arguments: Arguments) -> Held:
    if helper.gives is Result.VALUE_OR_NULL:
        definition = arguments.map
        assert definition
        if definition.type in OF_MAPS:
            if definition.inner is None:
                raise Refusal(f"map {definition.name} has no inner map", register=1,
                              why=f"The object doesn't say what the maps in {definition.name} look like.")  # fmt: skip
            return Held(VALUE, ZERO, id=walk.new_id(), map=definition, nullable=True)  # a map, once it isn't NULL
        known = (helper.number == LOOKUP and definition.type in (MapType.ARRAY, MapType.PERCPU_ARRAY)
                 and arguments.key is not None and arguments.key < definition.max_entries)  # fmt: skip
        return Held(VALUE, ZERO, id=0 if known else walk.new_id(), map=definition, nullable=not known)
    if helper.gives is Result.RECORD_OR_NULL:
        walk.new_id()  # Linux takes one for the pointer that may be NULL, and then this for both
        ref = walk.new_id()
        walk.state.refs += (ref,)
        walk.taken_at[ref] = walk.state.slot
        return Held(RECORD, ZERO, id=ref, size=arguments.record_size, nullable=True, ref=ref)
    if helper.gives is Result.NOTHING:
        return NOTHING
    return Held(NUMBER, UNKNOWN)


def _release(walk: "Walk", ref: int) -> None:
    """A record is given back: no register leads to it any more."""
    state = walk.state
    state.refs = tuple(one for one in state.refs if one != ref)
    for frame, where, held in state.each():
        if held.ref == ref:
            state.put(frame, where, UNKNOWN_NUMBER)


def unreleased(walk: "Walk", message: str) -> Refusal:
    """What an end raises before which something isn't given back."""
    ref = walk.state.refs[0]
    walk.say(f"Unreleased reference id={ref} alloc_insn={walk.taken_at[ref]}")
    return Refusal(message, why=f"The record that instruction {walk.taken_at[ref]} reserved isn't given back.",
                   fix="call bpf_ringbuf_submit or bpf_ringbuf_discard on every path")  # fmt: skip


def check_released(walk: "Walk") -> None:
    """At the program's end: nothing may still be held."""
    if walk.state.lock is not None:
        raise Refusal("BPF_EXIT instruction in main prog cannot be used inside bpf_spin_lock-ed region",
                      fix="call bpf_spin_unlock before the end")  # fmt: skip
    if walk.state.refs:
        raise unreleased(walk, "BPF_EXIT instruction in main prog would lead to reference leak")
