"""The map engine's searches: each has one result, whatever waits, and none is under way when the serial unit writes."""

from amaranth import Cat, Module, Signal
from amaranth.hdl import Assert, Assume, Elaboratable
from amaranth.lib.data import View

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import key_slots
from bpfnic.hdl.maps.finder import UNDER_WAY, WAY_LATENCY, Comparison, Finder, Search
from tests.formal.opened import Opened, constant
from tests.formal.proof import Mutation, Proof

CONFIG = NicConfig(threads=8, map_bytes=4096, maps=1)
CPUS = CONFIG.cores * CONFIG.threads


class _Queue:
    """What is known of a queue that is left out: how many entries it has, and whether the watched search is one. The
    solver chooses what comes out, but nothing that has not gone in (tests/formal/streams.py proves queues)."""

    def __init__(self, m: Module, name: str, queue, slot_in, slot_out, watched: Signal):
        self.level = Signal(range(64), name=f"{name}_level")
        self.has = Signal(name=f"{name}_has")
        pops = queue.pop.valid & queue.pop.ready
        goes_in, comes_out = queue.push & (slot_in == watched), pops & (slot_out == watched)
        m.d.sync += [self.level.eq(self.level + queue.push - pops), self.has.eq((self.has | goes_in) & ~comes_out)]
        m.d.comb += [
            Assume(queue.pop.valid == (self.level != 0)),
            Assume(~queue.pop.valid | (slot_out != watched) | self.has),
            Assume(~(queue.pop.valid & self.has & (self.level == 1)) | (slot_out == watched)),
            Assert(~(goes_in & self.has)),
            Assert(self.level >= self.has),
        ]


