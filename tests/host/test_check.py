"""--check against devices that really differ: golden NICs with one fault each, in the program store, in the packet path
or in a counter. What is reported must be the fault that was put in."""

import json
import re
import struct
from dataclasses import replace

import pytest

from bpfnic.host import check, nic, pcap, run
from bpfnic.host.check import Evidence
from bpfnic.host.device import Arrival, Departure, DeviceOptions, Pacing, PacketResult, Recording, Traffic
from bpfnic.host.driver import RegisterDevice
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.spec import registers
from bpfnic.spec.programs import TcAction, XdpAction

SOURCE = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); }
    seen SEC(".maps");
SEC("xdp") int mark(struct xdp_md *ctx)
{
    unsigned char *data = (void *)(long)ctx->data;
    if (data + 14 > (unsigned char *)(long)ctx->data_end)
        return XDP_ABORTED;
    __u32 key = 1;
    __u64 *count = bpf_map_lookup_elem(&seen, &key);
    if (count)
        __sync_fetch_and_add(count, 0x55);
    if (data[12] == 0x99)
        return XDP_DROP;
    data[5] = 0x77;
    return XDP_TX;
}
"""
FRAMES = [bytes([0xAA] * 12 + [mark] + [0] * 51) for mark in (1, 2, 0x99, 3)]


class Faulty(GoldenTransport):
    """A golden NIC in which, when a program is written, halves of slots that hold `was` become `becomes`."""

    name = "faulty"
    was = becomes = None

    def __init__(self, options):
        super().__init__(options)
        honest, data = self.write, registers.BY_NAME["PROGRAM_DATA"].address()

        def write(address, value):
            honest(address, self.becomes if address == data and value == self.was else value)

        self.write = write


@pytest.fixture
def files(tmp_path):
    """The program and the capture."""
    source, capture = tmp_path / "mark.bpf.c", tmp_path / "in.pcapng"
    source.write_text(SOURCE)
    packets = [pcap.Packet(1000 * i, frame) for i, frame in enumerate(FRAMES)]
    pcap.write(capture, pcap.Capture([pcap.Interface("eth0")], packets))
    return source, capture


@pytest.fixture
def install(monkeypatch):
    """Makes NICs of a class the backend "faulty"."""
    real = nic.open_device

    def install(transport_class):
        def open_device(backend, options):
            return RegisterDevice(transport_class(options)) if backend == "faulty" else real(backend, options)

        monkeypatch.setattr(nic, "open_device", open_device)

    return install


@pytest.fixture
def job(files, install):
    """Runs the job with --check on a NIC of the class it is given."""

    def job(transport_class, **changes):
        install(transport_class)
        program, capture = files
        asked = run.Job(program=program, capture=capture, backend="faulty", **{"check": True} | changes)
        return run.run(asked)["check"]

    return job


def with_fault(was, becomes):
    return type("WithFault", (Faulty,), {"was": was, "becomes": becomes})


def line_of(text):
    return 1 + SOURCE.splitlines().index(next(line for line in SOURCE.splitlines() if text in line))


def test_no_fault_no_difference(job):
    assert job(Faulty) == {"reference": "golden", "equal": True}


def test_a_wrong_constant_is_found_at_its_instruction_and_line(job):
    """The comparison with 0x99 becomes one with 0x98: packet 2 goes on."""
    found = job(with_fault(0x99, 0x98))
    assert not found["equal"] and found["packet"] == 2
    assert found["difference"] == "packet 2 (64 bytes at port0), verdict: faulty XDP_TX (3), golden XDP_DROP (1)"
    trace = "\n".join(found["trace"])
    assert "packet 2, instruction" in trace and "0x99" in trace
    assert f"mark.bpf.c:{line_of('data[12] == 0x99')}: " in trace
    assert re.search(r"next pc: faulty instruction \d+, golden instruction \d+", trace)


def test_the_command_line_shows_a_difference_and_exits_with_1(bpfnic, files, install):
    source, capture = files
    arguments = ["run", source, "--pcap", capture, "--backend", "faulty", "--check"]
    install(Faulty)
    status, out, _ = bpfnic(*arguments)
    assert (status, out.splitlines()[-1]) == (0, "faulty = golden")
    install(with_fault(0x99, 0x98))
    status, out, _ = bpfnic(*arguments)
    assert status == 1
    assert "faulty differs from golden: packet 2 (64 bytes at port0), verdict: " in out
    assert re.search(r"^  packet 2, instruction \d+: if w\d == 0x99 goto", out, re.MULTILINE)
    status, out, _ = bpfnic(*arguments, "--json")
    assert status == 1 and json.loads(out)["check"]["packet"] == 2


def test_lockstep_stops_at_the_instruction(bpfnic, files, install, tmp_path):
    source, capture = files
    arguments = ["run", source, "--pcap", capture, "--backend", "faulty", "--lockstep"]
    install(Faulty)
    status, out, _ = bpfnic(*arguments, "--out", tmp_path / "out.pcapng")
    assert status == 0 and (tmp_path / "out.pcapng").exists()
    assert re.fullmatch(r"faulty = golden, in each of \d+ instructions", out.splitlines()[-1])
    assert "verdict" in out
    install(with_fault(0x99, 0x98))
    status, out, _ = bpfnic(*arguments)
    assert status == 1
    lines = out.splitlines()
    first = re.fullmatch(
        r"faulty differs from golden: packet 2 \(64 bytes at port0\), "
        r"next pc: faulty instruction (\d+), golden instruction (\d+)",
        lines[0],
    )
    at = int(re.fullmatch(r"  packet 2, instruction (\d+): if w\d == 0x99 goto \+.*", lines[1])[1])
    assert int(first[1]) == at + 1 != int(first[2])
    assert lines[2] == f"  mark.bpf.c:{line_of('data[12] == 0x99')}: if (data[12] == 0x99)"
    registers = [line.split() for line in lines if re.match(r"   +r\d+ ", line)]
    assert [line[0] for line in registers] == [f"r{number}" for number in range(11)]
    assert all(line[1] == line[2] for line in registers)
    assert [f"instruction {at + 1}", f"instruction {first[2]}", "<"] == re.split(r"  +", lines[-1 - lines[::-1].index(
        next(line for line in lines if line.startswith("    pc ")))].strip())[1:]
    assert len([line for line in lines if re.match(r"      instruction \d+: ", line)]) == 15
    status, out, _ = bpfnic(*arguments, "--json")
    report = json.loads(out)
    assert status == 1 and report["check"]["packet"] == 2 and not report["check"]["equal"]
    assert report["packets"] is report["maps"] is None


def test_lockstep_compares_what_instructions_do_not_show(job):
    class LosesAByte(Faulty):
        def run(self, *arguments):
            traffic = super().run(*arguments)
            traffic.packets[1].data = traffic.packets[1].data[:-1]
            return traffic

    found = job(LosesAByte, check=False, lockstep=True)
    assert found["difference"] == "packet 1 (64 bytes at port0), length: faulty 63 bytes, golden 64 bytes"
    assert found["trace"] == ["every instruction did the same on both: the difference is outside the program"]


def test_a_wrong_byte_is_found_with_its_offset_and_register(job):
    found = job(with_fault(0x77, 0x78))
    assert found["difference"] == "packet 0 (64 bytes at port0), byte 5: faulty 0x78, golden 0x77"
    trace = "\n".join(found["trace"])
    assert "r1: faulty 0x78, golden 0x77" in trace
    assert "w1 = 0x77" in trace and "mark.bpf.c:" in trace  # clang sets the register early, for another line


def test_a_wrong_map_value_is_found_with_its_key(job):
    """Four packets add 0x56 instead of 0x55."""
    found = job(with_fault(0x55, 0x56))
    assert found["packet"] is None
    assert found["difference"] == (
        "map seen, key 01 00 00 00: faulty 58 01 00 00 00 00 00 00, golden 54 01 00 00 00 00 00 00"
    )
    assert found["trace"][0].startswith("packet 0, instruction")


def test_an_access_more_than_recorded_is_found(job):
    """The jump over the shared addition is taken where it should not be: the replay can't follow."""

    class SkipsTheAddition(Faulty):
        def run(self, arrivals, *how):
            traffic = super().run(arrivals, *how)
            traffic.recording.shared.pop()
            return traffic

    found = job(SkipsTheAddition)
    assert not found["equal"] and found["packet"] == 3


