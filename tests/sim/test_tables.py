"""Maps with keys of their own, and queues, from C to what becomes of a packet, while threads race and the host comes
between: golden replays what the NIC recorded, and the kernel says what each operation returns where they come one after
the other."""

import random
from errno import E2BIG, ENOENT

import pytest

from bpfnic.host import check, lockstep
from bpfnic.host.check import Evidence
from bpfnic.host.device import Arrival, Pacing
from bpfnic.host.nic import Nic
from bpfnic.spec.maps import QUEUES
from tests.sim.bench import ONE_CORE, TWO_CORES

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct name { unsigned char bytes[13]; };
struct blob { unsigned char bytes[64]; };
struct route { __u32 length; unsigned char address[4]; };
struct route6 { __u32 length; unsigned char address[16]; };
#define TABLE(TYPE, NAME, KEY, VALUE, ENTRIES, FLAGS) struct { __uint(type, BPF_MAP_TYPE_##TYPE); __type(key, KEY); \\
	__type(value, VALUE); __uint(max_entries, ENTRIES); __uint(map_flags, FLAGS); } NAME SEC(".maps")
#define VALUES(TYPE, NAME, VALUE, ENTRIES) struct { __uint(type, BPF_MAP_TYPE_##TYPE); \\
	__type(value, VALUE); __uint(max_entries, ENTRIES); } NAME SEC(".maps")
TABLE(HASH, bytes, unsigned char, unsigned char, 5, 0);
TABLE(HASH, words, __u32, __u64, 9, 0);
TABLE(HASH, names, struct name, struct name, 7, 0);
TABLE(HASH, blobs, struct blob, __u64, 4, 0);
TABLE(LPM_TRIE, routes, struct route, __u64, 6, BPF_F_NO_PREALLOC);
TABLE(LPM_TRIE, routes6, struct route6, struct name, 5, BPF_F_NO_PREALLOC);
VALUES(QUEUE, jobs, struct name, 4);
VALUES(STACK, trail, __u32, 3);
// What differs from Linux, in the order of eviction or in how many CPUs there are.
TABLE(LRU_HASH, recent, __u32, __u64, 5, 0);
TABLE(PERCPU_HASH, counts, __u32, __u32, 6, 0);
TABLE(LRU_PERCPU_HASH, flows, struct name, __u64, 4, 0);

struct request { unsigned char ethernet[14], operation, map, flags, padding[7]; __u64 result; struct blob key, value; };

// The result of one operation, for a look-up the value's first byte; the key lies on the stack or in the packet.
#define DO(MAP, KEY) do { \\
	unsigned char *found; \\
	if (operation == 1) request->result = bpf_map_update_elem(&MAP, (void *)(KEY), &request->value, request->flags); \\
	else if (operation == 2) request->result = bpf_map_delete_elem(&MAP, (void *)(KEY)); \\
	else { found = bpf_map_lookup_elem(&MAP, (void *)(KEY)); request->result = found ? *found : 1000; \\
		if (found && operation == 3) *found += 1; } \\
} while (0)
#define QUEUE(MAP) do { \\
	struct name value = *(struct name *)&request->value; \\
	if (operation == 1) request->result = bpf_map_push_elem(&MAP, &value, request->flags); \\
	else if (operation == 2) request->result = bpf_map_pop_elem(&MAP, &value); \\
	else request->result = bpf_map_peek_elem(&MAP, &value); \\
	*(struct name *)&request->value = value; \\
} while (0)

SEC("xdp") int operate(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	struct blob copy;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	unsigned int operation = request->operation;
	copy = request->key;
	switch (request->map) {
	case 0: DO(bytes, &copy); break;
	case 1: DO(words, &request->key); break;
	case 2: DO(names, &copy); break;
	case 3: DO(names, &request->key); break;
	case 4: DO(blobs, &copy); break;
	case 5: ((struct route *)&copy)->length = copy.bytes[63] % 34; DO(routes, &copy); break;
	case 6: ((struct route6 *)&copy)->length = copy.bytes[63] % 130; DO(routes6, &copy); break;
	case 7: QUEUE(jobs); break;
	case 8: QUEUE(trail); break;
	case 9: DO(recent, &copy); break;
	case 10: DO(counts, &request->key); break;
	default: DO(flows, &copy); break;
	}
	return XDP_TX;
}

char _license[] SEC("license") = "GPL";
"""
CASES, EXACT = 12, 9
"""Of the switch above, and those of them whose maps are as Linux's in all that is seen."""


def requests(chance: random.Random, count: int, cases: int = CASES) -> list[Arrival]:
    keys = [chance.randbytes(64) for _ in range(11)]
    frames = []
    for number in range(count):
        head = [chance.choice([0, 1, 1, 1, 2, 3]), chance.randrange(cases), chance.choice([0, 0, 1, 2, 3])]
        data = bytes(14) + bytes(head) + bytes(15) + chance.choice(keys) + chance.randbytes(64)
        frames.append(Arrival(number % 2, data))
    return frames


@pytest.fixture(scope="module")
def program(build):
    return build(SOURCE)


