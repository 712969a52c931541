"""Opening objects: what clang wrote comes out as programs, maps and variables; what is damaged or unknown is refused by
name."""

import random
import struct
import subprocess

import pytest

from bpfnic import Nic
from bpfnic.host.compile import find_compiler
from bpfnic.host.elf import Elf
from bpfnic.host.elfwriter import OutSection, OutSymbol, write
from bpfnic.host.image import device_image, place_frames
from bpfnic.host.link import Reference
from bpfnic.host.object import DeviceAddresses, FileDescriptors, SourceLine, open_object
from bpfnic.host.structure import Limits, check
from bpfnic.spec.assembly import assemble
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import encode
from bpfnic.spec.maps import MapFlag, MapType
from bpfnic.spec.programs import ProgramType

HEAD = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"

WHOLE = HEAD + """
struct pair { __u32 a; __u16 b; };
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
	__type(key, struct pair);
	__type(value, __u64);
} typed SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__uint(key_size, 4);
	__uint(value_size, 4);
} sized SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 3);
	__type(key, __u32);
	__array(values, struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 9); __type(key, __u32);
		__type(value, struct pair); });
} outer SEC(".maps");
struct bpf_map_def SEC("maps") first = { BPF_MAP_TYPE_ARRAY, 4, 8, 5, 0 };
struct bpf_map_def SEC("maps") second = { BPF_MAP_TYPE_LRU_HASH, 8, 2, 6, BPF_F_NO_COMMON_LRU };
BPF_ANNOTATE_KV_PAIR(second, __u64, __u16);

const volatile __u32 limit = 7;
volatile __u32 seen;
volatile struct pair both = { 1, 2 };
static volatile int hidden = 3;
volatile const char config[4] SEC(".rodata.config") = "on";

static __noinline int below(int a)
{
	seen += hidden;
	return a * limit;
}
__noinline int middle(int a) { return below(a + 1) + 1; }

SEC("xdp")
int main_program(struct xdp_md *ctx)
{
	__u32 key = 0;
	__u64 *value = bpf_map_lookup_elem(&first, &key);

	if (bpf_map_lookup_elem(&typed, &key) && value)
		return both.b;
	bpf_map_lookup_elem(&second, &key);
	return middle(ctx->rx_queue_index) + config[0];
}

SEC("xdp.frags/devmap") int other(struct xdp_md *ctx) { return below(2); }
SEC("?tc/egress") int shaper(struct __sk_buff *skb) { return 0; }
SEC("2/7") int numbered(void *ctx) { return 0; }
char _license[] SEC("license") = "Dual BSD/GPL";
__u32 _version SEC("version") = 0x60c00;
"""


@pytest.fixture(scope="module")
def path(build):
    """The file that WHOLE compiles to, for tests that only read it."""
    return build(WHOLE).path


@pytest.fixture
def whole(path):
    """It, freshly opened: variables can be set."""
    return open_object(path)


def test_programs_and_what_their_sections_say(whole):
    assert {p.name: (p.section, p.type, p.attach, p.frags, p.autoload) for p in whole.programs.values()} == {
        "main_program": ("xdp", ProgramType.XDP, "", False, True),
        "other": ("xdp.frags/devmap", ProgramType.XDP, "devmap", True, True),
        "shaper": ("?tc/egress", ProgramType.SCHED_CLS, "egress", False, False),
        "numbered": ("2/7", None, "", False, True),
    }
    assert (whole.license, whole.version) == ("Dual BSD/GPL", 0x60C00)
    assert open_object(whole.path, ProgramType.SCHED_CLS).programs["numbered"].type is ProgramType.SCHED_CLS


