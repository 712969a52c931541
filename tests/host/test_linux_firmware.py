"""The programs that ship with the card, in the running kernel on the sample capture. What each should do is worked out
here from the packets as scapy reads them."""

import json
import struct
from collections import Counter

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import Ether
from scapy.utils import checksum

from bpfnic.host.device import DeviceOptions
from bpfnic.host.linux.device import open_device
from bpfnic.spec.programs import XdpAction

pytestmark = pytest.mark.linux


@pytest.fixture
def device():
    device = open_device(DeviceOptions(ports=2))
    yield device
    device.close()


def load(device, object, content=None):
    """Loads the object's program for both ports, with `content` (map name -> key number -> value) in its maps; the maps
    by name."""
    maps = {name: device.create_map(definition) for name, definition in object.maps.items()}
    for name, definition in object.maps.items():
        if definition.variables is not None:
            maps[name].update(bytes(4), [bytes(definition.variables.content)])
    for name, entries in (content or {}).items():
        for key, value in entries.items():
            maps[name].update(struct.pack("=I", key), [object.maps[name].parse_value(value)])
    loaded = device.load(object.program(), maps)
    for port in range(2):
        device.attach(port, loaded)
    return maps


def test_drop(device, firmware, arrivals):
    load(device, firmware("drop"))
    traffic = device.run(arrivals)
    assert {packet.action for packet in traffic.packets} == {XdpAction.XDP_DROP}
    assert traffic.departures == []


def test_counter(device, firmware, arrivals):
    object = firmware("counter")
    maps = load(device, object)
    traffic = device.run(arrivals)
    assert [(out.egress, out.data) for out in traffic.departures] == [(2, arrival.data) for arrival in arrivals]
    packets, sizes = Counter(), Counter()
    for arrival in arrivals:
        inner = Ether(arrival.data).payload
        protocol = inner.proto if isinstance(inner, IP) else inner.nh if isinstance(inner, IPv6) else 255
        packets[protocol] += 1
        sizes[protocol] += len(arrival.data)
    counted = {
        struct.unpack("=I", key)[0]: object.maps["by_protocol"].format_value(values[0])
        for key, values in maps["by_protocol"].dump().items()
        if any(values[0])
    }
    assert counted == {key: {"packets": packets[key], "bytes": sizes[key]} for key in packets}
    total = {"packets": len(arrivals), "bytes": sum(sizes.values())}
    assert object.maps["total"].format_value(maps["total"].lookup(bytes(4))[0]) == total


def test_l2swap(device, firmware, arrivals):
    load(device, firmware("l2swap"))
    departures = device.run(arrivals).departures
    assert [(out.egress, out.data) for out in departures] == [
        (arrival.interface, arrival.data[6:12] + arrival.data[:6] + arrival.data[12:]) for arrival in arrivals
    ]


def destination_port(data):
    """Of the first transport header, unless it is in another fragment."""
    frame = Ether(data)
    if (IP in frame and frame[IP].frag) or (IPv6ExtHdrFragment in frame and frame[IPv6ExtHdrFragment].offset):
        return None
    if "ICMP" in frame or "ICMPv6 Destination Unreachable" in frame:  # scapy reads the packet that they quote too
        return None
    return next((frame[layer].dport for layer in (TCP, UDP) if layer in frame), None)


def test_portfilter(device, firmware, samples, arrivals):
    rules = {int(port): rule for port, rule in json.loads((samples / "portfilter.json").read_text())["rules"].items()}
    object = firmware("portfilter")
    object.rodata["redirect_ifindex"] = 2
    maps = load(device, object, {"rules": rules})
    packets = device.run(arrivals).packets
    expected = []
    for arrival in arrivals:
        rule = rules.get(destination_port(arrival.data), 0)
        expected.append((XdpAction.XDP_PASS, XdpAction.XDP_DROP, XdpAction.XDP_REDIRECT)[rule])
    assert [packet.action for packet in packets] == expected
    egress = {XdpAction.XDP_PASS: 2, XdpAction.XDP_DROP: None, XdpAction.XDP_REDIRECT: 1}
    assert [packet.egress for packet in packets] == [egress[action] for action in expected]
    assert all(packet.data in (None, arrival.data) for packet, arrival in zip(packets, arrivals, strict=True))
    without = sum(destination_port(arrival.data) is None for arrival in arrivals)
    counts = [
        expected.count(XdpAction.XDP_PASS) - without,
        expected.count(XdpAction.XDP_DROP),
        expected.count(XdpAction.XDP_REDIRECT),
        without,
    ]
    assert [struct.unpack("=Q", values[0])[0] for values in maps["packets"].dump().values()] == counts
    assert all(counts)  # the capture has something for each


def test_forward(device, firmware, arrivals):
    """Addresses that end in 2 (the server's) have a next hop, those that end in 1 have none."""
    hop = {"destination": list(range(6)), "source": list(range(6, 12)), "ifindex": 1}
    load(device, firmware("forward"), {"next_hops": {2: hop}})
    routed = 0
    for arrival, packet in zip(arrivals, device.run(arrivals).packets, strict=True):
        ip = Ether(arrival.data).payload
        if not isinstance(ip, IP) or not ip.dst.endswith(".2"):
            assert (packet.action, packet.egress, packet.data) == (XdpAction.XDP_PASS, 2, arrival.data)
            continue
        routed += 1
        assert (packet.action, packet.egress) == (XdpAction.XDP_REDIRECT, 0)
        header = packet.data[14 : 14 + 4 * ip.ihl]
        assert packet.data[:14] == bytes(range(12)) + arrival.data[12:14]
        assert (header[8], checksum(header)) == (ip.ttl - 1, 0)
        unchanged = [0, 1, 2, 3, 4, 5, 6, 7, 9, *range(12, 4 * ip.ihl)]
        assert [header[i] for i in unchanged] == [arrival.data[14 + i] for i in unchanged]
        assert packet.data[14 + 4 * ip.ihl :] == arrival.data[14 + 4 * ip.ihl :]
    assert routed > 30
