"""Several objects in one: it runs as its parts would, in libbpf too, and what doesn't fit is refused by name."""

import ctypes
import ctypes.util
import itertools

import pytest

from bpfnic import Nic
from bpfnic.host import staticlink
from bpfnic.host.btf import Btf, Kind
from bpfnic.host.elf import Elf
from bpfnic.host.linux import bpf
from bpfnic.host.object import open_object
from bpfnic.spec.errors import BpfnicError

HEAD = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
LICENSE = 'char _license[] SEC("license") = "GPL";\n'
SHARED = """
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
	shared SEC(".maps");
"""
FIRST = HEAD + SHARED + LICENSE + """
extern struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
	elsewhere SEC(".maps");
extern int other(int number, struct xdp_md *ctx);
extern int counter;
const volatile int bias = 3;
static volatile int own = 5;
__weak int both(int x) { return x + 1; }
static __noinline int helper(int x) { own++; return x * 2; }
SEC("xdp") int first(struct xdp_md *ctx)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&shared, &key), one = 1;

	if (value)
		*value += 10;
	bpf_map_update_elem(&elsewhere, &key, &one, 0);
	counter++;
	return other(helper(own), ctx) + both(100) + bias + counter;
}
"""
SECOND = HEAD + SHARED + LICENSE + """
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }
	elsewhere SEC(".maps");
int counter = 7;
static volatile int own = 50;
int both(int x) { return x + 1000; }
static __noinline int helper(int x) { own += 2; return x * 3; }
int other(int a, struct xdp_md *xdp) { return helper(a) + own + xdp->rx_queue_index; }
SEC("xdp") int second(struct xdp_md *ctx)
{
	__u32 key = 1;
	__u64 *value = bpf_map_lookup_elem(&shared, &key), *there = bpf_map_lookup_elem(&elsewhere, &key);

	return value && there ? *value + *there + helper(counter) : 0;
}
"""
# first: own 5 -> 6, helper 10; other: helper 30, own 52; both 1100 (the strong one), bias 3, counter 8.
# second: 10 + 1 + helper(8).
SAYS = (10 * 3 + 52 + 1100 + 3 + 8, 10 + 1 + 24)


@pytest.fixture
def link(build, tmp_path):
    """link(C text, …): the path of what these make."""
    numbers = itertools.count()

    def link(*texts):
        out = tmp_path / f"linked{next(numbers)}.o"
        out.write_bytes(staticlink.link([compiled(build, text) for text in texts]))
        return out

    return link


def compiled(build, text):
    """The object that a text compiles to; conftest's build opens it, which takes a program."""
    return build(text if 'SEC("xdp")' in text else text + 'SEC("xdp") int unused(void *ctx) { return 0; }').path


@pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])
@pytest.mark.parametrize("texts", [(FIRST, SECOND), (SECOND, FIRST)], ids=["in order", "reversed"])
def test_it_runs_as_its_parts_would(link, texts, backend):
    object = open_object(link(*texts))
    assert (dict(object.data), dict(object.rodata), object.license) == (
        {"own": 5 if texts[-1] is FIRST else 50, "counter": 7}, {"bias": 3}, "GPL")  # fmt: skip
    with Nic(backend) as nic:
        first, second = nic.load(object, "first"), nic.load(object, "second")
        assert (first.test_run(bytes(64)).retval, second.test_run(bytes(64)).retval) == SAYS
        assert (nic.maps["shared"][1], dict(nic.maps["elsewhere"]), nic.maps[".data"]["counter"]) == (10, {1: 1}, 8)


def test_lines_and_functions_lead_to_their_files(link):
    object = open_object(link(FIRST, SECOND))
    program = object.program("first")
    texts = {name: (program.line(slot).file, program.line(slot).text) for slot, name in program.functions.items()}
    assert "other(int a, struct xdp_md *xdp)" in texts["other"][1] and texts["other"][0] != texts["first"][0]
    assert "SEC" in texts["first"][1]


