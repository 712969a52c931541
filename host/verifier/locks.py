"""Spin locks of map values (kernel: process_spin_lock)."""

from typing import TYPE_CHECKING

from bpfnic.host.valuetypes import lock_offset
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.host.verifier.values import Held
from bpfnic.spec.maps import LOCK_BYTES

if TYPE_CHECKING:
    from bpfnic.host.maps import MapDefinition
    from bpfnic.host.verifier.walk import Walk


class Locks:
    """Where maps have locks, and whether a program keeps to their rules."""

    def __init__(self, walk: "Walk"):
        self._walk = walk
        self._offsets: dict[int, int | None] = {}

    def offset(self, definition: "MapDefinition") -> int | None:
        """The byte at which a map's values have their lock; None where they have none."""
        key = id(definition)
        if key not in self._offsets:
            self._offsets[key] = lock_offset(definition)
        return self._offsets[key]

    def untouched(self, pointer: Held, offset: int, size: int) -> None:
        """Raises Refusal for an access that may reach a lock."""
        assert pointer.map
        lock = self.offset(pointer.map)
        if lock is None:
            return
        low, high = pointer.off + offset + pointer.number.smin, pointer.off + offset + pointer.number.umax
        if low < lock + LOCK_BYTES and lock < high + size:
            raise Refusal("bpf_spin_lock cannot be accessed directly by load/store",
                          why="A lock is only for bpf_spin_lock and bpf_spin_unlock.")  # fmt: skip

    def _check(self, value: Held, verb: str) -> tuple[int, int]:
        assert value.map
        lock = self.offset(value.map)
        if lock is None:
            raise Refusal(f"map '{value.map.name}' has no valid bpf_spin_lock", register=1)
        if value.number.mask:
            raise Refusal("R1 doesn't have constant offset. bpf_spin_lock has to be at the constant offset", register=1)
        if value.off + value.number.value != lock:
            raise Refusal(f"off {value.off} doesn't point to 'struct bpf_spin_lock' that is at {lock}", register=1)
        return id(value.map), value.id

    def take(self, value: Held) -> None:
        found = self._check(value, "lock")
        if self._walk.state.lock is not None:
            raise Refusal("Locking two bpf_spin_locks are not allowed")
        self._walk.state.lock = found

    def release(self, value: Held) -> None:
        found = self._check(value, "unlock")
        if self._walk.state.lock is None:
            raise Refusal("bpf_spin_unlock without taking a lock")
        if self._walk.state.lock != found:
            raise Refusal("bpf_spin_unlock of different lock")
        self._walk.state.lock = None
