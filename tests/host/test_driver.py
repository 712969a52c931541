"""The driver against a NIC of registers (the golden model behind its transport): what it writes there is read back from
map memory and the program store, and what the NIC does with packets shows that both agree on addresses."""

import errno
import struct

import pytest

from bpfnic.host import nic
from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.maps import MapDefinition
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.spec import registers
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.instruction import SLOT_BYTES
from bpfnic.spec.maps import MapType, UpdateFlag
from bpfnic.spec.programs import XdpAction

FRAME = bytes(range(64))
THREADS = 8


@pytest.fixture
def transport():
    return GoldenTransport(DeviceOptions(threads=THREADS, map_bytes=4096, maps=4, program_slots=64))


@pytest.fixture
def device(transport):
    return RegisterDevice(transport)


def address(name, index=0):
    return registers.BY_NAME[name].address(index)


def key(index):
    return struct.pack("<I", index)


def array(name, value_size, entries, kind=MapType.ARRAY, key_size=4):
    return MapDefinition(name, kind, key_size, value_size, entries)


def memory(transport, start, size):
    """Bytes of map memory, through the registers alone."""
    transport.write(address("MAP_ADDRESS"), start)
    return b"".join(struct.pack("<I", transport.read(address("MAP_DATA"))) for _ in range(0, size, 4))


# -- the device says what it is --


def test_capabilities_are_those_of_the_device_asked_for(device):
    has = device.capabilities
    assert (has.cpus, has.ports, has.program_slots, has.map_bytes, has.maps) == (THREADS, 2, 64, 4096, 4)
    assert {MapType.ARRAY, MapType.PERCPU_ARRAY} <= has.map_types


class OtherRegisters(GoldenTransport):
    """A real NIC, but for the register named in `lies`."""

    lies = {}

    def __init__(self):
        super().__init__(DeviceOptions())
        honest = self.read
        self.read = lambda where: self.lies.get(where, honest(where))


def test_something_else_at_the_address_is_no_device():
    transport = OtherRegisters()
    transport.lies = {address("MAGIC"): 0xFFFFFFFF}
    with pytest.raises(BpfnicError, match="no bpfnic answers there .*0xffffffff"):
        RegisterDevice(transport)


def test_another_major_version_is_refused_and_a_newer_minor_one_is_not():
    transport = OtherRegisters()
    transport.lies = {address("VERSION"): 0x0003_0000}
    with pytest.raises(BpfnicError, match="register map has version 3, not 2"):
        RegisterDevice(transport)
    transport.lies = {address("VERSION"): registers.VERSION + 1}
    RegisterDevice(transport)


# -- arrays in map memory --


