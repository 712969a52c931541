"""Which type graphs Linux takes: the running kernel is the judge of each verdict (BPF_BTF_LOAD)."""

import os
import random
import struct
from dataclasses import replace

import pytest

from bpfnic.host.btf import VOID, Btf, Kind, Part, Type
from bpfnic.host.btf.check import check
from bpfnic.host.btf.encode import encode
from bpfnic.host.btf.sections import laid_out
from bpfnic.host.elf import Elf
from bpfnic.host.linux import bpf
from bpfnic.spec.errors import BpfnicError
from tests.host.btf.graph import SIGNED, TYPES
from tests.host.btf.graphs import damaged, graph_bytes
from tests.host.btf.test_values import SOURCE

INT = Type(1, Kind.INT, "int", 4, detail=SIGNED | 32)
PROTO = Type(2, Kind.FUNC_PROTO, "", target=1)


def two(kind, name="", **fields):
    """A second type behind INT."""
    return [INT, Type(2, kind, name, **fields)]


def composite(kind, *parts, size=8, flag=False):
    return [INT, Type(2, kind, "s", size, flag=flag, parts=parts)]


def chain(length):
    """So many qualifiers, each of the next."""
    return [*(Type(n, Kind.CONST, "", target=n + 1) for n in range(1, length + 1)), replace(INT, number=length + 1)]


TAKEN = {
    "many kinds": TYPES[:37],
    "a name of 512 letters": [INT, Type(2, Kind.TYPEDEF, "x" * 512, target=1)],
    "a structure that points to itself": [Type(1, Kind.PTR, "", target=2), Type(2, Kind.STRUCT, "s", 8, parts=(
        Part("self", 1),))],
    "31 qualifiers": chain(31),
    "a name with a dot": [replace(INT), Type(2, Kind.TYPEDEF, "a.b", target=1)],
    "a section with any name": [INT, Type(2, Kind.VAR, "v", target=1), Type(3, Kind.DATASEC, "?a b/c", 4, parts=(
        Part("", 2, size=4),))],
    "a tag with kind_flag": two(Kind.TYPE_TAG, "noderef", target=1, flag=True),
    "an array without elements at the end": [
        INT, Type(2, Kind.ARRAY, "", target=1, index=1),
        Type(3, Kind.STRUCT, "s", 4, parts=(Part("a", 1), Part("rest", 2, offset=32)))],
}  # fmt: skip

