"""The check of structure and the frames of a device image, on programs written in assembly."""

import re
import struct
from dataclasses import replace

import pytest

from bpfnic.host.image import at_slot, device_image, place_frames
from bpfnic.host.object import DeviceAddresses, SourceLine
from bpfnic.host.structure import Limits, check
from bpfnic.spec import addresses, engine, helpers, isa
from bpfnic.spec.assembly import assemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import decode
from bpfnic.spec.isa import Group
from bpfnic.spec.programs import ProgramType

BARREL = Limits(64, lambda row: row.group in (Group.BASE32, Group.BASE64), engine.HELPERS)
"""A device of the base groups alone, with a small program memory."""


def code(text):
    return decode(assemble(text))


def raw(opcode, registers=0, offset=0, imm=0):
    return struct.pack("<BBhi", opcode, registers, offset, imm)


def test_a_sound_program_passes():
    check(code("""
        r6 = r1
        call 0x7
        r1 = 0x123456789 ll
        if r0 > r1 goto out
        r1 = r0
        call double
    again:
        r0 += -1
        if w0 != 0 goto again
        goto out
    out:
        exit
    double:
        r1 += r1
        r0 = r1
        exit
    """), "sound", program_type=ProgramType.XDP, limits=BARREL)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("r0 = 0\ngoto +1\nexit", "instruction 1: goto +0x1: offset 1 jumps to 3, outside the program"),
        ("goto -2\nexit", "instruction 0: goto -0x2: offset -2 jumps to -1, outside the program"),
        ("gotol +5\nexit", "instruction 0: gotol +0x5: imm 5 jumps to 6, outside the program"),
        ("if r1 == 0 goto +1\nr0 = 1 ll\nexit", "instruction 0: .*: offset 1 jumps to 2, the second half of a 16-byte"),
        ("call pc+2\nexit\nr0 = 1", "instruction 0: call pc.0x2: imm 2 calls 3, outside the program"),
        ("call pc+1\nr0 = 1 ll\nexit", "instruction 0: call pc.0x1: imm 1 calls 2, the second half of a 16-byte"),
        ("call f\ngoto inside\nexit\nf: r0 = 1\ninside: exit", "instruction 1: .*: offset 2 jumps to 4, another"),
        ("r0 = 1", "instruction 0: r0 = 0x1: the function at 0 runs off its end here"),
        ("r0 = 1\nif r0 == 1 goto -1", "instruction 1: .*: the function at 0 runs off its end here"),
        ("call f\nr0 = 0\nf: exit", "instruction 1: r0 = 0x0: the function at 0 runs off its end here"),
        ("call f\nexit\nf: r0 = 1 ll", "instruction 2: r0 = 0x1 ll: the function at 2 runs off its end here"),
        ("call 0\nexit", "instruction 0: call 0x0: unknown helper 0: Linux 6.18 has 1 to 211"),
        ("call 212\nexit", "instruction 0: call 0xd4: unknown helper 212"),
        ("call 9\nexit", "instruction 0: call 0x9: helper skb_store_bytes .9. is not for XDP programs"),
    ],
)
def test_what_no_device_takes(text, message):
    with pytest.raises(BpfnicError, match=f"^program 'p', {message}".replace("+", r"\+")):
        check(code(text), "p", program_type=ProgramType.XDP)


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        (raw(0xFF), "ff 00 00 00 00 00 00 00: unknown opcode 0xff"),
        (raw(0xB7, 0x0A), "mov64_imm: dst may not be r10, which is read-only"),
        (raw(0xBF, 0xC0), "mov64_reg: src names r12, above r10"),
        (raw(0x95, imm=1), "exit: imm must be 0, not 1"),
        (raw(0x07, offset=3), "add64_imm: offset must be 0, not 3"),
        (raw(0x85, 0x70), "src must be one of 0, 1, 2, 3, not 7"),
    ],
)
def test_illegal_encodings_name_the_field(instruction, message):
    with pytest.raises(BpfnicError, match=f"^program 'p', instruction 1: .*{message}"):
        check(decode(raw(0xB7) + instruction + raw(0x95)), "p")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("r0 /= r1\nexit", r"the device does not execute div64_reg \(conformance group divmul64\)"),
        ("w0 %= 3\nexit", r"the device does not execute mod32_imm \(conformance group divmul32\)"),
        ("r0 = *(u8 *)skb[3]\nexit", r"the device does not execute ld_abs_b \(conformance group packet\)"),
        ("call 69\nexit", "the device has no helper fib_lookup .69."),
        ("r1 = map_by_fd(0x3) ll\nexit", "the device has no address for this"),
        ("call btf 3\nexit", "the device has no kernel function to call"),
    ],
)
def test_what_the_device_lacks(text, message):
    check(code(text), "p")
    with pytest.raises(BpfnicError, match=f"^program 'p', instruction 0: .*{message}"):
        check(code(text), "p", limits=BARREL)


