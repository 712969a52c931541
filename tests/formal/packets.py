"""The packet path: no beat is lost, doubled or reordered, whatever waits.

Transmit, Receive, Collect and Pool one by one. Between them there are queues, which tests/formal/streams.py proves.
"""

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Elaboratable
from amaranth.lib.data import View

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.packets.pool import Pool
from bpfnic.hdl.packets.records import Departure
from bpfnic.hdl.packets.transmit import BEATS, Half, Tag, Transmit
from tests.formal.opened import Opened, constant, free, later
from tests.formal.proof import Mutation, Proof

CONFIG = NicConfig(cores=2, threads=8, ports=1)


class PoolHarness(Elaboratable):
    """One buffer, whichever. It is given back once, while it is in use."""

    def elaborate(self, platform) -> Module:
        m = Module()
        pool = Pool(CONFIG)
        m.submodules.pool = opened = Opened(pool, inputs=True)
        mine, used = constant(m, range(CONFIG.packet_buffers), "mine"), Signal()
        taken, held = pool.take & (pool.spare == mine), pool.ready & (pool.spare == mine)
        gives = Cat(give.enable & (give.buffer == mine) for give in pool.give)
        m.d.sync += used.eq((used | taken) & ~gives.any())
        listed, back = (opened.signal(name).bit_select(mine, 1) for name in ("free", "came"))
        waited = later(m, ~pool.ready & ~pool.empty)
        m.d.comb += [
            Assume(~pool.take | pool.ready),
            Assume(~gives.any() | used),
            Assume(~(gives & (gives - 1)).any()),
            Assert(~(taken & used)),
            Assert(~waited | pool.ready),
            Assert(pool.more == opened.signal("free").any()),
            Assert(~pool.empty | used | back),
            Assert(used + listed + held + back == 1),  # so it is never lost
        ]
        return m


