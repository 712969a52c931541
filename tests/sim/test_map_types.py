"""The rules of each map type, one at a time. Those that Linux makes are asked of the running kernel too."""

import random
import re
from dataclasses import replace
from errno import E2BIG, EEXIST, EINVAL, ENOENT, ENOSPC, EOPNOTSUPP, EPERM
from pathlib import Path

import pytest

from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.maps import MapDefinition
from bpfnic.sim.golden.device import open_device
from bpfnic.sim.golden.memory import Buffer
from bpfnic.spec import addresses, engine
from bpfnic.spec.assembly import assemble
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import EVENTS, OF_MAPS, QUEUES, MapFlag, MapType, UpdateFlag
from bpfnic.spec.programs import ProgramType
from bpfnic.spec.registers import ENTRY_VALID
from tests.sim.mapcard import MapCard, outcome

everywhere = pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "little")


# -- hash maps


@everywhere
@pytest.mark.parametrize("kind", ["HASH", "PERCPU_HASH"])
@pytest.mark.parametrize("who", ["update", "host_update"])
def test_a_full_map_takes_no_new_key(build, backend, kind, who):
    with MapCard(build, backend, kind, entries=3) as card:
        update = getattr(card, who)
        assert update(number(0), number(1, 8), UpdateFlag.EXIST) == ENOENT
        assert [update(number(key), number(key, 8), UpdateFlag.NOEXIST) for key in range(3)] == [0, 0, 0]
        assert update(number(1), number(9, 8), UpdateFlag.NOEXIST) == EEXIST
        assert update(number(1), number(9, 8), 3) == EINVAL
        assert update(number(3), number(3, 8)) == E2BIG
        for value in range(20):  # what is there may be replaced for ever
            assert update(number(2), number(value, 8)) == 0
        assert sorted(card.table.keys()) == [number(key) for key in range(3)]
        assert (card.delete(number(0)), card.delete(number(0)), card.host_delete(number(0))) == (0, ENOENT, ENOENT)
        assert update(number(3), number(3, 8)) == 0


@everywhere
def test_a_walk_visits_every_key(build, backend):
    """What it has passed may go meanwhile; behind a key that isn't there it starts again."""
    with MapCard(build, backend, "HASH", entries=40) as card:
        for key in range(40):
            assert card.host_update(number(key), bytes(8)) == 0
        seen: list[bytes] = []
        for key in card.table.keys():
            if seen:
                assert card.delete(seen[-1]) == 0
            seen.append(key)
        assert sorted(seen) == sorted(number(key) for key in range(40))
        assert card.host_update(number(50), bytes(8)) == 0
        assert card.table.next_key(number(99)) == card.table.next_key(None)


def test_a_walk_visits_every_key_once_though_values_change(build):
    """(In Linux a replaced entry moves to its bucket's head, so that the walk may meet it again.)"""
    with MapCard(build, "golden", "HASH", entries=40) as card:
        for key in range(40):
            assert card.update(number(key), bytes(8)) == 0
        seen = []
        for key in card.table.keys():
            assert card.update(key, number(1, 8)) == 0
            seen.append(key)
        assert len(seen) == len(set(seen)) == 40


# -- maps that evict


@everywhere
@pytest.mark.parametrize("kind", ["LRU_HASH", "LRU_PERCPU_HASH"])
@pytest.mark.parametrize("who", ["update", "host_update"])
def test_a_full_map_evicts_an_old_entry(build, backend, kind, who):
    """No update is E2BIG, there are never more entries than max_entries, and the newest are there."""
    with MapCard(build, backend, kind, entries=16) as card:
        for key in range(80):
            assert getattr(card, who)(number(key), number(key, 8)) == 0
            assert card.host_lookup(number(key)) == number(key, 8)
        keys = {int.from_bytes(key, "little") for key in card.table.keys()}
        assert 0 < len(keys) <= 16 and max(keys) == 79 and min(keys) >= 80 - 2 * 16


