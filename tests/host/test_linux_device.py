"""The running kernel as a device, on small C programs whose result can be read off their source."""

import os
import struct

import pytest

from bpfnic.host.device import Arrival, Departure, DeviceOptions, PacketResult, Recording
from bpfnic.host.linux import bpf
from bpfnic.host.linux.device import LinuxDevice, open_device
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import XdpAction

pytestmark = pytest.mark.linux

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

static __always_inline __u32 word(struct xdp_md *ctx, int n)
{
	__u32 *words = (void *)(long)ctx->data + 16;
	return (void *)(words + n + 1) <= (void *)(long)ctx->data_end ? words[n] : 0;
}
"""
RETURN_WORD = HEAD + 'SEC("xdp") int program(struct xdp_md *ctx) { return word(ctx, 0); }\n'


@pytest.fixture
def device():
    device = open_device(DeviceOptions(ports=2))
    yield device
    device.close()


def load(device, object):
    """The object's one program on the device, with its maps by name."""
    maps = {name: device.create_map(definition) for name, definition in object.maps.items()}
    for name, definition in object.maps.items():
        if definition.variables is not None:
            maps[name].update(bytes(4), [bytes(definition.variables.content)])
    return device.load(object.program(), maps), maps


def frame(*words, size=60):
    """16 bytes, then these 32-bit words, then zeros."""
    return (bytes(range(16)) + struct.pack(f"<{len(words)}I", *words)).ljust(size, b"\0")


def run_one(device, data, interface=0):
    traffic = device.run([Arrival(interface, data)])
    return traffic.packets[0]


@pytest.mark.parametrize(
    ("verdict", "action", "egress", "cause"),
    [
        (0, XdpAction.XDP_ABORTED, None, Cause.PROGRAM),
        (1, XdpAction.XDP_DROP, None, Cause.NONE),
        (2, XdpAction.XDP_PASS, 2, Cause.NONE),
        (3, XdpAction.XDP_TX, 1, Cause.NONE),
        (4, XdpAction.XDP_ABORTED, None, Cause.REDIRECT),  # nobody said where to
        (5, XdpAction.XDP_ABORTED, None, Cause.VERDICT),
        (0xFFFFFFFF, XdpAction.XDP_ABORTED, None, Cause.VERDICT),
    ],
)
def test_verdicts(device, build, verdict, action, egress, cause):
    loaded, _ = load(device, build(RETURN_WORD))
    device.attach(1, loaded)
    result = run_one(device, frame(verdict), interface=1)
    assert (result.accepted, result.action, result.verdict, result.egress) == (True, action, verdict, egress)
    assert result.cause is cause
    assert result.data == (None if egress is None else frame(verdict))


REDIRECT = HEAD + (
    'SEC("xdp") int program(struct xdp_md *ctx) { return bpf_redirect(word(ctx, 0), word(ctx, 1)) + word(ctx, 2); }\n'
)


@pytest.mark.parametrize(
    ("words", "egress", "cause"),
    [
        ((7, 0), 0, Cause.NONE),
        ((300, 0), 1, Cause.NONE),
        ((9, 0), None, Cause.REDIRECT),  # the host's, which is no port
        ((1, 0), None, Cause.REDIRECT),  # the namespace's loopback link
        ((8, 0), None, Cause.REDIRECT),
        ((0, 0), None, Cause.REDIRECT),
        ((300, 1), None, Cause.PROGRAM),  # bpf_redirect() returns XDP_ABORTED for any flag
        ((300, 1, 4), None, Cause.REDIRECT),  # and the program returns XDP_REDIRECT all the same
    ],
)
def test_redirects(device, build, words, egress, cause):
    for interface, ifindex in enumerate((7, 300, 9)):
        device.set_ifindex(interface, ifindex)
    loaded, _ = load(device, build(REDIRECT))
    device.attach(0, loaded)
    result = run_one(device, frame(*words))
    assert (result.egress, result.cause) == (egress, cause)
    assert result.action is (XdpAction.XDP_ABORTED if cause else XdpAction.XDP_REDIRECT)


def test_functions_are_called(device, build):
    """One of them redirects, the other one takes the packet's word through three frames."""
    text = (
        HEAD
        + """
static __noinline int inner(int a, int b) { barrier_var(a); return a + b; }
static __noinline int outer(int a) { barrier_var(a); return inner(a, 1) + inner(a, 2); }
static __noinline int send(int port) { barrier_var(port); return bpf_redirect(port, 0); }
SEC("xdp") int program(struct xdp_md *ctx) { return word(ctx, 0) ? outer(word(ctx, 0)) : send(word(ctx, 1)); }
"""
    )
    loaded, _ = load(device, build(text))
    device.attach(0, loaded)
    assert run_one(device, frame(100)).verdict == 203
    assert run_one(device, frame(0, 2)).egress == 1