def test_a_program_is_found_by_name_or_section(whole, build):
    assert whole.program("other") is whole.program("xdp.frags/devmap") is whole.programs["other"]
    for name in (None, "nothing"):
        with pytest.raises(BpfnicError, match="main_program, other, shaper, numbered"):
            whole.program(name)
    assert build(HEAD + 'SEC("xdp") int only(void *ctx) { return 1; }').program().name == "only"
    two = build(HEAD + 'SEC("?xdp") int other(void *ctx) { return 0; }\nSEC("xdp") int only(void *ctx) { return 1; }')
    assert two.program().name == "only"


def test_maps_are_as_defined(whole):
    maps = whole.maps
    assert {m.name: (m.type, m.key_size, m.value_size, m.max_entries, m.flags, m.pinned) for m in maps.values()} == {
        "typed": (MapType.HASH, 8, 8, 100, MapFlag.NO_PREALLOC, True),
        "sized": (MapType.PERF_EVENT_ARRAY, 4, 4, 0, 0, False),
        "outer": (MapType.HASH_OF_MAPS, 4, 4, 3, 0, False),
        "first": (MapType.ARRAY, 4, 8, 5, 0, False),
        "second": (MapType.LRU_HASH, 8, 2, 6, MapFlag.NO_COMMON_LRU, False),
        ".rodata": (MapType.ARRAY, 4, 4, 1, MapFlag.RDONLY_PROG, False),
        ".data": (MapType.ARRAY, 4, 12, 1, 0, False),
        ".bss": (MapType.ARRAY, 4, 4, 1, 0, False),
        ".rodata.config": (MapType.ARRAY, 4, 4, 1, MapFlag.RDONLY_PROG, False),
    }
    inner = maps["outer"].inner
    assert (inner.type, inner.key_size, inner.value_size, inner.max_entries) == (MapType.ARRAY, 4, 8, 9)


def test_keys_and_values_go_by_their_types(whole):
    typed, second, first = (whole.maps[name] for name in ("typed", "second", "first"))
    assert typed.parse_key({"a": 1, "b": 2}) == bytes([1, 0, 0, 0, 2, 0, 0, 0])
    assert typed.format_key(bytes([1, 0, 0, 0, 2, 0, 9, 9])) == {"a": 1, "b": 2}
    assert (second.parse_value("0x10"), second.format_key(bytes([1] + 7 * [0]))) == (b"\x10\0", 1)  # annotated
    assert first.format_value(bytes(range(8))) == "00 01 02 03 04 05 06 07"  # no types
    assert first.parse_value("00 01 02 03 04 05 06 07") == first.parse_value(list(range(8))) == bytes(range(8))
    assert (first.parse_key(258), first.parse_key(-1), first.parse_key("0x3")) == (
        b"\2\1\0\0", b"\xff\xff\xff\xff", b"\3\0\0\0")  # fmt: skip


@pytest.mark.parametrize("value", [1 << 32, "xyz", [256], None, "00 01"])
def test_a_value_that_does_not_fit_names_the_map(whole, value):
    with pytest.raises(BpfnicError, match="^map 'first': key: "):
        whole.maps["first"].parse_key(value)


def test_variables_are_read_and_set_by_name(whole):
    assert dict(whole.rodata) == {"limit": 7}
    assert dict(whole.data) == {"both": {"a": 1, "b": 2}, "hidden": 3}
    assert dict(whole.bss) == {"seen": 0}
    whole.rodata["limit"] = 0x01020304
    assert whole.maps[".rodata"].variables.content == b"\4\3\2\1"
    whole.set_global("config", "off")
    assert whole.maps[".rodata.config"].format_value(b"off\0") == {"config": "off"}
    assert whole.maps[".rodata.config"].variables["config"] == "off"
    data = whole.maps[".data"].parse_value({"hidden": -1})
    assert whole.maps[".data"].format_value(data) == {"both": {"a": 1, "b": 2}, "hidden": -1}
    assert whole.data["hidden"] == 3


