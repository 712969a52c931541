"""Redirect maps, from C to where a packet leaves: on the reference, the simulated hardware and the running kernel,
whose words are the expectation wherever it can be asked."""

import json
from errno import E2BIG, EEXIST, EINVAL, ENODEV, ENOENT, EOPNOTSUPP, EOVERFLOW

import pytest

import bpfnic
from bpfnic.host import pcap
from bpfnic.host.device import Arrival
from bpfnic.host.run import Job, run
from bpfnic.spec.causes import Cause

PROGRAM = """
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 4096); __type(key, __u32); __type(value, __u32); }
	vlans SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 64); __uint(key_size, 4); __uint(value_size, 8); }
	cpus SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_XSKMAP); __uint(max_entries, 64); __uint(key_size, 4); __uint(value_size, 4); }
	sockets SEC(".maps");
__u64 flags, high;
__u32 again;

// By the tag of an Ethernet frame.
SEC("xdp") int by_vlan(struct xdp_md *ctx)
{
	__u16 *frame = (void *)(long)ctx->data;

	if ((void *)(frame + 8) > (void *)(long)ctx->data_end || frame[6] != 0x0081)
		return XDP_PASS;
	return bpf_redirect_map(&vlans, (__builtin_bswap16(frame[7]) & 0xfff) | high << 32, flags);
}
SEC("xdp") int by_cpu(struct xdp_md *ctx)
{
	__u8 *frame = (void *)(long)ctx->data;

	return (void *)(frame + 1) > (void *)(long)ctx->data_end ? XDP_DROP : bpf_redirect_map(&cpus, *frame, flags);
}
SEC("xdp") int by_socket(struct xdp_md *ctx)
{
	__u8 *frame = (void *)(long)ctx->data;

	return (void *)(frame + 1) > (void *)(long)ctx->data_end ? XDP_DROP : bpf_redirect_map(&sockets, *frame, flags);
}
// The last redirect counts: one to the second VLAN, then the one that `again` says.
SEC("xdp") int twice(struct xdp_md *ctx)
{
	bpf_redirect_map(&vlans, 2, 0);
	if (again == 1)
		bpf_redirect_map(&vlans, 1, 0);
	else if (again == 2)
		bpf_redirect(1, 0);
	else if (again == 3)
		bpf_redirect_map(&vlans, 3, 0);
	else if (again == 4)
		bpf_redirect_map(&vlans, 1, 1 << 7);
	else if (again == 5)
		bpf_redirect_map(&cpus, 1, 0);
	else if (again == 6)
		bpf_redirect(1, 1);
	else if (again == 7)
		bpf_redirect_map(&sockets, 1, 1 << 4);
	return XDP_REDIRECT;
}
"""
ABORTED, DROP, PASS, TX, REDIRECT = range(5)
pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC


def tagged(vlan: int, size: int = 64) -> bytes:
    return bytes.fromhex("020000000001 020000000002 8100") + vlan.to_bytes(2, "big") + bytes(size - 16)


@pytest.fixture
def obj(source):
    return bpfnic.open(source(PROGRAM))


# Where packets go


@pytest.mark.parametrize(
    ("vlan", "flags", "high", "verdict", "egress"),
    [
        (1, 0, 0, REDIRECT, "port0"),
        (2, 0, 0, REDIRECT, "port1"),
        (2, DROP, 7, REDIRECT, "port1"),
        (3, ABORTED, 0, ABORTED, None),
        (3, DROP, 0, DROP, None),
        (3, PASS, 0, PASS, "host"),
        (3, TX, 0, TX, "port0"),
        (0x1002, PASS, 0, REDIRECT, "port1"),
        (4095, PASS, 0, PASS, "host"),
        (2, 1 << 2, 0, ABORTED, None),
        (2, 1 << 5, 0, ABORTED, None),
        (2, 1 << 63, 0, ABORTED, None),
        (3, 1 << 32 | PASS, 0, ABORTED, None),
        (2, 1 << 4 | PASS, 0, REDIRECT, "port1"),
        (3, 1 << 4 | PASS, 0, PASS, "host"),
    ],
)
def test_a_vlans_port(card, obj, vlan, flags, high, verdict, egress):
    obj.set_global("flags", flags)
    obj.set_global("high", high)
    program = card.load(obj, "by_vlan")
    card.maps["vlans"][1] = "port0"
    card.maps["vlans"][2] = 2
    result = program.test_run(tagged(vlan))
    assert (result.retval, result.egress) == (verdict, egress)
    assert result.data == (tagged(vlan) if egress else None)


