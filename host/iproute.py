"""Reads a network (host/network.py) as `ip -j` prints it: of a network namespace, or from a file of the same form.

A file is a JSON object. `addr` is needed, the others may be missing; each is the list that its command prints:

    addr     ip -j addr                      links, with addresses (or `link`: ip -j link, without)
    route    ip -4 -N -j route show table all
    route6   ip -6 -N -j route show table all
    neigh    ip -j neigh show nud all
    netconf  ip -j netconf                   which links forward; those that it doesn't list do
    rule     ip -4 -N -j rule                which tables are looked up
    rule6    ip -6 -N -j rule

`bpfnic network SOURCE` prints such a file. What `ip` says beyond what is read here is passed over.
"""

import ipaddress
import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

from bpfnic.host import netaddress
from bpfnic.host.jsonfile import read_object
from bpfnic.host.network import (
    ADDRESS_BYTES,
    IPV4,
    IPV6,
    TABLE_DEFAULT,
    TABLE_LOCAL,
    TABLE_MAIN,
    Address,
    Link,
    Neighbour,
    Network,
    NextHop,
    Route,
    RouteType,
    Rule,
    RuleAction,
    Scope,
)
from bpfnic.spec.errors import BpfnicError

NAMESPACE = "netns"
_COMMANDS = {
    "addr": ("addr",),
    "route": ("-4", "-N", "route", "show", "table", "all"),
    "route6": ("-6", "-N", "route", "show", "table", "all"),
    "neigh": ("neigh", "show", "nud", "all"),
    "netconf": ("netconf",),
    "rule": ("-4", "-N", "rule"),
    "rule6": ("-6", "-N", "rule"),
}
_KEYS = ("link", *_COMMANDS)
_TABLES = {"default": TABLE_DEFAULT, "main": TABLE_MAIN, "local": TABLE_LOCAL}
_OWN = [(priority, RuleAction.TABLE, table) for priority, table in ((0, TABLE_LOCAL), (32766, TABLE_MAIN),
                                                                    (32767, TABLE_DEFAULT))]  # fmt: skip
"""The rules that Linux makes itself: priority, action, table."""
_ACTIONS = "1 (a table), 3 (nothing), 6 (blackhole), 7 (unreachable) or 8 (prohibit)"
_RULE_MEMBERS = {
    "priority", "not", "src", "srclen", "dst", "dstlen", "fwmark", "fwmask", "iif", "oif", "tos", "ipproto", "sport",
    "sport_start", "sport_end", "dport", "dport_start", "dport_end", "table", "suppress_prefixlen", "action",
    "protocol",
}  # fmt: skip
_TUNNELS = {"ip": ("id", "src", "dst", "ttl", "tos"), "ip6": ("id", "src", "dst", "hoplimit", "tc")}
_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58}
_METRIC6 = 1024  # IP6_RT_PRIO_USER
_PREFERENCES = {"low": 1, "medium": 2, "high": 3}
_VALID = {"PERMANENT", "NOARP", "REACHABLE", "PROBE", "STALE", "DELAY"}  # NUD_VALID
_HEADERS = {"ether": 14, "loopback": 14}  # of a frame, by link_type; 0 on others

_Enum = TypeVar("_Enum", bound=IntEnum)


def read(source: str | Path) -> Network:
    """The network of `netns:NAME`, of the process's own namespace (`netns`), or of a file. Raises BpfnicError naming
    file, entry and field, or what `ip` says."""
    return parse(raw(source), str(source))


def raw(source: str | Path) -> dict[str, Any]:
    """What read would parse, as it stands there. Raises BpfnicError."""
    kind, _, namespace = str(source).partition(":")
    if kind == NAMESPACE:
        return _of_namespace(namespace)
    return read_object(source, ", ".join(_KEYS), _without_tunnel)


