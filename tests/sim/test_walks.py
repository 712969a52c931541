"""Walks through hash maps (bpf_for_each_map_elem) while other threads change them: rtl and golden in lockstep. What the
kernel says of a walk alone is tests/sim/test_library.py's business."""

import random

import pytest

import bpfnic
from bpfnic.host import lockstep
from bpfnic.host.device import Arrival, DeviceOptions, Pacing
from bpfnic.sim.golden.maps import Descriptor, Maps
from bpfnic.spec import addresses
from bpfnic.spec.maps import MapType
from tests.sim.bench import ONE_CORE

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define MAP(NAME, TYPE, KEY, ENTRIES) \\
	struct { __uint(type, BPF_MAP_TYPE_##TYPE); __uint(max_entries, ENTRIES); __uint(key_size, KEY); \\
	__type(value, __u64); } NAME SEC(".maps")
MAP(hash, HASH, 12, 9);
MAP(percpu_hash, PERCPU_HASH, 4, 30);
MAP(lru_hash, LRU_HASH, 8, 6);
MAP(lru_percpu_hash, LRU_PERCPU_HASH, 20, 5);

struct request { __u32 what, map, key[5]; };
struct seen { struct request *request; __u64 count, last; };

static long visit(void *map, __u32 *key, __u64 *value, void *context)
{
	struct seen *seen = context;
	__u64 next = *value + 1;

	seen->count++;
	seen->last = seen->last * 31 + *key;
	if (seen->request->what == 3)
		return seen->count == 3;
	if (seen->request->what == 4 || (*key & 1 && seen->request->what == 5))
		bpf_map_delete_elem(map, key);
	if (seen->request->what == 6 || (*key & 1 && seen->request->what == 7))
		bpf_map_update_elem(map, key, &next, 0);
	if (seen->request->what == 8)
		bpf_map_delete_elem(map, seen->request->key);
	return 0;
}

static __always_inline int serve(void *map, struct request *request)
{
	struct seen seen = { .request = request };
	__u64 value = request->key[0];

	if (request->what < 2)
		return bpf_map_update_elem(map, request->key, &value, 0);
	if (request->what == 2)
		return bpf_map_delete_elem(map, request->key);
	bpf_for_each_map_elem(map, visit, &seen, 0);
	return seen.last + seen.count;
}

SEC("xdp") int walks(struct xdp_md *ctx)
{
	struct request *packet = (void *)(long)ctx->data, request;

	if ((void *)(packet + 1) > (void *)(long)ctx->data_end)
		return 99;
	request = *packet;
	if (request.map == 0)
		return serve(&hash, &request);
	if (request.map == 1)
		return serve(&percpu_hash, &request);
	if (request.map == 2)
		return serve(&lru_hash, &request);
	return serve(&lru_percpu_hash, &request);
}
char _license[] SEC("license") = "GPL";
"""


def requests(seed, many):
    chance = random.Random(seed)
    for number in range(many):
        what = chance.choice((0, 0, 0, 1, 2, *range(3, 9)))
        key = chance.randrange(14).to_bytes(4, "little")
        frame = what.to_bytes(4, "little") + chance.randrange(4).to_bytes(4, "little") + key * 5
        yield Arrival(number % 2, frame + bytes(36))


def side_by_side(obj, backend, many):
    options = DeviceOptions(**ONE_CORE)
    with bpfnic.Nic(backend, options) as ours, bpfnic.Nic("golden", options) as theirs:
        for nic in (ours, theirs):
            nic.load(obj, unsafe=True).attach()
        outcome = lockstep.run(ours.device, theirs.device, list(requests(7, many)), Pacing())
        if outcome.difference is None:
            for name, held in ours.maps.items():
                assert held.device_map.dump() == theirs.maps[name].device_map.dump(), name
        return outcome


@pytest.mark.parametrize("backend", ["rtl", "golden"])
def test_racing_threads_in_lockstep(build, backend):
    assert str(side_by_side(build(PROGRAM), backend, 600).difference) == "None"


class Anyone:
    """Who walks: in which frame."""

    depth = 1


def test_a_wrong_answer_is_not_taken():
    """The reference goes where the device says, but only where that can be: to a key that is there, once, and to the
    end when all have been met."""
    maps = Maps(1, 1, bytearray(4096))
    maps.describe(0, Descriptor(type=MapType.HASH, entries=4, stride=8, value_size=8, key_size=8, table=256))
    keys, thread = [bytes([number] * 8) for number in range(4)], Anyone()
    handle, table = addresses.map_handle(0, 8), maps.entries[0]
    for key in keys:
        table.reserve(key, 0)
        assert not table.insert(key, 0, 0)
    values = [addresses.MAP_VALUES + 8 * table.find(key) for key in keys]

    def step(where, answer):
        """What comes of it where a device gives that answer."""
        walk = maps.walk(thread, 0, lambda mine: answer, handle, where << 32 | addresses.MAP_VALUES + 1024)
        try:
            while True:
                next(walk)
        except StopIteration as end:
            return end.value

    def right(where, answer):
        return step(where, answer) == answer

    assert right(0, 5 << 32 | values[2]) and maps.memory[1024:1032] == keys[2]
    assert not right(5, 0) and not right(5, 5 << 32 | values[2])  # left out; twice
    assert not right(5, 6 << 32 | addresses.MAP_VALUES + 8 * 4)  # a free place
    assert right(5, 7 << 32)  # nothing yet
    for number in (0, 1):
        assert not table.delete(keys[number])
    assert not right(7, 8 << 32 | values[0])  # gone
    assert right(7, 8 << 32 | values[3])
    assert not table.delete(keys[3]) and right(8, 0)
