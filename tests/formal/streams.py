"""Queues: whatever goes in comes out, once, in its order."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.hdl import Assert, Assume, Elaboratable

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import bank_bit
from bpfnic.hdl.maps.events import Merge
from bpfnic.hdl.maps.sharing import Turns
from bpfnic.hdl.queue import Queue
from tests.formal.opened import Opened, constant, free, later
from tests.formal.proof import Mutation, Proof

PLACES, WIDTH = 16, 8


class QueueHarness(Elaboratable):
    """A queue whose depth is all that its memory has, and one that leaves places empty. In each, one word is watched
    that the solver picks, whichever one: that with the number `chosen`. Numbers wrap at twice the memory's places, so
    that those of all words in the queue differ."""

    def __init__(self, *, through: bool):
        self.through = through

    def elaborate(self, platform) -> Module:
        m = Module()
        for depth in (PLACES, PLACES - 4):
            m.submodules[f"of_{depth}"] = self._watch(depth)
        return m

    def _watch(self, depth: int) -> Module:
        m = Module()
        queue = Queue(unsigned(WIDTH), depth, through=self.through)
        m.submodules.queue = opened = Opened(queue, inputs=True)
        numbers = range(2 * PLACES)
        chosen, word = constant(m, numbers, f"chosen_{depth}"), Signal(WIDTH)
        pushed, popped, inside = Signal(numbers), Signal(numbers), Signal(numbers)
        pops = queue.pop.valid & queue.pop.ready
        m.d.comb += inside.eq(pushed - popped)
        m.d.sync += [pushed.eq(pushed + queue.push), popped.eq(popped + pops)]
        with m.If(queue.push & (pushed == chosen)):
            m.d.sync += word.eq(queue.entry)
        array = opened.part("memory")
        (write,), (read,) = array.write_ports, array.read_ports
        held = array.read_port(domain="comb")
        m.d.comb += held.addr.eq(chosen)
        passes = (inside == 0) & self.through  # what is pushed is there at once
        waits = Signal()
        m.d.comb += waits.eq((chosen - popped)[: len(popped)] < inside)
        m.d.comb += [
            Assume(~queue.push | (inside < depth)),  # whoever pushes knows that there is room
            Assert(queue.pop.valid == ((inside != 0) | (passes & queue.push))),
            Assert(~(pops & (popped == chosen)) | (queue.pop.payload == Mux(passes, queue.entry, word))),
            # What makes it inductive
            Assert(inside <= depth),
            Assert((queue.level == inside) & (opened.signal("some") == (inside != 0))),
            Assert(write.addr == pushed[: len(held.addr)]),
            Assert(read.addr == popped[: len(held.addr)]),
            Assert(~waits | (held.data == word)),
        ]
        return m


class MergeHarness(Elaboratable):
    """Sources keep what they offer until it is taken; and so does the merged stream."""

    def elaborate(self, platform) -> Module:
        m = Module()
        merge = Merge(NicConfig())
        m.submodules.merge = opened = Opened(merge, inputs=True)
        frames, sources = merge.frames, (merge.packets, merge.records)
        for source in sources:
            m.d.comb += Assume(self._stays(m, source))
        takes = [source.valid & source.ready for source in sources]
        leaves = frames.valid & frames.ready
        inside, of = Signal(), Signal()  # a frame has begun; of the records
        with m.If(leaves):
            m.d.sync += [inside.eq(~frames.payload.last), of.eq(takes[1])]
        m.d.comb += [
            Assert(leaves == (takes[0] | takes[1])),
            Assert(~(takes[0] & takes[1])),
            Assert(~(leaves & inside) | (takes[1] == of)),
            Assert(self._stays(m, frames)),
            # What makes it inductive
            Assert(~inside | (opened.signal("held") & (opened.signal("before") == of))),
        ]
        for source, taken in zip(sources, takes, strict=True):
            m.d.comb += Assert(~taken | (frames.payload.as_value() == source.payload.as_value()))
        return m

    def _stays(self, m: Module, source) -> Value:
        waited, payload = later(m, source.valid & ~source.ready), source.payload.as_value()
        before = Signal()
        m.d.sync += before.eq(1)
        return ~(before & waited) | (source.valid & (payload == later(m, payload)))


class TurnsHarness(Elaboratable):
    """Way B of three users. One access is watched that the solver picks when it is taken: `place` says where it is, in
    the way's places (0, 1), or held before them (2)."""

    def __init__(self, slice_places: int):
        self.config = NicConfig(map_bytes=4096, slice_places=slice_places)

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        turns = Turns(config, users=3)
        m.submodules.turns = opened = Opened(turns, inputs=True)
        table, users, way = turns.table, turns.users, opened.part("way")
        *others, last = users
        takes = Cat(user.request & user.grant for user in users)
        asks = Cat(user.request for user in others)
        first_asks = (asks & -asks)[: len(others)]
        first = way.o.payload.as_value()
        held = opened.signal("holds"), opened.signal("held")
        places = (way.o.valid, first), (way.waits, way.second.as_value()), held
        full = Cat(valid for valid, _ in places)
        makes, goes = table.request.any() & table.grant, takes[-1]
        room = ~full[1] if config.slice_places == 2 else ~full[0] | makes
        moves = (full[2] | asks.any()) & room & ~goes

        def as_taken(user, number: int) -> Value:
            write = user.write if number < len(others) else Const(0, len(user.write))  # the last one reads, and no more
            bank = bank_bit(config, user.address[1:])
            return Cat(user.address, write, user.data, bank, Const(1 << number, len(users)))

        data = Const(((1 << len(table.data)) - 1) << len(Cat(table.address, table.write)), len(first))

        of_others = Signal(len(first), name="of_others")
        for number, user in reversed(list(enumerate(others))):
            with m.If(user.request):
                m.d.comb += of_others.eq(as_taken(user, number))
        watched, access, place = Signal(), Signal(len(first), name="access"), Signal(2)
        picks_last = free(m, 1, "picks_last")
        picks = ~watched & free(m, 1, "picks") & Mux(picks_last, goes, takes[:-1].any())
        in_way = full[0] & ~(makes & ~full[1])  # the place that is taken there in this clock
        with m.If(picks):
            m.d.sync += [
                watched.eq(1),
                access.eq(Mux(picks_last, as_taken(last, len(others)), of_others)),
                place.eq(Mux(picks_last | moves, in_way, 2)),
            ]
        with m.Elif((place == 2) & moves):
            m.d.sync += place.eq(in_way)
        with m.Elif((place == 1) & makes):
            m.d.sync += place.eq(0)
        with m.Elif((place == 0) & makes):
            m.d.sync += watched.eq(0)

        def same(payload) -> Value:
            """As `access`, but for the data of one that has none."""
            return ~((payload ^ access) & ~Mux(access[-1], data, 0)).any()

        reads = makes & ~table.write.any()
        came = later(m, watched & (place == 0) & reads)
        banks = slice(len(first) - len(users) - config.map_banks, len(first) - len(users))
        right_bank = [payload[banks] == bank_bit(config, payload[1 : len(table.address)]) for _, payload in places]
        comes, whose = Cat(user.coming for user in users), access[-len(users) :]
        m.d.comb += [
            Assume(~table.grant | table.request.any()),
            # While there is room, the last one, unless another one's is held; of the others the first that asks.
            Assert(goes == (last.request & room & ~full[2])),
            Assert(takes[:-1] == Mux(full[2], 0, first_asks)),
            Assert(full[2] == later(m, (full[2] | asks.any()) & ~moves)),
            # What was taken is made once, in its order, and what it reads comes to whom it belongs.
            Assert(table.request == Mux(full[0], bank_bit(config, table.address[1:]), 0)),
            Assert(Cat(table.address, table.write, table.data) == first[: banks.start]),
            Assert(~came | (comes == later(m, whose))),
            Assert(comes.any() == later(m, reads)),
            Assert(Cat(user.came for user in users) == later(m, comes, 2)),
            Assert(~watched | ((Cat(user.pending for user in users) & whose) == whose)),
            # How the registers come to that.
            Assert((~full[1] | full[0]) & (place != 3)),
            *(Assert(~valid | self._one(payload[-len(users) :])) for valid, payload in places),
            *(Assert(~valid | right) for (valid, _), right in zip(places, right_bank, strict=True)),
            *(Assert(~watched | (place != number) | (valid & same(payload)))
              for number, (valid, payload) in enumerate(places)),
        ]  # fmt: skip
        return m

    def _one(self, bits: Value) -> Value:
        """One of them is 1."""
        return bits.any() & ~(bits & (bits - 1)).any()


