"""Where programs attach: XDP, then a port's tcx/ingress, then a socket filter; tcx/egress of the port that a packet
leaves by; several in order. golden, rtl and the linux backend, and links and sockets of the running kernel with the
same programs at the same places."""

import errno
import os
import random
import socket

import pytest

import bpfnic
from bpfnic.host import check, lockstep
from bpfnic.host.bench import _evidence
from bpfnic.host.device import Arrival, Pacing, Ran
from bpfnic.host.linux import bpf
from bpfnic.host.linux.namespace import Namespace, link_name
from bpfnic.host.linux.packetsocket import PACKET_AUXDATA, SOL_PACKET, receive
from bpfnic.host.object import FileDescriptors
from bpfnic.spec import helpers
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import encode
from bpfnic.spec.programs import MAX_HOPS, Hook, TcAction, XdpAction
from tests.host.test_redirect_neigh import LINK_CREATE, _LinkCreate
from tests.sim.test_clone_redirect import SO_RCVBUFFORCE, numbered

pytestmark = pytest.mark.timeout(900)  # the first one on rtl compiles the NIC

PORTS, ENDS, HOST = (2, 3), (102, 103), 2
STEPS = 12
PROGRAMS = """
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";

#define STEPS 12
struct script { /* from byte 16 on: what was done, and what is to be done at each step */
	__u8 step, ids[STEPS], marks[STEPS], metas[STEPS], ifindexes[STEPS];
	struct { __u8 verdict, ifindex, flags; } todo[STEPS];
};

#define DO(ID)                                                                             \\
	__u32 n = script.step < STEPS ? script.step : STEPS - 1;                           \\
	script.ids[n] = ID;                                                                \\
	script.step++;

static __always_inline int tc(struct __sk_buff *skb, __u8 id)
{
	void *meta = (void *)(long)skb->data_meta;
	struct script script;

	if (bpf_skb_load_bytes(skb, 16, &script, sizeof script))
		return TC_ACT_OK;
	DO(id)
	script.marks[n] = skb->mark;
	script.metas[n] = meta + 4 <= (void *)(long)skb->data ? *(__u8 *)meta : 0;
	script.ifindexes[n] = skb->ifindex << 4 | skb->ingress_ifindex;
	skb->mark += id;
	skb->cb[0] = id;
	bpf_skb_store_bytes(skb, 16, &script, sizeof script, 0);
	if (script.todo[n].verdict == TC_ACT_REDIRECT)
		return bpf_redirect(script.todo[n].ifindex, script.todo[n].flags);
	if (script.todo[n].verdict == 100)
		return bpf_clone_redirect(skb, script.todo[n].ifindex, script.todo[n].flags) ? TC_ACT_SHOT : TC_ACT_OK;
	return script.todo[n].verdict == 255 ? TC_ACT_UNSPEC : script.todo[n].verdict;
}

SEC("xdp") int x(struct xdp_md *ctx)
{
	struct script script;
	__u32 at = 16;
	__u16 type;

	if (bpf_xdp_load_bytes(ctx, 12, &type, sizeof type))
		return XDP_PASS;
	if (type == 0x0081) /* a VLAN tag, which is in the bytes here */
		at += 4;
	if (bpf_xdp_load_bytes(ctx, at, &script, sizeof script))
		return XDP_PASS;
	DO(1)
	script.ifindexes[n] = ctx->ingress_ifindex;
	bpf_xdp_store_bytes(ctx, at, &script, sizeof script);
	if (script.todo[n].flags && !bpf_xdp_adjust_meta(ctx, -4)) {
		__u8 *meta = (void *)(long)ctx->data_meta;

		if (meta + 4 <= (__u8 *)(long)ctx->data)
			*meta = script.todo[n].flags;
	}
	if (script.todo[n].verdict == XDP_REDIRECT)
		return bpf_redirect(script.todo[n].ifindex, 0);
	return script.todo[n].verdict;
}
SEC("tc") int a(struct __sk_buff *skb) { return tc(skb, 11); }
SEC("tc") int b(struct __sk_buff *skb) { return tc(skb, 12); }
SEC("tc") int c(struct __sk_buff *skb) { return tc(skb, 13); }
SEC("tc") int d(struct __sk_buff *skb) { return tc(skb, 14); }
SEC("tc") int e(struct __sk_buff *skb) { return tc(skb, 15); }
SEC("tc") int f(struct __sk_buff *skb) { return tc(skb, 16); }
SEC("socket") int s(struct __sk_buff *skb) /* keeps as much as tells what it saw, and nothing behind a and b */
{
	return skb->mark == 23 ? 0 : 120 + (skb->mark & 15) + (skb->cb[0] ? 16 : 0) + 100 * (skb->ifindex - 2);
}
"""
PLACES = {
    (0, Hook.XDP): "x",
    (0, Hook.TCX_INGRESS): "ab",
    (1, Hook.TCX_INGRESS): "c",
    (0, Hook.TCX_EGRESS): "f",
    (1, Hook.TCX_EGRESS): "de",
}
FILTERED = PLACES | {(0, Hook.SOCKET): "s", (1, Hook.SOCKET): "s"}
NEXT = 255


