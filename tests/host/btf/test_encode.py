"""Types written and read again; merged graphs. The compiler's and the running kernel's types are the input, and bytes
written by hand where neither writes them."""

import dataclasses
from pathlib import Path

import pytest

from bpfnic.host.btf import VOID, Btf, Kind, Part, Type
from bpfnic.host.btf.encode import Strings, encode, encode_extension, encode_object
from bpfnic.host.btf.extension import Extension, read_extension
from bpfnic.host.btf.merge import merge
from bpfnic.host.elf import Elf
from bpfnic.spec.errors import BpfnicError

INT = Type(1, Kind.INT, "int", 4, detail=1 << 24 | 32)
KERNEL = Path("/sys/kernel/btf/vmlinux")

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
enum e { MINUS = -1, PLUS = 1 };
enum wide { SMALL = -5, LARGE = 0x123456789abcLL };
struct node { struct node *next; int a : 3, b : 5; enum e e; enum wide w; float f; } node;
int __attribute__((btf_decl_tag("noted"))) noted;
struct { int x __attribute__((btf_decl_tag("part"))); } parts;
__attribute__((btf_type_tag("user"))) int *volatile tagged;
int (*function)(const char *restrict text, ...);
struct undefined *pointer;
SEC("xdp") int program(struct xdp_md *ctx) { return __builtin_preserve_access_index(({ ctx->data; })) + !pointer; }
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="module")
def elf(build):
    return Elf(build(SOURCE).path)


def sections(elf):
    types = Btf(elf.section(".BTF").data).read_all()
    return types, read_extension(elf.section(".BTF.ext").data, types)


@pytest.mark.parametrize("order", "<>")
def test_what_is_written_is_read_again(elf, order):
    types, extension = sections(elf)
    assert all((extension.functions, extension.lines, extension.relocations))
    written, behind = encode_object(list(types), extension, order)
    assert written[:2] == (b"\x9f\xeb" if order == "<" else b"\xeb\x9f")
    read = Btf(written).read_all()
    assert list(read) == list(types)
    assert read_extension(behind, read) == extension


@pytest.mark.skipif(not KERNEL.exists(), reason="the running kernel shows no BTF")
def test_the_kernels_types_are_written_as_they_are():
    types = Btf(KERNEL.read_bytes(), str(KERNEL))
    some = [types[number] for number in range(1, 20_000)]
    other = {type.number for type in some if max(type.references(), default=0) >= 20_000}
    some = [dataclasses.replace(INT, number=type.number) if type.number in other else type for type in some]
    assert list(Btf(encode(some))) == some


def test_a_graph_builds_upon_another():
    """Numbers and strings go on where those of the base end."""
    base = Btf(encode([Type(1, Kind.INT, "int", 4, detail=1 << 24 | 32)]))
    more = [Type(2, Kind.PTR, "", target=1), Type(3, Kind.STRUCT, "pair", 16, parts=(
        Part("first", 2), Part("int", 1, offset=64)))]  # fmt: skip
    split = Btf(encode(more, base=base), base=base).read_all()
    assert (list(split), len(split), split[1]) == (more, 4, base[1])
    assert split.find(Kind.INT, "int") == base[1] and split.describe(2) == "int *"
    assert split.find(Kind.STRUCT, "pair") == more[1]
    assert Btf(encode([], base=base), base=base).read_all().size(1) == 4


def test_strings_stand_once():
    strings = Strings()
    assert [strings(text) for text in ("", "one", "two", "one")] == [0, 1, 5, 1]
    assert bytes(strings) == b"\0one\0two\0"


def merged(*lists):
    return merge([Btf(encode(types)) for types in lists])


def node(member="int"):
    """struct node { struct node *next; int member; }"""
    return [INT, Type(2, Kind.STRUCT, "node", 16, parts=(Part("next", 3), Part(member, 1, offset=64))),
            Type(3, Kind.PTR, "", target=2)]  # fmt: skip


def test_equal_loops_become_one():
    turned = [Type(1, Kind.PTR, "", target=3), Type(2, Kind.INT, "int", 4, detail=1 << 24 | 32),
              Type(3, Kind.STRUCT, "node", 16, parts=(Part("next", 1), Part("int", 2, offset=64)))]  # fmt: skip
    result = merged(node(), turned)
    assert result.types == node()
    assert result.numbers == [{0: 0, 1: 1, 2: 2, 3: 3}, {0: 0, 1: 3, 2: 1, 3: 2}]


def test_loops_that_differ_stay_apart():
    result = merged(node(), node("other"))
    assert result.numbers[1] == {0: 0, 1: 1, 2: 4, 3: 5}
    assert result.types[4] == Type(5, Kind.PTR, "", target=4)


def test_a_declaration_is_the_one_definition():
    declared = [Type(1, Kind.FWD, "node"), Type(2, Kind.PTR, "", target=1)]
    result = merged(declared, node())
    assert [type.kind for type in result.types] == [Kind.PTR, Kind.INT, Kind.STRUCT]
    assert result.types[0].target == result.numbers[0][1] == result.numbers[1][2] == 3
    assert result.numbers[0][2] == result.numbers[1][3] == 1


def test_a_declaration_with_two_definitions_stays():
    result = merged([Type(1, Kind.FWD, "node")], node(), node("other"))
    assert [type.kind for type in result.types].count(Kind.FWD) == 1
    union = dataclasses.replace(Type(1, Kind.FWD, "node"), flag=True)  # of a union, which a struct doesn't define
    assert [type.kind for type in merged([union], node()).types].count(Kind.FWD) == 1


def test_variables_stay_apart_and_sections_go():
    section = Type(3, Kind.DATASEC, ".bss", 4, parts=(Part("", 2, size=4),))
    one = [INT, Type(2, Kind.VAR, "x", target=1), section]
    result = merged(one, one)
    assert [type.kind for type in result.types] == [Kind.INT, Kind.VAR, Kind.VAR]
    assert result.numbers[1] == {VOID: VOID, 1: 1, 2: 3}


def test_nothing_refers_to_a_section():
    section = Type(2, Kind.DATASEC, ".bss", 4)
    with pytest.raises(BpfnicError, match="type 3 '' refers to section 2"):
        merged([INT, section, Type(3, Kind.PTR, "", target=2)])


def test_one_graph_merged_with_itself_is_itself(elf):
    """But for variables, and the tags on them."""
    types, _ = sections(elf)
    apart = {type.number for type in types if type.kind is Kind.VAR}
    apart |= {type.number for type in types if type.kind is Kind.DECL_TAG and type.target in apart}
    once, twice = merge([types]), merge([types, types])
    assert len(once.types) == sum(type.kind is not Kind.DATASEC for type in types)
    assert twice.types[: len(once.types)] == once.types
    assert len(twice.types) == len(once.types) + len(apart)
    assert [old for old, number in twice.numbers[1].items() if number != twice.numbers[0][old]] == sorted(apart)


def test_a_table_without_records_is_not_written():
    types = Btf(encode([INT]))
    behind = encode_extension(Extension(), Strings())
    assert len(behind) == 32 and read_extension(behind, types) == Extension()