def test_types_are_there_once(link):
    btf = Btf(Elf(link(FIRST, SECOND)).section(".BTF").data).read_all()
    names = [(type.kind, type.name) for type in btf if type.name and type.kind not in (Kind.VAR, Kind.FUNC)]
    assert len(names) == len(set(names))
    variables = [type.name for type in btf if type.kind is Kind.VAR]
    assert sorted(variables) == ["_license", "bias", "counter", "elsewhere", "own", "own", "shared"]
    assert all(type.detail != 2 for type in btf if type.kind in (Kind.VAR, Kind.FUNC))  # nothing is extern any more
    sections = {type.name: [(part.offset, part.size) for part in type.parts] for type in btf
                if type.kind is Kind.DATASEC}  # fmt: skip
    assert sections[".data"] == [(0, 4), (4, 4), (8, 4)] and sections["license"] == [(0, 4)]


def test_what_is_linked_can_be_linked_again(link, build, tmp_path):
    once = link(FIRST, SECOND)
    third = compiled(build, HEAD + LICENSE + "int third(int x) { return x; }")
    out = tmp_path / "again.o"
    out.write_bytes(staticlink.link([third, once]))
    with Nic("golden") as nic:
        object = open_object(out)
        assert (nic.load(object, "first").test_run(bytes(64)).retval,
                nic.load(object, "second").test_run(bytes(64)).retval) == SAYS  # fmt: skip


def test_one_object_stays_what_it_is(link, firmware, tmp_path):
    for name in ("tailchain", "vlanmap", "firewall", "balancer"):
        before = firmware(name)
        out = tmp_path / f"{name}.o"
        out.write_bytes(staticlink.link([before.path]))
        after = open_object(out)
        assert {n: (p.instructions, p.references, p.functions) for n, p in after.programs.items()} == {
            n: (p.instructions, p.references, p.functions) for n, p in before.programs.items()}  # fmt: skip
        assert {n: (m.type, m.key_size, m.max_entries, m.programs, m.maps) for n, m in after.maps.items()} == {
            n: (m.type, m.key_size, m.max_entries, m.programs, m.maps) for n, m in before.maps.items()}  # fmt: skip


def test_kernel_configuration_is_asked_for_once(link):
    text = HEAD + LICENSE + 'extern int CONFIG_A __kconfig;\nSEC("xdp") int {}(void *ctx) {{ return CONFIG_A; }}'
    object = open_object(link(text.format("one"), text.format("two")))
    object.kconfig["CONFIG_A"] = 4
    with Nic("golden") as nic:
        assert nic.load(object, "one").test_run(bytes(64)).retval == 4 == nic.load(object, "two").test_run(
            bytes(64)).retval  # fmt: skip


