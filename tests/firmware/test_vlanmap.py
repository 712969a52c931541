"""firmware/programs/vlanmap.bpf.c does what its comment says: on golden, rtl and in the running kernel."""

import json
from collections import Counter

import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether

from bpfnic.host.device import Arrival
from tests.firmware.frames import ethernet, vlans
from tests.firmware.shipped import entries, opened, start

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

TABLES = {0: "untagged", 42: "vlan42", 100: "vlan100"}


def test_the_tables_of_the_sample_capture(nic, samples, arrivals):
    object = opened("vlanmap")
    start(nic, "vlanmap", object, entries("vlanmap", object))
    tables = json.loads((samples / "vlanmap.json").read_text())
    sent, actions = Counter(), Counter()
    for arrival, packet in zip(arrivals, nic.run(arrivals).packets, strict=True):
        table = TABLES[next(iter(vlans(arrival.data)), 0)]
        station = Ether(arrival.data).dst
        behind = tables[table].get(station)
        if behind is None:
            expected = ("XDP_PASS", 2)
        elif behind["ifindex"] == arrival.interface + 1:
            expected = ("XDP_DROP", None)
        else:
            expected = ("XDP_REDIRECT", behind["ifindex"] - 1)
            sent[table, station] += 1
        assert (packet.action.name, packet.egress) == expected
        actions[packet.action.name] += 1
    assert set(actions) == {"XDP_PASS", "XDP_DROP", "XDP_REDIRECT"}
    for table in TABLES.values():
        assert {station: value["packets"] for station, value in nic.maps[table].items()} == {
            station: sent[table, station] for station in tables[table]
        }


STATION = "02:00:00:00:00:77"


def test_which_table_counts(nic):
    """Of several tags the outermost; priority bits don't matter; where there is no table, that of VLAN 0."""
    start(nic, "vlanmap", opened("vlanmap"), [])
    run, outer = nic.programs["vlanmap"].test_run, nic.maps["vlans"]
    nic.maps["vlan42"][STATION] = {"ifindex": 2}

    def egress(*ids, station=STATION):
        return run(ethernet(IP(), *ids, destination=station)).egress

    assert [egress(42), egress(42, 7)] == ["port1"] * 2
    assert [egress(7, 42), egress(7), egress(), egress(100)] == ["host"] * 4
    assert egress(42, station="02:00:00:00:00:78") == "host"
    nic.maps["untagged"][STATION] = {"ifindex": 2}
    assert [egress(7, 42), egress(7), egress(), egress(0), egress(100)] == ["port1"] * 4 + ["host"]
    del outer[0]
    assert [egress(7), egress(), egress(42)] == ["host", "host", "port1"]
    frame = bytearray(ethernet(IP(), 42, destination=STATION))
    frame[14] |= 0xF0  # priority 7, and may be dropped
    assert run(bytes(frame)).egress == "port1"
    assert run(ethernet(IP(), 42, destination=STATION)[:15]).egress == "host"  # the tag is cut off


def test_a_table_comes_and_goes(nic):
    start(nic, "vlanmap", opened("vlanmap"), [])
    outer = nic.maps["vlans"]
    table = outer.new()
    table[STATION] = {"ifindex": 2}
    arrivals = [Arrival(number % 2, ethernet(IP(), 7, destination=STATION)) for number in range(40)]

    def actions():
        return Counter(packet.action.name for packet in nic.run(arrivals).packets)

    assert actions() == {"XDP_PASS": 40}
    outer[7] = table
    assert actions() == {"XDP_REDIRECT": 20, "XDP_DROP": 20}
    assert table[STATION] == {"ifindex": 2, "packets": 20}
    del outer[7]
    outer.free(table)
    assert actions() == {"XDP_PASS": 40}