def test_an_unknown_or_unfit_variable_is_named(whole):
    with pytest.raises(BpfnicError, match="^.rodata has no variable 'limits'; it has limit$"):
        whole.rodata["limits"] = 1
    with pytest.raises(BpfnicError, match="no global variable 'x'; the object has both, hidden, limit, seen, config|x"):
        whole.set_global("x", 1)
    with pytest.raises(BpfnicError, match="limit: 4294967296 does not fit 32 bits"):
        whole.set_global("limit", 1 << 32)
    with pytest.raises(BpfnicError, match="can't be removed"):
        del whole.rodata["limit"]


def test_functions_follow_the_program_and_calls_lead_to_them(whole):
    program = whole.programs["main_program"]
    slots = {name: slot for slot, name in program.functions.items()}
    assert list(slots) == ["main_program", "middle", "below"]
    calls = {slot: slot + 1 + i.imm for slot, i in enumerate(program.instructions) if i and i.opcode == 0x85 and i.src}
    assert set(calls.values()) == {slots["middle"], slots["below"]}
    assert [slot < slots["middle"] for slot, target in calls.items() if target == slots["middle"]] == [True]
    assert list(whole.programs["other"].functions.values()) == ["other", "below"]


def test_references_are_by_name_until_they_are_linked(whole):
    program = whole.programs["main_program"]
    assert sorted(program.maps) == [".bss", ".data", ".rodata", ".rodata.config", "first", "second", "typed"]
    assert Reference("first") in program.references.values()
    assert Reference(".data", 8) in program.references.values()  # hidden
    places = {name: n for n, name in enumerate(whole.maps)}
    device = program.link(DeviceAddresses({n: 0x20000000 + 16 * i for n, i in places.items()},
                                          {n: 0x1_1000_0000 + 256 * i for n, i in places.items()}))  # fmt: skip
    kernel = program.link(FileDescriptors({n: 10 + i for n, i in places.items()}))
    for slot, reference in program.references.items():
        if reference.offset is None:
            expected = (0, 0x20000000 + 16 * places[reference.map]), (1, 10 + places[reference.map])
        else:
            address = 0x1_1000_0000 + 256 * places[reference.map] + reference.offset
            expected = (0, address), (2, reference.offset << 32 | 10 + places[reference.map])
        assert ((device[slot].src, device[slot].imm64), (kernel[slot].src, kernel[slot].imm64)) == expected
        assert device[slot].dst == kernel[slot].dst == program.instructions[slot].dst
    others = [slot for slot in range(len(device)) if slot not in program.references]
    assert all(device[slot] == kernel[slot] == program.instructions[slot] for slot in others)


def test_lines_lead_back_to_the_source(whole):
    text = WHOLE.splitlines()
    for program in whole.programs.values():
        for slot in range(len(program.instructions)):
            line = program.line(slot)
            assert isinstance(line, SourceLine) and line.file.endswith(".bpf.c")
            assert text[line.line - 1].strip() == line.text
        assert program.line(-1) is program.line(len(program.instructions)) is None
    program = whole.programs["main_program"]
    below = next(slot for slot, name in program.functions.items() if name == "below")
    assert "seen += hidden" in {program.line(slot).text.rstrip(";") for slot in range(below, below + 8)}


LEGACY = HEAD + """
struct entry {{ __u32 type, key_size, value_size, max_entries, flags, rest[{rest}]; }};
struct entry SEC("maps") one = {{ BPF_MAP_TYPE_HASH, 4, 8, 16, 0, {{ {values} }} }};
struct entry SEC("maps") two = {{ BPF_MAP_TYPE_ARRAY, 4, 4, 2 }};
SEC("xdp") int program(void *ctx) {{ __u32 key = 0; return !!bpf_map_lookup_elem(&two, &key); }}
"""


@pytest.mark.parametrize(("rest", "values", "pinned"),
                         [(2, "0, 0", False), (2, "7, 2", True), (4, "7, 2, 0, 0", True), (1, "0", False)])  # fmt: skip
