"""Transmit: packets out of the buffers of all cores, one at a time for each egress.

An egress reads its packet's words in turn, with other egresses that read from the same core; round robin, among those
whose next word lies in the bank that the clock's phase gives to reads. On its way out of the core a word is rotated so
that the packet's first byte becomes the lowest; lanes of the egress's word before and of this one join to a beat. A
packet that does not begin at the start of a word is read one word ahead.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from bpfnic.hdl.arbiter import RoundRobin
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import EGRESS_USER, Beat
from bpfnic.hdl.lanes import count_run, rotate_up, spread
from bpfnic.hdl.packets.records import WORD_BYTES, BufferStrobe, Departure, WordRead, buffer_words
from bpfnic.hdl.queue import Queue

BEATS = 16
"""Beats that wait at an egress: more than the clocks from a read to its beat, so that these don't show."""


def Tag(config: NicConfig) -> data.StructLayout:
    """What travels with a word. lane: where in it the packet begins. ahead: no beat yet. rest: bytes of the last beat,
    modulo 8."""
    return data.StructLayout(
        {"egress": config.interfaces, "lane": 3, "ahead": 1, "last": 1, "rest": 3, "user": EGRESS_USER}
    )


def Half(config: NicConfig) -> data.StructLayout:
    """A rotated word for its egress (`egress`: one-hot, or 0). before: lanes of the word before. keep: lanes that
    are bytes of the packet."""
    return data.StructLayout(
        {"egress": config.interfaces, "word": 64, "before": 8, "keep": 8, "ahead": 1, "last": 1, "user": EGRESS_USER}
    )


class _Egress:
    """The packet that an egress reads: the next word, and how many beats come after the one it is for."""

    def __init__(self, config: NicConfig, number: int):
        def named(shape, what, **kwargs):
            return Signal(shape, name=f"{what}{number}", **kwargs)

        self.waits = named(1, "waits")  # `next_one` does
        self.next_one = named(Departure(config), "next_one")
        self.active = named(1, "active")
        self.core = named(range(config.cores), "core")
        self.buffer = named(range(config.packet_buffers), "buffer")
        self.word = named(range(buffer_words(config)), "word")
        self.due = named(1, "due")  # it lies in this clock's bank
        self.beats = named(range(buffer_words(config)), "beats")
        self.tag = named(Tag(config), "tag")  # egress, lane, ahead, rest, user
        self.last = named(1, "last")
        self.loads = named(1, "loads")  # the next packet, if one waits
        self.granted = named(config.cores, "granted")
        self.room = named(range(BEATS + 1), "room", init=BEATS)
        self.has_room = named(1, "has_room", init=1)
        self.left = named(1, "left")  # a beat did, in the clock before


