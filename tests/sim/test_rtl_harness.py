"""The native loop on a NIC without a core: what it feeds in, takes out, counts, skips and complains about."""

import random
from enum import IntEnum
from types import SimpleNamespace

import pytest
from amaranth import C, Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.fifo import SyncFIFOBuffered

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.nic import Nic, interface_names, trace_fields
from bpfnic.sim.rtl import build
from bpfnic.sim.rtl.simulation import Simulation
from bpfnic.spec.errors import BpfnicError

CONFIG = NicConfig(trace=True)
DEPTH = 1024  # beats that a lane holds
FAULT = 12  # address of the register that breaks a rule


class Fault(IntEnum):
    """A rule of the streams or of the trace for the stand-in to break; or what its trace shows besides."""

    NONE = 0
    RETRACT = 1
    CHANGE = 2
    KEEP = 3
    USER = 4
    RELEASE = 5
    HOST = 6  # every unit grants the host an access, always; a program without an instruction runs for each frame


class Loopback(Nic):
    """Each ingress comes out of the egress of the same number; four registers at 0, 4, 8 and 12; a bad frame (of one
    beat) is refused. It keeps the rules of the NIC's ports until register 12 says which one to break."""

    def elaborate(self, platform):
        m = Module()
        fault = self._registers(m)
        fields = ("valid", "ingress", "sequence", "queued", "egress")
        release = SimpleNamespace(**{field: getattr(self, f"trace_release_{field}") for field in fields})
        names = interface_names(self.config)
        for i, name in enumerate(names):
            self._lane(m, i, name, len(names), release, fault)
        return m

    def _registers(self, m):
        def port(name):
            return getattr(self, f"s_axil_{name}")

        file = data.ArrayLayout(32, 4)
        registers = Signal(file)
        m.d.comb += [port("awready").eq(port("wvalid") & ~port("bvalid")),
                     port("wready").eq(port("awvalid") & ~port("bvalid")),
                     port("arready").eq(~port("rvalid"))]  # fmt: skip
        with m.If(port("awvalid") & port("wvalid") & ~port("bvalid")):
            m.d.sync += port("bvalid").eq(1)
            with m.If(port("awaddr") < 16):
                m.d.sync += [registers[port("awaddr")[2:4]].eq(port("wdata")), port("bresp").eq(0)]
            with m.Else():
                m.d.sync += port("bresp").eq(2)
        with m.Elif(port("bready")):
            m.d.sync += port("bvalid").eq(0)
        with m.If(port("arvalid") & ~port("rvalid")):
            m.d.sync += [port("rvalid").eq(1), port("rdata").eq(registers[port("araddr")[2:4]]),
                         port("rresp").eq(Mux(port("araddr") < 16, 0, 2))]  # fmt: skip
        with m.Elif(port("rready")):
            m.d.sync += port("rvalid").eq(0)
        return registers[3]

    def _lane(self, m, i, name, lanes, release, fault):
        def ingress(field):
            return getattr(self, f"s_axis_{name}_{field}")

        def egress(field):
            return getattr(self, f"m_axis_{name}_{field}")

        beats = m.submodules[f"beats_{name}"] = SyncFIFOBuffered(width=73, depth=DEPTH)
        whole, held, sequence = Signal(16, name=f"whole_{name}"), Signal(16), Signal(32)
        bad = ingress("tlast") & ingress("tuser")[0]
        taken = ingress("tvalid") & ingress("tready")
        # Only a frame of one beat may be bad: earlier beats would be in the queue already.
        m.d.comb += [
            ingress("tready").eq(beats.w_rdy),
            beats.w_en.eq(taken & ~bad),
            beats.w_data.eq(Cat(ingress("tdata"), ingress("tkeep"), ingress("tlast"))),
            self.trace_refuse_accepted[i].eq(taken & ingress("tlast") & ~bad),
            self.trace_refuse_refused[i].eq(taken & bad),
        ]
        # `held`: frames accepted and not released; `whole`: frames released and not sent.
        turn = Signal(2, name=f"turn_{name}")
        m.d.sync += turn.eq(Mux(turn == lanes - 1, 0, turn + 1))
        out = held.any() & (turn == i)
        with m.If(out):
            m.d.comb += [release.valid.eq(1), release.ingress.eq(i), release.sequence.eq(sequence),
                         release.queued.eq(1), release.egress.eq(i)]  # fmt: skip
            m.d.sync += sequence.eq(sequence + 1)
        sent = egress("tvalid") & egress("tready") & egress("tlast")
        m.d.sync += [held.eq(held + self.trace_refuse_accepted[i] - out), whole.eq(whole + out - sent)]
        stalled = Signal(name=f"stalled_{name}")
        m.d.sync += stalled.eq(egress("tvalid") & ~egress("tready"))
        m.d.comb += [
            Cat(egress("tdata"), egress("tkeep"), egress("tlast")).eq(beats.r_data),
            egress("tvalid").eq(beats.r_rdy & whole.any()),
            beats.r_en.eq(whole.any() & egress("tready")),
            egress("tuser").eq(Cat(C(i, 3), C(15, 4))),
        ]
        with m.Switch(fault):
            with m.Case(Fault.RETRACT):
                m.d.comb += egress("tvalid").eq(beats.r_rdy & whole.any() & ~stalled)
            with m.Case(Fault.CHANGE):
                m.d.comb += egress("tdata").eq(beats.r_data[:64] ^ stalled)
            with m.Case(Fault.KEEP):
                m.d.comb += egress("tkeep").eq(0b101)
            with m.Case(Fault.USER):
                m.d.comb += egress("tuser").eq(beats.r_data[:7])
            with m.Case(Fault.RELEASE):
                m.d.comb += release.queued.eq(0)
            with m.Case(Fault.HOST):
                self._run_without_instructions(m, i, out, sequence)

    def _run_without_instructions(self, m, i, out, sequence):
        """On CPU 0: it begins in the clock in which a frame is released, and ends in the next one."""
        shown = {where: getattr(self, name) for name, (_, where) in trace_fields(self.config).items()}
        began = Signal(name=f"began_{i}")
        m.d.sync += began.eq(out)
        with m.If(out):
            m.d.comb += [shown["dispatch", 0, "valid"].eq(1), shown["dispatch", 0, "ingress"].eq(i),
                         shown["dispatch", 0, "sequence"].eq(sequence)]  # fmt: skip
        with m.If(began):
            m.d.comb += shown["finish", 0, "valid"].eq(1)
        if i == 0:
            m.d.comb += [signal.eq(1) for (kind, _, field), signal in shown.items()
                         if kind == "shared" and field in ("valid", "requester")]  # fmt: skip