@pytest.mark.parametrize("kind", ["LRU_HASH", "LRU_PERCPU_HASH"])
def test_what_was_used_longest_ago_goes(build, kind):
    with MapCard(build, "golden", kind, entries=4) as card:
        for key in range(4):
            assert card.update(number(key), number(key, 8)) == 0
        assert card.lookup(number(0)) == bytes(8)  # by the program: used
        assert card.update(number(1), number(7, 8)) == 0
        assert card.host_lookup(number(2)) == number(2, 8)  # by the host: not
        assert card.update(number(2), bytes(8), UpdateFlag.NOEXIST) == EEXIST  # nor what is refused
        order = []
        for key in range(4, 8):
            before = set(card.table.keys())
            assert card.host_update(number(key), number(key, 8)) == 0
            order += before - set(card.table.keys())
        assert order == [number(2), number(3), number(0), number(1)]


def test_replacing_in_a_full_map_evicts_nothing(build):
    with MapCard(build, "golden", "LRU_HASH", entries=2) as card:
        for key in (1, 2, 2, 1, 2, 2):
            assert card.update(number(key), bytes(8)) == 0
        assert sorted(card.table.keys()) == [number(1), number(2)]


# -- a value for each CPU


@pytest.mark.parametrize("kind", ["PERCPU_HASH", "LRU_PERCPU_HASH"])
def test_each_cpu_has_its_value(build, kind):
    """An update by a program sets its CPU's; the others of a new key are zeros, whatever was there before."""
    key = number(5)
    with MapCard(build, "golden", kind, entries=2, cpus=4) as card:
        for _ in range(8):  # so that every place is used again
            for card.cpu in range(4):
                assert card.lookup(key) == (None if card.cpu == 0 else bytes(8))
                assert card.update(key, number(10 + card.cpu, 8)) == 0
            assert card.table.lookup(key) == [number(10 + cpu, 8) for cpu in range(4)]
            card.cpu = 2
            assert card.lookup(key, add=True) == number(12, 8)
            assert card.table.lookup(key) == [number(value, 8) for value in (10, 11, 13, 13)]
            assert card.delete(key) == 0
        card.table.update(key, [number(cpu, 8) for cpu in range(4)])
        for card.cpu in range(4):
            assert card.lookup(key) == number(card.cpu, 8)


# -- longest prefix match


def prefix(text: str) -> bytes:
    """The key of "10.0.0.0/8"."""
    address, length = text.split("/")
    return number(int(length)) + bytes(int(part) for part in address.split("."))


@everywhere
@pytest.mark.parametrize("who", ["", "host_"])
def test_longest_prefix_wins(build, backend, who):
    with MapCard(build, backend, "LPM_TRIE", key=8, entries=4, flags="BPF_F_NO_PREALLOC") as card:
        update, lookup, delete = (getattr(card, who + name) for name in ("update", "lookup", "delete"))
        assert lookup(prefix("10.1.2.3/32")) is None
        for length, text in ((0, "0.0.0.0/0"), (8, "10.255.255.255/8"), (16, "10.1.0.0/16"), (32, "10.1.2.3/32")):
            assert update(prefix(text), number(length, 8)) == 0
        found = {text: lookup(prefix(text)) for text in ("10.1.2.3/32", "10.1.2.4/32", "10.2.0.0/32", "11.0.0.0/32")}
        assert [value[0] for value in found.values()] == [32, 16, 8, 0]
        assert lookup(prefix("10.1.2.3/31"))[0] == 16  # a shorter key matches no longer prefix
        assert lookup(prefix("10.1.2.3/33")) is None and delete(prefix("10.1.2.3/33")) == EINVAL
        assert update(prefix("10.1.2.3/33"), bytes(8)) == EINVAL
        assert update(prefix("12.0.0.0/8"), bytes(8)) == ENOSPC
        assert update(prefix("12.0.0.0/8"), bytes(8), UpdateFlag.EXIST) == ENOENT
        assert update(prefix("10.9.9.9/8"), number(80, 8), UpdateFlag.NOEXIST) == EEXIST
        assert update(prefix("10.9.9.9/8"), number(80, 8)) == 0  # bits behind the prefix don't count
        assert lookup(prefix("10.2.0.0/32"))[0] == 80
        assert prefix("10.9.9.9/8") in list(card.table.keys())  # as it was last written
        assert delete(prefix("10.2.0.0/16")) == ENOENT and delete(prefix("10.1.9.9/16")) == 0
        assert lookup(prefix("10.1.2.4/32"))[0] == 80
        assert len(list(card.table.keys())) == 3


