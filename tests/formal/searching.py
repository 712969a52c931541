"""The map engine's searches: each has one result, whatever waits, and none is under way when the serial unit writes."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Elaboratable
from amaranth.lib.data import View

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import SCRATCH_KEYS, bank_bit, key_slots
from bpfnic.hdl.maps.finder import COMPARE_CLOCKS, UNDER_WAY, WORDS_UNDER_WAY, Comparison, Finder, Search
from bpfnic.hdl.maps.sharing import WAY_LATENCY
from tests.formal.opened import Opened, constant
from tests.formal.proof import Mutation, Proof

CONFIG = NicConfig(threads=8, map_bytes=4096, maps=1)
CPUS = CONFIG.cores * CONFIG.threads


class _Queue:
    """What is known of a queue that is left out: how many entries it has, how many of them are searches (words of a
    key before its last one are none), and whether the watched search is one. The solver chooses what comes out, but
    nothing that has not gone in, before or, with none before it, in this clock where an entry goes `through`
    (tests/formal/streams.py proves queues)."""

    def __init__(self, m: Module, name: str, queue, slot_in, slot_out, watched: Signal, counts_in=1, counts_out=1,
                 through=False):  # fmt: skip
        self.level, self.searches = Signal(range(64), name=f"{name}_level"), Signal(range(64), name=f"{name}_searches")
        self.has = Signal(name=f"{name}_has")
        valid = queue.pop.valid
        pops = valid & queue.pop.ready
        goes_in, comes_out = queue.push & counts_in & (slot_in == watched), pops & counts_out & (slot_out == watched)
        m.d.sync += [
            self.level.eq(self.level + queue.push - pops),
            self.searches.eq(self.searches + (queue.push & counts_in) - (pops & counts_out)),
            self.has.eq((self.has | goes_in) & ~comes_out),
        ]
        passes = (self.level == 0) & through
        level, searches = self.level + (passes & queue.push), self.searches + (passes & queue.push & counts_in)
        has = self.has | (passes & goes_in)
        m.d.comb += [
            Assume(valid == (level != 0)),
            Assume(~(valid & counts_out) | (searches != 0)),
            Assume(~valid | counts_out | (searches != level)),
            Assume(~(valid & counts_out) | (slot_out != watched) | has),
            Assume(~(valid & counts_out & has & (searches == 1)) | (slot_out == watched)),
            Assert(~(goes_in & self.has)),
            Assert((self.level >= self.searches) & (self.searches >= self.has)),
        ]


class FinderHarness(Elaboratable):
    """One key slot, whichever, and the searches for it: of its CPU or of the serial unit. The others are the solver's,
    and what rows and keys say, and when map memory grants."""

    def elaborate(self, platform) -> Module:
        m = Module()
        finder = Finder(CONFIG)
        queues = ("asked", "sought", "again", "comparisons", "reading")
        kept = ("bucket_of", "link_of", "key_of", "value_of", "lengths")
        m.submodules.finder = opened = Opened(finder, inputs=True, without=(*queues, *kept, "hash", "key_memory"))
        watched = constant(m, range(key_slots(CONFIG)), "watched")
        m.d.comb += Assume(watched < key_slots(CONFIG))
        asked, sought, again, comparisons, reading = (opened.part(name) for name in queues)
        in_sought = _Queue(m, "sought", sought, sought.entry, sought.pop.payload, watched)
        in_asked = _Queue(m, "asked", asked, asked.entry, asked.pop.payload, watched, through=True)
        in_again = _Queue(m, "again", again, again.entry.slot, again.pop.payload.slot, watched)
        in_comparisons = _Queue(
            m, "comparisons", comparisons, comparisons.entry.search.slot, comparisons.pop.payload.search.slot, watched,
            through=True,
        )  # fmt: skip

        read, reads = reading.pop.payload, reading.entry
        in_reading = _Queue(
            m, "reading", reading, reads.head.search.slot, read.head.search.slot, watched, reads.final, read.final
        )

        # Where a search can be.
        def stage(name: str, layout) -> View:
            return View(layout, opened.signal(name)[: layout.size])

        waiting, came, words = (opened.signal(name) for name in ("waiting", "came", "came_words"))
        chosen_valid, spares, head_valid = (opened.signal(name) for name in ("chosen_valid", "spares", "head_valid"))
        skipped = opened.signal("skipped_valid")
        finals = Cat(opened.signal(f"comparing{i}")[Comparison(CONFIG).size] for i in range(COMPARE_CLOCKS))
        keys = [stage(f"comparing{i}", Comparison(CONFIG)).search for i in range(COMPARE_CLOCKS)]
        stages = [
            (chosen_valid, stage("chosen", Search(CONFIG))),
            (waiting, stage("search", Search(CONFIG))),
            (spares, stage("spare", Search(CONFIG))),
            *((came[i], stage(f"flight{i}", Search(CONFIG))) for i in range(WAY_LATENCY)),
            (comparisons.push, comparisons.entry.search),
            (head_valid, stage("head", Comparison(CONFIG)).search),
            *((skipped[i], stage(f"skipped{i}", Comparison(CONFIG)).search) for i in range(2)),
            *((words[i] & finals[i], keys[i]) for i in range(COMPARE_CLOCKS)),
        ]
        mine = [
            in_sought.has,
            in_again.has,
            in_comparisons.has,
            in_reading.has,
            *(there & (search.slot == watched) for there, search in stages),
        ]
        under_way = Signal(range(64))
        m.d.comb += under_way.eq(
            sum(there for there, _ in stages) + in_again.level + in_comparisons.level + in_reading.searches
        )

        # Its life: asked for, begun, known.
        known = words[-1] & finals[-1] & ~again.push & (keys[-1].slot == watched)
        asks = finder.look_up_valid & (finder.look_up.slot == watched)
        takes = asked.pop.valid & asked.pop.ready & (asked.pop.payload == watched)
        finds = finder.find.valid & (finder.find.slot == watched)
        alive, of_unit, others = Signal(), Signal(), Signal(range(64))
        begins, ends = asked.pop.valid & asked.pop.ready, finder.result_valid
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
            Assume(~finder.find.valid | (in_sought.level < SCRATCH_KEYS)),
            Assume(~finds | ~(alive | in_asked.has | asks)),
            # Each way grants what asks; and what is proved here of this slot's look-ups holds for all.
            Assume(~finder.rows.grant | finder.rows.request.any()),
            Assume(~finder.table.grant | finder.table.request),
            # Of words that were asked for two wait, and one has been granted, which is coming now.
            Assume(~finder.table.coming | (in_reading.level != 0)),
            Assume(~finder.table.grant | (in_reading.level < WORDS_UNDER_WAY)),
            Assume(~(ends & ~known) | (others != 0)),
            Assume(~(begins & ~takes) | (others < UNDER_WAY)),
            # A row is asked for where it lies, and only while one waits.
            Assert(finder.rows.request == Mux(waiting, bank_bit(CONFIG, finder.rows.row), 0)),
            Assert(~spares | (opened.signal("spare_bank") == bank_bit(CONFIG, opened.signal("spare_row")))),
            # It is in one place from its beginning to its result, of which there is one.
            Assert(sum(mine) == alive),
            Assert(~known | alive),
            Assert(~known | (finder.result_valid == ~of_unit)),
            Assert(~(finder.result_valid & (keys[-1].slot == watched)) | (known & (finder.result.slot == watched))),
            Assert(~alive | of_unit | (watched < CPUS)),
            Assert(~in_asked.has | (~alive & (watched < CPUS))),
            # No queue is ever full, and nothing is under way that is not counted.
            Assert(under_way == opened.signal("under_way")),
            Assert(under_way <= UNDER_WAY),
            Assert((in_again.level <= UNDER_WAY) & (in_comparisons.level <= UNDER_WAY)),
            Assert((in_sought.level <= SCRATCH_KEYS) & (in_reading.level <= WORDS_UNDER_WAY)),
            # None of a program's is under way when the serial unit may write.
            Assert(opened.signal("look_ups") == (others + (alive & ~of_unit))[:5]),
            Assert(others <= UNDER_WAY),
            Assert(~finder.idle | ~alive | of_unit),
            Assert(~finder.idle | ~takes),
            Assert(~in_sought.has | of_unit),
            # Whose last word has come.
            Assert(opened.signal("last_of_unit") == (words[-1] & finals[-1] & keys[-1].of_unit)),
            Assert(opened.signal("last_of_program") == (words[-1] & finals[-1] & ~keys[-1].of_unit)),
            # What has no key comes as a whole.
            *(Assert(~skipped[i] | opened.signal(f"skipped{i}")[Comparison(CONFIG).size]) for i in range(2)),
            # Everywhere it is known whose it is.
            *(Assert(~there | (search.slot != watched) | (search.of_unit == of_unit)) for there, search in stages),
        ]
        for queue, goes_in, comes_out in (
            (again, again.entry, again.pop.payload),
            (comparisons, comparisons.entry.search, comparisons.pop.payload.search),
            (reading, reads.head.search, read.head.search),
        ):
            m.d.comb += [
                Assert(~queue.push | (goes_in.slot != watched) | (goes_in.of_unit == of_unit)),
                Assume(~queue.pop.valid | (comes_out.slot != watched) | (comes_out.of_unit == of_unit)),
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
            Mutation("hdl/maps/finder.py", "Mux(spares, spare_bank,", "Mux(0, spare_bank,"),
            Mutation("hdl/maps/finder.py", "again.push.eq(goes_on),", "again.push.eq(goes_on & ~result.search.chain),"),
            Mutation("hdl/maps/finder.py", "asked.pop.valid & room & ~self.hold", "asked.pop.valid & room"),
            Mutation("hdl/maps/finder.py", "ends_look_up.eq(last_of_program & known)", "ends_look_up.eq(ends)"),
        ),
        clocks=3,
        reach=24,
    )
]
