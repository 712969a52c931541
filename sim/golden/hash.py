"""Which key has which place in a hash map (kernel/bpf/hashtab.c, preallocated).

A new value is written to a place of its own and then put under its key at once, so that nobody sees half of it; the
place that it replaces is used again last, so that a program that holds a pointer there keeps a value of this map. In a
per-CPU map a CPU's value is written where it is, for no other CPU sees it.
"""

from collections import deque
from collections.abc import Callable
from errno import E2BIG, EEXIST, EINVAL, ENOENT

from bpfnic.spec.maps import UpdateFlag


class Hash:
    """`entries` keys of `key_size` bytes at most, `places` for values. Errors are positive numbers, 0 for none."""

    def __init__(self, key_size: int, entries: int, places: int, clear: Callable[[int], None]):
        """`clear` makes the values of every CPU at a place zeros."""
        self.key_size = key_size
        self.clear = clear
        self.entries = entries
        self.places: dict[bytes, int] = {}
        self.free = deque(range(places))
        self.reserved: dict[int, int] = {}  # place by CPU
        self.since: dict[bytes, int] = {}  # for each key how many others came before it
        self.came = self.went = 0  # how many keys came, and how many places were given back

    def find(self, key: bytes) -> int | None:
        """The place of a key."""
        return self.places.get(key)

    def refuses(self, key: bytes, flags: int) -> int:
        """Why an update is an error: EINVAL, then EEXIST or ENOENT, then E2BIG."""
        if flags > UpdateFlag.EXIST:
            return EINVAL
        if key in self.places:
            return EEXIST if flags == UpdateFlag.NOEXIST else 0
        if flags == UpdateFlag.EXIST:
            return ENOENT
        return E2BIG if len(self.places) == self.entries else 0

    def reserve(self, key: bytes, cpu: int) -> int:
        """A place for a CPU's new value: the one that has been free for the longest time, or one that this CPU has from
        an update that came to nothing."""
        if cpu not in self.reserved:
            self.reserved[cpu] = self.free.popleft()
        return self.reserved[cpu]

    def insert(self, key: bytes, cpu: int, flags: int) -> int:
        """Put the place that a CPU has reserved under a key. Another CPU may have been faster: then it is refused."""
        if cpu not in self.reserved:
            return EINVAL
        if error := self.refuses(key, flags):
            return error
        self.put(key, self.reserved.pop(cpu))
        return 0

    def claim(self, key: bytes) -> int:
        """Where an update of a per-CPU map that isn't refused writes: the key's place. A new key has it at once, with
        zeros for the other CPUs (pcpu_init_value)."""
        place = self.places.get(key)
        if place is None:
            place = self.free.popleft()
            self.clear(place)
            self.put(key, place)
        return place

    def put(self, key: bytes, place: int) -> None:
        """The key has that place from now on; in a walk it stands where it stood."""
        if (old := self.places.get(key)) is not None:
            self.free.append(old)
            self.went += 1
        else:
            self.since[key] = self.came
            self.came += 1
        self.places[key] = place

    def pop(self, key: bytes, cpu: int) -> int | None:
        """Remove a key; a CPU keeps its place, to read the value and then for its next update."""
        if (place := self.find(key)) is None:
            return None
        self.delete(key)
        self.free.pop()
        if cpu in self.reserved:
            self.free.append(self.reserved[cpu])
        self.reserved[cpu] = place
        return place

    def delete(self, key: bytes) -> int:
        """Remove a key; its place is used again last."""
        place = self.places.pop(key, None)
        if place is None:
            return ENOENT
        self.free.append(place)
        del self.since[key]
        self.went += 1
        return 0

    def next(self, key: bytes | None) -> bytes | None:
        """The key behind `key`; the first one for None and for an unknown key; None behind the last."""
        keys = list(self.places)
        if key not in self.places:
            return keys[0] if keys else None
        behind = keys.index(key) + 1
        return keys[behind] if behind < len(keys) else None
