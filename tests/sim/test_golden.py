"""The golden NIC at its registers: what the RFC, the kernel and the spec's documents say, written out by hand."""

import pytest

from bpfnic.host.device import Arrival, DeviceOptions, Execution, Pacing, Recording, Traffic
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.spec import addresses, engine
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import XdpAction
from bpfnic.spec.registers import BY_NAME, CONTROL_ENABLE, ENTRY_VALID

FRAME = bytes(range(64))
HOST = 2


def write(nic: GoldenTransport, name: str, value: int, index: int = 0) -> None:
    nic.write(BY_NAME[name].address(index), value)


def read(nic: GoldenTransport, name: str, index: int = 0) -> int:
    return nic.read(BY_NAME[name].address(index))


def nic_with(source: str, slot: int = 0, **options: int) -> GoldenTransport:
    """A NIC with a program at `slot`, attached to port 0; port n has ifindex n + 1."""
    nic = GoldenTransport(DeviceOptions(**options))
    load(nic, source, slot)
    write(nic, "IFINDEX", 1, 0)
    write(nic, "IFINDEX", 2, 1)
    write(nic, "ENTRY", ENTRY_VALID | slot, 0)
    write(nic, "CONTROL", CONTROL_ENABLE)
    return nic


def load(nic: GoldenTransport, source: str, slot: int) -> None:
    code = assemble(source)
    write(nic, "PROGRAM_ADDRESS", 2 * slot)
    for at in range(0, len(code), 4):
        write(nic, "PROGRAM_DATA", int.from_bytes(code[at : at + 4], "little"))


def run(nic: GoldenTransport, *frames: bytes, replay: Recording | None = None, interface: int = 0) -> Traffic:
    arrivals = [Arrival(interface, frame) for frame in frames]
    return nic.run(arrivals, Pacing(), None, replay, False)


def array(nic: GoldenTransport, index: int, base: int, entries: int, size: int, cpu_stride: int = 0) -> None:
    fields = {
        "TYPE": MapType.PERCPU_ARRAY if cpu_stride else MapType.ARRAY,
        "BASE": base,
        "ENTRIES": entries,
        "STRIDE": size,
        "VALUE_SIZE": size,
        "CPU_STRIDE": cpu_stride,
    }
    for name, value in fields.items():
        write(nic, f"MAP_{name}", value)
    write(nic, "MAP_COMMIT", index)


def map_word(nic: GoldenTransport, offset: int) -> int:
    write(nic, "MAP_ADDRESS", offset)
    return read(nic, "MAP_DATA")


def test_describes_itself() -> None:
    nic = GoldenTransport(DeviceOptions(cores=2, threads=8, map_bytes=65536))
    assert bytes(read(nic, "MAGIC").to_bytes(4, "little")) == b"BPFN"
    assert (read(nic, "CORES"), read(nic, "THREADS"), read(nic, "PACKET_BUFFERS")) == (2, 8, 16)
    assert read(nic, "MAP_BYTES") == 65536
    helpers = sum(read(nic, "HELPERS", word) << 32 * word for word in range(8))
    assert {number for number in range(256) if helpers >> number & 1} == engine.HELPERS
    assert read(nic, "MAP_TYPES") == sum(1 << number for number in engine.MAP_TYPES)


def test_program_store_reads_back() -> None:
    nic = nic_with("r0 = 2\nexit", slot=7)
    write(nic, "PROGRAM_ADDRESS", 14)
    words = [read(nic, "PROGRAM_DATA") for _ in range(4)]
    assert b"".join(word.to_bytes(4, "little") for word in words) == assemble("r0 = 2\nexit")


