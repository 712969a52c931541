"""What the registers of map commands do, on the reference and on the hardware, and how many accesses an entry takes."""

import random
from collections.abc import Sequence
from errno import E2BIG, EEXIST, EINVAL, ENOENT

import pytest

from bpfnic.host.device import DeviceOptions
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.maps import MapDefinition
from bpfnic.sim.golden.device import GoldenTransport
from bpfnic.sim.rtl.device import RtlTransport
from bpfnic.spec.maps import MapType, UpdateFlag
from bpfnic.spec.registers import BY_NAME, STATUS_DONE_BIT, MapCommand, command

pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC
TRANSPORTS = {"golden": GoldenTransport, "rtl": RtlTransport}
CPUS = 16  # the size that other tests build too


class Counting:
    """A transport that counts the accesses of registers."""

    def __init__(self, transport):
        self.transport = transport
        self.accesses = 0

    def read(self, address: int) -> int:
        self.accesses += 1
        return self.transport.read(address)

    def read_all(self, addresses: Sequence[int]) -> list[int]:
        return [self.read(address) for address in addresses]

    def write(self, address: int, value: int) -> None:
        self.accesses += 1
        self.transport.write(address, value)

    def __getattr__(self, name: str):
        return getattr(self.transport, name)


class Card:
    """A device, its registers by name, and how many accesses something took."""

    def __init__(self, backend: str):
        self.transport = Counting(TRANSPORTS[backend](DeviceOptions(threads=CPUS)))
        self.device = RegisterDevice(self.transport)

    def read(self, name: str, index: int = 0) -> int:
        return self.transport.read(BY_NAME[name].address(index))

    def write(self, name: str, value: int, index: int = 0) -> None:
        self.transport.write(BY_NAME[name].address(index), value)

    def command(self, operation: MapCommand, flags: int = 0, index: int = 0) -> None:
        self.write("MAP_COMMAND", command(index, operation, flags))

    def status(self) -> tuple[int, int]:
        """Error number, and commands that were done."""
        word = self.read("MAP_STATUS")
        return word % (1 << STATUS_DONE_BIT), word >> STATUS_DONE_BIT

    def map(self, kind: MapType = MapType.HASH, key: int = 4, value: int = 8, entries: int = 100):
        return self.device.create_map(MapDefinition("table", kind, key, value, entries))

    def cost(self, operation, *arguments) -> int:
        before = self.transport.accesses
        operation(*arguments)
        return self.transport.accesses - before


@pytest.fixture(params=TRANSPORTS)
def card(request):
    card = Card(request.param)
    yield card
    card.device.close()


def entry(number: int) -> tuple[bytes, list[bytes]]:
    return number.to_bytes(4, "little"), [(number << 32 | number).to_bytes(8, "little")]


# Commands


def test_commands_are_counted_up_to_one_that_fails(card):
    table = card.map()
    table.update(*entry(5))
    assert card.status() == (0, 0)
    card.write("MAP_KEY", 5)
    for operation in (MapCommand.LOOKUP, MapCommand.FIRST, MapCommand.RESERVE):
        card.command(operation)
    card.command(MapCommand.INSERT, UpdateFlag.NOEXIST)  # fails, and with it what comes behind
    card.command(MapCommand.DELETE)
    card.command(MapCommand.FIRST, index=255)
    assert card.status() == (EEXIST, 3)
    assert card.status() == (0, 0)
    assert table.lookup(entry(5)[0]) == entry(5)[1]
    card.command(MapCommand.FIRST, index=255)
    assert card.status() == (EINVAL, 0)
    card.write("MAP_COMMAND", 9 << 8)
    assert card.status() == (EINVAL, 0)


def test_a_command_that_finds_a_value_sets_the_address(card):
    table = card.map()
    for number in (1, 2):
        table.update(*entry(number))
    for number in (1, 2):
        card.write("MAP_ADDRESS", 0)
        card.write("MAP_KEY", number)
        card.command(MapCommand.LOOKUP)
        assert [card.read("MAP_DATA"), card.read("MAP_DATA")] == [number, number]
    seen = []
    for operation in (MapCommand.FIRST, MapCommand.NEXT):
        card.command(operation)
        seen.append((card.read("MAP_KEY"), card.read("MAP_DATA"), card.read("MAP_DATA")))
    assert sorted(seen) == [(1, 1, 1), (2, 2, 2)]
    card.command(MapCommand.NEXT)
    assert card.status() == (ENOENT, 4)


def test_behind_a_failure_data_goes_nowhere(card):
    """Until MAP_ADDRESS is written, or a command finds a value."""
    table = card.map()
    table.update(*entry(1))
    card.write("MAP_KEY", 1)
    card.command(MapCommand.LOOKUP)
    before = card.read("MAP_ADDRESS")
    card.write("MAP_KEY", 3)
    card.command(MapCommand.LOOKUP)
    for _ in range(2):
        card.write("MAP_DATA", 0xDEADBEEF)
        assert card.read("MAP_DATA") == 0 and card.read("MAP_ADDRESS") == before
        card.read("MAP_STATUS")
    assert table.lookup(entry(1)[0]) == entry(1)[1]
    card.command(MapCommand.LOOKUP, index=255)
    card.write("MAP_ADDRESS", before)
    card.write("MAP_DATA", 7)
    assert card.status() == (EINVAL, 0)
    assert table.lookup(entry(1)[0]) == [(1 << 32 | 7).to_bytes(8, "little")]
    card.write("MAP_KEY", 1)
    card.command(MapCommand.LOOKUP, index=255)
    assert card.status() == (EINVAL, 0)
    card.command(MapCommand.LOOKUP)
    assert card.read("MAP_DATA") == 7


