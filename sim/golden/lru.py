"""Hash maps that evict (kernel/bpf/bpf_lru_list.c): a new key of a full map takes the place of the entry that was used
longest ago.

An entry is used when it is updated, by a program or by the host, and when a program looks it up; the host's look-ups
and walks don't count (htab_lru_map_lookup_elem_sys). Linux keeps the order about, with lists that CPUs fill in batches,
and may evict before the map is full; here it is exact, and nothing is evicted while there is room.
"""

from typing import Any

from bpfnic.sim.golden.hash import Hash
from bpfnic.spec.maps import UpdateFlag


class Lru(Hash):
    """As Hash, but no update is E2BIG."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.used: dict[bytes, None] = {}  # the keys, the one that was used longest ago first

    def use(self, key: bytes) -> None:
        """A program looks an entry up, or it is updated."""
        self.used.pop(key, None)
        self.used[key] = None

    def refuses(self, key: bytes, flags: int) -> int:
        """Why an update is an error: a full map is none."""
        new = key not in self.places and flags in (UpdateFlag.ANY, UpdateFlag.NOEXIST)
        return 0 if new else super().refuses(key, flags)

    def claim(self, key: bytes) -> int:
        """As in a Hash."""
        place = super().claim(key)
        self.use(key)
        return place

    def put(self, key: bytes, place: int) -> None:
        """As in a Hash, where room may have to be made first."""
        if key not in self.places and len(self.places) == self.entries:
            self.delete(next(iter(self.used)))
        super().put(key, place)
        self.use(key)

    def delete(self, key: bytes) -> int:
        """As in a Hash."""
        self.used.pop(key, None)
        return super().delete(key)
