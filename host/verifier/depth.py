"""The stack that every chain of calls needs together (kernel: check_max_stack_depth)."""

from typing import TYPE_CHECKING

from bpfnic.host.verifier.refusal import Refusal
from bpfnic.spec.addresses import FRAME_ALIGN, FRAMES, STACK_BYTES

if TYPE_CHECKING:
    from bpfnic.host.verifier.walk import Walk

TAIL_CALLER_BYTES = 256
"""Callers of a function that makes tail calls use less than this."""


def check(walk: "Walk") -> None:
    """Raises Refusal for a chain of calls that the stack has no room for. The walk's `depths` are those of all its
    paths."""
    _Chains(walk).check(0, 0, 1)


class _Chains:
    def __init__(self, walk: "Walk"):
        self._graph, self._depths = walk.graph, walk.depths
        self._checked: dict[tuple[int, int], int] = {}

    def check(self, entry: int, above: int, frames: int) -> None:
        """A function, `frames` of which with it are under way, `above` bytes of stack being its callers'."""
        if self._checked.get((entry, frames), -1) >= above:
            return
        self._checked[entry, frames] = above
        if entry in self._graph.tail_calls and entry and above >= TAIL_CALLER_BYTES:
            raise Refusal(f"tail_calls are not allowed when call stack of previous frames is {above} bytes. Too large",
                          entry)  # fmt: skip
        together = above + -(-self._depths.get(entry, 0) // FRAME_ALIGN) * FRAME_ALIGN
        if together > STACK_BYTES:
            raise Refusal(f"combined stack size of {frames} calls is {together}. Too large", entry,
                          f"The functions that are under way together use {together} bytes of stack; there are "
                          f"{STACK_BYTES}.", "keep large variables in a map")  # fmt: skip
        for callee in self._graph.calls[entry]:
            if frames == FRAMES:
                raise Refusal(f"the call stack of {FRAMES} frames is too deep !", callee,
                              f"At most {FRAMES} functions may be under way at once.")  # fmt: skip
            self.check(callee, together, frames + 1)
