"""`bpfnic btf dump` of what the kernel holds, of modules and of objects that bring their base along, and as JSON."""

import json
import os
import shutil
import struct
import subprocess

import pytest

from bpfnic.host.btf import Btf, Kind, Part, Type
from bpfnic.host.btf import target as targets
from bpfnic.host.btf.encode import encode
from bpfnic.host.elfwriter import OutSection, write
from bpfnic.host.linux import bpf, functions, objects
from bpfnic.spec.assembly import assemble
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import ProgramType
from tests.host.btf.graph import TYPES
from tests.host.btf.test_values import SOURCE

BPFTOOL = shutil.which("bpftool")
KEYED = [
    Type(1, Kind.INT, "key", 4, detail=32),
    Type(2, Kind.STRUCT, "value", 8, parts=(Part("first", 1), Part("second", 1, offset=32))),
    Type(3, Kind.INT, "unused", 8, detail=64),
]


@pytest.fixture
def held():
    """Descriptors that are closed in the end, each with the id of its BTF."""
    descriptors = []

    def held(fd):
        descriptors.append(fd)
        return fd

    yield held
    for fd in descriptors:
        os.close(fd)


def id_of(fd, at=4):
    """Of a map or program; at 12 of BTF."""
    return struct.unpack_from("=I", objects._info(fd, 32), at)[0]


@pytest.mark.linux
def test_types_that_the_kernel_holds(bpfnic, held, tmp_path):
    types = held(bpf.btf_load(encode(KEYED)))
    (tmp_path / "types.btf").write_bytes(encode(KEYED))
    expected = bpfnic("btf", "dump", "file", tmp_path / "types.btf")[1]
    lines = expected.splitlines(keepends=True)
    assert bpfnic("btf", "dump", "id", id_of(types, 12)) == (0, expected, "")
    fd = held(bpf.map_create(MapType.ARRAY, 4, 8, 1, name="bpfnic_keyed", btf_fd=types, btf_key=1, btf_value=2))
    for words, text in [
        ([], expected), (["all"], expected), (["key"], lines[0]), (["value"], "".join(lines[1:4])),
        (["kv"], "".join(lines[:4])), (["k", "format", "raw"], lines[0]),
    ]:  # fmt: skip
        assert bpfnic("btf", "dump", "map", "id", id_of(fd), *words) == (0, text, ""), words
    assert bpfnic("btf", "dump", "map", "name", "bpfnic_keyed", "val")[1] == "".join(lines[1:4])


@pytest.mark.linux
def test_types_of_programs_and_maps_without(bpfnic, held):
    types = held(bpf.btf_load(functions.BTF))
    program = assemble("call pc+1\nexit\nr0 = 0\nexit")
    records = functions.records([0, 2])
    fd, _ = bpf.prog_load(ProgramType.XDP, program, name="bpfnic_typed", btf_fd=types, functions=records)
    held(fd)
    tag = objects._info(fd, 32)[8:16].hex()
    for words in (["id", id_of(fd)], ["name", "bpfnic_typed"], ["tag", tag]):
        status, out, err = bpfnic("btf", "dump", "prog", *words)
        assert (status, err) == (0, "") and "FUNC 'function' type_id=2 linkage=static" in out
    other = held(bpf.map_create(MapType.ARRAY, 4, 8, 1, name="bpfnic_bare"))
    again = held(bpf.map_create(MapType.ARRAY, 4, 8, 1, name="bpfnic_bare"))
    assert other != again
    for words, why in [
        (["map", "id", id_of(other)], f"map id {id_of(other)}: was loaded without types"),
        (["map", "name", "bpfnic_bare"], "map name bpfnic_bare: 2 of them: choose one by its id"),
        (["map", "name", "bpfnic_none"], "map name bpfnic_none: the kernel has no such map"),
        (["prog", "id", "4000000000"], "prog id 4000000000: No such file or directory"),
        (["map", "pinned", "/nowhere"], "map pinned /nowhere: No such file or directory"),
    ]:
        assert bpfnic("btf", "dump", *words) == (2, "", f"bpfnic: btf dump: {why}\n")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "begins with file, id, prog or map"),
        (["colour"], "begins with file, id, prog or map, not 'colour'"),
        (["id"], "nothing follows id"),
        (["id", "-1"], "id '-1' is no number"),
        (["prog", "7"], "prog is chosen by id, name, tag or pinned, not '7'"),
        (["prog", "tag", "12"], "tag '12' is not 16 hexadecimal digits"),
        (["map", "tag", "12"], "map is chosen by id, name or pinned, not 'tag'"),
    ],
)
def test_words_that_say_nothing(bpfnic, words, why):
    assert bpfnic("btf", "dump", "--", *words) == (2, "", f"bpfnic: btf dump: {why}\n")


