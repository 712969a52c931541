"""Flow bits of frames that scapy built, beat by beat, against the addresses that went into them."""

import ipaddress
import random
from functools import reduce
from operator import xor

import pytest
from amaranth.sim import Simulator

from bpfnic.hdl.packets.flow import Flow


@pytest.fixture(scope="module")
def frames() -> list[tuple[bytes, int]]:
    """Frames and the exclusive or of their address bytes."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether

    choose = random.Random(5)
    ether = Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02")  # without, scapy asks the network for each
    tags = [ether, ether / Dot1Q(vlan=5), ether / Dot1AD(vlan=7) / Dot1Q(vlan=9)]
    found = []
    for _ in range(60):
        outer = choose.choice(tags).copy()
        six = choose.random() < 0.5
        kind = ipaddress.IPv6Address if six else ipaddress.IPv4Address
        source, target = (kind(choose.getrandbits(128 if six else 32)) for _ in range(2))
        layer = (IPv6 if six else IP)(src=str(source), dst=str(target))
        frame = bytes(outer / layer / UDP() / bytes(choose.randrange(40)))
        found.append((frame, reduce(xor, source.packed + target.packed)))
    found.append((bytes(ether / ARP(psrc="10.0.0.1")), 0))
    found.append((bytes(ether / Dot1Q() / Dot1Q() / Dot1Q() / IP(src="10.0.0.1", dst="1.2.3.4")), 0))
    found.append((bytes(12) + b"\x08\x00", 0))
    choose.shuffle(found)
    return found


def test_flow_is_the_exclusive_or_of_the_addresses(frames: list[tuple[bytes, int]]) -> None:
    """Frames of all ingresses at once, whose beats take turns as they like. A frame's flow is there in the second clock
    after its last beat."""
    ingresses = 3
    flow, choose = Flow(ingresses), random.Random(6)
    waiting = [frames[ingress::ingresses] for ingress in range(ingresses)]
    position = [0] * ingresses

    async def bench(ctx) -> None:
        ended: tuple[bytes, int] | None = None  # in the last clock
        checked = 0
        while any(waiting) or ended:
            due, ended = ended, None
            offered = [each for each, left in enumerate(waiting) if left]
            taken = bool(offered) and choose.random() < 0.7
            ctx.set(flow.taken, taken)
            if offered:
                ingress = choose.choice(offered)
                (frame, _), at = waiting[ingress][0], position[ingress]
                beat = frame[at : at + 8]
                noise = choose.getrandbits(64) << 8 * len(beat)
                ctx.set(flow.ingress, ingress)
                ctx.set(flow.first, at == 0)
                ctx.set(flow.data, (int.from_bytes(beat, "little") | noise) & (1 << 64) - 1)
                ctx.set(flow.bytes, len(beat))
                if taken:
                    position[ingress] = at + 8
                    if at + 8 >= len(frame):
                        ended, position[ingress] = waiting[ingress].pop(0), 0
            await ctx.tick()
            if due:
                assert ctx.get(flow.flow) == due[1], due[0].hex()
                checked += 1
        assert checked == len(frames)

    simulator = Simulator(flow)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
