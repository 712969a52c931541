"""Which key has which place in an array (kernel/bpf/arraymap.c): key n, as a little-endian u32, has place n."""

from errno import E2BIG, EEXIST, EINVAL

from bpfnic.spec.maps import UpdateFlag


class Array:
    """Every key below `entries` exists, always. Errors are positive error numbers, 0 for none."""

    key_size = 4

    def __init__(self, entries: int):
        self.entries = entries

    def find(self, key: bytes) -> int | None:
        """The place of a key, None behind the array's end."""
        place = int.from_bytes(key, "little")
        return place if place < self.entries else None

    def refuses(self, key: bytes, flags: int) -> int:
        """Why an update is an error: EINVAL, E2BIG, EEXIST, in this order."""
        if flags > UpdateFlag.EXIST:
            return EINVAL
        if self.find(key) is None:
            return E2BIG
        return EEXIST if flags == UpdateFlag.NOEXIST else 0

    def reserve(self, key: bytes) -> int:
        """Where an update that isn't refused writes: the value itself."""
        place = self.find(key)
        assert place is not None
        return place

    def insert(self, key: bytes, place: int, flags: int) -> int:
        """The end of an update."""
        return 0

    def delete(self, key: bytes) -> int:
        """An array keeps every entry."""
        return EINVAL
