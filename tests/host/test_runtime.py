"""Helpers in firmware: the runtime's routines as the loader links them."""


import pytest

import bpfnic
from bpfnic.host import listing, runtime
from bpfnic.host.image import place_frames
from bpfnic.spec import addresses, helpers, isa
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.helpernotes import STACK
from bpfnic.spec.isa import Operation
from bpfnic.spec.programs import ProgramType

HEAD = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
"""
FRAME = bytes(range(60))
STRNCMP = helpers.BY_NAME["strncmp"].number


def operations(program):
    return [isa.find(one).operation for one in program.instructions if one]


LENGTH = HEAD + """
static __noinline int half(struct xdp_md *ctx) { return bpf_xdp_get_buff_len(ctx) >> 1; }
SEC("xdp") int program(struct xdp_md *ctx) { return bpf_xdp_get_buff_len(ctx) == 60 && half(ctx) == 30 ? XDP_TX : 0; }
"""


def test_a_routine_is_linked_once_behind_the_program(build):
    program = build(LENGTH).program()
    whole = program.with_firmware(runtime.linked(ProgramType.XDP, frozenset()))
    assert Operation.CALL_HELPER in operations(program) and program.own == len(program.instructions)
    assert Operation.CALL_HELPER not in operations(whole)
    assert list(whole.functions.values()) == ["program", "half", "helper_xdp_get_buff_len"]
    assert whole.own == len(program.instructions) == max(whole.functions)
    calls = [slot for slot, one in enumerate(whole.instructions) if one and isa.find(one).operation
             is Operation.CALL_LOCAL]  # fmt: skip
    targets = [slot + 1 + whole.instructions[slot].imm for slot in calls]
    assert targets.count(whole.own) == 2


def test_its_lines_are_those_of_its_source(build):
    whole = build(LENGTH).program().with_firmware(runtime.linked(ProgramType.XDP, frozenset()))
    lines = [listing.source(whole, slot) for slot in range(whole.own, len(whole.instructions))]
    assert all(line.startswith("xdp_get_buff_len.bpf.c:") for line in lines)
    assert any("return context->data_end - context->data;" in line for line in lines)


def test_hardware_that_has_the_helper_is_called_itself(build):
    program = build(LENGTH).program()
    number = helpers.BY_NAME["xdp_get_buff_len"].number
    assert number not in runtime.linked(ProgramType.XDP, frozenset({number}))
    assert number not in runtime.linked(ProgramType.SCHED_CLS, frozenset())  # nor where a program may not call it
    assert program.with_firmware(frozenset()).instructions == program.instructions


@pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])
def test_it_does_what_the_kernels_does(build, backend):
    with bpfnic.Nic(backend) as nic:
        assert nic.load(build(LENGTH)).test_run(FRAME).action.name == "XDP_TX"


def test_a_routine_that_calls_nothing_needs_no_stack(build):
    """A helper doesn't either: the kernel takes a program that fills its 512 bytes and calls it."""
    obj = build(HEAD + """
SEC("xdp") int program(struct xdp_md *ctx)
{
	asm volatile("*(u64 *)(r10 - 512) = r1" : : : "memory");
	return bpf_xdp_get_buff_len(ctx) == 60 ? XDP_TX : XDP_DROP;
}
""")
    with bpfnic.Nic("golden") as nic:
        assert nic.load(obj).test_run(FRAME).action.name == "XDP_TX"


@pytest.mark.parametrize("number", sorted(helpers.LIBRARY), ids=lambda number: helpers.BY_NUMBER[number].name)
def test_how_much_stack_each_takes_is_documented(build, number):
    """By what a program that calls it with all arguments 0 may have for itself."""
    helper = helpers.BY_NUMBER[number]
    program = build(CALL_ZEROS, define=[f"NUMBER={number}"]).program()
    whole = program.with_firmware(frozenset({number}))
    takes = STACK.get(helper.name, 0)
    if takes:
        with pytest.raises(BpfnicError, match=f"a call chain needs {512 + takes} bytes of stack"):
            place_frames(whole.instructions, "p", whole.own)
    else:
        place_frames(whole.instructions, "p", whole.own)


CALL_ZEROS = HEAD + """
SEC("xdp") int program(struct xdp_md *ctx)
{
	asm volatile("*(u64 *)(r10 - 512) = r1" : : : "memory");
	return ((long (*)(int, int, int, int, int))NUMBER)(0, 0, 0, 0, 0);
}
"""


# Functions that compilers take for granted.

