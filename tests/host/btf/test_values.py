"""BTF, judged by the compiler: clang writes the types, and initialised variables are the bytes of known values."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfnic.host.btf import Btf, Kind, Part, Type
from bpfnic.host.btf.encode import encode
from bpfnic.host.btf.extension import read_extension
from bpfnic.host.maps import Globals, MapDefinition
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import MapType

SOURCE = """
#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>

enum color { RED, GREEN = 5, BLUE = -1 };
enum wide { SMALL = 1, LARGE = 0x123456789abcULL };
typedef __u16 port;
struct inner { __u8 a; __s16 b; };
struct outer {
	const char name[8];
	__u64 big;
	int negative;
	port ports[3];
	enum color color;
	enum wide wide;
	bool flag;
	struct inner list[2];
	union { __u32 word; __u8 bytes[4]; };
	struct { int deep; };
	unsigned int low : 3, middle : 7;
	int high : 5;
	void *pointer;
	float small;
	double precise;
	__u8 mac[6];
	__be32 address;
	struct in6_addr address6;
	struct in_addr address4;
	__be32 words6[4];
	__be16 wire_port;
	__be64 wire_number;
	__u8 serial[6];
	__u8 not_mac[5];
	__u8 macs[4][6];
	bool switches[6];
};
volatile struct outer sample = {
	.name = "abc", .big = 0xfedcba9876543210, .negative = -2, .ports = {1, 2, 65535}, .color = BLUE, .wide = LARGE,
	.flag = true, .list = {{1, -1}, {255, 256}}, .word = 0x04030201, .deep = 7, .low = 5, .middle = 100, .high = -3,
	.small = 1.5, .precise = -0.25, .mac = {2, 0, 0, 0, 0, 1}, .address = 0x0100000a,
	.address6 = {{{0x20, 1, [15] = 1}}}, .address4 = {0x020000c0}, .words6 = {0xb80d0120, 0, 0, 0x02000000},
	.wire_port = __builtin_bswap16(443), .wire_number = __builtin_bswap64(5), .serial = {0, 1, 2, 3, 4, 255},
	.not_mac = {1, 2, 3, 4, 5}, .macs = {{2, 0, 0, 0, 0, 1}}, .switches = {[5] = true},
};
typedef int (*callback)(struct undefined *arg, ...);
volatile callback pointer_to_function;
__attribute__((btf_type_tag("user"))) int *volatile tagged;
int __attribute__((btf_decl_tag("noted"))) noted;
void *restrict volatile restricted;
SEC("xdp") int program(struct xdp_md *ctx) { return sample.low; }
char _license[] SEC("license") = "GPL";
"""

EXPECTED = {
    "name": "abc", "big": 0xFEDCBA9876543210, "negative": -2, "ports": [1, 2, 65535], "color": "BLUE",
    "wide": "LARGE", "flag": True, "list": [{"a": 1, "b": -1}, {"a": 255, "b": 256}], "word": 0x04030201,
    "bytes": [1, 2, 3, 4], "deep": 7, "low": 5, "middle": 100, "high": -3, "pointer": 0, "small": 1.5,
    "precise": -0.25, "mac": "02:00:00:00:00:01", "address": "10.0.0.1", "address6": "2001::1",
    "address4": "192.0.0.2", "words6": "2001:db8::2", "wire_port": 443, "wire_number": 5,
    "serial": "00:01:02:03:04:ff", "not_mac": [1, 2, 3, 4, 5],
    "macs": ["02:00:00:00:00:01"] + ["00:00:00:00:00:00"] * 3, "switches": [False] * 5 + [True],
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(build):
    return build(SOURCE)


@pytest.fixture(scope="module")
def btf(opened):
    return opened.btf


@pytest.fixture(scope="module")
def outer(btf):
    return btf.find(Kind.STRUCT, "outer")


def test_the_compilers_bytes_read_as_the_source_says(opened):
    assert opened.data["sample"] == EXPECTED


def test_the_sources_values_write_as_the_compilers_bytes(btf, outer, opened):
    data = bytes(opened.data.content[: outer.size])
    given = {name: value for name, value in EXPECTED.items() if name != "bytes"}
    assert btf.parse(outer.number, given) == data
    other = {"mac": [2, 0, 0, 0, 0, 1], "address": 0x0A000001, "words6": [0x20010DB8, 0, 0, "0.0.0.2"],
             "address4": {"s_addr": "192.0.0.2"}, "wire_port": "0x1bb", "serial": "0-1-2-3-4-FF"}  # fmt: skip
    assert btf.parse(outer.number, given | other) == data
    assert btf.parse(outer.number, btf.format(outer.number, data)) == data


def test_every_kind_that_clang_writes_is_read(btf):
    assert {type.kind for type in btf} == set(Kind) - {Kind.UNKN}


@pytest.mark.parametrize(
    ("name", "text"),
    [("sample", "struct outer"), ("tagged", "int *"), ("pointer_to_function", "callback"), ("noted", "int")],
)
def test_types_are_described_as_in_c(btf, name, text):
    assert btf.describe(btf.find(Kind.VAR, name).target) == text


def test_an_array_is_described_with_its_length(btf, outer):
    types = {member.name: btf.describe(member.type) for member in outer.parts}
    assert (types["name"], types["ports"], types["list"], types["pointer"]) == (
        "char[8]", "port[3]", "struct inner[2]", "void *")  # fmt: skip


def test_what_has_no_name_is_not_shown():
    """But for structures and unions, whose members are: a bitfield for padding, a number."""
    number = Type(1, Kind.ENUM, "e", 4, parts=(Part("ZERO"),))
    parts = (Part("", 1, bits=4), Part("", 1, offset=32), Part("shown", 1, offset=64))
    types = Btf(encode([number, Type(2, Kind.STRUCT, "s", 12, flag=True, parts=parts)]))
    assert types.format(2, bytes(12)) == {"shown": "ZERO"}


def test_text_that_is_none_is_a_list(btf, outer):
    data = b"\xff\0a".ljust(outer.size, b"\0")
    assert btf.format(outer.number, data)["name"] == [-1, 0, 97, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"nothing": 1}, "value: struct outer has no member 'nothing'"),
        ({"big": -1}, "value.big: -1 does not fit 64 bits"),
        ({"big": "many"}, "value.big: 'many' is not a number"),
        ({"ports": [1, 2, 3, 4]}, "value.ports: 4 elements, but it has 3"),
        ({"ports": 1}, "value.ports: 1 is no list"),
        ({"ports": [65536]}, r"value.ports\[0\]: 65536 does not fit 16 bits"),
        ({"color": "PINK"}, "value.color: 'PINK' is not one of RED, GREEN, BLUE"),
        ({"name": "far too long"}, "value.name: 12 bytes, but it has 8"),
        ({"low": 8}, "value.low: 8 does not fit 3 bits"),
        ({"mac": "02:00"}, "value.mac: '02:00' is no address of 6 bytes; give a list"),
        ({"address": "10.0.0.256"}, "value.address: '10.0.0.256' is not a number"),
        ({"address": "2001::1"}, "value.address: '2001::1' is not a number"),
        ({"words6": "10.0.0.1"}, "value.words6: '10.0.0.1' is no list"),
        ({"wire_port": 65536}, "value.wire_port: 65536 does not fit 16 bits"),
        ({"flag": None}, "value.flag: None is no number"),
        ({"small": "x"}, "value.small: 'x' is no number"),
        (17, "value: 17 is no object with members of struct outer"),
    ],
)
def test_what_does_not_fit_is_named(btf, outer, value, message):
    with pytest.raises(BpfnicError, match=f"^{message}"):
        btf.parse(outer.number, value)


def test_numbers_come_as_text_too(btf, outer):
    assert btf.format(outer.number, btf.parse(outer.number, {"big": "0x10", "color": 5, "negative": "-3"})) | {
        "big": 16, "color": "GREEN", "negative": -3} == btf.format(
            outer.number, btf.parse(outer.number, {"big": 16, "color": "GREEN", "negative": -3}))  # fmt: skip


def test_a_type_that_does_not_fit_names_the_map(opened):
    """A damaged file may say of a member that it lies behind its structure."""
    structure = Type(1, Kind.STRUCT, "s", 4, parts=(Part("far", 2, offset=64),))
    types = Btf(encode([structure, Type(2, Kind.FLOAT, "float", 4)])).read_all()
    definition = MapDefinition("m", MapType.ARRAY, 4, 4, 1, btf=types, value_type=1)
    with pytest.raises(BpfnicError, match="^map 'm': float has 4 bytes, not 0"):
        definition.format_value(bytes(4))
    variables = Globals(".data", bytearray(4), types, {"v": (1, 0, 4)})
    with pytest.raises(BpfnicError, match="^map '.data', variable 'v': float has 4 bytes, not 0"):
        variables["v"]


def test_too_few_bytes_are_refused(btf, outer):
    with pytest.raises(BpfnicError, match=rf"struct outer has {outer.size} bytes, not 5"):
        btf.format(outer.number, bytes(5))


@given(data=st.data())
def test_reading_undoes_writing(data):
    """Over types made by hand: integers of each size and sign, arrays of them, and a structure with a bitfield."""
    size, signed = data.draw(st.sampled_from([1, 2, 4, 8])), data.draw(st.booleans())
    bits = data.draw(st.integers(1, 7))
    strings, types = Strings(), []
    types.append(entry(strings("number"), Kind.INT, 0, size, struct.pack("<I", signed << 24 | 8 * size)))  # 1
    types.append(entry(0, Kind.ARRAY, 0, 0, struct.pack("<3I", 1, 1, 3)))  # 2
    members = struct.pack("<6I", strings("list"), 2, 0, strings("bits"), 1, bits << 24 | 24 * size + 1)
    types.append(entry(strings("whole"), Kind.STRUCT, 2 | 1 << 31, 4 * size, members))  # 3
    btf = Btf(container(types, strings))

    def number(width):
        least = -(1 << width - 1) if signed else 0
        return data.draw(st.integers(least, least + (1 << width) - 1))

    value = {"list": [number(8 * size) for _ in range(3)], "bits": number(bits)}
    assert btf.format(3, btf.parse(3, value)) == value


# Types made by hand, for what a compiler doesn't write.


class Strings:
    def __init__(self):
        self.data = b"\0"

    def __call__(self, text):
        self.data += text.encode() + b"\0"
        return len(self.data) - len(text) - 1


def entry(name, kind, length, third, rest=b""):
    return struct.pack("<3I", name, kind << 24 | length, third) + rest


def container(types, strings, magic=0xEB9F, version=1):
    body = b"".join(types)
    head = struct.pack("<HBBIIIII", magic, version, 0, 24, 0, len(body), len(body), len(strings.data))
    return head + body + strings.data


def test_a_type_that_contains_itself_is_refused():
    btf = Btf(container([entry(0, Kind.CONST, 0, 1)], Strings()))
    for question in (btf.size, btf.describe):
        with pytest.raises(BpfnicError, match="never ends"):
            question(1)
    with pytest.raises(BpfnicError, match="offset 0x18: type 1 '' contains itself"):
        btf.read_all()
    for loop in (
        [Type(1, Kind.PTR, "", target=1)],
        [Type(1, Kind.PTR, "", target=2), Type(2, Kind.ARRAY, "", target=1, index=1, count=1)],
        [Type(1, Kind.DECL_TAG, "t", target=1)],
    ):
        with pytest.raises(BpfnicError, match="offset 0x18: type 1 .* contains itself"):
            Btf(encode(loop)).read_all()
    strings = Strings()
    member = struct.pack("<3I", strings("self"), 1, 0)
    btf = Btf(container([entry(strings("loop"), Kind.STRUCT, 1, 8, member)], strings))
    with pytest.raises(BpfnicError, match="offset 0x18: type 1 'loop' contains itself"):
        btf.read_all()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes are no BTF"),
        (bytes(24), "does not begin as BTF does"),
        (container([], Strings(), version=2), "BTF version 2, not 1"),
        (container([entry(0, 20, 0, 0)], Strings()), "offset 0x18: type 1 has unknown kind 20"),
        (container([entry(0, 0, 0, 0)], Strings()), "offset 0x18: type 1 has unknown kind 0"),
        (container([entry(0, Kind.PTR, 0, 9)], Strings()), "offset 0x18: type 1 '' refers to type 9, of 2"),
        (container([entry(5, Kind.PTR, 0, 0)], Strings()), "offset 0x18: type 1: string at 5 of 1 bytes"),
        (container([entry(0, Kind.STRUCT, 9, 0)], Strings()), "offset 0x18: types end at byte 36, inside this one"),
        (container([], Strings())[:-1], "types or strings reach beyond its 24 bytes"),
    ],
)
def test_damage_is_named(data, message):
    with pytest.raises(BpfnicError, match=rf"^\.BTF[:,] .*{message}"):
        Btf(data).read_all()


def test_a_damaged_extension_is_named(btf):
    head = struct.pack("<HBBI", 0xEB9F, 1, 0, 24)
    for tables, body, message in (
        ((0, 8, 8, 0), b"", "offset 0x18: a table of 8 bytes reaches beyond its 24"),
        ((0, 4, 4, 0), struct.pack("<I", 4), "offset 0x18: records of 4 bytes, at least 8 expected"),
        ((0, 12, 12, 0), struct.pack("<3I", 8, 0, 1), "offset 0x1c: 1 records of section '' reach beyond its end"),
    ):
        with pytest.raises(BpfnicError, match=message):
            read_extension(head + struct.pack("<4I", *tables) + body, btf)