@pytest.mark.parametrize("number", helpers.REFUSED)
def test_a_refused_helper_has_its_reason(number):
    helper = helpers.BY_NUMBER[number]
    says = f"call {number:#x}: the device has no helper {helper.name} ({number}): {helpers.REFUSED[number]}"
    with pytest.raises(BpfnicError, match=re.escape(says)):
        check(code(f"call {number}\nexit"), "p", limits=replace(BARREL, helpers=engine.HELPERS))


def test_loads_by_offset_are_not_for_xdp():
    program = code("r6 = r1\nr0 = *(u8 *)skb[3]\nexit")
    check(program, "p", program_type=ProgramType.SOCKET_FILTER)
    with pytest.raises(BpfnicError, match="instruction 1: .*for socket filters and tc programs, not for XDP ones"):
        check(program, "p", program_type=ProgramType.XDP)


def test_the_source_line_is_named():
    with pytest.raises(BpfnicError, match=r"outside the program \(f.c:12: goto nowhere;\)$"):
        check(code("goto +7\nexit"), "p", line=lambda slot: SourceLine("f.c", 12, "goto nowhere;"))


def test_a_program_too_long_or_empty():
    with pytest.raises(BpfnicError, match="^program 'p': 65 slots long; the device has 64$"):
        check(code("r0 = 0\n" * 64 + "exit"), "p", limits=BARREL)
    with pytest.raises(BpfnicError, match="^program 'p': has no instructions$"):
        check([], "p")


def test_a_device_image_is_refused_by_source_line(build):
    object = build("""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int program(struct xdp_md *ctx)
{
	return ctx->rx_queue_index / ctx->ingress_ifindex;
}
""")
    with pytest.raises(BpfnicError, match=r"instruction 2: .* div32_reg .*\(.*\.bpf\.c:6: return ctx->"):
        device_image(object.program(), DeviceAddresses({}, {}), BARREL)


# Frames.


def frames(text):
    """The frame sizes in the calls, in order."""
    calls = (isa.BY_NAME["call_local"], isa.BY_NAME["callx"])
    return [i.offset for i in place_frames(code(text), "p") if i and isa.find(i) in calls]


CALLEE = "\nf: r0 = 0\nexit"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("call f\nexit", 16),
        ("*(u8 *)(r10 - 1) = 0\ncall f\nexit", 16),
        ("*(u64 *)(r10 - 16) = r1\ncall f\nexit", 16),
        ("r2 = *(u8 *)(r10 - 17)\ncall f\nexit", 32),
        ("r2 = r10\nr2 += -40\ncall f\nexit", 48),  # for the callee
        ("r2 = r10\nr2 += -40\nr2 += 8\n*(u64 *)(r2 - 8) = r1\ncall f\nexit", 48),
        ("r6 = r10\nr6 += -100\nr6 = *(u64 *)(r6 + 8)\nr6 += -200\ncall f\nexit", 112),  # no pointer any more
        ("r2 = r10\ncall 7\nr2 += -100\ncall f\nexit", 16),
        ("r2 = r10\nr2 -= 33\nr3 = r2\n*(u8 *)(r3 + 0) = 1\ncall f\nexit", 48),
        ("r2 = r10\nif r1 == 0 goto a\nr2 += -56\na: *(u64 *)(r2 - 8) = r1\ncall f\nexit", 64),
        ("r2 = r10\na: r2 += -8\n*(u64 *)(r2 + 0) = r1\nif r2 > r1 goto a\ncall f\nexit", 512),  # no end in sight
        ("r2 = r10\nr2 += -24\nr2 += r1\n*(u8 *)(r2 + 0) = 1\ncall f\nexit", 32),  # an index into the frame
        ("lock *(u64 *)(r10 - 48) += r1\ncall f\nexit", 48),
    ],
)
def test_a_frame_holds_the_deepest_address_that_is_formed(text, size):
    assert frames(text + CALLEE) == [size]


