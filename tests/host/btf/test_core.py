"""CO-RE: programs compiled against one layout run on packets in another. The judge is C: what the target's source says,
and where clang puts it. (libbpf's answers were compared too: docs/btf.md.)"""

import dataclasses
import json

import pytest

import bpfnic
from bpfnic.host.btf import Btf, Kind, Type
from bpfnic.host.btf.access import CoreKind
from bpfnic.host.btf.encode import encode
from bpfnic.host.btf.naming import essential
from bpfnic.host.btf.patch import POISON, patched
from bpfnic.host.btf.relocate import Value
from bpfnic.host.btf.target import NIC, open_btf, target
from bpfnic.host.compile import compile_object
from bpfnic.host.object import open_object
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import Instruction

HEAD = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
char _license[] SEC("license") = "GPL";
"""
LOCAL = HEAD + """
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
struct inner { int x; short y; };
enum color { RED, GREEN, BLUE___seen_here = 7, GONE };
enum wide { WIDE = 0x100000001ULL };
struct s___mine {
	unsigned short shorter;
	unsigned long long longer;
	int gone;
	struct { int nested; };
	struct inner list[2];
	unsigned low : 3, high : 5;
	int negative : 4;
	int *pointer;
	int sign;
	unsigned changed;
	int tail[];
};
struct nowhere { int a; };
struct again { int same; };
struct same { int a; char b[4]; struct s *p; };
typedef int (*function)(int a, char *b);
#pragma clang attribute pop
#define PROGRAM(name, value) SEC("xdp") int name(struct xdp_md *ctx) \\
{ \\
	struct s___mine *s = (void *)(long)ctx->data; \\
	if ((void *)(long)ctx->data + 160 > (void *)(long)ctx->data_end) \\
		return -1; \\
	return value; \\
}
PROGRAM(shorter, s->shorter)
PROGRAM(longer, s->longer)
PROGRAM(nested, s->nested)
PROGRAM(element, s->list[1].y)
PROGRAM(sign, s->sign)
PROGRAM(tail, s->tail[1])
PROGRAM(store, (s->shorter = 0x1234, XDP_PASS))
PROGRAM(low, BPF_CORE_READ_BITFIELD(s, low))
PROGRAM(high, BPF_CORE_READ_BITFIELD(s, high))
PROGRAM(negative, BPF_CORE_READ_BITFIELD(s, negative))
PROGRAM(gone, bpf_core_field_exists(s->gone) ? s->gone : 55)
PROGRAM(reached, s->gone)
PROGRAM(changed, bpf_core_field_exists(s->changed))
PROGRAM(offset, bpf_core_field_offset(s->nested))
PROGRAM(size, bpf_core_field_size(s->shorter))
PROGRAM(list_size, bpf_core_field_size(s->list))
PROGRAM(signed_, __builtin_preserve_field_info(s->sign, BPF_FIELD_SIGNED))
PROGRAM(unsigned_, __builtin_preserve_field_info(s->shorter, BPF_FIELD_SIGNED))
PROGRAM(type_size, bpf_core_type_size(struct s___mine))
PROGRAM(no_type_size, bpf_core_type_size(struct nowhere))
PROGRAM(type_exists, bpf_core_type_exists(struct s___mine))
PROGRAM(no_type_exists, bpf_core_type_exists(struct nowhere))
PROGRAM(type_matches, bpf_core_type_matches(struct same))
PROGRAM(no_type_matches, bpf_core_type_matches(struct inner))
PROGRAM(function_matches, bpf_core_type_matches(function))
PROGRAM(type_id, bpf_core_type_id_kernel(struct s___mine))
PROGRAM(local_id, bpf_core_type_id_local(struct s___mine))
PROGRAM(green, bpf_core_enum_value(enum color, GREEN))
PROGRAM(blue, bpf_core_enum_value(enum color, BLUE___seen_here))
PROGRAM(no_value, bpf_core_enum_value_exists(enum color, GONE))
PROGRAM(a_value, bpf_core_enum_value_exists(enum color, RED))
PROGRAM(wide, bpf_core_enum_value(enum wide, WIDE) >> 32)
PROGRAM(same, s ? ((struct again *)s)->same : 0)
"""
TARGET = HEAD + """
struct inner { char pad; long long x; short y; };
enum color { PINK, RED, BLUE = 900, GREEN };
enum wide { OTHER, WIDE = 0x7700000001ULL };
struct s {
	char before[3];
	unsigned int shorter;
	struct inner list[3];
	union { struct { unsigned char longer; }; char other; };
	int nested;
	unsigned high : 6, pad : 20, low : 7;
	int *pointer;
	short spacer, negative : 6;
	int sign;
	struct inner changed;
	int tail[];
};
struct again { int first, same; };
struct again___2 { long long first; int same; };
struct same { short first; int a, more; char b[4]; union { int c; }; struct s *p; };
typedef int (*function)(int a, char *b);
struct { struct s *s; struct again *again; struct again___2 *again2; struct same same; function function; struct s t;
         enum color color; enum wide wide; struct again u; struct again___2 v; } use;