@pytest.mark.parametrize("name", ["by_cpu", "by_socket"])
def test_a_queue_of_the_host(card, obj, name):
    table = {"by_cpu": "cpus", "by_socket": "sockets"}[name]
    obj.set_global("flags", DROP)
    card.load(obj, name).attach()
    card.maps[table][1] = {"by_cpu": 64, "by_socket": 1}[name]
    frames = [bytes([number]) + bytes(63) for number in (1, 0, 1, 64, 255)]
    traffic = card.run([Arrival(0, frame) for frame in frames])
    seen = [(packet.verdict, packet.egress, packet.queue) for packet in traffic.packets]
    assert seen == [(REDIRECT, 2, 1), (DROP, None, None), (REDIRECT, 2, 1), (DROP, None, None), (DROP, None, None)]
    assert [(departure.egress, departure.queue, departure.data) for departure in traffic.departures] == [
        (2, 1, frames[0]), (2, 1, frames[2]),
    ]  # fmt: skip
    assert card.device.counters()["REDIRECTED"][0] == 2


def test_flags_of_queues(card, obj):
    """BPF_F_EXCLUDE_INGRESS is for DEVMAPs."""
    obj.set_global("flags", 1 << 4 | PASS)
    for program in (card.load(obj, "by_cpu"), card.load(obj, "by_socket")):
        for number in (1, 64):
            assert program.test_run(bytes([number]) + bytes(63)).retval == ABORTED


@pytest.mark.parametrize(
    ("again", "egress", "queue"),
    [(0, 1, None), (1, 0, None), (2, 0, None), (3, None, None), (4, 1, None), (5, 2, 1), (6, 1, None), (7, 1, None)],
)
def test_the_last_redirect_counts(card, obj, again, egress, queue):
    """A miss forgets the target, a wrong flag doesn't."""
    obj.set_global("again", again)
    card.load(obj, "twice").attach()
    card.maps["vlans"][1] = "port0"
    card.maps["vlans"][2] = "port1"
    card.maps["cpus"][1] = "40 00 00 00 00 00 00 00"
    (packet,) = card.run([Arrival(0, bytes(64))]).packets
    assert (packet.verdict, packet.egress, packet.queue) == (REDIRECT, egress, queue)
    assert packet.cause is (Cause.REDIRECT if egress is None else Cause.NONE)


# What the host does to such maps


def test_errors_are_the_kernels(card, obj, says):
    """The same for each device; linux says what they are."""
    for name in ("by_vlan", "by_cpu", "by_socket"):
        card.load(obj, name)
    vlans, cpus, sockets = (card.maps[name].device_map for name in ("vlans", "cpus", "sockets"))

    def number(value, size=4):
        return value.to_bytes(size, "little")

    for device_map, good, bad, error in ((vlans, number(2), number(77), EINVAL),
                                         (cpus, number(64, 8), number(16385, 8), EOVERFLOW)):  # fmt: skip
        last, behind = number(device_map.definition.max_entries - 1), number(device_map.definition.max_entries)
        assert says(device_map.lookup, number(1)) == ENOENT
        assert says(device_map.lookup, behind) == ENOENT
        assert says(device_map.update, number(1), [bad]) == error
        assert says(device_map.update, number(1), [good], 1) == EEXIST
        assert says(device_map.update, number(1), [good], 3) == EINVAL
        assert says(device_map.update, number(1), [good], 2) is None
        assert says(device_map.update, behind, [good]) == E2BIG
        assert says(device_map.lookup, number(1)) == [good]
        assert says(device_map.update, number(1), [bytes(len(good))]) is None
        assert says(device_map.lookup, number(1)) == ENOENT
        assert says(device_map.delete, number(1)) is None
        assert says(device_map.delete, behind) == EINVAL
        assert says(device_map.next_key, None) == number(0) == says(device_map.next_key, behind)
        assert says(device_map.next_key, number(0)) == number(1)
        assert says(device_map.next_key, last) == ENOENT
        assert device_map.dump() == {}
    assert says(sockets.lookup, number(1)) == EOPNOTSUPP
    assert says(sockets.update, number(1), [number(1)], 2) == ENOENT
    assert says(sockets.update, number(1), [number(1)], 1) is None
    assert says(sockets.update, number(1), [number(1)], 1) == EEXIST
    assert says(sockets.update, number(1), [number(1)], 2) is None
    assert says(sockets.update, number(1), [number(1)], 3) == EINVAL
    assert says(sockets.update, number(64), [number(64)]) == E2BIG
    assert sockets.dump() == {number(1): [number(1)]}
    assert says(sockets.delete, number(1)) is None
    assert says(sockets.delete, number(1)) is None
    assert says(sockets.delete, number(64)) == EINVAL
    assert sockets.dump() == {}


