"""The program of the table unit (hdl/maps/tableprogram.py), by every state that a small table can be in.

From the empty table on, each operation with each key and flag is done in each state that was reached, and every outcome
is compared with golden's: its error, the place that it shows, and the whole table; and the host walks through it, and
a program, which deletes some of what it meets. The
machine that executes the program here is written from what microcode.py says of its lines. That hdl/maps/table.py is
such a machine is tested, by the same operations on the hardware (tests/hdl/tables/).

Two states are the same if they differ only in the numbers of places that have had a key, and in which key is where, for
the program doesn't compare places with each other and knows nothing of keys. Prefixes of an LPM_TRIE are told apart.
"""

import copy
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack, unpack
from types import SimpleNamespace

from bpfnic.hdl.maps import tableprogram
from bpfnic.hdl.maps.microcode import (
    AGAIN,
    ALL,
    FOUND,
    SCRATCH,
    Code,
    Condition,
    Factor,
    Instruction,
    Jump,
    Small,
    Source,
)
from bpfnic.sim.golden.hash import Hash
from bpfnic.sim.golden.lpm import Lpm
from bpfnic.sim.golden.lru import Lru
from bpfnic.sim.golden.queues import Queue
from bpfnic.sim.tablecheck import Contents, Layout, contents
from bpfnic.spec import tables
from bpfnic.spec.maps import LRU, PER_CPU, QUEUES, Errno, MapType
from tests.formal.proof import Exploration, Mutation

CPUS = 1
CONFIG = SimpleNamespace(cores=1, threads=CPUS, map_types=tables.TYPES)  # smaller than a NIC can be
CPU, HOST = 0, 1  # the CPU of a program; what it has reserved is there when it calls again
MASK = 0xFFFFFFFF
STRIDE = 8
COPY = 1024  # from one CPU's values to the next's
LONGEST = 2000  # instructions of an operation


