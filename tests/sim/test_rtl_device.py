"""The backend rtl at its registers: what a run records is what happened, on one core and on two, judged by the golden
NIC that replays it."""

import random
from dataclasses import replace

import pytest

from bpfnic.host.device import Arrival, DeviceOptions, Pacing
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.sim.rtl.device import RtlTransport
from bpfnic.spec import addresses, registers
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import XdpAction

HOST = 2
SIZES = {"one core": DeviceOptions(), "two cores": DeviceOptions(cores=2, threads=8)}
pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

# Every thread draws a ticket and writes down who drew it; the clock and a random number decide what becomes of it.
TICKETS = f"""
    r6 = *(u32 *)(r1 + 0)
    r7 = {addresses.MAP_VALUES:#x} ll
    r8 = 1
    r8 = atomic_fetch_add((u64 *)(r7 + 0), r8)
    *(u64 *)(r6 + 1) = r8
    call 5
    *(u64 *)(r7 + 13) = r0
    r9 = *(u64 *)(r7 + 9)
    *(u32 *)(r10 - 4) = r9
    call 7
    r0 ^= r9
    r1 = *(u32 *)(r10 - 4)
    r0 += r1
    *(u16 *)(r6 + 11) = r0
    r0 &= 3
    exit
"""


def write(nic, name, value, index=0):
    nic.write(registers.BY_NAME[name].address(index), value)


def read(nic, name, index=0):
    return nic.read(registers.BY_NAME[name].address(index))


def prepare(nic, source):
    """Load a program for both ports; what is full waits."""
    code = assemble(source)
    write(nic, "PROGRAM_ADDRESS", 0)
    for at in range(0, len(code), 4):
        write(nic, "PROGRAM_DATA", int.from_bytes(code[at : at + 4], "little"))
    write(nic, "MAP_ADDRESS", 0)
    for _ in range(8):
        write(nic, "MAP_DATA", 0)
    for port in range(HOST):
        write(nic, "IFINDEX", port + 1, port)
        write(nic, "ENTRY", registers.ENTRY_VALID, port)
    for interface in range(HOST + 1):
        write(nic, "MODE", registers.MODE_INGRESS_WAITS | registers.MODE_EGRESS_WAITS, interface)
    write(nic, "CONTROL", registers.CONTROL_ENABLE)
    return nic


@pytest.fixture(params=SIZES)
def options(request):
    return SIZES[request.param]


@pytest.fixture
def nic(options):
    transport = RtlTransport(options)
    yield transport
    transport.close()


def frames(count, seed=1):
    rng = random.Random(seed)
    return [
        Arrival(rng.randrange(3), rng.randbytes(rng.choice((14, 20, 60, 64, 65, 300, 1514))), error=rng.random() < 0.05)
        for _ in range(count)
    ]


def test_transmit_at_once(nic):
    prepare(nic, "r0 = 3\nexit")
    arrivals = [Arrival(number % 2, bytes([number]) * 64) for number in range(100)]
    traffic = nic.run(arrivals, Pacing(), None, None, False)
    for arrival, packet in zip(arrivals, traffic.packets, strict=True):
        assert (packet.accepted, packet.action, packet.verdict) == (True, XdpAction.XDP_TX, 3)
        assert (packet.egress, packet.data) == (arrival.interface, arrival.data)
        assert (packet.cause, packet.instructions) == (Cause.NONE, 2)
        assert 0 < packet.started < packet.finished
    assert [departure.data for departure in traffic.departures if departure.egress == 1] == [
        arrival.data for arrival in arrivals if arrival.interface == 1
    ]
    assert traffic.instructions == 200
    write(nic, "SNAPSHOT", 0)
    assert read(nic, "RETIRED") == 200 and read(nic, "CLOCKS") > traffic.clocks


