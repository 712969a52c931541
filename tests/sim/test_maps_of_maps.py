"""ARRAY_OF_MAPS and HASH_OF_MAPS: on the golden NIC and in the running kernel."""

import random
import struct
from dataclasses import replace
from errno import E2BIG, EEXIST, EINVAL, ENOENT, EOPNOTSUPP

import pytest

from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.mapsofmaps import MapOfMaps
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import INNER, MAP_BYTES, MapFlag, MapType
from tests.sim.mapcard import BACKENDS, outcome

everywhere = pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])
PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct inner {
	__uint(type, INNER);
	__uint(map_flags, INNER_FLAGS);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
};
struct {
	__uint(type, OUTER);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct inner);
} outer SEC(".maps");
struct request { __u8 ethernet[16]; __u32 outer, inner; __u64 value; __s64 code; };

SEC("xdp") int program(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	__u32 key = request->outer;
	void *inner = bpf_map_lookup_elem(&outer, &key);
	if (!inner)
		return XDP_DROP;
	key = request->inner;
	__u64 value = request->value, *old = bpf_map_lookup_elem(inner, &key);
	request->value = old ? *old : ~0ull;
	request->code = bpf_map_update_elem(inner, &key, &value, 0);
	return XDP_TX;
}
"""


class Card:
    """A device with a map of maps, and three maps to put into it."""

    def __init__(self, build, backend, outer, inner="HASH", flags="0", unsafe=False):
        self.obj = build(PROGRAM, define=[f"OUTER=BPF_MAP_TYPE_{outer}", f"INNER=BPF_MAP_TYPE_{inner}",
                                          f"INNER_FLAGS={flags}"])  # fmt: skip
        self.device = BACKENDS[backend](DeviceOptions(threads=1, ports=1))
        definition = self.obj.maps["outer"]
        self.outer = self.device.create_map(definition)
        assert isinstance(self.outer, MapOfMaps)
        self.inner = [self.device.create_map(replace(definition.inner, name=f"inner{n}")) for n in range(3)]
        self.device.attach(0, self.device.load(self.obj.program(), {"outer": self.outer}, unsafe=unsafe))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.device.close()

    def use(self, outer, inner, value):
        """What the program found and got for its update, None where there is no map."""
        frame = struct.pack("<16xIIQq", outer, inner, value, 0).ljust(64, b"\0")
        (packet,) = self.device.run([Arrival(0, frame)]).packets
        return None if packet.data is None else struct.unpack_from("<Qq", packet.data, 24)

    def put(self, key, number, flags=0):
        return outcome(lambda: self.outer.set_map(key.to_bytes(4, "little"), self.inner[number], flags))

    def delete(self, key):
        return outcome(lambda: self.outer.delete(key.to_bytes(4, "little")))

    def update(self, number, key, value):
        return outcome(lambda: self.inner[number].update(key.to_bytes(4, "little"), [value.to_bytes(8, "little")]))

    def contents(self):
        return [sorted(inner.dump().items()) for inner in self.inner]


@pytest.mark.linux
@pytest.mark.parametrize("inner", ["ARRAY", "HASH", "PERCPU_ARRAY", "PERCPU_HASH"])
@pytest.mark.parametrize("outer", ["ARRAY_OF_MAPS", "HASH_OF_MAPS"])
def test_random_operations(build, outer, inner):
    chance = random.Random(outer + inner)
    with Card(build, "golden", outer, inner) as ours, Card(build, "linux", outer, inner) as theirs:
        done = set()
        for number in range(300):
            name, arguments = chance.choice([
                ("put", (chance.randrange(5), chance.randrange(3), chance.choice((0, 0, 1, 2, 3)))),
                ("delete", (chance.randrange(5),)),
                ("update", (chance.randrange(3), chance.randrange(5), chance.getrandbits(64))),
                *[("use", (chance.randrange(4), chance.randrange(5), chance.getrandbits(64)))] * 2,
            ])  # fmt: skip
            got, wanted = (getattr(card, name)(*arguments) for card in (ours, theirs))
            assert got == wanted, f"operation {number}: {name}{arguments}"
            done.add((name, got if isinstance(got, int) else got is None))
        assert ours.contents() == theirs.contents()
        assert sorted(ours.outer.keys()) == sorted(theirs.outer.keys())
    assert {("use", True), ("use", False), ("put", 0), ("put", EINVAL), ("put", E2BIG), ("delete", ENOENT)} <= done


@everywhere
def test_errors_of_the_outer_map(build, backend):
    with Card(build, backend, "HASH_OF_MAPS") as card:
        assert [card.put(key, 0) for key in (10, 20, 30)] == [0, 0, 0]
        assert (card.put(40, 0), card.put(10, 1, 1), card.put(40, 1, 2)) == (E2BIG, EEXIST, ENOENT)
        assert outcome(lambda: card.outer.pop(bytes(4))) == EOPNOTSUPP
        assert (card.delete(10), card.delete(10), card.put(40, 2)) == (0, ENOENT, 0)
        assert card.outer.lookup((40).to_bytes(4, "little")) == [b"inner2"]
    with Card(build, backend, "ARRAY_OF_MAPS") as card:
        assert (card.put(3, 0), card.put(0, 0, 1), card.put(0, 0)) == (E2BIG, EINVAL, 0)
        assert (card.delete(3), card.delete(1), card.delete(0)) == (E2BIG, ENOENT, 0)


@everywhere
@pytest.mark.parametrize("kind", ["ARRAY", "HASH"])
@pytest.mark.parametrize(
    "change", [{"type": MapType.LRU_HASH}, {"key_size": 2}, {"value_size": 4}, {"max_entries": 5},
               {"flags": MapFlag.RDONLY_PROG}], ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_inner_maps_are_alike(build, backend, kind, change):
    """As programs were checked: entries matter in arrays alone, unless INNER_MAP says that they don't."""
    with Card(build, backend, "ARRAY_OF_MAPS", kind) as card:
        if kind == "ARRAY" and "key_size" in change:
            change = {"type": MapType.PERCPU_ARRAY}
        like = replace(card.obj.maps["outer"].inner, name="other", **change)
        card.inner.append(card.device.create_map(like))
        fine = kind == "HASH" and "max_entries" in change
        assert card.put(0, 3) == (0 if fine else EINVAL)
        if not fine:
            with pytest.raises(OSError, match=f"map outer takes no map other: {next(iter(change))} is .*, not "):
                card.outer.set_map(bytes(4), card.inner[3])
    with Card(build, backend, "ARRAY_OF_MAPS", "ARRAY", "BPF_F_INNER_MAP") as card:
        card.inner.append(card.device.create_map(replace(card.obj.maps["outer"].inner, max_entries=9)))
        assert card.put(0, 3) == 0 and card.use(0, 8, 5) == (0, 0) and card.use(0, 9, 5) == (2**64 - 1, -E2BIG)


