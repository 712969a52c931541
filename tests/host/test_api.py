"""The Python API: its doctests, and what they don't show."""

import doctest
import json
import subprocess
import sys

import pytest

import bpfnic
from bpfnic.host import nic

PROGRAMS = """
struct pair { __u32 left, right; };
const volatile __u32 step = 1;
__u32 seen = 5;
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, struct pair); }
    pairs SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); }
    each SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, struct pair); __type(value, __u16); }
    table SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1 << 20); __type(key, __u32); __type(value, __u64); }
    huge SEC(".maps");

SEC("xdp") int count(struct xdp_md *ctx)
{
    __u32 key = ctx->ingress_ifindex & 3;
    struct pair *pair = bpf_map_lookup_elem(&pairs, &key);
    if (pair)
        pair->left += step;
    seen++;
    return XDP_DROP;
}
SEC("xdp") int bounce(struct xdp_md *ctx)
{
    __u32 key = 1;
    struct pair *pair = bpf_map_lookup_elem(&pairs, &key), one = {1, 2};
    __u64 *mine = bpf_map_lookup_elem(&each, &key);
    __u16 *known = bpf_map_lookup_elem(&table, &one);
    if (pair)
        pair->right++;
    if (mine)
        ++*mine;
    return known ? *known : XDP_TX;
}
SEC("xdp") int too_much(struct xdp_md *ctx)
{
    __u32 key = 0;
    return bpf_map_lookup_elem(&pairs, &key) && bpf_map_lookup_elem(&huge, &key) ? XDP_PASS : XDP_DROP;
}
SEC("xdp") int pid(struct xdp_md *ctx) { return bpf_get_current_pid_tgid() + step; }
"""
FRAME = bytes(64)


@pytest.fixture
def obj(source):
    return bpfnic.open(source(PROGRAMS))


@pytest.fixture
def card():
    with bpfnic.Nic("golden", threads=8) as card:
        yield card


def test_the_documented_examples_are_true():
    """Those of the package; `ping` there is a whole frame, and every output is what Python prints."""
    assert doctest.testmod(bpfnic, optionflags=doctest.IGNORE_EXCEPTION_DETAIL).attempted > 15
    assert doctest.testmod(bpfnic).failed == 0


def test_a_nic_of_a_device_that_is_open(obj):
    device = nic.open_device("golden", bpfnic.DeviceOptions(threads=8, ports=3))
    with bpfnic.Nic(device) as card:
        assert card.device is device and card.ports == 3
        assert card.load(obj, "bounce").test_run(FRAME, port=2).egress == "port2"


def test_importing_the_package_imports_nothing_else():
    code = "import sys, json, bpfnic; print(json.dumps([name for name in sys.modules if name.startswith('bpfnic.')]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_every_public_name_is_there_and_no_other():
    assert {name: getattr(bpfnic, name) is not None for name in bpfnic.__all__} == dict.fromkeys(bpfnic.__all__, True)
    with pytest.raises(AttributeError, match="module 'bpfnic' has no attribute 'close'"):
        bpfnic.close  # noqa: B018


def test_variables_are_set_before_and_read_after(obj, card):
    obj.rodata["step"] = 7
    count = card.load(obj, "count")
    assert dict(card.maps[".rodata"]) == {"step": 7} and card.maps[".data"]["seen"] == 5
    assert count.test_run(FRAME).action is bpfnic.XdpAction.XDP_DROP
    assert card.maps["pairs"][1] == {"left": 7, "right": 0} and card.maps[".data"]["seen"] == 6
    card.maps[".data"]["seen"] = 100
    count.test_run(FRAME, port=1)
    assert card.maps["pairs"][2]["left"] == 7 and dict(card.maps[".data"].items()) == {"seen": 101}
    with pytest.raises(bpfnic.BpfnicError, match=r"\.data has no variable 'see'"):
        card.maps[".data"]["see"] = 1
    with pytest.raises(TypeError):
        del card.maps[".data"]["seen"]


def test_programs_of_one_object_share_its_maps(obj, card):
    count, bounce = card.load(obj, "count"), card.load(obj, "bounce")
    count.test_run(FRAME)
    result = bounce.test_run(FRAME, port=1)
    assert (result.action.name, result.retval, result.egress, result.data) == ("XDP_TX", 3, "port1", FRAME)
    assert card.maps["pairs"][1] == {"left": 1, "right": 1}
    with pytest.raises(bpfnic.BpfnicError, match="program count is loaded already"):
        card.load(obj, "count")
    with pytest.raises(bpfnic.BpfnicError, match="map pairs: another object's map of that name is loaded"):
        card.load(bpfnic.open(obj.path), "too_much")


