"""bpf_xdp_metadata_rx_timestamp, _rx_hash and _rx_vlan_tag: against Microsoft's vectors, a reference of the test's own
(received.py), and, for what the kernel has of them, a veth of the running one (test_receive_metadata_veth.py)."""

import random
import struct
from errno import ENODATA, EOPNOTSUPP

import pytest

import bpfnic
from bpfnic.host.bench import Bench
from bpfnic.host.device import Arrival, DeviceOptions, Pacing
from bpfnic.spec import engine
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.metadata import Metadata
from tests.sim import received
from tests.sim.received import KEY, SCTP, TCP, UDP, VECTORS

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

DECLARATIONS = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
extern int bpf_xdp_metadata_rx_timestamp(const struct xdp_md *ctx, __u64 *timestamp) __ksym;
extern int bpf_xdp_metadata_rx_hash(const struct xdp_md *ctx, __u32 *hash, __u32 *rss_type) __ksym;
extern int bpf_xdp_metadata_rx_vlan_tag(const struct xdp_md *ctx, __be16 *vlan_proto, __u16 *vlan_tci) __ksym;
"""
# What the functions answer goes in front of the frame.
PROGRAM = DECLARATIONS + """
struct told { __s32 errors[3]; __u32 hash, type; __u16 proto, tci; __u64 came, now; };
SEC("xdp") int program(struct xdp_md *ctx)
{
	struct told told = {};
	char *data, *end;

	/* What the packet is made to be says nothing of what it was. */
	if (bpf_xdp_adjust_head(ctx, -64))
		return XDP_ABORTED;
	data = (void *)(long)ctx->data, end = (void *)(long)ctx->data_end;
	if (data + 78 > end)
		return XDP_ABORTED;
	for (int i = 64; i < 78; i += 2)
		*(__u16 *)(data + i) ^= 0x1234;
	told.errors[0] = bpf_xdp_metadata_rx_timestamp(ctx, &told.came);
	told.now = bpf_ktime_get_ns();
	told.errors[1] = bpf_xdp_metadata_rx_hash(ctx, &told.hash, &told.type);
	told.errors[2] = bpf_xdp_metadata_rx_vlan_tag(ctx, &told.proto, &told.tci);
	__builtin_memcpy(data, &told, sizeof(told));
	return XDP_TX;
}
"""
TOLD = struct.Struct("<3iII2sHQQ")


def told(frame: bytes) -> tuple:
    """(hash, type), (TPID, TCI), time of arrival, time of asking. Of the first two None for -ENODATA."""
    timed, hashed, tagged, hash, kind, proto, tci, came, now = TOLD.unpack_from(frame)
    assert timed == 0 and hashed in (0, -ENODATA) and tagged in (0, -ENODATA)
    if hashed:
        assert hash == kind == 0  # nothing was written
    return (None if hashed else (hash, kind)), (None if tagged else (int.from_bytes(proto, "big"), tci)), came, now


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_vectors(build, backend):
    """Of each both hashes: with the ports for TCP, UDP and SCTP, of the addresses alone for other protocols, and, IPv4,
    for fragments."""
    with bpfnic.Nic(backend) as nic:
        program = nic.load(build(PROGRAM))
        for destination, to, source, port, alone, with_ports in VECTORS:
            ports = port.to_bytes(2, "big") + to.to_bytes(2, "big")
            family = 2 if ":" in source else 1
            for protocol, kind in ((TCP, 16), (UDP, 32), (SCTP, 64)):
                frame = received.build(source, destination, protocol, ports).frame
                assert told(program.test_run(frame).data)[0] == (with_ports, family | 8 | kind)
            frame = received.build(source, destination, 47, ports).frame
            assert told(program.test_run(frame).data)[0] == (alone, family)
            if family == 1:
                frame = received.build(source, destination, TCP, ports, fragment=0x2000).frame
                assert told(program.test_run(frame).data)[0] == (alone, family)


def test_the_reference_agrees_with_the_vectors():
    for destination, to, source, port, alone, with_ports in VECTORS:
        ports = port.to_bytes(2, "big") + to.to_bytes(2, "big")
        assert received.build(source, destination, TCP, ports).rss[0] == with_ports
        assert received.build(source, destination, 47, ports).rss[0] == alone


@pytest.mark.parametrize("key", [KEY, bytes(range(1, 41))], ids=["Microsoft's", "another"])
def test_frames_of_all_kinds(build, key):
    """Golden against the test's reference: tags, options, fragments, frames that are cut off."""
    chance = random.Random(1)
    frames = [received.anything(chance, key) for _ in range(800)]
    with bpfnic.Nic("golden") as nic:
        nic.device.set_rss_key(key)
        nic.load(build(PROGRAM)).attach()
        arrivals = [Arrival(number % 2, each.frame, time_ns=number * 1000) for number, each in enumerate(frames)]
        traffic = nic.run(arrivals)
    for number, (each, packet) in enumerate(zip(frames, traffic.packets, strict=True)):
        hash, tag, came, now = told(packet.data)
        assert (hash, tag) == (each.rss, each.tag), each
        assert came == 1000 * number < now
    kinds = {each.rss and each.rss[1] for each in frames}
    assert kinds == {None, 1, 2, *(family | 8 | l4 for family in (1, 2) for l4 in (16, 32, 64))}
    assert {each.tag and each.tag[0] for each in frames} == {None, 0x8100, 0x88A8}


