"""Packet captures: pcap and pcapng in, pcapng out.

Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng (block and option numbers below are theirs). Both byte
orders, microsecond and nanosecond pcap, any `if_tsresol` and `if_tsoffset`, several sections, the obsolete Packet
Block, Simple Packet Blocks; blocks and options of other types are stepped over, as the drafts ask.

Every packet is an Ethernet frame without its FCS (one that the capture declares is taken off), because that is what
the NIC sees. A file that can't be used raises `BpfnicError` with the file's name and the offset in bytes of the block
or record at fault.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bpfnic.spec.errors import BpfnicError

LINKTYPE_ETHERNET = 1

# Who gave a verdict: the first octet of the option epb_verdict.
VERDICT_TC = 1
VERDICT_XDP = 2

_NS = 10**9

# Block types
_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_OLD_PACKET = 2
_SIMPLE_PACKET = 3
_ENHANCED_PACKET = 6
_BYTE_ORDER_MAGIC = 0x1A2B3C4D

# Option codes: 0 and 1 in every block, the others by block type
_OPT_END = 0
_OPT_COMMENT = 1
_IF_NAME = 2
_IF_TSRESOL = 9
_IF_FCSLEN = 13
_IF_TSOFFSET = 14
_EPB_PACKETID = 5
_EPB_VERDICT = 7

# pcap's magic number as its first four bytes stand in the file -> byte order, nanoseconds in a unit of the stamp
_PCAP_MAGIC = {
    bytes.fromhex("a1b2c3d4"): (">", 1000),
    bytes.fromhex("d4c3b2a1"): ("<", 1000),
    bytes.fromhex("a1b23c4d"): (">", 1),
    bytes.fromhex("4d3cb2a1"): ("<", 1),
}


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a capture.

    name: what the capture calls it, "" where it says nothing.
    snaplen: longest captured length in bytes, 0 for no limit.
    """

    name: str = ""
    snaplen: int = 0


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured frame.

    timestamp: nanoseconds since 1970-01-01 UTC. A Simple Packet Block has none and takes its predecessor's.
    data: the bytes captured, from the destination address on, without FCS.
    interface: index into `Capture.interfaces`.
    length: bytes on the wire without FCS; more than len(data) where the capture cut the packet. None means len(data).
    packet_id: epb_packetid, the same for the same packet seen twice, or None.
    verdict: (VERDICT_XDP or VERDICT_TC, the program's 64-bit return value), or None.
    comment: text, "" for none.
    """

    timestamp: int
    data: bytes
    interface: int = 0
    length: int | None = None
    packet_id: int | None = None
    verdict: tuple[int, int] | None = None
    comment: str = ""

    @property
    def wire_length(self) -> int:
        """Bytes on the wire, without FCS."""
        return len(self.data) if self.length is None else self.length


@dataclass(frozen=True, slots=True)
class Capture:
    """A capture file's interfaces and packets, in file order."""

    interfaces: list[Interface]
    packets: list[Packet]


def read(path: str | Path) -> Capture:
    """Reads a pcap or pcapng file, told apart by its first bytes.

    Raises BpfnicError, naming file and offset: a file that can't be opened, an empty one, one without packets, one
    that is neither format, a cut or inconsistent block, a link type other than Ethernet.
    """
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise BpfnicError(f"{path}: {error.strerror}") from None
    if not raw:
        raise BpfnicError(f"{path}: offset 0: the file is empty")
    if raw[:4] in _PCAP_MAGIC:
        capture = _read_pcap(str(path), raw)
    elif raw[:4] == struct.pack(">I", _SECTION):
        capture = _PcapngReader(str(path), raw).read()
    else:
        raise BpfnicError(f"{path}: offset 0: {raw[:4].hex(' ')} starts neither a pcap nor a pcapng file")
    if not capture.packets:
        raise BpfnicError(f"{path}: offset {len(raw)}: the capture ends without a packet")
    return capture


def _fail(path: str, offset: int, message: str) -> BpfnicError:
    return BpfnicError(f"{path}: offset {offset}: {message}")


# -- pcap ---------------------------------------------------------------------------------------------------------


def _read_pcap(path: str, raw: bytes) -> Capture:
    order, unit = _PCAP_MAGIC[raw[:4]]
    if len(raw) < 24:
        raise _fail(path, 0, f"the file header is cut: {len(raw)} of 24 bytes")
    major, minor, _zone, _accuracy, snaplen, link = struct.unpack_from(order + "HHIIII", raw, 4)
    if (major, minor) != (2, 4):
        raise _fail(path, 4, f"pcap version {major}.{minor} must be 2.4")
    _require_ethernet(path, 20, link & 0xFFFF)
    fcs = 2 * (link >> 28) if link & 1 << 26 else 0  # bit F says that the top four bits count the FCS in 16-bit words
    packets = []
    at = 24
    while at < len(raw):
        if len(raw) - at < 16:
            raise _fail(path, at, f"a packet's header is cut: {len(raw) - at} of 16 bytes")
        seconds, fraction, captured, length = struct.unpack_from(order + "IIII", raw, at)
        if fraction * unit >= _NS:
            raise _fail(path, at, f"a packet's stamp has a fraction of {fraction * unit} ns, above a second")
        data = _packet_data(path, at, raw, at + 16, len(raw), captured, length)
        packets.append(_packet(seconds * _NS + fraction * unit, data, 0, length, fcs))
        at += 16 + captured
    return Capture([Interface(snaplen=snaplen)], packets)


def _require_ethernet(path: str, at: int, link: int) -> None:
    if link != LINKTYPE_ETHERNET:
        raise _fail(path, at, f"link type {link} must be {LINKTYPE_ETHERNET} (Ethernet)")


def _packet_data(path: str, at: int, raw: bytes, start: int, end: int, captured: int, length: int) -> bytes:
    """The captured bytes from `start`, which must lie before `end` and be no more than the packet's own length."""
    if captured > end - start:
        raise _fail(path, at, f"a packet is cut: it claims {captured} bytes, {max(end - start, 0)} are there")
    if captured > length:
        raise _fail(path, at, f"a packet of {length} bytes claims {captured} captured ones")
    return raw[start : start + captured]


def _packet(stamp: int, data: bytes, interface: int, length: int, fcs: int, **options) -> Packet:
    """A packet whose last `fcs` bytes on the wire are its FCS, of which a cut capture holds fewer or none."""
    length = max(length - fcs, 0)
    data = data[:length]
    return Packet(stamp, data, interface, None if length == len(data) else length, **options)


# -- pcapng, reading ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Clock:
    """How an interface's stamps count: ticks in a second, seconds to add, bytes of FCS at a packet's end."""

    ticks: int
    offset: int
    fcs: int

    def nanoseconds(self, stamp: int) -> int:
        return stamp * _NS // self.ticks + self.offset * _NS


@dataclass(slots=True)
class _PcapngReader:
    """Reads blocks in file order; interfaces number from `base` on in the running section."""

    path: str
    raw: bytes
    order: str = "<"
    base: int = 0
    interfaces: list[Interface] = field(default_factory=list)
    clocks: list[_Clock] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)

    def read(self) -> Capture:
        readers = {
            _SECTION: self._section,
            _INTERFACE: self._interface,
            _OLD_PACKET: self._old_packet,
            _SIMPLE_PACKET: self._simple_packet,
            _ENHANCED_PACKET: self._enhanced_packet,
        }
        at = 0
        while at < len(self.raw):
            kind, end = self._block(at)
            if kind in readers:
                readers[kind](at, at + 8, end - 4)
            at = end
        return Capture(self.interfaces, self.packets)

    def _block(self, at: int) -> tuple[int, int]:
        """Type and end of the block at `at`, whose two lengths agree."""
        raw = self.raw
        if len(raw) - at < 12:
            raise self._fail(at, f"a block is cut: {len(raw) - at} of at least 12 bytes")
        if raw[at : at + 4] == struct.pack(">I", _SECTION):  # this type reads the same in both byte orders
            magic = raw[at + 8 : at + 12]
            orders = {struct.pack(order + "I", _BYTE_ORDER_MAGIC): order for order in "<>"}
            if magic not in orders:
                raise self._fail(at, f"byte-order magic {magic.hex(' ')} must be 1a 2b 3c 4d in either order")
            self.order = orders[magic]
        kind, length = struct.unpack_from(self.order + "II", raw, at)
        if length < 12 or length % 4:
            raise self._fail(at, f"a block of type {kind:#x} claims {length} bytes, must be a multiple of 4 from 12 on")
        if length > len(raw) - at:
            raise self._fail(at, f"a block of type {kind:#x} is cut: {len(raw) - at} of {length} bytes")
        (trailer,) = struct.unpack_from(self.order + "I", raw, at + length - 4)
        if trailer != length:
            raise self._fail(at, f"a block of type {kind:#x} has {length} bytes at its start and {trailer} at its end")
        return kind, at + length

    def _section(self, at: int, body: int, end: int) -> None:
        _magic, major, minor = self._fields("IHHq", at, body, end)[:3]
        if major != 1:
            raise self._fail(at, f"pcapng version {major}.{minor} must be 1.x")
        self.base = len(self.interfaces)

    def _interface(self, at: int, body: int, end: int) -> None:
        link, _reserved, snaplen = self._fields("HHI", at, body, end)
        _require_ethernet(self.path, at, link)
        options = dict(self._options(at, body + 8, end))
        resolution = self._number(at, "if_tsresol", "B", options.get(_IF_TSRESOL, b"\x06"))
        ticks = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
        offset = self._number(at, "if_tsoffset", "q", options.get(_IF_TSOFFSET, bytes(8)))
        fcs_bits = self._number(at, "if_fcslen", "B", options.get(_IF_FCSLEN, b"\x00"))
        self.clocks.append(_Clock(ticks, offset, fcs_bits // 8))
        self.interfaces.append(Interface(options.get(_IF_NAME, b"").decode(errors="replace"), snaplen))

    def _enhanced_packet(self, at: int, body: int, end: int) -> None:
        self._stamped_packet(at, body + 20, end, *self._fields("IIIII", at, body, end))

    def _old_packet(self, at: int, body: int, end: int) -> None:
        interface, _drops, *rest = self._fields("HHIIII", at, body, end)
        self._stamped_packet(at, body + 20, end, interface, *rest)

    def _stamped_packet(
        self, at: int, start: int, end: int, interface: int, high: int, low: int, captured: int, length: int
    ) -> None:
        interface = self._known_interface(at, interface)
        data = _packet_data(self.path, at, self.raw, start, end, captured, length)
        options = dict(self._options(at, start + _padded(captured), end))
        packet_id = options.get(_EPB_PACKETID)
        clock = self.clocks[interface]
        self.packets.append(
            _packet(
                clock.nanoseconds(high << 32 | low),
                data,
                interface,
                length,
                clock.fcs,
                packet_id=None if packet_id is None else self._number(at, "epb_packetid", "Q", packet_id),
                verdict=self._verdict(at, options.get(_EPB_VERDICT, b"")),
                comment=options.get(_OPT_COMMENT, b"").decode(errors="replace"),
            )
        )

    def _simple_packet(self, at: int, body: int, end: int) -> None:
        (length,) = self._fields("I", at, body, end)
        interface = self._known_interface(at, 0)
        captured = min(length, self.interfaces[interface].snaplen or length)
        data = _packet_data(self.path, at, self.raw, body + 4, end, captured, length)
        stamp = self.packets[-1].timestamp if self.packets else 0
        self.packets.append(_packet(stamp, data, interface, length, self.clocks[interface].fcs))

    def _known_interface(self, at: int, index: int) -> int:
        """The index in the whole capture of the running section's interface `index`."""
        if index >= len(self.interfaces) - self.base:
            raise self._fail(at, f"a packet names interface {index} of {len(self.interfaces) - self.base}")
        return self.base + index

    def _verdict(self, at: int, value: bytes) -> tuple[int, int] | None:
        if value[:1] not in (bytes([VERDICT_TC]), bytes([VERDICT_XDP])):  # hardware's and others' mean nothing here
            return None
        return value[0], self._number(at, "epb_verdict", "Q", value[1:])

    def _options(self, at: int, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Code and value of each option in a block's bytes from `start` to `end`."""
        while start < end:
            code, length = self._fields("HH", at, start, end)
            if code == _OPT_END:
                return
            if length > end - start - 4:
                raise self._fail(at, f"option {code} claims {length} bytes, {end - start - 4} are there")
            yield code, self.raw[start + 4 : start + 4 + length]
            start += 4 + _padded(length)

    def _fields(self, layout: str, at: int, start: int, end: int) -> tuple[int, ...]:
        size = struct.calcsize(self.order + layout)
        if size > end - start:
            raise self._fail(at, f"a block's body is cut: {max(end - start, 0)} of {size} bytes")
        return struct.unpack_from(self.order + layout, self.raw, start)

    def _number(self, at: int, name: str, layout: str, value: bytes) -> int:
        size = struct.calcsize(self.order + layout)
        if len(value) != size:
            raise self._fail(at, f"option {name} has {len(value)} bytes, must have {size}")
        return struct.unpack(self.order + layout, value)[0]

    def _fail(self, at: int, message: str) -> BpfnicError:
        return _fail(self.path, at, message)


def _padded(length: int) -> int:
    return length + 3 & ~3


# -- pcapng, writing ----------------------------------------------------------------------------------------------


def write(path: str | Path, capture: Capture) -> None:
    """Writes one little-endian pcapng section with stamps in nanoseconds.

    Raises BpfnicError: a path that can't be written, a packet whose interface, stamp or length has no place in a block.
    """
    blocks = [_block(_SECTION, struct.pack("<IHHq", _BYTE_ORDER_MAGIC, 1, 0, -1))]
    for interface in capture.interfaces:
        options = [(_IF_NAME, interface.name.encode()), (_IF_TSRESOL, b"\x09")]
        body = struct.pack("<HHI", LINKTYPE_ETHERNET, 0, interface.snaplen)
        blocks.append(_block(_INTERFACE, body + _pack_options(options)))
    for number, packet in enumerate(capture.packets):
        if not 0 <= packet.interface < len(capture.interfaces):
            raise BpfnicError(f"{path}: packet {number}: interface {packet.interface} of {len(capture.interfaces)}")
        if not 0 <= packet.timestamp < 1 << 64:
            raise BpfnicError(f"{path}: packet {number}: stamp {packet.timestamp} ns must be 0 to 2**64 - 1")
        if packet.wire_length < len(packet.data):
            raise BpfnicError(f"{path}: packet {number}: {len(packet.data)} bytes captured of {packet.wire_length}")
        blocks.append(_block(_ENHANCED_PACKET, _enhanced_body(packet)))
    try:
        Path(path).write_bytes(b"".join(blocks))
    except OSError as error:
        raise BpfnicError(f"{path}: {error.strerror}") from None


def _enhanced_body(packet: Packet) -> bytes:
    head = struct.pack(
        "<IIIII",
        packet.interface,
        packet.timestamp >> 32,
        packet.timestamp & 0xFFFFFFFF,
        len(packet.data),
        packet.wire_length,
    )
    options = []
    if packet.comment:
        options.append((_OPT_COMMENT, packet.comment.encode()))
    if packet.packet_id is not None:
        options.append((_EPB_PACKETID, struct.pack("<Q", packet.packet_id)))
    if packet.verdict is not None:
        options.append((_EPB_VERDICT, struct.pack("<BQ", *packet.verdict)))
    return head + packet.data.ljust(_padded(len(packet.data)), b"\0") + _pack_options(options)


def _pack_options(options: Iterable[tuple[int, bytes]]) -> bytes:
    packed = [
        struct.pack("<HH", code, len(value)) + value.ljust(_padded(len(value)), b"\0")
        for code, value in options
        if value  # an empty name says nothing
    ]
    return b"".join(packed) + bytes(4) if packed else b""


def _block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", 12 + len(body))
    return struct.pack("<I", kind) + length + body + length