def split(base):
    """Types that build upon a graph: a structure that holds its first integer."""
    number = len(base) + 1
    return encode([Type(number, Kind.STRUCT, "upon", 4, parts=(Part("inner", 1),))], base=Btf(encode(base)))


def test_an_object_brings_its_base_along(bpfnic, tmp_path):
    """.BTF.base, as modules of out-of-tree builds have it: types are numbered from where it ends."""
    distilled = KEYED[:1]
    sections = [OutSection(name, align=4, data=bytearray(data))
                for name, data in ((".BTF", split(distilled)), (".BTF.base", encode(distilled)))]  # fmt: skip
    path = tmp_path / "module.ko"
    path.write_bytes(write(sections, []))
    text = "[2] STRUCT 'upon' size=4 vlen=1\n\t'inner' type_id=1 bits_offset=0\n"
    assert bpfnic("btf", "dump", "file", path) == (0, text, "")
    assert bpfnic("btf", "dump", "file", path, "format", "c")[1].count("key inner;") == 1


MODULES = [  # upon DISTILLED, of five types
    Type(6, Kind.STRUCT, "holder", 24, parts=(
        Part("number", 1), Part("inner", 2, offset=32), Part("far", 7, offset=64), Part("way", 4, offset=128),
        Part("either", 8, offset=160))),
    Type(7, Kind.PTR, "", target=3),
    Type(8, Kind.TYPEDEF, "also", target=5),
]  # fmt: skip
DISTILLED = [
    Type(1, Kind.INT, "int", 4, detail=1 << 24 | 32),
    Type(2, Kind.STRUCT, "embedded", 4),
    Type(3, Kind.FWD, "pointed"),
    Type(4, Kind.ENUM, "ways", 4),
    Type(5, Kind.UNION, "either", 4),
]
KERNEL = [
    Type(1, Kind.UNION, "either", 4),
    Type(2, Kind.INT, "char", 1, detail=1 << 24 | 8),
    Type(3, Kind.INT, "int", 4, detail=1 << 24 | 32),
    Type(4, Kind.STRUCT, "pointed", 4, parts=(Part("first", 3),)),
    Type(5, Kind.ENUM, "ways", 4, parts=(Part("NORTH", value=1),)),
    Type(6, Kind.STRUCT, "embedded", 4, parts=(Part("only", 3),)),
    Type(7, Kind.STRUCT, "more", 4, parts=(Part("only", 3),)),
]


def module(path, distilled=DISTILLED):
    """An object with MODULES upon a base that it brings along."""
    base = encode(distilled)
    sections = {".BTF": encode(MODULES, base=Btf(base)), ".BTF.base": base}
    path.write_bytes(write([OutSection(name, align=4, data=bytearray(data)) for name, data in sections.items()], []))
    return path


def test_a_distilled_base_gives_way_to_the_kernels_types(bpfnic, tmp_path):
    path, base = module(tmp_path / "module.ko"), tmp_path / "kernel.btf"
    base.write_bytes(encode(KERNEL))
    text = """\
[8] STRUCT 'holder' size=24 vlen=5
\t'number' type_id=3 bits_offset=0
\t'inner' type_id=6 bits_offset=32
\t'far' type_id=9 bits_offset=64
\t'way' type_id=5 bits_offset=128
\t'either' type_id=10 bits_offset=160
[9] PTR '(anon)' type_id=4
[10] TYPEDEF 'also' type_id=1
"""
    assert bpfnic("btf", "dump", "--base-btf", base, "file", path) == (0, text, "")


@pytest.mark.parametrize(
    "changed, why",
    [
        ({6: Type(6, Kind.STRUCT, "embedded", 8)},
         "STRUCT 'embedded' of 4 bytes (.BTF.base, type 2), of which {} has none"),
        ({3: Type(3, Kind.INT, "int", 4, detail=32)}, "INT 'int' of 4 bytes (.BTF.base, type 1), of which {} has none"),
        ({4: Type(4, Kind.UNION, "pointed", 4)}, "FWD 'pointed' of 0 bytes (.BTF.base, type 3), of which {} has none"),
        ({5: Type(5, Kind.ENUM, "ways", 1)}, "ENUM 'ways' of 4 bytes (.BTF.base, type 4), of which {} has none"),
        ({7: Type(7, Kind.STRUCT, "embedded", 4)},
         "STRUCT 'embedded' of 4 bytes (.BTF.base, type 2), of which {} has 2 (types 6, 7)"),
    ],
)  # fmt: skip
def test_a_distilled_type_must_be_one_of_the_kernels(bpfnic, tmp_path, changed, why):
    """An embedded structure by name and size, an integer by its sign, too, a declaration by what it declares."""
    path, base = module(tmp_path / "module.ko"), tmp_path / "kernel.btf"
    base.write_bytes(encode([changed.get(type.number, type) for type in KERNEL]))
    said = f"bpfnic: {path}: .BTF: builds upon {why.format(base)}\n"
    assert bpfnic("btf", "dump", "--base-btf", base, "file", path) == (2, "", said)