def build_loopback(folder, waves=False):
    build.write_netlist(Loopback(CONFIG), folder)
    return build.library(folder, waves)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build_loopback(tmp_path_factory.mktemp("loopback"))


@pytest.fixture
def nic(library):
    simulation = Simulation(library)
    yield simulation
    simulation.close()


def frames(count, seed=1, spread=0):
    """(ingress, bytes, clock), in the order of their clocks."""
    rng = random.Random(seed)
    made = [(rng.randrange(3), rng.randbytes(rng.randrange(14, 1793)), rng.randrange(spread + 1)) for _ in range(count)]
    return sorted(made, key=lambda frame: frame[2])


def check(nic, offered):
    """Everything came back as it went in."""
    data, records = nic.data(), nic.packets()
    assert len(records) == len(offered)
    for (ingress, content, clock), record in zip(offered, records, strict=True):
        assert record.accepted and record.queued and record.egress == record.ingress == ingress
        assert data[record.data_offset : record.data_offset + record.data_length] == content
        assert record.user == ingress | 15 << 3
        beats = (len(content) + 7) // 8
        assert clock <= record.entered <= record.ended - beats + 1
        assert record.ended < record.released < record.left <= record.gone - beats + 1
    for ingress in range(3):
        numbers = [record.sequence for record in records if record.ingress == ingress]
        assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("idle", [{}, {"percent": 20}, {"percent": 95}, {"every": 2}, {"percent": 30, "every": 5}])
@pytest.mark.parametrize("stall", [{}, {"percent": 20}, {"percent": 95}, {"every": 2}, {"percent": 30, "every": 5}])
def test_every_pacing_delivers_everything(nic, idle, stall):
    for interface in range(3):
        nic.pace_ingress(interface, **idle, seed=interface + 1)
        nic.pace_egress(interface, **stall, seed=interface + 4)
    offered = frames(60, spread=5000)
    for ingress, content, clock in offered:
        nic.offer(ingress, content, clock)
    assert nic.run()
    check(nic, offered)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 14, 60, 61, 64, 65, 127, 1500, 1514, 1792])
