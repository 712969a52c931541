"""Messages (spec/wire.py) and their frames on a UART and on Ethernet, as bytes."""

from collections.abc import Iterator
from typing import NamedTuple

from bpfnic.boards.siphash import siphash
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import (
    ADDRESS_BYTES,
    ETHERNET_HEADER_BYTES,
    ETHERTYPE,
    HEADER,
    PROTOCOL,
    SLIP_END,
    SLIP_ESC,
    SLIP_ESC_END,
    SLIP_ESC_ESC,
    TAG_BYTES,
    UNIT_BYTES,
    Kind,
)


class Message(NamedTuple):
    """What a message says, and whether its tag is right."""

    kind: int
    sequence: int
    session: int
    payload: bytes = b""
    authentic: bool = True

    def pack(self, key: bytes) -> bytes:
        """As bytes, with its tag. The payload is filled up with zeros."""
        payload = self.payload + bytes(-len(self.payload) % UNIT_BYTES)
        text = HEADER.pack(PROTOCOL, self.kind, len(payload), self.sequence, self.session) + payload
        return text + siphash(key, text).to_bytes(TAG_BYTES, "little")

    @classmethod
    def unpack(cls, data: bytes, key: bytes) -> "Message | None":
        """The message that `data` begins with; None where it is none of this protocol."""
        if len(data) < HEADER.size + TAG_BYTES:
            return None
        protocol, kind, length, sequence, session = HEADER.unpack_from(data)
        end = HEADER.size + length
        if protocol != PROTOCOL or kind not in tuple(Kind) or end + TAG_BYTES > len(data):
            return None
        tag = siphash(key, data[:end]).to_bytes(TAG_BYTES, "little")
        return cls(kind, sequence, session, data[HEADER.size : end], tag == data[end : end + TAG_BYTES])


def slip(message: bytes) -> bytes:
    """A message as a frame of RFC 1055, with an END before it, which ends what noise began."""
    stuffed = message.replace(bytes([SLIP_ESC]), bytes([SLIP_ESC, SLIP_ESC_ESC]))
    stuffed = stuffed.replace(bytes([SLIP_END]), bytes([SLIP_ESC, SLIP_ESC_END]))
    return bytes([SLIP_END]) + stuffed + bytes([SLIP_END])


class Unslip:
    """Takes bytes of a line as they come, gives messages."""

    def __init__(self) -> None:
        self._frame = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Messages that end in `data`; a frame with a wrong escape is left out."""
        for byte in data:
            if byte != SLIP_END:
                self._frame.append(byte)
                continue
            pieces = bytes(self._frame).split(bytes([SLIP_ESC]))
            self._frame.clear()
            escapes = {SLIP_ESC_END: SLIP_END, SLIP_ESC_ESC: SLIP_ESC}
            if pieces != [b""] and all(piece[:1] and piece[0] in escapes for piece in pieces[1:]):
                yield pieces[0] + b"".join(bytes([escapes[piece[0]]]) + piece[1:] for piece in pieces[1:])


_TYPE = ETHERTYPE.to_bytes(2, "big")


def ethernet(message: bytes, destination: bytes, source: bytes) -> bytes:
    """A message as an Ethernet frame, without FCS."""
    return destination + source + _TYPE + message


def from_ethernet(frame: bytes) -> bytes | None:
    """The message in a frame, and what fills it up; None where it is another's."""
    return frame[ETHERNET_HEADER_BYTES:] if frame[2 * ADDRESS_BYTES : ETHERNET_HEADER_BYTES] == _TYPE else None


def parse_address(text: str) -> bytes:
    """A MAC address, as 02:00:00:00:00:01. Raises BpfnicError where it is none of one card."""
    try:
        address = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        address = b""
    if len(address) != ADDRESS_BYTES or address[0] & 1:
        raise BpfnicError(f"{text}: must be the MAC address of one card, as 02:00:00:00:00:01")
    return address
