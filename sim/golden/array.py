"""Which key has which place in an array (kernel/bpf/arraymap.c): key n, as a little-endian u32, has place n."""

from errno import E2BIG, EEXIST, EINVAL

from bpfnic.spec.addresses import INDEX_BYTES
from bpfnic.spec.maps import UpdateFlag


class Array:
    """Every key below `entries` exists, always. Errors are positive error numbers, 0 for none."""

    key_size = INDEX_BYTES

    def __init__(self, entries: int):
        self.entries = entries

    def find(self, key: bytes) -> int | None:
        """The place of a key, None behind the array's end."""
        place = int.from_bytes(key, "little")
        return place if place < self.entries else None

    def refuses(self, key: bytes, flags: int) -> int:
        """Why an update is an error (array_map_update_elem): EINVAL, E2BIG, EEXIST, then EINVAL for LOCK, where
        values have no spin lock."""
        if flags & ~UpdateFlag.LOCK > UpdateFlag.EXIST:
            return EINVAL
        if self.find(key) is None:
            return E2BIG
        if flags & UpdateFlag.NOEXIST:
            return EEXIST
        return EINVAL if flags & UpdateFlag.LOCK else 0

    def claim(self, key: bytes) -> int:
        """Where an update that isn't refused writes: the value itself."""
        place = self.find(key)
        assert place is not None
        return place

    def reserve(self, key: bytes, cpu: int) -> int:
        """The same."""
        return self.claim(key)

    def insert(self, key: bytes, cpu: int, flags: int) -> int:
        """The end of an update."""
        return 0

    def delete(self, key: bytes) -> int:
        """An array keeps every entry."""
        return EINVAL