PROGRAM = 'SEC("xdp") int program_{}(struct xdp_md *ctx) {{ return {}; }}\n'


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [("int f(int x) { return x; }", "int f(int x) { return x + 1; }",
      r"'f' is defined here \(section '.text'\), and in .* too \(section '.text'\)"),
     ("int v = 1;", "int v = 2;", r"'v' is defined here \(section '.data'\), and in"),
     ("int f(int x) { return x; }", "extern long f(long x);", "'f' is declared with another type than in"),
     ("int f(void) { return 1; }", "extern int f;", "'f' is declared with another type than in"),
     ("int v = 1;", "extern long v;", "'v' is declared with another type than in"),
     (SHARED, SHARED.replace("max_entries, 4", "max_entries, 5"), "map 'shared' has max_entries 5 here, and 4 in"),
     (SHARED, SHARED.replace("struct {", "extern struct {").replace("TYPE_ARRAY", "TYPE_HASH"),
      "map 'shared' is declared with type HASH here, and ARRAY in"),
     (SHARED, SHARED.replace("TYPE_ARRAY", "TYPE_HASH"), "map 'shared' has type HASH here, and ARRAY in"),
     ("", 'char _license[] SEC("license") = "Proprietary";', "section 'license' says 'Proprietary', and 'GPL' in"),
     ("", "__attribute__((common)) int shared;", "'shared' is a common symbol: compile with -fno-common")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(build, first, second, message):
    uses = {"f(int x);": "f(1)", "f(long x);": "f(1)", "int f;": "f", "long v;": "v", "int shared;": "shared"}
    use = next((said for declared, said in uses.items() if second.endswith(declared)), "0")
    if "extern struct" in second:
        use = "!bpf_map_lookup_elem(&shared, ctx)"
    mine = "" if "license" in second else LICENSE
    paths = [build(HEAD + LICENSE + first + PROGRAM.format("a", 0)).path,
             build(HEAD + mine + second + PROGRAM.format("b", use)).path]  # fmt: skip
    with pytest.raises(BpfnicError, match=message) as refused:
        staticlink.link(paths)
    assert str(refused.value).startswith(str(paths[1]))


def test_the_command(build, bpfnic, tmp_path):
    out = tmp_path / "both.o"
    inputs = [compiled(build, text) for text in (FIRST, SECOND)]
    assert bpfnic("gen", "object", out, *inputs) == (0, "", "")
    assert sorted(open_object(out).programs) == ["first", "second"]
    assert bpfnic("gen", "object", tmp_path / "no" / "out.o", *inputs)[0] == 2
    status, _, err = bpfnic("gen", "object", out, tmp_path / "none.o")
    assert status == 2 and "none.o: No such file" in err
    assert bpfnic("gen", "object", out)[0] == 2


def test_a_declared_map_is_asked_for_by_name(build):
    with pytest.raises(BpfnicError, match=r"'elsewhere' is not defined in this object \(an extern\)"):
        build(FIRST).program("first").link(None)


@pytest.fixture
def libbpf():
    """The system's libbpf, which loads objects into the kernel."""
    name = ctypes.util.find_library("bpf")
    if name is None:
        pytest.skip("libbpf isn't installed")
    library = ctypes.CDLL(name, use_errno=True)
    for function in ("bpf_object__open", "bpf_object__find_program_by_name", "bpf_linker__new"):
        getattr(library, function).restype = ctypes.c_void_p
    return library


@pytest.mark.linux
def test_it_loads_in_libbpf(libbpf, link):
    path = link(FIRST, SECOND)
    object = ctypes.c_void_p(libbpf.bpf_object__open(str(path).encode()))
    assert object.value and libbpf.bpf_object__load(object) == 0
    try:
        said = []
        for name in (b"first", b"second"):
            program = ctypes.c_void_p(libbpf.bpf_object__find_program_by_name(object, name))
            said.append(bpf.prog_test_run(libbpf.bpf_program__fd(program), bytes(64)).value)
        assert tuple(said) == SAYS
    finally:
        libbpf.bpf_object__close(object)


@pytest.mark.linux
def test_libbpf_links_the_same(libbpf, build, tmp_path):
    """But for maps that two objects define, which it refuses: here the first declares it."""
    first = FIRST.replace(SHARED, SHARED.replace("struct {", "extern struct {"))
    paths = [tmp_path / "first.o", tmp_path / "second.o"]
    for path, text in zip(paths, (first, SECOND), strict=True):  # without .eh_frame, which it can't link
        path.write_bytes(staticlink.link([compiled(build, text)]))
    (tmp_path / "ours.o").write_bytes(staticlink.link(paths))
    linker = ctypes.c_void_p(libbpf.bpf_linker__new(str(tmp_path / "theirs.o").encode(), None))
    assert linker.value and not any(libbpf.bpf_linker__add_file(linker, str(path).encode(), None) for path in paths)
    assert libbpf.bpf_linker__finalize(linker) == 0
    libbpf.bpf_linker__free(linker)
    ours, theirs = (open_object(tmp_path / f"{name}.o") for name in ("ours", "theirs"))
    for name in ("first", "second"):
        mine, other = ours.program(name), theirs.program(name)
        assert (mine.instructions, mine.references, mine.functions) == (
            other.instructions, other.references, other.functions)  # fmt: skip
        assert [mine.line(slot) for slot in range(len(mine.instructions))] == [
            other.line(slot) for slot in range(len(other.instructions))]  # fmt: skip
    assert dict(ours.data) == dict(theirs.data) and list(ours.maps) == list(theirs.maps)


def test_what_is_hidden_stays_so(build, tmp_path):
    """libbpf takes such functions for static ones when it verifies; a definition's visibility is that of all."""
    hides = "__attribute__((visibility(\"hidden\"))) int inner(int x) { return x + 1; }\n"
    first = HEAD + LICENSE + 'extern int inner(int x); SEC("xdp") int outer(struct xdp_md *c) { return inner(2); }'
    paths = [compiled(build, first), compiled(build, HEAD + LICENSE + hides)]
    for order in (paths, paths[::-1]):
        (tmp_path / "whole.o").write_bytes(staticlink.link(order))
        symbols = {each.name: each for each in Elf(tmp_path / "whole.o").symbols}
        assert symbols["inner"].hidden and not symbols["outer"].hidden
