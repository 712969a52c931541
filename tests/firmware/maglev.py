"""The rings of firmware/programs/balancer.bpf.c: Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4)."""

import hashlib
from collections.abc import Iterable


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def ring(servers: Iterable[int], size: int) -> list[int]:
    """The server at each of `size` places, a prime: each server in turn takes the next free one of its own permutation.
    So places are spread evenly, and few change with the servers."""
    permutations = {}
    for server in servers:
        offset, skip = _hash(f"offset {server}") % size, _hash(f"skip {server}") % (size - 1) + 1
        permutations[server] = iter([(offset + number * skip) % size for number in range(size)])
    places = [0] * size
    while permutations and not all(places):
        for server, permutation in permutations.items():
            free = next((place for place in permutation if not places[place]), None)
            if free is not None:
                places[free] = server
    return places
