"""A network in the tables of a device: what is full is said, and packets under way see one state or the other."""

import random
from dataclasses import replace

import pytest

import bpfnic
from bpfnic.host import networktables
from bpfnic.host.device import Arrival
from bpfnic.host.network import IPV4, Link, Neighbour, Network, NextHop, Route, Rule
from bpfnic.spec.errors import BpfnicError
from tests.networks import Drawn, packed

LINKS = (Link(1, "eth0", bytes([2, 0, 0, 0, 0, 1])), Link(2, "eth1", bytes([2, 0, 0, 0, 0, 2])))
PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";

SEC("xdp") int mac_of(struct xdp_md *ctx) /* the last byte of the next hop's MAC; 0x100 + what fails */
{
	__u32 *words = (void *)(long)ctx->data;
	if ((void *)(words + 15) > (void *)(long)ctx->data_end)
		return 0x200;
	struct bpf_fib_lookup params = {.family = 2, .ifindex = ctx->ingress_ifindex, .ipv4_dst = words[4]};
	long failed = bpf_fib_lookup(ctx, &params, sizeof params, 0);
	return failed ? 0x100 + failed : params.dmac[5];
}

SEC("xdp") int mtu_of(struct xdp_md *ctx)
{
	__u32 mtu = 0;
	bpf_check_mtu(ctx, 0, &mtu, 0, 0);
	return mtu;
}
"""


def network(routes, **more):
    """Routes by their gateway's last byte, which is that of its MAC too; all by eth1."""
    gateways = {gateway for gateway in routes.values() if gateway is not None}
    return Network(
        LINKS,
        tuple(
            Route(IPV4, packed(prefix.split("/")[0]), int(prefix.split("/")[1]), (NextHop(2, bytes([10, 2, 0, hop])),))
            for prefix, hop in routes.items()
        ),
        tuple(Neighbour(2, bytes([10, 2, 0, hop]), bytes([2, 0, 0, 0, 0, hop])) for hop in sorted(gateways)),
        **more,
    )


def frame(address):
    return (bytes(16) + packed(address)).ljust(60, b"\0")


@pytest.fixture
def nic():
    with bpfnic.Nic("golden", threads=8) as nic:
        yield nic


def macs(nic, *addresses):
    return [packet.verdict for packet in nic.run([Arrival(0, frame(each)) for each in addresses]).packets]


def test_a_device_knows_its_ports_until_it_is_told_more(nic, build):
    nic.load(build(PROGRAM), "mtu_of").attach()
    assert (nic.network, macs(nic, "10.0.0.1")) == (None, [1500])
    nic.load(build(PROGRAM), "mac_of").attach()
    assert macs(nic, "10.0.0.1") == [0x100 + 5]  # BPF_FIB_LKUP_RET_FWD_DISABLED
    nic.set_ifindex(0, 77)
    assert macs(nic, "10.0.0.1") == [0x100 + 5]


def test_networks_replace_each_other(nic, build):
    nic.network = network({"10.0.0.0/8": 5, "10.1.0.0/16": 6})
    nic.load(build(PROGRAM), "mac_of").attach()
    assert macs(nic, "10.0.0.1", "10.1.0.1", "11.0.0.1") == [5, 6, 0x100 + 4]
    nic.network = network({"10.0.0.0/8": 6, "11.0.0.0/8": 7})
    assert macs(nic, "10.0.0.1", "10.1.0.1", "11.0.0.1") == [6, 6, 7]
    nic.network = replace(nic.network, links=(replace(LINKS[0], forwarding=frozenset()), LINKS[1]))
    assert macs(nic, "10.0.0.1") == [0x100 + 5]
    nic.network = network({})
    assert macs(nic, "10.0.0.1") == [0x100 + 4]


def test_random_networks_after_each_other_are_as_if_each_were_the_first(build):
    states = [Drawn(random.Random(seed), routes=20, rules=seed > 0) for seed in range(3)]
    frames = [frame_of for drawn in states for frame_of in (drawn.address(IPV4) for _ in range(12))]

    def run(nic):
        packets = nic.run([Arrival(0, (bytes(16) + each).ljust(60, b"\0")) for each in frames]).packets
        return [packet.verdict for packet in packets]

    def opened(first):
        nic = bpfnic.Nic("golden", threads=8)
        for port, ifindex in enumerate((2, 3)):
            nic.set_ifindex(port, ifindex)
        nic.network = first
        nic.load(build(PROGRAM), "mac_of").attach()
        return nic

    with opened(max((drawn.network for drawn in states), key=lambda each: len(each.routes))) as changing:
        for drawn in [*states, states[0]]:
            changing.network = drawn.network
            with opened(drawn.network) as fresh:
                assert run(changing) == run(fresh)