@everywhere
def test_not_every_type_can_look_up_and_delete(build, backend):
    with MapCard(build, backend, "LPM_TRIE", key=8, entries=4, flags="BPF_F_NO_PREALLOC") as card:
        assert outcome(lambda: card.table.pop(bytes(8))) == EOPNOTSUPP
        assert outcome(lambda: card.maps["answers"].pop(bytes(4))) == EOPNOTSUPP


# -- what the host may do

def _host_results(card: MapCard, key: bytes) -> dict[str, int]:
    """The error numbers of every operation of the host."""
    value = [bytes(8)]
    return {
        "update": outcome(lambda: card.table.update(key, value)),
        "lookup": outcome(lambda: card.table.lookup(key)),
        "getnext": outcome(lambda: card.table.next_key(None)),
        "pop": outcome(lambda: card.table.pop(key)),
        "delete": outcome(lambda: card.table.delete(key)),
        "freeze": outcome(card.table.freeze),
    }


@pytest.mark.linux
@pytest.mark.parametrize("flags", ["0", "BPF_F_RDONLY", "BPF_F_WRONLY"])
@pytest.mark.parametrize("kind", ["ARRAY", "HASH", "LRU_HASH", "LPM_TRIE", "QUEUE", "STACK"])
def test_access_of_the_host(build, kind, flags):
    """RDONLY, WRONLY and frozen maps: EPERM for what the host may not do, on golden as in Linux; programs go on."""
    size = {"QUEUE": 0, "STACK": 0, "LPM_TRIE": 8}.get(kind, 4)
    if kind == "LPM_TRIE":
        flags += " | BPF_F_NO_PREALLOC"
    results = {}
    for backend in ("golden", "linux"):
        with MapCard(build, backend, kind, key=size, entries=4, flags=flags) as card:
            results[backend] = [_host_results(card, bytes(size)), _host_results(card, bytes(size))]
            if not size:
                results[backend] += [card.push(number(7, 8)), card.pop()]
            else:
                results[backend] += [card.update(bytes(size), number(7, 8)), card.lookup(bytes(size))]
    assert results["golden"] == results["linux"]
    assert results["golden"][1]["update"] == EPERM  # whatever the flags, it is frozen by then
    assert results["golden"][2] == 0


@everywhere
def test_batches(build, backend):
    """In the order given, up to the first that is refused."""
    with MapCard(build, backend, "HASH", entries=4) as card:
        entries = [(number(key), [number(key, 8)]) for key in range(6)]
        with pytest.raises(OSError, match="entry 4: Argument list too long") as error:
            card.table.update_batch(entries)
        assert error.value.errno == E2BIG
        assert card.table.dump() == dict(entries[:4])
        with pytest.raises(OSError, match="entry 0: File exists"):
            card.table.update_batch(entries[1:3], UpdateFlag.NOEXIST)
        with pytest.raises(FileNotFoundError, match="entry 2: No such file"):
            card.table.delete_batch([number(0), number(3), number(5), number(1)])
        assert card.table.dump() == dict(entries[1:3])


# -- values without keys