class FinderHarness(Elaboratable):
    """One key slot, whichever, and the searches for it: of its CPU or of the serial unit. The others are the solver's,
    and what rows and keys say, and when map memory grants."""

    def elaborate(self, platform) -> Module:
        m = Module()
        finder = Finder(CONFIG)
        queues = ("asked", "again", "comparisons")
        kept = ("bucket_of", "link_of", "key_of", "value_of", "lengths")
        m.submodules.finder = opened = Opened(finder, inputs=True, without=(*queues, *kept, "hash", "key_memory"))
        watched = constant(m, range(key_slots(CONFIG)), "watched")
        m.d.comb += Assume(watched < key_slots(CONFIG))
        asked, again, comparisons = (opened.part(name) for name in queues)
        in_asked = _Queue(m, "asked", asked, asked.entry, asked.pop.payload, watched)
        in_again = _Queue(m, "again", again, again.entry.slot, again.pop.payload.slot, watched)
        in_comparisons = _Queue(
            m, "comparisons", comparisons, comparisons.entry.search.slot, comparisons.pop.payload.search.slot, watched
        )

        # Where a search can be.
        def stage(name: str, layout) -> View:
            return View(layout, opened.signal(name)[: layout.size])

        waiting, came, words = (opened.signal(name) for name in ("waiting", "came", "words_come"))
        holds, held, spares, head_valid = (opened.signal(name) for name in ("holds", "held", "spares", "head_valid"))
        finals = Cat(opened.signal(f"comparing{i}")[Comparison(CONFIG).size] for i in range(WAY_LATENCY))
        rows = [stage(f"flight{i}", Search(CONFIG)) for i in range(WAY_LATENCY)]
        keys = [stage(f"comparing{i}", Comparison(CONFIG)).search for i in range(WAY_LATENCY)]
        mine = [
            holds & (held == watched),
            waiting & (stage("search", Search(CONFIG)).slot == watched),
            spares & (stage("spare", Search(CONFIG)).slot == watched),
            *(came[i] & (rows[i].slot == watched) for i in range(WAY_LATENCY)),
            *(words[i] & finals[i] & (keys[i].slot == watched) for i in range(WAY_LATENCY)),
            in_again.has,
            in_comparisons.has,
            head_valid & (stage("head", Comparison(CONFIG)).search.slot == watched),
        ]
        under_way = Signal(range(64))
        m.d.comb += under_way.eq(
            waiting + spares + head_valid + sum(came[i] + (words[i] & finals[i]) for i in range(WAY_LATENCY))
            + in_again.level + in_comparisons.level
        )  # fmt: skip

        # Its life: asked for, begun, known.
        known = words[-1] & finals[-1] & ~again.push & (keys[-1].slot == watched)
        asks = finder.look_up_valid & (finder.look_up.slot == watched)
        takes = asked.pop.valid & asked.pop.ready & (asked.pop.payload == watched)
        finds = finder.find.valid & finder.find.ready & (finder.find.payload.slot == watched)
        alive, of_unit, others = Signal(), Signal(), Signal(range(64))
        begins, ends = asked.pop.valid & asked.pop.ready, finder.decides
        m.d.sync += alive.eq((alive | takes | finds) & ~known)
        m.d.sync += others.eq(others + (begins & ~takes) - (ends & ~known))
        with m.If(takes | finds):
            m.d.sync += of_unit.eq(finds)
        m.d.comb += [
            # A CPU has one look-up under way at most, and the serial unit none for a slot that has.
            Assume(~finder.look_up_valid | (in_asked.level < CPUS)),
            Assume(finder.look_up.slot < CPUS),
            Assume(~asked.pop.valid | (asked.pop.payload < CPUS)),
            Assume(~asks | ~(alive | in_asked.has)),
            Assume(~(finder.find.valid & (finder.find.payload.slot == watched)) | ~(alive | in_asked.has | asks)),
            # Each way grants what asks; and what is proved here of this slot's look-ups holds for all.
            Assume(~finder.rows.grant | finder.rows.request),
            Assume(~finder.table.grant | finder.table.request),
            Assume(~(ends & ~known) | (others != 0)),
            Assume(~(begins & ~takes) | (others < UNDER_WAY)),
            # It is in one place from its beginning to its result, of which there is one.
            Assert(sum(mine) == alive),
            Assert(~known | alive),
            Assert(~known | (finder.decides == ~of_unit)),
            Assert(~(finder.decides & (keys[-1].slot == watched)) | (known & (finder.decided == watched))),
            Assert(~alive | of_unit | (watched < CPUS)),
            Assert(~in_asked.has | (~alive & (watched < CPUS))),
            # No queue is ever full, and nothing is under way that is not counted.
            Assert(under_way == opened.signal("under_way")),
            Assert(under_way <= UNDER_WAY),
            Assert((in_again.level <= UNDER_WAY) & (in_comparisons.level <= UNDER_WAY)),
            # None of a program's is under way when the serial unit may write.
            Assert(opened.signal("look_ups") == (others + (alive & ~of_unit))[:5]),
            Assert(others <= UNDER_WAY),
            Assert(~finder.idle | ~alive | of_unit),
            Assert(~finder.idle | ~takes),
            Assert(~mine[0] | of_unit),  # waits to begin
            Assert(~alive | mine[0] | (opened.signal("of_unit").bit_select(watched, 1) == of_unit)),
        ]
        return m


PROOFS = [
    Proof(
        name="finder",
        of=("hdl/maps/finder.py",),
        says="each search, of a program or of the serial unit, is in one place until it has its result, and has one; "
        "no queue is ever full; while the serial unit holds look-ups and none is under way, none begins",
        harness=FinderHarness,
        mutations=(
            Mutation("hdl/maps/finder.py", "again.push.eq(goes_on),", "again.push.eq(goes_on & ~result.search.chain),"),
            Mutation("hdl/maps/finder.py", "asked.pop.valid & room & ~self.hold", "asked.pop.valid & room"),
            Mutation("hdl/maps/finder.py", "ends_look_up.eq(known & ~ours)", "ends_look_up.eq(known)"),
        ),
        clocks=3,
        reach=24,
    )
]
