"""Network addresses as people write them: IPv4, IPv6, MAC, and prefixes ("10.0.0.0/8")."""

import ipaddress
import re
import socket

_FAMILIES = {4: socket.AF_INET, 16: socket.AF_INET6}
_MAC = 6


def parse(text: str, size: int) -> bytes | None:
    """The bytes of an address, where it has `size` bytes; None for any other text."""
    if size == _MAC and re.fullmatch(r"[0-9a-fA-F]{1,2}([:-][0-9a-fA-F]{1,2}){5}", text):
        return bytes(int(part, 16) for part in re.split("[:-]", text))
    if size in _FAMILIES and ("." in text or ":" in text):
        try:
            packed = ipaddress.ip_address(text).packed
        except ValueError:
            return None
        return packed if len(packed) == size else None
    return None


def format(data: bytes) -> str:
    """An address of 4, 6 or 16 bytes; what parse takes."""
    return data.hex(":") if len(data) == _MAC else socket.inet_ntop(_FAMILIES[len(data)], data)


def parse_prefix(text: str, size: int) -> tuple[int, bytes] | None:
    """The length in bits and the address of a prefix, where that has `size` bytes; an address alone is a prefix of all
    its bits. None for any other text."""
    try:
        prefix = ipaddress.ip_interface(text)
    except ValueError:
        return None
    return (prefix.network.prefixlen, prefix.ip.packed) if len(prefix.ip.packed) == size else None


def format_prefix(length: int, address: bytes) -> str:
    """The text of a prefix; what parse_prefix takes."""
    return f"{format(address)}/{length}"
