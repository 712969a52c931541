"""Extensions from C: what compilers make of it, what it does, and how a device without them refuses it."""

import itertools

import pytest

import bpfnic
from bpfnic.host.image import device_image
from bpfnic.host.object import DeviceAddresses
from bpfnic.host.structure import Limits
from bpfnic.spec import isa
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.isa import Group

HEAD = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
"""
ENDLESS = HEAD + """#include <bpf/bpf_experimental.h>
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u32 n = ctx->rx_queue_index; /* 0. Of a known start Linux would walk through every pass */

	while (can_loop)
		n++;
	return n ? XDP_TX : XDP_DROP;
}
"""
BOUNDED = HEAD + """#include <bpf/bpf_experimental.h>
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u32 sum = ctx->rx_queue_index, last = ctx->data_end - ctx->data;

	for (__u32 i = ctx->rx_queue_index; i <= last; i++) {
		cond_break;
		sum += i;
	}
	return sum == 60 * 61 / 2 ? XDP_TX : XDP_DROP;
}
"""
ORDERED = HEAD + """
__u64 value = 41;
__u8 small = 0x80;
__u32 flag;
SEC("xdp") int program(struct xdp_md *ctx)
{
	if (__atomic_load_n(&value, __ATOMIC_ACQUIRE) != 41 || __atomic_load_n(&small, __ATOMIC_ACQUIRE) != 0x80)
		return XDP_DROP;
	__atomic_store_n(&flag, 7, __ATOMIC_RELEASE);
	return *(volatile __u32 *)&flag == 7 ? XDP_TX : XDP_DROP;
}
"""
POINTER = HEAD + """
static __noinline int drop(int length) { return length == 60 ? XDP_DROP : XDP_ABORTED; }
static __noinline int transmit(int length) { volatile int copy = length; return copy == 60 ? XDP_TX : XDP_ABORTED; }
SEC("xdp") int program(struct xdp_md *ctx)
{
	int (*verdict)(int) = ctx->ingress_ifindex == 77 ? drop : transmit;

	return verdict(ctx->data_end - ctx->data);
}
"""
PROGRAMS = {
    "endless": (ENDLESS, "v3", Group.MAY_GOTO, ["may_goto"]),
    "bounded": (BOUNDED, "v1", Group.MAY_GOTO, ["may_goto"]),
    "pointer": (POINTER, "v3", Group.CALLX, ["callx"]),
    "ordered": (ORDERED, "v4", Group.ACQUIRE_RELEASE, ["load_acquire_b", "load_acquire_dw", "store_release_w"]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_compilers_make_it(build, name):
    text, cpu, group, rows = PROGRAMS[name]
    found = [isa.find(instruction) for instruction in build(text, cpu=cpu).program().instructions if instruction]
    assert sorted({row.name for row in found if row.group is group}) == rows


ON_LINUX = [name for name in PROGRAMS if name != "pointer"]


@pytest.mark.timeout(900)  # the first on rtl compiles the NIC
@pytest.mark.parametrize(("backend", "name"), [
    *itertools.product(["golden", "rtl"], PROGRAMS),
    *(pytest.param("linux", name, marks=pytest.mark.linux) for name in ON_LINUX),
])  # fmt: skip
def test_and_it_does_what_c_says(build, backend, name):
    text, cpu, _, _ = PROGRAMS[name]
    unsafe = name == "pointer"  # which no verifier follows
    with bpfnic.Nic(backend, **{} if backend == "linux" else {"budget": 2000}) as nic:
        nic.load(build(HEAD + 'SEC("xdp") int first(struct xdp_md *ctx) { return XDP_PASS; }'))  # at slot 0
        assert nic.load(build(text, cpu=cpu), unsafe=unsafe).test_run(bytes(60)).action.name == "XDP_TX"


@pytest.mark.parametrize(("name", "line"), [("endless", 8), ("ordered", 9)])
def test_a_device_without_the_group_refuses_it_by_line(build, name, line):
    text, cpu, group, rows = PROGRAMS[name]
    program = build(text, cpu=cpu).program()
    addresses = DeviceAddresses({map: 16 for map in program.maps}, {map: 32 for map in program.maps})
    limits = Limits(64, lambda row: row.group is not group, frozenset())
    message = rf"instruction \d+: .*: the device does not execute {rows[0][:8]}\w* \(extension {group.value}\)"
    with pytest.raises(BpfnicError, match=rf"^program 'program', {message} \(.*\.bpf\.c:{line}: "):
        device_image(program, addresses, limits)
