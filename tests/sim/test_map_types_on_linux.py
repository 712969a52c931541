"""Random operations on each map type, by a program and by the host: golden does what the running kernel does."""

import os
import random
from errno import EEXIST, EINVAL, ENOSPC

import pytest

from bpfnic.host.linux import bpf
from bpfnic.spec.maps import FLAGS, OF_MAPS, MapFlag, MapType, flags_refused
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
SIZES = {
    MapType.LPM_TRIE: (8, 4, 8, MapFlag.NO_PREALLOC),
    MapType.QUEUE: (0, 4, 8, MapFlag(0)),
    MapType.STACK: (0, 4, 8, MapFlag(0)),
    MapType.RINGBUF: (0, 0, 4096, MapFlag(0)),
}
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
    with ours, theirs:
        done = the_same_happens(ours, theirs, chance, lambda: chance.choice(keys))
    assert len(done) >= 14 - (kind == "HASH" and entries(6) == 6) * 2 - kind.startswith("LRU") * 2, done


@pytest.mark.parametrize("address_bytes", [1, 4, 16, 60])
def test_longest_prefix_match(build, address_bytes):
    """Prefixes of all lengths, among them too long ones, of addresses that have beginnings in common."""
    chance = random.Random(address_bytes)

    def key():
        bits = 8 * address_bytes
        length = chance.choice((0, 1, chance.randint(0, bits), bits, bits, bits + 1, chance.getrandbits(32)))
        address = chance.choice((0, (1 << bits) - 1)) ^ (chance.choice((0, 1, 3)) << chance.randrange(bits))
        return length.to_bytes(4, "little") + (address & (1 << bits) - 1).to_bytes(address_bytes, "big")

    ours, theirs = both(build, "LPM_TRIE", key=4 + address_bytes, value=8, entries=12, flags="BPF_F_NO_PREALLOC")
    with ours, theirs:
        done = the_same_happens(ours, theirs, chance, key, steps=600)
    assert {("update", ENOSPC), ("host_update", ENOSPC), ("update", EEXIST), ("delete", EINVAL)} <= done


@pytest.mark.parametrize("value_bytes", [1, 4, 20])
@pytest.mark.parametrize("kind", ["QUEUE", "STACK"])
def test_values_without_keys(build, kind, value_bytes):
    chance = random.Random(f"{kind} {value_bytes}")
    ours, theirs = both(build, kind, key=0, value=value_bytes, entries=4)
    done = set()
    with ours, theirs:
        for number in range(400):
            value, flags = chance.randbytes(value_bytes), chance.choice((0, 0, 0, 1, 2, 3, 4))
            name, arguments = chance.choice([
                *[("push", (value, flags)), ("host_update", (b"", value, flags))] * 2,
                *[("pop", ()), ("peek", ()), ("host_pop", ()), ("host_lookup", (b"",))],
            ])  # fmt: skip
            got, wanted = (getattr(card, name)(*arguments) for card in (ours, theirs))
            assert got == wanted, f"operation {number}: {name}{arguments}"
            done.add((name, got[0] if isinstance(got, tuple) else got if isinstance(got, int) else got is None))
        assert ours.host_delete(b"") == theirs.host_delete(b"") == EINVAL
        for card in (ours, theirs):
            with pytest.raises(OSError, match="Invalid argument"):
                card.table.next_key(None)
    assert len(done) == 2 * 3 + 4 * 2, done


def the_same_happens(ours, theirs, chance, choose, steps=300):
    """Random operations give the same on both cards; which operations gave which results."""
    done = set()
    value_bytes = ours.value_bytes
    has_pop = ours.definition.type is not MapType.LPM_TRIE
    for number in range(steps):
        key, value, flags = choose(), chance.randbytes(value_bytes), chance.choice((0, 0, 1, 2, 3))
        name, arguments = chance.choice([
            *[("update", (key, value, flags))] * 3,
            *[("host_update", (key, value, flags))] * 3,
            ("delete", (key,)),
            ("host_delete", (key,)),
            ("lookup", (key, True)),
            ("host_lookup", (key,)),
            ("host_pop" if has_pop else "host_lookup", (key,)),
        ])  # fmt: skip
        got, wanted = (getattr(card, name)(*arguments) for card in (ours, theirs))
        assert got == wanted, f"operation {number}: {name}{arguments}"
        done.add((name, got if isinstance(got, int) else got is None))
        if number % 50 == 49:
            assert contents(ours) == contents(theirs)
    return done


@pytest.mark.parametrize("kind", FLAGS, ids=lambda kind: kind.name)
def test_flags_of_each_type(kind):
    """Each flag, and each pair of the access flags, is refused where the kernel refuses it."""
    access = [MapFlag.RDONLY, MapFlag.WRONLY, MapFlag.RDONLY_PROG, MapFlag.WRONLY_PROG]
    key, value, entries, needed = SIZES.get(kind, (4, 4, 8, 0))
    inner = bpf.map_create(MapType.HASH, 4, 4, 1) if kind in OF_MAPS else 0
    for flags in [*MapFlag, *(one | other for one in access for other in access if one < other)]:
        flags |= needed
        try:
            os.close(bpf.map_create(kind, key, value, entries, flags=flags, inner_map_fd=inner))
            refused = False
        except OSError as error:
            refused = error.errno in (EINVAL, ENOTSUPP)
        assert refused is bool(flags_refused(kind, flags)), (kind, flags)
    if inner:
        os.close(inner)