def test_older_map_definitions(build, rest, values, pinned):
    object = build(LEGACY.format(rest=rest, values=values))
    one, two = object.maps["one"], object.maps["two"]
    assert (one.type, one.key_size, one.value_size, one.max_entries, one.pinned) == (MapType.HASH, 4, 8, 16, pinned)
    assert (two.type, two.max_entries) == (MapType.ARRAY, 2)
    assert list(object.program().references.values()) == [Reference("two")]


SHORT = HEAD + """
struct { __u32 type, key_size, value_size, max_entries; } one SEC("maps") = { BPF_MAP_TYPE_HASH, 4, 8, 16 };
SEC("xdp") int program(void *ctx) { __u32 key = 0; return !!bpf_map_lookup_elem(&one, &key); }
"""


def test_a_map_definition_without_flags(build):
    one = build(SHORT).maps["one"]
    assert (one.type, one.key_size, one.value_size, one.max_entries, one.flags) == (MapType.HASH, 4, 8, 16, 0)


SAMPLES = HEAD + """
struct entry { __u32 type, key_size, value_size, max_entries, flags, inner_map_idx, numa_node; };
struct entry SEC("maps") a_inner = { BPF_MAP_TYPE_HASH, 4, 8, 16, 4, 0, 3 };
struct entry SEC("maps") b_outer = { BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 0, 2, 0, 0 };
struct entry SEC("maps") jumps = { BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 8 };
SEC("socket/3") int third(void *ctx) { return 0; }
SEC("socket/0") int first(void *ctx)
{
	__u32 key = 0;
	bpf_map_lookup_elem(&b_outer, &key);
	bpf_tail_call(ctx, &jumps, 3);
	return 0;
}
"""


def test_maps_of_maps_and_numbered_programs_of_the_kernels_samples(build):
    maps = build(SAMPLES).maps
    assert maps["b_outer"].inner is maps["a_inner"] and maps["b_outer"].value_size == 4
    assert not maps["a_inner"].pinned  # its last word is the NUMA node
    assert maps["jumps"].programs == {3: "third", 0: "first"}


IPROUTE2 = HEAD + """
struct entry { __u32 type, key_size, value_size, max_entries, flags, id, pinning, inner_id, inner_idx; };
struct entry SEC("maps") jumps = { BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 8, 0, 2, 1 };
struct entry SEC("maps") outer = { BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 8, 0, 5, 0, 9, 0 };
struct entry SEC("maps") placed = { BPF_MAP_TYPE_HASH, 4, 4, 8, 0, 9, 0, 0, 6 };
struct entry SEC("maps") nowhere = { BPF_MAP_TYPE_HASH, 4, 4, 8, 0, 9, 0, 0, -1 };
SEC("2/7") int seventh(struct __sk_buff *skb) { return 0; }
SEC("3/1") int of_no_map(struct __sk_buff *skb) { return 0; }
SEC("from-netdev") int enter(struct __sk_buff *skb)
{
	__u32 key = 0;
	bpf_map_lookup_elem(&outer, &key);
	bpf_tail_call(skb, &jumps, 7);
	return 0;
}
"""


def test_maps_of_maps_and_numbered_programs_of_iproute2(build):
    object = build(IPROUTE2)
    assert object.maps["jumps"].programs == {7: "seventh"}
    assert object.maps["outer"].inner.name == "placed" and object.maps["outer"].maps == {6: "placed"}
    assert {name: program.type for name, program in object.programs.items()} == dict.fromkeys(object.programs)
    whole = open_object(object.path, ProgramType.SCHED_CLS)
    with Nic("golden") as nic:
        assert nic.load(whole, "enter").test_run(bytes(64)).retval == 0  # seventh's
        assert sorted(nic.programs) == ["enter", "seventh"] and nic.maps["outer"][6] is nic.maps["placed"]


def test_a_lone_function_without_a_section_is_a_program(build):
    program = build(HEAD + "int function(void *ctx) { return 1; }").program()
    assert (program.name, program.section, program.type) == ("function", ".text", None)


