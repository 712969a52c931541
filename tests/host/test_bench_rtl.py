"""The simulated hardware does what the golden model does, which replays what was recorded: every program that ships
with bpfnic on the sample capture at every pace, programs whose threads race, and programs that are ended."""

import json
from importlib import resources

import pytest

from bpfnic.host import nic, pcap
from bpfnic.host.bench import Bench
from bpfnic.host.device import Arrival, Pacing
from tests.firmware.shipped import PACKET_PATH, PROGRAMS, entries, opened

FIRMWARE = resources.files("bpfnic.firmware")
PACES = {
    "back to back": Pacing(),
    "idle": Pacing(ingress_idle=60),
    "stalled": Pacing(egress_stall=60),
    "both": Pacing(ingress_idle=30, egress_stall=30, seed=7),
    "stalled, dropping": Pacing(lossless=False, egress_stall=95),
    "pcap, dropping": Pacing(back_to_back=False, lossless=False),
}
pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC


@pytest.fixture(scope="module")
def sample():
    packets = pcap.read(str(FIRMWARE / "samples" / "mixed.pcapng")).packets
    start = packets[0].timestamp
    return [Arrival(packet.interface % 2, packet.data, packet.timestamp - start) for packet in packets]


def bench_of(sample, program, pace):
    obj = opened(program)
    return Bench("rtl", obj, sample, PACES[pace], name=PROGRAMS[program], entries=entries(program, obj))


# The other paces are those of tests/sim/test_end_to_end.py, which compares the same.
HERE = ("both", "stalled, dropping")
THERE = [pytest.param(pace, marks=pytest.mark.thorough) for pace in PACES if pace not in HERE]


@pytest.mark.parametrize("pace", [*HERE, *THERE])
@pytest.mark.parametrize("program", PACKET_PATH)
def test_every_program_does_the_same_at_every_pace(sample, program, pace):
    bench = bench_of(sample, program, pace)
    evidence = bench.run()
    assert bench.check(evidence) == {"reference": "golden", "equal": True}
    refused = sum(evidence.counters["REFUSED_FULL"])
    assert len(evidence.traffic.packets) == len(sample) == sum(evidence.counters["RECEIVED"])
    if PACES[pace].lossless:
        assert refused == 0 and sum(evidence.counters["EGRESS_DROPPED"]) == 0


@pytest.mark.parametrize("pace", [
    "back to back", "pcap, dropping", pytest.param("stalled, dropping", marks=pytest.mark.thorough)
])  # fmt: skip
@pytest.mark.parametrize("program", PACKET_PATH)
def test_every_program_does_the_same_in_lockstep(sample, program, pace):
    evidence, found = bench_of(sample, program, pace).in_lockstep()
    instructions = found.pop("instructions")
    assert found == {"reference": "golden", "equal": True}
    assert instructions == evidence.counters["RETIRED"] > 0


@pytest.mark.parametrize("program", [name for name in PROGRAMS if name not in PACKET_PATH])
def test_the_others_do_the_same_too(sample, program):
    bench = bench_of(sample, program, "both")
    assert bench.check(bench.run()) == {"reference": "golden", "equal": True}
    evidence, found = bench_of(sample, program, "back to back").in_lockstep()
    assert found == {"reference": "golden", "equal": True, "instructions": evidence.counters["RETIRED"]}


RACING = """
struct slot { __u64 winner, turns; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, struct slot); }
    slots SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); }
    mine SEC(".maps");
__u64 last_time;
SEC("xdp") int race(struct xdp_md *ctx)
{
    __u32 *data = (void *)(long)ctx->data;
    if (data + 4 > (__u32 *)(long)ctx->data_end)
        return XDP_ABORTED;
    __u32 key = data[0] & 3, zero = 0;
    struct slot *slot = bpf_map_lookup_elem(&slots, &key);
    __u64 *count = bpf_map_lookup_elem(&mine, &zero);
    if (!slot || !count)
        return XDP_ABORTED;
    slot->turns++;                                                 /* not atomic: turns get lost, the same on both */
    __u64 before = __sync_lock_test_and_set(&slot->winner, bpf_get_prandom_u32());
    ++*count;
    data[1] = before;
    data[2] = bpf_get_smp_processor_id();
    data[3] = slot->turns;
    last_time = bpf_ktime_get_ns();
    return before & 1 ? XDP_TX : XDP_PASS;
}
"""


def test_threads_that_race_do_the_same_when_replayed(source):
    arrivals = [Arrival(i % 2, bytes([i % 256]) + bytes(63)) for i in range(600)]
    bench = Bench("rtl", nic.open(source(RACING)), arrivals)
    evidence = bench.run()
    assert bench.check(evidence) == {"reference": "golden", "equal": True}
    again, found = bench.in_lockstep()
    assert found == {"reference": "golden", "equal": True, "instructions": again.counters["RETIRED"]}
    turns = [int.from_bytes(values[0][8:], "little") for values in evidence.maps["slots"].values()]
    assert 0 < sum(turns) < 600  # they did race


ENDED = {
    "MEMORY_ACCESS": "return *(volatile __u32 *)(long)(ctx->data_end + ctx->rx_queue_index);",
    "PROGRAM": "return XDP_ABORTED;",
    "VERDICT": "return 0x10001;",
    "REDIRECT": "return bpf_redirect(ctx->ingress_ifindex + 40, 0);",
    "MISALIGNED": 'char room[16] = {}; asm volatile("*(u64 *)(%0 + 1) = %0" :: "r"(room) : "memory"); return room[3];',
}


@pytest.mark.parametrize("cause", ENDED)
def test_what_is_ended_is_ended_alike(source, cause):
    text = f'SEC("xdp") int ended(struct xdp_md *ctx) {{ if (ctx->data_end & 1) return XDP_PASS; {ENDED[cause]} }}'
    arrivals = [Arrival(i % 2, bytes(60 + i % 2)) for i in range(20)]
    bench = Bench("rtl", nic.open(source(text)), arrivals, unsafe=True)
    evidence = bench.run()
    assert bench.check(evidence) == {"reference": "golden", "equal": True}
    assert [packet.cause.name for packet in evidence.traffic.packets] == [cause, "NONE"] * 10
    evidence, found = bench.in_lockstep()
    assert found == {"reference": "golden", "equal": True, "instructions": evidence.counters["RETIRED"]}


def test_the_command_checks_the_demo(bpfnic):
    """What `make demo` runs, as JSON."""
    arguments = ["run", FIRMWARE / "programs" / "portfilter.bpf.c", "--pcap", FIRMWARE / "samples" / "mixed.pcapng"]
    more = ["--map", FIRMWARE / "samples" / "portfilter.json", "--backend", "rtl", "--check", "--json"]
    status, out, _ = bpfnic(*arguments, *more)
    report = json.loads(out)
    assert status == 0 and report["check"] == {"reference": "golden", "equal": True}
    clocks = report["clocks"]
    assert clocks["clocks_a_packet"]["min"] <= clocks["clocks_a_packet"]["median"] <= clocks["clocks_a_packet"]["p99"]
    assert 0 < clocks["instructions_a_clock"] <= 1 and clocks["total"] > report["packets"]["received"]
