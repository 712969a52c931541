"""`bpfnic btf dump`: bpftool is the judge, by what it printed of a graph of all kinds, and by itself where it is
installed; and the compiler, which makes the same layouts of the C that is printed."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bpfnic.host.btf import Btf, Kind, Part, Type
from bpfnic.host.btf.dump_c import dump_c
from bpfnic.host.btf.encode import encode
from bpfnic.host.btf.target import open_btf
from bpfnic.host.compile import compile_object
from bpfnic.host.elf import Elf
from bpfnic.spec.errors import BpfnicError
from tests.host.btf.graph import TYPES
from tests.host.btf.test_values import SOURCE


def _bpftool():
    """bpftool, if it is one that sorts types in C (7.5)."""
    found = shutil.which("bpftool")
    said = subprocess.run([found, "version"], capture_output=True, text=True).stdout if found else ""
    version = re.match(r"bpftool v(\d+)\.(\d+)", said)
    return found if version and tuple(map(int, version.groups())) >= (7, 5) else None


BPFTOOL = _bpftool()
KERNEL = Path("/sys/kernel/btf/vmlinux")
PRINTED = Path(__file__).parent / "bpftool"
FORMATS = {"raw": ["format", "raw"], "c": ["format", "c"], "unsorted": ["format", "c", "unsorted"]}


@pytest.fixture
def file(tmp_path):
    """Writes types, and says where."""

    def file(types, order="<"):
        (tmp_path / "types.btf").write_bytes(encode(types, order))
        return tmp_path / "types.btf"

    return file


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("format", FORMATS)
def test_every_kind_is_printed_as_bpftool_prints_it(bpfnic, file, format, order):
    status, out, err = bpfnic("btf", "dump", "file", file(TYPES, order), *FORMATS[format])
    assert (status, out, err) == (0, (PRINTED / f"{format}.txt").read_text(), "")


def test_the_graph_has_every_kind():
    assert {type.kind for type in TYPES} == set(Kind) - {Kind.UNKN}


def test_words_may_be_shortened_and_raw_is_the_default(bpfnic, file):
    path = file(TYPES)
    assert bpfnic("btf", "dump", "f", path) == bpfnic("btf", "dump", "file", path, "form", "raw")
    assert bpfnic("btf", "dump", "fi", path, "fo", "c", "uns")[1] == (PRINTED / "unsorted.txt").read_text()


def test_some_types_alone(bpfnic, file):
    """With what they need, and no functions of the kernel."""
    path = file(TYPES)
    assert bpfnic("btf", "dump", "file", path, "root_id", "6", "root_id", 3)[1] == (
        "[6] PTR '(anon)' type_id=5\n[3] INT 'char' size=1 bits_offset=0 nr_bits=8 encoding=SIGNED\n"
    )
    printed = bpfnic("btf", "dump", "file", path, "format", "c", "root_id", "35")[1]
    assert printed.count("{\n") == 2 and "struct holes {" in printed and "kfuncs" not in printed


def test_what_builds_upon_a_base(bpfnic, file, tmp_path):
    """Only its own types as raw text, all as C."""
    base = Btf(file(TYPES[:10]).read_bytes())
    split = tmp_path / "split.btf"
    split.write_bytes(encode(TYPES[10:], base=base))
    status, out, _ = bpfnic("btf", "dump", "file", split, "-B", file(TYPES[:10]))
    whole = (PRINTED / "raw.txt").read_text()
    assert (status, out) == (0, whole[whole.index("[11]") :])
    assert bpfnic("btf", "dump", "file", split, "format", "c", "-B", file(TYPES[:10]))[1] == (
        PRINTED / "c.txt").read_text()  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "begins with file, id, prog or map"),
        (("prog", "1"), "prog is chosen by id, name, tag or pinned, not '1'"),
        (("file",), "nothing follows file"),
        (("file", "FILE", "format"), "nothing follows format"),
        (("file", "FILE", "format", "json"), "format 'json' must be raw or c"),
        (("file", "FILE", "sorted"), "'sorted' is none of format, root_id, unsorted"),
        (("file", "FILE", "root_id", "-1"), "root_id '-1' is no number"),
        (("file", "FILE", "root_id", "51"), "root_id 51: types are 1 to 50"),
        (("file", "/nowhere"), "/nowhere: No such file"),
        (("file", __file__), "does not begin as BTF does"),
    ],
)
def test_what_can_not_be_printed(bpfnic, file, words, message):
    status, out, err = bpfnic("btf", "dump", "--", *(file(TYPES) if word == "FILE" else word for word in words))
    assert (status, out) == (2, "") and message in err and err.count("\n") == 1


def test_an_object_without_types(bpfnic, build, tmp_path):
    """compile_object always asks for them: strip the section's name."""
    data = build(SOURCE).path.read_bytes()
    (tmp_path / "bare.o").write_bytes(data.replace(b".BTF\0", b".BTX\0"))
    assert "bare.o: has no section .BTF: compile with -g" in bpfnic("btf", "dump", "file", tmp_path / "bare.o")[2]


def test_a_graph_that_C_has_no_words_for():
    """An anonymous structure with a pointer to itself."""
    from bpfnic.host.btf import Part, Type

    loop = [Type(1, Kind.STRUCT, "", 8, parts=(Part("self", 2),)), Type(2, Kind.PTR, "", target=1)]
    with pytest.raises(BpfnicError, match="type 1 is in itself, which can't be said in C"):
        "".join(dump_c(Btf(encode(loop)).read_all()))
    for members in ((), (Part("last", 2, offset=8 << 20),)):
        hole = [Type(1, Kind.STRUCT, "s", 3 << 20, parts=members), Type(2, Kind.FLOAT, "float", 4)]
        with pytest.raises(BpfnicError, match="type 1 's' has a hole of [0-9]+ bytes, above 1048576"):
            "".join(dump_c(Btf(encode(hole)).read_all()))


