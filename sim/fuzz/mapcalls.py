"""Pieces of random programs that call helpers on maps: a key or an index, the call, and then the value itself."""

from typing import TYPE_CHECKING

from bpfnic.sim.fuzz import world
from bpfnic.sim.fuzz.text import Label
from bpfnic.spec import addresses, isa
from bpfnic.spec.helpers import BY_NAME as HELPERS
from bpfnic.spec.maps import KEYED, OF_MAPS, QUEUES, REDIRECT_MAPS, MapType

if TYPE_CHECKING:
    from bpfnic.host.device import Capabilities
    from bpfnic.sim.fuzz.generate import Generator

CONTEXT, PACKET, MAP, FRAME = 6, 7, 8, isa.FRAME_POINTER
ARRAYS = frozenset({MapType.ARRAY, MapType.PERCPU_ARRAY})
HASHES = KEYED - OF_MAPS - REDIRECT_MAPS
FLAGS = (0, 0, 0, 2, 1, 3, 4)
LOCK_FLAGS = (0, 4, 4, 4, 5, 6, 7)
REDIRECT_FLAGS = (0, 0, 1, 2, 3, 16, 18, 4, 8, -1)
_LOOKUP, _UPDATE, _DELETE = "map_lookup_elem", "map_update_elem", "map_delete_elem"


class Known:
    """The maps of world.py that a device has, by index: arrays, hashes and their like, and so on. Empty where it lacks
    the helpers for them."""

    def __init__(self, has: "Capabilities"):
        helpers = {name for name, helper in HELPERS.items() if helper.number in has.helpers}
        types = [each.type for each in (*world.MAPS, *world.TABLES)]

        def of(kinds: frozenset[MapType], *names: str) -> list[int]:
            usable = helpers.intersection(names)
            return [index for index, kind in enumerate(types) if usable and kind in kinds & has.map_types]

        self.arrays = of(ARRAYS, _LOOKUP, _UPDATE, _DELETE)
        self.hashes = of(HASHES, _LOOKUP, _UPDATE, _DELETE)
        self.queues = of(QUEUES, "map_push_elem", "map_pop_elem", "map_peek_elem")
        self.redirects = of(REDIRECT_MAPS, "redirect_map")
        self.outer = of(OF_MAPS, _LOOKUP)
        self.rings = of(frozenset({MapType.RINGBUF}), "ringbuf_output", "ringbuf_reserve", "ringbuf_query")
        self.perf = of(frozenset({MapType.PERF_EVENT_ARRAY}), "perf_event_output")


