"""Values with a spin lock (struct bpf_spin_lock): what programs and the host do with them, as the kernel has it."""

import random
import struct
from errno import E2BIG, EBUSY, EEXIST, EINVAL, ENOENT

import pytest

import bpfnic
from bpfnic.host import lockstep
from bpfnic.host.device import Arrival, Pacing
from bpfnic.spec.maps import UpdateFlag
from tests.sim.bench import ONE_CORE, TWO_CORES
from tests.sim.mapcard import outcome

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct account {
	__u32 before[BEFORE];
	struct bpf_spin_lock lock;
	__u32 behind[BEHIND];
};
struct request {
	__u32 operation, flags, key;
	struct account value;
};
struct {
	__uint(type, BPF_MAP_TYPE_KIND);
	__uint(max_entries, 3);
	__type(key, __u32);
	__type(value, struct account);
} accounts SEC(".maps");

SEC("xdp") int bank(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	struct account *account;
	__u32 key;

	if ((void *)(request + 1) > (void *)(long)ctx->data_end)
		return 99;
	if (request->operation == 1)
		return -bpf_map_update_elem(&accounts, &request->key, &request->value, request->flags);
	key = request->key;
	account = bpf_map_lookup_elem(&accounts, &key);
	if (!account)
		return 98;
	bpf_spin_lock(&account->lock);
	if (request->operation == 2 && account->behind[BEHIND - 1] != account->behind[0] * 3) {
		bpf_spin_unlock(&account->lock);
		return 97;
	}
	account->behind[0] += 1;
	account->behind[BEHIND - 1] = account->behind[0] * 3;
	bpf_spin_unlock(&account->lock);
	return 0;
}
"""
LOCK = 4
"""BPF_F_LOCK."""
EVERYWHERE = ["golden", "rtl", pytest.param("linux", marks=pytest.mark.linux)]
pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC
SHAPES = [(1, 1), (2, 1), (2, 2), (3, 2), (1, 4), (5, 1)]  # numbers before and behind the lock


class Bank:
    """The program, and its map."""

    def __init__(self, build, backend: str, kind: str, before: int, behind: int, **size: int):
        text = PROGRAM.replace("KIND", kind).replace("BEFORE", str(before)).replace("BEHIND", str(behind))
        self.before, self.behind = before, behind
        self.nic = bpfnic.Nic(backend, **size)
        self.program = self.nic.load(build(text))
        self.table = self.nic.maps["accounts"]

    def __enter__(self) -> "Bank":
        return self

    def __exit__(self, *_: object) -> None:
        self.nic.close()

    def value(self, first: int, lock: int) -> bytes:
        """Numbers from `first` on, and what a program or the host says for the lock."""
        numbers = list(range(first, first + self.before + 1 + self.behind))
        numbers[self.before] = lock
        return struct.pack(f"<{len(numbers)}I", *numbers)

    def update(self, key: int, value: bytes, flags: int = 0) -> int:
        return self._run(struct.pack("<3I", 1, flags, key) + value)

    def change(self, key: int) -> int:
        return self._run(struct.pack("<3I", 0, 0, key) + bytes(len(self.value(0, 0))))

    def changed(self, value: bytes) -> bytes:
        """What `change` makes of a value."""
        numbers = list(struct.unpack(f"<{len(value) // 4}I", value))
        numbers[self.before] = 0
        numbers[self.before + 1] += 1
        numbers[-1] = numbers[self.before + 1] * 3
        return struct.pack(f"<{len(numbers)}I", *numbers)

    def read(self, key: int) -> bytes:
        return self.table.device_map.lookup(key.to_bytes(4, "little"))[0]

    def write(self, key: int, value: bytes, flags: int = 0) -> None:
        self.table.device_map.update(key.to_bytes(4, "little"), [value], flags)

    def host_update(self, key: int, value: bytes, flags: int = 0) -> int:
        return outcome(lambda: self.write(key, value, flags))

    def _run(self, packet: bytes) -> int:
        found = self.program.test_run(packet.ljust(64, b"\0"))
        assert found.retval is not None, found.cause
        return found.retval


@pytest.mark.parametrize("backend", EVERYWHERE)
@pytest.mark.parametrize("kind", ["ARRAY", "HASH"])
@pytest.mark.parametrize("before, behind", SHAPES)
def test_nobody_copies_a_lock(build, backend, kind, before, behind):
    """Whoever updates a value may say anything for its lock: it stays free, and reads as 0."""
    with Bank(build, backend, kind, before, behind) as bank:
        for flags in (0, LOCK, UpdateFlag.EXIST | LOCK, 0):
            value = bank.value(10 + flags, 0xFFFFFFFF)
            assert bank.update(1, value, flags) == 0
            assert bank.read(1) == bank.value(10 + flags, 0)
            assert bank.change(1) == 0
            assert bank.read(1) == bank.changed(value)
        bank.write(2, bank.value(50, 0xFFFFFFFF))
        assert bank.read(2) == bank.value(50, 0)
        assert bank.change(2) == 0
        for flags in (0, LOCK):
            bank.write(2, bank.value(70 + flags, 0xFFFFFFFF), flags)
            assert bank.change(2) == 0
            assert bank.read(2) == bank.changed(bank.value(70 + flags, 0))
        dumped = bank.table.device_map.dump()
        assert dumped[bytes([2, 0, 0, 0])] == [bank.read(2)]


@pytest.mark.parametrize("backend", EVERYWHERE)
@pytest.mark.parametrize("kind", ["ARRAY", "HASH"])
@pytest.mark.parametrize("who", ["update", "host_update"])
def test_flags_with_a_lock(build, backend, kind, who):
    with Bank(build, backend, kind, 1, 1) as bank:
        update, value = getattr(bank, who), bank.value(1, 0)
        assert update(0, value) == 0
        found = [update(0, value, flags) for flags in range(10)]
        assert found == [0, EEXIST, 0, EINVAL, 0, EEXIST, 0, EINVAL, EINVAL, EINVAL]
        missing = [update(7, value, flags) for flags in (LOCK | UpdateFlag.EXIST, LOCK, LOCK | UpdateFlag.NOEXIST)]
        assert missing == ([ENOENT, 0, EEXIST] if kind == "HASH" else [E2BIG] * 3)


@pytest.mark.parametrize("kind", ["ARRAY", "HASH"])
def test_the_host_waits_for_a_lock(build, kind):
    """One that nobody leaves is EBUSY in the end; the value is as it was, and so it is where no lock is asked for."""
    with Bank(build, "golden", kind, 1, 1) as bank:
        bank.write(1, bank.value(1, 0))
        memory, base = bank.table.device_map._memory, bank.table.device_map.base
        value = next(at for at in range(base, base + 4096, 4) if memory.read(at, 12) == bank.value(1, 0))
        memory.write(value + 4, b"\1\0\0\0")
        assert bank.host_update(1, bank.value(5, 0), LOCK) == EBUSY
        assert bank.read(1) == bank.value(1, 0)
        memory.write(value + 4, bytes(4))
        assert bank.host_update(1, bank.value(5, 0), LOCK) == 0
        assert (bank.read(1), bank.change(1)) == (bank.value(5, 0), 0)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_a_lock_that_is_not_there(build, backend):
    """BPF_F_LOCK for a map whose values have none."""
    text = PROGRAM.replace("struct bpf_spin_lock lock", "__u32 lock").replace("bpf_spin_lock(", "(void)(")
    text = text.replace("bpf_spin_unlock(", "(void)(").replace("BEFORE", "1").replace("BEHIND", "1")
    for kind in ("ARRAY", "HASH"):
        with bpfnic.Nic(backend) as nic:
            program = nic.load(build(text.replace("KIND", kind)))
            packets = [struct.pack("<6I", 1, flags, 1, 1, 2, 3).ljust(64, b"\0") for flags in (0, LOCK, LOCK | 1)]
            found = [program.test_run(packet).retval for packet in packets]
            assert found == [0, EINVAL, EEXIST if kind == "ARRAY" else EINVAL]


def transactions(chance: random.Random, count: int) -> list[Arrival]:
    """Changes of values of two numbers, of which the second is three times the first, and updates under their lock."""
    arrivals = []
    for number in range(count):
        operation, key, first = chance.choice([1, 2, 2]), chance.randrange(3), chance.randrange(1 << 20)
        packet = struct.pack("<7I", operation, LOCK, key, 5, 0xFFFFFFFF, first, 3 * first)
        arrivals.append(Arrival(number % 2, packet.ljust(64, b"\0")))
    return arrivals


@pytest.mark.parametrize("size", [ONE_CORE, TWO_CORES], ids=["1x16", "2x8"])
@pytest.mark.parametrize("kind", ["ARRAY", "HASH"])
def test_racing_threads_agree_in_lockstep(build, kind, size):
    """Nobody who has a lock sees half a change."""
    arrivals = transactions(random.Random(3), 500)
    with Bank(build, "rtl", kind, 1, 2, **size) as bank, Bank(build, "golden", kind, 1, 2, **size) as golden:
        for each in (bank, golden):
            each.program.attach()
            for key in range(3):
                each.write(key, struct.pack("<4I", 1, 2, 0, 0))
        outcome = lockstep.run(bank.nic.device, golden.nic.device, arrivals, Pacing(seed=3))
        assert str(outcome.difference) == "None"
        assert {packet.verdict for packet in outcome.actual.packets} == {0}
        assert bank.table.device_map.dump() == golden.table.device_map.dump()


@pytest.mark.parametrize("kind", ["ARRAY", "HASH"])
def test_the_host_takes_its_turn(build, kind):
    """While programs change values, the host updates them under their lock."""
    chance = random.Random(4)
    with Bank(build, "rtl", kind, 1, 2, **ONE_CORE) as bank:
        bank.program.attach()
        for key in range(3):
            bank.write(key, struct.pack("<4I", 1, 2, 0, 0))
        written = 0

        def step(_) -> None:
            nonlocal written
            first = chance.randrange(1 << 20)
            bank.write(chance.randrange(3), struct.pack("<4I", 1, 2, first, 3 * first), LOCK)
            written += 1

        traffic = bank.nic.run(transactions(chance, 1000), Pacing(seed=4), on_step=step)
        assert written > 1
        assert {packet.verdict for packet in traffic.packets} == {0}