def test_routes_change_while_packets_run(nic, build):
    routes = {"10.0.0.0/8": 5, "10.1.0.0/16": 6}
    nic.network = network(routes)
    nic.load(build(PROGRAM), "mac_of").attach()
    turn = [0]

    def change(progress):
        turn[0] += 1
        nic.network = network({"10.0.0.0/8": 7 + turn[0] % 2, "10.1.0.0/16": 6})

    traffic = nic.run([Arrival(0, frame(each)) for each in ("10.0.0.1", "10.1.0.1") * 300], on_step=change)
    found = [packet.verdict for packet in traffic.packets]
    assert set(found[1::2]) == {6} and set(found[::2]) == {5, 7, 8} and turn[0] > 5
    # Places of ways were used again, or the table would have been full.
    assert nic.network.routes[0].hops[0].gateway[3] in (7, 8)
    for gateway in range(10, 150):
        nic.network = network({"10.0.0.0/8": gateway, "10.1.0.0/16": 6})
        assert macs(nic, "10.0.0.1") == [gateway]


def test_tables_are_as_large_as_the_first_network_needs_and_a_full_one_is_named(nic, build):
    many = {f"10.{n // 256}.{n % 256}.0/24": 5 for n in range(300)}
    nic.network = network(many, name="first")
    nic.load(build(PROGRAM), "mac_of").attach()
    assert macs(nic, "10.1.43.1", "10.1.44.1") == [5, 0x100 + 4]
    more = many | {f"192.0.{n}.0/24": 6 for n in range(77)}  # a quarter more than the first would be right
    with pytest.raises(BpfnicError) as caught:
        nic.network = network(more, name="second")
    says = "second: 377 prefixes of IPv4, 2 more than the device's table 'routes4' has room for"
    assert str(caught.value) == says
    assert nic.network.name == "first" and macs(nic, "10.1.43.1", "192.0.2.1") == [5, 0x100 + 4]
    for name, wrong in (
        ("links", replace(network({}), links=tuple(Link(n, f"eth{n}") for n in range(1, 20)))),
        ("neighbours", replace(network({}), neighbours=tuple(Neighbour(1, bytes([9, 9, 9, n]), bytes(6))
                                                             for n in range(129)))),
        ("rules", replace(network({}), rules=tuple(Rule(IPV4, n, table=n) for n in range(33)))),
        ("ways", network({f"10.{n}.0.0/16": n for n in range(129)})),
    ):  # fmt: skip
        with pytest.raises(BpfnicError, match=f"more than the device's table '{name}' has room for"):
            nic.network = wrong
    assert macs(nic, "10.1.43.1") == [5]


def test_too_many_ways_for_one_prefix(nic):
    hops = tuple(NextHop(2, bytes([10, 2, 0, n])) for n in range(networktables.MOST_WAYS + 1))
    with pytest.raises(BpfnicError, match="65 ways for one prefix .length 8 in table 254., 1 more than"):
        nic.network = Network(LINKS, (Route(IPV4, packed("10.0.0.0"), 8, hops),))


def test_too_many_rules(nic):
    with pytest.raises(BpfnicError, match="network: 65 rules of IPv4, 1 more than bpf_fib_lookup looks at"):
        nic.network = Network(LINKS, rules=tuple(Rule(IPV4, n, table=n) for n in range(networktables.MOST_RULES + 1)))


def test_a_port_must_be_a_link(nic):
    with pytest.raises(BpfnicError, match="network: port1 has ifindex 2, which is no link there; there are 1 eth0"):
        nic.network = Network(LINKS[:1])


def test_a_map_memory_that_is_full_is_named(build):
    many = network({f"10.{n // 256}.{n % 256}.0/24": 5 for n in range(4000)})
    with bpfnic.Nic("golden", threads=8, map_bytes=64 * 1024) as nic:
        nic.network = many
        with pytest.raises(BpfnicError, match=r"map routes4 \(LPM_TRIE\): max_entries 5000 takes \d+ bytes"):
            nic.load(build(PROGRAM), "mac_of")
