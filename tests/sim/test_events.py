"""RINGBUF and PERF_EVENT_ARRAY: golden's records, results and positions are the running kernel's."""

import random
import struct
from errno import E2BIG, EAGAIN, EFAULT, EINVAL, ENOENT, ENOSPC, EOPNOTSUPP

import pytest

from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.linux import bpf
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.rings import CURRENT_CPU, PACKET_BYTES_SHIFT, RingQuery
from tests.sim.mapcard import BACKENDS

everywhere = pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])

REQUESTS = 6  # of a packet
SIZES = (0, 1, 8, 100, 1000, 4000, 4080, 4088, 4089, 9000)  # that a program reserves: constants, for the verifier
OUTPUT, RESERVE, DISCARD, QUERY, CROSSED, EVENT = range(1, 7)

SOURCE = bytes(number % 251 for number in range(4096))

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct source { __u8 bytes[4096]; };
struct request { __u32 operation, size; __u64 flags; };
struct packet { __u8 ethernet[16]; struct request requests[REQUESTS]; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, RING); } ring SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(max_entries, ENTRIES);
	__type(key, int);
	__type(value, __u32);
} perf SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct source);
} sources SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REQUESTS);
	__type(key, __u32);
	__type(value, __u64);
} answers SEC(".maps");

#define RESERVED(SIZE) case SIZE: \
	first = bpf_ringbuf_reserve(&ring, SIZE, flags); \
	if (first && SIZE) \
		*(__u8 *)first = flags ? 1 : 2 + number; \
	if (first) \
		bpf_ringbuf_submit(first, flags); \
	return first != 0;
#define DISCARDED(SIZE) case SIZE: \
	first = bpf_ringbuf_reserve(&ring, SIZE, 0); \
	if (first) \
		bpf_ringbuf_discard(first, flags); \
	return first != 0;
#define CROSSING(SIZE) case SIZE: \
	first = bpf_ringbuf_reserve(&ring, SIZE, 0); \
	if (!first) \
		return 0; \
	second = bpf_ringbuf_reserve(&ring, 8, 0); \
	if (second) { \
		*(__u64 *)second = 0x0102030405060708; \
		bpf_ringbuf_submit(second, 0); \
	} \
	if (SIZE) \
		*first = 77; \
	bpf_ringbuf_submit(first, flags); \
	return second ? 2 : 1;

static __attribute__((noinline)) __u64 reserve(__u32 size, __u64 flags, int number)
{
	__u8 *first;
	switch (size) { EACH(RESERVED) }
	return 99;
}

static __attribute__((noinline)) __u64 discard(__u32 size, __u64 flags)
{
	__u8 *first;
	switch (size) { EACH(DISCARDED) }
	return 99;
}

static __attribute__((noinline)) __u64 cross(__u32 size, __u64 flags)
{
	__u8 *first, *second;
	switch (size) { EACH(CROSSING) }
	return 99;
}