@pytest.mark.parametrize("cores", [1, 2])
def test_rtl_and_golden_in_lockstep(build, cores):
    """Frames from all sides at once, with pauses: what one is told is never another's. The arrival is told in the order
    of arrivals at each port, lies before the question, and far enough behind the one before."""
    chance = random.Random(cores)
    frames = [received.anything(chance) for _ in range(400)]
    arrivals = [Arrival(number % 2, each.frame) for number, each in enumerate(frames)]
    sizes = DeviceOptions(cores=cores, threads=16 // cores)
    bench = Bench("rtl", build(PROGRAM), arrivals, Pacing(ingress_idle=20, egress_stall=20, seed=cores), sizes)
    evidence, check = bench.in_lockstep()
    assert check["equal"], check
    before = [0, 0]
    for number, (each, packet) in enumerate(zip(frames, evidence.traffic.packets, strict=True)):
        hash, tag, came, now = told(packet.data)
        assert (hash, tag) == (each.rss, each.tag), each
        beats = -(-len(each.frame) // 8)
        assert before[number % 2] + 8 * beats <= came < now  # 8 ns a clock
        before[number % 2] = came


def test_a_recording_has_the_times(build):
    chance = random.Random(5)
    arrivals = [Arrival(0, received.anything(chance).frame) for _ in range(40)]
    bench = Bench("rtl", build(PROGRAM), arrivals, Pacing())
    evidence = bench.run()
    check = bench.check(evidence)
    assert check["equal"], check


TIMES = DECLARATIONS + """
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u64 first = 1, second = 2, now = bpf_ktime_get_ns();

	bpf_xdp_metadata_rx_timestamp(ctx, &first);
	bpf_xdp_metadata_rx_timestamp(ctx, &second);
	return first == second && now - first < 1000 ? XDP_TX : XDP_DROP;
}
"""


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_the_time_is_one_and_that_of_the_last_beat(build, backend):
    """However long the frame is: less than a microsecond passes from its end to the program."""
    with bpfnic.Nic(backend) as nic:
        program = nic.load(build(TIMES))
        for length in (14, 64, 1500):
            assert program.test_run(bytes(length)).action.name == "XDP_TX"


LATER = DECLARATIONS + """
SEC("tc") int program(struct __sk_buff *skb)
{
	__u64 time;
	return bpf_xdp_metadata_rx_timestamp((void *)skb, &time);
}
"""


def test_refusals(build):
    with bpfnic.Nic("golden") as nic:
        says = r"'bpf_xdp_metadata_rx_timestamp' is a function of the kernel: NICs have it for XDP programs alone"
        with pytest.raises(BpfnicError, match=says):
            nic.load(build(LATER))
        with pytest.raises(BpfnicError, match="an RSS key must be 40 bytes long, not 39"):
            nic.device.set_rss_key(bytes(39))


def test_a_nic_without_them_says_that_it_has_none(build):
    """-EOPNOTSUPP, as the kernel for a driver without them; `callx` and objects reach the NIC's own helpers neither."""
    has = engine.HELPERS - frozenset(Metadata)
    with bpfnic.Nic("golden") as nic:
        transport = nic.device._transport
        transport.nic.helpers = has
        nic.device.capabilities = nic.device.capabilities.__class__(
            **{**vars(nic.device.capabilities), "helpers": has})  # fmt: skip
        run = nic.load(build(NONE)).test_run(bytes(64))
        assert (run.action.name, run.retval) == ("XDP_TX", 3)
        with pytest.raises(BpfnicError, match="golden computes no RSS hash"):
            nic.device.set_rss_key(KEY)


NONE = DECLARATIONS + f"""
SEC("xdp") int program(struct xdp_md *ctx)
{{
	__u64 time = 0;
	__u32 hash = 0, type = 0;
	__u16 proto = 0, tci = 0;

	if (bpf_xdp_metadata_rx_timestamp(ctx, &time) != -{EOPNOTSUPP})
		return XDP_DROP;
	if (bpf_xdp_metadata_rx_hash(ctx, &hash, &type) != -{EOPNOTSUPP})
		return XDP_DROP;
	if (bpf_xdp_metadata_rx_vlan_tag(ctx, &proto, &tci) != -{EOPNOTSUPP})
		return XDP_DROP;
	return time || hash || type || proto || tci ? XDP_PASS : XDP_TX;
}}
"""


@pytest.mark.parametrize("number", list(Metadata))
def test_objects_cannot_call_what_routines_call(build, number):
    text = f"""#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
static __u64 (*const own)(void) = (void *){int(number)};
SEC("xdp") int program(struct xdp_md *ctx) {{ return own(); }}
"""
    with bpfnic.Nic("golden") as nic, pytest.raises(BpfnicError, match=f"unknown helper {int(number)}"):
        nic.load(build(text))