@pytest.mark.parametrize("size", [1, 3, 4, 5, 8, 13, 64])
def test_what_lies_behind_a_key_does_not_count(card, size):
    chance = random.Random(size)
    table = card.map(key=size)
    key, value = chance.randbytes(size), chance.randbytes(8)
    table.update(key, [value])

    def set_key() -> None:
        data = key + chance.randbytes(64 - size)
        for i in range(16):
            card.write("MAP_KEY", int.from_bytes(data[4 * i : 4 * i + 4], "little"), i)

    set_key()
    card.command(MapCommand.LOOKUP)
    assert card.status() == (0, 1)
    assert card.read("MAP_DATA") | card.read("MAP_DATA") << 32 == int.from_bytes(value, "little")
    set_key()
    card.command(MapCommand.FIRST)
    shown = b"".join(card.read("MAP_KEY", i).to_bytes(4, "little") for i in range(16))
    assert shown == key + bytes(64 - size)
    set_key()
    card.command(MapCommand.DELETE)
    assert card.status() == (0, 2)
    assert table.dump() == {}


# The driver


def test_how_many_accesses_an_entry_takes(card):
    """Keys of 4 bytes and values of 8: the words of key and value, the commands, and MAP_STATUS."""
    table, count = card.map(), 100
    entries = [entry(number) for number in range(count)]
    assert card.cost(table.update, *entries[0]) == 1 + 1 + 2 + 1 + 1
    assert card.cost(table.lookup, entries[0][0]) == 1 + 1 + 1 + 2
    assert card.cost(table.delete, entries[0][0]) == 1 + 1 + 1
    assert card.cost(table.update_batch, entries) <= 5.1 * count
    assert card.cost(table.dump) <= 4.1 * count + 80
    assert table.dump() == {key: values for key, values in entries}
    assert card.cost(table.delete_batch, [key for key, _ in entries]) <= 2.1 * count
    assert table.dump() == {}


def test_copies_of_every_cpu_take_an_address_each(card):
    table, count = card.map(MapType.PERCPU_HASH), 20
    values = [number.to_bytes(8, "little") for number in range(CPUS)]
    addresses = 1 + CPUS - 1  # that of the first is read
    assert card.cost(table.update, bytes(4), values) == 1 + 1 + addresses + 2 * CPUS + 1 + 2
    assert card.cost(table.lookup, bytes(4)) == 1 + 1 + 1 + addresses + 2 * CPUS
    table.update_batch([(number.to_bytes(4, "little"), values) for number in range(count)])
    assert table.dump() == {number.to_bytes(4, "little"): values for number in range(count)}


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE])
@pytest.mark.parametrize("value", [1, 2, 3, 4, 6, 8, 13])
@pytest.mark.parametrize("key", [5, 16])
def test_batches_of_every_size(card, kind, key, value):
    """Values of one and two bytes lie side by side."""
    chance = random.Random(value)
    table = card.device.create_map(MapDefinition("table", kind, key, value, 150, flags=kind is MapType.LPM_TRIE))
    head = (8 * (key - 4)).to_bytes(4, "little") if kind is MapType.LPM_TRIE else b""
    keys = {head + chance.randbytes(key - len(head)) for _ in range(150 if key > 5 else 90)}
    entries = {one: [chance.randbytes(value)] for one in keys}
    table.update_batch(entries.items())
    assert table.dump() == entries
    for one in list(entries)[::3]:
        assert table.lookup(one) == entries[one]
        table.update(one, [bytes(value)])
        entries[one] = [bytes(value)]
    assert table.dump() == entries
    gone = list(entries)[::2]
    table.delete_batch(gone)
    assert table.dump() == {one: values for one, values in entries.items() if one not in gone}


@pytest.mark.parametrize("first", [0, 1, 63, 64, 100])
def test_a_batch_stops_where_an_entry_is_refused(card, first):
    """By the device, or by the driver; what stands before it is done, and nothing behind it."""
    table = card.map(entries=200)
    entries = [entry(number) for number in range(150)]
    table.update(*entries[first])
    with pytest.raises(FileExistsError, match=f"entry {first}: ") as caught:
        table.update_batch(entries, UpdateFlag.NOEXIST)
    assert caught.value.errno == EEXIST
    assert sorted(table.keys()) == sorted(key for key, _ in entries[: first + 1])
    with pytest.raises(OSError, match=f"entry {first}: table: a key has 4 bytes, not 3"):
        table.update_batch([*entries[:first], (bytes(3), [bytes(8)]), *entries[first:]])
    with pytest.raises(FileNotFoundError, match=f"entry {first + 1}: "):
        table.delete_batch([key for key, _ in entries])
    assert table.dump() == {}
    with pytest.raises(OSError, match=f"entry {first}: table: a key has 4 bytes, not 5"):
        table.update_batch([*entries[:first], (bytes(5), [bytes(8)]), *entries[first:]])
    assert table.dump() == dict(entries[:first])


def test_a_full_map_in_the_middle_of_a_batch(card):
    table = card.map(entries=70)
    with pytest.raises(OSError, match="entry 70: ") as caught:
        table.update_batch(entry(number) for number in range(100))
    assert caught.value.errno == E2BIG
    assert table.dump() == dict(entry(number) for number in range(70))
