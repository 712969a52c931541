"""Random operations on each map type, by a program and by the host: golden does what the running kernel does."""

import os
import random
from errno import EINVAL

import pytest

from bpfnic.host.linux import bpf
from bpfnic.spec.maps import FLAGS, MapFlag, MapType, flags_refused
from tests.sim.mapcard import MapCard

pytestmark = pytest.mark.linux

ENOTSUPP = 524  # linux/errno.h, for NO_PREALLOC with LRU_HASH

SHAPES = [  # key bytes, value bytes
    (4, 8),
    (1, 1),
    (13, 20),
    (64, 3),
]
HASHES = [  # type, entries for the number of different keys that are used
    ("HASH", lambda keys: keys - 2),
    ("HASH", lambda keys: keys),
    ("PERCPU_HASH", lambda keys: keys - 2),
    # A map that evicts is never full here: which entry goes is the device's business (test_map_types.py).
    ("LRU_HASH", lambda keys: 8 * keys),
    ("LRU_PERCPU_HASH", lambda keys: 8 * keys),
]
SIZES: dict[MapType, tuple[int, int, int, MapFlag]] = {}
"""Key and value bytes, entries and flags of types that ask for special ones."""


def both(build, kind, **shape):
    return MapCard(build, "golden", kind, **shape), MapCard(build, "linux", kind, **shape)


def contents(card):
    return {key: card.host_lookup(key) for key in card.table.keys()}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("kind", "entries"), HASHES, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(HASHES)])
def test_maps_with_keys(build, kind, entries, shape):
    chance = random.Random(f"{kind} {shape}")
    key_bytes, value_bytes = shape
    keys = [chance.randbytes(key_bytes) for _ in range(6)]
    ours, theirs = both(build, kind, key=key_bytes, value=value_bytes, entries=entries(len(set(keys))))
    done = set()
    with ours, theirs:
        for number in range(300):
            key, value, flags = chance.choice(keys), chance.randbytes(value_bytes), chance.choice((0, 0, 1, 2, 3))
            name, arguments = chance.choice([
                *[("update", (key, value, flags))] * 3,
                *[("host_update", (key, value, flags))] * 3,
                ("delete", (key,)),
                ("host_delete", (key,)),
                ("lookup", (key, True)),
                ("host_lookup", (key,)),
            ])  # fmt: skip
            got, wanted = (getattr(card, name)(*arguments) for card in (ours, theirs))
            assert got == wanted, f"operation {number}: {name}{arguments}"
            done.add((name, got if isinstance(got, int) else got is None))
            if number % 50 == 0:
                assert contents(ours) == contents(theirs)
        assert contents(ours) == contents(theirs)
    assert len(done) >= 14 - (kind == "HASH" and entries(6) == 6) * 2 - kind.startswith("LRU") * 2, done


@pytest.mark.parametrize("kind", FLAGS, ids=lambda kind: kind.name)
def test_flags_of_each_type(kind):
    """Each flag, and each pair of the access flags, is refused where the kernel refuses it."""
    access = [MapFlag.RDONLY, MapFlag.WRONLY, MapFlag.RDONLY_PROG, MapFlag.WRONLY_PROG]
    key, value, entries, needed = SIZES.get(kind, (4, 4, 8, 0))
    for flags in [*MapFlag, *(one | other for one in access for other in access if one < other)]:
        flags |= needed
        try:
            os.close(bpf.map_create(kind, key, value, entries, flags=flags))
            refused = False
        except OSError as error:
            refused = error.errno in (EINVAL, ENOTSUPP)
        assert refused is bool(flags_refused(kind, flags)), (kind, flags)
