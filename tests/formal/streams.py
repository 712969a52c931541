"""Queues: whatever goes in comes out, once, in its order."""

from amaranth import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.hdl import Assert, Assume, Elaboratable
from amaranth.lib.fifo import SyncFIFO

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.queue import Queue
from bpfnic.hdl.maps.events import Emitter, Merge
from bpfnic.hdl.maps.requester import Requester
from bpfnic.hdl.maps.sharing import Turns
from bpfnic.hdl.packets.dispatch import Dispatch
from bpfnic.hdl.packets.transmit import Transmit
from tests.formal.opened import Opened, constant, free, later
from tests.formal.proof import Mutation, Proof

DEPTH, WIDTH = 16, 8


class QueueHarness(Elaboratable):
    """Watches one word that the solver picks, whichever one: that with the number `chosen`. Numbers wrap at twice the
    depth, so that those of all words in the queue differ."""

    def __init__(self, *, through: bool):
        self.through = through

    def elaborate(self, platform) -> Module:
        m = Module()
        queue = Queue(unsigned(WIDTH), DEPTH, through=self.through)
        m.submodules.queue = opened = Opened(queue, inputs=True)
        numbers = range(2 * DEPTH)
        chosen, word = constant(m, numbers, "chosen"), Signal(WIDTH)
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
            Assume(~queue.push | (inside < DEPTH)),  # whoever pushes knows that there is room
            Assert(queue.pop.valid == ((inside != 0) | (passes & queue.push))),
            Assert(~(pops & (popped == chosen)) | (queue.pop.payload == Mux(passes, queue.entry, word))),
            # What makes it inductive
            Assert(inside <= DEPTH),
            Assert(queue.level == inside),
            Assert(write.addr == pushed[: len(held.addr)]),
            Assert(read.addr == popped[: len(held.addr)]),
            Assert(~waits | (held.data == word)),
        ]
        return m


class FifosHarness(Elaboratable):
    """Every SyncFIFO of Amaranth that the hardware has, of the width and depth that it has in a NIC of one core and in
    one of three, where not every depth is a power of two. In each, a word is watched that the solver picks when it goes
    in: it comes out behind those that were before it."""

    def elaborate(self, platform) -> Module:
        m = Module()
        sizes = set()
        for config in (NicConfig(), NicConfig(cores=3, threads=8)):
            for part in (Dispatch(config), Transmit(config), Requester(config), Emitter(config)):
                inside = [each for each, _ in part.elaborate(None)._named_submodules.values()]
                found = {(each.width, each.depth) for each in inside if isinstance(each, SyncFIFO)}
                assert found, part
                sizes |= found
        for width, depth in sorted(sizes):
            self._watch(m, width, depth)
        return m

    def _watch(self, m: Module, width: int, depth: int) -> None:
        of = f"{width}_{depth}"
        fifo = SyncFIFO(width=width, depth=depth)
        m.submodules[f"fifo_{of}"] = opened = Opened(fifo)
        m.d.comb += [
            fifo.w_en.eq(free(m, 1, f"w_en_{of}")),
            fifo.w_data.eq(free(m, width, f"w_data_{of}")),
            fifo.r_en.eq(free(m, 1, f"r_en_{of}")),
        ]
        goes_in, comes_out = fifo.w_en & fifo.w_rdy, fifo.r_en & fifo.r_rdy
        inside, before = (Signal(range(depth + 1), name=f"{name}_{of}") for name in ("inside", "before"))
        watched, word, place = Signal(name=f"watched_{of}"), Signal(width, name=f"word_{of}"), Signal(range(depth))
        (write,), (read,) = opened.part("storage").write_ports, opened.part("storage").read_ports
        look = opened.part("storage").read_port(domain="comb")
        m.d.sync += inside.eq(inside + goes_in - comes_out)
        with m.If(watched & comes_out):
            m.d.sync += [before.eq(before - 1), watched.eq(before != 0)]
        with m.If(~watched & goes_in & free(m, 1, f"pick_{of}")):
            m.d.sync += [watched.eq(1), word.eq(fifo.w_data), place.eq(write.addr), before.eq(inside - comes_out)]
        next_one = watched & (before == 0)
        m.d.comb += [
            look.addr.eq(place),
            Assert(fifo.r_rdy == (inside != 0)),
            Assert(fifo.w_rdy == (inside != depth)),
            Assert(~next_one | (fifo.r_rdy & (fifo.r_data == word))),  # until it is taken
            # What makes it inductive
            Assert((inside <= depth) & (fifo.level == inside) & (write.addr < depth) & (read.addr < depth)),
            Assert(self._ring(read.addr + inside, depth) == write.addr),
            Assert(~watched | (before < inside)),
            Assert(~watched | (self._ring(read.addr + before, depth) == place)),
            Assert(~watched | (look.data == word)),
        ]

    def _ring(self, address, depth: int):
        return Mux(address >= depth, address - depth, address)


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
    """Way B of three users. One access is watched that the solver picks when it is taken."""

    def elaborate(self, platform) -> Module:
        m = Module()
        turns = Turns(NicConfig(map_bytes=4096), users=3)
        m.submodules.turns = opened = Opened(turns, inputs=True)
        table, users = turns.table, turns.users
        *others, last = users
        takes = Cat(user.request & user.grant for user in users)
        refused = later(m, Cat(user.request & ~user.grant for user in others).any())
        asks = Cat(user.request for user in others)
        first_asks = (asks & -asks)[: len(others)]
        first, second = opened.signal("first"), opened.signal("second")
        offered = Signal.like(first, name="offered")
        for number, user in enumerate(users):
            with m.If(takes[number]):
                m.d.comb += offered.eq(Cat(user.address, user.write, user.data, Const(1 << number, len(users))))
        makes, inside = table.request & table.grant, Signal(range(4))
        watched, access, before = Signal(), Signal.like(offered), Signal(range(2))
        m.d.sync += inside.eq(inside + takes.any() - makes)
        with m.If(watched & makes):
            m.d.sync += [before.eq(before - 1), watched.eq(before != 0)]
        with m.If(~watched & takes.any() & free(m, 1, "pick")):
            m.d.sync += [watched.eq(1), access.eq(offered), before.eq((inside - makes)[:1])]
        what, whose = access[: -len(users)], access[-len(users) :]
        reads = makes & ~table.write.any()
        came = later(m, watched & ~before & reads)
        comes = Cat(user.coming for user in users)
        m.d.comb += [
            # While there is room, the last one, but where another one was refused; else the first of those that ask.
            Assert(inside <= 2),
            Assert(takes == Mux(inside == 2, 0, Mux(last.request & ~refused, 1 << len(others), first_asks))),
            # What was taken is made once, in its order, and what it reads comes to whom it belongs.
            Assert(table.request == (inside != 0)),
            Assert(~watched | (inside > before)),
            Assert(~(watched & ~before) | (Cat(table.address, table.write, table.data) == what)),
            Assert(~came | (comes == later(m, whose))),
            Assert(comes.any() == later(m, reads)),
            Assert(Cat(user.came for user in users) == later(m, comes, 2)),
            Assert(~watched | ((Cat(user.pending for user in users) & whose) == whose)),
            # How the registers come to that.
            Assert(first[-len(users) :].any() == (inside != 0)),
            Assert(second[-len(users) :].any() == (inside == 2)),
            Assert(~watched | (access == Mux(before, second, first))),
        ]
        return m


