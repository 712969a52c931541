"""QUEUE and STACK (kernel/bpf/queue_stack_maps.c): values without keys.

Who copies a value has its place for himself: a push writes to a free place before the value is in the queue, and a
place that is read from is free again when the last reader is through, so that nobody sees half a value.
"""

from collections import Counter, deque
from errno import E2BIG, EINVAL

from bpfnic.spec.maps import UpdateFlag


class Queue:
    """`entries` values at most, in `places`. `stack`: the newest value comes first, otherwise the oldest. Errors are
    positive numbers, 0 for none."""

    def __init__(self, entries: int, places: int, stack: bool):
        self.entries = entries
        self.stack = stack
        self.queued: deque[int] = deque()  # places, the oldest value's first
        self.free = deque(range(places))
        self.readers: Counter[int] = Counter()

    def refuses(self, flags: int) -> int:
        """Why a push is an error: EINVAL, then E2BIG; with EXIST a full map drops its oldest value."""
        if flags not in (UpdateFlag.ANY, UpdateFlag.EXIST):
            return EINVAL
        return E2BIG if len(self.queued) == self.entries and flags != UpdateFlag.EXIST else 0

    def reserve(self) -> int:
        """A free place, the one that has been free for the longest time."""
        return self.free.popleft()

    def insert(self, place: int, flags: int) -> int:
        """The value at a reserved place is the newest. Where another thread was faster, it may be refused, and the
        place is free again."""
        if error := self.refuses(flags):
            self.free.append(place)
            return error
        if len(self.queued) == self.entries:
            self._drop(self.queued.popleft())
        self.queued.append(place)
        return 0

    def peek(self) -> int | None:
        """The place of the value that comes next, to be read until `release`."""
        if not self.queued:
            return None
        place = self.queued[-1 if self.stack else 0]
        self.readers[place] += 1
        return place

    def pop(self) -> int | None:
        """The same, and the value is out."""
        if (place := self.peek()) is not None:
            self.queued.remove(place)
        return place

    def release(self, place: int) -> None:
        """A value has been read."""
        self.readers[place] -= 1
        if place not in self.queued:
            self._drop(place)

    def _drop(self, place: int) -> None:
        """A place that is out of the queue is free when nobody reads from it."""
        if not self.readers[place]:
            self.free.append(place)