SEC("xdp") int program(struct xdp_md *ctx) { return 0; }
"""
VALUE = {"shorter": 70_000, "longer": 200, "nested": -9, "high": 33, "low": 100, "negative": -20, "sign": -3,
         "list": [{"y": 1}, {"y": -300}, {"y": 3}]}  # fmt: skip


def written(tmp_path, text, name):
    path = tmp_path / f"{name}.bpf.c"
    path.write_text(text)
    return compile_object(path)


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    folder = tmp_path_factory.mktemp("core")
    return written(folder, LOCAL, "local"), written(folder, TARGET, "target")


@pytest.fixture(scope="module")
def there(objects):
    return open_btf(objects[1])


@pytest.fixture(scope="module")
def opened(objects):
    return open_object(objects[0], types=str(objects[1]))


def packet_of(btf):
    structure = btf.find(Kind.STRUCT, "s")
    data = btf.parse(structure.number, VALUE) + bytes(4) + (4711).to_bytes(4, "little")
    return data.ljust(200, b"\0")


def member(btf, structure, name):
    return next(part for part in btf.find(Kind.STRUCT, structure).parts if part.name == name)


EXPECTED = {
    "shorter": 70_000, "longer": 200, "nested": -9, "element": -300, "sign": -3, "tail": 4711, "low": 100, "high": 33,
    "negative": -20, "gone": 55, "changed": 0, "size": 4, "list_size": 3 * 24, "signed_": 1, "unsigned_": 0,
    "no_type_size": 0, "type_exists": 1, "no_type_exists": 0, "type_matches": 1, "no_type_matches": 0,
    "function_matches": 1, "green": 901, "blue": 900, "no_value": 0, "a_value": 1, "wide": 0x77,
}  # fmt: skip
"""What the target's source says: its enumerators, its members' values in the packet, sizes by C's rules."""


@pytest.fixture(scope="module")
def card():
    with bpfnic.Nic("golden") as card:
        yield card


@pytest.mark.parametrize("program", EXPECTED)
def test_a_program_runs_on_another_layout(opened, there, card, program):
    result = card.load(opened, program).test_run(packet_of(there))
    assert result.retval == EXPECTED[program] & 0xFFFF_FFFF


def test_a_store_takes_the_targets_place_and_size(opened, there, card):
    before = packet_of(there)
    at = member(there, "s", "shorter").offset // 8
    after = card.load(opened, "store").test_run(before).data
    assert after == before[:at] + (0x1234).to_bytes(4, "little") + before[at + 4 :]


def test_numbers_of_types(opened, there, card):
    packet, structure = packet_of(there), there.find(Kind.STRUCT, "s")
    assert card.load(opened, "type_id").test_run(packet).retval == structure.number
    assert card.load(opened, "type_size").test_run(packet).retval == structure.size
    assert card.load(opened, "local_id").test_run(packet).retval == opened.btf.find(Kind.STRUCT, "s___mine").number
    assert card.load(opened, "offset").test_run(packet).retval == member(there, "s", "nested").offset // 8


def test_what_can_not_be_satisfied_is_poisoned(opened, there, card):
    """Where it isn't reached, it is harmless; where it is, it doesn't load; if it does, the packet ends."""
    for name in ("gone", "reached"):
        assert POISON in {one.imm for one in opened.program(name).instructions if one}
    with pytest.raises(BpfnicError, match=r"program reached, instruction \d+: call 0xbad2310"):
        card.load(opened, "reached")
    assert card.load(opened, "reached", unsafe=True).test_run(packet_of(there)).cause == Cause.HELPER.name


def test_candidates_must_agree(objects):
    program = open_object(objects[0], types=str(objects[1])).program("same")
    message = r"section 'xdp', offset 0x.*CO-RE relocation of 'struct again' \(0:0\): .*contradict each other.*PROGRAM"
    with pytest.raises(BpfnicError, match=message):
        program.instructions  # noqa: B018