# What is refused.


def test_definitions_that_make_no_sense(build):
    body = 'SEC("xdp") int program(void *ctx) { return 0; }\n'
    mapping = HEAD + 'struct { MEMBERS } odd SEC(".maps");\n' + body
    for members, message in (
        ("__uint(type, 99);", "map 'odd' has unknown map type 99"),
        ("__uint(max_entries, 3);", "map 'odd' has no type"),
        ("__uint(type, 2); __uint(colour, 3);", "map 'odd' has an unknown member 'colour'"),
        ("__uint(type, 2); int key;", "map 'odd' has a member 'key' that is no __uint or __type"),
        ("__uint(type, 2); __uint(key_size, 8); __type(key, __u32);", "map 'odd' has a key_size of 8 and a key of 4"),
        ("__uint(type, 2); __uint(map_flags, 1 << 30);", "map 'odd' has unknown flags 0x40000000"),
    ):
        with pytest.raises(BpfnicError, match=rf"\.o: section '\.maps': {message}"):
            build(mapping.replace("MEMBERS", members))
    with pytest.raises(BpfnicError, match="map 'one' has 24 bytes whose last are not zero"):
        build(LEGACY.format(rest=1, values="5"))
    with pytest.raises(BpfnicError, match="entries of 12 bytes; a map takes 16 and more, such as 20, 28 or 36"):
        build(HEAD + 'int bad[3] SEC("maps") = { 2 };\n' + body)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('int elsewhere(int);\nSEC("xdp") int program(long *ctx) { return elsewhere(1); }',
         r"section 'xdp', offset 0x8: 'elsewhere' is not defined in this object \(an extern\): link .* `bpfnic gen"),
        ('extern int CONFIG_X __kconfig;\nSEC("xdp") int program(void *ctx) { return CONFIG_X; }',
         "section 'xdp', offset 0x0: 'CONFIG_X' is of the kernel's configuration: .* --kconfig CONFIG_X=VALUE"),
        ('int target; int *volatile to = &target;\nSEC("xdp") int program(void *ctx) { return *to; }',
         r"section '\.data', offset 0x0: variable 'to' has a pointer to '(target|\.bss)', .* use what it points to"),
        ('__attribute__((common)) int shared;\nSEC("xdp") int program(void *ctx) { return shared++; }',
         "'shared' is a common symbol: compile with -fno-common"),
    ],
)  # fmt: skip
def test_what_a_program_may_not_refer_to(build, text, message):
    program = build(HEAD + text).program()
    with pytest.raises(BpfnicError, match=message):
        program.link(FileDescriptors({}))


def test_pointers_that_a_program_does_not_use_are_let_alone(build):
    """In sections that it uses, too: it reads other variables of them."""
    text = 'int target, *volatile to = &target, beside = 3;\nSEC("xdp") int program(void *ctx) { return target; }'
    assert build(HEAD + text).program().maps == [".bss"]
    text = text.replace("return target", "return *(volatile int *)&beside")
    with Nic("golden") as nic:
        assert nic.load(build(HEAD + text)).test_run(bytes(60)).retval == 3


@pytest.mark.linux
def test_a_verifier_lets_nobody_follow_a_pointer_that_is_read(build):
    """Why they are refused: Linux's, and ours, of the same program without the relocation."""
    text = 'int target, *volatile to;\nSEC("xdp") int program(void *ctx) { return to ? *to : 0; }'
    for backend, message in (("golden", "It is a number"), ("linux", "invalid mem access 'scalar'")):
        with Nic(backend) as nic, pytest.raises(BpfnicError, match=message):
            nic.load(build(HEAD + text))


