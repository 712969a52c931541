"""`bpfnic run --attach` and `--host-pcap`: which programs stand where, and what is wrong with what was asked."""

import json

import pytest

from bpfnic.host import pcap

PROGRAMS = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
SEC("xdp") int pass(struct xdp_md *ctx) { return XDP_PASS; }
SEC("tc") int next(struct __sk_buff *skb) { return TC_ACT_UNSPEC; }
SEC("tc") int drop(struct __sk_buff *skb) { return TC_ACT_SHOT; }
SEC("tc") int count(struct __sk_buff *skb) { return TC_ACT_OK; }
SEC("socket") int keep(struct __sk_buff *skb) { return 20; }
SEC("socket") int none(struct __sk_buff *skb) { return 0; }
"""


@pytest.fixture
def files(tmp_path):
    """A program, a capture of three packets and one of two."""
    (tmp_path / "programs.bpf.c").write_text(PROGRAMS)
    for name, count in (("in.pcapng", 3), ("out.pcapng", 2)):
        packets = [pcap.Packet(timestamp=number, data=bytes(64), interface=0) for number in range(count)]
        pcap.write(tmp_path / name, pcap.Capture([pcap.Interface("eth0")], packets))
    return [str(tmp_path / name) for name in ("programs.bpf.c", "in.pcapng", "out.pcapng")]


def test_programs_stand_where_they_are_put(bpfnic, files):
    program, wire, host = files
    places = ["port0:xdp=pass", "port0:tcx/ingress=next", "port0:tc-ingress=drop", "port1:tcx/egress=count"]
    options = [word for place in places for word in ("--attach", place)]
    options += ["--pcap", wire, "--host-pcap", host, "--host-port", "1", "--json"]
    status, out, err = bpfnic("run", program, "--backend", "golden", *options)
    assert status == 0, err
    report = json.loads(out)
    assert report["packets"]["verdicts"] == {"XDP_DROP": 3, "XDP_TX": 2}
    assert [(each["interface"], each["hook"], each["programs"], each["runs"]) for each in report["attached"]] == [
        ("port0", "xdp", ["pass"], 3),
        ("port0", "tcx/ingress", ["next", "drop"], 6),
        ("port1", "tcx/egress", ["count"], 2),
    ]
    assert report["attached"][1]["verdicts"] == {"UNSPEC": 3, "SHOT": 3}


def test_a_socket_filter_cuts_what_comes_to_the_host(bpfnic, files, tmp_path):
    program, wire, _ = files
    options = ["--attach", "port0:xdp=pass", "--attach", "port0:tcx/ingress=next", "--attach", "port0:socket=keep"]
    options += ["--pcap", wire, "--out", str(tmp_path / "host.pcapng"), "--json"]
    status, out, err = bpfnic("run", program, "--backend", "golden", *options)
    assert status == 0, err
    report = json.loads(out)
    assert report["packets"]["verdicts"] == {"XDP_PASS": 3} and report["interfaces"][2]["bytes_out"] == 60
    assert (report["attached"][2]["hook"], report["attached"][2]["verdicts"]) == ("socket", {"20": 3})
    assert [len(packet.data) for packet in pcap.read(tmp_path / "host.pcapng").packets] == [20, 20, 20]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("port7:xdp=pass", "there is no 'port7'"),
        ("port0:out=pass", "there is no hook 'out'"),
        ("port0:xdp=absent", "there is no program and no file 'absent'"),
        ("port0:xdp=drop", "program drop is SCHED_CLS; at xdp run XDP programs"),
        ("port0:tc-egress=pass", "program pass is XDP; at tc-egress run SCHED_CLS programs"),
        ("port0:socket=pass", "program pass is XDP; at socket run SOCKET_FILTER programs"),
        ("port0:xdp=keep", "program keep is SOCKET_FILTER; at xdp run XDP programs"),
        ("port0=pass", "must be portN:HOOK=PROGRAM"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(bpfnic, files, place, why):
    status, out, err = bpfnic("run", files[0], "--backend", "golden", "--pcap", files[1], "--attach", place)
    assert (status, out, err.count("\n")) == (2, "", 1) and f"--attach {place}: {why}" in err


def test_other_wrong_options(bpfnic, files):
    program, wire, host = files
    place = ["--attach", "port0:xdp=pass"]
    for options, why in [
        (["--pcap", wire, *place], "another program stands at port0:xdp"),
        (["--pcap", wire, *(word for name in ("keep", "none") for word in ("--attach", f"port0:socket={name}"))],
         "another program stands at port0:socket"),
        (["--pcap", wire, "--program", "pass"], "--attach names what stands where"),
        ([], "there are no packets"),
        (["--host-pcap", host, "--host-port", "2"], "--host-port 2: the NIC has ports 0 to 1"),
        (["--pcap", wire, "--host-port", "1"], "the host sends nothing"),
    ]:
        status, _, err = bpfnic("run", program, "--backend", "golden", *place, *options)
        assert status == 2 and why in err, err