def test_every_kind_is_asked_for(objects):
    from bpfnic.host.btf.extension import read_extension
    from bpfnic.host.elf import Elf

    elf = Elf(objects[0])
    found = read_extension(elf.section(".BTF.ext").data, Btf(elf.section(".BTF").data)).relocations["xdp"]
    assert {one.kind for one in found} == set(CoreKind)


def test_the_same_layout_changes_nothing(objects):
    """But for numbers of types, and bitfields, of which compilers load other bytes."""
    apart = open_object(objects[0], types=str(objects[0]))
    for name in ("shorter", "longer", "element", "size", "tail", "store", "reached", "wide", "same"):
        code = open_object(objects[0]).program(name)
        section = next(one for one in code._linker._elf.sections if one.name == "xdp")
        unit = next(unit for unit in code._linker.units if unit.name == name)
        assert apart.program(name).instructions == code._linker._decoded(section)[unit.start : unit.end]


def test_flavours():
    assert [essential(name) for name in ("s", "s___a", "s___a___b", "___a", "s___", "s____a", "a__b___c")] == [
        "s", "s", "s___a", "___a", "s___", "s____a", "a__b"]  # fmt: skip


LDX, ST, ALU, WIDE = 0x61, 0x62, 0xB7, 0x18


@pytest.mark.parametrize(
    ("instruction", "value", "expected"),
    [
        (Instruction(LDX, 1, 2, 4), Value(8, 4), Instruction(LDX, 1, 2, 8)),
        (Instruction(LDX, 1, 2, 4), Value(8, 4, old_size=4, new_size=8), Instruction(0x79, 1, 2, 8)),
        (Instruction(ST, 1, 0, 4, 5), Value(8, 4, old_size=4, new_size=1), Instruction(0x72, 1, 0, 8, 5)),
        (Instruction(ALU, 1, imm=4), Value((1 << 64) - 2, 4), Instruction(ALU, 1, imm=-2)),
        (Instruction(WIDE, 1, imm=4, next_imm=0), Value(1 << 32 | 5, 4), Instruction(WIDE, 1, imm=5, next_imm=1)),
        (Instruction(ALU, 1, imm=9), Value(7, 4, checked=False), Instruction(ALU, 1, imm=7)),
    ],
)
def test_instructions_are_patched(instruction, value, expected):
    assert patched([instruction, None], 0, value)[0] == expected


@pytest.mark.parametrize(
    ("instruction", "value", "message"),
    [
        (Instruction(LDX, 1, 2, 4), Value(8, 5), "the instruction has 4, where the program's types say 5"),
        (Instruction(ALU, 1, imm=-1), Value(8, 5), "the instruction has -1"),
        (Instruction(LDX, 1, 2, 4), Value(0x8000, 4), "an offset of 32768, above 32767"),
        (Instruction(LDX, 1, 2, 4), Value(8, 4, old_size=2, new_size=8), "accesses 4 bytes of a field of 2"),
        (Instruction(LDX, 1, 2, 4), Value(8, 4, old_size=4, new_size=12), "a field of 12 bytes"),
        (Instruction(0xBF, 1, 2), Value(8, 0), "opcode 0xbf can't be relocated"),
        (Instruction(0x95), Value(8, 0), "opcode 0x95 can't be relocated"),
        (Instruction(WIDE, 1, 1, imm=4, next_imm=0), Value(8, 4), "opcode 0x18 can't be relocated"),
        (None, Value(8, 0), "inside a 16-byte instruction"),
    ],
)
def test_what_does_not_fit_an_instruction(instruction, value, message):
    with pytest.raises(BpfnicError, match=message):
        patched([instruction], 0, value)


def test_both_slots_of_a_wide_instruction_are_poisoned():
    call = Instruction(0x85, imm=POISON)
    assert patched([Instruction(WIDE, 1, imm=4, next_imm=0), None], 0, Value(None)) == [call, call]
    assert patched([Instruction(LDX, 1, 2, 4)], 0, Value(8, 4, old_size=4, new_size=8, resizable=False)) == [call]


# What the NIC has.

CONTEXT = HEAD + """
struct xdp_md___short { __u32 data_end, data, gone; } __attribute__((preserve_access_index));
struct task_struct { int pid; } __attribute__((preserve_access_index));
SEC("xdp") int program(struct xdp_md___short *ctx)
{
	if (bpf_core_field_exists(ctx->gone))
		return ctx->gone;
	if (bpf_core_type_exists(struct task_struct))
		return XDP_DROP;
	return ctx->data_end - ctx->data == 100 ? XDP_PASS : XDP_TX;
}
"""


