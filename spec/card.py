"""Registers of a card beside those of its NIC, at byte addresses from 0x1000 on: frames to and from the wire, MACs.

The driver hands frames to the NIC one at a time (INJECT), and takes those that leave one at a time (CAPTURED), for the
host's interface always, and for each port that ROUTE takes from its MAC.
"""

from bpfnic.spec.registers import Access, Register

BASE = 0x1000
"""Addresses below are the NIC's."""

MAC_WORDS = 16
"""That each port's MAC shows, by their numbers in spec.ethernet.MacCounter."""
PORTS = 3

_RO, _RW, _WO = Access.RO, Access.RW, Access.WO

REGISTERS = (
    Register("BUILD_ID", 0x1000, _RO, "SHA-256 of what the bitstream was made of, the first byte lowest", count=8),
    Register("ROUTE", 0x1020, _RW, "bit n: port n's frames come from the wire and go to it, not to its MAC, whose "
             "frames are lost; changes take effect between two frames that the NIC takes", reset=(1 << PORTS) - 1),
    Register("INJECT_DATA", 0x1024, _WO, "the next 4 bytes of the frame to inject, the first one lowest"),
    Register("INJECT", 0x1028, _WO, "sends them: bits 15..0 bytes of the frame, bits 18..16 interface, bits 23..20 "
             "its user bits (hdl.interfaces Beat). Behind byte 2,047 the frame begins anew, for the NIC refuses one as "
             "long as that. Refused while a frame is being injected"),  # fmt: skip
    Register("STATUS", 0x102C, _RO, "bit 0: a frame is being injected; bit 1: what ROUTE says has not taken effect"),
    Register("CAPTURED", 0x1030, _RO, "the frame that left: bits 11..0 its bytes, bits 14..12 interface, bits 29..16 "
             "its user bits, bit 31 set; 0 where there is none. Bit 30: it is a piece, and the next one goes on "
             "with it"),  # fmt: skip
    Register("CAPTURE_DATA", 0x1034, _RO, "its next 4 bytes, the first one lowest; what lies behind its end is "
             "undefined"),  # fmt: skip
    Register("RELEASE", 0x1038, _WO, "it has been read: the next one may come"),
    Register("MAC", 0x1080, _RO, "what port n's MAC counts, each as it is now: word 16 * n + i is MacCounter(i)",
             count=MAC_WORDS * PORTS),  # fmt: skip
)

BY_NAME = {register.name: register for register in REGISTERS}


STATUS_INJECTING, STATUS_CHANGING = 1 << 0, 1 << 1
INJECT_INTERFACE_BIT, INJECT_USER_BIT = 16, 20
LONGEST_INJECTED = 0xFFFF
CAPTURED_LENGTH, CAPTURED_INTERFACE_BIT, CAPTURED_INTERFACE_MASK, CAPTURED_USER_BIT = 0xFFF, 12, 7, 16
CAPTURED_USER_MASK, CAPTURED_MORE, CAPTURED_VALID = 0x3FFF, 1 << 30, 1 << 31
FRAME_BYTES = 2048
"""Room for a frame, or a piece of one, on either way."""