REFUSED = {
    "an INT of too many bits": ([replace(INT, detail=33)], "33 bits in 4 bytes"),
    "an INT with two encodings": ([replace(INT, detail=3 << 24 | 32)], "encoding 3"),
    "an INT with kind_flag": ([replace(INT, flag=True)], "kind_flag, which it can't have"),
    "a PTR with a name": (two(Kind.PTR, "p", target=1), "a name, which it can't have"),
    "a TYPEDEF without": (two(Kind.TYPEDEF, target=1), "no name"),
    "a name that C can't have": (two(Kind.TYPEDEF, "1st", target=1), "no name that C could have"),
    "a name of 513 letters": (two(Kind.TYPEDEF, "x" * 513, target=1), "no name that C could have"),
    "a reference to nothing": ([Type(1, Kind.PTR, "", target=2)], "refers to type 2, of 2"),
    "a FLOAT of 3 bytes": (two(Kind.FLOAT, "f", size=3), "a size of 3 bytes"),
    "an ENUM of 3 bytes": (two(Kind.ENUM, "e", size=3), "a size of 3 bytes"),
    "an enumerator without name": (two(Kind.ENUM, "e", size=4, parts=(Part(""),)), "enumerator '' is no name"),
    "a member behind its structure": (composite(Kind.STRUCT, Part("m", 1, offset=72)), "at bit 72, behind its 8 bytes"),
    "a member that reaches beyond": (composite(Kind.STRUCT, Part("m", 1, offset=48)), "reaches beyond its 8 bytes"),
    "members out of order": (composite(Kind.STRUCT, Part("a", 1, offset=32), Part("b", 1)), "before the one in front"),
    "a member of a union not at 0": (composite(Kind.UNION, Part("m", 1, offset=8)), "of a union at bit 8"),
    "a member of type void": (composite(Kind.STRUCT, Part("m", VOID)), "of type void"),
    "a bitfield wider than its INT": (
        composite(Kind.STRUCT, Part("m", 1, bits=33), flag=True), "33 bits of an INT of 32"),
    "a bitfield of a FLOAT": (
        [Type(1, Kind.FLOAT, "float", 4), *composite(Kind.STRUCT, Part("m", 1, bits=3), flag=True)[1:]],
        "a bitfield of FLOAT"),
    "a FLOAT that isn't aligned": (
        [Type(1, Kind.FLOAT, "float", 4), *composite(Kind.STRUCT, Part("m", 1, offset=8))[1:]], "begins at bit 8"),
    "a structure in itself": ([Type(1, Kind.STRUCT, "s", 8, parts=(Part("self", 1),))], "a loop"),
    "a CONST of itself": ([Type(1, Kind.CONST, "", target=1)], "a loop"),
    "a PTR to itself": ([Type(1, Kind.PTR, "", target=1)], "a loop"),
    "33 qualifiers": (chain(33), "more than 32 types deep"),
    "an array of void": (two(Kind.ARRAY, index=1, count=1), "an element or index of type void"),
    "an array with an index of structures": (
        [Type(1, Kind.STRUCT, "s", 4), Type(2, Kind.ARRAY, "", target=1, index=1, count=1)], "index of type 1"),
    "an array above 4 GiB": (two(Kind.ARRAY, target=1, index=1, count=1 << 30), "4294967296 bytes"),
    "an array of a declaration": (
        [INT, Type(2, Kind.FWD, "f"), Type(3, Kind.ARRAY, "", target=2, index=1, count=1)], "element of type 2"),
    "a FUNC of an INT": (two(Kind.FUNC, "f", target=1), "refers to type 1 (INT)"),
    "an extern FUNC": ([INT, PROTO, Type(3, Kind.FUNC, "f", target=2, detail=2)], "linkage 2"),
    "a FUNC whose parameter has no name": (
        [INT, replace(PROTO, parts=(Part("", 1),)), Type(3, Kind.FUNC, "f", target=2)], "parameter 0 has no name"),
    "a parameter that has no size": (
        [INT, Type(2, Kind.FWD, "f"), Type(3, Kind.FUNC_PROTO, "", parts=(Part("p", 2),))], "parameter 0 of type 2"),
    "a result that has no size": (
        [Type(1, Kind.FWD, "f"), Type(2, Kind.FUNC_PROTO, "", target=1)], "a result of type 1"),
    "a void parameter with a name": (
        two(Kind.FUNC_PROTO, target=1, parts=(Part("p", VOID),)), "a last parameter of type"),
    "a VAR of void": (two(Kind.VAR, "v"), "a variable of type void"),
    "an extern VAR": (two(Kind.VAR, "v", target=1, detail=2), "linkage 2"),
    "a PTR to a VAR": (
        [INT, Type(2, Kind.VAR, "v", target=1), Type(3, Kind.PTR, "", target=2)], "refers to VAR 2"),
    "a section of 0 bytes": (two(Kind.DATASEC, ".bss"), "a section of 0 bytes"),
    "a section of an INT": (two(Kind.DATASEC, ".bss", size=4, parts=(Part("", 1, size=4),)), "is no variable"),
    "variables that overlap": (
        [INT, Type(2, Kind.VAR, "v", target=1), Type(3, Kind.DATASEC, ".bss", 8, parts=(
            Part("", 2, size=4), Part("", 2, offset=2, size=4)))], "a variable at byte 2, in front of 4"),
    "a variable that is too small": (
        [INT, Type(2, Kind.VAR, "v", target=1), Type(3, Kind.DATASEC, ".bss", 8, parts=(Part("", 2, size=2),))],
        "2 bytes for variable 'v'"),
    "a tag on an INT": (two(Kind.DECL_TAG, "t", target=1, detail=0xFFFF_FFFF), "refers to type 1 (INT)"),
    "a tag on a part that isn't there": (
        [Type(1, Kind.STRUCT, "s", 0), Type(2, Kind.DECL_TAG, "t", target=1, detail=0)], "component 0 of 0"),
    "a tag behind a qualifier": (
        [INT, Type(2, Kind.TYPE_TAG, "t", target=1), Type(3, Kind.CONST, "", target=2)], "a tag behind another"),
    "no types": ([], "no types"),
}  # fmt: skip


def taken_by_the_kernel(data):
    try:
        os.close(bpf.btf_load(data))
        return True
    except bpf.Refused:
        return False


def taken(data):
    try:
        check(data)
        return True
    except BpfnicError:
        return False