@everywhere
def test_what_may_be_inside(build, backend):
    """The types that INNER has; the kernel takes them all."""
    with Card(build, backend, "ARRAY_OF_MAPS") as card:
        outer = card.obj.maps["outer"]
        for kind in sorted(INNER):
            sizes = {MapType.LPM_TRIE: (8, MapFlag.NO_PREALLOC), MapType.QUEUE: (0, MapFlag(0)),
                     MapType.STACK: (0, MapFlag(0))}.get(kind, (4, MapFlag(0)))  # fmt: skip
            inner = replace(outer.inner, type=kind, key_size=sizes[0], flags=sizes[1])
            other = card.device.create_map(replace(outer, name="other", inner=inner))
            other.set_map(bytes(4), card.device.create_map(inner))
            assert other.lookup(bytes(4)) == [b"outer.inner"]


@everywhere
def test_a_map_inside_stays(build, backend):
    with Card(build, backend, "ARRAY_OF_MAPS") as card:
        assert card.put(1, 0) == 0
        with pytest.raises(BpfnicError, match="map inner0 is in map outer, at 1"):
            card.device.destroy_map(card.inner[0])
        assert card.put(1, 1) == 0
        card.device.destroy_map(card.inner[0])
        assert card.use(1, 5, 6) == (2**64 - 1, 0)


def test_a_replaced_map_waits_for_the_packets_that_may_use_it(build):
    """It keeps its memory and its descriptor until the last packet has left that was there when it was destroyed."""
    with Card(build, "golden", "ARRAY_OF_MAPS") as card:
        nic = card.device._transport.nic
        assert card.put(0, 0) == 0
        old, definition = card.inner[0], card.obj.maps["outer"].inner
        card.device.run([])  # enables the ingresses
        assert nic.admit(0, bytes(64), False)  # a packet is on its way, and may have looked the map up
        assert card.put(0, 1) == 0
        card.device.destroy_map(old)
        other = card.device.create_map(definition)
        assert other.base != old.base and other.index != old.index
        assert nic.maps.descriptors[old.index].type == MapType.HASH
        nic.release(0, nic.without_program(0, 0), bytes(64))
        another = card.device.create_map(definition)
        assert (another.base, another.index) == (old.base, old.index)


def test_programs_only_look_up(build):
    """Updates and deletions are the host's: cause MAP (no verifier accepts such a program)."""
    text = PROGRAM.replace("void *inner = ", "bpf_map_delete_elem(&outer, &key); void *inner = ")
    with Card(lambda _, **options: build(text, **options), "golden", "HASH_OF_MAPS", unsafe=True) as card:
        (packet,) = card.device.run([Arrival(0, bytes(64))]).packets
        assert packet.cause.name == "MAP"


def test_refusals_name_the_map(build):
    with Card(build, "golden", "HASH_OF_MAPS") as card:
        outer = card.obj.maps["outer"]
        for change, why in (
            ({"inner": None}, "the object doesn't say what its inner maps are"),
            ({"inner": replace(outer.inner, type=MapType.PROG_ARRAY)}, "an inner map can't be of type PROG_ARRAY"),
            ({"inner": outer}, "an inner map can't be of type HASH_OF_MAPS"),
            ({"value_size": 8}, f"a map takes {MAP_BYTES} bytes, not 8"),
        ):
            with pytest.raises(BpfnicError, match=rf"map outer \(HASH_OF_MAPS\): {why}"):
                card.device.create_map(replace(outer, **change))
