"""How the table of a map that is no array lies in map memory: which key has which place, or which values wait.

A place is a number from 0 to `places` - 1; place p has its value at  base + stride * p  (and CPU n's of a per-CPU map
cpu_stride * n behind). A link word is 32 bits: a tag in bits 31..24, place + 1 below, 0 for none.

    table + 0            FRESH, OLDEST, NEWEST, COUNT (State)
    table + 16           reservations: for each CPU, and last for the host, a place + 1, or 0; in a queue
                         -(place + 1) of a value that is being read
    table + header_bytes buckets: rows of four link words
    links                4 bytes a place: a link word, or of a queue's value how many read it, and QUEUED if it waits
    keys                 each place's key, zeros behind its end, at a stride of key_stride(key bytes)
    order                LRU maps and queues: the place used longest ago and the last one used; then 8 bytes a place,
                         the ones used right after it and right before it (each place + 1, or 0)
                         LPM_TRIE: LENGTH_BITS bits, which lengths have keys; then how many, 4 bytes for each length

All are byte offsets in map memory and multiples of 16. A free place has no key and nobody reads it: first those that
never had one, from FRESH on, then those in the list from OLDEST to NEWEST by their links.

A key's hash chooses its bucket; the tag of its link word is the hash's highest byte. It is in any of the bucket's four
words. A key that finds them all taken becomes the fourth word, and the word before is its link, so that a chain goes on
behind the fourth word. A key that goes leaves its word empty; one in the chain, or the fourth, leaves there its link.
"""

from enum import IntEnum

from bpfnic.spec.addresses import ROW_BYTES
from bpfnic.spec.maps import LPM_LENGTH_BYTES, LRU, QUEUES, MapType

HASHED = frozenset(
    {MapType.HASH, MapType.PERCPU_HASH, MapType.LPM_TRIE, MapType.HASH_OF_MAPS, MapType.DEVMAP_HASH} | LRU
)
"""Types whose keys are found by their hash."""

TYPES = HASHED | QUEUES
"""Types that have such a table."""

ORDERED = LRU | QUEUES
"""Types that keep their places in the order of use."""

LINK_BYTES = 4
ORDER_BYTES = 8
BUCKET_WORDS = ROW_BYTES // LINK_BYTES
PLACE_BITS = 24
TAG_BITS = 8
LENGTH_BITS = 512
"""Lengths of an LPM_TRIE's prefixes, and those that no key can have."""


class State(IntEnum):
    """Where in the header each number lies."""

    FRESH = 0  # the next place that never had a key
    OLDEST = 4  # of the other free places, the one that has been free for the longest time: place + 1; 0: there is none
    NEWEST = 8
    COUNT = 12  # keys; values that wait


STATE_BYTES = 16
QUEUED = 256
"""In the link of a queue's place: its value waits."""


def header_bytes(cpus: int) -> int:
    """Bytes of state and reservations, a multiple of 16."""
    return STATE_BYTES + _rows(LINK_BYTES * (cpus + 1))


def key_stride(key_bytes: int) -> int:
    """Bytes from one place's key to the next: 4, 8, 16, 32 or 64."""
    return max(LINK_BYTES, 1 << (key_bytes - 1).bit_length())


def places(entries: int, cpus: int) -> int:
    """Places of a map: one more for each CPU that replaces a value in a full map, and one for the host."""
    return entries + cpus + 1


def buckets(entries: int) -> int:
    """Buckets of a map: a power of two, one for one or two entries."""
    return 1 << max(0, (entries - 1).bit_length() - 1)


def links_offset(map_type: MapType, entries: int, cpus: int) -> int:
    """Where the links begin, from the table's first byte on."""
    return header_bytes(cpus) + (ROW_BYTES * buckets(entries) if map_type in HASHED else 0)


def keys_offset(map_type: MapType, entries: int, cpus: int) -> int:
    """Where the keys begin."""
    return links_offset(map_type, entries, cpus) + _rows(LINK_BYTES * places(entries, cpus))


def order_offset(map_type: MapType, key_bytes: int, entries: int, cpus: int) -> int:
    """Where the order begins."""
    keys = key_stride(key_bytes) * places(entries, cpus) if map_type in HASHED else 0
    return keys_offset(map_type, entries, cpus) + _rows(keys)


def table_bytes(map_type: MapType, key_bytes: int, entries: int, cpus: int) -> int:
    """Bytes of a whole table, a multiple of 16."""
    order = 0
    if map_type in ORDERED:
        order = ORDER_BYTES * (1 + places(entries, cpus))
    elif map_type is MapType.LPM_TRIE:
        order = lengths_bytes(key_bytes)
    return order_offset(map_type, key_bytes, entries, cpus) + _rows(order)


def lengths_bytes(key_bytes: int) -> int:
    """Bytes of an LPM_TRIE's order."""
    return LENGTH_BITS // 8 + LINK_BYTES * (8 * (key_bytes - LPM_LENGTH_BYTES) + 1)


def _rows(size: int) -> int:
    return -(-size // ROW_BYTES) * ROW_BYTES