@pytest.mark.parametrize("pacing", [Pacing(), Pacing(ingress_idle=50, egress_stall=50), Pacing(egress_stall=90)])
def test_a_replay_of_the_recording_agrees_step_by_step(nic, options, pacing):
    arrivals = frames(300)
    traffic = prepare(nic, TICKETS).run(arrivals, pacing, None, None, True)
    golden = prepare(GoldenTransport(options), TICKETS)
    expected = golden.run(arrivals, pacing, None, traffic.recording, True)
    measured = dict.fromkeys(("cpu", "started", "finished"))
    for found, wanted in zip(traffic.packets, expected.packets, strict=True):
        assert wanted.note == ""
        assert replace(found, **measured) == replace(wanted, **measured)
    for number in range(len(arrivals)):
        # An exit has no next instruction, so only what came before it has a next pc to compare.
        found = [step for step in traffic.retirements if step.arrival == number]
        wanted = [step for step in expected.retirements if step.arrival == number]
        assert [(step.pc, step.register, step.value) for step in found] == [
            (step.pc, step.register, step.value) for step in wanted
        ]
    tickets = sum(packet.verdict is not None for packet in traffic.packets)
    for transport in (nic, golden):
        write(transport, "MAP_ADDRESS", 0)
    words = [(read(nic, "MAP_DATA"), read(golden, "MAP_DATA")) for _ in range(8)]
    assert words[0][0] >= tickets > 100 and all(found == wanted for found, wanted in words)
    cores = {each.cpu // options.threads for executions in traffic.recording.executions for each in executions}
    assert cores == set(range(options.cores))


TURN_NS = 8
"""A frame's first beat may wait a clock, for its bank of the packet buffers is receive's in every other clock."""


def test_frames_at_their_times(nic):
    prepare(nic, "r0 = 2\nexit")
    times = (0, 1_000_000, 3_000_000_000)  # ns, of which a clock takes 8
    arrivals = [Arrival(0, bytes(64), time_ns=time_ns) for time_ns in times]
    traffic = nic.run(arrivals, Pacing(back_to_back=False), None, None, False)
    starts = [packet.started for packet in traffic.packets]
    assert [(start - starts[0]) * 8 for start in starts] == [pytest.approx(time, abs=TURN_NS) for time in times]
    assert traffic.clocks * 8 > times[-1] and nic.simulated < 100_000
    assert [departure.time_ns // 1000 for departure in traffic.departures] == [time_ns // 1000 for time_ns in times]


def test_skipped_time_passes_for_programs(nic):
    prepare(nic, "r6 = *(u32 *)(r1 + 0)\ncall 5\n*(u64 *)(r6 + 0) = r0\nr0 = 2\nexit")
    times = (0, 5_000_000_000)
    arrivals = [Arrival(0, bytes(64), time_ns=time_ns) for time_ns in times]
    traffic = nic.run(arrivals, Pacing(back_to_back=False), None, None, False)
    seen = [int.from_bytes(packet.data[:8], "little") for packet in traffic.packets]
    assert seen[1] - seen[0] == pytest.approx(times[1], abs=TURN_NS)
    assert [execution.samples for (execution,) in traffic.recording.executions] == [(value,) for value in seen]


def test_registers_and_progress_while_traffic_flows(nic):
    prepare(nic, "r0 = 3\nexit")
    seen = []

    def on_step(progress):
        write(nic, "SNAPSHOT", 0)
        counts = {name: read(nic, name) for name in ("RECEIVED", "TRANSMITTED", "IN_FLIGHT")}
        assert counts["RECEIVED"] == counts["TRANSMITTED"] + counts["IN_FLIGHT"]
        seen.append(progress)

    nic.run([Arrival(0, bytes(64))] * 3000, Pacing(), on_step, None, False)
    assert len(seen) > 4 and seen[-1].done == seen[-1].total == 3000
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)


def test_a_nic_that_is_not_enabled_stands_still(nic):
    nic._simulation.set_watchdog(5000)
    with pytest.raises(BpfnicError, match="nothing has moved for 5000 clocks, with 1 frames not done"):
        nic.run([Arrival(0, bytes(64))], Pacing(), None, None, False)


def test_the_clocks_of_registers_are_no_standing_still(nic):
    prepare(nic, "r0 = 1\nexit")
    nic._simulation.set_watchdog(1500)
    for _ in range(600):
        nic.read(0)
    nic.run([Arrival(0, bytes(64))], Pacing(), None, None, False)


def test_it_can_not_replay(nic, options):
    recording = prepare(GoldenTransport(options), "r0 = 2\nexit").run(
        [Arrival(0, bytes(64))], Pacing(), None, None, False
    ).recording  # fmt: skip
    with pytest.raises(BpfnicError, match="can't replay"):
        nic.run([Arrival(0, bytes(64))], Pacing(), None, recording, False)


def test_sizes_that_can_not_be_are_named():
    with pytest.raises(BpfnicError, match="threads must be 8 or 16, not 5"):
        RtlTransport(DeviceOptions(threads=5))
