"""Ethernet as a port speaks it (IEEE 802.3), and what its MAC counts. A driver reads the counters by these numbers."""

from enum import IntEnum

PREAMBLE = 0x55  # clause 3.2.1
PREAMBLE_BYTES = 7
SFD = 0xD5  # start frame delimiter, clause 3.2.2
FCS_BYTES = 4  # clause 3.2.9
SHORTEST = 64  # bytes of a frame with its FCS, clause 4.4.2 (minFrameSize); shorter ones are padded when they are sent
GAP_BYTES = 12  # of silence between two frames, clause 4.4.2 (interPacketGap)


class MacCounter(IntEnum):
    """Words of 32 bits that a MAC keeps, zero at configuration, and what it says of its link.

    Each frame that begins with a start frame delimiter is counted once, by the first of OVERRUN, SYMBOL_ERROR, GIANT,
    RUNT, FCS_ERROR that it has, else as RECEIVED. In brackets the attribute of clause 30.3.1.1 that it is."""

    RECEIVED = 0  # good frames (aFramesReceivedOK)
    FCS_ERROR = 1  # wrong frame check sequence (aFrameCheckSequenceErrors, aAlignmentErrors)
    SYMBOL_ERROR = 2  # the PHY saw an error in it (aSymbolErrorDuringCarrier)
    RUNT = 3  # shorter than SHORTEST, whatever its FCS: fragments of collisions are such
    GIANT = 4  # longer than a packet buffer (aFrameTooLongErrors)
    OVERRUN = 5  # no room for all of it: the NIC took nothing for too long (aFramesLostDueToIntMACRcvError)
    SENT = 6  # (aFramesTransmittedOK)
    RECEIVED_BYTES = 8  # of RECEIVED frames, without FCS: the low word; the high word behind it
    RECEIVED_BYTES_HIGH = 9
    SENT_BYTES = 10  # the same of SENT ones, before padding
    SENT_BYTES_HIGH = 11
    LINK = 15  # no counter: bit 0 link is up, bits 2..1 speed (Speed), bit 3 full duplex; 0 where the PHY doesn't say


class Speed(IntEnum):
    """A link's speed as RGMII's in-band status has it (RGMII 2.0, table 4)."""

    MBIT_10 = 0
    MBIT_100 = 1
    MBIT_1000 = 2