PROOFS = [
    Proof(
        name="queue",
        of=("hdl/core/queue.py",),
        says="the core's queues: each word comes out once, unchanged, in the order of the pushes; `valid` says whether "
        "there is one",
        harness=lambda: QueueHarness(through=False),
        mutations=(
            Mutation("hdl/core/queue.py", "with m.If(self.push & ~popped)", "with m.If(self.push)"),
            Mutation("hdl/core/queue.py", "write.addr + 1", "write.addr | 1"),
        ),
        clocks=4,
    ),
    Proof(
        name="queue-through",
        of=("hdl/core/queue.py",),
        says="those of the map engine, whose words are there in the clock of their push when none is before them: the "
        "same",
        harness=lambda: QueueHarness(through=True),
        mutations=(Mutation("hdl/core/queue.py", "with m.If(~self.level.any())", "with m.If(self.push)"),),
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
        of=("hdl/maps/sharing.py",),
        says="way B: while there is room the last unit is heard, but in a clock after another was refused; then the "
        "first of the others. Each access is made once, unchanged, in their order; what it reads comes to its unit",
        harness=TurnsHarness,
        mutations=(
            Mutation("hdl/maps/sharing.py", "first.eq(Mux(waits, second, asked))", "first.eq(Mux(waits, second, 0))"),
            Mutation("hdl/maps/sharing.py", "last.request & ~yields", "last.request"),
            Mutation("hdl/maps/sharing.py", "~first.write.any(), first.user, 0)", "1, first.user, 0)"),
        ),
        clocks=4,
    ),
    Proof(
        name="fifos",
        of=("amaranth/lib/fifo.py",),
        says="the library's SyncFIFO, of each width and depth that `hdl/` has: each word comes out once, unchanged, in "
        "the order of the pushes; what it offers stays until it is taken",
        harness=FifosHarness,
        mutations=(
            Mutation("amaranth/lib/fifo.py", "do_write & ~do_read", "do_write"),
            Mutation("amaranth/lib/fifo.py", "do_read & ~do_write", "do_read | ~do_write"),
        ),
        clocks=3,
    ),
]
