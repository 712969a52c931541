"""pcap and pcapng against hand-built bytes (in both byte orders) and against scapy's reader and writer."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgReader, RawPcapNgReader, wrpcap, wrpcapng

from bpfnic.host.pcap import VERDICT_TC, VERDICT_XDP, Capture, Interface, Packet, read, write
from bpfnic.spec.errors import BpfnicError

FRAME = bytes(range(60))
ORDERS = pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])

# -- building blocks by hand --------------------------------------------------------------------------------------


def pcap_file(order, magic, *records, link=1, version=(2, 4)):
    return struct.pack(order + "IHHIIII", magic, *version, 0, 0, 65535, link) + b"".join(records)


def pcap_record(order, seconds, fraction, data, length=None):
    return struct.pack(order + "IIII", seconds, fraction, len(data), len(data) if length is None else length) + data


def block(order, kind, body):
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, len(body) + 12) + body + struct.pack(order + "I", len(body) + 12)


def option(order, code, value):
    return struct.pack(order + "HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(order, version=(1, 0)):
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, *version, -1))


def interface(order, *options, link=1, snaplen=0):
    return block(order, 1, struct.pack(order + "HHI", link, 0, snaplen) + b"".join(options))


def enhanced(order, data, stamp=0, index=0, options=b"", length=None):
    head = struct.pack(
        order + "IIIII", index, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data) if length is None else length
    )
    return block(order, 6, head + data + bytes(-len(data) % 4) + options)


@pytest.fixture
def parse(tmp_path):
    def parse_bytes(raw):
        path = tmp_path / "case.pcap"
        path.write_bytes(raw)
        return read(path)

    return parse_bytes


# -- pcap ---------------------------------------------------------------------------------------------------------


@ORDERS
@pytest.mark.parametrize(("magic", "unit"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)], ids=["us", "ns"])
def test_pcap_stamps_in_both_units_and_byte_orders(parse, order, magic, unit):
    raw = pcap_file(order, magic, pcap_record(order, 5, 7, FRAME), pcap_record(order, 6, 999_999, FRAME[:20], 1400))
    capture = parse(raw)
    assert capture.interfaces == [Interface(snaplen=65535)]
    assert capture.packets == [
        Packet(5_000_000_000 + 7 * unit, FRAME),
        Packet(6_000_000_000 + 999_999 * unit, FRAME[:20], length=1400),
    ]
    assert [packet.wire_length for packet in capture.packets] == [60, 1400]


def test_pcap_fcs_is_taken_off_where_the_link_field_declares_one(parse):
    link = 1 | 1 << 26 | 2 << 28  # bit F, two 16-bit words
    whole, cut = pcap_record("<", 0, 0, FRAME + b"fcs!"), pcap_record("<", 0, 0, FRAME[:30], 64)
    packets = parse(pcap_file("<", 0xA1B2C3D4, whole, cut, link=link)).packets
    assert packets == [Packet(0, FRAME), Packet(0, FRAME[:30], length=60)]


# -- pcapng -------------------------------------------------------------------------------------------------------


@ORDERS
def test_pcapng_sections_interfaces_and_every_packet_block(parse, order):
    other = "<" if order == ">" else ">"
    old = struct.pack(order + "HHIIII", 1, 0xFFFF, 0, 9, 20, 1000) + FRAME[:20]
    raw = (
        section(order)
        + interface(order, option(order, 2, b"left"), option(order, 9, b"\x09"))
        + interface(order, option(order, 2, b"right"), option(order, 9, b"\x8a"), option(order, 14, bytes(8)))
        + block(order, 5, bytes(40))  # interface statistics: stepped over
        + enhanced(order, FRAME, stamp=1 << 33)
        + enhanced(order, FRAME[:61], stamp=3 << 10, index=1)
        + block(order, 2, old)
        + block(order, 3, struct.pack(order + "I", 17) + FRAME[:17])
        + block(order, 0x40000BAD, b"whatever")
        + section(other)
        + interface(other, snaplen=20)
        + enhanced(other, FRAME[:33], stamp=1_000_001)
        + block(other, 3, struct.pack(other + "I", 60) + FRAME[:20])  # the snap length cuts it
    )
    capture = parse(raw)
    assert capture.interfaces == [Interface("left"), Interface("right"), Interface("", 20)]
    assert capture.packets == [
        Packet(1 << 33, FRAME, 0),
        Packet(3_000_000_000, FRAME[:61], 1),
        Packet(9 * 10**9 // 1024, FRAME[:20], 1, length=1000),
        Packet(9 * 10**9 // 1024, FRAME[:17], 0),
        Packet(1_000_001_000, FRAME[:33], 2),
        Packet(1_000_001_000, FRAME[:20], 2, length=60),
    ]


@ORDERS
def test_pcapng_offset_and_fcs_of_an_interface(parse, order):
    options = [option(order, 14, struct.pack(order + "q", -2)), option(order, 13, b"\x20")]
    raw = section(order) + interface(order, *options) + enhanced(order, FRAME + b"fcs!", stamp=5_000_003)
    assert parse(raw).packets == [Packet(3_000_003_000, FRAME)]


@ORDERS
def test_pcapng_packet_options(parse, order):
    words = b"".join(
        [
            option(order, 1, "größe".encode()),
            option(order, 4, bytes(8)),
            option(order, 5, struct.pack(order + "Q", 77)),
            option(order, 7, b"\x02" + struct.pack(order + "Q", 3)),
            option(order, 0, b""),
            b"\xff\xff\xff\xff",  # after the end of options nothing is looked at
        ]
    )
    tc = option(order, 7, b"\x01" + struct.pack(order + "Q", 2))
    hardware = option(order, 7, b"\x00abc")
    raw = section(order) + interface(order)
    raw += enhanced(order, FRAME, options=words) + enhanced(order, FRAME, options=tc)
    raw += enhanced(order, FRAME, options=hardware)
    assert parse(raw).packets == [
        Packet(0, FRAME, packet_id=77, verdict=(VERDICT_XDP, 3), comment="größe"),
        Packet(0, FRAME, verdict=(VERDICT_TC, 2)),
        Packet(0, FRAME),
    ]


# -- scapy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_pcap_written_by_scapy(tmp_path, nanoseconds, endianness):
    frames = [Ether(bytes(Ether(dst="02:00:00:00:00:01") / IP() / UDP() / bytes(n))) for n in (0, 1, 100, 1400)]
    for i, frame in enumerate(frames):
        frame.time = 1000 + i
    path = tmp_path / "scapy.pcap"
    wrpcap(str(path), frames, nano=nanoseconds, endianness=endianness)
    assert read(path).packets == [Packet((1000 + i) * 10**9, bytes(frame)) for i, frame in enumerate(frames)]


def test_pcapng_written_by_scapy(tmp_path):
    frames = [Ether(src="02:00:00:00:00:01", type=0x88B5) / bytes(n) for n in (46, 47, 48, 49)]
    for i, frame in enumerate(frames):
        frame.time = 1000 + i
    frames[2].comment = b"the third"
    path = tmp_path / "scapy.pcapng"
    wrpcapng(str(path), frames)
    packets = read(path).packets
    assert [(p.timestamp, p.data) for p in packets] == [
        ((1000 + i) * 10**9, bytes(frame)) for i, frame in enumerate(frames)
    ]
    assert [p.comment for p in packets] == ["", "", "the third", ""]


def test_scapy_reads_what_is_written(tmp_path):
    path = tmp_path / "ours.pcapng"
    ether = Ether(dst="02:00:00:00:00:01")  # without, scapy asks the network
    packets = [
        Packet(1_700_000_000_123_456_789, bytes(ether / IP() / UDP() / bytes(n)), n % 2, comment=f"packet {n}")
        for n in range(4)
    ]
    write(path, Capture([Interface("port0"), Interface("port1")], packets))
    with RawPcapNgReader(str(path)) as reader:
        raw = list(reader)
        assert [option["name"] for option in (interface[2] for interface in reader.interfaces)] == [b"port0", b"port1"]
    for (data, meta), packet in zip(raw, packets, strict=True):
        assert data == packet.data and meta.wirelen == len(data)
        assert meta.tsresol == 10**9 and meta.tshigh << 32 | meta.tslow == packet.timestamp
    with PcapNgReader(str(path)) as reader:
        assert [p.comment.decode() for p in reader] == [packet.comment for packet in packets]


# -- our own round trip -------------------------------------------------------------------------------------------

PACKETS = st.builds(
    lambda stamp, data, interface, more, number, verdict, comment: Packet(
        stamp, data, interface, None if more == 0 else len(data) + more, number, verdict, comment
    ),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=100),
    st.integers(0, 2),
    st.integers(0, 5),
    st.none() | st.integers(0, 2**64 - 1),
    st.none() | st.tuples(st.sampled_from([VERDICT_TC, VERDICT_XDP]), st.integers(0, 2**64 - 1)),
    st.text(st.characters(codec="utf-8"), max_size=10),
)


@given(st.lists(PACKETS, min_size=1, max_size=5))
def test_what_is_written_reads_back(tmp_path_factory, packets):
    path = tmp_path_factory.mktemp("pcap") / "round.pcapng"
    capture = Capture([Interface("port0"), Interface("port1", 96), Interface("host")], packets)
    write(path, capture)
    assert read(path) == capture


def test_verdict_is_written_as_the_draft_lays_it_out(tmp_path):
    path = tmp_path / "verdict.pcapng"
    write(path, Capture([Interface("p")], [Packet(0, FRAME, verdict=(VERDICT_XDP, 4))]))
    assert bytes.fromhex("0700 0900 02 0400000000000000 000000 00000000") in path.read_bytes()


# -- what can't be used -------------------------------------------------------------------------------------------

HEAD = section("<") + interface("<")
PCAP = pcap_file("<", 0xA1B2C3D4)


def patched(raw, at, value):
    return raw[:at] + value + raw[at + len(value) :]


BAD = {
    "empty": (b"", 0, "the file is empty"),
    "text": (b"hello, world", 0, "68 65 6c 6c starts neither"),
    "three bytes": (b"\xd4\xc3\xb2", 0, "starts neither"),
    "pcap header cut": (PCAP[:20], 0, "the file header is cut: 20 of 24"),
    "pcap version": (pcap_file("<", 0xA1B2C3D4, version=(2, 3)), 4, "pcap version 2.3 must be 2.4"),
    "pcap link": (pcap_file(">", 0xA1B2C3D4, link=113), 20, "link type 113 must be 1 (Ethernet)"),
    "pcap without packets": (PCAP, 24, "without a packet"),
    "pcap packet header cut": (PCAP + bytes(15), 24, "a packet's header is cut: 15 of 16"),
    "pcap packet cut": (PCAP + pcap_record("<", 0, 0, FRAME)[:-1], 24, "claims 60 bytes, 59 are there"),
    "pcap fraction": (PCAP + pcap_record("<", 0, 1_000_000, FRAME), 24, "above a second"),
    "pcap longer than itself": (PCAP + pcap_record("<", 0, 0, FRAME, 59), 24, "of 59 bytes claims 60 captured"),
    "second pcap packet cut": (PCAP + pcap_record("<", 0, 0, FRAME) + b"x", 24 + 76, "1 of 16 bytes"),
    "pcapng without packets": (HEAD, len(HEAD), "without a packet"),
    "section cut": (section("<")[:11], 0, "a block is cut: 11 of at least 12"),
    "byte-order magic": (patched(section("<"), 8, b"\1\2\3\4"), 0, "byte-order magic 01 02 03 04 must be"),
    "pcapng version": (section("<", (2, 0)), 0, "pcapng version 2.0 must be 1.x"),
    "section too short": (block("<", 0x0A0D0D0A, struct.pack("<I", 0x1A2B3C4D)), 0, "body is cut: 4 of 16"),
    "block length 8": (HEAD + struct.pack("<III", 6, 8, 8), len(HEAD), "claims 8 bytes"),
    "block length odd": (HEAD + struct.pack("<IIII", 6, 14, 0, 14), len(HEAD), "multiple of 4"),
    "block cut": (HEAD + enhanced("<", FRAME)[:-4], len(HEAD), "type 0x6 is cut: 88 of 92"),
    "trailer": (HEAD + patched(enhanced("<", FRAME), 88, b"\0"), len(HEAD), "92 bytes at its start and 0 at its end"),
    "link type": (section("<") + interface("<", link=101), 28, "link type 101 must be 1"),
    "interface cut": (section("<") + block("<", 1, bytes(4)), 28, "body is cut: 4 of 8"),
    "if_tsresol": (section("<") + interface("<", option("<", 9, b"\1\2")), 28, "if_tsresol has 2 bytes, must have 1"),
    "if_tsoffset": (section("<") + interface("<", option("<", 14, b"\1")), 28, "if_tsoffset has 1 bytes, must have 8"),
    "no interface": (section("<") + enhanced("<", FRAME), 28, "names interface 0 of 0"),
    "interface": (HEAD + enhanced("<", FRAME, index=1), len(HEAD), "names interface 1 of 1"),
    "interface of the last section": (HEAD + section("<") + enhanced("<", FRAME), len(HEAD) + 28, "interface 0 of 0"),
    "captured": (HEAD + patched(enhanced("<", FRAME), 20, b"\x41"), len(HEAD), "claims 65 bytes, 60 are there"),
    "longer than itself": (HEAD + enhanced("<", FRAME, length=9), len(HEAD), "of 9 bytes claims 60 captured"),
    "simple packet cut": (HEAD + block("<", 3, struct.pack("<I", 60)), len(HEAD), "claims 60 bytes, 0 are there"),
    "enhanced packet cut": (HEAD + block("<", 6, bytes(16)), len(HEAD), "body is cut: 16 of 20"),
    "option cut": (
        HEAD + enhanced("<", FRAME, options=struct.pack("<HH", 1, 9) + bytes(8)),
        len(HEAD),
        "option 1 claims 9 bytes, 8 are there",
    ),
    "epb_packetid": (
        HEAD + enhanced("<", FRAME, options=option("<", 5, bytes(7))),
        len(HEAD),
        "epb_packetid has 7 bytes, must have 8",
    ),
    "epb_verdict": (
        HEAD + enhanced("<", FRAME, options=option("<", 7, b"\x02\x01")),
        len(HEAD),
        "epb_verdict has 1 bytes, must have 8",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_file_names_itself_and_the_offset(tmp_path, name):
    raw, offset, words = BAD[name]
    path = tmp_path / "bad.pcap"
    path.write_bytes(raw)
    with pytest.raises(BpfnicError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: offset {offset}: ") and words in message and "\n" not in message


def test_missing_file_is_named(tmp_path):
    with pytest.raises(BpfnicError, match=r"nowhere\.pcap: No such file"):
        read(tmp_path / "nowhere.pcap")


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (Packet(0, FRAME, 1), "packet 0: interface 1 of 1"),
        (Packet(-1, FRAME), "packet 0: stamp -1 ns"),
        (Packet(0, FRAME, length=59), "packet 0: 60 bytes captured of 59"),
    ],
)
def test_unwritable_packet_is_named(tmp_path, packet, words):
    with pytest.raises(BpfnicError, match=words):
        write(tmp_path / "out.pcapng", Capture([Interface()], [packet]))


def test_unwritable_path_is_named(tmp_path):
    with pytest.raises(BpfnicError, match=r"no/out\.pcapng: No such file"):
        write(tmp_path / "no" / "out.pcapng", Capture([Interface()], [Packet(0, FRAME)]))


WHOLE = HEAD + enhanced("<", FRAME, options=option("<", 7, b"\x02" + bytes(8))) + enhanced("<", FRAME[:13])


@given(st.integers(0, len(WHOLE)), st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_any_damage_gives_packets_or_one_clear_error(tmp_path_factory, length, at, byte):
    raw = patched(WHOLE, at, bytes([byte]))[:length]
    path = tmp_path_factory.mktemp("pcap") / "damaged.pcapng"
    path.write_bytes(raw)
    try:
        assert read(path).packets
    except BpfnicError as error:
        assert f"{path}: offset " in str(error)
