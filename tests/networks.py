"""Random networks, as host/iproute.py reads them, and the addresses that look-ups in them are after."""

import ipaddress
import random
from collections.abc import Callable
from typing import Any

from bpfnic.host.network import (
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

REJECTS = [RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT, RouteType.THROW]
LOOPBACK, PORTS, OTHERS = 1, (2, 3), (7, 9)
TABLES = (TABLE_MAIN, TABLE_MAIN, TABLE_MAIN, TABLE_DEFAULT, TABLE_LOCAL, 100)


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


class Drawn:
    """A network and what it was made of. Prefixes lie within each other; addresses to be looked up are taken from them,
    now and then from elsewhere."""

    def __init__(self, chance: random.Random, routes: int = 40, alive: float = 0.8, rules: bool = False):
        self._chance = chance
        links = [self._link(ifindex, alive if ifindex in OTHERS else 1.0) for ifindex in (*PORTS, *OTHERS)]
        self.links = (_LOOPBACK, *links)
        self.gateways = {
            (link.ifindex, family): [self._beside(address) for address in link.addresses
                                     if len(address.address) == size for _ in range(3)]
            for link in links for family, size in ((IPV4, 4), (IPV6, 16))
        }  # fmt: skip
        self.prefixes = {IPV4: [(packed("10.0.0.0"), 8)], IPV6: [(packed("2000::"), 8)]}
        drawn = [self._own_address(link, address) for link in links for address in link.addresses]
        seen: set[tuple[object, ...]] = set()
        for family in (IPV4, IPV6):
            for _ in range(routes):
                route = self._route(family)
                # IPv6 routes with gateways and one metric would be paths of one route.
                key = (family, route.destination, route.length, route.table, route.metric, route.tos)
                if key not in seen:
                    drawn.append(route)
                seen.add(key)
        neighbours = {
            (ifindex, gateway): Neighbour(ifindex, gateway, chance.randbytes(6))
            for (ifindex, _), gateways in self.gateways.items()
            for gateway in gateways
            if chance.random() < 0.6 and next(link for link in links if link.ifindex == ifindex).up
        }
        drawn_rules = tuple(rule for family in (IPV4, IPV6) for rule in self._rules(family)) if rules else ()
        self.network = Network(self.links, tuple(drawn), tuple(neighbours.values()), "random", drawn_rules)

    def _link(self, ifindex: int, alive: float) -> Link:
        chance = self._chance
        four = [Address(bytes([10, ifindex, n, 1]), 24) for n in range(chance.randrange(3))]
        six = [Address(packed(f"2001:db8:{ifindex}:{n}::1"), 64) for n in range(chance.randrange(2))]
        forwarding = {family for family in (IPV4, IPV6) if chance.random() < 0.9}
        return Link(
            ifindex,
            f"eth{ifindex}",
            bytes([2, *chance.randbytes(5)]),
            chance.choice([1300, 1500, 9000]),
            up=chance.random() < alive,
            forwarding=frozenset(forwarding),
            addresses=(*four, *six),
        )

    def _beside(self, address: Address) -> bytes:
        return address.address[:-1] + bytes([self._chance.randrange(2, 250)])

    def _own_address(self, link: Link, address: Address) -> Route:
        family = IPV4 if len(address.address) == 4 else IPV6
        scope, source = (Scope.HOST, address.address) if family == IPV4 else (Scope.GLOBAL, None)
        return Route(
            family,
            address.address,
            8 * len(address.address),
            (NextHop(link.ifindex),),
            RouteType.LOCAL,
            TABLE_LOCAL,
            source=source,
            scope=scope,
            metric=0 if family == IPV4 else 1024,
        )

    def _route(self, family: int) -> Route:
        chance = self._chance
        size = 4 if family == IPV4 else 16
        if chance.random() < 0.3:
            destination, length = chance.choice(self.prefixes[family])
        else:
            destination, above = chance.choice(self.prefixes[family])
            length = min(above + chance.choice([0, 1, 2, 8, 8, 16]), 8 * size)
            flipped = int.from_bytes(destination) ^ chance.getrandbits(8 * size - above)
            destination = (flipped >> 8 * size - length << 8 * size - length).to_bytes(size)
            self.prefixes[family].append((destination, length))
        if chance.random() < 0.05:
            destination, length = bytes(size), 0
        table = chance.choice(TABLES)
        if family == IPV6 and table == TABLE_DEFAULT:
            table = TABLE_MAIN
        tos = chance.choice([0, 0, 0, 0x08, 0x10]) if family == IPV4 else 0
        metric = chance.choice([1, 5, 7, 1024, 70000])
        if chance.random() < 0.2:
            kind = chance.choice(REJECTS)
            return Route(family, destination, length, (), kind, table, tos, metric)
        ifindex = chance.choice([link.ifindex for link in self.links[1:] if link.up or link.ifindex in OTHERS])
        gateways = self.gateways[ifindex, family]
        if family == IPV4 and chance.random() < 0.15:
            gateways = self.gateways[ifindex, IPV6]
        gateway = chance.choice(gateways) if gateways and chance.random() < 0.8 else None
        source = None
        own = [address.address for link in self.links[1:] if link.up for address in link.addresses
               if len(address.address) == size]  # fmt: skip
        if own and chance.random() < 0.2:
            source = chance.choice(own)
        return Route(
            family,
            destination,
            length,
            (NextHop(ifindex, gateway, encapsulated=chance.random() < 0.15),),
            table=table,
            tos=tos,
            metric=metric,
            locked_mtu=chance.choice([0, 0, 0, 1400]),
            source=source,
            scope=Scope.GLOBAL if gateway or family == IPV6 else Scope.LINK,
            preference=chance.choice([1, 2, 2, 3]) if family == IPV6 else 2,
        )

    def _rules(self, family: int) -> list[Rule]:
        """Linux's own, and some between them."""
        chance = self._chance
        own = [(0, TABLE_LOCAL), (32766, TABLE_MAIN), (32767, TABLE_DEFAULT)]
        rules = [Rule(family, priority, table=table) for priority, table in own[: 3 if family == IPV4 else 2]]
        draw: dict[str, Callable[[], Any]] = {
            "source": lambda: self._near(family),
            "destination": lambda: self._near(family),
            "iif": lambda: chance.choice([1, *PORTS]),
            "oif": lambda: chance.choice([*PORTS, 7]),
            "mark": lambda: chance.randrange(4),
            "protocol": lambda: chance.choice([6, 17]),
            "source_ports": lambda: chance.choice([(1, 1), (5, 300), (256, 257)]),
            "destination_ports": lambda: chance.choice([(2, 2), (512, 600)]),
            "suppress": lambda: chance.choice([0, 8, 16, 24]),
        }
        if family == IPV4:
            draw["tos"] = lambda: chance.choice([0x08, 0x10])
        for priority in range(10, 100, chance.choice([8, 12, 30])):
            action = chance.choice([RuleAction.TABLE] * 8 + list(RuleAction))
            table = action is RuleAction.TABLE
            names = chance.sample(sorted(draw), chance.choice([1, 1, 2]))
            found = {name: draw[name]() for name in names if name != "suppress" or table}
            if "mark" in found:
                found["mark_mask"] = 3
            number = chance.choice([100, 100, TABLE_MAIN, 77]) if table else 0
            rules.append(Rule(family, priority, action, number, inverted=chance.random() < 0.15, **found))
        return sorted(rules, key=lambda rule: rule.priority)

    def _near(self, family: int) -> tuple[bytes, int]:
        """A prefix of addresses that look-ups come from or go to."""
        if self._chance.random() < 0.5:
            return self._chance.choice(self.prefixes[family])
        own = [(each.address, each.length) for link in self.links[1:] for each in link.addresses
               if len(each.address) == (4 if family == IPV4 else 16)]  # fmt: skip
        address, length = self._chance.choice(own or self.prefixes[family])
        bits = 8 * len(address)
        return (int.from_bytes(address) >> bits - length << bits - length).to_bytes(len(address)), length

    def address(self, family: int) -> bytes:
        """One that a look-up may be after."""
        chance = self._chance
        size = 4 if family == IPV4 else 16
        if chance.random() < 0.1:
            own = [address.address for link in self.links for address in link.addresses]
            strange = [packed("224.0.0.5"), packed("255.255.255.255"), packed("ff0e::5"), packed("fe80::7")]
            return chance.choice([each for each in own + strange if len(each) == size])
        destination, length = chance.choice(self.prefixes[family])
        return (int.from_bytes(destination) ^ chance.getrandbits(8 * size - length)).to_bytes(size)


_LOOPBACK = Link(
    LOOPBACK,
    "lo",
    mtu=65536,
    loopback=True,
    forwarding=frozenset(),
    addresses=(Address(packed("127.0.0.1"), 8, Scope.HOST), Address(packed("::1"), 128, Scope.HOST)),
)
