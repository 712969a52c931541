"""A network (host/network.py) as tables in map memory, for the firmware's helpers: firmware/runtime/network.h.

What lies there is decided here: which routes can be used, in which order, what shares paths have, and which addresses
packets from here get. The firmware finds and follows.

A change is made while packets run. Ways are written where no route leads to, then routes are turned to them one by one,
and places of ways are free again when the last packet that may read them has left.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from bpfnic.host.network import (
    ADDRESS_BYTES,
    IPV4,
    IPV6,
    SHORTEST_IPV6,
    TABLE_LOCAL,
    TABLE_MAIN,
    Link,
    Network,
    NextHop,
    Route,
    RouteType,
    Rule,
    Scope,
)
from bpfnic.host.regions import Regions
from bpfnic.spec.addresses import INDEX_BYTES
from bpfnic.spec.errors import BpfnicError

if TYPE_CHECKING:
    from bpfnic.host.device import DeviceMap
    from bpfnic.host.maps import MapDefinition

LINKS, RULES, ROUTES4, ROUTES6, WAYS, NEIGHBOURS = TABLES = (
    "links", "rules", "routes4", "routes6", "ways", "neighbours"
)  # fmt: skip
_PLURAL = {LINKS: "links", RULES: "rules", ROUTES4: "prefixes of IPv4", ROUTES6: "prefixes of IPv6",
           WAYS: "ways of routes", NEIGHBOURS: "neighbours"}  # fmt: skip
_ROUTES = {IPV4: ROUTES4, IPV6: ROUTES6}
_AF = {4: 2, 16: 10}  # AF_INET, AF_INET6, by an address's length
_TABLE_BITS = 32
_FORWARDS, _UP = {IPV4: 1, IPV6: 2}, 4  # flags of a link
_HASHES = 1 << 31
MOST_WAYS = MOST_RULES = 64  # for one prefix, of one family: firmware/runtime/fib.h
_SPARE = {RULES: 1}  # for how many of its first entries a table has room for one more; where none is said:
_MANY = 4

Record = tuple[tuple[str, Any], ...]
"""A struct way or struct rule, its members by name."""
Group = tuple[Record, ...]
"""Records side by side: all ways for a prefix, all rules of a family."""


@dataclass
class Content:
    """What the tables of a network hold: keys and values by member, but for routes the ways of each."""

    links: dict[int, dict[str, Any]] = field(default_factory=dict)
    rules: dict[int, Group] = field(default_factory=dict)
    routes: dict[int, dict[tuple[int, bytes, int], Group]] = field(default_factory=dict)
    """By family, then by table, destination and length."""
    neighbours: dict[tuple[int, bytes], bytes] = field(default_factory=dict)

    def groups(self, table: str) -> list[Group]:
        """What lies side by side in a table, each group once, always in the same order."""
        ways = (group for family in _ROUTES for group in self.routes[family].values())
        return [group for group in dict.fromkeys(ways if table == WAYS else self.rules.values()) if group]

    def sizes(self) -> dict[str, int]:
        """Entries by table."""
        return {
            LINKS: len(self.links),
            ROUTES4: len(self.routes[IPV4]),
            ROUTES6: len(self.routes[IPV6]),
            WAYS: sum(map(len, self.groups(WAYS))),
            RULES: sum(map(len, self.groups(RULES))),
            NEIGHBOURS: len(self.neighbours),
        }


def content(network: Network) -> Content:
    """What the tables hold for a network. Raises BpfnicError naming a prefix that has too many ways."""
    result = Content()
    for link in network.links:
        families = link.forwarding - ({IPV6} if link.mtu < SHORTEST_IPV6 else set())
        result.links[link.ifindex] = {
            "mac": list(link.mac),
            "header_bytes": link.header_bytes,
            "mtu": link.mtu,
            "flags": sum(_FORWARDS[family] for family in families) + (_UP if link.up else 0),
        }
    for family in _ROUTES:
        rules = sorted((rule for rule in network.rules if rule.family == family), key=lambda rule: rule.priority)
        if len(rules) > MOST_RULES:
            more = len(rules) - MOST_RULES
            raise BpfnicError(
                f"{network.name}: {len(rules)} rules of IPv{family}, {more} more than bpf_fib_lookup looks at"
            )
        result.rules[family] = tuple(_rule(rule) for rule in rules)
        result.routes[family] = {}
        merged = family == IPV4 and not rules  # tables local and main are one
        in_order = _in_order(network, family, merged)
        for (table, destination, length), routes in groupby(in_order, partial(_prefix, merged=merged)):
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


def _prefix(route: Route, merged: bool) -> tuple[int, bytes, int]:
    table = TABLE_MAIN if merged and route.table == TABLE_LOCAL else route.table
    return table, route.destination, route.length


def _in_order(network: Network, family: int, merged: bool) -> list[Route]:
    """The order in which Linux tries routes for one prefix: of IPv4 those of table local first, then those for some
    values of TOS; then by metric; at last as they are listed."""

    def order(route: Route) -> tuple[Any, ...]:
        return *_prefix(route, merged), route.table != TABLE_LOCAL, -route.tos, route.metric

    return sorted((route for route in network.routes if route.family == family), key=order)


def _rule(rule: Rule) -> Record:
    """A struct rule."""
    source, source_mask = _masked(rule.source)
    destination, destination_mask = _masked(rule.destination)
    return tuple(
        {
            "table": rule.table,
            "mark": rule.mark,
            "mark_mask": rule.mark_mask,
            "iif": rule.iif,
            "oif": rule.oif,
            "source": source,
            "source_mask": source_mask,
            "destination": destination,
            "destination_mask": destination_mask,
            "source_ports": rule.source_ports or (0, 0),
            "destination_ports": rule.destination_ports or (0, 0),
            "action": int(rule.action),
            "tos": rule.tos,
            "protocol": rule.protocol,
            "inverted": int(rule.inverted),
            "suppress": 0 if rule.suppress is None else rule.suppress + 1,
        }.items()
    )


def _masked(prefix: tuple[bytes, int] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """An address and the bits that count, four __be32 each."""
    address, length = prefix or (bytes(4), 0)
    bits = 8 * len(address)
    return _words(address), _words(((1 << bits) - (1 << bits - length)).to_bytes(len(address)))


def _ways(route: Route, network: Network) -> Iterator[Record]:
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


def _way(route: Route, hop: NextHop, network: Network, path: int, paths: int, share: int) -> Record:
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


class Places:
    """Who has which places of an array: groups of records side by side, each of them once."""

    def __init__(self, table: "DeviceMap", free_later: Callable[[Callable[[], None]], None]):
        self._table, self._free_later = table, free_later
        self._regions = Regions(table.definition.max_entries)
        self.first: dict[Group, int] = {}
        """Where each group begins."""

    def take(self, groups: Sequence[Group], network: str) -> dict[Group, int]:
        """Where these groups are to be: where they are already, others at free places. Raises BpfnicError; then nothing
        was taken."""
        places = {group: self.first[group] for group in groups if group in self.first}
        fresh: list[int] = []
        for group in sorted((group for group in groups if group not in places), key=len, reverse=True):
            place = self._regions.allocate(len(group), 1)
            if place is None:
                available = self._regions.available
                self.give_back(fresh)
                raise BpfnicError(
                    f"{network}: the device's table {self._table.definition.name!r} has no {len(group)} places side by "
                    f"side, beside those that packets under way may use; {available} of {self._regions.size} are free"
                )
            places[group] = place
            fresh.append(place)
        return places

    def give_back(self, places: Iterable[int]) -> None:
        """Free what `take` took and nobody uses."""
        for place in places:
            self._regions.free(place)

    def write(self, places: Mapping[Group, int]) -> None:
        """Put groups that aren't there yet to where they are to be."""
        for group, first in places.items():
            if group not in self.first:
                for number, record in enumerate(group, first):
                    value = self._table.definition.parse_value(dict(record))
                    self._table.update(number.to_bytes(INDEX_BYTES, "little"), [value])

    def keep(self, places: Mapping[Group, int]) -> None:
        """Free what isn't among these, when packets that are under way have left."""
        gone = [first for group, first in self.first.items() if group not in places]
        self.first = dict(places)
        self._free_later(lambda: self.give_back(gone))


