"""A port between its MAC and the wire: every frame whole, on one way, however often the route changes."""

import random

import pytest

from bpfnic.hdl.wire.frames import Switch
from tests.hdl.simulated import Library, Simulated


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library(Switch(), tmp_path_factory.mktemp("switch"))


@pytest.mark.parametrize("seed", range(4))
def test_no_frame_is_cut(library, seed):
    """Sources number their frames and beats (frame * 16 + beat); the injector waits, the MAC's frames may be lost."""
    dut, rng = Simulated(library), random.Random(seed)
    sources = {"mac_rx": [0, 0, 3], "injected": [0, 0, 2], "egress": [0, 0, 1]}  # frame, beat, last beat
    offered = dict.fromkeys(sources, False)
    taken = {"ingress": [], "mac_tx": [], "captured": []}
    busy = rng.choice((0, 30, 70))
    for clock in range(6000):
        if clock % 97 == 0:
            dut["wired"] = rng.randrange(2)
        for name, (frame, beat, last) in sources.items():
            offered[name] = offered[name] or rng.randrange(100) >= busy
            dut[f"{name}__valid"] = offered[name]
            mark = {"mac_rx": 1 << 40, "injected": 1 << 41, "egress": 1 << 42}[name]
            dut[f"{name}__payload"] = (frame * 16 + beat | mark) | 0xFF << 64 | (beat == last) << 72
        for name in taken:
            dut[f"{name}__ready"] = rng.randrange(100) >= busy
        dut.settle()
        for name, beats in taken.items():
            if dut[f"{name}__valid"] and dut[f"{name}__ready"]:
                payload = dut[f"{name}__payload"]
                beats.append((payload & (1 << 64) - 1, payload >> 72 & 1))
        for name, state in sources.items():
            if offered[name] and dut[f"{name}__ready"]:
                offered[name] = False
                ended = state[1] == state[2]
                state[:] = [state[0] + 1, 0, rng.randrange(6)] if ended else [state[0], state[1] + 1, state[2]]
        dut.tick()

    def whole(beats):
        """Frames by source, each from its first beat to its last without another between."""
        frames, expected = {}, None
        for word, last in beats:
            if expected is None:
                assert word & 15 == 0
                frames.setdefault(word >> 40, []).append((word & (1 << 40) - 1) >> 4)
            else:
                assert word == expected
            expected = None if last else word + 1
        return frames

    ingress = whole(taken["ingress"])
    assert ingress[2] == list(range(len(ingress[2])))  # all of the wire's, in their order
    assert ingress[1] == sorted(set(ingress[1])) and 20 < len(ingress[1]) < sources["mac_rx"][0]
    (to_mac,), (to_wire,) = whole(taken["mac_tx"]).values(), whole(taken["captured"]).values()
    assert sorted([*to_mac, *to_wire]) == list(range(len(to_mac) + len(to_wire)))
    assert to_mac == sorted(to_mac) and to_wire == sorted(to_wire) and min(len(to_mac), len(to_wire)) > 20