def test_no_redirect_outlives_its_packet(device, build):
    loaded, _ = load(
        device,
        build(
            HEAD + 'SEC("xdp") int program(struct xdp_md *ctx) {'
            " if (word(ctx, 1)) bpf_redirect(word(ctx, 1), 0); return word(ctx, 0); }"
        ),
    )
    device.attach(0, loaded)
    results = device.run([Arrival(0, frame(*words)) for words in [(4, 2), (4, 0), (1, 2), (4, 0)]]).packets
    assert [result.egress for result in results] == [1, None, None, None]
    assert [result.cause for result in results] == [Cause.NONE, Cause.REDIRECT, Cause.NONE, Cause.REDIRECT]


def test_programs_know_interfaces_by_the_ifindex_set(device, build):
    loaded, _ = load(device, build(HEAD + 'SEC("xdp") int program(struct xdp_md *c) { return c->ingress_ifindex; }'))
    for interface in range(3):
        device.attach(interface, loaded)
    assert [run_one(device, frame(), port).verdict for port in (0, 1)] == [1, 2]
    device.set_ifindex(1, 1000)
    device.set_ifindex(2, 77)
    assert [run_one(device, frame(), interface).verdict for interface in range(3)] == [1, 1000, 77]
    device.set_ifindex(2, 0)
    with pytest.raises(BpfnicError, match="interface 2 runs program program and has no ifindex"):
        run_one(device, frame(), 2)
    device.set_ifindex(0, 1000)
    with pytest.raises(BpfnicError, match="ifindex 1000: ifindexes must be distinct"):
        run_one(device, frame())


def test_program_changes_the_packet(device, build):
    """20 bytes more in front, 6 fewer behind, and a mark at the new start."""
    text = (
        HEAD
        + """
SEC("xdp") int program(struct xdp_md *ctx)
{
	if (bpf_xdp_adjust_head(ctx, -20) || bpf_xdp_adjust_tail(ctx, -6))
		return XDP_ABORTED;
	__u8 *data = (void *)(long)ctx->data;
	if (data + 20 > (__u8 *)(long)ctx->data_end)
		return XDP_DROP;
	__builtin_memset(data, 0xaa, 20);
	return XDP_TX;
}
"""
    )
    loaded, _ = load(device, build(text))
    device.attach(0, loaded)
    assert run_one(device, frame(1)).data == b"\xaa" * 20 + frame(1)[:-6]


def test_frames_that_no_program_sees(device, build):
    """Too long for TEST_RUN's page, too short for Ethernet, marked bad; and interfaces without a program."""
    loaded, _ = load(device, build(RETURN_WORD))
    device.attach(0, loaded)
    arrivals = [
        Arrival(0, bytes(3521)),
        Arrival(0, bytes(13)),
        Arrival(0, frame(2), error=True),
        Arrival(0, frame(1, size=3520), time_ns=50),
        Arrival(0, bytes(14), time_ns=60),
        Arrival(1, frame(9), time_ns=70),
        Arrival(2, frame(8), time_ns=80, egress=1),
        Arrival(0, frame(3), time_ns=90),
    ]
    traffic = device.run(arrivals)
    assert traffic.packets[:3] == [PacketResult(accepted=False)] * 3
    assert [packet.action for packet in traffic.packets[3:]] == [1, 0, 2, 3, 3]
    assert [packet.verdict for packet in traffic.packets[3:]] == [1, 0, None, None, 3]
    assert traffic.departures == [
        Departure(2, frame(9), 5, time_ns=70),
        Departure(1, frame(8), 6, time_ns=80),
        Departure(0, frame(3), 7, time_ns=90),
    ]
    counters = device.counters()
    assert counters["RECEIVED"] == [6, 1, 1]
    assert counters["RECEIVED_BYTES"] == [3521 + 13 + 60 + 3520 + 14 + 60, 60, 60]
    assert (counters["REFUSED_LONG"], counters["REFUSED_ERROR"]) == ([1, 0, 0], [2, 0, 0])
    assert (counters["DROPPED"], counters["PASSED"]) == ([1, 0, 0], [0, 1, 0])
    assert (counters["TRANSMITTED"], counters["REDIRECTED"], counters["ABORTED"]) == ([1, 0, 1], [0] * 3, [1, 0, 0])
    assert counters["CAUSES"] == [int(cause == Cause.PROGRAM) for cause in range(16)]
    assert (counters["SENT"], counters["SENT_BYTES"]) == ([1, 1, 1], [60, 60, 60])


COUNT = (
    HEAD
    + """
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4); }
	packets SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __type(key, __u16); __type(value, __u64); __uint(max_entries, 2); }
	seen SEC(".maps");
const volatile __u32 step = 1;
__u64 bytes;

SEC("xdp") int program(struct xdp_md *ctx)
{
	__u32 key = word(ctx, 0), *count = bpf_map_lookup_elem(&packets, &key);
	__u16 name = key;
	__u64 length = ctx->data_end - ctx->data;
	if (count)
		*count += step;
	bytes += length;
	return bpf_map_update_elem(&seen, &name, &length, BPF_ANY) ? XDP_DROP : XDP_PASS;
}
"""
)


