"""Prefixes of addresses, and which is the longest, by Python's ipaddress."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from random import Random
from typing import Any


def longest(prefixes: Mapping[str, Any], address: str) -> Any:
    """What stands at the longest prefix with an address in it; None if there is none."""
    found = [prefix for prefix in map(ip_network, prefixes) if ip_address(address) in prefix]
    return prefixes[str(max(found, key=lambda prefix: prefix.prefixlen))] if found else None


def prefixes(random: Random, address: type[IPv4Address] | type[IPv6Address], count: int) -> list[str]:
    """The prefix of no bits, and others of few trunks, so that many lie in others."""
    bits = address(0).max_prefixlen
    trunks = [random.getrandbits(bits) for _ in range(3)]
    made = {ip_network((address(0), 0))}
    while len(made) < count:
        length = random.randint(1, bits)
        value = random.choice(trunks) ^ random.getrandbits(bits) >> random.randrange(bits)
        made.add(ip_network((address(value >> bits - length << bits - length), length)))
    return [str(prefix) for prefix in sorted(made)]