class TransmitHarness(Elaboratable):
    """One departure and one byte of it, whichever, from the clock in which its egress takes it out of the queue until
    its beats are in the egress's queue of beats; first it waits for its turn. All other departures, of this egress and
    the others, and what takes beats away are the solver's; the buffer holds a byte that the solver picks.

    A read goes through four stages, of its core, and its egress joins what comes out. `mine`: which stages have a word
    of this departure, and `number`: the which it is.
    """

    def elaborate(self, platform) -> Module:
        m = Module()
        transmit = Transmit(CONFIG)
        m.submodules.transmit = opened = Opened(transmit, inputs=True)
        departure = View(Departure(CONFIG), constant(m, Departure(CONFIG).size, "departure"))
        byte, value = constant(m, range(CONFIG.buffer_bytes), "byte"), constant(m, 8, "value")
        end = Signal(16)
        beats, ahead, words, source = (Signal(10, name=name) for name in ("beats", "ahead", "words", "source"))
        lane, first = byte[:3], departure.data[:3]
        m.d.comb += [
            end.eq(departure.data + departure.length),
            Assume((departure.length > 0) & (end <= CONFIG.buffer_bytes) & (byte < departure.length)),
            beats.eq((departure.length + 7)[3:]),
            ahead.eq(first.any()),
            words.eq(beats + ahead),  # to be read
            source.eq((byte + first)[3:]),  # the one with the byte
        ]
        phase = Signal()
        m.d.sync += phase.eq(~phase)
        m.d.comb += Assume(transmit.phase == phase)
        for egress in range(CONFIG.interfaces):
            self._invariants(m, opened, egress)

        egress = 0  # the egresses are alike
        state = {
            name: opened.signal(f"{name}{egress}") for name in ("active", "core", "buffer", "word", "beats", "granted")
        }
        tag = View(Tag(CONFIG), opened.signal(f"tag{egress}"))
        queue, out = opened.part(f"queue{egress}"), opened.part(f"beats{egress}")
        waits, loads, next_one = (opened.signal(f"{name}{egress}") for name in ("waits", "loads", "next_one"))
        waiting, reading, over, asked = Signal(), Signal(), Signal(), Signal(10)  # `asked`: words
        fetched = queue.pop.ready & queue.pop.valid & ~waiting & ~reading & ~over & (queue.pop.payload == departure)
        granted = state["granted"].any()
        reads, last = granted & reading, asked + 1 == words
        with m.If(fetched & free(m, 1, "pick")):
            m.d.sync += waiting.eq(1)
        with m.If(waiting & loads):
            m.d.sync += [waiting.eq(0), reading.eq(1)]
        with m.If(reads):
            m.d.sync += [asked.eq(asked + 1), reading.eq(~last), over.eq(last)]
            m.d.comb += Assert(loads == last)
        m.d.comb += [
            Assert(~waiting | (waits & (next_one == departure.as_value()) & ~reading & ~over)),
            Assert(~reading | state["active"]),
            Assert(~reading | ((state["core"] == departure.place.core) & (state["buffer"] == departure.place.buffer))),
            Assert(~reading | (state["word"] == (departure.data[3:] + asked)[:8])),
            Assert(~reading | (state["beats"] == (beats - 1 - Mux(asked > ahead, asked - ahead, 0))[:8])),
            Assert(~reading | (asked < words)),
            Assert(~reading | (tag.ahead == (ahead[0] & (asked == 0)))),
            Assert(~reading | self._same(tag, departure)),
            Assert(reading | over | (asked == 0)),
            Assert(~(reading & over)),
            Assert(~over | (asked == words)),
        ]
        for core, (read, give) in enumerate(zip(transmit.read, transmit.give, strict=True)):
            here = reads & (departure.place.core == core)
            m.d.comb += [
                Assert(~here | (read.buffer == departure.place.buffer)),
                Assert(~here | ((read.word == state["word"]) & (read.word[0] != phase))),
                Assert(~later(m, here) | (give.enable == later(m, last))),
                Assert(~later(m, here) | (give.buffer == departure.place.buffer)),
            ]

        # The stages. The word comes when the third one has its tag.
        stages = [
            [View(Tag(CONFIG), opened.signal(f"tag{stage}_of_core{core}")) for stage in range(3)]
            + [View(Half(CONFIG), opened.signal(f"half{core}"))]
            for core in range(CONFIG.cores)
        ]
        here = [Cat(core[stage].egress[egress] for core in stages) for stage in range(4)]  # a bit for each core
        mine, numbers, at_source = [], [], []
        for stage in range(4):
            mine.append(Signal(name=f"mine{stage}"))
            numbers.append(Signal(10, name=f"number{stage}"))
            at_source.append(Signal(name=f"at_source{stage}"))
            before = (mine[-2], numbers[-2], at_source[-2]) if stage else None
            m.d.sync += [
                mine[stage].eq(before[0] if before else reads),
                numbers[stage].eq(before[1] if before else asked),
                at_source[stage].eq(before[2] if before else self._reads(transmit, departure, byte)),
            ]
        left = Signal(10)  # words that have left the stages
        m.d.sync += left.eq(left + mine[3])
        for stage in range(4):
            older = sum(mine[stage + 1 :], Value.cast(0))
            other = here[stage].any() & ~mine[stage]
            ends, leads = numbers[stage] + 1 == words, ahead[0] & (numbers[stage] == 0)
            m.d.comb += [
                Assert(~mine[stage] | (here[stage] == 1 << departure.place.core)),
                Assert(~mine[stage] | (numbers[stage] == (left + older)[:10])),
                Assert(~mine[stage] | (numbers[stage] < words)),
                Assert(~mine[stage] | (numbers[stage] != source) | at_source[stage]),
                # No other frame's word between these
                Assert(~other | (~Cat(mine[:stage]).any() & ~reading) | (~Cat(mine[stage + 1 :]).any() & (left == 0))),
                Assert(~other | ~Cat(mine[stage + 1 :]).any() | over),
                Assert(~other | ~Cat(mine[:stage]).any() | ((left == 0) & ~Cat(mine[stage + 1 :]).any())),
            ]
            for core in stages:
                each = core[stage]
                m.d.comb += Assert(~(mine[stage] & each.egress[egress]) | ((each.last == ends) & (each.ahead == leads)))
                if stage < 3:
                    m.d.comb += Assert(~(mine[stage] & each.egress[egress]) | self._same(each, departure))
        m.d.comb += Assert(asked == (left + sum(mine, Value.cast(0)))[:10])

        # What the buffer says, and what becomes of it
        place = Signal(3)
        m.d.comb += place.eq(lane + first)
        for core, read in enumerate(transmit.read):
            said = read.data.word_select(place, 8) == value
            m.d.comb += Assume(~(at_source[2] & (departure.place.core == core)) | said)
            half = stages[core][3]
            here_now = mine[3] & half.egress[egress]
            m.d.comb += [
                Assert(~(here_now & (numbers[3] == source)) | (half.word.word_select(lane, 8) == value)),
                Assert(~here_now | (half.user == departure.user)),
                Assert(~here_now | (half.keep == self._keep(departure, numbers[3] + 1 == words))),
            ]
            for each in range(8):
                m.d.comb += Assert(~here_now | (half.before[each] == (ahead[0] & (first + each < 8))))
        joined = []  # of each core, the last word for this egress
        for core in range(CONFIG.cores):
            look = opened.part(f"before{core}").read_port(domain="comb")
            m.d.comb += look.addr.eq(egress)
            joined.append(look.data)
        fresh = (left == source + 1) & ~((left == words) & over)
        last_word = Array(joined)[departure.place.core]
        m.d.comb += Assert(~fresh | (last_word.word_select(lane, 8) == value))

        # The contract, at the queue of beats
        beat, comes = out.entry, mine[3] & (numbers[3] >= ahead)
        number = Signal(10)  # of the beat
        m.d.sync += number.eq(number + comes)
        ends = number + 1 == beats
        m.d.comb += [
            Assert(~mine[3] | (out.push == comes)),
            Assert(~out.push | (out.level < out.depth)),
            Assert(~out.push | comes | (number == 0) | (number == beats)),  # not interleaved
            Assert(number == Mux(left > ahead, left - ahead, 0)),
            Assert(number <= beats),
            Assert(~comes | (beat.last == ends)),
            Assert(~comes | (beat.user == departure.user)),
            Assert(~comes | (beat.keep == self._keep(departure, ends))),
            Assert(~(comes & (number == byte[3:])) | (beat.data.word_select(lane, 8) == value)),
        ]
        for each in range(8):
            m.d.comb += Assert(~comes | beat.keep[each] | (beat.data.word_select(each, 8) == 0))
        return m

    def _invariants(self, m: Module, opened: Opened, egress: int) -> None:
        """Of each egress: what goes in and out of its queues, and that its beats have places."""
        transmit = opened.component
        queue, out = opened.part(f"queue{egress}"), opened.part(f"beats{egress}")
        active, tag = opened.signal(f"active{egress}"), View(Tag(CONFIG), opened.signal(f"tag{egress}"))
        room, port, under_way = opened.signal(f"room{egress}"), transmit.egress[egress], []
        for stage in range(4):
            tags = []
            for core in range(CONFIG.cores):
                one = View(Half(CONFIG), opened.signal(f"half{core}"))
                if stage < 3:
                    one = View(Tag(CONFIG), opened.signal(f"tag{stage}_of_core{core}"))
                tags.append(one)
                m.d.comb += Assert(~(one.egress & (one.egress - 1)).any())
            here = Cat(one.egress[egress] for one in tags)
            m.d.comb += Assert(~(here & (here - 1)).any())
            under_way.append(Cat(one.egress[egress] & ~one.ahead for one in tags).any())
        m.d.comb += [
            Assume(~transmit.push[egress] | transmit.room[egress]),
            Assert(queue.push == transmit.push[egress]),
            Assert(queue.entry == transmit.departure),
            Assert(queue.pop.ready == ~opened.signal(f"waits{egress}")),
            Assert(~transmit.room[egress] | (queue.level < queue.depth)),
            Assert(transmit.room[egress] | later(m, (queue.level == queue.depth) | queue.push)),
            Assert((port.valid == out.pop.valid) & (port.ready == out.pop.ready)),
            Assert(port.payload == out.pop.payload),
            Assert(~active | (tag.egress == 1 << egress)),
            Assert(~active | (opened.signal(f"due{egress}") == (opened.signal(f"word{egress}")[0] != transmit.phase))),
            Assert(room + opened.signal(f"left{egress}") + out.level + sum(under_way) == BEATS),
            Assert(queue.level <= queue.depth),
            *(Assert(each.pop.valid == each.level.any()) for each in (queue, out)),
            Assert(opened.signal(f"has_room{egress}") == room.any()),
        ]

    def _same(self, tag, departure) -> Value:
        rest = departure.length[:3]
        return (tag.lane == departure.data[:3]) & (tag.user == departure.user) & (tag.rest == rest)

    def _keep(self, departure, last) -> Value:
        rest = departure.length[:3]
        return Mux(last & rest.any(), (1 << rest) - 1, 0xFF)

    def _reads(self, transmit: Transmit, departure, byte) -> Value:
        """Its core reads the word with the byte."""
        word = (departure.data + byte)[3:]
        return Cat(
            (departure.place.core == core) & (read.buffer == departure.place.buffer) & (read.word == word)
            for core, read in enumerate(transmit.read)
        ).any()