def test_an_object_without_programs(build):
    with pytest.raises(BpfnicError, match=r'no programs: .* such as SEC\("xdp"\)'):
        build(HEAD + "int function(void) { return 1; } int another(void) { return 2; }")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """compiled(target): bytes of a small object for another target."""

    def compile_for(target):
        folder = tmp_path_factory.mktemp("target")
        (folder / "a.c").write_text('__attribute__((section("xdp"))) int program(void *c) { return 1; }\n')
        command = [word.replace("bpfel-freestanding-none", target) for word in find_compiler().command]
        if command == list(find_compiler().command):
            pytest.skip("the compiler on PATH is not the wheel's")
        subprocess.run([*command, "-O2", "-c", folder / "a.c", "-o", folder / "a.o"], check=True)
        return (folder / "a.o").read_bytes()

    return compile_for


@pytest.mark.parametrize(
    ("target", "message"),
    [("bpfeb-freestanding-none", "big-endian BPF object .* compile with -target bpfel"),
     ("x86_64-freestanding-none", "machine 62, not for BPF"),
     ("x86-freestanding-none", "machine 3, not for BPF")],
)  # fmt: skip
def test_objects_for_other_machines(compiled, tmp_path, target, message):
    (tmp_path / "other.o").write_bytes(compiled(target))
    with pytest.raises(BpfnicError, match=f"other.o: .*{message}"):
        open_object(tmp_path / "other.o")


def test_files_that_are_no_objects(tmp_path):
    with pytest.raises(BpfnicError, match="none.o: No such file"):
        open_object(tmp_path / "none.o")
    for content, message in ((b"", "not an ELF file"), (b"#incl", "not an ELF file"), (b"\x7fELF", "truncated: 4")):
        (tmp_path / "bad.o").write_bytes(content)
        with pytest.raises(BpfnicError, match=f"bad.o: {message}"):
            open_object(tmp_path / "bad.o")


def test_tables_that_do_not_fit_the_file(path, tmp_path):
    """Each number of the header and of a section's header that leads elsewhere is named, with what it leads to."""
    whole = path.read_bytes()
    (table,) = struct.unpack_from("<Q", whole, 40)
    kinds = [struct.unpack_from("<I", whole, table + 64 * number + 4)[0] for number in range(1, whole[60])]
    symbols, relocations = table + 64 * (1 + kinds.index(2)), table + 64 * (1 + kinds.index(9))
    damages = [
        (40, "<Q", len(whole), "truncated: the section headers end at byte"),
        (58, "<H", 40, "section headers of 40 bytes, not 64"),
        (62, "<H", 999, "the names of sections are in section 999 of"),
        (table + 64, "<I", 1 << 20, "the name of section 1 is at byte 1048576 of"),
        (table + 64 + 32, "<Q", 1 << 40, "truncated: section '.strtab' ends at byte"),
        (symbols + 32, "<Q", 25, "section '.symtab' has 25 bytes, no multiple of the 24 of its entries"),
        (symbols + 40, "<I", 999, "section '.symtab': its names are in section 999 of"),
        (relocations + 32, "<Q", 17, "has 17 bytes, no multiple of the 16 of its entries"),
        (relocations + 44, "<I", 999, "relocates section 999 of"),
    ]
    for at, layout, value, message in damages:
        raw = bytearray(whole)
        struct.pack_into(layout, raw, at, value)
        (tmp_path / "damaged.o").write_bytes(raw)
        with pytest.raises(BpfnicError, match=f"damaged.o: .*{message}"):
            open_object(tmp_path / "damaged.o")


def test_what_a_line_says_is_one_line(path, tmp_path):
    """Of a damaged object: nothing in it ends a message's line, or reaches the terminal."""
    raw = path.read_bytes()
    assert b"int middle(int a)" in raw
    (tmp_path / "damaged.o").write_bytes(raw.replace(b"int middle(int a)", b"int\x0bmiddle\x1b[2J a)"))
    program = open_object(tmp_path / "damaged.o").program("main_program")
    texts = {line.text for slot in range(len(program.instructions)) if (line := program.line(slot))}
    assert "__noinline int?middle?[2J a) { return below(a + 1) + 1; }" in texts
    assert all(text.isprintable() for text in texts)


