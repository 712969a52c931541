"""Helpers of tc programs: the firmware's, and the running kernel's by BPF_PROG_TEST_RUN: same program, same packet,
same return values, fields and bytes. What either must say stands here as the kernel documents it (linux/bpf.h), or as
the NIC's own limits have it (docs/architecture.md)."""

from errno import EACCES, EALREADY, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP, EPROTO

import pytest

import bpfnic
from tests.sim.tcsteps import BYTES, DOUBLE, ETH, IPV4, PADDING, TAGGED, V4, V6, Chance, Program, Step, load, store

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC
ENOTSUPP = 524  # linux/errno.h: not meant for users

GRE, UDP, TO_V4, TO_V6, ETHERNET, KEEP_CSUM = 8, 16, 2, 4, 64, 32  # BPF_F_ADJ_ROOM_*
FROM_V4, FROM_V6 = 128, 256
NET, MAC = 0, 1


@pytest.fixture(scope="module", params=["golden", "rtl", pytest.param("linux", marks=pytest.mark.linux)])
def program(request):
    with bpfnic.Nic(request.param) as nic:
        yield Program(nic)


@pytest.fixture(scope="module")
def golden():
    with bpfnic.Nic("golden") as nic:
        yield Program(nic)


@pytest.mark.linux
@pytest.mark.parametrize("seed", range(3))
def test_what_chance_draws_is_what_the_kernel_does(golden, linux, seed):
    chance = Chance(seed)
    for _ in range(60):
        frame, memory, steps = chance.frame(), chance.memory(), chance.steps()
        assert golden.run(frame, *steps, memory=memory) == linux.run(frame, *steps, memory=memory), steps


@pytest.fixture(scope="module")
def linux():
    with bpfnic.Nic("linux") as nic:
        yield Program(nic)


@pytest.mark.parametrize(
    ("frame", "steps", "values"),
    [
        (V4, [load(14, 4), load(len(V4) - 4, 4), load(len(V4) - 3, 4), load(2**31, 1)], [0, 0, -EFAULT, -EFAULT]),
        (V4, [Step("LOAD_RELATIVE", 0, 19, 1), Step("LOAD_RELATIVE", 0, 13, 0), Step("LOAD_RELATIVE", 0, 3, 2),
              Step("LOAD_RELATIVE", 0x1_0000, 3, 0)], [0, 0, -EFAULT, -EFAULT]),
        (V4, [store(14, 4), store(14, 4, 3), store(14, 4, 4), store(len(V4), 1)], [0, 0, -EINVAL, -EFAULT]),
        (V4, [Step("L3", 24, 0x1234, 0x4321, 2), Step("L3", 24, 1, 2, 1), Step("L3", 24, 1, 2, 0), Step("L3", 25)],
         [0, -EINVAL, -EINVAL, -EFAULT]),
        (V4, [Step("L3", 24, 0, 0, 16), Step("L3", 0x1_0000), Step("L3", len(V4)), Step("L3", 24, 5, 6, 4)],
         [-EINVAL, -EFAULT, -EFAULT, 0]),
        (V4, [Step("L4", 40, 1, 2, 0x112), Step("L4", 41), Step("L4", 40, 1, 2, 0x20 | 3), Step("L4", 40, 1, 2, 0x74)],
         [-EINVAL, -EFAULT, 0, 0]),
        (V4, [Step("PULL", 0), Step("PULL", len(V4)), Step("PULL", len(V4) + 1)], [0, 0, -ENOMEM]),
        (V4, [Step("TAIL", 14), Step("TAIL", 13), Step("TAIL", 60, d=1), Step("TAIL", 400)], [0, -EINVAL, -EINVAL, 0]),
        (V4, [Step("ROOM", 20, MAC, d=TO_V4), Step("TAIL", 60)], [0, -ENOTSUPP]),
        (V4, [Step("HEAD", 14), Step("HEAD", 0), Step("HEAD", 4, d=1), Step("HEAD", -1)], [0, 0, -EINVAL, -EINVAL]),
        (V4, [Step("PROTO", 0xDD86), Step("PROTO", 0xDD86), Step("PROTO", 8), Step("PROTO", 8, d=1)],
         [0, -ENOTSUPP, 0, -EINVAL]),
        (TAGGED, [Step("TYPE", 3), Step("TYPE", 4), Step("TYPE", 0)], [0, -EINVAL, 0]),
        (V4, [Step("ROOM", 8, MAC, d=1 << 40), Step("ROOM", 0x1000), Step("ROOM", 8, 2), Step("ROOM", -9999)],
         [-EINVAL, -EFAULT, -ENOTSUPP, -EFAULT]),
        (DOUBLE, [Step("ROOM", 8)], [-ENOTSUPP]),  # neither IPv4 nor IPv6
        (V4, [Step("ROOM", 8, NET, d=FROM_V4), Step("ROOM", -8, NET, d=FROM_V4 | FROM_V6),
              Step("ROOM", -len(V4)), Step("ROOM", -20, NET, d=TO_V4)], [-EINVAL, -EINVAL, -ENOTSUPP, -EINVAL]),
        (V4, [Step("ROOM", 40, MAC, d=TO_V4 | TO_V6), Step("ROOM", 40, MAC, d=TO_V4 | GRE | UDP),
              Step("ROOM", 20, MAC, d=TO_V4), Step("ROOM", 20, MAC, d=TO_V4)], [-EINVAL, -EINVAL, 0, -EALREADY]),
        (V4, [Step("ROOM", 20, MAC, d=TO_V4 | 21 << 56), Step("ROOM", 34, MAC, d=TO_V4 | ETHERNET | 13 << 56),
              Step("ROOM", 34, MAC, d=TO_V4 | ETHERNET | 14 << 56)], [-EINVAL, -EINVAL, 0]),
        (TAGGED, [Step("POP"), Step("POP"), Step("PUSH", 0x0081, 5), Step("POP")], [0, 0, 0, 0]),
        (V4, [Step("CSUM_LEVEL", d=0), Step("CSUM_LEVEL", d=1), Step("CSUM_LEVEL", d=1), Step("CSUM_LEVEL", d=0)],
         [-EACCES, 0, 0, 1]),
        (V4, [Step("CSUM_LEVEL", d=1), Step("ROOM", 4, NET, d=KEEP_CSUM), Step("CSUM_LEVEL"), Step("ROOM", 4, NET)],
         [0, 0, 0, 0]),
        (V4, [Step("CSUM_LEVEL", d=1), Step("CSUM_LEVEL", d=2), Step("CSUM_LEVEL"), Step("CSUM_LEVEL", d=4)],
         [0, 0, -EACCES, -EINVAL]),
        (V4, [Step("CSUM_UPDATE", 1)], [-ENOTSUPP]),
        (V4, [Step("SET_TSTAMP", 3, d=1), Step("SET_TSTAMP", 1), Step("SET_TSTAMP", 2, d=7), Step("SET_TSTAMP")],
         [-EINVAL, -EINVAL, 0, 0]),
        (DOUBLE, [Step("SET_TSTAMP", 1, d=1)], [-EOPNOTSUPP]),
        (V4, [Step("GET_TUNNEL", 0, 43), Step("SET_TUNNEL", 0, 43), Step("GET_TUNNEL", 0, 43, d=1),
              Step("GET_TUNNEL", 0, 43)], [-EINVAL, 0, -EPROTO, 0]),
        (V4, [Step("SET_TUNNEL", 0, 43, d=32), Step("SET_TUNNEL", 0, 42), Step("SET_TUNNEL", 0, 7, d=1),
              Step("GET_TUNNEL", 0, 7, d=1)], [-EINVAL, -EINVAL, 0, -EINVAL]),
    ],
)  # fmt: skip
def test_values(program, frame, steps, values):
    seen = program.run(frame, *steps)
    assert seen.values[: len(values)] == values
    assert seen.cause == "NONE"


