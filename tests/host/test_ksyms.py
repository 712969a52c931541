"""Kernel functions by BTF id, as clang calls what is `extern … __ksym`: helpers by their names, weak ones, refusals."""

import pytest

import bpfnic
from bpfnic.host import ksyms
from bpfnic.host.image import device_image
from bpfnic.host.object import DeviceAddresses
from bpfnic.host.structure import Limits
from bpfnic.spec import helpers
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction

HEAD = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL"; /* Linux asks for it where a function of the kernel is called */
"""
FRAME = bytes(60)
KTIME, REDIRECT, JIFFIES = (helpers.BY_NAME[name].number for name in ("ktime_get_ns", "redirect", "jiffies64"))
BACKENDS = ["golden", pytest.param("linux", marks=pytest.mark.linux)]


def image(program, available):
    return device_image(program, DeviceAddresses({}, {}), Limits(64, lambda row: True, frozenset(available)))


def calls(code):
    return [(instruction.src, instruction.imm) for instruction in code if instruction and instruction.opcode == 0x85]


CALL = HEAD + """
extern long bpf_redirect___mine(__u32 ifindex, __u64 flags) __ksym;
SEC("xdp") int program(struct xdp_md *ctx) { return bpf_redirect___mine(ctx->ingress_ifindex + 1, 0); }
"""


def test_a_call_is_that_of_the_helper(build):
    program = build(CALL).program()
    assert calls(image(program, {REDIRECT})) == calls(program.instructions) == [(0, REDIRECT)]
    says = r"instruction \d: call 0x17: the device has no helper redirect \(23\) \(.*:6: SEC"
    with pytest.raises(BpfnicError, match=says):
        image(program, {KTIME})


@pytest.mark.parametrize("backend", BACKENDS)
def test_and_does_what_the_helper_does(build, backend):
    with bpfnic.Nic(backend) as nic:
        run = nic.load(build(CALL)).test_run(FRAME, port=0)
    assert (run.action.name, run.egress) == ("XDP_REDIRECT", "port1")


def test_a_declaration_without_flavour(build):
    """Where the header's own definition isn't included."""
    program = build("""
