"""The programs that ship with the card: that each compiles, fits what the engine executes, and does in the running
kernel what its comment says. That the engines agree with each other is checked elsewhere."""

import struct

import pytest

from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.image import device_image
from bpfnic.host.linux.device import open_device
from bpfnic.host.object import DeviceAddresses
from bpfnic.host.runtime import linked
from bpfnic.host.structure import Limits
from bpfnic.spec import engine
from bpfnic.spec.addresses import MAP_VALUES, map_handle
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import ProgramType, XdpAction
from tests.firmware.shipped import PROGRAMS

NAMES = {name: {PROGRAMS[name]} for name in PROGRAMS}
NAMES["tc-police"] |= {"rewrite"}
NAMES["tailchain"] |= {"vlan", "ipv4", "ipv6", "tcp", "udp", "icmp", "account", "verdict"}
"""The programs of each file."""
TYPES = {"tc-police": ("tc", ProgramType.SCHED_CLS), "headers": ("socket", ProgramType.SOCKET_FILTER)}
FRAME = 6  # instructions around a program whose context is an skb
LIMITS = Limits(2048, lambda row: row.group in engine.GROUPS, engine.HELPERS)

MAPS = {
    "drop": {},
    "counter": {"by_protocol": (MapType.ARRAY, 4, 16, 256), "total": (MapType.PERCPU_ARRAY, 4, 16, 1)},
    "l2swap": {},
    "portfilter": {
        "rules": (MapType.ARRAY, 4, 1, 65536),
        "packets": (MapType.PERCPU_ARRAY, 4, 8, 4),
        ".rodata": (MapType.ARRAY, 4, 4, 1),
    },
    "forward": {"next_hops": (MapType.ARRAY, 4, 16, 16)},
    "firewall": {
        "rules": (MapType.HASH, 16, 24, 1024),
        "rules6": (MapType.HASH, 40, 24, 128),
        "verdicts": (MapType.PERCPU_ARRAY, 4, 8, 5),
        ".rodata": (MapType.ARRAY, 4, 4, 1),
    },
    "acl": {
        "sources": (MapType.LPM_TRIE, 8, 8, 256),
        "destinations": (MapType.LPM_TRIE, 8, 8, 256),
        "sources6": (MapType.LPM_TRIE, 20, 8, 256),
        "destinations6": (MapType.LPM_TRIE, 20, 8, 256),
        "traffic": (MapType.PERCPU_ARRAY, 4, 16, 64),
    },
    "flows": {"flows": (MapType.LRU_HASH, 40, 32, 512)},
    "sampler": {
        "samples": (MapType.RINGBUF, 0, 0, 16384),
        ".rodata": (MapType.ARRAY, 4, 4, 1),
        ".bss": (MapType.ARRAY, 4, 8, 1),
    },
    "tailchain": {
        "stages": (MapType.PROG_ARRAY, 4, 4, 8),
        "current": (MapType.PERCPU_ARRAY, 4, 8, 1),
        "traffic": (MapType.PERCPU_ARRAY, 4, 16, 7),
        "policy": (MapType.ARRAY, 4, 4, 7),
    },
    "vlanmap": {
        "vlans": (MapType.HASH_OF_MAPS, 4, 4, 64),
        "untagged": (MapType.HASH, 6, 8, 64),
        "vlan42": (MapType.HASH, 6, 8, 64),
        "vlan100": (MapType.HASH, 6, 8, 64),
    },
    "headers": {"traffic": (MapType.PERCPU_ARRAY, 4, 24, 257), ".rodata": (MapType.ARRAY, 4, 4, 1)},
    "ratelimit": {".rodata": (MapType.ARRAY, 4, 12, 1), "buckets": (MapType.LRU_HASH, 16, 16, 512)},
    "dnsfilter": {"domains": (MapType.LPM_TRIE, 64, 8, 256)},
    "tunnel": {
        "ends": (MapType.HASH, 12, 4, 64),
        "routes": (MapType.LPM_TRIE, 8, 4, 256),
        "routes6": (MapType.LPM_TRIE, 20, 4, 256),
        "tunnels": (MapType.ARRAY, 4, 32, 64),
        "traffic": (MapType.PERCPU_ARRAY, 4, 32, 64),
    },
    "balancer": {
        "services": (MapType.HASH, 20, 8, 16),
        "rings": (MapType.ARRAY, 4, 4, 16 * 251),
        "servers": (MapType.ARRAY, 4, 16, 64),
        "connections": (MapType.LRU_HASH, 40, 4, 512),
        "traffic": (MapType.PERCPU_ARRAY, 4, 24, 16),
        "served": (MapType.PERCPU_ARRAY, 4, 16, 64),
        ".rodata": (MapType.ARRAY, 4, 32, 1),
    },
    "nat": {
        "outbound": (MapType.LRU_HASH, 16, 12, 512),
        "inbound": (MapType.LRU_HASH, 16, 12, 512),
        ".rodata": (MapType.ARRAY, 4, 32, 1),
    },
    "tc-police": {
        "services": (MapType.HASH, 4, 4, 256),
        "classes": (MapType.ARRAY, 4, 32, 16),
        "stages": (MapType.PROG_ARRAY, 4, 4, 1),
    },
    "icmp-too-big": {".rodata": (MapType.ARRAY, 4, 20, 1), ".bss": (MapType.ARRAY, 4, 16, 1)},
    "router": {
        "routes": (MapType.LPM_TRIE, 8, 8, 256),
        "routes6": (MapType.LPM_TRIE, 20, 20, 256),
        "neighbours": (MapType.HASH, 4, 6, 256),
        "neighbours6": (MapType.HASH, 16, 6, 256),
        "ports": (MapType.ARRAY, 4, 8, 16),
        "traffic": (MapType.PERCPU_ARRAY, 4, 16, 16),
        "interfaces": (MapType.DEVMAP, 4, 4, 16),
        ".rodata": (MapType.ARRAY, 4, 1, 1),
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_the_smallest_device(firmware, name):
    object = firmware(name)
    assert set(object.programs) == NAMES[name]
    for program in object.programs.values():
        assert (program.section, program.type) == TYPES.get(name, ("xdp", ProgramType.XDP))
        whole = program.with_firmware(linked(program.type, engine.HELPERS))
        maps = [*object.maps, *whole.hidden]
        addresses = DeviceAddresses({map: map_handle(i) for i, map in enumerate(maps)}, dict.fromkeys(maps, MAP_VALUES))
        image = device_image(whole, addresses, LIMITS)
        lines = [whole.line(slot) for slot in range(len(image))]
        assert lines.count(None) == (FRAME if name in TYPES else 0)


@pytest.mark.parametrize("name", NAMES)
def test_its_maps_are_as_documented(firmware, name):
    maps = firmware(name).maps.values()
    assert {m.name: (m.type, m.key_size, m.value_size, m.max_entries) for m in maps} == MAPS[name]


# What they do, in the running kernel.

DESTINATION, SOURCE = bytes.fromhex("02aabbccdd01"), bytes.fromhex("020102030405")
IPV4, IPV6, ARP, VLAN, QINQ = 0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8
ICMP, TCP, UDP, SCTP = 1, 6, 17, 132
HOP, ROUTING, FRAGMENT, OPTIONS = 0, 43, 44, 60


def ethernet(ethertype, payload, *tags):
    tagged = b"".join(struct.pack(">HH", tag, 5) for tag in tags)
    return (DESTINATION + SOURCE + tagged + struct.pack(">H", ethertype) + payload).ljust(60, b"\0")


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol, payload, *, ttl=64, fragment=0, options=b"", destination=0x0A000007, identification=0):
    words = 5 + len(options) // 4
    length = 4 * words + len(payload)
    head = struct.pack(">BBHHHBBHII", 0x40 | words, 0, length, identification, fragment, ttl, protocol, 0, 0x0A000001,
                       destination) + options  # fmt: skip
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ipv6(protocol, payload):
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + bytes(32) + payload


def transport(port):
    return struct.pack(">HHI", 40000, port, 0) + bytes(12)


@pytest.fixture
def nic():
    device = open_device(DeviceOptions(ports=2))
    yield device
    device.close()


def start(nic, object):
    maps = {name: nic.create_map(definition) for name, definition in object.maps.items()}
    for name, definition in object.maps.items():
        if definition.variables is not None:
            maps[name].update(bytes(4), [bytes(definition.variables.content)])
    nic.attach(0, nic.load(object.program(), maps))
    return maps


def run(nic, *frames):
    return nic.run([Arrival(0, frame) for frame in frames]).packets


def value(map, key):
    return map.definition.format_value(map.lookup(map.definition.parse_key(key))[0])


@pytest.mark.linux
def test_drop(nic, firmware):
    start(nic, firmware("drop"))
    assert [packet.action for packet in run(nic, ethernet(IPV4, ipv4(UDP, b"")), bytes(14))] == [XdpAction.XDP_DROP] * 2


@pytest.mark.linux
def test_counter(nic, firmware):
    maps = start(nic, firmware("counter"))
    frames = [ethernet(IPV4, ipv4(UDP, bytes(50))), ethernet(IPV4, ipv4(TCP, b"")), ethernet(IPV6, ipv6(UDP, b"")),
              ethernet(ARP, bytes(28)), ethernet(IPV4, b"")[:20]]  # fmt: skip
    assert {packet.action for packet in run(nic, *frames)} == {XdpAction.XDP_PASS}
    sizes = [len(frame) for frame in frames]
    assert value(maps["by_protocol"], UDP) == {"packets": 2, "bytes": sizes[0] + sizes[2]}
    assert value(maps["by_protocol"], TCP) == {"packets": 1, "bytes": sizes[1]}
    assert value(maps["by_protocol"], 255) == {"packets": 2, "bytes": sizes[3] + sizes[4]}
    assert value(maps["total"], 0) == {"packets": 5, "bytes": sum(sizes)}


@pytest.mark.linux
def test_l2swap(nic, firmware):
    start(nic, firmware("l2swap"))
    frame = ethernet(IPV4, ipv4(UDP, b"hello"))
    (packet,) = run(nic, frame)
    assert (packet.action, packet.egress) == (XdpAction.XDP_TX, 0)
    assert packet.data == SOURCE + DESTINATION + frame[12:]


PASSED, DROPPED, REDIRECTED, NO_PORT = range(4)
EXTENSION = {
    "hop-by-hop": (HOP, struct.pack(">BB6x", OPTIONS, 0)),
    "long options": (OPTIONS, struct.pack(">BB14x", ROUTING, 1)),
    "routing": (ROUTING, struct.pack(">BB6x", FRAGMENT, 0)),
    "first fragment": (FRAGMENT, struct.pack(">BBHI", TCP, 0, 1, 7)),
}
CHAIN = b"".join(header for _, header in EXTENSION.values())


@pytest.mark.linux
@pytest.mark.parametrize(
    ("frame", "counter"),
    [
        (ethernet(IPV4, ipv4(TCP, transport(80))), DROPPED),
        (ethernet(IPV4, ipv4(TCP, transport(81))), PASSED),
        (ethernet(IPV4, ipv4(UDP, transport(0xFFFF))), REDIRECTED),
        (ethernet(IPV4, ipv4(SCTP, transport(0))), DROPPED),
        (ethernet(IPV4, ipv4(TCP, transport(80), options=bytes(40))), DROPPED),
        (ethernet(IPV4, ipv4(TCP, transport(80)), VLAN), DROPPED),
        (ethernet(IPV4, ipv4(TCP, transport(80)), QINQ, VLAN), DROPPED),
        (ethernet(IPV4, ipv4(TCP, transport(80)), VLAN, VLAN, VLAN), NO_PORT),
        (ethernet(IPV4, ipv4(TCP, transport(80), fragment=0x2000)), DROPPED),  # the first of several
        (ethernet(IPV4, ipv4(TCP, transport(80), fragment=0x2001)), NO_PORT),
        (ethernet(IPV4, ipv4(ICMP, transport(80))), NO_PORT),
        (ethernet(IPV4, b"\x44" + ipv4(TCP, transport(80))[1:]), NO_PORT),
        (ethernet(IPV6, ipv6(TCP, transport(80))), DROPPED),
        (ethernet(IPV6, ipv6(UDP, transport(81))), PASSED),
        (ethernet(IPV6, ipv6(HOP, CHAIN + transport(80)), VLAN), DROPPED),
        (ethernet(IPV6, ipv6(OPTIONS, struct.pack(">BB6x", HOP, 0) + CHAIN + transport(80))), NO_PORT),  # five of them
        (ethernet(IPV6, ipv6(FRAGMENT, struct.pack(">BBHI", TCP, 0, 8, 7) + transport(80))), NO_PORT),
        (ethernet(IPV6, ipv6(OPTIONS, struct.pack(">BB", TCP, 255) + bytes(20))), NO_PORT),
        (ethernet(ARP, bytes(46)), NO_PORT),
        (ethernet(IPV4, ipv4(TCP, transport(80)))[:37], NO_PORT),
        (ethernet(IPV6, b"")[:16], NO_PORT),
    ],
)
def test_portfilter(nic, firmware, frame, counter):
    object = firmware("portfilter")
    object.rodata["redirect_ifindex"] = 2
    maps = start(nic, object)
    rules = object.maps["rules"]
    for port, verdict in ((80, 1), (0, 1), (0xFFFF, 2)):
        maps["rules"].update(rules.parse_key(port), [rules.parse_value(verdict)])
    (packet,) = run(nic, frame)
    action = {DROPPED: XdpAction.XDP_DROP, REDIRECTED: XdpAction.XDP_REDIRECT}.get(counter, XdpAction.XDP_PASS)
    assert (packet.action, packet.egress) == (action, {DROPPED: None, REDIRECTED: 1}.get(counter, 2))
    assert [value(maps["packets"], key) for key in range(4)] == [int(key == counter) for key in range(4)]


@pytest.mark.linux
def test_portfilter_drops_what_it_has_nowhere_to_redirect_to(nic, firmware):
    object = firmware("portfilter")
    maps = start(nic, object)
    maps["rules"].update(struct.pack("<I", 9), [b"\2"])
    assert run(nic, ethernet(IPV4, ipv4(UDP, transport(9))))[0].action == XdpAction.XDP_DROP


HOP_7 = {"destination": "02:00:00:00:00:07", "source": "02:00:00:00:01:00", "ifindex": 2}


@pytest.mark.linux
def test_forward(nic, firmware):
    object = firmware("forward")
    maps = start(nic, object)
    hops = object.maps["next_hops"]
    maps["next_hops"].update(hops.parse_key(7), [hops.parse_value(HOP_7)])
    assert value(maps["next_hops"], 7) == HOP_7

    # Checksums all over, and each one near the end of 16 bits, where the carry and the second zero are.
    every = [ethernet(IPV4, ipv4(UDP, transport(9), identification=n)) for n in range(65536)]
    frames = every[::97] + [frame for frame in every if frame[24] >= 0xFE]
    frames += [ethernet(IPV4, ipv4(UDP, transport(9), ttl=ttl)) for ttl in (2, 255)]
    assert any(frame[24:26] == b"\xfe\xff" for frame in frames)
    for frame, packet in zip(frames, run(nic, *frames), strict=True):
        assert (packet.action, packet.egress) == (XdpAction.XDP_REDIRECT, 1)
        sent = packet.data
        assert sent[:14] == bytes.fromhex("020000000007 020000000100 0800")
        assert sent[22] == frame[22] - 1
        afresh = sent[14:24] + bytes(2) + sent[26:34]
        assert sent[24:26] == struct.pack(">H", checksum(afresh))
        assert sent[:22] + sent[23:24] + sent[26:] == sent[:14] + frame[14:22] + frame[23:24] + frame[26:]


@pytest.mark.linux
@pytest.mark.parametrize(
    "frame",
    [
        ethernet(IPV4, ipv4(UDP, transport(9), ttl=1)),
        ethernet(IPV4, ipv4(UDP, transport(9), ttl=0)),
        ethernet(IPV4, ipv4(UDP, transport(9), destination=0x0A000008)),
        ethernet(IPV6, ipv6(UDP, transport(9))),
        ethernet(IPV4, b"")[:33],
    ],
)
def test_forward_leaves_to_the_host_what_it_cant_route(nic, firmware, frame):
    object = firmware("forward")
    maps = start(nic, object)
    hops = object.maps["next_hops"]
    maps["next_hops"].update(hops.parse_key(7), [hops.parse_value(HOP_7)])
    (packet,) = run(nic, frame)
    assert (packet.action, packet.egress, packet.data) == (XdpAction.XDP_PASS, 2, frame)