def script(*todo, number=0, tag=b"", size=160):
    """A frame that says what is done with it: for each step a verdict, an ifindex and flags."""
    done = bytes(1 + 4 * STEPS)
    steps = b"".join(bytes((*(step if isinstance(step, tuple) else (step,)), 0, 0)[:3]) for step in todo)
    head = b"\2" + bytes(4) + b"\1" + bytes([2, 0, 0, 0, 0, 9]) + tag + b"\x88\xb5" + bytes(2)
    return (head + done + steps.ljust(3 * STEPS, b"\0") + b"number" + number.to_bytes(4)).ljust(size, b"\0")


def done(frame):
    """What was done with it: identities, marks, metadata and ifindexes, step by step."""
    at = frame.index(b"\x88\xb5") + 4
    count = min(frame[at], STEPS)
    return [tuple(frame[at + 1 + STEPS * what + step] for what in range(4)) for step in range(count)]


def set_up(nic, obj, places=PLACES):
    for port, ifindex in enumerate(PORTS):
        nic.set_ifindex(port, ifindex)
    for name in dict.fromkeys("".join(places.values())):
        nic.load(obj, name)
    for (port, hook), names in places.items():
        nic.attach_at(port, hook, [nic.programs[name] for name in names])


@pytest.fixture(params=["golden", "rtl", pytest.param("linux", marks=pytest.mark.linux)])
def nic(request, build):
    with bpfnic.Nic(request.param, ports=2) as nic:
        set_up(nic, build(PROGRAMS))
        nic.load(build(PROGRAMS), "s")
        yield nic


def test_from_xdp_through_a_chain_to_the_host(nic):
    (packet,) = nic.run([Arrival(0, script(XdpAction.XDP_PASS, NEXT, TcAction.OK))]).packets
    assert (packet.action, packet.egress) == (XdpAction.XDP_PASS, HOST)
    assert done(packet.data) == [(1, 0, 0, 2), (11, 0, 0, 0x22), (12, 11, 0, 0x22)]
    ran = [Ran(Hook.XDP, 0, 2), Ran(Hook.TCX_INGRESS, 0, TcAction.UNSPEC), Ran(Hook.TCX_INGRESS, 0, TcAction.OK)]
    assert packet.programs == tuple(ran)


def test_a_verdict_ends_a_chain(nic):
    passes, drops = XdpAction.XDP_PASS, XdpAction.XDP_DROP
    for verdict, action in [(TcAction.OK, passes), (TcAction.SHOT, drops), (9, passes)]:
        (packet,) = nic.run([Arrival(0, script(2, verdict, TcAction.SHOT))]).packets
        assert packet.action is action and len(packet.programs) == 2
    (packet,) = nic.run([Arrival(0, script(2, NEXT, NEXT))]).packets  # nobody behind the last one
    assert (packet.action, packet.egress, packet.verdict) == (XdpAction.XDP_PASS, HOST, TcAction.UNSPEC)


