"""What a NIC knows of a frame as it came in (spec.metadata): its VLAN tag, and the hash of receive-side scaling.

The hash is Toeplitz's over source address, destination address and, for TCP, UDP and SCTP, both ports, as Microsoft's
"Introduction to Receive Side Scaling" has it. VLAN tags are passed over, and so are IPv4's options. A fragment has no
ports, nor has a packet whose ports don't lie in the bytes that are kept; an IPv6 packet has them right behind its
header alone.
"""

from bpfnic.spec.metadata import KEPT_BYTES, RSS_TYPE_BIT, TPID_BIT, TPIDS, RssType

_L4 = {6: RssType.L4_TCP, 17: RssType.L4_UDP, 132: RssType.L4_SCTP}


def vlan_tag(frame: bytes) -> int:
    """TCI and TPID of the outer tag, 0 where there is none."""
    tpid, tci = (int.from_bytes(frame[at : at + 2], "big") for at in (12, 14))
    return tpid << TPID_BIT | tci if tpid in TPIDS and len(frame) >= 16 else 0


def rss_hash(frame: bytes, key: bytes) -> int:
    """Hash and RssType of what was hashed, 0 where there is nothing."""
    data, kind = _hashed(frame[:KEPT_BYTES])
    return toeplitz(data, key) | kind << RSS_TYPE_BIT if kind else 0


def toeplitz(data: bytes, key: bytes) -> int:
    """32 bits: for each bit of the data that is 1, the bits of the key from that number on."""
    bits = 8 * len(key)
    number, result = int.from_bytes(key, "big"), 0
    for place in range(8 * len(data)):
        if data[place // 8] & 0x80 >> place % 8:
            result ^= number >> bits - 32 - place & 0xFFFFFFFF
    return result


def _hashed(frame: bytes) -> tuple[bytes, RssType]:
    """The input of the hash, and its type."""
    nothing = b"", RssType(0)
    at = 12
    while int.from_bytes(frame[at : at + 2], "big") in TPIDS:
        at += 4
    ethertype, header = frame[at : at + 2], frame[at + 2 :]
    if ethertype == b"\x08\x00" and header and header[0] & 15 >= 5:
        kind, addresses, behind = RssType.L3_IPV4, header[12:20], 4 * (header[0] & 15)
        complete = len(header) >= 20
    elif ethertype == b"\x86\xdd":
        kind, addresses, behind = RssType.L3_IPV6, header[8:40], 40
        complete = len(header) >= 40
    else:
        return nothing
    if not complete:
        return nothing
    if kind is RssType.L3_IPV4:
        protocol, fragment = header[9], bool(int.from_bytes(header[6:8], "big") & 0x3FFF)
    else:
        protocol, fragment = header[6], False
    ports = header[behind : behind + 4]
    if protocol in _L4 and not fragment and len(ports) == 4:
        return addresses + ports, kind | RssType.L4 | _L4[protocol]
    return addresses, kind
