"""Calls of every helper with random arguments, rtl and golden in lockstep: each instruction, also those of routines, is
compared, and at the end packets, counters and maps."""

import errno
import random
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bpfnic.host.bench import Bench
from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.host.nic import Nic, open
from bpfnic.host.object import Object
from bpfnic.host.registermaps import RegisterMap
from bpfnic.spec import addresses, helpers
from bpfnic.spec.causes import Cause
from bpfnic.spec.helpernotes import ERRORS
from bpfnic.spec.helpers import Argument, Helper
from bpfnic.spec.programs import ProgramType

PROGRAM = Path(__file__).parent / "program.bpf.c"
OPTIONS = DeviceOptions(threads=8, budget=20_000)
"""A budget that bpf_loop can spend. Threads enough that they meet at maps."""
MOST = 1000
"""Calls in one run."""
ROOM = addresses.STACK_TOP - 64
WORDS = 14
"""Of a packet: arguments, what is on the stack, and whether the packet passes."""
SMALL = (0, 0, 0, 0, 1, 1, 2, 3, 4, 8, 10, 16)
EDGES = (5, 7, 12, 14, 20, 24, 31, 32, 63, 64, 64, 100, 0xFFFF, 0x10000, 1 << 23, (1 << 23) + 1, 1 << 31, 0xFFFFFFFF,
         1 << 32, (1 << 32) + 8, 200 << 32, 1 << 63, -1, -2, -4, -14, -100)  # fmt: skip
LETTERS = b"0123456789abcdefABCDEFxX- +\t\0%dulspI46c,\xff"
FORMATS = (b"%s%s%d", b"%s%s%s", b"%d %u", b"%pI4 %pI6 %s", b"%x%lx%c", b"%s%d%s", b"%s" * 9 + b"%d")
MAPS = {
    "map_push_elem": ("queue", "stack"),
    "map_pop_elem": ("queue", "stack"),
    "map_peek_elem": ("queue", "stack"),
    "ringbuf_output": ("ring",),
    "ringbuf_reserve": ("ring",),
    "ringbuf_query": ("ring",),
    "perf_event_output": ("events",),
    "tail_call": ("programs",),
    "redirect_map": ("ports", "queues"),
    "for_each_map_elem": ("array", "percpu_array"),
    "map_lookup_percpu_elem": ("percpu_array", "percpu_hash"),
}
"""What a helper takes; the others take maps with keys."""
KEYED = ("array", "percpu_array", "hash", "percpu_hash", "lru", "lpm")
CONTENT = {"ports": [(number.to_bytes(4, "little"), [(number + 1).to_bytes(4, "little")], 0) for number in range(2)]}


@dataclass
class Outcome:
    """What came of the calls of one helper: how many, and what they returned or were ended by."""

    helper: Helper
    calls: int = 0
    results: Counter[str] = field(default_factory=Counter)
    difference: str = ""

    @property
    def missing(self) -> list[str]:
        """Errors that the helper is documented to give and that no call gave."""
        documented = {name for name in ERRORS.get(self.helper.name, {}) if not name.startswith("(")}
        return sorted(documented - set(self.results))


def offered() -> list[Helper]:
    """The helpers that an XDP or tc program may call on this NIC, but for bpf_spin_lock: whose lock is not given back,
    nobody gets again."""
    return [helper for helper in helpers.HELPERS if helper.programs & {ProgramType.XDP, ProgramType.SCHED_CLS}
            and helper.number not in helpers.REFUSED and helper.name != "spin_lock"]  # fmt: skip


def _of_tc(helper: Helper) -> bool:
    """It is called by a tc program, because an XDP one may not."""
    return ProgramType.XDP not in helper.programs


def fuzz(helper: Helper, calls: int, seed: int, say: Callable[[str], None] = lambda text: None) -> Outcome:
    """Random calls of a helper. They end with the first difference."""
    chance, outcome = random.Random(f"{seed} {helper.name}"), Outcome(helper)
    callback = ["CALLBACK"] if helper.takes and Argument.FUNCTION in helper.takes else []
    obj = open(PROGRAM, define=[f"NUMBER={helper.number}", *callback, *["TC"] * _of_tc(helper)])
    places = _places(obj)
    while outcome.calls < calls and not outcome.difference:
        count = min(MOST, calls - outcome.calls)
        arrivals = [Arrival(number % 2, _packet(chance, helper, places)) for number in range(count)]
        evidence, verdict = Bench("rtl", obj, arrivals, options=OPTIONS, entries=[CONTENT],
                                  unsafe=True).in_lockstep()  # fmt: skip
        if not verdict["equal"]:
            outcome.difference = "\n".join([verdict["difference"], *verdict["trace"]])
            break
        assert evidence is not None
        for packet, arrival in zip(evidence.traffic.packets, arrivals, strict=True):
            if packet.verdict is None:
                outcome.results[Cause(packet.cause).name] += 1
            elif not any(arrival.data[8 * (WORDS - 1) : 8 * WORDS]):
                outcome.results[_name(packet.verdict)] += 1
        outcome.calls += count
    say(f"{helper.name}: {outcome.calls} calls, {dict(outcome.results)}")
    return outcome