def test_xdp_sends_past_tc(nic):
    sent, back = nic.run([Arrival(0, script((4, 3))), Arrival(0, script(3))]).packets
    assert (sent.egress, [step[0] for step in done(sent.data)]) == (1, [1])
    assert (back.egress, [step[0] for step in done(back.data)]) == (0, [1])


def test_what_the_host_sends_goes_through_tcx_egress(nic):
    sent, dropped, back = nic.run([
        Arrival(HOST, script(*steps), egress=1) for steps in [(NEXT, 0), (2,), ((7, 2),)]
    ]).packets  # fmt: skip
    assert (sent.action, sent.egress, done(sent.data)) == (XdpAction.XDP_TX, 1, [(14, 0, 0, 0x30), (15, 14, 0, 0x30)])
    assert (dropped.action, dropped.egress) == (XdpAction.XDP_DROP, None)
    assert (back.action, back.egress, done(back.data)[-1]) == (XdpAction.XDP_REDIRECT, 0, (16, 14, 0, 0x20))


def test_tc_redirects_through_tcx_egress_and_tcx_ingress(nic):
    out, around, inward = nic.run([
        Arrival(0, script(2, (7, 3), NEXT, NEXT)),
        Arrival(0, script(2, (7, 3), (7, 2), 0)),
        Arrival(0, script(2, (7, 3, 1), 0)),
    ]).packets  # fmt: skip
    assert (out.action, out.egress) == (XdpAction.XDP_REDIRECT, 1)
    assert [step[0] for step in done(out.data)] == [1, 11, 14, 15]
    assert done(out.data)[-1] == (15, 25, 0, 0x32)
    assert (around.egress, [step[0] for step in done(around.data)]) == (0, [1, 11, 14, 16])
    assert (inward.action, inward.egress, done(inward.data)[-1]) == (XdpAction.XDP_PASS, HOST, (13, 11, 0, 0x33))


@pytest.mark.parametrize("tag", [b"", b"\x81\x00\x20\x07"])
def test_metadata_of_xdp_is_seen_by_tc(build, tag):
    for backend in ("golden", "rtl"):
        with bpfnic.Nic(backend, ports=2) as nic:
            set_up(nic, build(PROGRAMS))
            arriving = script((2, 0, 77), NEXT, 0, tag=tag)
            (packet,) = nic.run([Arrival(0, arriving)]).packets
            assert packet.egress == HOST and packet.data[:16] == arriving[:16]
            assert [step[2] for step in done(packet.data)] == [0, 77, 77]


def test_a_socket_filter_stands_before_the_host(nic):
    """Behind XDP, tcx/ingress and redirects that come in. It sees the mark of tc programs and cb of 0, and cuts what
    the host gets; what leaves by a port it doesn't see."""
    for port in (0, 1):
        nic.attach_at(port, Hook.SOCKET, [nic.programs["s"]])
    steps = {
        "chain": (0, [2, TcAction.OK]), "dropped": (0, [2, NEXT, TcAction.OK]), "shot": (0, [2, TcAction.SHOT]),
        "inward": (0, [2, (7, 3, 1), 0]), "out": (0, [2, (7, 3), 0]), "tc": (1, [0]),
    }  # fmt: skip
    arrivals = [Arrival(port, script(*todo, size=300)) for port, todo in steps.values()]
    found = dict(zip(steps, nic.run(arrivals).packets, strict=True))
    kept = {name: len(packet.data or b"") for name, packet in found.items() if packet.programs[-1].hook is Hook.SOCKET}
    assert kept == {"chain": 120 + 11, "dropped": 0, "inward": 220 + (11 + 13) % 16, "tc": 220 + 13}
    assert [found[name].action for name in ("chain", "dropped", "shot", "out")] == [
        XdpAction.XDP_PASS, XdpAction.XDP_DROP, XdpAction.XDP_DROP, XdpAction.XDP_REDIRECT]  # fmt: skip
    assert found["chain"].egress == HOST and len(found["out"].data) == 300
    for port in (0, 1):  # nothing in front of it
        nic.attach_at(port, Hook.XDP, [])
        nic.attach_at(port, Hook.TCX_INGRESS, [])
    (packet,) = nic.run([Arrival(1, script(size=300))]).packets
    assert (len(packet.data), [each[:2] for each in packet.programs]) == (220, [(Hook.SOCKET, 1)])