@pytest.mark.parametrize("name", TAKEN)
def test_what_linux_takes(name):
    check(encode(TAKEN[name]))


@pytest.mark.parametrize("name", REFUSED)
def test_what_linux_refuses(name):
    types, message = REFUSED[name]
    with pytest.raises(BpfnicError) as refused:
        check(encode(types))
    assert str(refused.value).startswith(".BTF") and message in str(refused.value)


@pytest.mark.linux
def test_the_kernel_says_the_same_of_each_rule():
    assert not [name for name, types in TAKEN.items() if not taken_by_the_kernel(encode(types))]
    assert not [name for name, (types, _) in REFUSED.items() if taken_by_the_kernel(encode(types))]


HEADER = struct.Struct("<HBB5I")


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 0xEB9E, "does not begin"),
        (1, 2, "BTF version 2"),
        (2, 1, "flags 0x1"),
        (3, 20, "must fill"),
        (4, 2, "types begin at byte 2"),
        (5, 12, "must fill"),
        (6, 0, "must fill"),
        (7, 3, "must fill"),
    ],
)
@pytest.mark.linux
def test_headers(place, value, message):
    data = encode([INT])
    fields = list(HEADER.unpack_from(data))
    fields[place] = value
    data = HEADER.pack(*fields) + data[HEADER.size :]
    with pytest.raises(BpfnicError, match=message):
        check(data)
    assert not taken_by_the_kernel(data)


@pytest.mark.linux
def test_the_kernel_says_the_same_of_random_graphs():
    """One in three damaged. docs/btf.md has the count of a longer run."""
    verdicts = [0, 0]
    for seed in range(400):
        data = graph_bytes(random.Random(seed))
        assert taken(data) == taken_by_the_kernel(data), seed
        verdicts[taken(data)] += 1
    assert min(verdicts) > 30


@pytest.fixture(scope="module")
def compiled(build):
    return Elf(build(SOURCE).path)


@pytest.mark.linux
def test_the_kernel_says_the_same_of_damaged_real_types(compiled):
    """Of clang's types, as loaders lay out their variables, whole and damaged."""
    data = encode(list(laid_out(list(Btf(compiled.section(".BTF").data)), compiled)))
    assert taken(data) and taken_by_the_kernel(data)
    verdicts = [0, 0]
    for seed in range(200):
        other = damaged(random.Random(seed), data)
        assert taken(other) == taken_by_the_kernel(other), seed
        verdicts[taken(other)] += 1
    assert min(verdicts) > 10


def test_variables_are_laid_out_as_in_the_file(compiled, build):
    types = list(laid_out(list(Btf(compiled.section(".BTF").data)), compiled))
    section = next(type for type in types if type.kind is Kind.DATASEC and type.name == ".data")
    assert section.size == compiled.section(".data").size
    places = {types[part.type - 1].name: part.offset for part in section.parts}
    symbols = {one.name: one.value for one in compiled.symbols if one.kind == "STT_OBJECT"}
    assert places and all(symbols[name] == offset for name, offset in places.items())


def test_a_section_that_a_damaged_file_makes_too_large(build, tmp_path):
    """.bss says how large it is without being so."""
    raw = bytearray(build(SOURCE + "int zeros[4];").path.read_bytes())
    section = Elf(build(SOURCE + "int zeros[4];").path).section(".bss")
    (headers,) = struct.unpack_from("<Q", raw, 40)
    struct.pack_into("<Q", raw, headers + 64 * section.number + 32, 1 << 40)
    (tmp_path / "large.o").write_bytes(raw)
    elf = Elf(tmp_path / "large.o")
    with pytest.raises(BpfnicError, match=r"large.o: section '.bss': 1099511627776 bytes, above"):
        list(laid_out(list(Btf(elf.section(".BTF").data)), elf))


def test_the_command(bpfnic, build, tmp_path):
    path = build(SOURCE).path
    assert bpfnic("btf", "check", "file", path) == (0, f"{path}: .BTF: Linux takes these types\n", "")
    bad = tmp_path / "bad.btf"
    bad.write_bytes(encode([Type(1, Kind.PTR, "p", target=1)]))
    assert bpfnic("btf", "check", "f", bad) == (1, f"{bad}: type 1 (PTR 'p'): a name, which it can't have\n", "")
    for words, message in (((), "takes `file FILE`"), (("file",), "takes"), (("file", tmp_path), "directory")):
        status, out, err = bpfnic("btf", "check", *words)
        assert (status, out) == (2, "") and message in err
