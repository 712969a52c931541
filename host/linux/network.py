"""Puts a network (host/network.py) into a namespace of links (namespace.py), by `ip` in its thread.

Links get their names there from their ifindex alone. The routes are those of the network and no others: what the kernel
adds for addresses is taken out again, and gateways are taken as they are (`onlink`), for they were accepted where the
network was read. Links that are down go down last, whereupon the kernel itself retires the routes that use them.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Iterator

from bpfnic.host import netaddress
from bpfnic.host.linux.namespace import link_name
from bpfnic.host.network import (
    IPV4,
    IPV6,
    SHORTEST_IPV6,
    TABLE_LOCAL,
    Link,
    Network,
    NextHop,
    Route,
    RouteType,
    Rule,
    RuleAction,
)
from bpfnic.spec.errors import BpfnicError

_SETTLE_SECONDS = 10
_PROC = {IPV4: "ipv4", IPV6: "ipv6"}


def install(network: Network) -> None:
    """Called in the thread of a namespace with the network's links. Raises BpfnicError with what `ip` says."""
    _ip(network, _links(network))
    _settle(network)
    set_forwarding(network)
    for family in _PROC:
        _ip(network, _routes(network, family), f"-{family}")
        _ip(network, _rules(network, family), f"-{family}")
    _ip(network, _neighbours(network))
    _ip(network, (f"link set dev {link_name(link.ifindex)} down" for link in network.links if not link.up))


def _settle(network: Network) -> None:
    """Until IPv6 addresses are there for good, the kernel may still add routes for them; and for those of a link that
    forwards, which is why none does yet."""
    end = time.monotonic() + _SETTLE_SECONDS
    while _run(network, ["ip", "-6", "-o", "addr", "show", "tentative"]).stdout:
        if time.monotonic() > end:
            raise BpfnicError(f"{network.name}: the kernel's IPv6 addresses stay tentative for {_SETTLE_SECONDS} s")
        time.sleep(_SETTLE_SECONDS / 1000)


def set_forwarding(network: Network) -> None:
    """Which links forward; called in the namespace's thread."""
    for link in network.links:
        for family, folder in _PROC.items():
            if family == IPV4 or link.mtu >= SHORTEST_IPV6:
                with open(f"/proc/sys/net/{folder}/conf/{link_name(link.ifindex)}/forwarding", "w") as file:
                    file.write(str(int(family in link.forwarding)))


def _run(network: Network, command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True)
    except OSError as error:
        raise BpfnicError(f"{network.name}: ip: {error.strerror}") from None


def _ip(network: Network, lines: Iterable[str], *options: str) -> None:
    batch = list(lines)
    done = _run(network, ["ip", *options, "-batch", "-"], "\n".join(batch))
    if done.returncode:
        said = done.stderr.splitlines()
        failed = next((line for line in said if line.startswith("Command failed")), ":0")
        number = int(failed.rpartition(":")[2])
        command = " ".join(["ip", *options, batch[number - 1] if number else "-batch"])
        raise BpfnicError(f"{network.name}: the kernel refuses `{command}`: {said[0]}")


def _links(network: Network) -> Iterator[str]:
    # Table local must have been there once, or all IPv4 gateways are refused.
    yield "addr add 127.0.0.1/8 dev lo"
    yield "addr del 127.0.0.1/8 dev lo"
    for link in network.links:
        name = link_name(link.ifindex)
        if any(link.mac):  # others have no neighbours, so nobody sees it
            yield f"link set dev {name} address {netaddress.format(link.mac)}"
        if not link.loopback:
            yield f"link set dev {name} addrgenmode none"
        yield f"link set dev {name} mtu {link.mtu} up"
    for link in network.links:
        yield from _addresses(link)


