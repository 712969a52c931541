"""The golden NIC and the running kernel do the same with the programs that ship with the card: every packet of the
sample capture, its verdict, where it goes and as what, and every map afterwards. The golden NIC has one CPU here, as
the linux backend does, so that per-CPU maps compare value by value."""

import pytest

from bpfnic.host.nic import Nic
from tests.firmware.shipped import PROGRAMS, entries, opened, settled, start

pytestmark = pytest.mark.linux


def outcome(backend, name, arrivals):
    """What becomes of each packet, and the maps' contents afterwards."""
    object = opened(name)
    with Nic(backend, threads=1, map_bytes=1 << 20) as nic:
        start(nic, name, object, entries(name, object))
        packets = nic.run(arrivals).packets
        maps = {map_name: nic_map.device_map.dump() for map_name, nic_map in nic.maps.items()}
    return [(p.accepted, p.action, p.verdict, p.cause, p.egress, p.data) for p in packets], settled(name, maps)


@pytest.mark.parametrize("name", PROGRAMS)
def test_golden_does_what_the_kernel_does(arrivals, name):
    golden_packets, golden_maps = outcome("golden", name, arrivals)
    linux_packets, linux_maps = outcome("linux", name, arrivals)
    for number, (golden, linux) in enumerate(zip(golden_packets, linux_packets, strict=True)):
        assert golden == linux, f"packet {number}"
    assert golden_maps == linux_maps
