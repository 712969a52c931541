"""Longest prefix match (kernel/bpf/lpm_trie.c). A key is the prefix's length in bits, a little-endian u32, and then
the address, the first bit highest in the first byte; bits behind the prefix don't count.

An entry is where a HASH has it; how prefixes are found is the device's own business, here by trying each length.
"""

from errno import E2BIG, EINVAL, ENOSPC
from typing import Any

from bpfnic.sim.golden.hash import Hash
from bpfnic.spec.maps import LPM_LENGTH_BYTES


class Lpm(Hash):
    """As Hash, by prefixes: `places` has them with zeros behind the prefix, `written` as the last update wrote them."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.written: dict[bytes, bytes] = {}

    def find(self, key: bytes) -> int | None:
        """The place of the longest prefix of the key, None where there is none or the key is longer than an address."""
        if (wanted := self._prefix(key)) is None:
            return None
        for length in range(_length(wanted), -1, -1):
            if (place := self.places.get(_cut(wanted, length))) is not None:
                return place
        return None

    def refuses(self, key: bytes, flags: int) -> int:
        """Why an update is an error: EINVAL for flags or a prefix longer than an address, EEXIST, ENOENT, ENOSPC."""
        prefix = self._prefix(key)
        error = EINVAL if prefix is None else super().refuses(prefix, flags)
        return ENOSPC if error == E2BIG else error

    def put(self, key: bytes, place: int) -> None:
        """As in a Hash."""
        prefix = self._prefix(key)
        assert prefix is not None
        super().put(prefix, place)
        self.written[prefix] = key

    def delete(self, key: bytes) -> int:
        """Remove just this prefix: EINVAL where it is longer than an address, ENOENT."""
        prefix = self._prefix(key)
        if prefix is None:
            return EINVAL
        self.written.pop(prefix, None)
        return super().delete(prefix)

    def next(self, key: bytes | None) -> bytes | None:
        """As in a Hash; keys as they were written."""
        behind = super().next(None if key is None else self._prefix(key))
        return None if behind is None else self.written[behind]

    def _prefix(self, key: bytes) -> bytes | None:
        """The key with zeros behind the prefix, None where that is longer than an address."""
        length = _length(key)
        return _cut(key, length) if length <= 8 * (self.key_size - LPM_LENGTH_BYTES) else None


def _length(key: bytes) -> int:
    return int.from_bytes(key[:LPM_LENGTH_BYTES], "little")


def _cut(key: bytes, length: int) -> bytes:
    """The first `length` bits of a key's address, as a key."""
    address = key[LPM_LENGTH_BYTES:]
    behind = 8 * len(address) - length
    bits = int.from_bytes(address, "big") >> behind << behind
    return length.to_bytes(LPM_LENGTH_BYTES, "little") + bits.to_bytes(len(address), "big")
