"""Frames as scapy reads and writes them: nothing here is from the programs under test."""

from collections.abc import Iterator

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet

EXTENSIONS = IPv6ExtHdrHopByHop | IPv6ExtHdrRouting | IPv6ExtHdrDestOpt | IPv6ExtHdrFragment


def layers(data: bytes) -> Iterator[Packet]:
    """The headers of a frame, from the outside, as far as the transport header: not what an ICMP message quotes."""
    layer = Ether(data)
    while isinstance(layer, Ether | Dot1Q | IP | IPv6 | EXTENSIONS):  # Dot1AD is a Dot1Q
        yield layer
        layer = layer.payload
    yield layer


def network(data: bytes) -> IP | IPv6 | None:
    """The first network header."""
    return next((layer for layer in layers(data) if isinstance(layer, IP | IPv6)), None)


def flow(data: bytes) -> tuple[str, str, int, int, int] | None:
    """Source, destination, both ports (0 where there are none), protocol; None for a later fragment and for what isn't
    IP."""
    *headers, transport = layers(data)
    ip = network(data)
    if ip is None or any(map(_later_fragment, headers)):
        return None
    protocol = ip.proto if isinstance(ip, IP) else headers[-1].nh
    ports = (transport.sport, transport.dport) if isinstance(transport, TCP | UDP | SCTP) else (0, 0)
    return (ip.src, ip.dst, *ports, protocol)


def _later_fragment(header: Packet) -> bool:
    return bool(header.frag if isinstance(header, IP) else isinstance(header, IPv6ExtHdrFragment) and header.offset)


def vlans(data: bytes) -> list[int]:
    """The VLANs of a frame's tags, the outermost first."""
    return [layer.vlan for layer in layers(data) if isinstance(layer, Dot1Q)]


def ethernet(packet: Packet, *ids: int, destination: str = "02:00:00:00:00:02") -> bytes:
    """A frame around a packet with VLAN tags; those around the innermost are service tags."""
    tags = Ether(src="02:00:00:00:00:01", dst=destination)
    for number, vlan in enumerate(ids):
        tags /= (Dot1Q if number == len(ids) - 1 else Dot1AD)(vlan=vlan)
    return bytes(tags / packet).ljust(60, b"\0")


def total(value):
    """The sum over the CPUs, where a value is one for each."""
    if not isinstance(value, list):
        return value
    if isinstance(value[0], dict):
        return {name: sum(one[name] for one in value) for name in value[0]}
    return sum(value)
