"""What a driver and a card say to each other: messages, each authenticated; docs/transport.md tells how they are used.

A message is a header, a payload of a multiple of 8 bytes and a tag; all numbers are little-endian.

    byte  0  protocol   1: PROTOCOL
          1  kind       1: Kind
          2  length     2: bytes of the payload
          4  sequence   4: number of a request in its session, from 1 on; its reply has the same
          8  session    8: who says so (HELLO: the driver's nonce; REQUEST: the card's)
         16  payload
             tag        8: SipHash-2-4 of all before it

A UART carries messages as SLIP frames (RFC 1055), an Ethernet port as frames of ETHERTYPE.
"""

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

PROTOCOL = 1
KEY_BYTES = 16
"""The key of the tags, shared by card and driver."""
DEFAULT_KEY = b"bpfnic-no-secret"
"""That of bitstreams and drivers that were given none: it protects from nobody."""
HEADER = Struct("<BBHIQ")
TAG_BYTES = 8
UNIT_BYTES = 8
"""A payload is so many times something."""
MESSAGE_BYTES = 992
"""The longest message: with the answer to a HELLO, which has a place of its own, half of a block RAM."""
PAYLOAD_BYTES = MESSAGE_BYTES - HEADER.size - TAG_BYTES


class Kind(IntEnum):
    """What a message is."""

    HELLO = 1  # driver: who is there? No payload. Anybody may ask, the tag isn't looked at
    WELCOME = 2  # card: its payload is a nonce, which names a session that the driver may begin
    REQUEST = 3  # driver: accesses to registers, one behind the other
    REPLY = 4  # card: what came of them


# -- accesses of a REQUEST: words of 32 bits ------------------------------------------------------------------------

ADDRESS_BITS, COUNT_BITS = 13, 16
COUNT_BIT = ADDRESS_BITS
WRITES, ADVANCES, FILLS = 1 << 29, 1 << 30, 1 << 31
ACCESSES = (1 << COUNT_BITS) - 1
"""As many as a request may make."""


@dataclass(frozen=True)
class Access:
    """`count` accesses to the register at byte address `address`, or (`advances`) to it and those behind it. Of writes
    `data` has the words, or one word for all of them. As a word: bits 12..0 address, 28..13 count, 29 writes, 30
    advances, 31 one word for all; the data follow. A word of zeros does nothing: it fills the payload up."""

    address: int
    count: int = 1
    data: tuple[int, ...] = ()
    advances: bool = False

    def words(self) -> list[int]:
        """As it goes over the wire."""
        writes, fills = bool(self.data), bool(self.data) and len(self.data) < self.count
        assert len(self.data) in (0, 1, self.count)
        flags = writes * WRITES | self.advances * ADVANCES | fills * FILLS
        return [self.address | self.count << COUNT_BIT | flags, *self.data]


# -- a REPLY: one word of status, then what was read ------------------------------------------------------------------

ERROR_BIT = 16


class Error(IntEnum):
    """Why a card stopped before the end of a request: bits 31..16 of the status. Bits 15..0: accesses that it did."""

    NONE = 0
    REFUSED = 1  # no register is there, or it can't be read or written, or not now
    MALFORMED = 2  # an access lacks its data, or what is read doesn't fit into a reply


REPLY_WORDS = PAYLOAD_BYTES // 4 - 1
"""Words that one request can read."""

# -- frames -----------------------------------------------------------------------------------------------------------

SLIP_END, SLIP_ESC, SLIP_ESC_END, SLIP_ESC_ESC = 0xC0, 0xDB, 0xDC, 0xDD
"""RFC 1055: END before and behind each message; within, ESC and one of the others for END and ESC."""

ETHERTYPE = 0x88B5
"""IEEE 802, local experimental 1. A frame: destination, source, this, a message, and zeros up to 60 bytes."""
ETHERNET_HEADER_BYTES = 14
ADDRESS_BYTES = 6
DEFAULT_ADDRESS = b"\x02bpfni"
"""Of cards that were given none: locally administered, as its first byte says."""
