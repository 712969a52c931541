"""What a frame's receive metadata must be, worked out from the frame's own construction: no parser here but the one of
the test, which knows what it built. The vectors are Microsoft's ("Verifying the RSS hash calculation")."""

import random
from ipaddress import ip_address
from typing import NamedTuple

KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")

# Destination and its port, source and its port; hash of the addresses, and with the ports.
VECTORS = [
    ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x323E8FC2, 0x51CCC178),
    ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xD718262A, 0xC626B0EA),
    ("12.22.207.184", 38024, "24.19.198.95", 12898, 0xD2D0A5DE, 0x5C2B394A),
    ("209.142.163.6", 2217, "38.27.205.30", 48228, 0x82989176, 0xAFC7327F),
    ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x5D1809C5, 0x10E828A2),
    ("3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x2CC18CD5, 0x40207D3D),
    ("ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0x0F0C461C, 0xDDE51BBF),
    ("fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, 0x4B61E985, 0x02D1FEEF),
]

TCP, UDP, SCTP, ICMP, ESP, FRAGMENT_HEADER = 6, 17, 132, 1, 50, 44
# enum xdp_rss_hash_type (include/net/xdp.h).
IPV4, IPV6, L4, OF_L4 = 1, 2, 8, {TCP: 16, UDP: 32, SCTP: 64}


class Received(NamedTuple):
    """A frame, its hash and the type of that (None: there is none), TPID and TCI of its outer tag (None)."""

    frame: bytes
    rss: tuple[int, int] | None
    tag: tuple[int, int] | None


def toeplitz(key: bytes, data: bytes) -> int:
    """By the definition: a window of 32 bits moves along the key, a bit of the input at a time."""
    window, coming = int.from_bytes(key[:4], "big"), "".join(f"{byte:08b}" for byte in key[4:])
    result = 0
    for bit, next_bit in zip("".join(f"{byte:08b}" for byte in data), coming, strict=False):
        if bit == "1":
            result ^= window
        window = (window << 1 | int(next_bit)) & 0xFFFFFFFF
    return result


def build(source: str, destination: str, protocol: int, ports: bytes, *, tags: tuple[tuple[int, int], ...] = (),
          options: int = 0, fragment: int = 0, length: int | None = None, key: bytes = KEY) -> Received:  # fmt: skip
    """An IP packet. options: words of IPv4's. fragment: flags and offset of IPv4. length: of the frame, cut off or with
    zeros behind."""
    addresses = ip_address(source).packed + ip_address(destination).packed
    head = bytes(range(0x20, 0x2C)) + b"".join(t.to_bytes(2, "big") + i.to_bytes(2, "big") for t, i in tags)
    if len(addresses) == 8:
        first = bytes([0x45 + options, 0, 0, 60, 0x12, 0x34]) + fragment.to_bytes(2, "big")
        first += bytes([64, protocol, 0, 0])
        packet = first + addresses + b"\x5a" * (4 * options)
        kind, ethertype, addresses_end = IPV4, b"\x08\x00", 20
    else:
        packet = bytes([0x60, 0, 0, 0, 0, 20, protocol, 64]) + addresses
        kind, ethertype, addresses_end = IPV6, b"\x86\xdd", 40
    frame = head + ethertype + packet + ports + b"\x77" * 16
    frame = frame if length is None else frame[:length].ljust(length, b"\0")
    start = len(head) + 2
    hashed, kind_found = b"", None
    if len(frame) >= start + addresses_end:
        hashed, kind_found = addresses, kind
        whole = len(frame) >= start + len(packet) + 4 and start + len(packet) + 4 <= 128
        if protocol in OF_L4 and not (kind == IPV4 and fragment & 0x3FFF) and whole:
            hashed, kind_found = addresses + frame[start + len(packet) :][:4], kind | L4 | OF_L4[protocol]
    rss = None if kind_found is None else (toeplitz(key, hashed), kind_found)
    return Received(frame, rss, tags[0] if tags and len(frame) >= 16 else None)


def anything(chance: random.Random, key: bytes = KEY) -> Received:
    """A frame at random."""
    tags = tuple((chance.choice([0x8100, 0x88A8]), chance.randrange(1 << 16))
                 for _ in range(chance.choice([0, 0, 0, 1, 1, 2, 3])))  # fmt: skip
    length = chance.choice([None, None, None, chance.randrange(14, 100), chance.randrange(60, 1500)])
    if chance.random() < 0.15:  # no IP
        ethertype = chance.choice([0x0806, 0x88CC, 0x9100, 0x0040])
        head = bytes(12) + b"".join(t.to_bytes(2, "big") + i.to_bytes(2, "big") for t, i in tags)
        frame = (head + ethertype.to_bytes(2, "big") + chance.randbytes(80))[: max(length or 80, 14)]
        return Received(frame, None, tags[0] if tags and len(frame) >= 16 else None)
    bits = chance.choice([32, 128])
    source, destination = (str(ip_address(chance.getrandbits(bits).to_bytes(bits // 8, "big"))) for _ in range(2))
    protocol = chance.choice([TCP, TCP, UDP, UDP, SCTP, ICMP, ESP, FRAGMENT_HEADER, chance.randrange(256)])
    return build(source, destination, protocol, chance.randbytes(4), tags=tags,
                 options=chance.choice([0, 0, 0, chance.randrange(11)]), length=length,
                 fragment=chance.choice([0, 0, 0x4000, 0x8000, 0x2000, 1, 0x100, 0x1FFF, 0x2020]), key=key)  # fmt: skip