def test_a_fault_outside_programs_is_said_to_be_there(job):
    class LosesAByte(Faulty):
        def run(self, *arguments):
            traffic = super().run(*arguments)
            traffic.packets[1].data = traffic.packets[1].data[:-1]
            return traffic

    found = job(LosesAByte)
    assert found["difference"] == "packet 1 (64 bytes at port0), length: faulty 63 bytes, golden 64 bytes"
    assert found["trace"] == ["every instruction did the same on both: the difference is outside the program"]


def test_a_wrong_counter_is_found(job):
    class CountsTwice(Faulty):
        def __init__(self, options):
            super().__init__(options)
            honest, sent = self.read, registers.BY_NAME["SENT"].address(0)
            self.read = lambda address: 2 * honest(address) if address == sent else honest(address)

    assert job(CountsTwice)["difference"] == "counter SENT: faulty [6, 0, 0, 0], golden [3, 0, 0, 0]"


# -- what depends on time: frames that a NIC may lose -----------------------------------------------------------------

LOSSY = Pacing(back_to_back=False, lossless=False)


class Loses(Faulty):
    """Has no buffer for packet 1 and no place in the queue for packet 3, and counts both."""

    def run(self, arrivals, *how):
        kept = super().run([arrivals[0], *arrivals[2:]], *how)
        where = [0, 2, 3]
        packets = [PacketResult(False)] * len(arrivals)
        for number, packet in zip(where, kept.packets, strict=True):
            packets[number] = packet
        packets[3] = replace(packets[3], data=None, egress=None)
        executions = [kept.recording.executions[0], (), *kept.recording.executions[1:]]
        recording = Recording(executions, [where[number] for number in kept.recording.shared])
        departures = [replace(kept.departures[0], arrival=0)]
        self.read = self._counting(self.read, len(arrivals[1].data), len(arrivals[3].data))
        return Traffic(packets, departures, recording=recording)

    @staticmethod
    def _counting(honest, refused_bytes, dropped_bytes):
        more = {"RECEIVED": 1, "RECEIVED_BYTES": refused_bytes, "REFUSED_FULL": 1}
        more |= {"SENT": -1, "SENT_BYTES": -dropped_bytes, "EGRESS_DROPPED": 1}
        added = {registers.BY_NAME[name].address(0): change for name, change in more.items()}
        return lambda address: honest(address) + added.get(address, 0)