PROOFS = [
    Proof(
        name="queue",
        of=("hdl/queue.py",),
        says="the core's queues: each word comes out once, unchanged, in the order of the pushes; `valid` says whether "
        "there is one",
        harness=lambda: QueueHarness(through=False),
        mutations=(
            Mutation("hdl/queue.py", "with m.If(self.push & ~popped)", "with m.If(self.push)"),
            Mutation("hdl/queue.py", "write.addr + 1", "write.addr | 1"),
        ),
        clocks=4,
    ),
    Proof(
        name="queue-through",
        of=("hdl/queue.py",),
        says="those of the map engine, whose words are there in the clock of their push when none is before them: the "
        "same",
        harness=lambda: QueueHarness(through=True),
        mutations=(Mutation("hdl/queue.py", "with m.If(~some)", "with m.If(self.push)"),),
        clocks=4,
    ),
    Proof(
        name="merge",
        of=("hdl/maps/events.py",),
        says="the host's stream: each beat of the packets' stream and of the records' leaves once, frames whole; what "
        "is offered stays",
        harness=MergeHarness,
        mutations=(
            Mutation("hdl/maps/events.py", "self.frames.ready & self.frames.payload.last", "self.frames.ready"),
            Mutation("hdl/maps/events.py", "chosen.eq(Mux(held, before,", "chosen.eq(Mux(0, before,"),
        ),
        clocks=3,
    ),
    Proof(
        name="turns",
        of=("hdl/maps/sharing.py", "hdl/slice.py"),
        says="way B: while there is room the last unit is heard, unless another's access is held; of the others the "
        "first that asks. Each access is made once, unchanged; what it reads comes to its unit",
        harness=lambda: TurnsHarness(slice_places=2),
        mutations=(
            Mutation("hdl/slice.py", "Mux(waits, second, self.i.payload)", "self.i.payload"),
            Mutation("hdl/maps/sharing.py", "last.request & ~holds", "last.request"),
            Mutation("hdl/maps/sharing.py", "way.i.payload.write.eq(0)", "way.i.payload.write.eq(last.write)"),
            Mutation("hdl/maps/sharing.py", "~first.write.any(), first.user, 0)", "1, first.user, 0)"),
        ),
        clocks=4,
    ),
    Proof(
        name="turns-one-place",
        of=("hdl/maps/sharing.py", "hdl/slice.py"),
        says="the same where register slices have one place",
        harness=lambda: TurnsHarness(slice_places=1),
        mutations=(Mutation("hdl/slice.py", "self.i.ready.eq(moves)", "self.i.ready.eq(1)"),),
        clocks=4,
    ),
]
