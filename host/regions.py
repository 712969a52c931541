"""Who has which part of a memory (program slots, map memory, map descriptors), and when a part may be used again."""

from bisect import insort
from collections.abc import Callable, Sequence

_HALF = 1 << 31


class Regions:
    """First fit, lowest address first: two devices that are asked for the same things give the same addresses."""

    def __init__(self, size: int):
        self.size = size
        self._used: list[tuple[int, int]] = []  # (start, end), ascending

    def allocate(self, size: int, align: int = 1) -> int | None:
        """Start of a free region of `size` at a multiple of `align`, now taken; None if there is none."""
        start = 0
        for used_start, used_end in self._used:
            if start + size <= used_start:
                break
            start = -(-used_end // align) * align
        if start + size > self.size:
            return None
        insort(self._used, (start, start + size))
        return start

    def free(self, start: int) -> None:
        """Give back the region that starts at `start`."""
        self._used = [region for region in self._used if region[0] != start]

    @property
    def available(self) -> int:
        """How much is free in all, not necessarily in one piece."""
        return self.size - sum(end - start for start, end in self._used)


class Grace:
    """Things to be done once every packet that was under way when they were asked for has left.

    `fence` and `oldest` are sequence numbers, one an ingress, 32 bits that wrap."""

    def __init__(self) -> None:
        self._waiting: list[tuple[tuple[int, ...], Callable[[], None]]] = []

    def defer(self, fence: Sequence[int], action: Callable[[], None]) -> None:
        """Have `action` called once no packet below `fence` is in flight."""
        self._waiting.append((tuple(fence), action))

    def run(self, oldest: Sequence[int]) -> None:
        """Call, in the order in which they were asked for, the actions whose packets have left."""
        still = []
        for fence, action in self._waiting:
            if all((low - bound) % (1 << 32) < _HALF for low, bound in zip(oldest, fence, strict=True)):
                action()
            else:
                still.append((fence, action))
        self._waiting = still

    def __bool__(self) -> bool:
        return bool(self._waiting)