def _without_tunnel(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """`ip` prints a tunnel's members among those of its route, some by the same names: they come behind "encap"."""
    found: dict[str, Any] = {}
    tunnels: set[str] = set()
    for name, value in pairs:
        if name in tunnels:
            tunnels.remove(name)
            continue
        found.setdefault(name, value)
        if name == "encap":
            tunnels = set(_TUNNELS.get(value, ()))
    return found


def _of_namespace(name: str) -> dict[str, Any]:
    content = {key: _ip(name, "-j", *arguments) for key, arguments in _COMMANDS.items()}
    found = {key: json.loads(text or "[]", object_pairs_hook=_without_tunnel) for key, text in content.items()}
    for key in ("route", "route6"):
        _mark_locks(found[key], _ip(name, "-o", *_COMMANDS[key]).splitlines())
    return found


def _mark_locks(routes: Sequence[Any], lines: Sequence[str]) -> None:
    """`ip` says in its text alone that a route's MTU is locked: it becomes a member "lock" of its metrics."""
    if len(lines) != len(routes):
        raise BpfnicError("routes change too fast to be read: try again")
    for route, line in zip(routes, lines, strict=True):
        if "mtu lock" in line:
            for metrics in route.get("metrics", ()):
                metrics["lock"] = ["mtu"]


def _ip(namespace: str, *arguments: str) -> str:
    command = ["ip", *(("-n", namespace) if namespace else ()), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BpfnicError(f"ip: {error.strerror}; a file of what it prints will do (--network FILE)") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise BpfnicError(f"{' '.join(command)}: {said[0]}")
    return done.stdout


@dataclass(frozen=True)
class _Entry:
    """An object of the file, and where it stands. What is wrong with a member is said in a line with both."""

    where: str
    members: Mapping[str, Any]

    def wrong(self, name: str, what: str) -> BpfnicError:
        return BpfnicError(f"{self.where}: {name} {what}")

    def text(self, name: str) -> str:
        if not isinstance(value := self.members.get(name), str):
            raise self.wrong(name, f"must be text, not {json.dumps(value)}" if name in self.members else "is missing")
        return value

    def number(self, name: str, most: int, default: int | None = None) -> int:
        """A number, written as such or as digits."""
        value = self.members.get(name, default)
        if value is None:
            raise self.wrong(name, "is missing")
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self.wrong(name, f"must be 0 to {most}, not {json.dumps(value)}")
        return value

    def named(self, name: str, values: type[_Enum], default: _Enum) -> _Enum | int:
        """A number that may be written by its name."""
        value = self.members.get(name, default.value)
        if isinstance(value, str) and value.upper() in values.__members__:
            return values[value.upper()]
        return self.number(name, 255, default)

    def hexadecimal(self, name: str, default: int = 0) -> int:
        """A number of 32 bits, also as text ("0x10")."""
        value = self.members.get(name, default)
        try:
            number = int(value, 0) if isinstance(value, str) else value
        except ValueError:
            number = None
        if not isinstance(number, int) or not 0 <= number <= 0xFFFF_FFFF:
            raise self.wrong(name, f"must be 0 to 0xffffffff, not {json.dumps(value)}")
        return number

    def flags(self, name: str) -> list[str]:
        if not isinstance(value := self.members.get(name, []), list):
            raise self.wrong(name, f"must be a list, not {json.dumps(value)}")
        return value

    def address(self, name: str, *families: int) -> bytes:
        text = self.text(name)
        for family in families:
            if packed := netaddress.parse(text, ADDRESS_BYTES[family]):
                return packed
        raise self.wrong(name, f"must be an address of {' or '.join(f'IPv{f}' for f in families)}, not {text!r}")

    def parts(self, name: str) -> Iterator["_Entry"]:
        for number, part in enumerate(self.flags(name)):
            if not isinstance(part, dict):
                raise self.wrong(name, f"must be a list of objects, not {json.dumps(part)}")
            yield _Entry(f"{self.where}, {name} {number}", part)


def parse(content: Mapping[str, Any], name: str = "network") -> Network:
    """The network in what `ip` printed. Raises BpfnicError, one line, which `name` begins."""
    if unknown := [key for key in content if key not in _KEYS]:
        raise BpfnicError(f"{name}: there is no {unknown[0]!r}; there are {', '.join(_KEYS)}")
    whole = _Entry(name, content)

    def entries(key: str, label: str) -> Iterator[_Entry]:
        for number, part in enumerate(whole.parts(key)):
            what = part.members.get(label)
            shown = f" ({what})" if isinstance(what, str) else ""
            yield _Entry(f"{name}: {key} {number}{shown}", part.members)

    if "addr" not in content and "link" not in content:
        raise whole.wrong("addr", "is missing")
    silent = _silent(entries("netconf", "interface"))
    links = tuple(_link(each, silent) for each in entries("addr" if "addr" in content else "link", "ifname"))
    _distinct(name, links)
    by_name = {link.name: link.ifindex for link in links}
    return Network(
        links,
        tuple(
            _route(each, family, by_name)
            for family, key in ((IPV4, "route"), (IPV6, "route6"))
            for each in entries(key, "dst")
        ),
        tuple(found for each in entries("neigh", "dst") if (found := _neighbour(each, by_name))),
        name,
        tuple(
            rule
            for family, key in ((IPV4, "rule"), (IPV6, "rule6"))
            for rule in _without_own(_rule(each, family, by_name) for each in entries(key, "src"))
        ),
    )


def _table(entry: _Entry) -> int:
    name = entry.members.get("table", "main")
    if isinstance(name, str) and name in _TABLES:
        return _TABLES[name]
    if isinstance(name, str) and not name.isdecimal():
        raise entry.wrong("table", f"{name!r} is a name of /etc/iproute2/rt_tables: let ip print its number (-N)")
    return entry.number("table", 0xFFFF_FFFF)


# -- links ----------------------------------------------------------------------------------------------------------


def _silent(entries: Iterator[_Entry]) -> set[tuple[int, str]]:
    """Family and name of those links that don't forward."""
    silent = set()
    for entry in entries:
        family = {"inet": IPV4, "inet6": IPV6}.get(entry.text("family"))
        forwards = entry.members.get("forwarding")
        if family and forwards is not None:
            if not isinstance(forwards, bool):
                raise entry.wrong("forwarding", f"must be true or false, not {json.dumps(forwards)}")
            if not forwards:
                silent.add((family, entry.text("interface")))
    return silent


def _link(entry: _Entry, silent: set[tuple[int, str]]) -> Link:
    name = entry.text("ifname")
    flags = entry.flags("flags")
    mac = bytes(6)
    if "address" in entry.members:
        text = entry.text("address")
        try:
            mac = (bytes.fromhex(text.replace(":", "")) if ":" in text else b"")[:6].ljust(6, b"\0")
        except ValueError:
            raise entry.wrong("address", f"{text!r} is no MAC") from None
    return Link(
        entry.number("ifindex", 0x7FFF_FFFF),
        name,
        mac,
        entry.number("mtu", 0xFFFF_FFFF),
        up="UP" in flags,
        loopback="LOOPBACK" in flags,
        header_bytes=_HEADERS.get(entry.members.get("link_type", "ether"), 0),
        forwarding=frozenset(family for family in (IPV4, IPV6) if (family, name) not in silent),
        addresses=tuple(
            _address(each)
            for each in entry.parts("addr_info")
            if each.members and not each.members.keys() & {"tentative", "dadfailed"}
        ),
    )


def _address(entry: _Entry) -> Address:
    family = {"inet": IPV4, "inet6": IPV6}.get(entry.text("family"), IPV4)
    return Address(
        entry.address("local", family),
        entry.number("prefixlen", 8 * ADDRESS_BYTES[family]),
        entry.named("scope", Scope, Scope.GLOBAL),
        entry.members.get("secondary") is True,
        entry.members.get("deprecated") is True,
    )


def _distinct(name: str, links: Sequence[Link]) -> None:
    for number, link in enumerate(links):
        for other in links[:number]:
            for field in ("ifindex", "name"):
                if getattr(link, field) == getattr(other, field):
                    raise BpfnicError(f"{name}: two links have the {field} {getattr(link, field)}")


# -- routes and neighbours ------------------------------------------------------------------------------------------


def _device(entry: _Entry, by_name: Mapping[str, int], member: str = "dev") -> int:
    name = entry.text(member)
    if name not in by_name:
        raise entry.wrong(member, f"{name!r} is no link there; there are {', '.join(by_name)}")
    return by_name[name]


def _route(entry: _Entry, family: int, by_name: Mapping[str, int]) -> Route:
    size = ADDRESS_BYTES[family]
    text = entry.text("dst")
    prefix = (0, bytes(size)) if text == "default" else netaddress.parse_prefix(text, size)
    if prefix is None:
        raise entry.wrong("dst", f"must be a prefix of IPv{family}, not {text!r}")
    length, address = prefix
    network = ipaddress.ip_network((address, length), strict=False)
    if "from" in entry.members and entry.members["from"] != "default":
        raise entry.wrong("from", "is a route for some sources alone, which the tables don't have")
    kind = entry.named("type", RouteType, RouteType.UNICAST)
    try:
        kind = RouteType(kind)
    except ValueError:
        raise entry.wrong("type", f"must be a type of route, not {entry.members['type']!r}") from None
    forwards = kind <= RouteType.MULTICAST
    ways = list(entry.parts("nexthops")) or ([entry] if forwards else [])
    metrics = {key: value for each in entry.parts("metrics") for key, value in each.members.items()}
    locked = next((each for each in entry.parts("metrics") if "mtu" in each.flags("lock")), None)
    preference = entry.members.get("pref", "medium")
    if preference not in _PREFERENCES:
        raise entry.wrong("pref", f"must be {', '.join(_PREFERENCES)}, not {preference!r}")
    return Route(
        family,
        network.network_address.packed,
        length,
        tuple(_hop(way, entry, family, by_name) for way in ways),
        kind,
        _table(entry),
        _tos(entry),
        entry.number("metric", 0xFFFF_FFFF, _METRIC6 if family == IPV6 else 0),
        locked.number("mtu", 0xFFFF_FFFF) if locked and metrics else 0,
        entry.address("prefsrc", family) if "prefsrc" in entry.members else None,
        entry.named("scope", Scope, Scope.GLOBAL),
        _PREFERENCES[preference],
    )


def _tos(entry: _Entry) -> int:
    value = entry.members.get("tos", 0)
    try:
        number = int(value, 0) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or not 0 <= number <= 255:
        raise entry.wrong("tos", f"must be 0 to 255, not {json.dumps(value)} (let ip print its number: -N)")
    return number


def _hop(way: _Entry, route: _Entry, family: int, by_name: Mapping[str, int]) -> NextHop:
    gateway = None
    if "via" in way.members:
        via = way.members["via"]
        if not isinstance(via, dict):
            raise way.wrong("via", f"must be an object, not {json.dumps(via)}")
        gateway = _Entry(f"{way.where}, via", via).address("host", IPV4, IPV6)
    elif "gateway" in way.members:
        gateway = way.address("gateway", family)
    flags = [*route.flags("flags"), *way.flags("flags")]
    return NextHop(
        _device(way, by_name),
        gateway,
        max(way.number("weight", 256, 1), 1),
        onlink="onlink" in flags,
        alive="dead" not in flags,
        encapsulated="encap" in way.members or "encap" in route.members,
    )


def _neighbour(entry: _Entry, by_name: Mapping[str, int]) -> Neighbour | None:
    """None for one whose MAC isn't known, or not to be trusted."""
    states = entry.flags("state")
    if "lladdr" not in entry.members or not (_VALID & set(states) or "state" not in entry.members):
        return None
    mac = netaddress.parse(entry.text("lladdr"), 6)
    if mac is None:
        return None  # of a link that isn't Ethernet
    return Neighbour(_device(entry, by_name), entry.address("dst", IPV4, IPV6), mac)


# -- rules ----------------------------------------------------------------------------------------------------------


def _without_own(rules: Iterable[Rule]) -> list[Rule]:
    """None where all are those that Linux makes itself."""
    found = list(rules)
    own = all(rule in [Rule(rule.family, *each) for each in _OWN] for rule in found)
    return [] if own else found


def _rule(entry: _Entry, family: int, by_name: Mapping[str, int]) -> Rule:
    if unknown := sorted(set(entry.members) - _RULE_MEMBERS):
        raise entry.wrong(unknown[0], "is a condition that the tables don't have")
    action = entry.named("action", RuleAction, RuleAction.TABLE)
    try:
        action = RuleAction(action)
    except ValueError:
        raise entry.wrong("action", f"must be {_ACTIONS}, not {json.dumps(entry.members['action'])}") from None
    if family == IPV6 and "tos" in entry.members:
        raise entry.wrong("tos", "is a condition that the tables have for IPv4 alone")
    return Rule(
        family,
        entry.number("priority", 0xFFFF_FFFF),
        action,
        _table(entry) if action is RuleAction.TABLE else 0,
        "not" in entry.members,
        _rule_prefix(entry, "src", family),
        _rule_prefix(entry, "dst", family),
        _rule_link(entry, "iif", by_name),
        _rule_link(entry, "oif", by_name),
        entry.hexadecimal("fwmark"),
        entry.hexadecimal("fwmask", 0xFFFF_FFFF if "fwmark" in entry.members else 0),
        _tos(entry),
        _protocol(entry),
        _ports(entry, "sport"),
        _ports(entry, "dport"),
        entry.number("suppress_prefixlen", 8 * ADDRESS_BYTES[family])
        if "suppress_prefixlen" in entry.members
        else None,
    )


def _rule_prefix(entry: _Entry, name: str, family: int) -> tuple[bytes, int] | None:
    if entry.members.get(name, "all") == "all":
        return None
    bits = 8 * ADDRESS_BYTES[family]
    return entry.address(name, family), entry.number(f"{name}len", bits, bits)


def _rule_link(entry: _Entry, name: str, by_name: Mapping[str, int]) -> int:
    return _device(entry, by_name, name) if name in entry.members else 0


def _protocol(entry: _Entry) -> int:
    """`ip -N` prints "ipproto-17"."""
    value = entry.members.get("ipproto", 0)
    if isinstance(value, str):
        digits = value.removeprefix("ipproto-")
        value = _PROTOCOLS.get(value, int(digits) if digits.isdecimal() else value)
    if not isinstance(value, int) or not 0 <= value <= 255:
        raise entry.wrong("ipproto", f"must be a protocol's number, not {json.dumps(value)}")
    return value


def _ports(entry: _Entry, name: str) -> tuple[int, int] | None:
    if name in entry.members:
        port = entry.number(name, 0xFFFF)
        return port, port
    if f"{name}_start" not in entry.members:
        return None
    return entry.number(f"{name}_start", 0xFFFF), entry.number(f"{name}_end", 0xFFFF)
