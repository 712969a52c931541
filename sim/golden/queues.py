"""QUEUE and STACK (kernel/bpf/queue_stack_maps.c): values without keys.

Who copies a value has its place for himself: a push writes to a free place before the value is in the queue, and a
place that is read from is free again when the last reader is through, so that nobody sees half a value. What a CPU's
program left behind when it trapped in a copy is its place until its next call on this map.
"""

from collections import Counter, deque
from errno import E2BIG, EINVAL

from bpfnic.spec.maps import UpdateFlag


class Queue:
    """`entries` values at most, in `places`. `stack`: the newest value comes first, otherwise the oldest. Errors are
    positive numbers, 0 for none. The host is a CPU, too."""

    def __init__(self, entries: int, places: int, stack: bool):
        self.entries = entries
        self.stack = stack
        self.queued: deque[int] = deque()  # places, the oldest value's first
        self.free = deque(range(places))
        self.reserved: dict[int, int] = {}  # place by CPU, for a value that isn't in the queue yet
        self.read: dict[int, int] = {}  # place by CPU, of a value that it copies
        self.readers: Counter[int] = Counter()

    def refuses(self, flags: int) -> int:
        """Why a push is an error: EINVAL, then E2BIG; with EXIST a full map drops its oldest value."""
        if flags not in (UpdateFlag.ANY, UpdateFlag.EXIST):
            return EINVAL
        return E2BIG if len(self.queued) == self.entries and flags != UpdateFlag.EXIST else 0

    def reserve(self, cpu: int) -> int:
        """A place for a CPU's new value: the one that has been free for the longest time, or one that this CPU has from
        a push that came to nothing."""
        if cpu not in self.reserved:
            self.reserved[cpu] = self.free.popleft()
        return self.reserved[cpu]

    def insert(self, cpu: int, flags: int) -> int:
        """The value at the place that a CPU has reserved is the newest. Where another one was faster, it may be
        refused."""
        if cpu not in self.reserved:
            return EINVAL
        if error := self.refuses(flags):
            return error
        if len(self.queued) == self.entries:
            self._drop(self.queued.popleft())
        self.queued.append(self.reserved.pop(cpu))
        return 0

    def peek(self, cpu: int) -> int | None:
        """The place of the value that comes next, for a CPU to read until `release`. A place that it reserved is
        free."""
        if cpu in self.reserved:
            self.free.append(self.reserved.pop(cpu))
        if not self.queued:
            return None
        place = self.queued[-1 if self.stack else 0]
        self.readers[place] += 1
        self.read[cpu] = place
        return place

    def pop(self, cpu: int) -> int | None:
        """The same, and the value is out."""
        if (place := self.peek(cpu)) is not None:
            self.queued.remove(place)
        return place

    def release(self, cpu: int) -> bool:
        """What a CPU read, if it did, has been read."""
        if (place := self.read.pop(cpu, None)) is None:
            return False
        self.readers[place] -= 1
        if place not in self.queued:
            self._drop(place)
        return True

    def _drop(self, place: int) -> None:
        """A place that is out of the queue is free when nobody reads from it."""
        if not self.readers[place]:
            self.free.append(place)