def test_maps_and_global_variables(device, build):
    object = build(COUNT)
    object.rodata["step"] = 10
    loaded, maps = load(device, object)
    maps["packets"].update(struct.pack("=I", 3), [struct.pack("=I", 1000)])
    device.attach(0, loaded)
    actions = [device.run([Arrival(0, frame(key))]).packets[0].action for key in (1, 3, 3, 2)]
    assert actions == [XdpAction.XDP_PASS] * 3 + [XdpAction.XDP_DROP]  # the hash map holds two keys
    assert [maps["packets"].copies, maps["seen"].copies] == [1, 1]
    assert maps["packets"].dump() == {
        struct.pack("=I", k): [struct.pack("=I", v)] for k, v in enumerate((0, 10, 10, 1020))
    }
    assert maps["seen"].dump() == {struct.pack("=H", key): [struct.pack("=Q", 60)] for key in (1, 3)}
    assert maps[".bss"].lookup(bytes(4)) == [struct.pack("=Q", 240)]
    with pytest.raises(PermissionError):  # frozen, since the verifier may have counted on it
        maps[".rodata"].update(bytes(4), [struct.pack("=I", 1)])
    with pytest.raises(FileNotFoundError):
        maps["seen"].delete(struct.pack("=H", 9))
    maps["seen"].delete(struct.pack("=H", 3))
    assert list(maps["seen"].keys()) == [struct.pack("=H", 1)]


def test_what_is_in_use_stays(device, build):
    loaded, maps = load(device, build(COUNT))
    device.attach(1, loaded)
    with pytest.raises(BpfnicError, match="program program is attached to interface 1"):
        device.unload(loaded)
    device.attach(1, None)
    with pytest.raises(BpfnicError, match="map seen: program program uses it"):
        device.destroy_map(maps["seen"])
    device.unload(loaded)
    for device_map in maps.values():
        device.destroy_map(device_map)


def test_nothing_stays_open(build):
    before = len(os.listdir("/proc/self/fd"))
    device = LinuxDevice(2)
    loaded, _ = load(device, build(COUNT))
    device.attach(0, loaded)
    device.run([Arrival(0, frame(1))])
    device.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_refused_program_names_instruction_line_and_reason(device, build):
    text = (
        HEAD
        + """
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;
	return data[100];
}
"""
    )
    object = build(text)
    with pytest.raises(BpfnicError) as caught:
        load(device, object)
    message = str(caught.value)
    assert message.startswith("program program, instruction 1 (") and "\n" not in message
    assert (
        f".bpf.c:{text.splitlines().index('	return data[100];') + 1}): the kernel's verifier refuses it: " in message
    )
    assert "R1 offset is outside of the packet" in message
    assert isinstance(caught.value.__cause__, bpf.Refused) and "processed" in caught.value.__cause__.log


def test_refused_map_names_itself(device, build):
    object = build(COUNT)
    object.maps["seen"].max_entries = 0
    with pytest.raises(BpfnicError, match=r"map seen \(HASH\): the kernel refuses it: Invalid argument"):
        device.create_map(object.maps["seen"])


def test_redirect_by_a_map_for_something_else_is_refused(device, build):
    text = (
        HEAD
        + """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __type(key, __u32); __type(value, __u32); __uint(max_entries, 4); }
	plain SEC(".maps");
SEC("xdp") int program(struct xdp_md *ctx) { return bpf_redirect_map(&plain, 0, 0); }
"""
    )
    with pytest.raises(BpfnicError, match="verifier refuses it: cannot pass map_type 2 into func bpf_redirect_map#51"):
        load(device, build(text))


def test_program_of_another_type_is_refused(device, build):
    object = build(
        '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nSEC("kprobe") int f(void *regs) { return 0; }'
    )
    with pytest.raises(BpfnicError, match="program f: the linux backend runs XDP .* filters, not section kprobe"):
        load(device, object)


def test_what_the_kernel_can_not_give_is_refused(device, tmp_path):
    with pytest.raises(BpfnicError, match="can't replay a recording"):
        device.run([], replay=Recording())
    with pytest.raises(BpfnicError, match="no signals to write waves of"):
        open_device(DeviceOptions(waves=tmp_path / "waves.fst"))


def test_progress_is_reported_and_may_change_the_program(device, build):
    loaded, _ = load(device, build(RETURN_WORD))
    device.attach(0, loaded)
    reports = []

    def step(progress):
        reports.append((progress.done, progress.total))
        device.attach(0, None)

    packets = device.run([Arrival(0, frame(1))] * 130, on_step=step).packets
    assert reports == [(64, 130), (128, 130)]
    assert [packet.action for packet in packets] == [XdpAction.XDP_DROP] * 64 + [XdpAction.XDP_PASS] * 66


def test_capabilities(device):
    assert (device.capabilities.ports, device.capabilities.cpus) == (2, 1)
    assert {MapType.ARRAY, MapType.LPM_TRIE} < device.capabilities.map_types