def _routes(network: Network, family: int) -> Iterator[str]:
    """One's own addresses first, for `src` is looked up there. An IPv6 gateway must not be on another link by routes
    that are there already: each gets a route of its own meanwhile."""
    yield "route flush table all"
    routes = [route for route in network.routes if route.family == family]
    local = [route for route in routes if route.table == TABLE_LOCAL]
    yield from map(_route, sorted(local, key=lambda route: -route.length))
    by_gateway = [route for route in routes if route.table != TABLE_LOCAL and any(hop.gateway for hop in route.hops)]
    ways = dict.fromkeys(f"{netaddress.format(hop.gateway)} dev {link_name(hop.ifindex)} metric 1"
                         for route in by_gateway for hop in route.hops if hop.gateway and family == IPV6)  # fmt: skip
    yield from (f"route append {way}" for way in ways)
    yield from map(_route, by_gateway)
    yield from (f"route del {way}" for way in ways)
    yield from (_route(route) for route in routes if route not in local and route not in by_gateway)


def _rules(network: Network, family: int) -> Iterator[str]:
    rules = [rule for rule in network.rules if rule.family == family]
    if rules:
        yield "rule flush"
        yield "rule del pref 0"  # which flush leaves
    yield from map(_rule, rules)


def _rule(rule: Rule) -> str:
    words = ["rule add", *(["not"] if rule.inverted else [])]
    for word, prefix in (("from", rule.source), ("to", rule.destination)):
        words.append(f"{word} {netaddress.format_prefix(prefix[1], prefix[0])}" if prefix else f"{word} all")
    for word, ifindex in (("iif", rule.iif), ("oif", rule.oif)):
        if ifindex:
            words.append(f"{word} {link_name(ifindex)}")
    if rule.mark_mask:
        words.append(f"fwmark {rule.mark:#x}/{rule.mark_mask:#x}")
    if rule.tos:
        words.append(f"tos {rule.tos:#x}")
    if rule.protocol:
        words.append(f"ipproto {rule.protocol}")
    for word, ports in (("sport", rule.source_ports), ("dport", rule.destination_ports)):
        if ports:
            words.append(f"{word} {ports[0]}-{ports[1]}")
    words.append(f"pref {rule.priority}")
    words.append(f"table {rule.table}" if rule.action is RuleAction.TABLE else rule.action.name.lower())
    if rule.suppress is not None:
        words.append(f"suppress_prefixlength {rule.suppress}")
    return " ".join(words)


def _neighbours(network: Network) -> Iterator[str]:
    for neighbour in network.neighbours:
        address, mac = netaddress.format(neighbour.address), netaddress.format(neighbour.mac)
        yield f"neigh replace {address} lladdr {mac} dev {link_name(neighbour.ifindex)} nud permanent"


def _addresses(link: Link) -> Iterator[str]:
    for each in link.addresses:
        words = [f"addr replace {netaddress.format(each.address)}/{each.length} dev {link_name(link.ifindex)}"]
        words.append(f"scope {int(each.scope)} noprefixroute")
        if len(each.address) > 4:
            words.append("nodad")
        if each.deprecated:
            words.append("preferred_lft 0")
        yield " ".join(words)


def _route(route: Route) -> str:
    words = [f"route append {route.type.name.lower()}"]
    words.append(netaddress.format_prefix(route.length, route.destination))
    words.append(f"table {route.table}")
    if route.tos:
        words.append(f"tos {route.tos:#x}")
    if route.metric:
        words.append(f"metric {route.metric}")
    if route.family == IPV4 and route.type <= RouteType.MULTICAST:
        words.append(f"scope {int(route.scope)}")
    if route.source:
        words.append(f"src {netaddress.format(route.source)}")
    if route.locked_mtu:
        words.append(f"mtu lock {route.locked_mtu}")
    if route.family == IPV6 and route.type is RouteType.UNICAST:
        words.append(f"pref {['', 'low', 'medium', 'high'][route.preference]}")
    if len(route.hops) == 1:
        words.append(_hop(route.hops[0], route.family))
    else:
        words += [f"nexthop {_hop(hop, route.family)} weight {hop.weight}" for hop in route.hops]
    return " ".join(words)


def _hop(hop: NextHop, family: int) -> str:
    words = ["encap ip id 1 dst 127.0.0.1"] if hop.encapsulated else []
    if hop.gateway:
        inet6 = "inet6 " if family == IPV4 and len(hop.gateway) > 4 else ""
        words.append(f"via {inet6}{netaddress.format(hop.gateway)}")
    words.append(f"dev {link_name(hop.ifindex)}")
    if hop.gateway or hop.onlink:
        words.append("onlink")
    return " ".join(words)
