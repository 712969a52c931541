"""A network (host/network.py) as tables in map memory, for the firmware's helpers: firmware/runtime/network.h.

What lies there is decided here: which routes can be used, in which order, what shares paths have, and which addresses
packets from here get. The firmware finds and follows.

A change is made while packets run. Ways are written where no route leads to, then routes are turned to them one by one,
and places of ways are free again when the last packet that may read them has left.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from bpfnic.host.network import (
    ADDRESS_BYTES,
    IPV4,
    IPV6,
    TABLE_LOCAL,
    TABLE_MAIN,
    Link,
    Network,
    NextHop,
    Route,
    RouteType,
    Scope,
)
from bpfnic.host.regions import Regions
from bpfnic.spec.errors import BpfnicError

if TYPE_CHECKING:
    from bpfnic.host.device import DeviceMap
    from bpfnic.host.maps import MapDefinition

LINKS, ROUTES4, ROUTES6, WAYS, NEIGHBOURS = TABLES = ("links", "routes4", "routes6", "ways", "neighbours")
_PLURAL = {LINKS: "links", ROUTES4: "prefixes of IPv4", ROUTES6: "prefixes of IPv6", WAYS: "ways of routes",
           NEIGHBOURS: "neighbours"}  # fmt: skip
_ROUTES = {IPV4: ROUTES4, IPV6: ROUTES6}
_AF = {4: 2, 16: 10}  # AF_INET, AF_INET6, by an address's length
_TABLE_BITS = 32
_FORWARDS = {IPV4: 1, IPV6: 2}
_SHORTEST_IPV6 = 1280  # IPV6_MIN_MTU: a link with less has no IPv6
_HASHES = 1 << 31
MOST_WAYS = 64  # for one prefix, in firmware/runtime/fib_lookup.bpf.c

Way = tuple[tuple[str, Any], ...]
"""A struct way, its members by name."""


@dataclass
class Content:
    """What the tables of a network hold: keys and values by member, but for routes the ways of each."""

    links: dict[int, dict[str, Any]] = field(default_factory=dict)
    routes: dict[int, dict[tuple[int, bytes, int], tuple[Way, ...]]] = field(default_factory=dict)
    """By family, then by table, destination and length."""
    neighbours: dict[tuple[int, bytes], bytes] = field(default_factory=dict)

    def groups(self) -> dict[tuple[Way, ...], None]:
        """The ways of routes, each group of them once, always in the same order."""
        return dict.fromkeys(group for family in _ROUTES for group in self.routes[family].values())

    def sizes(self) -> dict[str, int]:
        """Entries by table."""
        return {
            LINKS: len(self.links),
            ROUTES4: len(self.routes[IPV4]),
            ROUTES6: len(self.routes[IPV6]),
            WAYS: sum(map(len, self.groups())),
            NEIGHBOURS: len(self.neighbours),
        }


def content(network: Network) -> Content:
    """What the tables hold for a network. Raises BpfnicError naming a prefix that has too many ways."""
    result = Content()
    for link in network.links:
        families = link.forwarding - ({IPV6} if link.mtu < _SHORTEST_IPV6 else set())
        result.links[link.ifindex] = {
            "mac": list(link.mac),
            "header_bytes": link.header_bytes,
            "mtu": link.mtu,
            "forwards": sum(_FORWARDS[family] for family in families),
        }
    for family in _ROUTES:
        result.routes[family] = {}
        for (table, destination, length), routes in groupby(_in_order(network, family), _prefix):
            ways = tuple(way for route in routes for way in _ways(route, network))
            if len(ways) > MOST_WAYS:
                raise BpfnicError(
                    f"{network.name}: {len(ways)} ways for one prefix (length {length} in table {table}), "
                    f"{len(ways) - MOST_WAYS} more than bpf_fib_lookup looks at"
                )
            if ways:
                result.routes[family][table, destination, length] = ways
    for neighbour in network.neighbours:
        result.neighbours[neighbour.ifindex, neighbour.address] = neighbour.mac
    return result


def _prefix(route: Route) -> tuple[int, bytes, int]:
    """IPv4's tables local and main are one, as in Linux where all rules are its own."""
    table = TABLE_MAIN if route.family == IPV4 and route.table == TABLE_LOCAL else route.table
    return table, route.destination, route.length


