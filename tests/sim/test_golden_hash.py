"""HASH on the golden NIC, from a program and from the host (kernel: kernel/bpf/hashtab.c, man bpf)."""

from errno import E2BIG, EEXIST, EINVAL, ENOENT

import pytest

from bpfnic.host.device import Arrival, DeviceOptions, Pacing
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.spec import addresses
from bpfnic.spec.assembly import assemble
from bpfnic.spec.maps import MapType, UpdateFlag
from bpfnic.spec.registers import BY_NAME, CONTROL_ENABLE, ENTRY_VALID, MapCommand, command

ENTRIES = 4
CALL = """
    r1 = *(u32 *)(r1 + 0)
    r2 = *(u64 *)(r1 + 0)
    *(u64 *)(r10 - 16) = r2
    r2 = *(u64 *)(r1 + 8)
    *(u64 *)(r10 - 8) = r2
    r4 = *(u8 *)(r1 + 16)
    r1 = {handle} ll
    r2 = r10
    r2 += -16
    r3 = r10
    r3 += -8
    call {helper}
"""  # a key of 8 bytes, a value of 8 bytes and flags lie in the frame


class Map:
    """One HASH map of 8-byte keys and values, as program and host reach it."""

    def __init__(self) -> None:
        self.nic = GoldenTransport(DeviceOptions(threads=8))
        fields = {"TYPE": MapType.HASH, "BASE": 256, "ENTRIES": ENTRIES, "STRIDE": 8, "VALUE_SIZE": 8, "CPU_STRIDE": 0,
                  "KEY_SIZE": 8}  # fmt: skip
        for name, value in fields.items():
            self.write(f"MAP_{name}", value)
        self.write("MAP_COMMIT", 0)
        self.write("CONTROL", CONTROL_ENABLE)

    def write(self, name: str, value: int, index: int = 0) -> None:
        self.nic.write(BY_NAME[name].address(index), value)

    def read(self, name: str, index: int = 0) -> int:
        return self.nic.read(BY_NAME[name].address(index))

    def call(self, helper: int, key: int, value: int = 0, flags: int = 0) -> int:
        """r0 of a helper as a signed number: the frame carries the arguments, the verdict r0 & 0xff back."""
        code = assemble(CALL.format(handle=addresses.map_handle(0, 8), helper=helper) + "exit")
        self.write("PROGRAM_ADDRESS", 0)
        for at in range(0, len(code), 4):
            self.write("PROGRAM_DATA", int.from_bytes(code[at : at + 4], "little"))
        self.write("ENTRY", ENTRY_VALID)
        frame = key.to_bytes(8, "little") + value.to_bytes(8, "little") + bytes([flags]) + bytes(47)
        verdict = self.nic.run([Arrival(0, frame)], Pacing(), None, None, False).packets[0].verdict
        assert verdict is not None
        return verdict - (1 << 32) if verdict >> 31 else verdict

    def update(self, key: int, value: int, flags: int = 0) -> int:
        return self.call(2, key, value, flags)

    def lookup(self, key: int) -> int:
        """The address that a program gets."""
        return self.call(1, key)

    def set_key(self, key: int) -> None:
        self.write("MAP_KEY", key & 0xFFFFFFFF, 0)
        self.write("MAP_KEY", key >> 32, 1)

    def command(self, operation: MapCommand, key: int = 0, flags: int = 0) -> int:
        self.set_key(key)
        self.write("MAP_COMMAND", command(0, operation, flags))
        return self.read("MAP_STATUS") & 0xFF

    def value(self, offset: int) -> int:
        self.write("MAP_ADDRESS", offset)
        return self.next_value()

    def next_value(self) -> int:
        """The value at MAP_ADDRESS."""
        return self.read("MAP_DATA") | self.read("MAP_DATA") << 32

    def host_update(self, key: int, value: int, flags: int = 0) -> int:
        if error := self.command(MapCommand.RESERVE):
            return error
        self.write("MAP_DATA", value & 0xFFFFFFFF)
        self.write("MAP_DATA", value >> 32)
        return self.command(MapCommand.INSERT, key, flags)

    def host_lookup(self, key: int) -> int | None:
        return None if self.command(MapCommand.LOOKUP, key) else self.next_value()


def test_program_and_host_see_the_same_entries() -> None:
    table = Map()
    assert table.lookup(7) == 0 and table.host_lookup(7) is None
    assert table.update(7, 0x1122334455667788) == 0
    assert table.host_lookup(7) == 0x1122334455667788
    assert table.host_update(9, 5) == 0
    assert table.value(table.lookup(9) - addresses.MAP_VALUES) == 5
    assert table.call(3, 7) == 0
    assert table.host_lookup(7) is None and table.call(3, 7) == -ENOENT
    assert table.command(MapCommand.DELETE, 9) == 0
    assert table.lookup(9) == 0


@pytest.mark.parametrize("host", [False, True])
def test_flags_and_fullness(host: bool) -> None:
    table = Map()
    sign = 1 if host else -1
    update = table.host_update if host else table.update
    assert update(1, 1, UpdateFlag.EXIST) == sign * ENOENT
    assert update(1, 1, UpdateFlag.NOEXIST) == 0
    assert update(1, 2, UpdateFlag.NOEXIST) == sign * EEXIST
    assert update(1, 3, 3) == sign * EINVAL
    for key in range(2, ENTRIES + 1):
        assert update(key, key) == 0
    assert update(99, 0) == sign * E2BIG
    for _ in range(50):  # a full map still takes new values for its keys, again and again
        assert update(1, 77) == 0
    assert table.host_lookup(1) == 77


def test_a_replaced_value_stays_readable_and_is_reused_last() -> None:
    table = Map()
    assert table.update(1, 111) == 0
    old = table.lookup(1) - addresses.MAP_VALUES
    assert table.update(1, 222) == 0
    assert table.value(old) == 111
    places = ENTRIES + 8 + 1
    for _ in range(places - 2):
        assert table.lookup(1) - addresses.MAP_VALUES != old
        assert table.update(1, 333) == 0
    assert table.update(1, 444) == 0
    assert table.lookup(1) - addresses.MAP_VALUES == old


def test_walk_visits_every_key() -> None:
    table = Map()
    assert table.command(MapCommand.FIRST) == ENOENT
    for key in (10, 1 << 40, 12):
        assert table.host_update(key, key) == 0
    seen, status = [], table.command(MapCommand.FIRST)
    while status == 0:
        seen.append(table.read("MAP_KEY", 0) | table.read("MAP_KEY", 1) << 32)
        status = table.command(MapCommand.NEXT, seen[-1])
    assert status == ENOENT and sorted(seen) == [10, 12, 1 << 40]
    assert table.command(MapCommand.NEXT, 5) == 0  # an unknown key starts again
    assert table.read("MAP_KEY", 0) | table.read("MAP_KEY", 1) << 32 == seen[0]