SEC("xdp") int program(struct xdp_md *ctx)
{
	struct packet *packet = (void *)(long)ctx->data;
	__u32 zero = 0;
	struct source *source = bpf_map_lookup_elem(&sources, &zero);
	if ((void *)(packet + 1) > (void *)(long)ctx->data_end || !source)
		return XDP_ABORTED;
	for (__u32 number = 0; number < REQUESTS; number++) {
		struct request *request = &packet->requests[number];
		__u64 *answer = bpf_map_lookup_elem(&answers, &number);
		if (!answer)
			return XDP_ABORTED;
		__u32 size = request->size, flags32 = request->flags;
		__u64 flags = request->flags;
		if (request->operation == 1 && size <= sizeof(*source))
			*answer = bpf_ringbuf_output(&ring, source, size, flags);
		else if (request->operation == 2)
			*answer = reserve(size, flags, number);
		else if (request->operation == 3)
			*answer = discard(size, flags);
		else if (request->operation == 4)
			*answer = bpf_ringbuf_query(&ring, flags);
		else if (request->operation == 5)
			*answer = cross(size, flags);
		else if (request->operation == 6 && size <= sizeof(*source))
			*answer = bpf_perf_event_output(ctx, &perf, flags, source, size);
		else
			*answer = 0;
	}
	return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""


class EventCard:
    """A device whose program does what a packet's requests (operation, size, flags) ask for."""

    def __init__(self, build, backend: str, ring: int = 4096, entries: int = 4, cpus: int = 1, cpu: int = 0):
        define = [f"RING={ring}", f"ENTRIES={entries}", f"REQUESTS={REQUESTS}",
                  "EACH(M)=" + " ".join(f"M({size})" for size in SIZES)]  # fmt: skip
        obj = build(PROGRAM, define=define)
        self.cpu = cpu
        self.device = BACKENDS[backend](DeviceOptions(threads=cpus, ports=1))
        try:
            self.maps = {name: self.device.create_map(found) for name, found in obj.maps.items()}
            self.maps["sources"].update(bytes(4), [SOURCE])
            self.device.attach(0, self.device.load(obj.program(), self.maps))
        except BaseException:
            self.device.close()
            raise
        self.ring, self.perf = self.maps["ring"], self.maps["perf"]

    def __enter__(self) -> "EventCard":
        return self

    def __exit__(self, *_: object) -> None:
        self.device.close()

    def ask(self, *requests: tuple[int, int, int], room: int = 0) -> list[int]:
        """What each answers (signed), in one packet with `room` bytes behind the requests."""
        padded = [*requests, *[(0, 0, 0)] * (REQUESTS - len(requests))]
        data = bytes(range(16)) + b"".join(struct.pack("<IIQ", *request) for request in padded) + bytes(room)
        others = [Arrival(0, bytes(64))] * self.cpu  # frame n is CPU n's; these are too short to ask
        packet = self.device.run([*others, Arrival(0, data)]).packets[-1]
        assert packet.verdict == 2, packet
        answers = self.maps["answers"].dump().values()
        return [int.from_bytes(value, "little", signed=True) for (value,) in answers][: len(requests)]

    def records(self, of=None) -> list[bytes]:
        """Those that came since the last time."""
        found = list((of or self.ring).records)
        (of or self.ring).records.clear()
        return found


def written(record: bytes) -> tuple[int, bytes]:
    """Length and those bytes that the program wrote; others are what was there before."""
    whole = record in (SOURCE[: len(record)], bytes(range(8, 0, -1)))
    return len(record), record if whole else record[:1]


@pytest.mark.linux
@pytest.mark.parametrize("seed", range(3))
def test_golden_does_what_the_kernel_does(build, seed):
    chance = random.Random(seed)
    seen = set()
    with EventCard(build, "golden") as ours, EventCard(build, "linux") as theirs:
        for _ in range(120):
            requests = []
            for _ in range(REQUESTS):
                operation = chance.choice([OUTPUT, OUTPUT, RESERVE, DISCARD, QUERY, CROSSED])
                size = chance.choice(SIZES if operation != OUTPUT else (0, 1, 7, 8, 100, 1000, 4000, 4096))
                choices = (0, 1, 2, 3, 4, 1 << 33) if operation == QUERY else (0, 0, 0, 1, 2, 3, 4, 1 << 40)
                flags = chance.choice(choices)
                requests.append((operation, size, flags))
            got, wanted = ours.ask(*requests), theirs.ask(*requests)
            assert got == wanted, requests
            for request, answer in zip(requests, got, strict=True):
                seen.add((request[0], answer if request[0] != QUERY else request[2]))
            assert list(map(written, ours.records())) == list(map(written, theirs.records())), requests
    wanted = {(OUTPUT, 0), (OUTPUT, -EAGAIN), (OUTPUT, -EINVAL), (RESERVE, 0), (RESERVE, 1), (DISCARD, 0), (DISCARD, 1),
              (CROSSED, 0), (CROSSED, 1), (CROSSED, 2), *((QUERY, what) for what in RingQuery)}  # fmt: skip
    assert wanted <= seen


@everywhere
def test_records_come_in_order_of_reservation(build, backend):
    """The second record is submitted before the first one."""
    with EventCard(build, backend) as card:
        assert card.ask((CROSSED, 100, 0), (OUTPUT, 3, 0)) == [2, 0]
        first, second, third = card.records()
        assert (len(first), first[0]) == (100, 77)
        assert (second, third) == (bytes(range(8, 0, -1)), bytes(range(3)))


@everywhere
def test_a_ring_is_full(build, backend):
    """A byte less than its size is its most; an empty ring takes no longer record."""
    with EventCard(build, backend) as card:
        assert card.ask((RESERVE, 4089, 0), (RESERVE, 4088, 0), (RESERVE, 4000, 0), (RESERVE, 100, 0),
                        (OUTPUT, 100, 0), (QUERY, 0, RingQuery.AVAIL_DATA)) == [0, 0, 1, 0, -EAGAIN, 4008]  # fmt: skip
        assert [len(record) for record in card.records()] == [4000]
        assert card.ask((QUERY, 0, RingQuery.AVAIL_DATA), (QUERY, 0, RingQuery.CONS_POS), (RESERVE, 4000, 0)) == [
            0, 4008, 1,
        ]  # fmt: skip


@everywhere
def test_what_is_discarded_does_not_come(build, backend):
    with EventCard(build, backend) as card:
        assert card.ask((DISCARD, 100, 0), (OUTPUT, 1, 0), (DISCARD, 0, 0), (QUERY, 0, RingQuery.PROD_POS)) == [
            1, 0, 1, 112 + 16 + 8,
        ]  # fmt: skip
        assert card.records() == [b"\0"]


@everywhere
def test_flags_of_wake_up(build, backend):
    """Output knows two; submit and discard look at no other; reserve has none."""
    with EventCard(build, backend) as card:
        answers = card.ask(*((OUTPUT, 8, flags) for flags in (1, 2, 3, 4)), (RESERVE, 8, 1), (CROSSED, 8, 12))
        assert answers == [0, 0, 0, -EINVAL, 0, 2]
        assert len(card.records()) == 5


@pytest.mark.linux
def test_events_are_the_kernels(build):
    """Every result of bpf_perf_event_output, and the bytes of what came, packet bytes and padding among them."""
    chance = random.Random(5)
    seen = set()
    with EventCard(build, "golden") as ours, EventCard(build, "linux") as theirs:
        for _ in range(60):
            requests = []
            for _ in range(REQUESTS):
                index = chance.choice((CURRENT_CPU, CURRENT_CPU, CURRENT_CPU, 0, 3, 4, 1 << 31))
                packet = chance.choice((0, 0, 1, 14, 60, 112, 113, 999, 1 << 20))
                requests.append((EVENT, chance.choice((0, 1, 3, 4, 8, 100, 300)), packet << PACKET_BYTES_SHIFT | index))
            got, wanted = ours.ask(*requests), theirs.ask(*requests)
            assert got == wanted, requests
            seen |= set(got)
            assert ours.records(ours.perf) == theirs.records(theirs.perf), requests
        assert ours.perf.lost == theirs.perf.lost == 0
    assert seen == {0, -EINVAL, -EFAULT, -E2BIG, -ENOENT}


@everywhere
def test_packet_bytes_come_behind(build, backend):
    with EventCard(build, backend) as card:
        assert card.ask((EVENT, 3, 20 << PACKET_BYTES_SHIFT | CURRENT_CPU)) == [0]
        (record,) = card.records(card.perf)
        assert record == bytes(range(3)) + bytes(range(16)) + struct.pack("<I", EVENT) + bytes(5)
        assert record.cpu == 0


@everywhere
def test_lost_events_are_counted(build, backend):
    with EventCard(build, backend) as card:
        asked = 0
        while not card.perf.lost and asked < 200:
            # One packet fills the ring of golden, not the kernel's: there nobody takes records out meanwhile.
            if backend == "linux":
                card.perf.drain = lambda: None
            codes = card.ask(*[(EVENT, 4000, CURRENT_CPU)] * REQUESTS)
            asked += REQUESTS
        assert set(codes) <= {0, -ENOSPC} and codes[-1] == -ENOSPC
        assert card.perf.lost == codes.count(-ENOSPC)


@pytest.mark.linux
def test_another_cpus_entry(build):
    """EOPNOTSUPP: by golden for the entry of another CPU, by the kernel for an entry that has another one's event."""
    with EventCard(build, "golden", cpus=4, cpu=2) as card:
        assert card.ask(*((EVENT, 1, index) for index in (2, 1, 3, 4, CURRENT_CPU))) == [
            0, -EOPNOTSUPP, -EOPNOTSUPP, -E2BIG, 0,
        ]  # fmt: skip
        assert [record.cpu for record in card.records(card.perf)] == [2, 2]
    if bpf.possible_cpus() < 2:
        pytest.skip("there is one CPU")
    with EventCard(build, "linux") as card:
        event = bpf.perf_event_open(1)
        bpf.map_update(card.perf.fd, (1).to_bytes(4, "little"), event.to_bytes(4, "little"))
        assert card.ask((EVENT, 1, 1), (EVENT, 1, 0)) == [-EOPNOTSUPP, 0]


LEFT_BEHIND = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u8 *packet = (void *)(long)ctx->data, kind = packet[0];
	__u8 *record = bpf_ringbuf_reserve(&ring, 200, 0);
	if (!record)
		return XDP_DROP;
	*record = kind;
	if (kind == 1)
		return XDP_PASS;
	if (kind == 2)
		return *(volatile int *)8;
	bpf_ringbuf_submit(record, 0);
	if (kind == 3)
		bpf_ringbuf_submit(record, 0);
	if (kind == 4)
		bpf_ringbuf_discard((void *)packet, 0);
	return XDP_TX;
}
"""


def test_a_record_that_is_left_behind_is_passed_over(build):
    """(No verifier accepts this program.) Whether it ended or was aborted; and no record is submitted twice."""
    obj = build(LEFT_BEHIND)
    device = BACKENDS["golden"](DeviceOptions(threads=4, ports=1))
    ring = device.create_map(obj.maps["ring"])
    device.attach(0, device.load(obj.program(), {"ring": ring}, unsafe=True))
    kinds = [0, 1, 2, 0, 2, 1, 3, 4, 1, 0]
    packets = device.run([Arrival(0, bytes([kind] * 64)) for kind in kinds]).packets
    causes = {0: Cause.NONE, 1: Cause.NONE, 2: Cause.MEMORY_ACCESS, 3: Cause.MAP, 4: Cause.MAP}
    assert [packet.cause for packet in packets] == [causes[kind] for kind in kinds]
    assert [record[0] for record in ring.records] == [kind for kind in kinds if kind not in (1, 2)]
    assert [record.cpu for record in ring.records] == [n % 4 for n, kind in enumerate(kinds) if kind not in (1, 2)]


@everywhere
@pytest.mark.parametrize("ring", [0, 4095, 2048, 12288])
def test_sizes_are_refused(build, backend, ring):
    with pytest.raises(BpfnicError, match="map ring .RINGBUF.: .*(max_entries|refuses)"):
        EventCard(build, backend, ring=ring)