@everywhere
@pytest.mark.parametrize("kind", ["QUEUE", "STACK"])
def test_which_value_comes_next(build, backend, kind):
    """The oldest of a QUEUE, the newest of a STACK; an empty map gives zeros and ENOENT; a full one drops its oldest
    value where the flags say EXIST."""
    with MapCard(build, backend, kind, key=0, entries=3) as card:
        assert card.peek() == card.pop() == (ENOENT, bytes(8))
        assert card.host_lookup(b"") is None and card.host_pop() is None
        assert [card.push(number(1, 8)), card.host_update(b"", number(2, 8)), card.push(number(3, 8))] == [0, 0, 0]
        assert card.push(number(4, 8)) == card.host_update(b"", number(4, 8)) == E2BIG
        assert card.push(number(4, 8), UpdateFlag.NOEXIST) == card.host_update(b"", number(4, 8), 3) == EINVAL
        following = 3 if kind == "STACK" else 1
        assert card.peek() == (0, number(following, 8)) and card.host_lookup(b"") == number(following, 8)
        assert card.push(number(5, 8), UpdateFlag.EXIST) == 0  # 1 goes
        left = [5, 3, 2] if kind == "STACK" else [2, 3, 5]
        assert card.pop() == (0, number(left[0], 8))
        assert card.host_pop() == number(left[1], 8)
        assert card.pop() == (0, number(left[2], 8))
        assert card.pop()[0] == ENOENT