@pytest.mark.parametrize(
    ("source", "action", "egress", "cause"),
    [
        ("r0 = 1\nexit", XdpAction.XDP_DROP, None, Cause.NONE),
        ("r0 = 2\nexit", XdpAction.XDP_PASS, HOST, Cause.NONE),
        ("r0 = 3\nexit", XdpAction.XDP_TX, 0, Cause.NONE),
        ("r1 = 2\nr2 = 0\ncall 23\nexit", XdpAction.XDP_REDIRECT, 1, Cause.NONE),
        ("r1 = 1\nr2 = 0\ncall 23\nexit", XdpAction.XDP_REDIRECT, 0, Cause.NONE),
        ("r0 = 0\nexit", XdpAction.XDP_ABORTED, None, Cause.PROGRAM),
        ("r0 = 5\nexit", XdpAction.XDP_ABORTED, None, Cause.VERDICT),
        ("r0 = 4\nexit", XdpAction.XDP_ABORTED, None, Cause.REDIRECT),
        ("r1 = 9\nr2 = 0\ncall 23\nexit", XdpAction.XDP_ABORTED, None, Cause.REDIRECT),
        ("r1 = 2\nr2 = 1\ncall 23\nexit", XdpAction.XDP_ABORTED, None, Cause.PROGRAM),
        ("r1 = 2\nr2 = 0\ncall 23\nr1 = 9\nr2 = 1\ncall 23\nr0 = 4\nexit", XdpAction.XDP_REDIRECT, 1, Cause.NONE),
        ("r0 = *(u8 *)(r0 + 0)\nexit", XdpAction.XDP_ABORTED, None, Cause.MEMORY_ACCESS),
        ("*(u32 *)(r1 + 0) = 1\nexit", XdpAction.XDP_ABORTED, None, Cause.MEMORY_ACCESS),
        ("r0 = *(u32 *)(r10 - 6)\nexit", XdpAction.XDP_ABORTED, None, Cause.MISALIGNED),
        ("r0 = *(u32 *)(r10 - 2)\nexit", XdpAction.XDP_ABORTED, None, Cause.MEMORY_ACCESS),
        ("lock *(u64 *)(r10 - 4) += r1\nexit", XdpAction.XDP_ABORTED, None, Cause.MEMORY_ACCESS),
        ("call 9\nexit", XdpAction.XDP_ABORTED, None, Cause.HELPER),
        ("r2 = r10\nr2 += -4\ncall 1\nexit", XdpAction.XDP_ABORTED, None, Cause.MAP),
        ("goto -1", XdpAction.XDP_ABORTED, None, Cause.BUDGET),
        ("goto -5", XdpAction.XDP_ABORTED, None, Cause.PROGRAM_RANGE),
        ("call pc-1 frame 0\nexit", XdpAction.XDP_ABORTED, None, Cause.CALL_DEPTH),
    ],
)
def test_outcomes(source: str, action: XdpAction, egress: int | None, cause: Cause) -> None:
    nic = nic_with(source)
    write(nic, "BUDGET", 1000)
    traffic = run(nic, FRAME)
    packet = traffic.packets[0]
    assert (packet.action, packet.egress, packet.cause) == (action, egress, cause)
    assert [departure.data for departure in traffic.departures] == ([FRAME] if egress is not None else [])
    write(nic, "SNAPSHOT", 0)
    assert read(nic, "CAUSES", cause) == (cause is not Cause.NONE)
    outcomes = ("DROPPED", "PASSED", "TRANSMITTED", "REDIRECTED", "ABORTED", "IN_FLIGHT")
    assert read(nic, "RECEIVED") == 1 == sum(read(nic, name) for name in outcomes)


@pytest.mark.parametrize(
    ("length", "counter"), [(13, "REFUSED_ERROR"), (14, None), (2048 - 256, None), (2048 - 255, "REFUSED_LONG")]
)
def test_refuses_whole_frames(length: int, counter: str | None) -> None:
    nic = nic_with("r0 = 3\nexit")
    traffic = run(nic, bytes(length))
    assert traffic.packets[0].accepted == (counter is None)
    write(nic, "SNAPSHOT", 0)
    assert read(nic, "SENT") == (counter is None)
    assert counter is None or read(nic, counter) == 1