def test_queues_that_a_nic_does_not_have(source):
    text = PROGRAM.replace("max_entries, 64", "max_entries, 65")
    with bpfnic.Nic("golden") as card:
        obj = bpfnic.open(source(text))
        for name, table in (("by_cpu", "cpus"), ("by_socket", "sockets")):
            card.load(obj, name)
            with pytest.raises(OSError) as caught:
                card.maps[table][64] = 64
            assert caught.value.errno == ENODEV


def test_a_port_is_named_or_numbered(card, obj):
    program = card.load(obj, "by_vlan")
    vlans = card.maps["vlans"]
    vlans[5] = "port1"
    assert vlans[5] == 2 and list(vlans.device_map.dump().values()) == [[b"port1"]]
    assert program.test_run(tagged(5)).egress == "port1"
    for value, why in (("port2", "there is no port2"), ("portal", "a value has 4 bytes, not 6")):
        with pytest.raises(OSError, match=why) as caught:
            vlans[6] = value
        assert caught.value.errno == EINVAL
    vlans[5] = 1
    assert program.test_run(tagged(5)).egress == "port0"
    del vlans[5]
    assert program.test_run(tagged(5)).retval == ABORTED
    assert 5 not in vlans


def test_an_entry_stays_with_its_port(card, obj):
    """Whatever the port is called by, from one moment to the next."""
    program = card.load(obj, "by_vlan")
    card.maps["vlans"][1] = "port1"
    card.device.set_ifindex(1, 77)
    assert card.maps["vlans"][1] == 77
    assert program.test_run(tagged(1)).egress == "port1"
    card.maps["vlans"][2] = 77
    assert program.test_run(tagged(2)).egress == "port1"


@pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])
def test_programs_of_entries_are_refused(source, backend):
    text = PROGRAM.replace("__type(value, __u32)", "__uint(value_size, 8)")
    with bpfnic.Nic(backend) as card:
        program = card.load(bpfnic.open(source(text)), "by_vlan")
        vlans = card.maps["vlans"]
        vlans[1] = "02 00 00 00 00 00 00 00"
        vlans[2] = "02 00 00 00 ff ff ff ff"  # -1: none
        assert vlans[1] == "02 00 00 00 00 00 00 00"
        assert {program.test_run(tagged(vlan)).egress for vlan in (1, 2)} == {"port1"}
        with pytest.raises(OSError) as caught:
            vlans[3] = "02 00 00 00 07 00 00 00"
        with pytest.raises(OSError) as empty:
            vlans[3] = "00 00 00 00 07 00 00 00"
        assert empty.value.errno == EINVAL
        assert caught.value.errno == EINVAL
        if backend == "golden":
            assert caught.value.strerror == "vlans: per-entry programs are not supported"


@pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])
def test_a_packet_leaves_once(source, backend):
    """BPF_F_BROADCAST is refused where it can be seen."""
    text = PROGRAM.replace("bpf_redirect_map(&vlans, 2, 0);", "bpf_redirect_map(&vlans, 2, 1 << 3 | 1 << 4);")
    with bpfnic.Nic(backend) as card, pytest.raises(bpfnic.BpfnicError) as caught:
        card.load(bpfnic.open(source(text)), "twice")
    assert "program twice: bpf_redirect_map with BPF_F_BROADCAST: a packet of a NIC leaves once" in str(caught.value)
    assert "bpf_redirect_map(&vlans, 2, 1 << 3 | 1 << 4);" in str(caught.value)


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_a_packet_leaves_once_whatever_its_flags_say(source, backend):
    obj = bpfnic.open(source(PROGRAM))
    obj.set_global("flags", 1 << 3 | PASS)
    with bpfnic.Nic(backend) as card:
        program = card.load(obj, "by_vlan")
        card.maps["vlans"][1] = "port1"
        assert program.test_run(tagged(1)).retval == ABORTED


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("__type(value, __u32)", "__uint(value_size, 12)", "map vlans (DEVMAP): a value has 4 or 8 bytes, not 12"),
        ("__type(key, __u32)", "__type(key, __u64)", "map vlans (DEVMAP): an array's key has 4 bytes, not 8"),
        ("max_entries, 4096", "max_entries, 0", "map vlans (DEVMAP): max_entries is 0"),
    ],
)
def test_sizes(source, old, new, why):
    with bpfnic.Nic("golden") as card, pytest.raises(bpfnic.BpfnicError) as caught:
        card.load(bpfnic.open(source(PROGRAM.replace(old, new))), "by_vlan")
    assert str(caught.value) == why