@pytest.mark.parametrize(
    ("value_size", "stride"), [(1, 1), (2, 2), (3, 8), (4, 4), (5, 8), (8, 8), (12, 16), (24, 24), (100, 104)]
)
def test_values_lie_at_their_stride(transport, device, value_size, stride):
    entries = 5
    created = device.create_map(array("values", value_size, entries))
    content = [bytes([16 * i + 1 + j % 15 for j in range(value_size)]) for i in range(entries)]
    for i in (3, 0, 4, 1, 2):
        created.update(key(i), [content[i]])
    lying = memory(transport, created.base, -(-stride * entries // 4) * 4)
    assert [lying[i * stride :][:value_size] for i in range(entries)] == content
    assert created.dump() == {key(i): [content[i]] for i in range(entries)}
    assert [created.lookup(key(i)) for i in range(entries)] == [[value] for value in content]


def test_bases_and_copies_are_multiples_of_16(device):
    first = device.create_map(array("bytes", 1, 3))
    second = device.create_map(array("each", 4, 5, MapType.PERCPU_ARRAY))
    third = device.create_map(array("last", 8, 1))
    assert [one.base % 16 for one in (first, second, third)] == [0, 0, 0]
    assert second.base >= first.base + 16
    assert third.base >= second.base + THREADS * 32


def test_a_per_cpu_array_holds_a_value_for_each_cpu(transport, device):
    created = device.create_map(array("each", 4, 5, MapType.PERCPU_ARRAY))
    values = [struct.pack("<I", 100 + cpu) for cpu in range(THREADS)]
    created.update(key(2), values)
    assert created.lookup(key(2)) == values
    for cpu in range(THREADS):
        assert memory(transport, created.base + cpu * 32 + 2 * 4, 4) == values[cpu]
    assert created.lookup(key(1)) == [bytes(4)] * THREADS


def errno_of(call, *arguments):
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return caught.value.errno


def test_errors_are_the_kernels(device):
    """array_map_lookup_elem, array_map_update_elem, array_map_delete_elem, array_map_get_next_key of Linux 6.18."""
    created = device.create_map(array("four", 8, 4))
    value = [bytes(8)]
    assert errno_of(created.lookup, key(4)) == errno.ENOENT
    assert errno_of(created.update, key(4), value) == errno.E2BIG
    assert errno_of(created.update, key(0), value, UpdateFlag.NOEXIST) == errno.EEXIST
    assert errno_of(created.update, key(4), value, 3) == errno.EINVAL
    assert errno_of(created.update, key(0), [bytes(7)]) == errno.EINVAL
    assert errno_of(created.lookup, b"\0") == errno.EINVAL
    assert errno_of(created.delete, key(0)) == errno.EINVAL
    assert created.next_key(None) == created.next_key(key(4)) == created.next_key(key(0xFFFFFFFF)) == key(0)
    assert created.next_key(key(0)) == key(1)
    assert errno_of(created.next_key, key(3)) == errno.ENOENT
    created.update(key(3), value, UpdateFlag.EXIST)
    assert list(created.keys()) == [key(i) for i in range(4)]


@pytest.mark.parametrize(
    ("definition", "says"),
    [
        (
            array("trace", 8, 4, MapType.STACK_TRACE),
            r"map trace \(STACK_TRACE\): golden does not have this map type; it has ARRAY,",
        ),
        (array("keyless", 8, 4, MapType.HASH, key_size=0), r"map keyless \(HASH\): a key has 1 to 64 bytes, not 0"),
        (array("wide", 8, 4, key_size=8), "map wide .* key has 4 bytes, not 8"),
        (array("none", 8, 0), "map none .*max_entries is 0"),
        (array("void", 0, 4), "map void .*value has 1 to 4096 bytes, not 0"),
        (array("long", 4097, 1), "map long .*value has 1 to 4096 bytes, not 4097"),
        (array("big", 8, 520), "map big .*: max_entries 520 takes 4160 bytes of map memory, 64 more than golden has"),
        (array("each", 8, 70, MapType.PERCPU_ARRAY), "map each .*: max_entries 70 takes 4480 bytes of .*, 384 more"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_map_that_cannot_be_is_refused_by_name(device, definition, says):
    with pytest.raises(BpfnicError, match=says):
        device.create_map(definition)
    device.create_map(array("all", 8, 512))  # and nothing was taken


def test_a_hash_map_has_the_kernels_errors_and_keeps_what_it_holds(device):
    """htab_map_update_elem, htab_map_delete_elem, htab_map_get_next_key of Linux 6.18."""
    table = device.create_map(array("table", 12, 2, MapType.HASH, key_size=6))
    one, two, three, value = b"first1", b"second", b"third3", [bytes(range(12))]
    assert errno_of(table.next_key, None) == errno.ENOENT
    assert errno_of(table.lookup, one) == errno_of(table.delete, one) == errno.ENOENT
    assert errno_of(table.update, one, value, UpdateFlag.EXIST) == errno.ENOENT
    assert errno_of(table.update, one, value, 3) == errno.EINVAL
    table.update(one, value)
    table.update(two, [b"two" * 4], UpdateFlag.NOEXIST)
    assert errno_of(table.update, one, value, UpdateFlag.NOEXIST) == errno.EEXIST
    assert errno_of(table.update, three, value) == errno.E2BIG
    table.update(one, [b"new!" * 3], UpdateFlag.EXIST)
    assert table.dump() == {one: [b"new!" * 3], two: [b"two" * 4]}
    assert table.next_key(table.next_key(None)) in (one, two)
    table.delete(two)
    table.update(three, value)
    assert table.dump() == {one: [b"new!" * 3], three: value}


def test_full_map_memory_and_descriptors_are_refused_and_nothing_leaks(device):
    first = device.create_map(array("first", 8, 256))
    with pytest.raises(BpfnicError, match="map second .*takes 2064 bytes .*of golden; 2048 of 4096 are free"):
        device.create_map(array("second", 8, 258))
    others = [device.create_map(array(f"m{i}", 8, 2)) for i in range(3)]
    with pytest.raises(BpfnicError, match="map fifth .*takes a map descriptor of golden; 0 of 4 are free"):
        device.create_map(array("fifth", 8, 2))
    for one in (first, *others):
        device.destroy_map(one)
    device.create_map(array("all", 8, 512))


def test_map_memory_that_was_used_before_reads_zero(device):
    first = device.create_map(array("first", 8, 4))
    first.update(key(1), [b"leftover"])
    device.destroy_map(first)
    second = device.create_map(array("second", 8, 4))
    assert second.base == first.base
    assert second.dump() == {key(i): [bytes(8)] for i in range(4)}


# -- programs --

SWITCH = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u32); }
    verdicts SEC(".maps");
SEC("xdp") int drop(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp") int transmit(struct xdp_md *ctx) { return XDP_TX; }
SEC("xdp") int by_map(struct xdp_md *ctx)
{
    __u32 key = 1, *verdict = bpf_map_lookup_elem(&verdicts, &key);
    return verdict ? *verdict : XDP_ABORTED;
}
SEC("xdp") int through_port_1(struct xdp_md *ctx) { return bpf_redirect(ctx->ingress_ifindex + 1, 0); }
SEC("kprobe") int other_type(void *regs) { return 0; }
SEC("xdp") int asks_who(struct xdp_md *ctx) { return bpf_get_current_pid_tgid(); }
SEC("xdp") int lengthy(struct xdp_md *ctx)
{
    volatile int n = 0;
#pragma clang loop unroll(full)
    for (int i = 0; i < 60; i++)
        n += i;
    return n;
}
char _license[] SEC("license") = "GPL";
"""


@pytest.fixture(scope="session")
def switch(tmp_path_factory):
    path = tmp_path_factory.mktemp("driver") / "switch.bpf.c"
    path.write_text(SWITCH)
    return nic.open(path)


def actions(device, count=1, interface=0, **options):
    traffic = device.run([Arrival(interface, FRAME)] * count, **options)
    return [packet.action for packet in traffic.packets]


def test_programs_lie_side_by_side_and_entry_chooses(transport, device, switch):
    drop = device.load(switch.program("drop"), {})
    transmit = device.load(switch.program("transmit"), {})
    assert (drop.entry, transmit.entry) == (0, len(drop.image))
    assert actions(device) == [XdpAction.XDP_PASS]
    device.attach(0, drop)
    assert actions(device) == [XdpAction.XDP_DROP]
    device.attach(0, transmit)
    assert actions(device) == [XdpAction.XDP_TX]
    device.attach(0, None)
    assert actions(device) == [XdpAction.XDP_PASS]
    transport.write(address("PROGRAM_ADDRESS"), 2 * transmit.entry)
    halves = [transport.read(address("PROGRAM_DATA")) for _ in range(2 * len(transmit.image))]
    encoded = b"".join(one.encode() for one in switch.program("transmit").instructions if one)
    assert struct.pack(f"<{len(halves)}I", *halves) == encoded and len(encoded) == len(transmit.image) * SLOT_BYTES


def test_a_program_is_linked_to_the_map_it_is_given(device, switch):
    other = device.create_map(array("other", 4, 2))
    verdicts = device.create_map(switch.maps["verdicts"])
    loaded = device.load(switch.program("by_map"), {"verdicts": verdicts})
    other.update(key(1), [struct.pack("<I", XdpAction.XDP_DROP)])
    verdicts.update(key(1), [struct.pack("<I", XdpAction.XDP_TX)])
    device.attach(1, loaded)
    assert actions(device, interface=1) == [XdpAction.XDP_TX]
    with pytest.raises(BpfnicError, match="map verdicts: program by_map uses it"):
        device.destroy_map(verdicts)
    with pytest.raises(BpfnicError, match="program by_map needs map verdicts"):
        device.load(switch.program("by_map"), {})


def test_interfaces_have_the_ifindex_that_was_set(device, switch):
    device.attach(0, device.load(switch.program("through_port_1"), {}))
    assert actions(device) == [XdpAction.XDP_REDIRECT]  # ports start as 1 and 2
    device.set_ifindex(1, 77)
    assert actions(device) == [XdpAction.XDP_ABORTED]
    device.set_ifindex(0, 76)
    (packet,) = device.run([Arrival(0, FRAME)]).packets
    assert (packet.action, packet.egress) == (XdpAction.XDP_REDIRECT, 1)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("other_type", "program other_type is of .*type.* .section .kprobe.*golden runs SCHED_CLS, SOCKET_FI"),
        ("asks_who", r"program asks_who: helper bpf_get_current_pid_tgid .14. at instruction \d+ .switch\.bpf\.c:\d+."),
        ("lengthy", r"program lengthy: \d+ instruction slots are more than this device's 64"),
    ],
)
def test_a_program_that_the_device_cannot_run_is_refused(device, switch, name, says):
    with pytest.raises(BpfnicError, match=says):
        device.load(switch.program(name), {})
    device.attach(0, device.load(switch.program("drop"), {}))
    assert actions(device) == [XdpAction.XDP_DROP]


def test_a_full_store_says_what_is_free(device, switch):
    program = switch.program("drop")
    loaded = [device.load(program, {}) for _ in range(64 // len(program.instructions))]
    with pytest.raises(BpfnicError, match=r"program drop takes \d+ slots of golden; 0 of 64 are free"):
        device.load(program, {})
    device.unload(loaded[3])
    assert device.load(program, {}).entry == loaded[3].entry


def test_an_attached_program_stays(device, switch):
    loaded = device.load(switch.program("drop"), {})
    device.attach(1, loaded)
    with pytest.raises(BpfnicError, match="program drop is attached to port1"):
        device.unload(loaded)
    device.attach(1, None)
    device.unload(loaded)


def test_a_place_in_use_by_packets_in_flight_is_not_given_away(switch):
    """The NIC is real; the one register that a run without clocks can't hold back shows a packet that never ends."""
    transport = OtherRegisters()
    device = RegisterDevice(transport)
    program = switch.program("drop")
    first = device.load(program, {})
    device.attach(0, first)
    actions(device, count=3)
    transport.lies = {address("OLDEST_SEQUENCE"): 2}
    device.attach(0, None)
    device.unload(first)
    assert device.load(program, {}).entry != first.entry
    transport.lies = {address("OLDEST_SEQUENCE"): 3}
    assert device.load(program, {}).entry == first.entry


def test_counters_balance(device, switch):
    device.attach(0, device.load(switch.program("drop"), {}))
    device.attach(1, device.load(switch.program("transmit"), {}))
    frames = [Arrival(i % 2, bytes(60 + i)) for i in range(20)] + [Arrival(0, bytes(10)), Arrival(1, bytes(4000))]
    device.run(frames)
    counters = device.counters()
    assert counters["RECEIVED"] == [11, 11, 0, 0]
    assert counters["DROPPED"] == [10, 0, 0, 0] and counters["TRANSMITTED"] == [0, 10, 0, 0]
    assert counters["REFUSED_ERROR"] == [1, 0, 0, 0] and counters["REFUSED_LONG"] == [0, 1, 0, 0]
    assert counters["SENT"] == [0, 10, 0, 0] and counters["SENT_BYTES"][1] == sum(60 + i for i in range(1, 20, 2))
    assert counters["RETIRED"] == 10 * 2 * 2


def test_an_update_writes_the_bytes_of_its_value_and_reads_none(device, transport, monkeypatch):
    """Read and written back, a neighbour that a program stores to in between would be lost."""
    maps = {size: device.create_map(array(f"of_{size}", size, 8)) for size in (1, 2, 3, 12)}
    for size, table in maps.items():
        for index in range(8):
            table.update(key(index), [bytes([size * 16 + index]) * size])
    before = memory(transport, 0, 1024)
    honest, reads = transport.read, []
    monkeypatch.setattr(transport, "read", lambda where: reads.append(where) or honest(where))
    for size, table in maps.items():
        table.update(key(3), [bytes([0xEE]) * size])
    assert address("MAP_DATA") not in reads
    monkeypatch.undo()
    after = memory(transport, 0, 1024)
    assert sum(one != other for one, other in zip(before, after, strict=True)) == sum(maps)
    for size, table in maps.items():
        values = [table.lookup(key(index)) for index in range(8)]
        assert values == [[bytes([0xEE if index == 3 else size * 16 + index]) * size] for index in range(8)]


def test_ports_that_lead_nowhere_do_not_start(device):
    with pytest.raises(BpfnicError, match="^golden has no ports that lead outside: its packets come with `run`$"):
        device.start()