def test_no_program_passes_to_the_host() -> None:
    nic = nic_with("r0 = 1\nexit")
    write(nic, "ENTRY", 0, 0)
    packet = run(nic, FRAME).packets[0]
    assert (packet.action, packet.verdict, packet.egress, packet.data) == (XdpAction.XDP_PASS, None, HOST, FRAME)


def test_context_names_data_and_ingress() -> None:
    source = """
        r0 = 1
        r2 = *(u32 *)(r1 + 0)
        r3 = *(u32 *)(r1 + 4)
        r4 = *(u32 *)(r1 + 12)
        r3 -= r2
        if r3 != 64 goto out
        if r4 != 1 goto out
        r5 = *(u8 *)(r2 + 63)
        if r5 != 63 goto out
        r0 = 3
    out:
        exit
    """
    assert run(nic_with(source), FRAME).packets[0].action is XdpAction.XDP_TX


@pytest.mark.parametrize(
    ("delta", "length", "result"),
    [(-216, 64, 0), (-217, 64, -22), (50, 64, 0), (51, 64, -22), (0, 64, 0), (-4, 64, 0)],
)
def test_adjust_head_limits(delta: int, length: int, result: int) -> None:
    nic = nic_with(f"r2 = {delta}\ncall 44\nif r0 == {result} goto +2\nr0 = 1\nexit\nr0 = 3\nexit")
    packet = run(nic, bytes(range(length))).packets[0]
    assert packet.action is XdpAction.XDP_TX
    kept = delta if result == 0 else 0
    expected = bytes(-kept) + bytes(range(length)) if kept < 0 else bytes(range(length))[kept:]
    assert packet.data == expected


def test_headroom_keeps_what_was_seen() -> None:
    nic = nic_with("r6 = r1\nr2 = 14\ncall 44\nr1 = r6\nr2 = -20\ncall 44\nr0 = 3\nexit")
    assert run(nic, FRAME).packets[0].data == bytes(6) + FRAME


@pytest.mark.parametrize(
    ("delta", "result"), [(2048 - 320 - 256 - 64, 0), (2048 - 320 - 256 - 63, -22), (-50, 0), (-51, -22)]
)
def test_adjust_tail_limits(delta: int, result: int) -> None:
    nic = nic_with(f"r2 = {delta}\ncall 65\nif r0 == {result} goto +2\nr0 = 1\nexit\nr0 = 3\nexit")
    packet = run(nic, FRAME).packets[0]
    assert packet.action is XdpAction.XDP_TX
    kept = delta if result == 0 else 0
    assert packet.data == (FRAME + bytes(kept) if kept >= 0 else FRAME[:kept])


def test_tail_growth_is_zero_where_the_frame_was() -> None:
    nic = nic_with("r6 = r1\nr2 = -10\ncall 65\nr1 = r6\nr2 = 20\ncall 65\nr0 = 3\nexit")
    assert run(nic, FRAME).packets[0].data == FRAME[:54] + bytes(20)


def test_stack_and_registers_start_at_zero_for_every_packet() -> None:
    source = """
        r2 = *(u64 *)(r10 - 8)
        r2 |= r6
        r2 |= r0
        *(u64 *)(r10 - 8) = -1
        r6 = 1
        r0 = 3
        if r2 == 0 goto +1
        r0 = 1
        exit
    """
    nic = nic_with(source, threads=8)
    assert {packet.action for packet in run(nic, *[FRAME] * 20).packets} == {XdpAction.XDP_TX}


UPDATE = """
    *(u32 *)(r10 - 4) = {key}
    *(u64 *)(r10 - 16) = 0x1234
    r1 = {handle} ll
    r2 = r10
    r2 += -4
    r3 = r10
    r3 += -16
    r4 = {flags}
    call 2
    if r0 == {result} goto +2
    r0 = 1
    exit
    r0 = 3
    exit
"""