# Under traffic


@pytest.mark.parametrize("size", [{}, {"cores": 2, "threads": 8}], ids=["one core", "two cores"])
def test_entries_change_under_traffic(obj, size):
    """Each packet goes by one entry or the other; none is lost, none goes elsewhere."""
    with bpfnic.Nic("rtl", **size) as card:
        card.load(obj, "by_vlan").attach()
        vlans = card.maps["vlans"]
        vlans[1] = "port0"
        changes = []

        def change(progress):
            changes.append(progress.done)
            if len(changes) % 3:
                vlans[1] = f"port{len(changes) % 2}"
            else:
                del vlans[1]

        count = 3000
        packets = [Arrival(number % 2, tagged(1)) for number in range(count)]
        traffic = card.run(packets, on_step=change)
        seen = [(packet.verdict, packet.egress, packet.cause) for packet in traffic.packets]
        wanted = {(REDIRECT, 0, Cause.NONE), (REDIRECT, 1, Cause.NONE), (ABORTED, None, Cause.PROGRAM)}
        assert set(seen) == wanted and len(changes) > 5
        counters, redirected = card.device.counters(), sum(verdict == REDIRECT for verdict, _, _ in seen)
        assert sum(counters["REDIRECTED"]) == sum(counters["SENT"]) == redirected


# The command line


@pytest.fixture
def files(source, tmp_path):
    """The program, a capture of tagged frames, and rules."""
    frames = [pcap.Packet(1000 * number, tagged(number % 5), 0) for number in range(40)]
    capture = tmp_path / "in.pcapng"
    pcap.write(capture, pcap.Capture([pcap.Interface("port0")], frames))
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"vlans": {"1": "port1", "2": "port0", "3": 2}}))
    return {"program": source(PROGRAM), "capture": capture, "rules": (rules,), "out": tmp_path / "out.pcapng",
            "name": "by_vlan"}  # fmt: skip


@pytest.mark.parametrize("backend", ["rtl", pytest.param("linux", marks=pytest.mark.linux)])
def test_a_run_with_rules(files, backend):
    report = run(Job(backend=backend, check=True, **files))
    assert report["check"]["equal"], report["check"]
    assert report["packets"]["verdicts"] == {"XDP_REDIRECT": 24, "XDP_ABORTED": 16}
    assert report["maps"]["vlans"] == {
        "type": "DEVMAP", "max_entries": 4096,
        "entries": [{"key": 1, "value": "port1"}, {"key": 2, "value": "port0"}, {"key": 3, "value": "port1"}],
    }  # fmt: skip
    out = pcap.read(files["out"])
    left = [(out.interfaces[packet.interface].name, packet.data) for packet in out.packets]
    assert sorted(left) == sorted([("port0", tagged(2))] * 8 + [("port1", tagged(1))] * 8 + [("port1", tagged(3))] * 8)


def test_lockstep(files):
    report = run(Job(backend="rtl", lockstep=True, **files))
    assert report["check"]["equal"], report["check"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("port7", "map 'vlans': key 1: vlans: there is no port7"),
        (9, "map 'vlans': key 1: vlans: no port has ifindex 9"),
    ],
)
def test_rules_that_name_no_port(files, value, why):
    files["rules"][0].write_text(json.dumps({"vlans": {"1": value}}))
    with pytest.raises(bpfnic.BpfnicError) as caught:
        run(Job(backend="golden", **files))
    assert str(caught.value) == why