def test_an_object_without_a_machine(path, tmp_path):
    raw = bytearray(path.read_bytes())
    raw[18:20] = bytes(2)  # e_machine: EM_NONE
    (tmp_path / "none.o").write_bytes(raw)
    assert list(open_object(tmp_path / "none.o").programs) == list(open_object(path).programs)


def test_programs_without_symbols(tmp_path):
    code = OutSection("prog", 6, 8, data=bytearray(assemble("r1 = 0x0 ll\ncall pc+1\nexit\nr0 = 7\nexit")))
    maps = OutSection("maps", 3, 4, data=bytearray(struct.pack("<5I", 2, 4, 8, 3, 0)))
    code.relocations.append((0, 1, OutSymbol("only", "STT_NOTYPE", maps)))
    text = write([code, maps], [symbol for _, _, symbol in code.relocations])
    (tmp_path / "old.o").write_bytes(text)
    object = open_object(tmp_path / "old.o", ProgramType.SCHED_CLS)
    assert (list(object.programs), list(object.maps)) == (["prog"], ["only"])
    with Nic("golden") as nic:
        assert nic.load(object).test_run(bytes(64)).retval == 7


def test_every_truncation_is_one_clear_error(path, tmp_path):
    raw = path.read_bytes()
    cut = tmp_path / "cut.o"
    for length in range(0, len(raw), 41):
        cut.write_bytes(raw[:length])
        with pytest.raises(BpfnicError, match=r"cut\.o: ") as caught:
            open_object(cut)
        assert "\n" not in str(caught.value)


def exercise(path):
    """All that a user would do with an object."""
    object = open_object(path)
    addresses = DeviceAddresses({name: 16 for name in object.maps}, {name: 32 for name in object.maps})
    for definition in object.maps.values():
        if definition.variables is not None:
            dict(definition.variables)
        definition.format_value(bytes(min(definition.value_size, 1 << 16)))
    for program in object.programs.values():
        for slot in range(min(len(program.instructions), 50)):
            program.line(slot)
        code = program.link(addresses)
        check(code, program.name, program_type=program.type, line=program.line)
        encode(place_frames(code, program.name))
    return object


@pytest.mark.parametrize("seed", range(150))
def test_damaged_objects_give_clear_errors_only(path, tmp_path, seed):
    """Bytes changed at random, in headers and in all that isn't debug information."""
    chance = random.Random(seed)
    raw = bytearray(path.read_bytes())
    (headers,) = struct.unpack_from("<Q", raw, 40)
    places = [(0, 64), (headers, len(raw))]
    for section in Elf(path).sections:
        start, size = struct.unpack_from("<QQ", raw, headers + 64 * section.number + 24)
        if section.data and not section.name.startswith(".debug"):
            places.append((start, start + size))
    for _ in range(chance.choice([1, 1, 2, 5])):
        raw[chance.randrange(*chance.choice(places))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)])
    damaged = tmp_path / "damaged.o"
    damaged.write_bytes(raw)
    try:
        exercise(damaged)
    except BpfnicError as error:
        assert str(error) and "\n" not in str(error)


def test_a_whole_object_fits_a_device(whole):
    addresses = DeviceAddresses({name: 16 for name in whole.maps}, {name: 32 for name in whole.maps})
    program = whole.programs["main_program"]
    limits = Limits(4096, lambda row: True, frozenset({1}))
    image = device_image(program, addresses, limits)
    assert {i.offset for i in image if i and i.opcode == 0x85 and i.src == 1} == {16}


def test_variables_larger_than_any_memory_are_refused(build):
    """They would be made here twice; a damaged file may say anything."""
    source = 'char huge[1 << 27];\n__attribute__((section("xdp"))) int pass(void *ctx) { return huge[1]; }\n'
    with pytest.raises(BpfnicError, match=f"section '.bss': {1 << 27} bytes of variables$"):
        build(source)