@pytest.mark.parametrize(
    ("key", "flags", "result"),
    [(0, 0, 0), (3, 2, 0), (4, 0, -7), (4, 3, -22), (0, 1, -17), (4, 1, -7), (0, 3, -22), (0, 4, -22)],
)
def test_array_update(key: int, flags: int, result: int) -> None:
    nic = nic_with(UPDATE.format(key=key, flags=flags, result=result, handle=addresses.map_handle(5)))
    array(nic, 5, 64, 4, 8)
    assert run(nic, FRAME).packets[0].action is XdpAction.XDP_TX
    assert [map_word(nic, 64 + 8 * index) for index in range(4)] == [
        0x1234 if result == 0 and index == key else 0 for index in range(4)
    ]


def test_percpu_array_holds_a_value_a_cpu() -> None:
    source = UPDATE.format(key=1, flags=0, result=0, handle=addresses.map_handle(0))
    nic = nic_with(source, threads=8)
    array(nic, 0, 0, 2, 8, cpu_stride=16)
    run(nic, *[FRAME] * 3)
    assert [map_word(nic, 16 * cpu + 8) for cpu in range(8)] == [0x1234] * 3 + [0] * 5


LOOKUP = """
    *(u32 *)(r10 - 4) = {key}
    r1 = {handle} ll
    r2 = r10
    r2 += -4
    call 1
"""


def test_lookup_out_of_range_is_null() -> None:
    inside, outside = (LOOKUP.format(key=key, handle=addresses.map_handle(0)) for key in (3, 4))
    nic = nic_with(inside + "if r0 == 0 goto bad\n" + outside + "if r0 != 0 goto bad\nr0 = 3\nbad:\nexit")
    array(nic, 0, 0, 4, 4)
    assert run(nic, FRAME).packets[0].action is XdpAction.XDP_TX


# Load, add one, store: two programs that race lose an update if both load before either stores.
FIRST = LOOKUP.format(key=0, handle=addresses.map_handle(0))
RACE = FIRST + "r1 = *(u64 *)(r0 + 0)\nr1 += 1\n*(u64 *)(r0 + 0) = r1\nr0 = 3\nexit"


@pytest.mark.parametrize(
    ("order", "count"), [([0, 0, 1, 1], 2), ([0, 1, 0, 1], 1), ([1, 0, 0, 1], 1), ([1, 1, 0, 0], 2)]
)
def test_replay_makes_shared_accesses_in_the_recorded_order(order: list[int], count: int) -> None:
    nic = nic_with(RACE)
    array(nic, 0, 0, 1, 8)
    traffic = run(nic, FRAME, FRAME, replay=Recording([(Execution(0, 0),), (Execution(1, 0),)], order))
    assert map_word(nic, 0) == count
    assert [packet.note for packet in traffic.packets] == ["", ""]


def test_replay_says_which_packet_does_not_fit() -> None:
    nic = nic_with(RACE)
    array(nic, 0, 0, 1, 8)
    traffic = run(nic, FRAME, FRAME, replay=Recording([(Execution(0, 0),), (Execution(1, 0),)], [0, 0, 0, 1]))
    assert "more accesses" in traffic.packets[0].note and "recorded than" in traffic.packets[0].note
    assert "more accesses" in traffic.packets[1].note and "than were" in traffic.packets[1].note


def test_replay_gives_the_recorded_samples() -> None:
    nic = nic_with("call 5\nr6 = r0\ncall 7\nr0 += r6\nif r0 == 1007 goto +2\nr0 = 1\nexit\nr0 = 3\nexit")
    traffic = run(nic, FRAME, replay=Recording([(Execution(3, 0, (1000, 7)),)], []))
    assert (traffic.packets[0].action, traffic.packets[0].cpu) == (XdpAction.XDP_TX, 3)


def test_a_row_crossing_access_is_two_shared_accesses() -> None:
    nic = nic_with(FIRST + "r1 = 0x1122334455667788 ll\n*(u64 *)(r0 + 12) = r1\nr0 = 3\nexit")
    array(nic, 0, 0, 1, 32)
    traffic = run(nic, FRAME)
    assert traffic.recording is not None and traffic.recording.shared == [0, 0]
    assert (map_word(nic, 12), map_word(nic, 16)) == (0x55667788, 0x11223344)