class Transmit(Component):
    """Members
    -------
    push, departure : into the queue of an egress that has `room`. A queue has places for a quarter of all buffers.
    phase : see PacketBuffers.
    read : to each core's PacketBuffers.
    give : to each core's Pool: the last word of a packet was read in the clock before.
    egress : the streams.
    sent, sent_bytes : of each egress: a frame left in this clock.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "push": In(config.interfaces),
                "departure": In(Departure(config)),
                "room": Out(config.interfaces, init=(1 << config.interfaces) - 1),
                "phase": In(1),
                "read": Out(WordRead(config)).array(config.cores),
                "give": Out(BufferStrobe(config)).array(config.cores),
                "egress": Out(stream.Signature(Beat(EGRESS_USER))).array(config.interfaces),
                "sent": Out(config.interfaces),
                "sent_bytes": Out(16).array(config.interfaces),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        egresses = [_Egress(config, number) for number in range(config.interfaces)]
        for number, state in enumerate(egresses):
            self._follow(m, number, state)
        joined = [self._join(m, core, self._read(m, core, egresses)) for core in range(config.cores)]
        for number, state in enumerate(egresses):
            self._send(m, number, state, joined)
        return m

    def _follow(self, m: Module, number: int, state: _Egress) -> None:
        """One egress: its queue, and where its packet stands."""
        config = self.config
        depth = config.cores * config.packet_buffers // 4
        m.submodules[f"queue{number}"] = queue = Queue(Departure(config), depth)
        next_one, granted = state.next_one, state.granted.any()
        m.d.comb += [
            queue.push.eq(self.push[number]),
            queue.entry.eq(self.departure),
            queue.pop.ready.eq(~state.waits),  # soon enough: a packet has two words at least
            state.last.eq((state.beats == 0) & ~state.tag.ahead),
            state.loads.eq(~state.active | (granted & state.last)),
        ]
        # What leaves the queue makes room a clock later: so nothing is pushed by what is read in that clock.
        full_soon = Mux(self.push[number], queue.level == depth - 1, queue.level == depth)
        m.d.sync += self.room[number].eq(~full_soon)
        m.d.sync += state.waits.eq(Mux(state.waits, ~state.loads, queue.pop.valid))
        with m.If(~state.waits):
            m.d.sync += next_one.eq(queue.pop.payload)
        m.d.sync += state.due.eq(granted | ~state.due)  # words and clocks alternate
        with m.If(granted | ~state.active):
            m.d.sync += [state.word.eq(state.word + 1), state.tag.ahead.eq(0)]
            with m.If(~state.tag.ahead):
                m.d.sync += state.beats.eq(state.beats - 1)
            with m.If(state.last | ~state.active):
                m.d.sync += [
                    state.active.eq(state.waits),
                    state.core.eq(next_one.place.core),
                    state.buffer.eq(next_one.place.buffer),
                    state.word.eq(next_one.data[3:]),
                    state.due.eq(next_one.data[3] == self.phase),
                    state.beats.eq((next_one.length - 1)[3:]),
                    state.tag.egress.eq(1 << number),
                    state.tag.lane.eq(next_one.data[:3]),
                    state.tag.ahead.eq(next_one.data[:3].any()),
                    state.tag.rest.eq(next_one.length[:3]),
                    state.tag.user.eq(next_one.user),
                ]

    def _read(self, m: Module, core: int, egresses: list[_Egress]):
        """One core's buffers: who reads in this clock, and what came of it four clocks ago, a Half."""
        config, read, give = self.config, self.read[core], self.give[core]
        half = Signal(Half(config), name=f"half{core}")
        m.submodules[f"turns{core}"] = turns = RoundRobin(config.interfaces)
        tag = Signal(Tag(config), name=f"tag_of_core{core}")
        for number, state in enumerate(egresses):
            asks = state.active & (state.core == core) & state.due & state.has_room
            m.d.comb += [turns.requests[number].eq(asks), state.granted[core].eq(turns.grant[number])]
            with m.If(turns.grant[number]):
                m.d.comb += [
                    read.buffer.eq(state.buffer),
                    read.word.eq(state.word),
                    tag.eq(state.tag),
                    tag.last.eq(state.last),
                ]
        # Who reads is known late in its clock.
        m.d.sync += [
            give.enable.eq((turns.grant & Cat(state.last for state in egresses)).any()),
            give.buffer.eq(read.buffer),
        ]
        for clock in range(3):
            later = Signal(Tag(config), name=f"tag{clock}_of_core{core}")
            m.d.sync += later.eq(tag)
            tag = later

        m.d.sync += [
            half.egress.eq(tag.egress),
            half.word.eq(rotate_up(m, read.data, (-tag.lane)[:3])),
            half.ahead.eq(tag.ahead),
            half.last.eq(tag.last),
            half.user.eq(tag.user),
            half.keep.eq(Mux(tag.last & tag.rest.any(), (1 << tag.rest) - 1, 0xFF)),
        ]
        for lane in range(WORD_BYTES):
            m.d.sync += half.before[lane].eq(tag.lane.any() & (tag.lane + lane < WORD_BYTES))
        return half

    def _join(self, m: Module, core: int, half):
        """What comes of one core's words: the egresses, a bit for each, to which a beat goes, and the beat."""
        words = memory.Memory(shape=64, depth=self.config.interfaces, init=[])  # the last one of each egress
        m.submodules[f"before{core}"], write, read = words, words.write_port(), words.read_port(domain="comb")
        egress = range(self.config.interfaces)
        number = Cat(Cat(half.egress[i] for i in egress if i >> bit & 1).any() for bit in range(len(read.addr)))
        beat, is_before = Signal(Beat(EGRESS_USER), name=f"beat_of_core{core}"), spread(m, half.before)
        m.d.comb += [
            write.en.eq(half.egress.any()),
            write.addr.eq(number),
            write.data.eq(half.word),
            read.addr.eq(number),
            # Lanes behind the packet's end are 0: nothing of an earlier packet leaves.
            beat.data.eq(((read.data & is_before) | (half.word & ~is_before)) & spread(m, half.keep)),
            beat.keep.eq(half.keep),
            beat.last.eq(half.last),
            beat.user.eq(half.user),
        ]
        return Mux(half.ahead, 0, half.egress), beat

    def _send(self, m: Module, number: int, state: _Egress, joined) -> None:
        """One egress: its beats."""
        egress = self.egress[number]
        m.submodules[f"beats{number}"] = beats = Queue(Beat(EGRESS_USER), BEATS)
        m.d.comb += [beats.push.eq(Cat(to[number] for to, _ in joined).any()), beats.entry.eq(joined[0][1])]
        for to, beat in joined[1:]:
            with m.If(to[number]):
                m.d.comb += beats.entry.eq(beat)
        connect(m, beats.pop, flipped(egress))

        # A read takes a place for its beat, which is free again a clock after the beat has left. Whether one is left is
        # known before the grant, which comes late in its clock, for either case.
        leaves, takes = egress.valid & egress.ready, state.granted.any() & ~state.tag.ahead
        m.d.sync += [
            state.left.eq(leaves),
            state.room.eq(state.room + state.left - takes),
            state.has_room.eq(state.left | Mux(takes, state.room != 1, state.room.any())),
        ]

        whole = Signal(13, name=f"whole{number}")  # beats of this frame that have left
        bytes_now, following = count_run(egress.payload.keep), Signal.like(whole, name=f"following{number}")
        m.d.comb += [following.eq(whole + bytes_now[3]), self.sent_bytes[number].eq(Cat(bytes_now[:3], following))]
        with m.If(leaves):
            m.d.comb += self.sent[number].eq(egress.payload.last)
            m.d.sync += whole.eq(Mux(egress.payload.last, 0, following))  # all but the last one are 8 bytes