def test_a_test_run_leaves_what_is_attached(obj, card):
    count, bounce = card.load(obj, "count"), card.load(obj, "bounce")
    count.attach()
    bounce.attach(1)
    assert bounce.test_run(FRAME).egress == "port0"
    traffic = card.run([bpfnic.Arrival(0, FRAME), bpfnic.Arrival(1, FRAME)])
    assert [packet.action.name for packet in traffic.packets] == ["XDP_DROP", "XDP_TX"]
    with pytest.raises(bpfnic.BpfnicError, match="refuses a packet of 13 bytes"):
        count.test_run(bytes(13))
    assert card.attached(0) is count and card.attached(1) is bounce
    with pytest.raises(bpfnic.BpfnicError, match="no interface 3: the NIC has ports 0 to 1 and the host"):
        card.attach(3, count)


def test_a_per_cpu_map_takes_and_gives_a_value_for_each_cpu(obj, card):
    bounce = card.load(obj, "bounce")
    card.maps["each"][1] = list(range(10, 18))
    bounce.test_run(FRAME)
    after = card.maps["each"][1]
    assert sum(after) == sum(range(10, 18)) + 1 and len(after) == 8
    with pytest.raises(bpfnic.BpfnicError, match="map 'each': takes a list of 8 values, one for each CPU"):
        card.maps["each"][1] = 3


def test_a_hash_map_is_a_dictionary_with_structured_keys(obj, card):
    bounce = card.load(obj, "bounce")
    table, key = card.maps["table"], {"left": 1, "right": 2}
    assert key not in table and len(table) == 0 and table.get(key) is None
    table[key] = 2
    assert list(table) == [key] and table[key] == 2
    assert bounce.test_run(FRAME).action is bpfnic.XdpAction.XDP_PASS
    del table[key]
    with pytest.raises(KeyError):
        del table[key]
    for left in range(4):
        table[{"left": left}] = left
    with pytest.raises(OSError, match="Argument list too long"):  # E2BIG: full
        table[{"left": 9}] = 9


def test_a_load_that_fails_leaves_the_nic_as_it_was(obj, card):
    """The big map comes second, after one that fits; the helper that is lacking is found after all maps were made. What
    is loaded then lies where it lies on a fresh NIC."""
    with pytest.raises(bpfnic.BpfnicError, match=r"map huge \(ARRAY\): max_entries \d+ takes 8388608 bytes"):
        card.load(obj, "too_much")
    with pytest.raises(bpfnic.BpfnicError, match="program pid: helper bpf_get_current_pid_tgid .14. at instruction 0"):
        card.load(obj, "pid")
    assert (card.maps, card.programs) == ({}, {})

    def places(card):
        loaded = card.load(obj, "bounce").loaded
        maps = {name: (held.device_map.index, held.device_map.base) for name, held in card.maps.items()}
        return loaded.entry, len(loaded.image), maps

    with bpfnic.Nic("golden", threads=8) as fresh:
        assert places(card) == places(fresh)


def test_unloading_keeps_the_maps_that_others_use(obj, card):
    count, bounce = card.load(obj, "count"), card.load(obj, "bounce")
    bounce.test_run(FRAME)
    bounce.unload()
    assert set(card.maps) == {"pairs", ".rodata", ".data"} and set(card.programs) == {"count"}
    assert card.maps["pairs"][1]["right"] == 1
    count.attach(0)
    with pytest.raises(bpfnic.BpfnicError, match="program count is attached to port0"):
        count.unload()
    card.attach(0, None)
    count.unload()
    assert card.maps == {}


def test_an_object_that_is_loaded_twice_starts_anew(obj):
    for _ in range(2):
        with bpfnic.Nic("golden") as card:
            card.load(obj, "count").test_run(FRAME)
            assert card.maps["pairs"][1]["left"] == 1


def test_backends_are_found_by_entry_points():
    assert nic.backends() == ["board", "golden", "linux", "rtl"]
    with pytest.raises(bpfnic.BpfnicError, match="no backend 'paper'; there are board, golden, linux, rtl"):
        bpfnic.Nic("paper")
    with pytest.raises(TypeError):
        bpfnic.Nic("golden", colour="red")


@pytest.mark.linux
def test_the_kernel_is_a_nic_too(obj):
    with bpfnic.Nic("linux") as card:
        count = card.load(obj, "count")
        assert count.test_run(FRAME).action is bpfnic.XdpAction.XDP_DROP
        assert card.maps["pairs"][1] == {"left": 1, "right": 0} and card.maps[".data"]["seen"] == 6
