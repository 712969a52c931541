"""Records that are whole leave their rings in map memory (spec/rings.py) for the host's stream, between packets."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import EGRESS_USER, Beat, EmitTrace
from bpfnic.hdl.lanes import spread
from bpfnic.hdl.mapinterfaces import DescriptorWrite, TurnPort
from bpfnic.hdl.maps.ring import RUN_BITS, Header
from bpfnic.hdl.memory import SimpleRam
from bpfnic.hdl.queue import Queue
from bpfnic.spec.maps import EVENTS
from bpfnic.spec.rings import EVENT_USER_BIT, HEADER_BYTES, STATE_BYTES, RingState

BEATS = 16
"""Beats that wait for the host's stream."""


class Emitter(Component):
    """Looks at the rings that had news, in turn: from what their oldest record is whole until one isn't. A record that
    was discarded is passed over, and so is one that its program left behind; where a header can't be (a program has
    written to it), all that the ring has.

    Members
    -------
    write : a descriptor is written: that map's ring is empty.
    news, news_index : a record of that map is reserved, is whole, or isn't wanted.
    ended : a program has ended on some CPU.
    run_cpu, run : the number of that CPU's run, in the same clock.
    blocked : a ring's state may not be written.
    table : mapinterfaces.TurnPort.
    frames : the stream of records, a frame each.
    emit_trace : interfaces.EmitTrace.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "write": In(DescriptorWrite(config)),
                "news": In(1),
                "news_index": In(range(config.maps)),
                "ended": In(1),
                "run_cpu": Out(range(config.cores * config.threads)),
                "run": In(RUN_BITS),
                "blocked": In(1),
                "table": Out(TurnPort(config)),
                "frames": Out(stream.Signature(Beat(EGRESS_USER))),
                "emit_trace": Out(EmitTrace(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, table, written = self.config, self.table, self.write.descriptor
        offset_bits = exact_log2(config.map_bytes)
        words = offset_bits - 3  # bits of a word's address

        # Where each ring lies, and which maps are rings.
        place = data.StructLayout({"base": words, "mask": words})
        m.submodules.places = places = SimpleRam(width=place.size, depth=max(2, config.maps), target=config.target)
        index = Signal(range(config.maps))  # of the ring that is looked at, and of the next one
        next_index, wanted = Signal(range(config.maps)), Signal()  # there is news of the ring
        rings, new, held = (Signal(config.maps, name=name) for name in ("rings", "new", "held"))
        looks, again, waits = (Signal(config.maps, name=name) for name in ("looks", "again", "waits"))
        mine = Signal(config.maps, init=1)  # the bit of `index`
        ring, read_ring = Signal(place, reset_less=True), Signal(place)
        m.d.comb += [
            places.write.enable.eq(self.write.enable),
            places.write.address.eq(self.write.index),
            places.write.data.eq(Cat(written.base[3:], written.table[3:])),
            places.read.address.eq(next_index),
            read_ring.eq(places.read.data),
        ]

        base, issued, got = Signal(words), Signal(range(config.map_bytes // 8)), Signal(range(config.map_bytes // 8))
        # That a request was taken is known a clock later, in which there is none: half of the time is others'.
        taken, came, word = Signal(), table.came, table.word
        m.d.sync += [taken.eq(table.request & table.grant), issued.eq(issued + taken), got.eq(got + came)]
        m.d.comb += table.address.eq(base + issued)

        # What a request is made of are flags. behind: all words have been asked for, the last of them `last_asked`.
        # gone: the map is another one, whose memory nobody may write.
        behind, last_asked = Signal(init=1), Signal(words, reset_less=True)
        leaves_behind, sends, passes = (Signal(name=n, reset_less=True) for n in ("leaves_behind", "sends", "passes"))
        gone = Signal()
        last_came = Signal(reset_less=True)  # once the word comes that comes next: known before it does
        m.d.sync += last_came.eq(Mux(came, got + 1 == last_asked, got == last_asked))
        with m.If(taken & (issued == last_asked)):
            m.d.sync += behind.eq(1)

        def seek(address, state: str, last=0) -> None:
            m.d.sync += [base.eq(address), issued.eq(0), got.eq(0), behind.eq(0), last_asked.eq(last)]
            m.d.sync += [leaves_behind.eq(state == "LEFT"), sends.eq(state == "SEND"), passes.eq(state == "PASS")]
            m.next = state

        # Beats wait here; `room` is left for those that have not been asked for.
        layout = Beat(EGRESS_USER)
        m.submodules.beats = beats = Queue(layout, BEATS)
        beat, room = Signal(layout), Signal(range(BEATS + 1), init=BEATS)
        waits_in_front, last_keep = Signal(layout, reset_less=True), Signal(8, reset_less=True)
        puts, leaves, asks, roomy = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [waits_in_front.eq(beat), beats.push.eq(puts)]
        kept = Signal(layout)  # nothing of an earlier record leaves
        m.d.comb += [
            kept.eq(waits_in_front),
            kept.keep.eq(Mux(waits_in_front.last, last_keep, 0xFF)),
            kept.data.eq(waits_in_front.data & spread(m, kept.keep)),
            beats.entry.eq(kept),
            beat.user.eq(1 << EVENT_USER_BIT),
            leaves.eq(self.frames.valid & self.frames.ready),
        ]
        connect(m, beats.pop, flipped(self.frames))
        m.d.sync += [room.eq(room + leaves - asks), roomy.eq(room > 2)]  # two may have been asked for since

        consumer, producer, onward = (Signal(64, name=n, reset_less=True) for n in ("consumer", "producer", "onward"))
        header = Signal(Header(config), reset_less=True)
        used, none = Signal(offset_bits, reset_less=True), Signal(reset_less=True)  # by records
        record, far = Signal(offset_bits + 1, reset_less=True), Signal(reset_less=True)  # far: it is longer than any
        beyond = Signal(reset_less=True)  # its header can't be one
        last_word = Signal(words, reset_less=True)
        left_behind, stirred = Signal(), Signal()
        empty = Signal(reset_less=True)  # the record has no bytes
        start, at = Signal(words), Signal(words)  # of records, and of the oldest one
        m.d.sync += [start.eq(ring.base + STATE_BYTES // 8), at.eq(start + (consumer[3:offset_bits] & ring.mask))]
        m.d.comb += [
            self.run_cpu.eq(header.cpu),
            self.emit_trace.index.eq(index),
        ]
        # Where the consumer gets to, in any state: known when it is needed.
        m.d.sync += [beyond.eq(far | (record > used)), onward.eq(Mux(beyond, producer, consumer + record))]
        may_write = ~gone & ~(passes & self.blocked)
        m.d.comb += [
            table.request.eq(~behind & ~taken & (~sends | roomy) & (~(leaves_behind | passes) | may_write)),
            table.write.eq((leaves_behind | passes).replicate(2)),
            table.data.eq(Mux(passes, onward, header.as_value()[:-RUN_BITS])),  # whose it was stands nowhere then
        ]
        with m.If(self.ended):
            m.d.sync += stirred.eq(1)
        with m.If(self.write.enable & (self.write.index == index)):
            m.d.sync += gone.eq(1)

        with m.FSM() as fsm:
            with m.State("TURN"):
                with m.If(wanted):
                    m.d.comb += looks.eq(mine)
                    m.d.sync += wanted.eq(0)
                    m.next = "VISIT"
                with m.Else():
                    m.d.sync += [
                        index.eq(next_index),
                        mine.eq(1 << next_index),
                        next_index.eq(next_index + 1),
                        gone.eq(self.write.enable & (self.write.index == next_index)),
                        wanted.eq((new & rings).bit_select(next_index, 1)),
                    ]
            with m.State("VISIT"):  # the clock in which its place is there, which was read before it was `wanted`
                m.d.sync += ring.eq(read_ring)
                seek(read_ring.base + RingState.CONSUMER // 8, "STATE", last=1)
            with m.State("STATE"):
                with m.If(came):
                    m.d.sync += producer.eq(word)
                    with m.If(got[0]):
                        m.next = "COMPARE"
                    with m.Else():
                        m.d.sync += consumer.eq(word)
            with m.State("COMPARE"):
                m.d.sync += [used.eq(producer - consumer), none.eq(producer == consumer)]
                m.next = "OLDEST"
            with m.State("OLDEST"):
                seek(at, "HEADER")
                with m.If(none):
                    m.d.sync += behind.eq(1)
                    m.next = "TURN"
            with m.State("HEADER"):
                with m.If(taken):
                    m.d.sync += stirred.eq(self.ended)
                with m.If(came):
                    m.d.sync += header.eq(word)
                    m.next = "WHOSE"
            with m.State("WHOSE"):
                others = (self.run != header.run) | (header.cpu >= config.cores * config.threads)
                m.d.sync += left_behind.eq(others)
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += record.eq((header.length[:offset_bits] + (HEADER_BYTES + 7)) & ~7)
                m.d.sync += [far.eq(header.length[offset_bits:].any()), empty.eq(header.length == 0)]
                m.d.sync += [last_word.eq(((header.length + 7) >> 3) - 1)]
                m.d.sync += last_keep.eq(Mux(header.length[:3].any(), (1 << header.length[:3]) - 1, 0xFF))
                unsure = stirred | self.ended  # a program has ended since, perhaps its own
                with m.If(header.busy & (unsure | ~left_behind)):
                    m.d.comb += [again.eq(Mux(unsure, mine, 0)), waits.eq(Mux(unsure, 0, mine))]
                    m.next = "TURN"
                with m.Else():
                    m.next = "MEASURE"
            with m.State("MEASURE"):  # the clock in which `beyond` is found
                m.next = "OPEN"
            with m.State("LEFT"):
                with m.If(taken | gone):
                    seek(ring.base + RingState.CONSUMER // 8, "PASS")
            with m.State("OPEN"):
                m.d.comb += [beat.data.eq(Cat(header.length, 0, 0, index)), beat.data[40:48].eq(header.cpu)]
                m.d.comb += beat.last.eq(empty)
                with m.If(beyond | header.discarded):
                    seek(ring.base + RingState.CONSUMER // 8, "PASS")
                with m.Elif(header.busy):
                    seek(at, "LEFT")
                with m.Elif(roomy):
                    m.d.comb += [puts.eq(1), asks.eq(1)]
                    seek(at + HEADER_BYTES // 8, "SEND", last_word)
                    with m.If(empty):
                        seek(ring.base + RingState.CONSUMER // 8, "PASS")
            with m.State("SEND"):
                m.d.comb += [asks.eq(taken), beat.data.eq(word), beat.last.eq(last_came), puts.eq(came)]
                with m.If(came & last_came):
                    seek(ring.base + RingState.CONSUMER // 8, "PASS")
            with m.State("PASS"):  # its bytes are free
                m.d.comb += self.emit_trace.valid.eq(taken)
                with m.If(taken | gone):
                    m.d.comb += again.eq(mine)
                    m.d.sync += behind.eq(1)
                    m.next = "TURN"

        # A ring that waits for its program is looked at again when one has ended.
        news, heard = Signal(), Signal(config.maps)
        m.d.sync += [news.eq(self.news), heard.eq(Mux(self.news, 1 << self.news_index, 0))]
        m.d.sync += [
            new.eq(new & ~looks | again | heard | Mux(self.ended, held, 0)),
            held.eq(Mux(self.ended, 0, held & ~looks) | waits),
        ]
        with m.If(self.write.enable):
            is_ring = Cat(written.type == each for each in sorted(EVENTS)).any()
            m.d.sync += rings.bit_select(self.write.index, 1).eq(is_ring)
        heard_of = (new & rings).any() | self.news | news | wanted
        m.d.comb += self.emit_trace.waiting.eq(heard_of | ~fsm.ongoing("TURN") | beats.push | beats.pop.valid)
        return m


class Merge(Component):
    """Two streams of frames are one: `packets` and `records` in turn, each frame whole. Members: streams of Beat."""

    def __init__(self, config: NicConfig):
        beats = stream.Signature(Beat(EGRESS_USER))
        super().__init__({"packets": In(beats), "records": In(beats), "frames": Out(beats)})

    def elaborate(self, platform) -> Module:
        m = Module()
        before, chosen = Signal(name="before"), Signal(name="chosen")  # 1: records
        held = Signal()  # one frame has begun, or offers its first beat
        m.d.comb += chosen.eq(Mux(held, before, Mux(before, ~self.packets.valid, self.records.valid)))
        packets, records = self.packets.payload.as_value(), self.records.payload.as_value()
        m.d.comb += [
            self.frames.valid.eq(Mux(chosen, self.records.valid, self.packets.valid)),
            self.frames.payload.eq(Mux(chosen, records, packets)),
            self.packets.ready.eq(self.frames.ready & ~chosen),
            self.records.ready.eq(self.frames.ready & chosen),
        ]
        with m.If(self.frames.valid):
            m.d.sync += [before.eq(chosen), held.eq(~(self.frames.ready & self.frames.payload.last))]
        return m