def test_back_to_back_frames_of_one_length_take_a_clock_a_beat(nic, length):
    offered = [(0, bytes((i + j) % 256 for j in range(length)), 0) for i in range(20)]
    for ingress, content, clock in offered:
        nic.offer(ingress, content, clock)
    assert nic.run()
    check(nic, offered)
    records = nic.packets()
    assert records[-1].ended - records[0].entered + 1 == 20 * ((length + 7) // 8)


def test_idle_and_stalled_clocks_come_as_often_as_asked(nic):
    content = bytes(8 * 1000)  # a beat a clock if nobody waits
    nic.pace_ingress(0, percent=50, seed=3)
    nic.pace_ingress(1, every=4)
    for ingress in range(2):
        nic.offer(ingress, content)
    assert nic.run()
    first, second = nic.packets()
    assert 1900 < first.ended - first.entered < 2100
    assert 1330 <= second.ended - second.entered <= 1334


def test_the_same_seed_gives_the_same_clocks(library):
    def run(seed):
        nic = Simulation(library)
        for interface in range(3):
            nic.pace_ingress(interface, percent=40, seed=seed)
            nic.pace_egress(interface, percent=40, seed=seed + 1)
        for ingress, content, clock in frames(20):
            nic.offer(ingress, content, clock)
        assert nic.run()
        clocks = [(record.ended, record.gone) for record in nic.packets()]
        nic.close()
        return clocks

    assert run(5) == run(5) != run(7)


def test_runs_follow_each_other_and_forget(nic):
    for seed in range(3):
        offered = frames(10, seed)
        start = nic.counts().clock
        for ingress, content, _ in offered:
            nic.offer(ingress, content)
        assert nic.run()
        assert all(record.entered >= start for record in nic.packets())
        if seed == 0:
            check(nic, offered)
        nic.forget()
        assert nic.packets() == [] and nic.data() == b""
    counts = nic.counts()
    assert (counts.ended, counts.released, counts.delivered) == (30, 30, 30)


def test_a_bad_frame_is_refused_and_the_next_ones_keep_their_numbers(nic):
    for content, user in ((b"good", 0), (b"bad", 1), (b"fine", 0)):
        nic.offer(0, content, user=user)
    assert nic.run()
    good, bad, fine = nic.packets()
    assert (good.accepted, bad.accepted, fine.accepted) == (1, 0, 1)
    assert (good.sequence, fine.sequence) == (0, 1)
    assert bad.ended and not bad.released and not bad.queued


def test_registers_answer_between_and_during_runs(nic):
    nic.write(4, 0x12345678)
    assert nic.read(4) == 0x12345678
    offered = frames(20)
    for ingress, content, clock in offered:
        nic.offer(ingress, content, clock)
    steps = 0
    while not nic.run(100):
        nic.write(8, steps)
        assert nic.read(8) == steps
        steps += 1
    assert steps >= 5
    check(nic, offered)


def test_a_register_that_is_not_there_is_named(nic):
    with pytest.raises(BpfnicError, match="register 0x040"):
        nic.read(0x40)
    with pytest.raises(BpfnicError, match="register 0x044"):
        nic.write(0x44, 1)


def test_idle_spans_are_skipped_not_simulated(nic):
    clocks = (10, 1_000_000_000, 2_000_000_007)
    for clock in clocks:
        nic.offer(0, b"x" * 64, clock)
    assert nic.run()
    assert tuple(record.entered for record in nic.packets()) == clocks
    counts = nic.counts()
    assert counts.clock > clocks[-1] and counts.simulated < 5000


def test_a_nic_that_stands_still_is_reported(nic):
    nic.set_watchdog(2000)
    nic.pace_egress(0, percent=100)
    nic.offer(0, b"x" * 64)
    nic.offer(1, b"x" * 64)
    with pytest.raises(BpfnicError, match="nothing has moved for 2000 clocks, with 1 frames not done"):
        nic.run()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault.RETRACT, "egress 0 took back a beat"),
        (Fault.CHANGE, "egress 0 changed a beat that was not taken"),
        (Fault.KEEP, "egress 0 sent tkeep 5"),
        (Fault.USER, "egress 0 changed tuser within a frame"),
        (Fault.RELEASE, "egress 0 sent what nothing had released"),
    ],
)
def test_a_broken_rule_is_named(nic, fault, message):
    nic.write(FAULT, fault)
    nic.pace_egress(0, percent=50)
    # Two frames: the run is over when a frame is said to be dropped, before the egress shows it.
    for _ in range(2):
        nic.offer(0, bytes(range(64)))
    with pytest.raises(BpfnicError, match=message):
        nic.run()


def test_what_each_unit_grants_is_kept_apart(nic):
    """The table of grants lies before the threads' states: an entry too few, and instructions were counted that no
    program did."""
    nic.write(FAULT, Fault.HOST)
    nic.offer(0, bytes(64))
    assert nic.run()
    (packet,) = nic.packets()
    assert packet.ran and packet.instructions == 0
    assert nic.counts().retired == 0


def test_an_empty_frame_is_refused_by_name(nic):
    with pytest.raises(BpfnicError, match="0 bytes"):
        nic.offer(0, b"")


def test_waves_are_readable(tmp_path):
    pywellen = pytest.importorskip("pywellen", reason="Surfer's reader of waves (pip install pywellen)")
    path = tmp_path / "out.fst"
    nic = Simulation(build_loopback(tmp_path, waves=True), path)
    nic.offer(0, bytes(range(64)), 100)
    assert nic.run()
    entered = nic.packets()[0].entered
    nic.close()
    waves = pywellen.Waveform(str(path))
    assert str(waves.timescale) == "1ns"
    changes = waves["shell.nic.s_axis_port0_tdata"].tv
    beats = [int.from_bytes(bytes(range(i, i + 8)), "little") for i in range(0, 64, 8)]
    assert [value for _, value in changes if value] == beats
    assert next(time for time, value in changes if value) == entered * 8  # 8 ns a clock
    assert entered == 100


def test_waves_need_a_build_that_has_them(library, tmp_path):
    with pytest.raises(BpfnicError, match="without waves"):
        Simulation(library, tmp_path / "out.fst")