def test_nothing_changes_without_calls():
    program = code("*(u8 *)(r10 - 1) = 0\nr0 = 0\nexit")
    assert place_frames(program, "p") == program


def test_what_cant_be_seen_takes_what_the_others_leave():
    assert frames("*(u64 *)(r10 - 96) = 1\ncall f\nexit\nf: r2 = r10\nr2 &= -64\n*(u8 *)(r2 + 0) = 1\ncall g\nexit\n"
                  "g: *(u64 *)(r10 - 32) = 1\nr0 = 0\nexit") == [96, 512 - 96 - 32]  # fmt: skip


def test_each_function_has_its_own_frame():
    assert frames("*(u64 *)(r10 - 40) = 1\ncall f\ncall g\nexit\nf: *(u64 *)(r10 - 8) = 1\ncall g\nexit\n"
                  "g: *(u64 *)(r10 - 64) = 1\nr0 = 0\nexit") == [48, 48, 16]  # fmt: skip


def test_a_call_through_a_pointer_may_reach_every_function_whose_address_is_taken():
    pointers = "r1 = code_addr(f) ll\nr2 = code_addr(g) ll\n"
    functions = "\nf: *(u64 *)(r10 - {f}) = 1\nr0 = 0\nexit\ng: *(u64 *)(r10 - 64) = 1\ncall h\nexit\nh: r0 = 0\nexit"
    assert frames(pointers + "*(u8 *)(r10 - 40) = 1\ncallx r1\nexit" + functions.format(f=400)) == [48, 64]
    with pytest.raises(BpfnicError, match="a call chain needs 528 bytes of stack, of 512"):
        frames(pointers + "*(u8 *)(r10 - 40) = 1\ncallx r1\nexit" + functions.format(f=480))
    with pytest.raises(BpfnicError, match="the function at 4 calls itself"):
        frames("r1 = code_addr(f) ll\ncallx r1\nexit\nf: callx r1\nexit")


def test_a_function_has_its_address_where_the_program_stands():
    program = code("r0 = 5 ll\nr1 = code_addr(f) ll\ncallx r1\nexit\nf: r0 = 2\nexit")
    check(program, "p", limits=Limits(64, lambda row: True, frozenset()))
    placed = at_slot(program, 100)
    assert placed[2].imm64 == addresses.code_address(106) == 0x3000_0000 + 8 * 106
    assert isa.find(placed[2]).name == "lddw" and placed[:2] + placed[3:] == program[:2] + program[3:]


def test_chains_that_linux_refuses():
    deep = "\n".join(f"f{n}: call f{n + 1}\nexit" for n in range(7)) + "\nf7: r0 = 0\nexit"
    assert frames(deep) == [16] * 7
    deeper = "\n".join(f"f{n}: call f{n + 1}\nexit" for n in range(8)) + "\nf8: r0 = 0\nexit"
    for text, message in (
        (deeper, "a call chain of more than 8 functions"),
        ("f: call f\nexit", "the function at 0 calls itself"),
        ("call f\nexit\nf: call g\nexit\ng: call f\nexit", "the function at 2 calls itself"),
        ("*(u8 *)(r10 - 300) = 1\ncall f\nexit\nf: *(u8 *)(r10 - 212) = 1\nr0 = 0\nexit", "528 bytes of stack, of 512"),
    ):
        with pytest.raises(BpfnicError, match=message):
            frames(text)


def test_many_paths_through_few_functions_take_no_time():
    """Seven functions that each call the next forty times: 40**7 chains, one answer."""
    text = "\n".join(f"f{n}: " + f"call f{n + 1}\n" * 40 + "exit" for n in range(7)) + "\nf7: r0 = 0\nexit"
    assert frames(text) == [16] * 280


def test_a_compiled_program_with_subprograms(build):
    object = build("""
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
static __noinline int leaf(volatile char *text, int n)
{
	volatile char own[100];

	own[n & 63] = n;
	return own[3] + text[n & 15];
}
static __noinline int middle(volatile long *big)
{
	volatile char text[16] = "middle";

	return leaf(text, big[2]) + text[2];
}
SEC("xdp") int program(struct xdp_md *ctx)
{
	volatile long big[8] = { 1, 2, 3 };

	return middle(big);
}
""")
    image = place_frames(object.program().instructions, "p")
    assert [i.offset for i in image if i and i.opcode == 0x85 and i.src == 1] == [64, 16]
