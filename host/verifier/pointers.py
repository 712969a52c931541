"""Arithmetic on pointers (kernel: adjust_ptr_min_max_vals)."""

from typing import TYPE_CHECKING

from bpfnic.host.verifier import arithmetic, text
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.host.verifier.values import (
    END,
    FUNCTION,
    MAP,
    META,
    PACKET,
    STACK,
    UNKNOWN_NUMBER,
    Held,
)
from bpfnic.host.verifier.width import SMIN
from bpfnic.spec.isa import Operation

if TYPE_CHECKING:
    from bpfnic.host.verifier.walk import Walk

LARGEST = 1 << 29
"""No distance from a pointer's base is as large (BPF_MAX_VAR_OFF)."""

_BITWISE = {Operation.AND: "&=", Operation.OR: "|=", Operation.XOR: "^="}
_SIGNS = {Operation.MUL: "*=", Operation.DIV: "/=", Operation.SDIV: "s/=", Operation.LSH: "<<=", Operation.RSH: ">>=",
          Operation.MOD: "%=", Operation.SMOD: "s%=", Operation.ARSH: "s>>="}  # fmt: skip


def compute(walk: "Walk", operation: Operation, a: Held, b: Held, word: bool, dst: int, src: int | None) -> Held:
    """The result of `a operation b`, of which one or both are pointers; `src`: number of b's register."""
    if a.pointer and b.pointer:
        if operation is Operation.SUB:
            return arithmetic_word_unknown() if word else UNKNOWN_NUMBER
        sign = _sign(operation)
        raise Refusal(f"R{dst} pointer {sign} pointer prohibited", why="Two pointers can only be subtracted.",
                      register=dst)  # fmt: skip
    pointer, other, at = (a, b, dst) if a.pointer else (b, a, src if src is not None else dst)
    if word:
        if operation is Operation.SUB:
            return arithmetic_word_unknown()
        raise Refusal(f"R{dst} 32-bit pointer arithmetic prohibited", register=at,
                      why="Arithmetic in 32 bits loses the upper half of a pointer.", fix="use the 64-bit type")
    if src is not None:
        walk.need_exact(src if a.pointer else dst)
    if pointer.nullable:
        raise Refusal(f"R{dst} pointer arithmetic on {text.kind(pointer)} prohibited, null-check it first",
                      register=at, why="The pointer may be NULL here.", fix="compare it with NULL before this")
    zero = not other.number.mask and not other.number.value
    if pointer.kind in (END, FUNCTION) or (pointer.kind is MAP and not (zero and operation is Operation.ADD)):
        raise Refusal(f"R{dst} pointer arithmetic on {text.kind(pointer)} prohibited", register=at,
                      why="This kind of pointer can't be moved.")
    if operation is Operation.ADD:
        return _checked(walk, pointer, _moved(walk, pointer, other, 1), dst)
    if operation is Operation.SUB:
        if pointer is not a:
            raise Refusal(f"R{dst} tried to subtract pointer from scalar", register=dst)
        if pointer.kind is STACK:
            raise Refusal(f"R{dst} subtraction from stack pointer prohibited", register=dst,
                          fix="add a negative constant instead")
        return _checked(walk, pointer, _moved(walk, pointer, other, -1), dst)
    if operation in _BITWISE:
        raise Refusal(f"R{dst} bitwise operator {_sign(operation)} on pointer prohibited", register=at)
    raise Refusal(f"R{dst} pointer arithmetic with {_sign(operation)} operator prohibited", register=at)


def arithmetic_word_unknown() -> Held:
    """Any 32-bit number."""
    return _WORD


_WORD = Held(UNKNOWN_NUMBER.kind, arithmetic.WORD_UNKNOWN)


def _sign(operation: Operation) -> str:
    return {Operation.ADD: "+=", Operation.SUB: "-=", **_BITWISE, **_SIGNS}[operation]


def _moved(walk: "Walk", pointer: Held, other: Held, direction: int) -> Held:
    by = other.number
    if by.smin > by.smax or by.umin > by.umax:
        return UNKNOWN_NUMBER
    distance = pointer.off + direction * by.smin
    if not by.mask and -(1 << 31) <= distance < 1 << 31:
        return pointer.moved(pointer.number, distance)
    operation = Operation.ADD if direction > 0 else Operation.SUB
    moved = pointer.moved(arithmetic.compute(operation, pointer.number, by, False), pointer.off)
    if pointer.kind in (PACKET, META):
        # Another base, of which nothing has been compared with the packet's end. (Kernel: what is subtracted and isn't
        # negative leaves the range.)
        keeps = direction < 0 and by.smin >= 0
        return moved.but(id=walk.new_id(), range=moved.range if keeps else 0)
    return moved


def _checked(walk: "Walk", before: Held, after: Held, dst: int) -> Held:
    """Raises Refusal where a pointer is so far from its base that its arithmetic might wrap (check_reg_sane_offset)."""
    if not after.pointer:
        return after
    number, name = after.number, text.kind(before)
    fix = "compare the number with its largest useful value first"
    if not number.mask and not -LARGEST < number.smin < LARGEST:
        raise Refusal(f"math between {name} pointer and {number.smin} is not allowed", register=dst)
    if not -LARGEST < after.off < LARGEST:
        raise Refusal(f"{name} pointer offset {after.off} is not allowed", register=dst)
    if number.smin == SMIN:
        raise Refusal(f"math between {name} pointer and register with unbounded min value is not allowed", register=dst,
                      why="The number that is added has no lower bound: the pointer could go anywhere.", fix=fix)
    if not -LARGEST < number.smin < LARGEST:
        raise Refusal(f"value {number.smin} makes {name} pointer be out of bounds", register=dst, fix=fix)
    return after