def test_of_structures_of_one_name_the_size_tells(bpfnic, tmp_path):
    """As it does of one that is embedded."""
    path, base = module(tmp_path / "module.ko"), tmp_path / "kernel.btf"
    base.write_bytes(encode([*KERNEL[:6], Type(7, Kind.UNION, "either", 8)]))
    status, out, err = bpfnic("btf", "dump", "--base-btf", base, "file", path)
    assert (status, err) == (0, "") and "TYPEDEF 'also' type_id=1\n" in out


def test_a_modules_types_build_upon_the_kernels(bpfnic, tmp_path, monkeypatch):
    (tmp_path / "vmlinux").write_bytes(encode(KEYED))
    (tmp_path / "veth").write_bytes(split(KEYED))
    monkeypatch.setattr(targets, "KERNELS", tmp_path / "vmlinux")
    types = targets.open_btf(tmp_path / "veth")
    assert [(type.number, type.name, types[type.parts[0].type].name) for type in types] == [(4, "upon", "key")]


def test_json_says_what_raw_says(bpfnic, tmp_path):
    """Each field of a line, by its name; numbers as they are."""
    (tmp_path / "types.btf").write_bytes(encode(TYPES))
    shown = json.loads(bpfnic("btf", "dump", "-j", "file", tmp_path / "types.btf")[1])["types"]
    assert [each["id"] for each in shown] == [type.number for type in TYPES]
    by_name = {each["name"]: each for each in shown}
    assert by_name["holes"]["members"][2] == {"name": "bits", "type_id": 2, "bits_offset": 128, "bitfield_size": 20}
    assert by_name["color"] == {
        "id": 10, "kind": "ENUM", "name": "color", "encoding": "SIGNED", "size": 4, "vlen": 2,
        "values": [{"name": "RED", "val": -1}, {"name": "GREEN", "val": 5}]}  # fmt: skip
    assert by_name[".bss"]["vars"][1] == {"type_id": 39, "offset": 8, "size": 24}
    assert by_name["second"] == {"id": 33, "kind": "DECL_TAG", "name": "second", "type_id": 5, "component_idx": 1}
    assert json.loads(bpfnic("btf", "dump", "-j", "file", tmp_path / "types.btf", "root_id", 3)[1])["types"] == [
        {"id": 3, "kind": "INT", "name": "char", "size": 1, "bits_offset": 0, "nr_bits": 8, "encoding": "SIGNED"}]
    status, out, err = bpfnic("btf", "dump", "-j", "file", tmp_path / "types.btf", "format", "c")
    assert (status, out, err.count("\n")) == (2, "", 1) and "C is no JSON" in err


PRETTY = """\
{
    "types": [{
            "id": 10,
            "kind": "ENUM",
            "name": "color",
            "encoding": "SIGNED",
            "size": 4,
            "vlen": 2,
            "values": [{
                    "name": "RED",
                    "val": -1
                },{
                    "name": "GREEN",
                    "val": 5
                }
            ]
        },{
            "id": 3,
            "kind": "INT",
            "name": "char",
            "size": 1,
            "bits_offset": 0,
            "nr_bits": 8,
            "encoding": "SIGNED"
        }
    ]
}
"""
"""As json_writer.c of the kernel's tools lays it out: what begins a list or follows in it stays in its line."""


def test_pretty_json_has_a_line_for_each_member(bpfnic, tmp_path):
    (tmp_path / "types.btf").write_bytes(encode(TYPES))
    asked = ("btf", "dump", "-p", "file", tmp_path / "types.btf")
    assert bpfnic(*asked, "root_id", 10, "root_id", 3)[1] == PRETTY
    assert json.loads(bpfnic(*asked)[1]) == json.loads(bpfnic("btf", "dump", "-j", *asked[3:])[1])
    (tmp_path / "none.btf").write_bytes(encode([]))
    assert bpfnic("btf", "dump", "-p", "file", tmp_path / "none.btf")[1] == '{\n    "types": []\n}\n'
    status, out, err = bpfnic(*asked, "format", "c")
    assert (status, out, err.count("\n")) == (2, "", 1) and "C is no JSON" in err


@pytest.mark.parametrize("option", ["-j", "-p"])
@pytest.mark.skipif(not BPFTOOL, reason="bpftool isn't installed")
def test_json_is_what_bpftool_prints(bpfnic, build, option):
    path = build(SOURCE).path
    said = subprocess.run([BPFTOOL, option, "btf", "dump", "file", path], capture_output=True, check=True)
    assert bpfnic("btf", "dump", option, "file", path)[1] == said.stdout.decode()