def test_frames_lost_for_want_of_room_are_no_difference_where_that_may_happen(job):
    assert job(Loses, timing="pps=1000") == {"reference": "golden", "equal": True}


def test_frames_lost_where_that_may_not_happen_are_a_difference(job):
    found = job(Loses)
    assert not found["equal"] and found["packet"] == 3


def test_a_frame_that_vanishes_uncounted_is_a_difference(job):
    class Forgets(Faulty):
        def run(self, *arguments):
            traffic = super().run(*arguments)
            traffic.packets[3].egress = traffic.packets[3].data = None
            return traffic

    assert "counter SENT" in job(Forgets, timing="pps=1000")["difference"]


# -- parts ------------------------------------------------------------------------------------------------------------


def test_overtaking_is_a_difference_only_between_the_same_interfaces():
    arrivals = [Arrival(0, FRAMES[0]), Arrival(1, FRAMES[0]), Arrival(0, FRAMES[0])]
    packets = [PacketResult(True, XdpAction.XDP_TX, 3, egress=1, data=FRAMES[0])] * 3

    def evidence(order):
        departures = [Departure(1, FRAMES[0], number) for number in order]
        return Evidence("device", None, Traffic(packets, departures), {}, {})

    def difference(order):
        return check.compare(evidence(order), evidence(order), arrivals, range(3), Pacing())

    assert difference([0, 1, 2]) is difference([1, 0, 2]) is difference([0, 2, 1]) is None
    found = difference([1, 2, 0])
    assert (found.packet, found.what) == (0, "order from interface 0 to interface 1")


def test_the_recording_of_a_part_names_the_same_programs():
    recording = Recording(["a", (), "c", "d", "of d"], [3, 0, 2, 4, 3], clones=[3])
    part = check.part_of(recording, [0, 2, 3])
    assert part == Recording(["a", "c", "d", "of d"], [2, 0, 1, 3, 2], clones=[2])


def test_only_refusals_for_want_of_a_buffer_depend_on_time():
    arrivals = [
        Arrival(0, bytes(60)),
        Arrival(0, bytes(13)),
        Arrival(0, bytes(60), error=True),
        Arrival(0, bytes(1793)),
    ]
    refused = Traffic([PacketResult(False)] * 4, [])
    assert check.replayable(arrivals, refused, 1792) == [1, 2, 3]
    taken = Traffic([PacketResult(True)] * 4, [])
    assert check.replayable(arrivals, taken, 1792) == [0, 1, 2, 3]


def test_the_fault_is_in_the_device(job):
    """The fault injection itself: the store of a NIC with a fault holds what was put there."""
    transport = with_fault(0x99, 0x98)(DeviceOptions())
    address, data = registers.BY_NAME["PROGRAM_ADDRESS"].address(), registers.BY_NAME["PROGRAM_DATA"].address()
    transport.write(address, 0)
    for word in struct.unpack("<2I", bytes.fromhex("b700000099000000")):
        transport.write(data, word)
    transport.write(address, 0)
    assert [transport.read(data), transport.read(data)] == [0xB7, 0x98]


def test_verdicts_have_the_names_of_their_type():
    capabilities = nic.open_device("golden", DeviceOptions()).capabilities
    sides = [Evidence("golden", capabilities, Traffic([PacketResult(True, XdpAction.XDP_DROP, r0)], []), {}, {}, {}, (),
                      TcAction) for r0 in (2, 4)]  # fmt: skip
    found = check.compare_one_by_one(*sides)
    assert (found.what, found.actual, found.expected) == ("verdict", "SHOT (2)", "STOLEN (4)")
