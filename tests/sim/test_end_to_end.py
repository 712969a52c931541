"""The shipped programs on the sample capture, through loader, driver and NIC: the golden NIC replays what each device
recorded, and the kernel has the last word where the result does not depend on order."""

import pytest

from bpfnic.host import check
from bpfnic.host.check import Evidence
from bpfnic.host.device import Arrival, Pacing, Traffic
from bpfnic.host.nic import Nic
from bpfnic.spec.addresses import HEADROOM
from tests.firmware.shipped import ORDERED, PACKET_PATH, PROGRAMS, entries, opened, settled, start
from tests.sim.bench import ONE_CORE, TWO_CORES

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

STALLS = (0, 30, 70)
PACINGS = [Pacing(egress_stall=stall) for stall in STALLS] + [Pacing(ingress_idle=30, egress_stall=30)]
THOROUGH = [Pacing(ingress_idle=30, egress_stall=stall) for stall in STALLS if stall != 30]


def ready(backend: str, name: str, size: dict[str, int]) -> Nic:
    """A NIC with one of the shipped programs on every port, and what it needs in its maps."""
    nic = Nic(backend, **size)
    object = opened(name)
    try:
        start(nic, name, object, entries(name, object))
    except BaseException:
        nic.close()
        raise
    return nic


def evidence(nic: Nic, traffic: Traffic, maps: bool = True) -> Evidence:
    contents = {name: held.device_map.dump() for name, held in nic.maps.items()} if maps else {}
    return Evidence(nic.device.name, nic.device.capabilities, traffic, nic.device.counters(), contents)


def streams(traffic: Traffic, arrivals: list[Arrival]) -> dict[tuple[int, int | None], list[bytes]]:
    """What left, in its order, by ingress and egress."""
    result: dict[tuple[int, int | None], list[bytes]] = {}
    for departure in traffic.departures:
        result.setdefault((arrivals[departure.arrival].interface, departure.egress), []).append(departure.data)
    return result


@pytest.fixture(params=["golden", "rtl-1x16", "rtl-2x8"])
def device(request) -> tuple[str, dict[str, int]]:
    """Backend and size."""
    backend, _, size = request.param.partition("-")
    return backend, TWO_CORES if size == "2x8" else ONE_CORE


@pytest.mark.parametrize("name", PACKET_PATH)
def test_the_reference_agrees_at_every_backpressure(device, name, arrivals, thorough) -> None:
    """Packets, verdicts, order, counters and maps, which go on from setting to setting on both. Nothing that
    leaves depends on the clock: it is the same at every setting, and at the times of the capture."""
    backend, size = device
    pacings = [*PACINGS, *THOROUGH * thorough, Pacing(back_to_back=False)]
    left = []
    with ready(backend, name, size) as nic, ready("golden", name, size) as reference:
        for pacing in pacings:
            traffic = nic.run(arrivals, pacing)
            assert all(packet.accepted for packet in traffic.packets)
            expected = reference.run(arrivals, pacing, replay=traffic.recording)
            last = pacing is pacings[-1]  # maps are read once, at the end
            ours, theirs = evidence(nic, traffic, last), evidence(reference, expected, last)
            assert check.compare(ours, theirs, arrivals, range(len(arrivals)), pacing) is None, pacing
            left.append(streams(traffic, arrivals))
    assert all(each == left[0] for each in left)
    assert name == "drop" or sum(map(len, left[0].values())) > 100


def summed(contents: dict[bytes, list[bytes]], word: int = 8) -> dict[bytes, list[int]]:
    """Values word by word, those of a per-CPU map added up over the CPUs."""
    def words(value: bytes) -> list[int]:
        return [int.from_bytes(value[at : at + word], "little") for at in range(0, len(value), word)]

    return {key: [sum(column) for column in zip(*map(words, values), strict=True)] for key, values in contents.items()}


@pytest.mark.linux
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in ORDERED])
def test_the_kernel_agrees(device, name, arrivals) -> None:
    """With all threads at once: verdicts, frames and egresses depend on order in none of these programs, nor do sums
    over CPUs and what atomics add up, apart from what varies."""
    backend, size = device
    with ready(backend, name, size) as nic, ready("linux", name, {"ports": 2}) as linux:
        ours, packets = evidence(nic, nic.run(arrivals)), linux.run(arrivals).packets
        for number, (packet, wanted) in enumerate(zip(ours.traffic.packets, packets, strict=True)):
            assert (packet.verdict, packet.action, packet.egress, packet.data) == (
                wanted.verdict, wanted.action, wanted.egress, wanted.data
            ), f"packet {number}"  # fmt: skip
        theirs = settled(name, {map_name: held.device_map.dump() for map_name, held in linux.maps.items()})
        for map_name, contents in settled(name, ours.maps).items():
            assert summed(contents) == summed(theirs[map_name]), map_name


