"""The golden NIC and the running kernel do the same with the programs that ship with the card: every packet of the
sample capture, its verdict, where it goes and as what, and every map afterwards. The golden NIC has one CPU here, as
the linux backend does, so that per-CPU maps compare value by value."""

import pytest

from bpfnic.host.nic import Nic

pytestmark = pytest.mark.linux

PROGRAMS = {"drop": "drop", "counter": "counter", "l2swap": "l2swap", "portfilter": "portfilter",
            "forward": "forward", "tailcall": "dispatch"}  # fmt: skip
"""The program to attach, by file."""
VARIABLES = {"portfilter": {"redirect_ifindex": 2}}
HOP = {"destination": [2, 0, 0, 0, 0, 9], "source": [2, 0, 0, 0, 0, 8], "ifindex": 2}
CONTENT = {
    "portfilter": {"rules": {23: 1, 53: 2, 80: 2, 5353: 1, 6379: 1}},
    "forward": {"next_hops": {1: HOP, 2: HOP | {"ifindex": 1}}},
}


def outcome(backend, name, object, arrivals):
    """What becomes of each packet, and the maps' contents afterwards."""
    object.rodata.update(VARIABLES.get(name, {}))
    with Nic(backend, threads=1, map_bytes=1 << 20) as nic:
        nic.load(object, PROGRAMS[name]).attach()
        for map_name, entries in CONTENT.get(name, {}).items():
            nic.maps[map_name].update(entries)
        packets = nic.run(arrivals).packets
        maps = {map_name: nic_map.device_map.dump() for map_name, nic_map in nic.maps.items()}
    return [(p.accepted, p.action, p.verdict, p.cause, p.egress, p.data) for p in packets], maps


@pytest.mark.parametrize("name", PROGRAMS)
def test_golden_does_what_the_kernel_does(firmware, arrivals, name):
    golden_packets, golden_maps = outcome("golden", name, firmware(name), arrivals)
    linux_packets, linux_maps = outcome("linux", name, firmware(name), arrivals)
    for number, (golden, linux) in enumerate(zip(golden_packets, linux_packets, strict=True)):
        assert golden == linux, f"packet {number}"
    assert golden_maps == linux_maps
