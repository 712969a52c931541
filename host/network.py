"""What a host knows of the network: its links, routes and neighbours. Helpers like bpf_fib_lookup answer from it.

A network is read by host/iproute.py, given to a device with Device.set_network, and laid into tables by
host/networktables.py, or into the kernel by host/linux/network.py. Names are those of `ip`, addresses are bytes in the
order of the wire.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from bpfnic.spec.errors import BpfnicError

IPV4, IPV6 = 4, 6
"""Families, by their version. A gateway's family is told by its length."""
SHORTEST_IPV6 = 1280  # IPV6_MIN_MTU: a link with less has no IPv6
ADDRESS_BYTES = {IPV4: 4, IPV6: 16}

TABLE_DEFAULT, TABLE_MAIN, TABLE_LOCAL = 253, 254, 255  # RT_TABLE_*


class RouteType(IntEnum):
    """RTN_*: what becomes of a packet. Only UNICAST forwards it."""

    UNICAST = 1
    LOCAL = 2
    BROADCAST = 3
    ANYCAST = 4
    MULTICAST = 5
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8
    THROW = 9


class RuleAction(IntEnum):
    """FR_ACT_*: what a rule does with a packet, TABLE where it says which table to look it up in."""

    TABLE = 1
    NOP = 3
    BLACKHOLE = 6
    UNREACHABLE = 7
    PROHIBIT = 8


class Scope(IntEnum):
    """RT_SCOPE_*."""

    GLOBAL = 0
    SITE = 200
    LINK = 253
    HOST = 254
    NOWHERE = 255


@dataclass(frozen=True)
class Address:
    """An address of a link, of a network with so many leading bits. `secondary`, `deprecated`: not for packets from
    here, where there are others."""

    address: bytes
    length: int
    scope: int = Scope.GLOBAL
    secondary: bool = False
    deprecated: bool = False

    def on_link(self, other: bytes) -> bool:
        """Whether another address is in the same network (inet_ifa_match)."""
        if len(other) != len(self.address):
            return False
        rest = 8 * len(other) - self.length
        return int.from_bytes(self.address) >> rest == int.from_bytes(other) >> rest


@dataclass(frozen=True)
class Link:
    """An interface. `mac`: 6 bytes, zeros where it has none. `mtu` in bytes, without the Ethernet header. `up`: it is
    switched on. `header_bytes` of a frame: 14 of Ethernet. `forwarding`: the families whose packets it forwards."""

    ifindex: int
    name: str
    mac: bytes = bytes(6)
    mtu: int = 1500
    up: bool = True
    loopback: bool = False
    header_bytes: int = 14
    forwarding: frozenset[int] = frozenset({IPV4, IPV6})
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True)
class NextHop:
    """A way that a route has: the link, and the gateway there (None: the destination is on the link). `alive`: packets
    can leave by it now. `weight`: its share among several, 1 to 256. `encapsulated`: a tunnel of the route's own."""

    ifindex: int
    gateway: bytes | None = None
    weight: int = 1
    onlink: bool = False
    alive: bool = True
    encapsulated: bool = False


@dataclass(frozen=True)
class Route:
    """A route of a table: for addresses of `family` whose first `length` bits are those of `destination`, which has no
    others.

    tos: DSCP and ECN that a packet must have, 0 for any. metric: of several for one prefix the lowest counts.
    locked_mtu: one of its own that holds whatever the link's is (0: none). source: the address that packets from here
    get (None: chosen). preference: of IPv6 routers (1 low, 2 medium, 3 high). Types that reject need no next hop."""

    family: int
    destination: bytes
    length: int
    hops: tuple[NextHop, ...] = ()
    type: RouteType = RouteType.UNICAST
    table: int = TABLE_MAIN
    tos: int = 0
    metric: int = 0
    locked_mtu: int = 0
    source: bytes | None = None
    scope: int = Scope.GLOBAL
    preference: int = 2


@dataclass(frozen=True)
class Rule:
    """A rule of routing policy. Conditions: addresses within prefixes (address and length), the links by which packets
    come in and go out (0: any), a mark under a mask, TOS, protocol, ports from and to. `inverted`: they must not all
    hold. suppress: routes of prefixes of at most so many bits don't count."""

    family: int
    priority: int
    action: RuleAction = RuleAction.TABLE
    table: int = 0
    inverted: bool = False
    source: tuple[bytes, int] | None = None
    destination: tuple[bytes, int] | None = None
    iif: int = 0
    oif: int = 0
    mark: int = 0
    mark_mask: int = 0
    tos: int = 0
    protocol: int = 0
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None
    suppress: int | None = None


@dataclass(frozen=True)
class Neighbour:
    """The MAC of an address on a link; of those that are known to be valid alone."""

    ifindex: int
    address: bytes
    mac: bytes


@dataclass(frozen=True)
class Network:
    """Links, routes, neighbours and rules, in the order in which `ip` lists them. `name` says where they are from. Of a
    family there are all rules, or none for those that Linux makes itself (for the tables local, main and default)."""

    links: tuple[Link, ...]
    routes: tuple[Route, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    name: str = "network"
    rules: tuple[Rule, ...] = ()

    @property
    def by_ifindex(self) -> Mapping[int, Link]:
        return {link.ifindex: link for link in self.links}

    def check_ports(self, ifindexes: Sequence[int]) -> None:
        """Raises BpfnicError where the ports of a NIC, by their ifindexes, aren't links of this network that could be
        one's ports."""
        for port, ifindex in enumerate(ifindexes):
            link = self.by_ifindex.get(ifindex)
            if link is None or link.loopback:
                could = ", ".join(f"{each.ifindex} {each.name}" for each in self.links if not each.loopback)
                what = f"is {link.name}, the loopback link" if link else "is no link there"
                raise BpfnicError(f"{self.name}: port{port} has ifindex {ifindex}, which {what}; there are {could}")


def unconnected(ifindexes: Sequence[int]) -> Network:
    """What a device has until somebody says otherwise: its ports, as links that forward nothing."""
    return Network(tuple(Link(ifindex, f"port{port}", forwarding=frozenset()) for port, ifindex in enumerate(ifindexes)
                         if ifindex))  # fmt: skip