LAYOUTS = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct packed { char a; int b; struct { short c; long long d; } __attribute__((packed)) e; } __attribute__((packed));
struct aligned { char a; long long b __attribute__((aligned(32))); char c; };
struct bits { int a : 3; int : 5; unsigned b : 9; long long c : 33; char d; short e : 4; int : 0; char f : 1; };
struct holes { char a; struct packed b; short c; char d[3]; int e; char f; };
union either { struct bits a; char b[17]; long long c; };
struct functions { int (*one)(struct holes *, ...); void (*(*more[3])(int))(void); const char *const *volatile text; };
struct list { struct list *next; union { struct { struct list **back; enum { INNER } kind; }; int word; }; };
struct last { short length; struct tail { int a; char b; } items[]; };
struct all { struct packed a; struct aligned b; struct bits c; struct holes d; union either e; struct functions f;
             struct list g; struct last *h; } all;
SEC("xdp") int program(struct xdp_md *ctx) { return 0; }
char _license[] SEC("license") = "GPL";
"""


def layout(btf, number):
    """A type as nested tuples of what its bytes depend on; names for what pointers lead to."""
    type = btf.resolve(number)
    match type.kind:
        case Kind.STRUCT | Kind.UNION:
            return type.kind, type.name, type.size, tuple(
                (part.name, part.offset, part.bits, layout(btf, part.type)) for part in type.parts if part.name
                or btf.resolve(part.type).kind in (Kind.STRUCT, Kind.UNION))  # fmt: skip
        case Kind.ARRAY:
            return type.count, layout(btf, type.target)
        case Kind.PTR:
            target = btf.resolve(type.target)
            return Kind.PTR, target.kind, target.name
    return type.kind, type.size, type.name if type.kind is not Kind.INT else type.detail


@pytest.mark.parametrize("source", [LAYOUTS, SOURCE], ids=["layouts", "kinds"])
def test_the_compiler_makes_the_same_layouts_of_what_is_printed(bpfnic, build, tmp_path, source):
    before = Btf(Elf(build(source).path).section(".BTF").data)
    printed = bpfnic("btf", "dump", "file", build(source).path, "format", "c")[1]
    named = [type for type in before if type.kind in (Kind.STRUCT, Kind.UNION) and type.name]
    uses = "".join(f"{'struct' if type.kind is Kind.STRUCT else 'union'} {type.name} use_{type.number};\n"
                   for type in named if type.name != "last")  # fmt: skip
    again = tmp_path / "again.bpf.c"
    again.write_text(f'{printed}\n{uses}\n__attribute__((section("xdp"))) int program(void *ctx) {{ return 0; }}\n')
    after = Btf(Elf(compile_object(again)).section(".BTF").data)
    assert len(named) > 4
    for type in named:
        if type.name != "last":
            other = after.find(type.kind, type.name)
            assert other and layout(after, other.number) == layout(before, type.number)


POINTERS = """\
struct pointed {
	char first;
	struct pointed *next;
	%s wide;
	long: %d;
	char last;
};
"""


@pytest.mark.parametrize(
    ("long", "pointer", "places", "size"),
    [("long int", 4, (0, 32, 64, 128), 20), ("unsigned long", 4, (0, 32, 64, 128), 20),
     ("long unsigned int", 8, (0, 64, 128, 256), 40)],
)  # fmt: skip
def test_a_pointer_is_as_wide_as_a_long(file, long, pointer, places, size):
    """As a 32-bit kernel's types have it: what is aligned there needs no `packed`, and a hole is filled with its long.
    The places are those that C's rules for such a machine give."""
    parts = (Part("first", 1, places[0]), Part("next", 3, places[1]), Part("wide", 2, places[2]),
             Part("last", 1, places[3]))  # fmt: skip
    types = [Type(1, Kind.INT, "char", 1, detail=1 << 24 | 8), Type(2, Kind.INT, long, pointer, detail=8 * pointer),
             Type(3, Kind.PTR, "", target=4), Type(4, Kind.STRUCT, "pointed", size, parts=parts)]  # fmt: skip
    btf = open_btf(file(types))
    assert (btf.pointer_bytes, btf.size(3)) == (pointer, pointer)
    assert Btf(file(types).read_bytes()).size(3) == 8  # a BPF object's, whatever its types say
    assert POINTERS % (long, 8 * pointer) in "".join(dump_c(btf))


@pytest.mark.skipif(not BPFTOOL or not KERNEL.exists(), reason="no bpftool 7.5, or the kernel shows no BTF")
@pytest.mark.parametrize("format", ["raw", "c"])
def test_the_kernels_types_are_printed_as_bpftool_prints_them(bpfnic, format):
    said = subprocess.run([BPFTOOL, "btf", "dump", "file", KERNEL, *FORMATS[format]], capture_output=True, check=True)
    assert bpfnic("btf", "dump", "file", KERNEL, *FORMATS[format])[1] == said.stdout.decode()


@pytest.mark.skipif(not BPFTOOL, reason="no bpftool from 7.5 on is installed")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("source", [LAYOUTS, SOURCE], ids=["layouts", "kinds"])
def test_objects_are_printed_as_bpftool_prints_them(bpfnic, build, format, source):
    path = build(source).path
    said = subprocess.run([BPFTOOL, "btf", "dump", "file", path, *FORMATS[format]], capture_output=True, check=True)
    assert bpfnic("btf", "dump", "file", path, *FORMATS[format])[1] == said.stdout.decode()
