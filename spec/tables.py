"""How the table of a keyed map lies in map memory: which key has which place for its value.

    table + 0                    state: six 32-bit numbers (State)
    table + STATE_BYTES          for each CPU, and last for the host, the node that it has reserved, or 0
    table + header_bytes(cpus)   buckets: for each a link to the first node of its chain
    behind the buckets           nodes: a link to the next one, the byte offset of its value, the key, zeros

A link is the byte offset of a node in map memory, 0 for none. A node keeps its value's place for ever. Nodes that no
key has are free: first those that never had one, in the order of their addresses, then those in a chain, the one that
has been free for the longest time first.
"""

from enum import IntEnum

from bpfnic.spec.maps import MapType

TYPES = frozenset({MapType.HASH})
"""Maps that have such a table."""

LINK_BYTES = 4


class State(IntEnum):
    """Where in the state each number lies."""

    FRESH_NODE = 0  # the next node that never had a key, and its value
    FRESH_VALUE = 4
    OLDEST = 8  # of the chain of free nodes; 0: it is empty
    NEWEST = 12
    COUNT = 16  # keys
    FRESH = 20  # nodes that never had a key


STATE_BYTES = 24


def header_bytes(cpus: int) -> int:
    """Bytes of state and reservations, a multiple of 16."""
    return -(-(STATE_BYTES + LINK_BYTES * (cpus + 1)) // 16) * 16


def node_bytes(key_bytes: int) -> int:
    """Bytes of a node: two links and the key, padded to 8 bytes."""
    return 8 + -(-key_bytes // 8) * 8


def places(entries: int, cpus: int) -> int:
    """Nodes of a map: one more for each CPU that replaces a value in a full map, and one for the host."""
    return entries + cpus + 1


def buckets(entries: int) -> int:
    """Buckets of a map: about one for each entry, a power of two, four at least."""
    return max(4, 1 << (entries - 1).bit_length())


def table_bytes(key_bytes: int, entries: int, cpus: int) -> int:
    """Bytes of a whole table, a multiple of 16."""
    size = header_bytes(cpus) + LINK_BYTES * buckets(entries) + places(entries, cpus) * node_bytes(key_bytes)
    return -(-size // 16) * 16
