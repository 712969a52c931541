"""The stack: places of 8 bytes, of which each byte was never written, written, zero, or part of a spilled register.

(Kernel: check_stack_read, check_stack_write and what they call.)"""

from typing import TYPE_CHECKING

from bpfnic.host.verifier import arithmetic, text
from bpfnic.host.verifier.pointers import LARGEST
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.host.verifier.scalar import Scalar, constant
from bpfnic.host.verifier.state import PLACE_BYTES, Frame
from bpfnic.host.verifier.values import ITERATOR, NUMBER, STACK, Held, Place, loaded, number
from bpfnic.spec.addresses import STACK_BYTES
from bpfnic.spec.isa import Operation

if TYPE_CHECKING:
    from bpfnic.host.verifier.walk import Walk

_SPILLED = "s"


def bounds(pointer: Held, offset: int) -> tuple[int, int]:
    """The lowest and the highest distance from r10 at which an access may begin."""
    base = pointer.off + offset
    return base + pointer.number.smin, base + pointer.number.smax


def within(
    walk: "Walk", base: int, pointer: Held, offset: int, size: int, write: bool, zero: bool = False
) -> None:
    """Raises Refusal for an access that isn't all on the stack."""
    low, high = bounds(pointer, offset)
    how = "write to" if write else "read from"
    known = pointer.number
    if known.mask and (known.smax >= LARGEST or known.smin <= -LARGEST):
        raise Refusal(f"invalid unbounded variable-offset {how} stack R{base}", register=base,
                      why="The index into the stack has no bounds.")  # fmt: skip
    if low < -STACK_BYTES or high + size > 0 or high >= 0 or size < 0 or (size == 0 and not zero):
        if known.mask:
            bits = text.tnum(known.value, known.mask)
            message = f"invalid variable-offset {how} stack R{base} var_off={bits} off={offset} size={size}"
        else:
            message = f"invalid {how} stack R{base} off={low} size={size}"
        raise Refusal(
            message, register=base,
            why=f"The access reaches bytes {low} to {high + size - 1} from r10; the stack is "
            f"{-STACK_BYTES} to -1.")  # fmt: skip
    walk.deepen(pointer.frame, -low)