class NetworkTables:
    """The tables of one device, as far as its programs need any. `free_later(action)`: do it when all packets that are
    under way have left; `reclaim()`: do what is due of it."""

    def __init__(self, network: Network, free_later: Callable[[Callable[[], None]], None], reclaim: Callable[[], None]):
        self._free_later, self._reclaim = free_later, reclaim
        self._network = network
        self._content = content(network)
        self._maps: dict[str, DeviceMap] = {}
        self._places: dict[str, Places] = {}  # of arrays
        self._written: dict[str, dict[bytes, bytes]] = {}  # of the others

    def sized(self, definition: "MapDefinition") -> "MapDefinition":
        """The definition of a map of the runtime; of a table so large that the network that is there when it is made
        may change and grow."""
        needed = self._content.sizes().get(definition.name, 0)
        spare = needed // _SPARE.get(definition.name, _MANY)
        return replace(definition, max_entries=max(definition.max_entries, needed + spare))

    def add(self, maps: Iterable["DeviceMap"]) -> None:
        """Fill those of the runtime's maps that are tables and are new."""
        found = {each.definition.name: each for each in maps}
        tables = {name: found[name] for name in TABLES if name in found and name not in self._maps}
        if not tables:
            return
        self._maps |= tables
        for name, table in tables.items():
            if name in (WAYS, RULES):
                self._places[name] = Places(table, self._free_later)
            else:
                self._written[name] = {}
        self._turn_to(self._content, self._network.name)

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
        self._turn_to(wanted, network.name)
        self._network, self._content = network, wanted

    def _turn_to(self, wanted: Content, network: str) -> None:
        self._reclaim()
        taken: dict[str, dict[Group, int]] = {}
        try:
            for name, places in self._places.items():
                taken[name] = places.take(wanted.groups(name), network)
        except BpfnicError:
            for name, mine in taken.items():
                held = self._places[name].first
                self._places[name].give_back(first for group, first in mine.items() if group not in held)
            raise
        for name, mine in taken.items():
            self._places[name].write(mine)
        for name, entries in _entries(wanted, taken).items():
            if name in self._maps:
                self._turn(name, entries)
        for name, mine in taken.items():
            self._places[name].keep(mine)

    def _turn(self, name: str, entries: Iterable[tuple[Any, Any]]) -> None:
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


