"""Networks as `ip -j` prints them: what is read, what is refused, and that a namespace is filled with the same."""

import json
import random
from dataclasses import replace

import pytest

import bpfnic
from bpfnic.host import iproute
from bpfnic.host.linux import network as kernel_network
from bpfnic.host.linux.namespace import Namespace
from bpfnic.host.network import (
    IPV4,
    IPV6,
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
from tests.networks import Drawn, packed

LO = {"ifindex": 1, "ifname": "lo", "flags": ["LOOPBACK", "UP", "LOWER_UP"], "mtu": 65536, "link_type": "loopback",
      "address": "00:00:00:00:00:00", "addr_info": []}  # fmt: skip
ETH = {
    "ifindex": 4,
    "link_index": 5,
    "ifname": "eth0",
    "flags": ["BROADCAST", "MULTICAST", "UP", "LOWER_UP"],
    "mtu": 1500,
    "qdisc": "noqueue",
    "operstate": "UP",
    "link_type": "ether",
    "address": "02:00:5e:10:00:04",
    "broadcast": "ff:ff:ff:ff:ff:ff",
    "addr_info": [
        {"family": "inet", "local": "10.1.0.1", "prefixlen": 24, "broadcast": "10.1.0.255", "scope": "global",
         "label": "eth0", "valid_life_time": 4294967295, "preferred_life_time": 4294967295},
        {"family": "inet", "local": "10.1.0.2", "prefixlen": 24, "scope": "global", "secondary": True},
        {"family": "inet6", "local": "fe80::4", "prefixlen": 64, "scope": "link"},
        {"family": "inet6", "local": "2001:db8::4", "prefixlen": 64, "scope": "global", "tentative": True},
    ],
}  # fmt: skip
TUN = {"ifindex": 9, "ifname": "tun0", "flags": ["POINTOPOINT", "NOARP"], "mtu": 1420, "link_type": "none"}
WHOLE = {"addr": [LO, ETH, TUN]}


def parse(**more):
    return iproute.parse({**WHOLE, **more}, "net.json")


def test_links():
    _, eth, tun = parse(netconf=[
        {"family": "inet", "interface": "all", "forwarding": True},
        {"family": "inet", "interface": "eth0", "forwarding": False},
        {"family": "inet6", "interface": "eth0", "forwarding": True},
    ]).links  # fmt: skip
    assert eth == Link(
        4,
        "eth0",
        bytes.fromhex("02005e100004"),
        1500,
        forwarding=frozenset({IPV6}),
        addresses=(
            Address(packed("10.1.0.1"), 24),
            Address(packed("10.1.0.2"), 24, secondary=True),
            Address(packed("fe80::4"), 64, Scope.LINK),
        ),
    )
    assert tun == Link(9, "tun0", bytes(6), 1420, up=False, header_bytes=0, forwarding=frozenset({IPV4, IPV6}))


ROUTES = [
    ({"dst": "default", "gateway": "10.1.0.254", "dev": "eth0", "flags": []},
     Route(IPV4, bytes(4), 0, (NextHop(4, packed("10.1.0.254")),))),
    ({"dst": "10.1.0.0/24", "dev": "eth0", "protocol": "kernel", "scope": "link", "prefsrc": "10.1.0.1", "flags": []},
     Route(IPV4, packed("10.1.0.0"), 24, (NextHop(4),), source=packed("10.1.0.1"), scope=Scope.LINK)),
    ({"dst": "10.1.0.0/24", "dev": "eth0", "protocol": "2", "scope": "253", "flags": ["linkdown"]},
     Route(IPV4, packed("10.1.0.0"), 24, (NextHop(4),), scope=Scope.LINK)),
    ({"type": "unreachable", "dst": "10.11.0.0/16", "metric": 7, "flags": []},
     Route(IPV4, packed("10.11.0.0"), 16, (), RouteType.UNREACHABLE, metric=7)),
    ({"type": "6", "dst": "10.11.0.5", "table": "255", "tos": "0x10", "flags": []},
     Route(IPV4, packed("10.11.0.5"), 32, (), RouteType.BLACKHOLE, TABLE_LOCAL, 0x10)),
    ({"dst": "10.13.0.0/16", "flags": [], "table": "100", "nexthops": [
        {"gateway": "10.1.0.7", "dev": "eth0", "weight": 2, "flags": ["onlink"]},
        {"via": {"family": "inet6", "host": "fe80::8"}, "dev": "tun0", "weight": 1, "flags": ["dead", "linkdown"]}]},
     Route(IPV4, packed("10.13.0.0"), 16, (
        NextHop(4, packed("10.1.0.7"), 2, onlink=True), NextHop(9, packed("fe80::8"), alive=False)), table=100)),
    ({"dst": "10.31.0.0/16", "encap": "ip6", "id": 42, "gateway": "10.1.0.9", "dev": "eth0", "flags": []},
     Route(IPV4, packed("10.31.0.0"), 16, (NextHop(4, packed("10.1.0.9"), encapsulated=True),))),
    ({"dst": "10.32.0.0/16", "dev": "eth0", "metrics": [{"mtu": 900, "lock": ["mtu"]}]},
     Route(IPV4, packed("10.32.0.0"), 16, (NextHop(4),), locked_mtu=900)),
    ({"dst": "10.33.0.0/16", "dev": "eth0", "metrics": [{"mtu": 900}]},
     Route(IPV4, packed("10.33.0.0"), 16, (NextHop(4),))),
    ({"dst": "2001:db8:9::/48", "gateway": "fe80::9", "dev": "eth0", "metric": 256, "flags": [], "pref": "high"},
     Route(IPV6, packed("2001:db8:9::"), 48, (NextHop(4, packed("fe80::9")),), metric=256, preference=3)),
    ({"type": "local", "dst": "2001:db8::4", "dev": "eth0", "table": "local", "metric": 0, "pref": "medium"},
     Route(IPV6, packed("2001:db8::4"), 128, (NextHop(4),), RouteType.LOCAL, TABLE_LOCAL)),
    ({"dst": "default", "dev": "eth0"}, Route(IPV6, bytes(16), 0, (NextHop(4),), table=TABLE_MAIN, metric=1024)),
]  # fmt: skip


@pytest.mark.parametrize(("printed", "route"), ROUTES, ids=[f"{n}" for n in range(len(ROUTES))])
def test_routes(printed, route):
    key = "route" if route.family == IPV4 else "route6"
    assert parse(**{key: [printed]}).routes == (route,)


def test_a_route_keeps_its_own_destination_beside_that_of_its_tunnel(tmp_path):
    text = ('{"dst": "10.31.0.0/16", "encap": "ip", "id": 4, "src": "0.0.0.0", "dst": "192.0.2.1", "ttl": 0, "tos": 4, '
            '"tos": "0x10", "gateway": "10.1.0.9", "dev": "eth0"}')  # fmt: skip
    file = tmp_path / "net.json"
    file.write_text(json.dumps(WHOLE)[:-1] + f', "route": [{text}]}}')
    (route,) = iproute.read(file).routes
    assert (route.destination, route.length, route.tos) == (packed("10.31.0.0"), 16, 0x10)


def test_neighbours_with_a_valid_mac():
    found = parse(neigh=[
        {"dst": "10.1.0.7", "dev": "eth0", "lladdr": "02:00:00:00:00:07", "state": ["STALE"]},
        {"dst": "10.1.0.8", "dev": "eth0", "state": ["FAILED"]},
        {"dst": "10.1.0.9", "dev": "eth0", "lladdr": "02:00:00:00:00:09", "state": ["FAILED"]},
        {"dst": "fe80::8", "dev": "eth0", "lladdr": "02:00:00:00:00:08", "router": None, "state": ["PERMANENT"]},
    ]).neighbours  # fmt: skip
    assert found == (
        Neighbour(4, packed("10.1.0.7"), bytes.fromhex("020000000007")),
        Neighbour(4, packed("fe80::8"), bytes.fromhex("020000000008")),
    )


OWN_RULES = [{"priority": 0, "src": "all", "table": "local"}, {"priority": 32766, "src": "all", "table": "main"},
             {"priority": 32767, "src": "all", "table": "253"}]  # fmt: skip


def test_rules_that_linux_makes():
    assert parse(rule=OWN_RULES, rule6=OWN_RULES[:2]) == parse()


RULES = [
    ({"priority": 100, "src": "10.0.0.0", "srclen": 8, "table": "100"},
     Rule(IPV4, 100, table=100, source=(packed("10.0.0.0"), 8))),
    ({"priority": 99, "not": None, "src": "all", "dst": "192.0.2.1", "iif": "eth0", "table": "main"},
     Rule(IPV4, 99, table=TABLE_MAIN, inverted=True, destination=(packed("192.0.2.1"), 32), iif=4)),
    ({"priority": 5, "src": "all", "fwmark": "0x3", "fwmask": "0x7", "table": "254", "suppress_prefixlen": 0},
     Rule(IPV4, 5, table=TABLE_MAIN, mark=3, mark_mask=7, suppress=0)),
    ({"priority": 5, "src": "all", "fwmark": "0x3", "oif": "tun0", "action": "prohibit"},
     Rule(IPV4, 5, RuleAction.PROHIBIT, mark=3, mark_mask=0xFFFFFFFF, oif=9)),
    ({"priority": 46, "src": "all", "tos": "0x10", "ipproto": "ipproto-17", "sport_start": 5, "sport_end": 9,
      "dport": 7, "action": "6"},
     Rule(IPV4, 46, RuleAction.BLACKHOLE, tos=0x10, protocol=17, source_ports=(5, 9), destination_ports=(7, 7))),
    ({"priority": 46, "src": "2001:db8::", "srclen": 32, "ipproto": "tcp", "table": "200", "protocol": "kernel"},
     Rule(IPV6, 46, table=200, source=(packed("2001:db8::"), 32), protocol=6)),
]  # fmt: skip


@pytest.mark.parametrize(("printed", "rule"), RULES, ids=[f"{n}" for n in range(len(RULES))])
def test_rules(printed, rule):
    key = "rule" if rule.family == IPV4 else "rule6"
    assert parse(**{key: [OWN_RULES[0], printed]}).rules == (Rule(rule.family, 0, table=TABLE_LOCAL), rule)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"route": 5}, "route must be a list, not 5"),
        ({"route": [5]}, "route must be a list of objects, not 5"),
        ({"routes": []}, "there is no 'routes'; there are link, addr, route, route6, neigh, netconf, rule, rule6"),
        ({"addr": [{"ifname": "x"}]}, "addr 0 (x): ifindex is missing"),
        ({"addr": [{"ifindex": 4}]}, "addr 0: ifname is missing"),
        ({"addr": [LO, LO]}, "two links have the ifindex 1"),
        ({"addr": [ETH | {"ifindex": -1}]}, "addr 0 (eth0): ifindex must be 0 to 2147483647, not -1"),
        ({"addr": [ETH | {"mtu": "wide"}]}, 'addr 0 (eth0): mtu must be 0 to 4294967295, not "wide"'),
        ({"addr": [ETH | {"address": "02:zz"}]}, "addr 0 (eth0): address '02:zz' is no MAC"),
        ({"addr": [ETH | {"addr_info": [{"family": "inet", "local": "10.1.0.300", "prefixlen": 24}]}]},
         "addr 0 (eth0), addr_info 0: local must be an address of IPv4, not '10.1.0.300'"),
        ({"addr": [ETH | {"addr_info": [{"family": "inet", "local": "10.1.0.3", "prefixlen": 33}]}]},
         "addr 0 (eth0), addr_info 0: prefixlen must be 0 to 32, not 33"),
        ({"route": [{"dst": "10.0.0.0/8", "dev": "eth7"}]},
         "route 0 (10.0.0.0/8): dev 'eth7' is no link there; there are lo, eth0, tun0"),
        ({"route": [{"dst": "10.0.0.0/8"}]}, "route 0 (10.0.0.0/8): dev is missing"),
        ({"route": [{"dst": "2001:db8::/32", "dev": "eth0"}]},
         "route 0 (2001:db8::/32): dst must be a prefix of IPv4, not '2001:db8::/32'"),
        ({"route": [{"dst": "10.0.0.0/8", "dev": "eth0", "gateway": "fe80::1"}]},
         "route 0 (10.0.0.0/8): gateway must be an address of IPv4, not 'fe80::1'"),
        ({"route": [{"dst": "10.0.0.0/8", "dev": "eth0", "type": "strange"}]},
         'route 0 (10.0.0.0/8): type must be 0 to 255, not "strange"'),
        ({"route": [{"dst": "10.0.0.0/8", "dev": "eth0", "type": 200}]},
         "route 0 (10.0.0.0/8): type must be a type of route, not 200"),
        ({"route": [{"dst": "10.0.0.0/8", "dev": "eth0", "table": "blue"}]},
         "route 0 (10.0.0.0/8): table 'blue' is a name of /etc/iproute2/rt_tables: let ip print its number (-N)"),
        ({"route": [{"dst": "10.0.0.0/8", "dev": "eth0", "tos": "lowdelay"}]},
         'route 0 (10.0.0.0/8): tos must be 0 to 255, not "lowdelay" (let ip print its number: -N)'),
        ({"route": [{"dst": "10.0.0.0/8", "nexthops": [{"dev": "eth0", "weight": 1000}]}]},
         "route 0 (10.0.0.0/8), nexthops 0: weight must be 0 to 256, not 1000"),
        ({"route6": [{"dst": "2001:db8::/32", "from": "2001::/16", "dev": "eth0"}]},
         "route6 0 (2001:db8::/32): from is a route for some sources alone, which the tables don't have"),
        ({"route6": [{"dst": "2001:db8::/32", "pref": "top", "dev": "eth0"}]},
         "route6 0 (2001:db8::/32): pref must be low, medium, high, not 'top'"),
        ({"neigh": [{"dst": "10.1.0", "dev": "eth0", "lladdr": "02:00:00:00:00:07", "state": ["STALE"]}]},
         "neigh 0 (10.1.0): dst must be an address of IPv4 or IPv6, not '10.1.0'"),
        ({"netconf": [{"family": "inet", "interface": "eth0", "forwarding": "on"}]},
         'netconf 0 (eth0): forwarding must be true or false, not "on"'),
        ({"rule": [*OWN_RULES, {"priority": 1000, "src": "all", "l3mdev": None}]},
         "rule 3 (all): l3mdev is a condition that the tables don't have"),
        ({"rule": [{"priority": 100, "src": "10.0.0.0", "srclen": 80, "table": "100"}]},
         "rule 0 (10.0.0.0): srclen must be 0 to 32, not 80"),
        ({"rule": [{"priority": 100, "src": "all", "action": "goto"}]},
         'rule 0 (all): action must be 0 to 255, not "goto"'),
        ({"rule": [{"priority": 100, "src": "all", "action": "2"}]},
         "rule 0 (all): action must be 1 (a table), 3 (nothing), 6 (blackhole), 7 (unreachable) or 8 (prohibit), "
         'not "2"'),
        ({"rule": [{"priority": 100, "src": "all", "fwmark": "red"}]},
         'rule 0 (all): fwmark must be 0 to 0xffffffff, not "red"'),
        ({"rule": [{"priority": 100, "src": "all", "ipproto": "sctp"}]},
         'rule 0 (all): ipproto must be a protocol\'s number, not "sctp"'),
        ({"rule6": [{"priority": 100, "src": "all", "tos": "0x10", "table": "main"}]},
         "rule6 0 (all): tos is a condition that the tables have for IPv4 alone"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(more, says):
    with pytest.raises(BpfnicError) as caught:
        parse(**more)
    assert str(caught.value) == f"net.json: {says}"


def test_files_that_are_none(tmp_path):
    for content, says in ((b"{", "line 1: "), (b"\xff", "no text"), (b"[]", "must be an object of link, addr"),
                          (b"{}", "addr is missing"), (None, "No such file")):  # fmt: skip
        file = tmp_path / "net.json"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(BpfnicError) as caught:
            iproute.read(file)
        assert str(caught.value).startswith(f"{file}: {says}") and "\n" not in str(caught.value)


def test_ports_are_links_by_their_ifindexes():
    network = parse()
    network.check_ports([4, 9])
    for ifindexes, says in (([1, 4], "port0 has ifindex 1, which is lo, the loopback link"),
                            ([4, 2], "port1 has ifindex 2, which is no link there")):  # fmt: skip
        with pytest.raises(BpfnicError) as caught:
            network.check_ports(ifindexes)
        assert str(caught.value) == f"net.json: {says}; there are 4 eth0, 9 tun0"


def comparable(network):
    """What of a network must be the same: not the names of links, that gateways are taken as they are, nor the
    neighbours that the kernel makes for its own multicast."""
    links = [replace(link, name="", addresses=tuple(sorted(link.addresses, key=str))) for link in network.links]
    routes = [replace(route, hops=tuple(replace(hop, onlink=False) for hop in route.hops)) for route in network.routes]
    neighbours = [each for each in network.neighbours if each.address[0] not in (0xE0, 0xFF)]
    return links, sorted(routes, key=repr), sorted(neighbours, key=repr), network.rules


@pytest.mark.linux
@pytest.mark.parametrize("seed", range(3))
def test_a_namespace_is_filled_with_a_network_and_read_back(seed):
    wanted = Drawn(random.Random(seed), routes=25, alive=1.0, rules=seed > 0).network
    namespace = Namespace([link.ifindex for link in wanted.links if not link.loopback])
    try:
        namespace.call(kernel_network.install, wanted)
        found = namespace.call(iproute.read, "netns")
    finally:
        namespace.close()
    for ours, theirs in zip(comparable(wanted), comparable(found), strict=True):
        assert theirs == ours


ROUTED = """
SEC("xdp") int routed(struct xdp_md *ctx)
{
    struct bpf_fib_lookup params = {.family = 2, .ifindex = ctx->ingress_ifindex, .ipv4_dst = bpf_htonl(0x0a090001)};
    return bpf_fib_lookup(ctx, &params, sizeof params, BPF_FIB_LOOKUP_SKIP_NEIGH) ? XDP_DROP
                                                                                   : bpf_redirect(params.ifindex, 0);
}
"""


@pytest.fixture
def written(tmp_path):
    """A file of what `ip` prints."""
    ends = [ETH | {"ifindex": 4}, ETH | {"ifindex": 5, "ifname": "eth1"}]
    route = {"dst": "10.9.0.0/16", "gateway": "10.1.0.9", "dev": "eth1", "flags": []}
    file = tmp_path / "net.json"
    file.write_text(json.dumps({"addr": [LO, *ends], "route": [route]}))
    return file


@pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])
def test_the_command_line_takes_a_network(run, source, written, backend):
    program = source("#include <bpf/bpf_endian.h>" + ROUTED)
    ports = ("--ifindex", "port0=4", "--ifindex", "port1=5")
    status, out, err = run(program, "--network", written, *ports, "--port", 0, "--json", "--backend", backend)
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report["packets"]["verdicts"] == {"XDP_REDIRECT": 420}
    assert [each["packets_out"] for each in report["interfaces"]] == [0, 420, 0]
    status, out, _ = run(program, *ports, "--json", "--backend", backend)
    assert json.loads(out)["packets"]["verdicts"] == {"XDP_DROP": 420}