extern unsigned long long bpf_ktime_get_ns(void) __attribute__((section(".ksyms")));
__attribute__((section("xdp"))) int program(void *ctx) { return bpf_ktime_get_ns() ? 2 : 1; }
""").program()
    assert calls(image(program, {KTIME})) == [(0, KTIME)]


@pytest.mark.parametrize(
    ("declaration", "use", "message"),
    [
        ("int bpf_dynptr_from_xdp(void *x, __u64 flags, void *p)", "bpf_dynptr_from_xdp(ctx, 0, 0)",
         "'bpf_dynptr_from_xdp' is a function of the kernel: there are no dynptrs here"),
        ("__u64 ktime_get_ns(void)", "ktime_get_ns()", "'ktime_get_ns' is a function of the kernel: it isn't here, and "
         "no helper has this name"),
        ("long bpf_redirect___one(__u32 ifindex)", "bpf_redirect___one(1)",
         "'bpf_redirect___one' is declared with 1 parameters; helper redirect has 2"),
        ("__u64 bpf_ktime_get_ns___x(void *)", "bpf_ktime_get_ns___x(ctx)",
         "'bpf_ktime_get_ns___x' is declared with 1 parameters; helper ktime_get_ns has 0"),
        ("const int runqueues", "(long)&runqueues", "'runqueues' is a variable of the kernel, and here is none"),
    ],
)  # fmt: skip
def test_what_is_not_here_is_refused_by_name_and_line(build, declaration, use, message):
    text = f'{HEAD}extern {declaration} __ksym;\nSEC("xdp") int program(struct xdp_md *ctx)\n{{\n\treturn {use};\n}}\n'
    with pytest.raises(BpfnicError, match=rf"section 'xdp', offset 0x\w+: {message}.* \(.*\.bpf\.c:7: return "):
        image(build(text).program(), {KTIME, REDIRECT})


GUARDED = HEAD + """
extern DECLARATION __ksym __weak;
SEC("xdp") int program(struct xdp_md *ctx)
{
	if (bpf_ksym_exists(NAME))
		return NAME() ? XDP_PASS : XDP_DROP;
	return XDP_TX;
}
"""
ABSENT = "int bpf_no_such_function(void)", "bpf_no_such_function"
OTHER = "int bpf_ktime_get_ns___other(long a)", "bpf_ktime_get_ns___other", "1"
PRESENT = "__u64 bpf_ktime_get_ns___weak(void)", "bpf_ktime_get_ns___weak"


def guarded(declaration, name, argument=""):
    return (GUARDED.replace("NAME()", f"{name}({argument})").replace("NAME", name)
            .replace("DECLARATION", declaration))  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("function", "action"), [(ABSENT, "XDP_TX"), (OTHER, "XDP_TX"), (PRESENT, "XDP_PASS")])
def test_weak_functions_may_be_asked_for(build, backend, function, action):
    with bpfnic.Nic(backend) as nic:
        assert nic.load(build(guarded(*function))).test_run(FRAME).action.name == action


def test_a_weak_helper_that_the_device_lacks_is_absent(build):
    program = build(guarded("__u64 bpf_jiffies64___weak(void)", "bpf_jiffies64___weak")).program()
    for available, number, call in (({JIFFIES}, JIFFIES, (0, JIFFIES)), ({KTIME}, ksyms.ABSENT, (2, ksyms.ABSENT))):
        code = image(program, available)
        assert calls(code) == [call]
        assert [i.imm64 for i in code if i and i.opcode == 0x18] == [number]


UNGUARDED = HEAD + """
extern int bpf_no_such_function(void) __ksym __weak;
SEC("xdp") int program(struct xdp_md *ctx) { return bpf_no_such_function(); }
"""


def test_a_call_of_an_absent_one_traps_where_it_is_reached(build):
    program = build(UNGUARDED).program()
    assert Instruction(0x85, src=2) in program.instructions
    with bpfnic.Nic("golden") as nic:
        with pytest.raises(BpfnicError, match="program program, instruction 0: call btf 0x0 .*: Only helpers"):
            nic.load(build(UNGUARDED))
        run = nic.load(build(UNGUARDED), unsafe=True).test_run(FRAME)
    assert (run.action.name, run.cause) == ("XDP_ABORTED", "HELPER")


@pytest.mark.linux
def test_and_the_kernel_refuses_it_where_it_is_reached(build):
    with bpfnic.Nic("linux") as nic, pytest.raises(BpfnicError, match="program program, .*verifier refuses it"):
        nic.load(build(UNGUARDED))


def test_a_weak_variable_is_at_0(build):
    program = build(HEAD + """
extern const int runqueues __ksym __weak;
SEC("xdp") int program(struct xdp_md *ctx) { return &runqueues ? XDP_DROP : XDP_PASS; }
""").program()
    assert [i.imm64 for i in image(program, set()) if i and i.opcode == 0x18] == [0]


NUMBERS = HEAD + """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __s64[4]); }
	ends SEC(".maps");
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u32 zero = 0;
	__s64 *ends = bpf_map_lookup_elem(&ends_map, &zero);
	int i, count = 0;

	if (!ends || !bpf_ksym_exists(bpf_iter_num_new))
		return XDP_ABORTED;
	bpf_for(i, (int)ends[0], (int)ends[1]) {
		count++;
		ends[2] = ends[2] * 31 + i;
		if (count == 20)
			break;
	}
	ends[3] = count;
	bpf_repeat(3)
		count++;
	return count - ends[3] == 3 ? XDP_PASS : XDP_DROP;
}
""".replace("ends_map", "ends_").replace("	ends SEC", "	ends_ SEC")


def test_numbers_are_walked_through(build):
    """What the kernel's iterator of numbers does (kernel/bpf/bpf_iter.c): none where the end is before the start, or
    more than 8,388,608 behind it."""
    with bpfnic.Nic("golden") as nic:
        program = nic.load(build(NUMBERS))
        most = 1 << 23
        for start, end in [(0, 5), (3, 3), (5, 3), (-3, 2), (-(1 << 31), 4 - (1 << 31)), (0, most), (0, most + 1),
                           (-(1 << 31), (1 << 31) - 1), ((1 << 31) - 3, (1 << 31) - 1)]:  # fmt: skip
            nic.maps["ends_"][0] = [start, end, 0, 0]
            assert program.test_run(FRAME).action.name == "XDP_PASS"
            walked = list(range(start, end))[:20] if start <= end <= start + most else []
            total = 0
            for number in walked:
                total = (total * 31 + number + (1 << 63)) % (1 << 64) - (1 << 63)
            assert nic.maps["ends_"][0][2:] == [total, len(walked)], (start, end)