def load(walk: "Walk", pointer: Held, offset: int, size: int) -> Held:
    """What is read from the stack."""
    frame = walk.state.frames[pointer.frame]
    low, high = bounds(pointer, offset)
    if pointer.number.mask:
        walk.reads(frame, low, high + size)
        _no_iterator(frame, *_places(low, high + size))
        zero = all(_bytes(frame, at, 1) == "0" for at in range(low, high + size))
        return number(constant(0)) if zero else loaded(8 * size)
    index, at = -(low // PLACE_BYTES) - 1, low % PLACE_BYTES
    last_index = -((low + size - 1) // PLACE_BYTES) - 1
    walk.reads(frame, low, low + size)
    _no_iterator(frame, last_index, index)
    place = frame.place(index)
    held = place.held
    if held is not None and index == last_index:
        spilled = place.bytes.count(_SPILLED)
        if held.kind is not NUMBER:
            if size != PLACE_BYTES:
                raise Refusal("invalid size of register fill", why="Part of a pointer that lies on the stack is read.")
            walk.note_stack(frame.number, index)
            return held
        if at == 0 and size <= spilled:
            walk.note_stack(frame.number, index)
            if size == PLACE_BYTES:
                return held
            if held.number.umax >> 8 * size == 0:
                return held
            return number(_narrow(held, size))
        if held.constant and not held.number.value and place.bytes[at : at + size] == _SPILLED * size:
            walk.note_stack(frame.number, index)
            return number(constant(0))
    kinds = _bytes(frame, low, size)
    if kinds == "0" * size:
        return number(constant(0))
    if "u" in kinds:
        walk.warn_unwritten(low, size)
    return loaded(8 * size)


def _narrow(held: Held, size: int) -> Scalar:
    if size == 4:
        return arithmetic.move(held.number, True)
    return arithmetic.compute(Operation.AND, held.number, constant((1 << 8 * size) - 1), False)


def store(walk: "Walk", pointer: Held, offset: int, size: int, value: Held, source: int | None) -> None:
    """What a store leaves."""
    frame = walk.state.frames[pointer.frame]
    low, high = bounds(pointer, offset)
    zero = value.constant and value.number.value == 0
    if pointer.number.mask:
        if zero and source is not None:
            walk.need_exact(source)
        _store_somewhere(frame, low, high + size, zero)
        return
    index, at = -(low // PLACE_BYTES) - 1, low % PLACE_BYTES
    walk.overwrites(frame, low, low + size)
    if value.pointer:
        if at or size != PLACE_BYTES:
            raise Refusal("invalid size of register spill", register=source,
                          why="A pointer is stored whole, or not at all.")  # fmt: skip
        if value.kind is STACK and frame is not walk.state.frame:
            raise Refusal("cannot spill pointers to stack into stack frame of the caller", register=source,
                          why="The function may have ended by the time it is used.")  # fmt: skip
        frame.stack[index] = Place("ssssssss", value)
        walk.note_stack(frame.number, index)
        return
    if at == 0 and value.kind is NUMBER:
        kept = value
        if value.id and value.number.umax >> 8 * size:
            kept = number(value.number)
        kinds = _SPILLED * size + _scrubbed(frame.place(index).bytes[size:])
        frame.stack[index] = Place(kinds, kept)
        walk.note_stack(frame.number, index)
        return
    if zero and source is not None:
        walk.need_exact(source)
    _fill(frame, low, size, "0" if zero else "m")


def spoil(walk: "Walk", pointer: Held, offset: int, size: int) -> None:
    """Bytes that something wrote of which nothing is known."""
    frame = walk.state.frames[pointer.frame]
    low, high = bounds(pointer, offset)
    if frame is walk.state.frame:
        walk.log.places(low, high - low + size)
    if pointer.number.mask:
        _store_somewhere(frame, low, high + size, False)
        return
    walk.overwrites(frame, low, low + size)
    _fill(frame, low, size, "m")


def spills(pointer: Held, offset: int, size: int, value: Scalar) -> bool:
    """Whether a store of a number there keeps all that is known of it: at a place's lowest byte, as wide as it is."""
    return (pointer.kind is STACK and not pointer.number.mask and not value.umax >> 8 * size
            and bounds(pointer, offset)[0] % PLACE_BYTES == 0)  # fmt: skip


def place_of(pointer: Held, offset: int) -> int | None:
    """The place of an access to the stack, None where it may be several."""
    if pointer.kind is not STACK or pointer.number.mask:
        return None
    return -(bounds(pointer, offset)[0] // PLACE_BYTES) - 1


def note_read(walk: "Walk", pointer: Held, offset: int, size: int) -> None:
    """Bytes that a helper reads."""
    low, high = bounds(pointer, offset)
    frame = walk.state.frames[pointer.frame]
    walk.reads(frame, low, high + size)
    _no_iterator(frame, *_places(low, high + size))


def _no_iterator(frame: Frame, first: int, last: int) -> None:
    """Raises Refusal where an iterator lies at one of the places."""
    for index in range(first, last + 1):
        held = frame.place(index).held
        if held is not None and held.kind is ITERATOR:
            raise Refusal(f"invalid read from stack off {-PLACE_BYTES * (index + 1)}+0 size {PLACE_BYTES}",
                          why="An iterator lies there, which its functions alone may read.")  # fmt: skip


def constant_at(walk: "Walk", pointer: Held, size: int) -> tuple[int, tuple[Frame, int] | None] | None:
    """The number that lies at a pointer if it is known, with the frame and place of the register that was spilled there
    (bytes of zeros are always compared exactly); `size` up to 8 bytes."""
    if pointer.number.mask:
        return None
    low, _ = bounds(pointer, 0)
    index, at = -(low // PLACE_BYTES) - 1, low % PLACE_BYTES
    if at + size > PLACE_BYTES:
        return None
    frame = walk.state.frames[pointer.frame]
    place = frame.place(index)
    if place.bytes[at : at + size] == "0" * size:
        return 0, None
    held, spilled = place.held, place.bytes.count(_SPILLED)
    if held is not None and held.constant and spilled - at == size:  # Linux takes no lower part of what was spilled
        return held.number.value >> 8 * at, (frame, index)
    return None


def extent(index: int) -> tuple[int, int]:
    """The distances from r10 at which a place begins and ends."""
    return -PLACE_BYTES * (index + 1), -PLACE_BYTES * index


def _places(low: int, end: int) -> tuple[int, int]:
    """First and last place (the nearest to r10 first) of the bytes from `low` on, below `end`."""
    return -((end - 1) // PLACE_BYTES) - 1, -(low // PLACE_BYTES) - 1


def _bytes(frame: Frame, low: int, size: int) -> str:
    return "".join(frame.place(-(at // PLACE_BYTES) - 1).bytes[at % PLACE_BYTES] for at in range(low, low + size))


def _scrubbed(bytes: str) -> str:
    """What is left of bytes beside a store: those of a spilled register are just written."""
    return bytes.replace(_SPILLED, "m")


def _fill(frame: Frame, low: int, size: int, kind: str) -> None:
    end = low + size
    while low < end:
        index, at = -(low // PLACE_BYTES) - 1, low % PLACE_BYTES
        count = min(PLACE_BYTES - at, end - low)
        old = _scrubbed(frame.place(index).bytes)
        frame.stack[index] = Place(old[:at] + kind * count + old[at + count :])
        low += count


def _store_somewhere(frame: Frame, low: int, end: int, zero: bool) -> None:
    """A store to one of several places: each byte is as before or new."""
    for at in range(low, end):
        index, byte = -(at // PLACE_BYTES) - 1, at % PLACE_BYTES
        place = frame.place(index)
        if zero and place.held is not None and place.held.constant and not place.held.number.value:
            continue
        old = place.bytes if place.held is None else _scrubbed(place.bytes)
        kind = "0" if zero and old[byte] == "0" else "m"
        frame.stack[index] = Place(old[:byte] + kind + old[byte + 1 :])