def test_bytes_that_cant_be_loaded_are_zeros(program):
    memory = bytes(range(1, BYTES + 1))
    seen = program.run(V4, load(14, 20), load(len(V4), 9), memory=memory)
    assert bytes(seen.steps[0]["bytes"]) == V4[14:34] + memory[20:]
    assert bytes(seen.steps[1]["bytes"]) == bytes(9) + memory[9:]


def checksum(data: bytes) -> int:
    """RFC 1071, over whole words."""
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@pytest.mark.parametrize("address", [0x0A000009, 0, 0xFFFFFFFF, 0xF5FFFFFE])
def test_a_sum_follows_a_changed_address(program, address):
    """l3_csum_replace by 4 bytes: the header's sum is that of RFC 1071."""
    header = bytearray(V4[14:34])
    header[10:12] = checksum(bytes(header)).to_bytes(2, "big")
    frame = V4[:14] + bytes(header) + V4[34:]
    new = address.to_bytes(4, "big")
    before, after = (int.from_bytes(data, "little") for data in (frame[26:30], new))
    memory = new + bytes(BYTES - 4)
    seen = program.run(frame, Step("L3", 24, before, after, 4), store(26, 4), memory=memory)
    assert seen.values[:2] == [0, 0]
    assert seen.data is not None and checksum(seen.data[14:34]) == 0


def test_a_sum_that_would_say_none_is_mangled(program):
    """BPF_F_MARK_MANGLED_0: 0 stays what it is, and what would become 0 becomes ones; BPF_F_MARK_ENFORCE: 0 counts."""
    zero = V4[:40] + bytes(2) + V4[42:]
    assert program.run(zero, Step("L4", 40, 1, 2, 0x22)).data == zero
    becomes = V4[:40] + b"\x34\x12" + V4[42:]
    differs = 0x1234  # as a little-endian word; the sum falls by what the new one is greater
    assert program.run(becomes, Step("L4", 40, 0, differs, 0x22)).data == V4[:40] + b"\xff\xff" + V4[42:]
    assert program.run(zero, Step("L4", 40, 1, 2, 0x62)).data != zero


