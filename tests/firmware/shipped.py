"""The programs that ship with the card, as tests run them on the sample capture."""

from bpfnic.host import rules
from bpfnic.host.check import MapContents
from bpfnic.host.nic import Nic
from bpfnic.host.nic import open as open_program
from bpfnic.host.object import Object
from tests.conftest import REPOSITORY

FIRMWARE = REPOSITORY / "firmware"

PROGRAMS = {
    "drop": "drop",
    "counter": "counter",
    "l2swap": "l2swap",
    "portfilter": "portfilter",
    "forward": "forward",
    "firewall": "firewall",
    "acl": "acl",
    "flows": "account",
    "sampler": "sampler",
    "tailchain": "ethernet",
    "vlanmap": "vlanmap",
    "router": "router",
    "ratelimit": "ratelimit",
    "dnsfilter": "dnsfilter",
    "tunnel": "tunnel",
    "balancer": "balancer",
    "nat": "nat",
    "icmp-too-big": "icmp_too_big",
    "tc-police": "police",
    "headers": "headers",
}
"""The program to attach, by file."""

PACKET_PATH = ["drop", "counter", "l2swap", "portfilter", "forward", "firewall", "acl", "flows", "sampler", "tailchain",
               "vlanmap"]  # fmt: skip
"""Those that are tried at every pace, and at several in lockstep; the others at one each, for the sake of time."""

ORDERED = {"ratelimit", "nat"}
"""Where it depends on the packets before it what becomes of one: several threads have another order each time."""

VARIABLES = {"portfilter": {"redirect_ifindex": 2}, "sampler": {"one_in": 16},
             "ratelimit": {"interval": 10**15, "burst": 5},
             "balancer": {"gateway_mac": "02:00:00:00:00:09", "port_mac": "02:00:00:00:00:08",
                          "source": "172.16.0.0", "source6": "100::"},
             "icmp-too-big": {"mtu": 600, "interval": 1, "burst": 10**6},
             "nat": {"inside_ifindex": 1, "outside_ifindex": 2, "address": "192.0.2.1",
                     "inside_mac": "02:00:00:00:00:1a", "outside_mac": "02:00:00:00:00:2a",
                     "gateway_mac": "02:00:00:00:00:2b"}}  # fmt: skip

VARYING = {
    ("flows", "flows"): slice(16, 32),
    ("tailchain", "current"): slice(0, 8),
    ("sampler", "samples"): slice(0, 80),
    ("ratelimit", "buckets"): slice(0, 8),
    ("balancer", "traffic"): slice(16, 24),
    ("icmp-too-big", ".bss"): slice(0, 8),
}
"""Bytes of values that another run may leave otherwise, by file and map: times, what a CPU noted of its last packet,
which packets were sampled, and how many CPUs met a connection that was new."""


def opened(name: str) -> Object:
    """A program's object, with its variables as the capture needs them."""
    object = open_program(FIRMWARE / "programs" / f"{name}.bpf.c")
    object.rodata.update(VARIABLES.get(name, {}))
    return object


def entries(name: str, object: Object) -> list[rules.Rules]:
    """What its maps hold for the capture: those of firmware/samples/NAME.json, where there is one."""
    path = FIRMWARE / "samples" / f"{name}.json"
    return [rules.read(path, object.maps)] if path.exists() else []


def start(nic: Nic, name: str, object: Object, content: list[rules.Rules]) -> None:
    """Its program on every port, with content in its maps."""
    nic.load(object, PROGRAMS[name]).attach()
    for each in content:
        rules.apply(each, {map_name: held.device_map for map_name, held in nic.maps.items()},
                    lambda program: nic.programs[program].loaded)  # fmt: skip


def settled(name: str, maps: MapContents) -> dict[str, dict[bytes, list[bytes]]]:
    """Contents of maps, with zeros for what varies from run to run."""
    def value(map_name: str, data: bytes) -> bytes:
        varying = VARYING.get((name, map_name), slice(0, 0))
        return data[: varying.start] + bytes(varying.stop - varying.start) + data[varying.stop :]

    return {map_name: {key: [value(map_name, data) for data in values] for key, values in contents.items()}
            for map_name, contents in maps.items()}  # fmt: skip
