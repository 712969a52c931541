"""Programs replaced under traffic: no packet is lost, and none sees two versions."""

import pytest

import bpfnic
from bpfnic.host import nic
from bpfnic.host.device import Arrival, DeviceOptions

STAMP = """
const volatile __u32 version;
SEC("xdp") int stamp(struct xdp_md *ctx)
{
    __u32 *data = (void *)(long)ctx->data;
    if (data + 16 > (__u32 *)(long)ctx->data_end)
        return XDP_ABORTED;
    data[3] = version;
    for (int i = 0; i < 3; i++)
        data[4 + i] ^= data[i];
    data[15] = version;
    return XDP_TX;
}
"""
BALANCED = ("DROPPED", "PASSED", "TRANSMITTED", "REDIRECTED", "ABORTED", "REFUSED_FULL", "REFUSED_LONG",
            "REFUSED_ERROR", "IN_FLIGHT")  # fmt: skip


class Swapper:
    """Replaces the program (and its constants, a map of its own) again and again."""

    def __init__(self, device, obj):
        self.device, self.obj = device, obj
        self.version = self.waits = 0
        self.loaded = self.constants = None
        self.entries = set()

    def swap(self):
        """One swap: load, attach to every port, give back the old one. Where the old ones are still in use by packets
        in flight, that is said and nothing changes."""
        device = self.device
        self.obj.rodata["version"] = self.version + 1
        try:
            constants = nic.create(device, self.obj.maps[".rodata"])
        except bpfnic.BpfnicError:
            self.waits += 1
            return
        try:
            loaded = device.load(self.obj.program(), {".rodata": constants})
        except bpfnic.BpfnicError:
            device.destroy_map(constants)
            self.waits += 1
            return
        for port in range(device.capabilities.ports):
            device.attach(port, loaded)
        if self.loaded:
            device.unload(self.loaded)
            device.destroy_map(self.constants)
        self.loaded, self.constants = loaded, constants
        self.entries.add(loaded.entry)
        self.version += 1


@pytest.mark.parametrize(
    ("backend", "frames", "swaps", "each_step"), [("golden", 4000, 60, 1), ("rtl", 60_000, 1000, 6)]
)
@pytest.mark.timeout(900)
def test_swaps_lose_no_packet_and_mix_no_version(source, backend, frames, swaps, each_step):
    obj = bpfnic.open(source(STAMP))
    device = nic.open_device(backend, DeviceOptions())
    swapper = Swapper(device, obj)
    swapper.swap()
    unbalanced = []

    def on_step(progress):
        for _ in range(each_step):
            if swapper.version <= swaps:
                swapper.swap()
        counters = device.counters()
        for interface, received in enumerate(counters["RECEIVED"]):
            if received != sum(counters[name][interface] for name in BALANCED):
                unbalanced.append((progress, counters))

    arrivals = [Arrival(i % 2, i.to_bytes(12, "big") + bytes(52)) for i in range(frames)]
    traffic = device.run(arrivals, on_step=on_step)
    assert swapper.version > swaps and unbalanced == []
    assert 1 < len(swapper.entries) <= 4  # places were used again
    versions = [int.from_bytes(packet.data[12:16], "little") for packet in traffic.packets]
    for number, packet in enumerate(traffic.packets):
        assert packet.action is bpfnic.XdpAction.XDP_TX and packet.egress == number % 2
        assert packet.data[:12] == arrivals[number].data[:12]
        assert packet.data[60:64] == packet.data[12:16]
    assert len(set(versions)) > swaps / 2 and 1 <= min(versions) and max(versions) <= swapper.version
    assert len(traffic.departures) == frames
    device.close()