def _in_order(network: Network, family: int) -> list[Route]:
    """The order in which Linux tries routes for one prefix: of IPv4 those of table local first, then those for some
    values of TOS; then by metric; at last as they are listed."""

    def order(route: Route) -> tuple[Any, ...]:
        local = route.family == IPV4 and route.table == TABLE_LOCAL
        return *_prefix(route), not local, -route.tos, route.metric

    return sorted((route for route in network.routes if route.family == family), key=order)


def _ways(route: Route, network: Network) -> Iterator[Way]:
    """One for each path that can be used; one for a route that rejects."""
    if route.type >= RouteType.BLACKHOLE:
        yield _way(route, NextHop(0), network, 0, 1, _HASHES - 1)
        return
    links = network.by_ifindex
    stays = route.scope >= Scope.HOST  # one's own addresses outlive that their link goes down
    hops = [hop for hop in route.hops if hop.alive and (stays or links[hop.ifindex].up)]
    total, so_far = sum(hop.weight for hop in hops), 0
    for number, hop in enumerate(hops):
        so_far += hop.weight
        yield _way(route, hop, network, number, len(hops), _HASHES * so_far // total - 1)


def _way(route: Route, hop: NextHop, network: Network, path: int, paths: int, share: int) -> Way:
    hop_source = bytes(4)
    if route.family == IPV4 and hop.ifindex:
        hop_source = _source4(network, network.by_ifindex[hop.ifindex], hop.gateway, route.scope)
        source: bytes | None = route.source or hop_source
    else:
        source = route.source or _source6(network, hop.ifindex)
    gateway = hop.gateway or b""
    return tuple(
        {
            "ifindex": hop.ifindex,
            "metric": route.metric,
            "mtu": route.locked_mtu,
            "share": share,
            "hop_source": int.from_bytes(hop_source),
            "type": int(route.type),
            "tos": route.tos,
            "preference": route.preference,
            "encapsulated": int(hop.encapsulated),
            "paths": paths,
            "path": path,
            "gateway_family": _AF.get(len(gateway), 0),
            "has_source": int(source is not None),
            "gateway": _words(gateway),
            "source": _words(source or b""),
        }.items()
    )


def _words(address: bytes) -> tuple[int, ...]:
    """Four __be32."""
    whole = address.ljust(16, b"\0")
    return tuple(int.from_bytes(whole[at : at + 4]) for at in range(0, 16, 4))


def _source4(network: Network, link: Link, gateway: bytes | None, scope: int) -> bytes:
    """The address that packets from here get on a link (inet_select_addr): of the gateway's network, else the link's
    first, else the first of another link. 0.0.0.0 where there is none."""
    usable = [each for each in link.addresses if len(each.address) == 4 and not each.secondary
              and min(each.scope, Scope.HOST) <= scope]  # fmt: skip
    towards = (gateway or bytes(4))[:4]
    if any(towards):
        usable.sort(key=lambda each: not each.on_link(towards))
    elsewhere = (
        each
        for other in network.links
        for each in other.addresses
        if len(each.address) == 4 and not each.secondary and each.scope != Scope.LINK and each.scope <= scope
    )
    return next((each.address for each in [*usable[:1], *elsewhere]), bytes(4))


def _source6(network: Network, ifindex: int) -> bytes | None:
    """The address that packets from here to global addresses get: RFC 6724's rules 2, 3 and 5, the first of those that
    these leave. Rules that depend on the destination are left out."""
    candidates = [
        (each.scope != Scope.GLOBAL, each.deprecated, link.ifindex != ifindex, each)
        for link in network.links
        for each in link.addresses
        if link.up and len(each.address) == 16
    ]
    return min(candidates, key=lambda one: one[:3])[3].address if candidates else None


class NetworkTables:
    """The tables of one device, as far as its programs need any. `free_later(action)`: do it when all packets that are
    under way have left; `reclaim()`: do what is due of it."""

    def __init__(self, network: Network, free_later: Callable[[Callable[[], None]], None], reclaim: Callable[[], None]):
        self._free_later, self._reclaim = free_later, reclaim
        self._network = network
        self._content = content(network)
        self._maps: dict[str, DeviceMap] = {}
        self._places = Regions(0)  # of ways
        self._groups: dict[tuple[Way, ...], int] = {}  # where the ways are that lie there
        self._written: dict[str, dict[bytes, bytes]] = {}

    def sized(self, definition: "MapDefinition") -> "MapDefinition":
        """The definition of a map of the runtime; of a table as large as the network needs it that is there when it is
        made."""
        needed = self._content.sizes().get(definition.name, 0)
        return replace(definition, max_entries=max(definition.max_entries, needed))

    def add(self, maps: Iterable["DeviceMap"]) -> None:
        """Fill those of the runtime's maps that are tables and are new."""
        found = {each.definition.name: each for each in maps}
        tables = {name: found[name] for name in TABLES if name in found and name not in self._maps}
        if not tables:
            return
        self._maps |= tables
        self._written |= {name: {} for name in tables if name != WAYS}
        if WAYS in tables:
            self._places = Regions(tables[WAYS].definition.max_entries)
        self._write(self._content, self._place(self._content, self._network))

    def set(self, network: Network) -> None:
        """Turn to another network, or another state of the same. Raises BpfnicError naming the table that is full, and
        by how much; then everything is as before."""
        wanted = content(network)
        sizes = wanted.sizes()
        for name, table in self._maps.items():
            room = table.definition.max_entries
            if sizes[name] > room:
                raise BpfnicError(
                    f"{network.name}: {sizes[name]} {_PLURAL[name]}, {sizes[name] - room} more than the device's table "
                    f"{name!r} has room for"
                )
        placed = self._place(wanted, network)
        self._network, self._content = network, wanted
        self._write(wanted, placed)

    def _place(self, wanted: Content, network: Network) -> dict[tuple[Way, ...], int]:
        """Where the ways of all routes are: those that are there already, and free places for others."""
        if WAYS not in self._maps:
            return {}
        self._reclaim()
        groups = wanted.groups()
        placed = {group: self._groups[group] for group in groups if group in self._groups}
        fresh: list[int] = []
        for group in sorted((group for group in groups if group not in placed), key=len, reverse=True):
            place = self._places.allocate(len(group), 1)
            if place is None:
                available = self._places.available
                for each in fresh:
                    self._places.free(each)
                raise BpfnicError(
                    f"{network.name}: table {WAYS!r} has no {len(group)} places side by side beside what is used until "
                    f"packets under way have left; {available} of {self._places.size} are free"
                )
            placed[group] = place
            fresh.append(place)
        return placed

    def _write(self, wanted: Content, placed: Mapping[tuple[Way, ...], int]) -> None:
        for group, first in placed.items():
            if group not in self._groups:
                table = self._maps[WAYS]
                for number, way in enumerate(group, first):
                    table.update(number.to_bytes(4, "little"), [table.definition.parse_value(dict(way))])
        if LINKS in self._maps:
            self._turn(LINKS, wanted.links.items())
        if NEIGHBOURS in self._maps:
            self._turn(NEIGHBOURS, (
                ({"ifindex": ifindex, "family": _AF[len(address)], "address": _words(address)}, {"mac": list(mac)})
                for (ifindex, address), mac in wanted.neighbours.items()
            ))  # fmt: skip
        for family, name in _ROUTES.items():
            if name in self._maps:
                self._turn(name, (
                    ({"length": _TABLE_BITS + length, "table": table, "address": _address(destination)},
                     {"first": placed[ways], "count": len(ways), "length": length})
                    for (table, destination, length), ways in wanted.routes[family].items()
                ))  # fmt: skip
        if WAYS in self._maps:
            for group in self._groups.keys() - placed.keys():
                self._free_place(self._groups[group])
            self._groups = dict(placed)

    def _free_place(self, place: int) -> None:
        self._free_later(lambda: self._places.free(place))

    def _turn(self, name: str, entries: Any) -> None:
        """Make a table hold these entries and no others. What is new comes before what is old goes, where there is
        room."""
        table, before = self._maps[name], self._written[name]
        parse = table.definition
        after = {parse.parse_key(key): parse.parse_value(value) for key, value in entries}
        gone = [key for key in before if key not in after]
        changed = [(key, [value]) for key, value in after.items() if before.get(key) != value]
        steps: list[Callable[[], None]] = [lambda: table.update_batch(changed), lambda: table.delete_batch(gone)]
        if len(before.keys() | after.keys()) > table.definition.max_entries:
            steps.reverse()
        for step in steps:
            step()
        self._written[name] = after


def _address(address: bytes) -> Any:
    """An address as Btf.parse takes it for a __be32 or four of them."""
    return int.from_bytes(address) if len(address) == ADDRESS_BYTES[IPV4] else _words(address)
