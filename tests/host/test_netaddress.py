"""Addresses and prefixes as text, and the keys of longest-prefix maps by them."""

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfnic.host import netaddress
from bpfnic.host.maps import MapDefinition
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import MapFlag, MapType


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("10.0.0.1", bytes([10, 0, 0, 1])),
        ("2001:db8::1", bytes.fromhex("20010db8 00000000 00000000 00000001")),
        ("::ffff:192.0.2.1", bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])),
        ("02:00:00:00:0a:ff", bytes.fromhex("020000000aff")),
    ],
)
def test_text_and_bytes(text, data):
    assert netaddress.parse(text, len(data)) == data
    assert netaddress.format(data) == text
    assert netaddress.parse(text, 8) is None


@given(st.binary(min_size=16, max_size=16), st.integers(0, 128))
def test_what_is_shown_is_taken(data, length):
    for size in (4, 6, 16):
        assert netaddress.parse(netaddress.format(data[:size]), size) == data[:size]
    assert socket.inet_pton(socket.AF_INET6, netaddress.format(data)) == data
    for size in (4, 16):
        text = netaddress.format_prefix(length % (8 * size + 1), data[:size])
        assert netaddress.parse_prefix(text, size) == (length % (8 * size + 1), data[:size])


@pytest.mark.parametrize("text", ["10.0.0", "10.0.0.256", "::12345", "02:00:00:00:00", "zz:00:00:00:00:00", "10", ""])
def test_what_is_no_address(text):
    assert [netaddress.parse(text, size) for size in (4, 6, 16)] == [None] * 3


PROGRAM = """
#include <linux/bpf.h>
#include <linux/in6.h>
#include <bpf/bpf_helpers.h>
#define TRIE(NAME, ...) \\
	struct { \\
		__uint(type, BPF_MAP_TYPE_LPM_TRIE); \\
		__uint(map_flags, BPF_F_NO_PREALLOC); \\
		__uint(max_entries, 9); \\
		__type(key, struct { __u32 prefixlen; __VA_ARGS__; }); \\
		__type(value, __u32); \\
	} NAME SEC(".maps")
TRIE(number, __be32 address);
TRIE(bytes, __u8 address[4]);
TRIE(six, struct in6_addr address);
TRIE(ports, __be16 port; __be16 other);
TRIE(tenants, __u32 tenant; __be32 address);
SEC("xdp") int program(struct xdp_md *ctx) { return XDP_PASS; }
"""
TEN = bytes([8, 0, 0, 0, 10, 0, 0, 0])


def test_keys_of_longest_prefix_maps_are_prefixes(build):
    maps = build(PROGRAM).maps
    for name in ("number", "bytes"):
        assert maps[name].parse_key("10.0.0.0/8") == TEN
        assert maps[name].format_key(TEN) == "10.0.0.0/8"
        assert maps[name].parse_key("10.1.2.3") == bytes([32, 0, 0, 0, 10, 1, 2, 3])
        assert maps[name].parse_key({"prefixlen": 8, "address": "10.0.0.0"}) == TEN
        assert maps[name].parse_key("0.0.0.0/0") == bytes(8)
    assert maps["six"].parse_key("2001:db8::/32") == bytes([32, 0, 0, 0, 0x20, 1, 0x0D, 0xB8]) + bytes(12)
    assert maps["six"].format_key(bytes([128, 0, 0, 0]) + bytes(15) + b"\1") == "::1/128"


def test_keys_that_are_no_prefixes_of_addresses_go_by_their_types(build):
    maps = build(PROGRAM).maps
    assert maps["ports"].format_key(TEN) == {"prefixlen": 8, "port": 10 << 8, "other": 0}
    assert maps["tenants"].format_key(TEN + bytes([1, 2, 3, 4])) == {
        "prefixlen": 8, "tenant": 10, "address": "1.2.3.4"
    }  # fmt: skip
    with pytest.raises(BpfnicError, match="^map 'ports': key: '10.0.0.0/8' is no object with members of struct$"):
        maps["ports"].parse_key("10.0.0.0/8")


def test_without_types_a_key_is_a_prefix_or_hex_bytes():
    definition = MapDefinition("routes", MapType.LPM_TRIE, 8, 4, 1, MapFlag.NO_PREALLOC)
    assert definition.parse_key("10.0.0.0/8") == definition.parse_key("08000000 0a000000") == TEN
    assert definition.format_key(TEN) == "10.0.0.0/8"


@pytest.mark.parametrize(("name", "text", "example"), [
    ("number", "10.0.0.0/33", "10.0.0.0/8"), ("number", "2001:db8::/32", "10.0.0.0/8"),
    ("six", "10.0.0.0/8", "2001:db8::/32"), ("six", "2001:db8::/129", "2001:db8::/32"),
])  # fmt: skip
def test_a_prefix_that_is_none_is_named(build, name, text, example):
    with pytest.raises(BpfnicError, match=f"^map '{name}': key: '{text}' is no prefix such as {example}$"):
        build(PROGRAM).maps[name].parse_key(text)
