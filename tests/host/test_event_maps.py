"""Maps of records as users have them: an iterator in Python, a table and JSON on the command line."""

import json
from errno import EOPNOTSUPP

import pytest

from bpfnic import Nic
from bpfnic.host import pcap
from bpfnic.host.device import Arrival
from bpfnic.spec.errors import BpfnicError

everywhere = pytest.mark.parametrize("backend", ["golden", "rtl", pytest.param("linux", marks=pytest.mark.linux)])

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct event { __u32 length; __u8 first; } *in_btf __attribute__((unused));
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); } heads SEC(".maps");
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	if (data + 14 > end)
		return XDP_ABORTED;
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return XDP_DROP;
	__builtin_memset(event, 0, sizeof(*event));
	event->length = end - data;
	event->first = *data;
	struct event copy = *event;
	bpf_ringbuf_submit(event, 0);
	bpf_perf_event_output(ctx, &heads, BPF_F_CURRENT_CPU | 14ULL << 32, &copy, sizeof(copy));
	return XDP_PASS;
}
char LICENSE[] SEC("license") = "GPL";
"""
FRAMES = [bytes([number]) * (60 + number) for number in range(5)]


@everywhere
def test_records_are_iterated(build, backend):
    """Each once, as bytes with their CPU or by a structure of the program; more come with the next run."""
    with Nic(backend) as nic:
        nic.load(build(PROGRAM)).attach()
        events, heads = nic.maps["events"], nic.maps["heads"]
        assert list(events) == []
        nic.run([Arrival(0, frame) for frame in FRAMES])
        assert len(events) == 5
        records = sorted(events)
        assert records == [len(frame).to_bytes(4, "little") + frame[:1] + bytes(3) for frame in FRAMES]
        assert backend != "golden" or [record.cpu for record in records] == [0, 1, 2, 3, 4]
        assert sorted(heads) == [record + frame[:14] + bytes(6) for record, frame in zip(records, FRAMES, strict=True)]
        assert (len(events), list(events), events.lost, heads.lost) == (0, [], 0, 0)
        nic.run([Arrival(0, bytes([9] * 80))] * 2)
        assert list(events.of("event")) == list(heads.of("event")) == [{"length": 80, "first": 9}] * 2


def test_a_type_that_is_none(build):
    with Nic("golden", ports=1) as nic:
        nic.load(build(PROGRAM)).attach()
        nic.run([Arrival(0, FRAMES[0])])
        with pytest.raises(BpfnicError, match="map 'events': the program has no structure 'evnt'"):
            next(nic.maps["events"].of("evnt"))
        with pytest.raises(BpfnicError, match="map 'events': 8 bytes are no xdp_md of 24"):
            next(nic.maps["events"].of("xdp_md"))


@everywhere
def test_there_are_no_entries(build, backend):
    with Nic(backend) as nic:
        nic.load(build(PROGRAM))
        for name, key in (("events", b""), ("heads", bytes(4))):
            held = nic.maps[name].device_map
            for operation in (
                lambda: held.lookup(key),  # noqa: B023 - called at once
                lambda: held.update(key, [bytes(4)]),  # noqa: B023
                lambda: held.delete(key),  # noqa: B023
                lambda: held.next_key(None),  # noqa: B023
                lambda: held.pop(key),  # noqa: B023
            ):
                with pytest.raises(OSError) as refused:
                    operation()
                assert refused.value.errno == EOPNOTSUPP


def test_what_is_too_large(build):
    text = PROGRAM.replace("max_entries, 4096", "max_entries, 1 << 17")
    with Nic("golden", ports=1) as nic, pytest.raises(BpfnicError, match="map events .* 131104 more than golden has"):
        nic.load(build(text))
    text = PROGRAM.replace("__uint(value_size, 4)", "__uint(value_size, 8)")
    with Nic("golden", ports=1) as nic, pytest.raises(BpfnicError, match="map heads .*: a value has 4 bytes, not 8"):
        nic.load(build(text))


@pytest.fixture
def example(tmp_path):
    """The program and its packets as files."""
    source, capture = tmp_path / "events.bpf.c", tmp_path / "in.pcapng"
    source.write_text(PROGRAM)
    packets = [pcap.Packet(timestamp=number, data=frame, interface=0) for number, frame in enumerate(FRAMES)]
    pcap.write(capture, pcap.Capture([pcap.Interface("port0")], packets))
    return source, "--pcap", capture


def test_the_command_line_shows_them(bpfnic, example):
    status, out, _ = bpfnic("run", *example, "--backend", "golden")
    assert status == 0
    assert "Map events (RINGBUF): 5 records, 0 lost" in out
    assert "3c 00 00 00 00 00 00 00" in out
    _, out, _ = bpfnic("run", *example, "--backend", "golden", "--json")
    found = json.loads(out)["maps"]
    assert [entry["value"] for entry in found["events"]["entries"]][1] == "3d 00 00 00 01 00 00 00"
    assert (len(found["heads"]["entries"]), found["heads"]["lost"]) == (5, 0)


@pytest.mark.linux
def test_the_kernels_records_are_checked(bpfnic, example):
    status, out, err = bpfnic("run", *example, "--backend", "linux", "--check")
    assert (status, err) == (0, "") and "linux = golden" in out