def test_room_for_another_header(program):
    seen = program.run(V4, Step("ROOM", 20, MAC, d=TO_V4))
    assert seen.data == V4[:14] + bytes(20) + V4[14:]
    seen = program.run(V4, Step("ROOM", 8, NET))
    assert seen.data == V4[:34] + bytes(8) + V4[34:]
    inside = V4[:14] + IPV4[:20] + V4[14:]
    seen = program.run(inside, Step("ROOM", -20, MAC))
    assert seen.data == V4


def test_protocols_change(program):
    seen = program.run(V4, Step("PROTO", 0xDD86))
    assert seen.data == V4[:14] + bytes(20) + V4[14:]
    assert seen.steps[0]["protocol"] == 0xDD86
    seen = program.run(V6, Step("PROTO", 8))
    assert seen.data == V6[:14] + V6[34:]
    assert seen.steps[0]["protocol"] == 8


def test_tags(program):
    """The outer tag isn't among the bytes while the program runs."""
    seen = program.run(DOUBLE, Step("NOTHING"), load(12, 6), Step("POP"), Step("POP"))
    first, second, third, _ = seen.steps
    assert (first["vlan_present"], first["vlan_proto"], first["vlan_tci"]) == (1, 0xA888, 0x6005)
    assert (first["len"], first["protocol"]) == (len(DOUBLE) - 4, 0x0081)
    assert bytes(second["bytes"][:6]) == DOUBLE[16:22]
    assert (third["vlan_present"], third["vlan_tci"], third["protocol"]) == (1, 7, 8)
    assert seen.data == ETH + DOUBLE[20:]
    seen = program.run(V4, Step("PUSH", 0x0081, 5), Step("PUSH", 0xA888, 6))
    assert [step["protocol"] for step in seen.steps[:2]] == [8, 0x0081]
    assert seen.data == ETH + b"\x88\xa8\x00\x06\x81\x00\x00\x05" + V4[12:]


def test_fields_that_a_program_writes(program):
    seen = program.run(V4, Step("WRITE", 0x89ABCDEF, 0x76543210, 0x123, 2**64 - 2))
    fields = seen.steps[0]
    assert (fields["mark"], fields["priority"], fields["queue_mapping"]) == (0x89ABCDEF, 0x76543210, 0x123)
    assert (fields["tc_index"], fields["tc_classid"]) == (0xCDEF, 0x3210)  # of 16 bits
    assert fields["tstamp"] == 2**64 - 2
    assert fields["cb"] == [0x89ABCDEF, 0x76543210, 0, 0, 0x123]


def test_nothing_is_left_of_the_packet_before(program):
    """Each packet begins with fields of zeros, on the thread of one that wrote them too."""
    for _ in range(40):
        program.run(TAGGED, Step("WRITE", *[0xFFFF_FFFF] * 4), Step("SET_HASH", 5), Step("CSUM_LEVEL", d=1))
    fields = program.run(V4, Step("CSUM_LEVEL")).steps[0]
    zero = ("mark", "priority", "queue_mapping", "tc_index", "tc_classid", "tstamp", "hash", "vlan_present", "vlan_tci")
    assert [fields[name] for name in zero] == [0] * len(zero)
    assert (fields["cb"], fields["value"]) == ([0] * 5, -EACCES)


def test_hashes(program):
    """Of one flow in both directions, and of what it has once a program has said so."""
    assert program.run(V4, Step("GET_HASH")).values[0] == 1
    assert program.run(V4, Step("SET_HASH", 77), Step("GET_HASH")).values[1] == 1
    seen = program.run(V4, Step("SET_HASH", 77), Step("HASH_INVALID"), store(30, 1, 2))
    assert [step["hash"] for step in seen.steps[:3]] == [77, 0, 0]
    assert [step["hash"] for step in program.run(V4, Step("SET_HASH", 77), store(30, 1)).steps[:2]] == [77, 77]
    assert [step["hash"] for step in program.run(V4, Step("SET_HASH", 77), store(30, 1, 2)).steps[:2]] == [77, 0]


def test_what_a_nic_has_no_room_for(golden):
    """216 bytes before a packet, and its buffer's end but for 320 behind it. Linux has more, or makes it."""
    assert golden.run(V4, Step("HEAD", 216), Step("HEAD", 1)).values[:2] == [0, -ENOMEM]
    assert golden.run(V4, Step("ROOM", 217)).values[0] == -ENOMEM
    most = 2048 - 256 - 320
    assert golden.run(V4, Step("TAIL", most), Step("TAIL", most + 1)).values[:2] == [0, -EINVAL]


def test_random_sequences_on_the_hardware(golden):
    chance = Chance(9)
    with bpfnic.Nic("rtl") as nic:
        hardware = Program(nic)
        for _ in range(20):
            frame, memory, steps = chance.frame(), chance.memory(), chance.steps()
            assert hardware.run(frame, *steps, memory=memory) == golden.run(frame, *steps, memory=memory), steps


def test_frames_of_no_type(program):
    """eth_type_trans(): a length is 802.2, but for raw IPX."""
    assert program.run(ETH + b"\x00\x40" + PADDING).steps[0]["protocol"] == 0x0400
    assert program.run(ETH + b"\x00\x40\xff\xff" + PADDING).steps[0]["protocol"] == 0x0100