def test_by_default_types_are_the_nics(build, tmp_path):
    """It has contexts and headers, and no tasks."""
    with bpfnic.Nic("golden") as card:
        path = written(tmp_path, CONTEXT, "context")
        assert card.load(bpfnic.open(path), "program").test_run(bytes(100)).action.name == "XDP_PASS"


@pytest.mark.linux
def test_the_kernels_types_in_the_kernel_and_here(tmp_path):
    path = written(tmp_path, CONTEXT, "context")
    for types, expected in ((NIC, "XDP_PASS"), ("kernel", "XDP_DROP")):
        for backend in ("linux", "golden"):
            with bpfnic.Nic(backend) as card:
                program = card.load(bpfnic.open(path, types=types), "program")
                assert program.test_run(bytes(100)).action.name == expected


@pytest.mark.linux
def test_the_kernel_refuses_what_reaches_poison(objects, tmp_path):
    """And takes a program that has it where it isn't reached."""
    with bpfnic.Nic("linux") as card:
        opened = open_object(objects[0], types=str(objects[1]))
        assert card.load(opened, "gone").test_run(bytes(200)).retval == 55
        with pytest.raises(BpfnicError, match="invalid func unknown#195896080"):
            card.load(opened, "reached")


@pytest.mark.linux
def test_the_nics_types_are_laid_out_as_the_kernels():
    """Each structure of firmware/types/nic.bpf.c whose name the kernel has: its size, and its members' places."""
    kernel, compared = target("kernel"), 0
    for type in target(NIC):
        other = kernel.find(type.kind, type.name)
        if type.kind is Kind.STRUCT and type.name and other and other.parts:
            assert other.size == type.size, type.name
            there = {part.name: (part.offset, part.bits) for part in other.parts if part.name}
            for part in type.parts:
                if part.name in there:
                    assert there[part.name] == (part.offset, part.bits), (type.name, part.name)
                    compared += 1
    assert compared > 150


def test_the_command_line_says_which_types(bpfnic, run, objects, tmp_path):
    path = written(tmp_path, CONTEXT, "context")
    kernel = [Type(1, Kind.STRUCT, "task_struct"), Type(2, Kind.STRUCT, "xdp_md")]
    (tmp_path / "kernel").write_bytes(encode(kernel))
    for types, dropped in (([], False), (["--btf", "nic"], False), (["--btf", tmp_path / "kernel"], True)):
        status, out, _ = run(path, *types, "--json")
        assert status == 0 and ({"XDP_DROP"} == set(json.loads(out)["packets"]["verdicts"])) is dropped
    status, _, err = run(path, "--btf", tmp_path / "nowhere")
    assert status == 2 and "nowhere: No such file" in err
    status, out, _ = bpfnic("verify", objects[0], "--program", "reached", "--btf", objects[1])
    assert status == 1 and "invalid func unknown#195896080" in out
    status, out, _ = bpfnic("dump", objects[0], "--program", "gone", "--btf", objects[1])
    assert status == 0 and "call 0xbad2310" in out and "a CO-RE relocation that found nothing" in out
    status, out, _ = bpfnic("verify", objects[0], "--program", "gone", "--btf", objects[1])
    assert status == 0, out


def test_a_relocation_of_an_unknown_kind(objects):
    from bpfnic.host.btf.extension import CoreRelocation
    from bpfnic.host.btf.relocate import Relocator

    types = open_btf(objects[0])
    structure = types.find(Kind.STRUCT, "s___mine").number
    relocator = Relocator(types, types)
    good = CoreRelocation(0, structure, "0:0", 0)
    assert relocator.value(good).new == 0
    for change, message in (
        ({"kind": 13}, "a CO-RE relocation of unknown kind 13"),
        ({"access": "0:x"}, "an access '0:x', which is no list of numbers"),
        ({"access": ""}, "an access '', which is no list"),
        ({"access": "0:99"}, "no member 99 in struct s___mine"),
        ({"access": "0:0:1"}, "no member 1 in unsigned short"),
        ({"access": "0:1", "kind": 8}, "an access '0:1', where a type alone is asked for"),
        ({"access": "0", "kind": 10}, "no enumerator 0 in struct s___mine"),
        ({"type": 99_999}, "there is no type 99999"),
    ):
        with pytest.raises(BpfnicError, match=message):
            relocator.value(dataclasses.replace(good, **change))