def _entries(wanted: Content, taken: Mapping[str, Mapping[Group, int]]) -> dict[str, Iterable[tuple[Any, Any]]]:
    """Keys and values of the tables with keys of their own, in the order in which they are to be written, given where
    groups are."""
    rules, ways = taken.get(RULES, {}), taken.get(WAYS, {})
    own = [wanted.rules[family] if wanted.rules[family] in rules else () for family in _ROUTES]
    by_rules = {"first_rule": [rules.get(group, 0) for group in own], "rule_count": [len(group) for group in own]}
    result: dict[str, Iterable[tuple[Any, Any]]] = {
        NEIGHBOURS: (
            ({"ifindex": ifindex, "family": _AF[len(address)], "address": _words(address)}, {"mac": list(mac)})
            for (ifindex, address), mac in wanted.neighbours.items()
        )
    }
    for family, name in _ROUTES.items():
        result[name] = [
            (
                {"length": _TABLE_BITS + length, "table": table, "address": _address(destination)},
                {"first": ways.get(group, 0), "count": len(group), "length": length},
            )
            for (table, destination, length), group in wanted.routes[family].items()
        ]
    result[LINKS] = [(ifindex, link | by_rules) for ifindex, link in wanted.links.items()]
    return result


def _address(address: bytes) -> Any:
    """An address as Btf.parse takes it for a __be32 or four of them."""
    return int.from_bytes(address) if len(address) == ADDRESS_BYTES[IPV4] else _words(address)