PROOFS = [
    Proof(
        name="transmit",
        of=("hdl/packets/transmit.py",),
        says="the beats of a departure, from any offset and of any length, go to its egress whole, in order, once, "
        "with the buffer's bytes, keep, last and user, and no beat of another frame between them; each has a place in "
        "the egress's queue of beats, whatever waits; its buffer is given back with its last word, once",
        harness=TransmitHarness,
        mutations=(
            Mutation("hdl/packets/transmit.py", "granted.any() & ~state.tag.ahead", "granted.any()"),
            Mutation("hdl/packets/transmit.py", "(tag.lane + lane < WORD_BYTES)", "(tag.lane + lane <= WORD_BYTES)"),
            Mutation("hdl/packets/transmit.py", "(state.beats == 0) & ~state.tag.ahead", "(state.beats == 0)"),
            Mutation("hdl/packets/transmit.py", "state.word.eq(state.word + 1)", "state.word.eq(state.word | 1)"),
        ),
        clocks=14,
        quick=False,
    ),
    Proof(
        name="pool",
        of=("hdl/packets/pool.py",),
        says="a buffer is never handed out while it is in use, comes back when it is given back, and is never lost",
        harness=PoolHarness,
        mutations=(
            Mutation("hdl/packets/pool.py", "~self.ready | self.take", "self.ready | self.take"),
            Mutation("hdl/packets/pool.py", "& ~Mux(refill, lowest, 0)) | came", "& ~Mux(refill, lowest, 0))"),
            Mutation("hdl/packets/pool.py", "free.any()) | came.any()", "free.any())"),
        ),
        clocks=4,
        reach=2 * CONFIG.packet_buffers,
    ),
]
