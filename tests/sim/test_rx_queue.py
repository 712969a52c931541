"""A write to rx_queue_index of struct xdp_md: which queue of the host a packet goes to that passes (as on Netronome's
NICs, whose programs Linux lets do that). The packet path by itself: tests/hdl/packets/."""

import random
import struct

import pytest

import bpfnic
from bpfnic.host.bench import Bench
from bpfnic.host.device import Arrival, Pacing
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import XdpAction
from tests.sim.bench import Bench as Bare

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

# Bytes 14 to 21 of the packet are two numbers that are written, one after the other; byte 22 is the verdict. What the
# field says before, between and behind goes into the packet.
PROGRAM = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 64); __type(key, __u32); __type(value, __u32); }
	cpus SEC(".maps");
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u32 *numbers = (void *)(long)ctx->data + 14;

	if ((void *)(numbers + 8) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	__u32 first = numbers[0], second = numbers[1], verdict = *(__u8 *)(numbers + 2);
	volatile __u32 *queue = &ctx->rx_queue_index; /* compilers keep what they wrote */
	numbers[3] = *queue;
	*queue = first;
	numbers[4] = *queue;
	*queue = second;
	numbers[5] = *queue;
	return verdict == XDP_REDIRECT ? bpf_redirect_map(&cpus, 9, 0) : verdict;
}
"""


def frame(first: int, second: int, verdict: int) -> bytes:
    return bytes(14) + struct.pack("<IIB", first, second, verdict) + bytes(41)


def expected(first: int, second: int) -> tuple[int, int]:
    """The queue behind the first and the second write: what is no queue changes nothing."""
    between = first if first < 64 else 0
    return between, second if second < 64 else between


def check(results, asked) -> None:
    for (first, second, verdict), packet in zip(asked, results, strict=True):
        between, last = expected(first, second)
        assert packet.action == verdict
        if verdict == XdpAction.XDP_DROP:
            continue
        assert struct.unpack_from("<3I", packet.data, 26) == (0, between, last)
        assert packet.queue == {XdpAction.XDP_PASS: last or None, XdpAction.XDP_REDIRECT: 9}.get(verdict)


ASKED = [(0, 0, 2), (1, 63, 2), (63, 64, 2), (64, 64, 2), (5, 0, 2), (0xFFFFFFFF, 1, 2), (7, 1 << 16 | 3, 2), (1, 7, 3),
         (1, 7, 4), (1, 7, 1), (1 << 31, 1 << 31, 2)]  # fmt: skip


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_where_packets_go(build, backend):
    with bpfnic.Nic(backend) as nic:
        program = nic.load(build(PROGRAM))
        nic.maps["cpus"][9] = 1
        program.attach()
        arrivals = [Arrival(number % 2, frame(*asked)) for number, asked in enumerate(ASKED)]
        traffic = nic.run(arrivals)
    check(traffic.packets, ASKED)
    queues = [departure.queue for departure in sorted(traffic.departures, key=lambda departure: departure.arrival)]
    assert queues == [packet.queue for packet in traffic.packets if packet.egress is not None]


def test_rtl_and_golden_in_lockstep(build):
    """A queue is its packet's alone, whatever thread it ran on."""
    chance = random.Random(2)
    numbers = [*range(64), 64, 65, 100, 1 << 31]
    asked = [(chance.choice(numbers), chance.choice(numbers), chance.choice([2, 2, 2, 3, 1])) for _ in range(400)]
    arrivals = [Arrival(number % 2, frame(*each)) for number, each in enumerate(asked)]
    evidence, compared = Bench("rtl", build(PROGRAM), arrivals, Pacing(egress_stall=20)).in_lockstep()
    assert compared["equal"], compared
    check(evidence.traffic.packets, asked)


FIELD = addresses.CONTEXT + 16
WRITES = [f"*(u{bits} *)(r1 + {offset}) = r2" for bits in (8, 16, 32, 64) for offset in range(0, 64, bits // 8)]
WRITES += ["lock *(u32 *)(r1 + 16) += w2", "store_release((u32 *)(r1 + 16), w2)", "*(u32 *)(r1 + 14) = r2"]


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_nothing_else_of_the_context_can_be_written(backend):
    with Bare(backend, cores=1, threads=16) as nic:
        for write in WRITES:
            nic.load(assemble(f"r2 = 3\n{write}\nr0 = 2\nexit"))
            nic.attach(0)
            traffic = nic.device.run([Arrival(0, bytes(64))], Pacing())
            (packet,) = traffic.packets
            if write == "*(u32 *)(r1 + 16) = r2":
                assert (packet.action.name, packet.queue) == ("XDP_PASS", 3)
            else:
                assert packet.cause.name == "MEMORY_ACCESS", write


@pytest.mark.linux
def test_linux_lets_no_program_of_its_own_do_that(build):
    """Its own packets are not offloaded: no device chooses their queue."""
    with bpfnic.Nic("linux") as nic, pytest.raises(BpfnicError, match="invalid bpf_context access off=16 size=4"):
        nic.load(build(PROGRAM))
