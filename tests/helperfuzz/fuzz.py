"""Calls of every helper with random arguments, rtl and golden in lockstep: each instruction, also those of routines, is
compared, and at the end packets, counters and maps."""

import errno
import random
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bpfnic.host.bench import Bench
from bpfnic.host.device import Arrival, DeviceOptions, Traffic
from bpfnic.host.nic import Nic, open
from bpfnic.host.object import Object
from bpfnic.host.registermaps import RegisterMap
from bpfnic.spec import addresses, helpers
from bpfnic.spec.causes import Cause
from bpfnic.spec.helpernotes import ERRORS
from bpfnic.spec.helpers import Argument, Helper
from bpfnic.spec.programs import ProgramType

PROGRAM = Path(__file__).parent / "program.bpf.c"
OPTIONS = DeviceOptions(budget=20_000)
"""The NIC that other tests have compiled, with a budget that bpf_loop can spend."""
MOST = 1000
"""Calls in one run."""
ROOM = addresses.STACK_TOP - 64
WORDS = 16
"""Of a packet: arguments, what is on the stack, whether the packet passes, what is done to it before the call, and how
much."""
PASSES = 13
PREPARED = ((1, 220), (1, 216), (1, 200), (2, 16), (2, 14), (2, 60), (3, 5), (4, 0), (5, 0), (6, 0))
"""Of tc packets: program.bpf.c says what each is."""
HEADERS = {
    "IPv4": bytes(12) + b"\x08\0" + b"\x45\0\0\x40" + bytes(4) + b"\x40\x11\0\0" + b"\x0a\0\0\1\x0a\0\0\2",
    "IPv6": bytes(12) + b"\x86\xdd" + b"\x60\0\0\0\0\x40\x11\x40" + bytes(15) + b"\1" + bytes(15) + b"\2",
    "tagged": bytes(12) + b"\x81\0\0\5\x08\0" + b"\x45\0\0\x40",
    "tagged twice": bytes(12) + b"\x88\xa8\0\5\x81\0\0\6\x08\0" + b"\x45\0\0\x40",
    "neither": bytes(12) + b"\x08\x06",
}
"""Of tc packets, before the words; behind them come zeros."""
HEADER_BYTES, TAG_BYTES = 64, 4  # a tag is no more in the packet when the program begins
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
    "for_each_map_elem": ("array", "percpu_array", "hash", "percpu_hash", "lru", "lru_percpu"),
    "map_lookup_percpu_elem": ("percpu_array", "percpu_hash", "lru_percpu"),
}
"""What a helper takes; the others take maps with keys."""
KEYED = ("array", "percpu_array", "hash", "percpu_hash", "lru", "lru_percpu", "lpm")
LIKELY = {
    "skb_change_proto": {1: (0x0008, 0xDD86), 2: (0,)},
    "skb_change_tail": {1: (60, 200), 2: (0,)},
    "skb_adjust_room": {1: (0, 20, 40, 100, -20), 2: (0, 1), 3: (0, 2, 4, 10, 1)},
    "skb_get_tunnel_key": {2: (44, 28), 3: (0, 1)},
    "skb_set_tunnel_key": {2: (44, 28), 3: (0, 1)},
    "skb_vlan_push": {1: (0x0081, 0xA888)},
    "strtol": {2: (0, 10, 16)},
    "strtoul": {2: (0, 10, 16)},
    "clone_redirect": {1: (1, 2), 2: (0, 1, 1)},
}
"""Numbers that a helper knows, by its argument."""
CONTENT = {"ports": [(number.to_bytes(4, "little"), [(number + 1).to_bytes(4, "little")], 0) for number in range(2)]}


@dataclass
class Outcome:
    """What came of the calls of one helper: how many, and what they returned or were ended by."""

    helper: Helper
    of: ProgramType
    calls: int = 0
    results: Counter[str] = field(default_factory=Counter)
    difference: str = ""

    @property
    def missing(self) -> list[str]:
        """Errors that the helper is documented to give and that no call gave."""
        documented = {name for name in ERRORS.get(self.helper.name, {}) if not name.startswith("(")}
        return sorted(documented - set(self.results))


def offered(of: ProgramType) -> list[Helper]:
    """The helpers that a program of that type may call on this NIC, but for bpf_spin_lock: whose lock is not given
    back, nobody gets again."""
    return [helper for helper in helpers.HELPERS if of in helper.programs
            and helper.number not in helpers.REFUSED and helper.name != "spin_lock"]  # fmt: skip


def fuzz(helper: Helper, of: ProgramType, calls: int, seed: int, say: Callable[[str], None] = lambda text: None,
         backend: str = "rtl") -> Outcome:  # fmt: skip
    """Random calls of a helper by programs of a type. They end with the first difference."""
    chance, outcome = random.Random(f"{seed} {of.name} {helper.name}"), Outcome(helper, of)
    callback = ["CALLBACK"] if helper.takes and Argument.FUNCTION in helper.takes else []
    of_tc = of is ProgramType.SCHED_CLS
    obj = open(PROGRAM, define=[f"NUMBER={helper.number}", *callback, *["TC"] * of_tc])
    places = _places(obj, HEADER_BYTES if of_tc else 0)
    while outcome.calls < calls and not outcome.difference:
        count = min(MOST, calls - outcome.calls)
        arrivals = [Arrival(number % 2, _packet(chance, helper, places)) for number in range(count)]
        bench = Bench(backend, obj, arrivals, options=OPTIONS, entries=[CONTENT], unsafe=True)
        evidence, verdict = bench.in_lockstep()
        if not verdict["equal"]:
            outcome.difference = "\n".join([verdict["difference"], *verdict["trace"]])
            break
        assert evidence is not None
        outcome.results += _results(evidence.traffic, arrivals, places)
        outcome.calls += count
    say(f"{of.name} {helper.name}: {outcome.calls} calls, {dict(outcome.results)}")
    return outcome