def test_a_packet_goes_round_so_often(nic):
    """Redirected from egress to egress: so often as Linux lets it, and then it is dropped."""
    allowed = script(2, *[(7, 2 + n % 2) for n in range(MAX_HOPS)], 0)
    (packet,) = nic.run([Arrival(0, allowed)]).packets
    assert (packet.action, len(packet.programs)) == (XdpAction.XDP_REDIRECT, 2 + MAX_HOPS)
    (packet,) = nic.run([Arrival(0, script(2, *[(7, 2 + n % 2) for n in range(MAX_HOPS + 1)], 0))]).packets
    assert (packet.action, packet.cause.name, packet.egress) == (XdpAction.XDP_ABORTED, "REDIRECT", None)


SO_ATTACH_BPF = 50  # asm-generic/socket.h
ATTACH = {Hook.XDP: 37, Hook.TCX_INGRESS: 46, Hook.TCX_EGRESS: 47}  # linux/bpf.h


class Kernel:
    """Links with the programs at the same places, each with another end, from where frames come and where they go."""

    def __init__(self, obj):
        self._namespace = Namespace([ifindex for pair in zip(PORTS, ENDS, strict=True) for ifindex in pair])
        self._descriptors = []
        known = frozenset(each.number for each in helpers.HELPERS)
        self._programs = {}
        for name in dict.fromkeys("".join(FILTERED.values())):
            program = obj.program(name)
            code = encode(program.link(FileDescriptors({}), known))
            self._programs[name], _ = bpf.prog_load(program.type, code)
        self._namespace.call(self._enter)

    def _enter(self):
        for link in (*PORTS, *ENDS):
            name = link_name(link)
            os.system(f"ip link set dev {name} addrgenmode none && ip link set dev {name} up")
        for (port, hook), names in PLACES.items():
            for name in names:
                link = _LinkCreate(self._programs[name], PORTS[port], ATTACH[hook])
                self._descriptors.append(bpf.call(LINK_CREATE, link))
        self._ends = [self._socket(end, 3) for end in ENDS]  # ETH_P_ALL
        self._host = [self._socket(port, 0x88B5) for port in PORTS]  # those get what tcx/ingress lets pass
        for port, wire in enumerate(self._host):
            wire.setsockopt(socket.SOL_SOCKET, SO_ATTACH_BPF, self._programs[FILTERED[port, Hook.SOCKET]])

    def _socket(self, link, protocol):
        found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
        found.bind((link_name(link), 0))
        found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        found.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        found.settimeout(10)
        return found

    def run(self, arrivals, last):
        """What leaves by each port, and what comes to the host. The frame numbered `last` leaves by both ports and
        comes to the host from both, last of all."""
        for arrival in arrivals:
            of_host = arrival.interface == HOST
            wire = self._host[arrival.egress] if of_host else self._ends[arrival.interface]
            try:
                wire.send(arrival.data)
            except OSError as error:  # a program dropped it on its way out
                assert of_host and error.errno in (errno.ENOBUFS, errno.ENETDOWN)
        out = [self._received(wire, last) for wire in self._ends]
        host = [each for wire in self._host for each in self._received(wire, last)]
        return [numbered(each) for each in (*out, host)]

    def _received(self, wire, last):
        found = []
        while last not in numbered(found):
            each, address = receive(wire)
            if address[2] != socket.PACKET_OUTGOING:
                found.append(each)
        return found

    def close(self):
        for wire in (*self._ends, *self._host):
            wire.close()
        for each in (*self._descriptors, *self._programs.values()):
            os.close(each)
        self._namespace.close()