@pytest.mark.parametrize(
    ("kind", "key", "call"),
    [("HASH", 4, 87), ("ARRAY", 4, 88), ("LRU_HASH", 4, 89), ("QUEUE", 0, 1), ("STACK", 0, 2), ("QUEUE", 0, 3)],
)
def test_helpers_of_other_types_abort(build, kind, key, call):
    with MapCard(build, "golden", kind, key=key, entries=3) as card:
        nic = card.device._transport.nic
        code = assemble(f"r1 = {addresses.map_handle(card.table.index)} ll\nr2 = r10\nr2 += -8\nr3 = r2\nr4 = 0\n"
                        f"call {call}\nexit")  # fmt: skip
        for at in range(0, len(code), 8):
            nic.code.write(at // 8, code[at : at + 8])
        nic.registers.set("ENTRY", 0, ENTRY_VALID)
        (packet,) = card.device.run([Arrival(0, bytes(64))]).packets
        assert packet.cause is Cause.MAP


def test_places_of_a_queue_are_none_lost(build):
    """Whatever is refused, replaced, read or left in the middle."""
    chance = random.Random(1)
    with MapCard(build, "golden", "QUEUE", key=0, entries=3, cpus=2) as card:
        for step in range(400):
            flags = chance.choice((0, 1, 2))
            chance.choice([
                lambda flags=flags: card.push(bytes(8), flags), card.pop, card.peek, card.host_pop,
                lambda flags=flags: card.host_update(b"", bytes(8), flags), lambda: card.host_lookup(b""),
            ])()  # fmt: skip
            card.cpu = step % 2
        while card.host_pop() is not None:
            pass
        queue = card.device._transport.nic.maps.queues[card.table.index]
        held = [*queue.free, *queue.reserved.values(), *queue.read.values()]
        assert sorted(held) == list(range(3 + 2 + 1)) and not queue.queued


def test_half_a_value_is_never_seen(build):
    """A program that pops or peeks stands in the middle of its copy while every other place is used several times."""
    with MapCard(build, "golden", "QUEUE", key=0, value=24, entries=3) as card:
        nic = card.device._transport.nic
        for step, remove in enumerate((True, False)):
            value = bytes([step + 1]) * 24
            assert card.host_update(b"", value) == 0
            thread, _ = nic.prepare(0, ProgramType.XDP, Buffer(bytes(64), 2048), 0, None)
            taking = nic.maps.take(remove, thread, 0, addresses.map_handle(card.table.index), addresses.STACK)
            next(taking)  # it has its place next
            next(taking)
            for other in range(40):
                assert card.host_update(b"", bytes([100 + other]) * 24, UpdateFlag.EXIST) == 0
            for _ in taking:
                pass
            assert bytes(thread.memory.stack[:24]) == value
            while card.host_pop() is not None:
                pass
        queue = nic.maps.queues[card.table.index]
        assert len(queue.free) + len(queue.reserved) == 3 + 1 + 1


def test_the_document_has_every_type_that_golden_has():
    text = (Path(__file__).parents[2] / "docs" / "maps.md").read_text()
    rows = re.findall(r"^\| ([A-Z_, ]+) \| yes \|", text, re.MULTILINE)
    named = {name for row in rows for name in row.split(", ")}
    assert named == {kind.name for kind in engine.MAP_TYPES}


# -- refusals


@pytest.mark.parametrize(
    ("kind", "shape", "why"),
    [
        ("LRU_HASH", {"flags": "BPF_F_NO_PREALLOC"}, "flag NO_PREALLOC is not for this map type"),
        ("HASH", {"flags": "BPF_F_NO_COMMON_LRU"}, "flag NO_COMMON_LRU is not for this map type"),
        ("PERCPU_HASH", {"flags": "BPF_F_NUMA_NODE | BPF_F_LINK"}, "flag NUMA_NODE, LINK is not for this map type"),
        ("HASH", {"flags": "BPF_F_RDONLY | BPF_F_WRONLY"}, "flags RDONLY, WRONLY leave no access"),
        ("LPM_TRIE", {"key": 8}, "flag NO_PREALLOC must be given for this map type"),
        ("LPM_TRIE", {"key": 4, "flags": "BPF_F_NO_PREALLOC"}, "a key has 5 to 64 bytes, not 4"),
        ("STACK", {"key": 4}, "such a map has no keys, not one of 4 bytes"),
        ("QUEUE", {"key": 0, "flags": "BPF_F_NO_PREALLOC"}, "flag NO_PREALLOC is not for this map type"),
        ("LRU_HASH", {"key": 65}, "a key has 1 to 64 bytes, not 65"),
        ("LRU_PERCPU_HASH", {"entries": 0}, "max_entries is 0"),
        ("PERCPU_HASH", {"entries": 10000, "cpus": 2},
         "max_entries 10000 takes 371200 bytes of map memory, 240128 more than golden has"),
    ],
)  # fmt: skip
def test_refusals_name_map_and_field(build, kind, shape, why):
    with pytest.raises(BpfnicError, match=rf"^map table \({kind}\): {why}"):
        MapCard(build, "golden", kind, **{"entries": 4} | shape)



def test_a_refused_map_leaves_the_device_as_it_was():
    """Whatever is wrong with it, whatever its type: one line, and all of map memory and all descriptors are free."""
    device = open_device(DeviceOptions(threads=8, maps=8))
    has = device.capabilities
    for kind in has.map_types - EVENTS:
        key = 0 if kind in QUEUES else 8 if kind is MapType.LPM_TRIE else 4
        flags = MapFlag.NO_PREALLOC if kind is MapType.LPM_TRIE else MapFlag(0)
        inner = MapDefinition("inner", MapType.ARRAY, 4, 4, 1) if kind in OF_MAPS else None
        good = MapDefinition("table", kind, key, 4, 4, flags, inner=inner)
        wrong = [{"key_size": 65}, {"key_size": 3 if key == 8 else 0 if key else 4}, {"value_size": 0},
                 {"value_size": 4097}, {"max_entries": 0}, {"max_entries": 1 << 31}, {"max_entries": (1 << 32) - 1},
                 {"flags": flags | MapFlag.CLONE}, {"flags": flags | MapFlag.RDONLY | MapFlag.WRONLY}]  # fmt: skip
        for change in wrong:
            with pytest.raises(BpfnicError) as caught:
                device.create_map(replace(good, **change))
            (field,) = change
            named = {"key_size": "key", "value_size": "value|program|map takes", "flags": "flag"}.get(field, field)
            assert re.fullmatch(rf"map table \({kind.name}\): .*({named}).*", str(caught.value))
        for _ in range(9):
            device.destroy_map(device.create_map(good))
    whole = [device.create_map(MapDefinition(f"all{n}", MapType.ARRAY, 4, has.map_bytes // 32, 4)) for n in range(8)]
    assert len(whole) == has.maps