def _name(verdict: int) -> str:
    number = -(verdict - (1 << 32)) if verdict >> 31 else 0
    if verdict >> 31 == 0:
        return "0" if verdict == 0 else "a number"
    return {524: "ENOTSUPP", errno.EOPNOTSUPP: "EOPNOTSUPP"}.get(number) or errno.errorcode.get(number, "a number")


@dataclass(frozen=True)
class _Places:
    """Where the program's maps are, by name: handles, and addresses of their values."""

    handles: dict[str, int]
    values: list[int]


def _places(obj: Object) -> _Places:
    with Nic("golden", OPTIONS) as nic:
        nic.load(obj, unsafe=True)
        found = {name: held.device_map for name, held in nic.maps.items()}
        maps = {name: each for name, each in found.items() if isinstance(each, RegisterMap)}
        return _Places({name: each.handle for name, each in maps.items()},
                       [addresses.MAP_VALUES + each.base for each in maps.values()])  # fmt: skip


def _packet(chance: random.Random, helper: Helper, places: _Places) -> bytes:
    takes = [*(helper.takes or ()), *[Argument.SCALAR] * 5]
    takes = [each for each in takes if each is not Argument.ANY][:5]
    arguments = [_argument(chance, helper, each, places) for each in takes]
    match chance.randrange(4):
        case 0:
            room = bytes(chance.choices(LETTERS, k=64))
        case 1:
            room = bytes(chance.choices(LETTERS[:10], k=chance.randrange(64))).ljust(64, b"\0")
        case 2 if "trace" in helper.name:
            return _print(chance, helper)
        case _:  # keys, parameters
            room = b"".join(chance.randrange(12).to_bytes(4, "little") for _ in range(16))
    passes = int(chance.random() < 0.2)
    words = b"".join((number & (1 << 64) - 1).to_bytes(8, "little") for number in arguments)
    behind = chance.choice((b"", chance.randbytes(40), b"x" * 600))
    return words + room + passes.to_bytes(8, "little") + behind


def _print(chance: random.Random, helper: Helper) -> bytes:
    """A format that is none of the wrong ones, and pointers to a long string for it, in registers or in an array."""
    array = addresses.PACKET + addresses.HEADROOM + 8 * WORDS
    string = array + 96 + chance.choice((0, 300, 595))
    words = [string if chance.random() < 0.8 else chance.choice(EDGES) & (1 << 64) - 1 for _ in range(12)]
    three = [array, 96, 0] if helper.name == "trace_vprintk" else words[:3]
    room = chance.choice(FORMATS).ljust(64, b"\0")
    return struct.pack("<5Q64sQ12Q600s", ROOM, 64, *three, room, 0, *words, b"x" * 600)


def _argument(chance: random.Random, helper: Helper, kind: Argument, places: _Places) -> int:
    """Mostly what the helper takes; now and then anything."""
    if chance.random() < 0.05:
        kind = chance.choice(list(Argument))
    if kind is Argument.MAP:
        suitable = MAPS.get(helper.name, KEYED)
        return places.handles[chance.choice(suitable if chance.random() < 0.9 else list(places.handles))]
    if kind is Argument.CONTEXT:
        return addresses.SKB_CONTEXT if _of_tc(helper) else addresses.CONTEXT
    if kind in (Argument.SIZE, Argument.SIZE_OR_ZERO, Argument.RECORD_SIZE):
        return chance.choice((chance.randrange(65), chance.randrange(65), 64, chance.choice(EDGES)))
    if kind in (Argument.SCALAR, Argument.ANY):
        return chance.choice((chance.choice(SMALL), chance.choice(SMALL), chance.choice(EDGES),
                              chance.randrange(-20, 200), chance.getrandbits(64)))  # fmt: skip
    if kind in (Argument.READ_OR_NULL, Argument.LOCAL_OR_NULL) and chance.random() < 0.2:
        return 0
    return _pointer(chance, places)


def _pointer(chance: random.Random, places: _Places) -> int:
    """To the stack's words, and with less luck into other windows, to their ends, to nothing."""
    packet = addresses.PACKET + addresses.HEADROOM
    return chance.choices(
        (
            ROOM + chance.choice((0, 0, 0, 8, 16, chance.randrange(64))),
            packet + chance.choice((8 * WORDS, chance.randrange(160))),
            chance.choice(places.values) + chance.choice((0, 0, 8, chance.randrange(32))),
            addresses.STACK_TOP - chance.randrange(24),
            addresses.CONTEXT + 4 * chance.randrange(17),
            chance.choice((0, 8, chance.getrandbits(32), chance.getrandbits(64), addresses.PACKET + 10)),
        ),
        weights=(70, 14, 8, 3, 2, 3),
    )[0]