def journeys(count, seed):
    """Frames from everywhere with random verdicts; then those that end everywhere."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        steps = [(chance.choice([2, 2, 2, 1, 0, 9]), 0, chance.choice([0, 0, 50 + number % 50]))]
        for _ in range(STEPS - 1):
            kind = chance.choice(["next", "next", "ok", "redirect", "redirect", "other"])
            # Into the second port alone: a packet that came in again by the first one would run XDP's step as tc's.
            steps.append({
                "next": (NEXT, 0, 0), "ok": (0, 0, 0), "other": (chance.choice([1, 2, 3, 5, 9]), 0, 0),
                "redirect": chance.choice([(7, 2, 0), (7, 3, 0), (7, 3, 1), (7, 3, 0)]),
            }[kind])  # fmt: skip
        interface = chance.choice([0, 0, 1, HOST])
        tag = b"\x81\x00\x20\x07" if interface != HOST and chance.random() < 0.2 else b""
        skips = 0 if interface == 0 else 1
        frame = script(*steps[skips:], number=number, tag=tag)
        found.append(Arrival(interface, frame, egress=chance.randrange(2) if interface == HOST else 0))
    number = count
    ends = [(0, script(2, 0, number=number)), (1, script(0, number=number)), (0, script(2, (7, 3), 0, number=number)),
            (1, script((7, 2), 0, number=number))]  # fmt: skip
    return found + [Arrival(*each) for each in ends], count


@pytest.mark.linux
@pytest.mark.parametrize("backend", ["golden", "linux"])
def test_the_kernel_sends_packets_the_same_way(build, backend):
    """tcx links, XDP and sockets of the running kernel, against what golden and the linux backend decide."""
    arrivals, last = journeys(400, 5)
    obj = build(PROGRAMS)
    with bpfnic.Nic(backend, ports=2) as nic:
        set_up(nic, obj, FILTERED)
        if backend == "linux":  # it takes no metadata from program to program: the flags of XDP's step
            arrivals = [each for each in arrivals if each.interface or not each.data[each.data.index(b"\x88\xb5") + 55]]
        traffic = nic.run(arrivals)
    kernel = Kernel(obj)
    try:
        theirs = kernel.run(arrivals, last)
    finally:
        kernel.close()
    for interface, sent in enumerate(theirs):
        left = [each.data for each in traffic.departures if each.egress == interface]
        if interface == HOST:  # Linux has no VLAN of that number, and forgets the tag before sockets see the packet
            left = [each[:12] + each[16:] if each[12:14] == b"\x81\x00" else each for each in left]
        ours = numbered(left)
        for number in sorted({*ours, *sent}):
            shown = [[done(each) for each in frames.get(number, [])] for frames in (ours, sent)]
            assert ours.get(number) == sent.get(number), (interface, number, *shown)
    assert min(map(len, theirs)) > 30


@pytest.mark.parametrize("pacing", [Pacing(), Pacing(ingress_idle=10, egress_stall=60, seed=2, flows_apart=True)])
def test_the_nic_does_what_the_model_does(build, pacing):
    """As recorded, and side by side: packets that travel on all threads at once."""
    obj, (arrivals, _) = build(PROGRAMS), journeys(40, 7)
    cards = [bpfnic.Nic(name, ports=2) for name in ("rtl", "golden", "golden")]
    with cards[0] as nic, cards[1] as golden, cards[2] as other:
        for card in (nic, golden, other):
            set_up(card, obj, FILTERED)
        actual = _evidence(nic, nic.run(arrivals, pacing))
        numbers = range(len(arrivals))
        expected = _evidence(golden, golden.run(arrivals, pacing, replay=actual.traffic.recording))
        assert check.compare(actual, expected, arrivals, numbers, pacing) is None
        before, _ = nic.device.counters(), other.device.counters()
        beside = lockstep.run(nic.device, other.device, arrivals, pacing)
        assert beside.difference is None
        after = _evidence(nic, beside.actual)
        for name, values in after.counters.items():
            if isinstance(values, list):
                after.counters[name] = [value - old for value, old in zip(values, before[name], strict=True)]
            else:
                after.counters[name] = values - before[name]
        assert check.compare(after, _evidence(other, beside.follower.end(numbers)), arrivals, numbers, pacing) is None
    ran = [each for packet in actual.traffic.packets for each in packet.programs]
    assert {(each.device, each.hook) for each in ran} == set(FILTERED) and len(ran) > len(arrivals)


@pytest.mark.parametrize(("backend", "every"), [("golden", 1), ("rtl", 8)])
def test_programs_are_replaced_under_traffic(build, backend, every):
    """Each packet sees one chain or the other, whole; words of the old one are free again, once it has left."""
    with bpfnic.Nic(backend, ports=2) as nic:
        set_up(nic, build(PROGRAMS))
        chains = [[nic.programs[name] for name in names] for names in ("abc", "de")]
        steps = 0

        def swap(progress):
            nonlocal steps
            if steps % every == 0:
                nic.attach_at(0, Hook.TCX_INGRESS, chains[steps // every % 2])
            steps += 1

        arrivals = [Arrival(0, script(2, NEXT, NEXT, 0, number=number)) for number in range(500)]
        packets = nic.run(arrivals, on_step=swap).packets
        seen = [tuple(step[0] for step in done(packet.data)) for packet in packets]
        chained = {(1, 11, 12, 13), (1, 14, 15)}
        assert steps > 6 and chained <= set(seen) <= chained | {(1, 11, 12)}  # the last: what stood there at first
        for number in range(32):  # nothing is in flight: each takes words that an earlier one had
            nic.attach_at(0, Hook.TCX_INGRESS, chains[number % 2])


def test_what_cannot_be_attached_is_refused(build):
    with bpfnic.Nic("golden", ports=2) as nic:
        set_up(nic, build(PROGRAMS), {})
        programs = {name: nic.load(build(PROGRAMS), name) for name in "xas"}
        for place, names, why in [
            ((0, "xdp"), "a", "port0, xdp: program a is SCHED_CLS; there run XDP"),
            ((1, "tcx/egress"), "x", "port1, tcx/egress: program x is XDP; there run SCHED_CLS"),
            ((0, "xdp"), "xx", "one program runs there, not 2"),
            ((2, "tcx/egress"), "a", "host has no hook tcx/egress"),
            ((0, "socket"), "a", "port0, socket: program a is SCHED_CLS; there run SOCKET_FILTER"),
            ((0, "xdp"), "s", "port0, xdp: program s is SOCKET_FILTER; there run XDP"),
            ((1, "socket"), "ss", "one program runs there, not 2"),
            ((3, "xdp"), "x", "there is no interface 3"),
            ((0, "tcx/ingress"), "a" * 17, "takes a word of CHAIN"),
        ]:
            with pytest.raises(BpfnicError, match=why):
                nic.attach_at(*place, [programs[name] for name in names])
        nic.attach_at(1, Hook.TCX_EGRESS, [programs["a"]] * 16)
        with pytest.raises(BpfnicError, match="program a is attached to port1, tcx/egress"):
            programs["a"].unload()
        nic.attach_at(1, Hook.TCX_EGRESS, [])
        nic.attach_at(0, Hook.TCX_EGRESS, [programs["a"]] * 16)