MEMORY = HEAD + """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, char[128]); }
    room SEC(".maps");
extern void *memcpy(void *to, const void *from, unsigned long size);
extern void *memmove(void *to, const void *from, unsigned long size);
extern void *memset(void *to, int byte, unsigned long size);
extern int memcmp(const void *left, const void *right, unsigned long size);
SEC("xdp") __attribute__((no_builtin)) int program(struct xdp_md *ctx)
{
	unsigned char *packet = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	char stack[64];
	__u32 key = 0;
	char *value = bpf_map_lookup_elem(&room, &key);
	unsigned long size, at, to, from;

	if (!value || packet + 64 > end)
		return XDP_ABORTED;
	size = packet[0], at = packet[1], to = packet[2], from = packet[3];
	if (size > 48 || at > 16 || to > 80 || from > 80)
		return XDP_ABORTED;
	memset(stack, 0x1ff, 64);
	memcpy(stack + at, packet + 8, size);		/* any alignment of a stack */
	if (memcmp(stack + at, packet + 8, size))
		return XDP_DROP;
	memcpy(value + 1, stack, 63);
	if (memmove(value + to, value + from, size) != value + to)
		return XDP_DROP;
	return memcmp(stack, value + 1, 64) > 0 ? XDP_TX : XDP_PASS;
}
"""


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_memcpy_and_its_kin(build, backend):
    with bpfnic.Nic(backend) as nic:
        program = nic.load(build(MEMORY))
        for size, at, to, start in [(1, 0, 1, 2), (8, 8, 3, 1), (17, 3, 20, 4), (40, 16, 5, 21), (33, 7, 21, 5),
                                    (24, 8, 9, 1), (24, 8, 1, 9), (48, 8, 40, 32)]:  # fmt: skip
            frame = bytes([size, at, to, start]) + bytes(range(4, 128))
            stack = bytearray(b"\xff" * 64)
            stack[at : at + size] = frame[8 : 8 + size]
            value = bytearray(128)
            value[1:64] = stack[:63]
            value[to : to + size] = value[start : start + size]
            nic.maps["room"][0] = bytes(128)
            run = program.test_run(frame)
            assert nic.maps["room"].device_map.lookup(bytes(4))[0] == value
            assert run.action.name == ("XDP_TX" if bytes(stack) > bytes(value[1:65]) else "XDP_PASS")


# Maps of the runtime.

COUNTER = '#include "runtime.h"\n' + """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); }
    counts SEC(".maps");
static __u64 step = 5;
long helper_NAME(void)
{
	__u32 key = 1;
	__u64 *count = bpf_map_lookup_elem(&counts, &key);
	return count ? __sync_fetch_and_add(count, step) : -1;
}
long change(void) { return ++step; }
"""
CALLS = HEAD + """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); }
    counts SEC(".maps");
SEC("xdp") int NAME(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 *mine = bpf_map_lookup_elem(&counts, &key);
	if (mine)
		*mine = CALL();
	return XDP_PASS;
}
"""


@pytest.fixture
def two_routines(tmp_path, monkeypatch):
    """A runtime in which bpf_jiffies64 and bpf_get_numa_node_id count with one map, which has a name that programs use
    too."""
    names = "jiffies64", "get_numa_node_id"
    folder = tmp_path / "runtime"
    folder.mkdir()
    (folder / "runtime.h").write_text((runtime.FOLDER / "runtime.h").read_text())
    for name in names:
        (folder / f"{name}.bpf.c").write_text(COUNTER.replace("NAME", name))
    monkeypatch.setattr(runtime, "FOLDER", folder)
    monkeypatch.setattr(helpers, "LIBRARY", frozenset(helpers.BY_NAME[name].number for name in names))
    runtime.routine.cache_clear()
    yield
    runtime.routine.cache_clear()


def test_maps_of_the_runtime_are_made_once_and_hidden(build, two_routines):
    with bpfnic.Nic("golden") as nic:
        seen = []

        def fill(found):
            seen.append(found)
            found.update(b"\1\0\0\0", [b"\7" + bytes(7)])

        nic.device.fill_hidden("counts", fill)
        assert not seen
        first = nic.load(build(CALLS.replace("CALL", "bpf_jiffies64").replace("NAME", "first")))
        assert [found.definition.max_entries for found in seen] == [2]
        assert [first.test_run(FRAME) and nic.maps["counts"][0] for _ in range(3)] == [7, 12, 17]
        assert list(nic.maps) == ["counts"]
        first.unload()
        second = nic.load(build(CALLS.replace("CALL", "bpf_get_numa_node_id").replace("NAME", "second")))
        assert len(seen) == 1
        assert second.test_run(FRAME) and nic.maps["counts"][0] == 22  # they outlive the program


@pytest.mark.parametrize("number", sorted(helpers.PRIVILEGED | helpers.OTHER_IN_TC))
def test_a_privileged_routine_keeps_to_its_frame(number):
    """It calls no function, and its stack ends above where the words of the skb context are kept."""
    name = helpers.BY_NUMBER[number].name
    routine = runtime.routine(name, f"helper_{name}")
    linked = routine.linker.link(routine.unit, name, runtime.Runtime(None, frozenset()))
    assert len(linked.functions) == 1
    rows = [one and isa.find(one) for one in linked.instructions]
    called = {Operation.CALL_LOCAL, Operation.CALLX, Operation.CALL_FIRMWARE, Operation.CALL_BTF}
    assert not called & {row.operation for row in rows if row}
    # As clang writes it: r10 is a base of accesses, or copied to what a constant is added to at once.
    lowest, copied = 0, None
    for one, row in zip(linked.instructions, rows, strict=True):
        if one is None or row is None:
            continue
        if copied is not None:
            assert (row.name, one.dst) == ("add64_imm", copied)
            lowest, copied = min(lowest, one.imm), None
        elif row.name == "mov64_reg" and one.src == isa.FRAME_POINTER:
            copied = one.dst
        elif isa.FRAME_POINTER in (one.src, one.dst):
            lowest = min(lowest, one.offset)
    assert -lowest <= addresses.FIRMWARE_STACK_BYTES