class MapCalls:
    """`focus`: of the tables those that this program knows, for programs that shall meet there."""

    def __init__(self, generator: "Generator", known: Known, focus: list[int]):
        self.generator, self.known = generator, known
        self.text, self.chance = generator.text, generator.chance
        self.hashes = [index for index in known.hashes if index in focus] or known.hashes
        self.queues = [index for index in known.queues if index in focus] or known.queues

    def named(self, names: tuple[str, ...]) -> str | None:
        """One of these helpers, if the device has any."""
        has = [name for name in names if name in self.generator.device.helpers]
        return self.chance.choice(has) if has else None

    def array(self) -> None:
        """A call with an index that may be behind the end."""
        name, index = self.named((_LOOKUP, _LOOKUP, _UPDATE, _DELETE)), self.chance.choice(self.known.arrays)
        key = self.chance.choice((self.chance.randrange(world.ENTRIES), 0, world.ENTRIES, -1))
        base = self.chance.choice((FRAME, FRAME, PACKET, MAP, CONTEXT))
        at = {FRAME: self.chance.randrange(-60, -7), PACKET: self.chance.randrange(4), MAP: self.chance.randrange(20),
              CONTEXT: self.chance.randrange(60)}[base]  # fmt: skip
        if base == FRAME and self.chance.random() < 0.8:
            at &= -4
        if base != CONTEXT:
            self.text.add("stw", dst=base, offset=at & -4 if base == FRAME else at, imm=key)
        self.text.add("lddw", dst=1, imm=world.handle(index))
        self.pointer(2, base, at)
        if name:
            known = world.MAPS[index]
            self.on_key(name, known.lock - 1 if known.lock else known.size, known.stride, bool(known.lock))

    def hash(self) -> None:
        """A call with one of few keys."""
        name, index = self.named((_LOOKUP, _LOOKUP, _UPDATE, _UPDATE, _DELETE)), self.chance.choice(self.hashes)
        table = world.TABLES[index - len(world.MAPS)]
        place = self.key(table.key, prefix=table.type is MapType.LPM_TRIE)
        self.text.add("lddw", dst=1, imm=world.handle(index))
        self.pointer(2, *place)
        if name:
            self.on_key(name, table.lock or table.value, table.value, bool(table.lock))

    def key(self, size: int, prefix: bool = False) -> tuple[int, int]:
        """Writes a key somewhere: a number from world.KEYS and zeros, of a prefix its length and then an address. Now
        and then what lies there is part of it."""
        base = self.chance.choice((FRAME, FRAME, PACKET, MAP))
        at = {FRAME: 8 * self.chance.randrange(-8, -1), PACKET: self.chance.randrange(4),
              MAP: self.chance.randrange(-40, 20)}[base]  # fmt: skip
        number = self.chance.randrange(world.KEYS)
        words = [number, *(0 for _ in range(4, size, 4))]
        if prefix:
            words[:2] = self.chance.choice((0, 8, 9, 16, 31, 32, 33)), number * 0x01000080
        if self.chance.random() < 0.05:
            words = words[:1]
        for word, imm in enumerate(words):
            if 4 * word + 4 <= size or base != FRAME:
                self.text.add("stw", dst=base, offset=at + 4 * word, imm=imm)
            else:
                for byte in range(4 * word, size):
                    self.text.add("stb", dst=base, offset=at + byte, imm=0)
        return base, at

    def on_key(self, name: str, size: int, aligned: int, has_lock: bool = False) -> None:
        """The call: r1 and r2 are there. A value has `size` bytes, perhaps a lock behind them, and lies at a multiple
        of `aligned`."""
        if name == _UPDATE:
            self.value(3)
            self.text.add("mov64_imm", dst=4, imm=self.chance.choice(LOCK_FLAGS if has_lock else FLAGS))
        self.generator.helper_call(name)
        if name == _LOOKUP:
            none = Label()
            self.text.add("jeq64_imm", none, dst=0, imm=0)
            self.on_value(size, aligned)
            self.text.place(none)

    def value(self, register: int) -> None:
        """A pointer to a new value."""
        source = self.chance.choice((FRAME, PACKET, MAP))
        self.pointer(register, source, {FRAME: self.chance.randrange(-64, -40), PACKET: self.chance.randrange(90),
                                        MAP: self.chance.randrange(-40, 30)}[source])  # fmt: skip

    def on_value(self, size: int, aligned: int) -> None:
        """An access to the value at r0."""
        device = self.generator.device
        row = self.chance.choice(device.loads + device.stores + device.atomics)
        width = row.width // 8
        if row in device.atomics:
            if size >= width and aligned % width == 0:
                self.text.add(row, dst=0, src=self.chance.choice((1, 2, 3)), offset=0)
        elif size >= width:
            at = self.chance.randrange(size - width + 1)
            self.generator.at(row, 0, 0 if row.operation in device.ordered else at)

    def queue(self) -> None:
        """A push, pop or peek."""
        name = self.named(("map_push_elem", "map_push_elem", "map_pop_elem", "map_peek_elem"))
        self.text.add("lddw", dst=1, imm=world.handle(self.chance.choice(self.queues)))
        self.value(2)
        if name == "map_push_elem":
            self.text.add("mov64_imm", dst=3, imm=self.chance.choice((0, 0, 0, 2, 1)))
        if name:
            self.generator.helper_call(name)

    def redirect(self) -> None:
        """Says where the packet goes, if nothing behind it does."""
        self.text.add("lddw", dst=1, imm=world.handle(self.chance.choice(self.known.redirects)))
        if self.chance.random() < 0.5:
            self.text.add("ldxb", dst=2, src=PACKET, offset=self.chance.randrange(14))
            self.text.add("and64_imm", dst=2, imm=7)
        else:
            self.text.add("mov64_imm", dst=2, imm=self.chance.choice((0, 1, 2, 3, 4, 8, -1)))
        self.text.add("mov64_imm", dst=3, imm=self.chance.choice(REDIRECT_FLAGS))
        self.generator.helper_call("redirect_map")

    def inner(self) -> None:
        """A map out of a map, and a look-up there."""
        none = Label()
        place = self.key(4)
        self.text.add("lddw", dst=1, imm=world.handle(self.chance.choice(self.known.outer)))
        self.pointer(2, *place)
        self.generator.helper_call(_LOOKUP)
        self.text.add("jeq64_imm", none, dst=0, imm=0)
        place = self.key(4)
        self.text.add("mov64_reg", dst=1, src=0)
        self.pointer(2, *place)
        self.on_key(_LOOKUP, world.INNER_BYTES, 8)
        self.text.place(none)

    def ring(self) -> None:
        """A record copied; or one reserved, written and let go; or a look at the ring."""
        name = self.named(("ringbuf_output", "ringbuf_output", "ringbuf_reserve", "ringbuf_reserve", "ringbuf_query"))
        self.text.add("lddw", dst=1, imm=world.handle(self.chance.choice(self.known.rings)))
        if name == "ringbuf_output":
            self.value(2)
            self.text.add("mov64_imm", dst=3, imm=self.chance.choice((0, 1, 8, 13, 24, 40)))
            self.text.add("mov64_imm", dst=4, imm=self.chance.choice((0, 0, 0, 1, 2, 4)))
        elif name == "ringbuf_reserve":
            self.text.add("mov64_imm", dst=2, imm=self.chance.choice((8, 16, 23, 60)))
            self.text.add("mov64_imm", dst=3, imm=int(self.chance.random() < 0.1))
        else:
            self.text.add("mov64_imm", dst=2, imm=self.chance.randrange(5))
        if name:
            self.generator.helper_call(name)
        if name == "ringbuf_reserve":
            self.reserved()

    def reserved(self) -> None:
        """What is done with the record at r0. Few are forgotten, or let go twice."""
        none = Label()
        self.text.add("jeq64_imm", none, dst=0, imm=0)
        for offset in self.chance.sample((0, 1, 2, 4), 2):
            self.text.add(self.chance.choice(("stxw", "stxb")), dst=0, src=self.chance.randrange(2, 6), offset=offset)
        ends = [name for name in ("ringbuf_submit", "ringbuf_discard") if name in self.generator.device.helpers]
        for _ in range(self.chance.choices((1, 0, 2), (90, 5, 5))[0] if ends else 0):
            self.text.add("mov64_reg", dst=1, src=0)
            self.text.add("mov64_imm", dst=2, imm=self.chance.choice((0, 0, 1, 2)))
            self.generator.helper_call(self.chance.choice(ends))
        self.text.place(none)

    def lock(self) -> None:
        """Something under a lock that all know. Few forget to let it go: the others' budgets are spent on it then."""
        at = self.chance.choice(world.LOCKS)
        self.text.add("lddw", dst=1, imm=addresses.MAP_VALUES + at)
        self.generator.helper_call("spin_lock")
        self.generator.access()
        if self.chance.random() < 0.98:
            self.text.add("lddw", dst=1, imm=addresses.MAP_VALUES + at)
            self.generator.helper_call("spin_unlock")

    def event(self) -> None:
        """A record, perhaps with the packet's first bytes behind it."""
        of_packet = self.chance.choice((0, 0, 14, 64, 300))
        self.text.add("mov64_reg", dst=1, src=CONTEXT)
        self.text.add("lddw", dst=2, imm=world.handle(self.chance.choice(self.known.perf)))
        self.generator.wide(3, of_packet << 32 | self.chance.choice((0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0, 3, 7)))
        self.value(4)
        self.text.add("mov64_imm", dst=5, imm=self.chance.choice((0, 4, 12, 24)))
        self.generator.helper_call("perf_event_output")

    def tail_call(self) -> None:
        """Of a program of this run, or of none."""
        self.text.add("mov64_reg", dst=1, src=CONTEXT)
        self.text.add("lddw", dst=2, imm=world.handle(world.PROGRAMS))
        self.text.add("mov64_imm", dst=3, imm=self.chance.choice((0, 1, 2, 3, 4, -1)))
        self.generator.helper_call("tail_call")

    def pointer(self, register: int, base: int, offset: int) -> None:
        self.text.add("mov64_reg", dst=register, src=base)
        self.text.add("add64_imm", dst=register, imm=offset)