class Machine:
    """Executes an operation on `memory`, words of 32 bits."""

    def __init__(self, words: list[int], layout: Layout):
        self.steps = [self._decoded(word) for word in words]
        self.layout = layout
        self.key_stride = tables.key_stride(layout.key_bytes)
        self.last = max(layout.key_bytes - 1, 0) // 8
        self.bucket = layout.table + tables.header_bytes(CPUS)

    @staticmethod
    def _decoded(word: int) -> dict:
        step = Instruction.from_bits(word)
        plain = {name: step[name] for name in ("register", "left", "shift", "minus", "bits", "number")}
        return plain | {"code": Code(step["code"]), "source": Source(step["source"])}

    def run(self, memory: list[int], operation: str, cpu: int, flags: int, key: bytes) -> tuple[int, int | None]:
        """The error number, and where the value is that it shows, or None."""
        self.memory, self.operation, self.cpu, self.flags = memory, operation, cpu, flags
        self.host, self.cursor = cpu == HOST, None
        self.keys = {0: key.ljust(64, b"\0"), SCRATCH: bytes(64)}
        registers, returns = [0] * 16, []
        zero = negative = hold = False
        word, number, at = b"", 0, 0
        found = {"found": False, "place": 0, "link": 0, "bucket": 0, "tag": 0}
        pc = tableprogram.OPERATIONS.index(operation)
        for _ in range(LONGEST):
            step = self.steps[pc]
            pc += 1
            code = step["code"]
            second = self._second(step, registers, found, word, at, number)
            first = registers[step["left"]] << step["shift"]
            total = (first - second if step["minus"] else first + second) & MASK
            result = None
            match code:
                case Code.COMPUTE:
                    result = total
                case Code.MULTIPLY:
                    factors = {Factor.STRIDE: STRIDE, Factor.KEY_STRIDE: self.key_stride, Factor.CPU_STRIDE: COPY}
                    result = (total & 0xFFFFFF) * factors[Factor(step["bits"])] & MASK
                case Code.LOAD | Code.LOAD_PLACE:
                    at = total | step["bits"] << 2
                    result = memory[at // 4]
                    word = pack("<2I", result, memory[at // 4 ^ 1])
                    if code is Code.LOAD_PLACE:
                        result &= (1 << tables.PLACE_BITS) - 1
                case Code.SCAN:
                    at = total
                    while not any(memory[at // 4 : at // 4 + 2]) and (at + 8) % 256 and at + 8 != self.layout.links:
                        at += 8
                    result, word = memory[at // 4], pack("<2I", *memory[at // 4 : at // 4 + 2])
                case Code.STORE:
                    at = total | step["bits"] << 2
                    assert hold or not self.bucket <= at < self.layout.links, "look-ups may see a row that changes"
                    memory[at // 4] = registers[step["register"]]
                case Code.CLEAR:
                    for i in range(STRIDE // 4):
                        memory[total // 4 + i] = 0
                case Code.KEY_FROM_SLOT | Code.KEY_FROM_HOST:
                    word = self.keys[0][8 * number : 8 * number + 8]
                    result = int.from_bytes(word[:4], "little") if step["register"] else None
                case Code.KEY_TO_SLOT | Code.KEY_TO_HOST:
                    kept = (word if number <= self.last else b"")[: self.layout.key_bytes - 8 * number].ljust(8, b"\0")
                    slot = bytearray(self.keys[step["bits"]])
                    slot[8 * number : 8 * number + 8] = kept
                    self.keys[step["bits"]] = bytes(slot)
                case Code.KEY_TO_MEMORY:
                    memory[total // 4 : total // 4 + min(2, self.key_stride // 4)] = unpack(
                        f"<{min(2, self.key_stride // 4)}I", word[: min(8, self.key_stride)]
                    )
                case Code.FIND:
                    found = self._search(self.keys[step["bits"]])
                case Code.HOLD:
                    hold = True
                case Code.CURSOR:
                    self.cursor = total
                case Code.AWAIT | Code.DECIDE:
                    pass
                case Code.FINISH:
                    assert not step["register"] & AGAIN
                    return (0, total) if step["register"] & FOUND else (step["number"], None)
                case Code.JUMP:
                    kind = Jump(step["register"] & 3)
                    if kind is Jump.REPEAT:
                        more = number != (7 if step["register"] & ALL else self.last)
                        number = number + 1 if more else 0
                        pc = step["number"] if more else pc
                    elif self._holds(Condition(step["left"]), zero, negative, found) != bool(step["minus"]):
                        if kind is Jump.CALL:
                            returns.append(pc)
                            assert len(returns) <= 3, "calls that the unit has no room for"
                        pc = returns.pop() if kind is Jump.RETURN else step["number"]
                case _:
                    raise NotImplementedError(code)
            if result is not None:
                registers[step["register"]] = result
                zero, negative = result == 0, bool(result >> 31)
                assert not registers[0]
        raise AssertionError("the operation has no end")

    def _second(self, step: dict, registers: list[int], found: dict, word: bytes, at: int, number: int) -> int:
        layout = self.layout
        match step["source"]:
            case Source.NUMBER:
                return step["number"]
            case Source.REGISTER:
                return registers[step["number"] & 15]
            case Source.SMALL:
                length = int.from_bytes(self.keys[0][:4], "little")
                small = {Small.CPU: self.cpu, Small.LENGTH: length, Small.LENGTH_BIT: length % 32}
                return (small | {Small.LENGTH_WORD: length // 32 * 4})[Small(step["bits"])]
            case Source.OTHER:
                return int.from_bytes(word[4:8], "little")
            case Source.TAG:
                return found["tag"] << tables.PLACE_BITS
            case Source.BASE:
                return 0
            case Source.WORD:
                return 8 * number
            case Source.AT:
                return at
            case Source.TABLE | Source.LINKS | Source.KEYS | Source.ORDER | Source.ENTRIES as source:
                return getattr(layout, source.name.lower())
            case source:
                return found[source.name.lower()]

    def _holds(self, condition: Condition, zero: bool, negative: bool, found: dict) -> bool:
        kind = self.layout.type
        mine = kind in PER_CPU and not self.host
        return {
            Condition.ALWAYS: True,
            Condition.ZERO: zero,
            Condition.NEGATIVE: negative,
            Condition.FOUND: found["found"],
            Condition.HOST: self.host,
            Condition.MINE: mine,
            Condition.CLAIMS: mine and self.operation == "UPDATE",
            Condition.INVALID: kind is MapType.LPM_TRIE and self._length(self.keys[0]) is None,
            Condition.LRU: kind in LRU,
            Condition.LPM: kind is MapType.LPM_TRIE,
            Condition.STACK: kind is MapType.STACK,
            Condition.POPS: self.operation == "POP",
            Condition.ILLEGAL: self.flags > 2,
            Condition.NOEXIST: self.flags == 1,
            Condition.EXIST: self.flags == 2,
            Condition.WAITING: False,
        }[condition]

    def _length(self, key: bytes) -> int | None:
        length = int.from_bytes(key[:4], "little")
        return length if length <= 8 * (self.layout.key_bytes - 4) else None

    def _search(self, key: bytes) -> dict:
        """The only bucket has every key. An LPM_TRIE's: the longest prefix for a look-up, otherwise just this one."""
        key = key[: self.layout.key_bytes]
        if self.layout.type is not MapType.LPM_TRIE:
            return self._named(key, lambda stored: stored)
        length = self._length(key)
        if length is None:
            return self._named(None, lambda stored: stored)
        shortest = 0 if self.operation in ("LOOKUP", "READ") else length
        for shorter in range(length, shortest - 1, -1):
            prefix = shorter.to_bytes(4, "little") + key[4:]
            named = self._named(_cut(prefix), _cut)
            if named["found"]:
                return named
        return self._named(None, lambda stored: stored)

    def _named(self, key: bytes | None, form: Callable[[bytes], bytes]) -> dict:
        layout, memory = self.layout, self.memory
        links = [self.bucket + 4 * i for i in range(tables.BUCKET_WORDS)]
        for link in links:
            if place := memory[link // 4] & 0xFFFFFF:
                stored = layout.keys + self.key_stride * (place - 1)
                held = pack("<16I", *memory[stored // 4 : stored // 4 + 16])[: layout.key_bytes]
                if form(held) == key:
                    return {"found": True, "place": place - 1, "link": link, "bucket": self.bucket, "tag": 0x5A}
                if link == links[3] or link >= layout.links:
                    links.append(layout.links + 4 * (place - 1))
        return {"found": False, "place": 0, "link": 0, "bucket": self.bucket, "tag": 0x5A}


def _cut(key: bytes) -> bytes:
    """Zeros behind the prefix."""
    behind = 8 * len(key[4:]) - int.from_bytes(key[:4], "little")
    return key[:4] + (int.from_bytes(key[4:], "big") >> behind << behind).to_bytes(len(key[4:]), "big")


KEYS = [bytes([key]) * 4 for key in range(7)]
PREFIXES = [bytes([length, 0, 0, 0, address]) for length, address in
            ((0, 0xFF), (3, 0b10101111), (3, 0b01000000), (8, 0b10100000), (9, 0))]  # fmt: skip
FLAGS = range(4)
WALKED = (MapType.HASH, MapType.PERCPU_HASH, MapType.LRU_HASH, MapType.LRU_PERCPU_HASH)
DELETES: list[Callable[[bytes], bool]] = [lambda key: False, lambda key: True, lambda key: key[0] % 2 == 0,
                                          lambda key: key[0] % 2 == 1]  # fmt: skip


def operations(kind: MapType) -> Iterator[tuple[str, int, int, bytes]]:
    """Each with a CPU, flags and a key."""
    if kind in QUEUES:
        yield from (("PUSH", CPU, flags, b"") for flags in FLAGS)
        yield from (("ENQUEUE", cpu, flags, b"") for cpu in (CPU, HOST) for flags in FLAGS)
        yield from ((name, cpu, 0, b"") for name in ("POP", "PEEK") for cpu in (CPU, HOST))
        yield from (("RELEASE", CPU, 0, b""), ("RESERVE", HOST, 0, b""))
        return
    yield "RESERVE", HOST, 0, b""
    for key in PREFIXES if kind is MapType.LPM_TRIE else KEYS:
        yield from (("LOOKUP", CPU, 0, key), ("READ", HOST, 0, key))
        yield from (("DELETE", cpu, 0, key) for cpu in (CPU, HOST))
        yield from (("INSERT", HOST, flags, key) for flags in FLAGS)
        yield from (("UPDATE", CPU, flags, key) for flags in FLAGS)
        if kind not in PER_CPU:
            yield from (("INSERT", CPU, flags, key) for flags in FLAGS)
        if kind is not MapType.LPM_TRIE:  # the host's pop, which the driver has for no such map
            yield "TAKE", HOST, 0, key


def expected(model, kind: MapType, operation: str, cpu: int, flags: int, key: bytes) -> tuple[int, int | None]:
    """What golden says: an error, and the place that is shown, with the CPU whose value it is."""

    def shown(place: int | None, own: bool = False) -> tuple[int, int | None]:
        copy_of = COPY * cpu if own and kind in PER_CPU else 0
        return (0, STRIDE * place + copy_of) if place is not None else (Errno.ENOENT, None)

    match operation:
        case "LOOKUP":
            place = model.find(key)
            if place is None:
                return 0, None
            if isinstance(model, Lru):
                model.use(key)
            return shown(place, own=True)
        case "READ":
            return shown(model.find(key))
        case "UPDATE":
            if error := model.refuses(key, flags):
                return error, None
            return shown(model.claim(key) if kind in PER_CPU else model.reserve(key, cpu), own=True)
        case "INSERT":
            return model.insert(key, cpu, flags), None
        case "DELETE":
            return model.delete(key), None
        case "TAKE":
            return shown(model.pop(key, cpu))
        case "RESERVE" if not isinstance(model, Queue):
            return shown(model.reserve(key, cpu))
    if operation == "RELEASE":
        return (0 if model.release(cpu) else Errno.ENOENT), None
    model.release(cpu)
    match operation:
        case "PUSH":
            error = model.refuses(flags)
            return (error, None) if error else shown(model.reserve(cpu))
        case "ENQUEUE":
            return model.insert(cpu, flags), None
        case "RESERVE":
            return shown(model.reserve(cpu))
    place = model.pop(cpu) if operation == "POP" else model.peek(cpu)
    if place is None and cpu != HOST:  # a program copies zeros
        place = tables.places(model.entries, CPUS)
    return shown(place)


def explore(source: str, kind: MapType, entries: int) -> int:
    """Raises AssertionError where the program in `source` differs from golden. Returns how many states there are."""
    space: dict = {}
    exec(compile(source, tableprogram.__file__, "exec"), space)
    layout = Layout(kind, {MapType.LPM_TRIE: 5}.get(kind, 0 if kind in QUEUES else 4), entries, CPUS, CPUS * COPY)
    machine = Machine(space["program"](CONFIG), layout)
    places = tables.places(entries, CPUS)
    if kind in QUEUES:
        model = Queue(entries, places, kind is MapType.STACK)
    else:
        model = {MapType.LPM_TRIE: Lpm, MapType.LRU_HASH: Lru, MapType.LRU_PERCPU_HASH: Lru}.get(kind, Hash)(
            layout.key_bytes, entries, places, lambda place: None
        )
    start = [0] * (layout.end // 4 + 32)
    seen, left = {None}, deque([(start, model)])
    while left:
        memory, model = left.popleft()
        for operation in operations(kind):
            after, then = memory[:], _copied(model)
            try:
                wanted = expected(then, kind, *operation)
                got = machine.run(after, *operation)
                assert got == wanted, f"{got}, not {wanted}"
                state = contents(pack(f"<{len(after)}I", *after), layout)
                _compare(state, then, layout)
            except (AssertionError, IndexError) as error:
                before = contents(pack(f"<{len(memory)}I", *memory), layout)
                raise AssertionError(f"{operation} on {before}: {error}") from None
            if (form := _form(state, after, layout)) not in seen:
                if kind not in QUEUES:
                    assert sorted(_walked(machine, after)) == sorted(state.keys), f"a walk behind {operation}"
                if kind in WALKED:
                    for deletes in DELETES:
                        met = _walked_by_program(machine, after[:], deletes)
                        assert sorted(met) == sorted(state.keys), f"a program's walk behind {operation}"
                seen.add(form)
                left.append((after, then))
    return len(seen) - 1


def _walked(machine: Machine, memory: list[int]) -> list[bytes]:
    """The keys that the host's walk visits."""
    keys: list[bytes] = []
    error, shown = machine.run(memory, "FIRST", HOST, 0, b"")
    while shown is not None:
        keys.append(machine.keys[0][: machine.layout.key_bytes])
        assert len(keys) <= machine.layout.entries
        error, shown = machine.run(memory, "NEXT", HOST, 0, keys[-1])
    assert error == Errno.ENOENT
    return keys


def _walked_by_program(machine: Machine, memory: list[int], deletes: Callable[[bytes], bool]) -> list[bytes]:
    """The keys that a program's walk visits, of which it deletes some at once."""
    keys: list[bytes] = []
    place, where = (machine.layout.end + 64) // 8 * 8, 0
    while True:
        error, shown = machine.run(memory, "WALK", CPU, 0, pack("<2I", place, where))
        where = machine.cursor
        assert not error and where is not None
        if shown is None:
            assert not where
            return keys
        keys.append(pack("<I", memory[place // 4]))
        assert len(keys) <= machine.layout.entries
        if deletes(keys[-1]):
            assert machine.run(memory, "DELETE", CPU, 0, keys[-1]) == (0, None)


def _copied(model):
    twin = copy.copy(model)
    twin.__dict__.update({name: copy.copy(value) for name, value in model.__dict__.items()})
    return twin


def _compare(state: Contents, model, layout: Layout) -> None:
    fresh = range(state.fresh, tables.places(layout.entries, CPUS))
    assert list(model.free) == [*fresh, *state.free] and state.reserved == model.reserved
    if isinstance(model, Queue):
        assert state.order == list(model.queued) and state.read == model.read
    elif isinstance(model, Lpm):
        assert {model.written[key]: place for key, place in model.places.items()} == state.keys
    else:
        assert state.keys == model.places
    if isinstance(model, Lru):
        assert state.order == [model.places[key] for key in model.used]


def _form(state: Contents, memory: list[int], layout: Layout) -> tuple:
    """What is the same in states that are alike."""
    numbers: dict[int, int] = {}

    def named(places) -> tuple:
        return tuple(numbers.setdefault(place, len(numbers)) for place in places)

    bucket = layout.table + tables.header_bytes(CPUS)
    row = memory[bucket // 4 : bucket // 4 + 4] if layout.type not in QUEUES else []
    words = named((word & 0xFFFFFF) - 1 for word in row)
    told = tuple(state.keys) if layout.type is MapType.LPM_TRIE else ()
    chain = named(state.keys.values())
    held = [(what, cpu, *named([place])) for what, places in (("reserved", state.reserved), ("read", state.read))
            for cpu, place in places.items()]  # fmt: skip
    return state.fresh, words, told, chain, named(state.order), named(state.free), tuple(held)


_PROGRAM = "hdl/maps/tableprogram.py"
_SAYS = (
    "each operation comes to what golden says and leaves the table that golden has: no place is lost or doubled, none "
    "is in the table and free, counts are right"
)


def _exploration(name: str, what: str, quick: bool, *mutations: tuple[str, str]) -> Exploration:
    kinds, entries = SIZES[name]
    explored = f"{' and '.join(kind.name for kind in kinds)} with {entries} entries and one bucket"
    return Exploration(
        name=name,
        of=(_PROGRAM,),
        says=f"{_SAYS}{what}",
        module="tests.formal.tables",
        explored=explored.removesuffix(" and one bucket") if kinds[0] in QUEUES else explored,
        mutations=tuple(Mutation(_PROGRAM, old, new) for old, new in mutations),
        quick=quick,
    )


SIZES = {
    "table-hash": ((MapType.HASH,), 6),
    "table-per-cpu": ((MapType.PERCPU_HASH,), 5),
    "table-evicting": ((MapType.LRU_HASH,), 4),
    "table-evicting-per-cpu": ((MapType.LRU_PERCPU_HASH,), 2),
    "table-prefixes": ((MapType.LPM_TRIE,), 3),
    "table-queues": ((MapType.QUEUE, MapType.STACK), 3),
}
"""By name of the exploration: the types, and how many entries a map has."""

PROOFS = [
    _exploration(
        "table-hash",
        "; a walk, the host's or that of a program, which deletes some of what it meets, visits each key once; rows "
        "that look-ups read change only while these are held",
        False,
        ("link_here:  [links + 4 new] = r\n", "link_here:  [links + 4 new] = zero\n"),
        ("            if negative goto cut\n", "            if not negative goto cut\n"),
        ("            if negative goto next_word\nnext_link:", "next_link:"),
        ("            if not found goto lost\n", "            if not found goto chain_again\n"),
        ("hold\n            decide\n            if found goto", "decide\n            if found goto"),
    ),
    _exploration("table-per-cpu", "", False, ("taken:      if claims return\n", "taken:\n")),
    _exploration(
        "table-evicting",
        "; the key that goes is the one that was used longest ago",
        False,
        ("            [ORDER + 8 s] = n\n", "            [ORDER + 8 s] = zero\n"),
        ("            n = [ORDER]\n            v = (n - 1)", "            n = [ORDER | 4]\n            v = (n - 1)"),
    ),
    _exploration("table-evicting-per-cpu", "; the same", False, ("            if claims goto show\n", "")),
    _exploration("table-prefixes", "", False, ("            s = s - r\n", "            s = s + r\n")),
    _exploration("table-queues", "", True, ("            s = s - QUEUED\n", "            s = s - 1\n")),
]


def main(name: str, source: str) -> int:
    kinds, entries = SIZES[name]
    for kind in kinds:
        try:
            print(kind.name, explore(Path(source).read_text(), kind, entries), "states")
        except AssertionError as error:
            print(error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