def test_the_command_line_refuses_a_network_in_one_line(refused, source, written, tmp_path):
    program = source("#include <bpf/bpf_endian.h>" + ROUTED)
    said = refused(program, "--network", written)
    assert f"{written}: port0 has ifindex 1, which is lo, the loopback link; there are 4 eth0, 5 eth1" in said
    assert "none.json: No such file" in refused(program, "--network", tmp_path / "none.json")
    assert "ip -n none" in refused(program, "--network", "netns:none")


def test_the_command_line_prints_a_network(bpfnic, written):
    status, out, err = bpfnic("network", written)
    assert (status, err) == (0, "") and json.loads(out) == json.loads(written.read_text())
    status, out, err = bpfnic("network", written.with_name("none.json"))
    assert (status, out) == (2, "") and err.count("\n") == 1


@pytest.mark.linux
def test_a_namespace_is_printed_as_it_is_read(bpfnic):
    status, out, _ = bpfnic("network", "netns")
    assert status == 0 and iproute.parse(json.loads(out), "netns") == iproute.read("netns")


@pytest.mark.linux
def test_the_kernels_first_link_is_its_loopback_link():
    with bpfnic.Nic("linux", ports=1) as nic, pytest.raises(BpfnicError) as caught:
        nic.network = Network((Link(1, "eth0"),))
    assert str(caught.value) == "network: eth0 has ifindex 1; in the kernel 1 is the loopback link's"