# -- overload --

SLOW = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u64);
} seen SEC(".maps");

// Adds up every eighth byte, writes the sum into the last eight, which no verifier lets it do, and goes back out or on.
SEC("xdp")
int slow(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	__u32 key = ctx->ingress_ifindex;
	__u64 sum = 0, *count;

	for (int i = 0; i < 512; i += 8) {
		if (data + i + 8 >= end)
			break;
		sum += data[i];
	}
	if (end - data < 64 || end - data > 2048)
		return XDP_DROP;
	*(__u64 *)(end - 8) = sum;
	count = bpf_map_lookup_elem(&seen, &key);
	if (count)
		__sync_fetch_and_add(count, 1);
	return sum & 1 ? XDP_TX : XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
"""


@pytest.mark.parametrize("stall", [0, 97])
def test_overload_drops_whole_frames_and_counts_them(device, build, stall) -> None:
    """More than the NIC can do: what comes through is right to the last byte, and the rest is accounted for."""
    backend, size = device
    arrivals = []
    for number in range(600):
        length = {3: 1800, 17: 13}.get(number % 40, 64 + number % 97)
        data = bytes((number * 7 + i) % 251 for i in range(length))
        arrivals.append(Arrival(number % 2, data, error=number % 40 == 29))
    pacing = Pacing(lossless=False, egress_stall=stall)
    object = build(SLOW)
    with Nic(backend, **size) as nic, Nic("golden", **size) as reference:
        for card in (nic, reference):
            card.load(object, unsafe=True).attach()
        traffic = nic.run(arrivals, pacing)
        room = nic.device.capabilities.buffer_bytes - HEADROOM
        numbers = check.replayable(arrivals, traffic, room)
        expected = reference.run(
            [arrivals[number] for number in numbers], pacing, replay=check.part_of(traffic.recording, numbers)
        )
        ours = evidence(nic, traffic)
        assert check.compare(ours, evidence(reference, expected), arrivals, numbers, pacing) is None
    counters = ours.counters
    refused, queue_full = sum(counters["REFUSED_FULL"]), sum(counters["EGRESS_DROPPED"])
    assert (sum(counters["REFUSED_LONG"]), sum(counters["REFUSED_ERROR"])) == (15, 30)
    assert refused + 45 == sum(not packet.accepted for packet in traffic.packets)
    assert sum(counters["RECEIVED"]) == len(arrivals) == refused + 45 + queue_full + len(traffic.departures)
    assert sum(counters["IN_FLIGHT"]) == 0
    if backend == "rtl":
        assert refused > 100 and len(traffic.departures) > 50
        assert bool(queue_full) == bool(stall)
    for departure in traffic.departures:  # worked out here, so that even golden and rtl in one mind can't be wrong
        data = arrivals[departure.arrival].data
        total = sum(data[: len(data) - 8 : 8])
        assert departure.data == data[:-8] + total.to_bytes(8, "little")
        assert departure.egress == (arrivals[departure.arrival].interface if total & 1 else 2)


# -- what no program can compute --

CLOCK = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("xdp")
int stamp(struct xdp_md *ctx)
{
	unsigned char *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	if (data + 60 > end)
		return XDP_DROP;
	*(__u64 *)(data + 16) = bpf_ktime_get_ns();
	*(__u32 *)(data + 24) = bpf_get_prandom_u32();
	*(__u32 *)(data + 28) = bpf_get_smp_processor_id();
	*(__u64 *)(data + 32) = bpf_ktime_get_ns();
	return XDP_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
"""


def test_clock_random_number_and_cpu(device, build) -> None:
    """The clock goes on through idle spans that are not simulated: frames a millisecond apart say so."""
    backend, size = device
    arrivals = [Arrival(number % 2, bytes(64), time_ns=number // 4 * 1_000_000) for number in range(200)]
    with Nic(backend, **size) as nic:
        nic.load(build(CLOCK)).attach()
        packets = nic.run(arrivals, Pacing(back_to_back=False)).packets
    first = [int.from_bytes(packet.data[16:24], "little") for packet in packets]
    again = [int.from_bytes(packet.data[32:40], "little") for packet in packets]
    numbers = {packet.data[24:28] for packet in packets}
    assert [int.from_bytes(packet.data[28:32], "little") for packet in packets] == [packet.cpu for packet in packets]
    assert len(numbers) > 195
    for number in range(200):
        assert 0 < again[number] - first[number] < 2_000
        assert abs(first[number] - first[0] - arrivals[number].time_ns) < 4_000