@pytest.fixture(params=["1x16", "2x8"])
def size(request) -> dict[str, int]:
    return ONE_CORE if request.param == "1x16" else TWO_CORES


def loaded(backend: str, program, **size: int) -> Nic:
    nic = Nic(backend, **size)
    nic.load(program).attach()
    return nic


def contents(nic: Nic) -> dict[str, dict]:
    """Of maps that can be walked; of queues what comes out of them."""
    found = {}
    for name, held in nic.maps.items():
        if held.device_map.definition.type not in QUEUES:
            found[name] = held.device_map.dump()
        else:
            values = iter(lambda taken=held.device_map: _popped(taken), None)
            found[name] = {number.to_bytes(4, "little"): [value] for number, value in enumerate(values)}
    return found


def _popped(queue) -> bytes | None:
    try:
        return queue.pop(b"")[0]
    except FileNotFoundError:
        return None


def evidence(nic: Nic, traffic) -> Evidence:
    return Evidence(nic.device.name, nic.device.capabilities, traffic, nic.device.counters(), contents(nic))


@pytest.mark.parametrize("seed", range(3))
def test_racing_threads_replay_exactly(program, size, seed) -> None:
    arrivals = requests(random.Random(seed), 800)
    with loaded("rtl", program, **size) as nic, loaded("golden", program, **size) as golden:
        traffic = nic.run(arrivals, Pacing(seed=seed), retirements=True)
        expected = golden.run(arrivals, Pacing(seed=seed), replay=traffic.recording, retirements=True)
        assert not any(packet.note for packet in expected.packets)
        ours, theirs = evidence(nic, traffic), evidence(golden, expected)
        assert check.compare(ours, theirs, arrivals, range(len(arrivals)), Pacing()) is None
    assert len({packet.data[24:32] for packet in traffic.packets}) > 8


def test_racing_threads_agree_in_lockstep(program, size) -> None:
    """Each look-up, each reservation and each insertion at its moment, on values that others replace meanwhile."""
    arrivals = requests(random.Random(5), 1500)
    with loaded("rtl", program, **size) as nic, loaded("golden", program, **size) as golden:
        outcome = lockstep.run(nic.device, golden.device, arrivals, Pacing(seed=5))
        assert str(outcome.difference) == "None"
        assert contents(nic) == contents(golden)


@pytest.mark.linux
@pytest.mark.parametrize("seed", range(2))
def test_the_kernel_returns_the_same(program, seed) -> None:
    arrivals = requests(random.Random(seed), 600, EXACT)
    with loaded("golden", program, **ONE_CORE) as golden, loaded("linux", program, ports=2) as linux:
        ours, theirs = golden.run(arrivals), linux.run(arrivals)
        for number, (packet, wanted) in enumerate(zip(ours.packets, theirs.packets, strict=True)):
            assert packet.data == wanted.data, f"packet {number}"
        assert contents(golden) == contents(linux)


def test_the_host_between_programs_loses_nothing_and_leaks_nothing(program, size) -> None:
    """Under traffic on the same buckets and the same free places, the host makes, changes, reads and removes keys of
    its own, and walks; at the end there is room for as many keys as there should be."""
    chance = random.Random(9)
    arrivals = requests(chance, 1500)
    mine = {key.to_bytes(4, "big"): 0 for key in range(3)}
    there: dict[bytes, int] = {}
    done = walks = 0
    with loaded("rtl", program, **size) as nic:
        words = nic.maps["words"].device_map

        def step(_) -> None:
            nonlocal done, walks
            key, number = chance.choice(list(mine)), chance.getrandbits(64)
            try:
                if key in there and chance.random() < 0.4:
                    words.delete(key)
                    del there[key]
                else:
                    words.update(key, [number.to_bytes(8, "little")])
                    there[key] = number
                done += 1
            except OSError as error:
                assert error.errno == E2BIG and key not in there
            for key in mine:
                try:
                    assert words.lookup(key) == [there[key].to_bytes(8, "little")]
                except OSError as error:
                    assert error.errno == ENOENT and key not in there
            if chance.random() < 0.2:
                walks += 1
                assert there.keys() <= set(walk(words))

        nic.run(arrivals, Pacing(seed=9), on_step=step)
        assert done > 10 and walks > 1
        for key in walk(words):
            words.delete(key)
        for round in range(3):  # every place serves, again and again
            for key in range(9):
                words.update(key.to_bytes(4, "little"), [bytes([round]) * 8])
        with pytest.raises(OSError) as full:
            words.update(bytes([99, 0, 0, 0]), [bytes(8)])
        assert full.value.errno == E2BIG
        assert sorted(walk(words)) == sorted(key.to_bytes(4, "little") for key in range(9))


def walk(device_map) -> list[bytes]:
    """Every key, as bpf_map_get_next_key gives them."""
    keys, key = [], None
    while True:
        try:
            key = device_map.next_key(key)
        except OSError as error:
            assert error.errno == ENOENT
            return keys
        keys.append(key)
        if len(keys) > 100:  # what a program removes behind the host starts the walk again
            return keys