def _results(traffic: Traffic, arrivals: Sequence[Arrival], places: "_Places") -> Counter[str]:
    """What calls returned, or were ended by. A clone that comes in makes the same call, unless what was done to the
    packet before has moved its words."""
    clones = ((traffic.origin(len(arrivals) + number), clone) for number, clone in enumerate(traffic.clones))
    found: Counter[str] = Counter()
    for origin, packet in (*enumerate(traffic.packets), *clones):
        header = arrivals[origin].data[: places.words]
        at = places.words + TAG_BYTES * _tagged(header) + 8 * PASSES
        passes, prepared = struct.unpack_from("<2Q", arrivals[origin].data, at)
        if not packet.programs or packet.parent is not None and prepared:
            continue
        if packet.verdict is None:
            found[Cause(packet.cause).name] += 1
        elif not passes:
            found[error_name(packet.verdict - (packet.verdict >> 31 << 32))] += 1
    return found


def error_name(result: int) -> str:
    """What a helper returned, by name where it is an error."""
    if result == 0:
        return "0"
    return {-524: "ENOTSUPP", -errno.EOPNOTSUPP: "EOPNOTSUPP"}.get(result) or errno.errorcode.get(-result, "a number")


@dataclass(frozen=True)
class _Places:
    """Where the program's maps are, by name: handles, and addresses of their values."""

    handles: dict[str, int]
    values: list[int]
    words: int  # where in a packet they are

    @property
    def packet(self) -> int:
        """The address of a packet's words."""
        return addresses.PACKET + addresses.HEADROOM + self.words


def _places(obj: Object, words: int) -> _Places:
    with Nic("golden", OPTIONS) as nic:
        nic.load(obj, unsafe=True)
        found = {name: held.device_map for name, held in nic.maps.items()}
        maps = {name: each for name, each in found.items() if isinstance(each, RegisterMap)}
        return _Places({name: each.handle for name, each in maps.items()},
                       [addresses.MAP_VALUES + each.base for each in maps.values()], words)  # fmt: skip


def _packet(chance: random.Random, helper: Helper, places: _Places) -> bytes:
    takes = [*(helper.takes or ()), *[Argument.SCALAR] * 5]
    takes = [each for each in takes if each is not Argument.ANY][:5]
    arguments = [_argument(chance, helper, number, each, places) for number, each in enumerate(takes)]
    header = chance.choice([*HEADERS.values()]) if places.words else b""
    header = header.ljust(places.words + TAG_BYTES * _tagged(header), b"\0")
    prepared = chance.choice(PREPARED) if chance.random() < 0.5 else (0, 0)
    match chance.randrange(4):
        case 0:
            room = bytes(chance.choices(LETTERS, k=64))
        case 1:
            room = bytes(chance.choices(LETTERS[:10], k=chance.randrange(64))).ljust(64, b"\0")
        case 2 if "trace" in helper.name:
            return header + _print(chance, helper, places)
        case _:  # keys, parameters
            room = b"".join(chance.randrange(12).to_bytes(4, "little") for _ in range(16))
    passes = int(chance.random() < 0.2)
    words = b"".join((number & (1 << 64) - 1).to_bytes(8, "little") for number in arguments)
    behind = chance.choice((b"", chance.randbytes(40), b"x" * 600))
    return header + words + room + struct.pack("<3Q", passes, *prepared) + behind


def _tagged(header: bytes) -> bool:
    return header[12:14] in (b"\x81\0", b"\x88\xa8")


def _print(chance: random.Random, helper: Helper, places: _Places) -> bytes:
    """A format that is none of the wrong ones, and pointers to a long string for it, in registers or in an array."""
    array = places.packet + 8 * WORDS
    string = array + 96 + chance.choice((0, 300, 595))
    words = [string if chance.random() < 0.8 else chance.choice(EDGES) & (1 << 64) - 1 for _ in range(12)]
    three = [array, 96, 0] if helper.name == "trace_vprintk" else words[:3]
    room = chance.choice(FORMATS).ljust(64, b"\0")
    return struct.pack("<5Q64s3Q12Q600s", ROOM, 64, *three, room, 0, 0, 0, *words, b"x" * 600)


def _argument(chance: random.Random, helper: Helper, number: int, kind: Argument, places: _Places) -> int:
    """Mostly what the helper takes; now and then anything."""
    if (likely := LIKELY.get(helper.name, {}).get(number)) and chance.random() < 0.7:
        return chance.choice(likely)
    if chance.random() < 0.05:
        kind = chance.choice(list(Argument))
    if kind is Argument.MAP:
        suitable = MAPS.get(helper.name, KEYED)
        return places.handles[chance.choice(suitable if chance.random() < 0.9 else list(places.handles))]
    if kind is Argument.CONTEXT:
        return addresses.SKB_CONTEXT if places.words else addresses.CONTEXT
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
    packet = places.packet
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
