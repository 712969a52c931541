"""The packet path's first half: what ingresses take, and the order in which what is done leaves."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Elaboratable
from amaranth.lib.data import View

from bpfnic.hdl.interfaces import INGRESS_USER, Beat
from bpfnic.hdl.packets.collect import Collect
from bpfnic.hdl.packets.receive import COUNT_BITS, Receive
from bpfnic.hdl.packets.records import FIRST_WORD, Kind, Outcome, Place, buffer_words
from bpfnic.spec.addresses import ETH_HLEN, HEADROOM
from tests.formal.opened import Opened, constant, later
from tests.formal.packets import CONFIG
from tests.formal.proof import Mutation, Proof


class ReceiveHarness(Elaboratable):
    """Whatever frames come, on both ingresses, and wherever buffers are free. A frame is followed from its first beat
    on: how many beats it has, where it lies, and what is wrong with it."""

    def elaborate(self, platform) -> Module:
        m = Module()
        receive = Receive(CONFIG)
        m.submodules.receive = opened = Opened(receive, inputs=True)
        phase = Signal()
        m.d.sync += phase.eq(~phase)
        turn = opened.signal("turn")
        m.d.comb += [Assume(receive.phase == phase), Assert(turn.any() & ~(turn & (turn - 1)).any())]
        for ingress in range(CONFIG.interfaces):
            self._frame(m, opened, ingress)

        # A write is a beat or zeroes, of the clock before. Each buffer that is taken is the spare one.
        for core, (write, zero) in enumerate(zip(receive.write, receive.zero, strict=True)):
            writes, ends = (
                [opened.signal(f"{name}{ingress}")[core] for ingress in range(CONFIG.interfaces)]
                for name in ("writes", "ends")
            )
            spare_ready = receive.spare_ready[core] & phase
            cleared, buffer, word, mask = (
                later(m, each) for each in (zero.valid & zero.ready, zero.buffer, zero.word, zero.mask)
            )
            same = (write.buffer == buffer) & (write.word == word) & (write.mask == mask)
            m.d.comb += [
                Assume(~(spare_ready & receive.empty[core])),
                Assert(sum(writes, cleared) <= 1),
                Assert(~cleared | (same & ~write.data.any())),
                Assert(~write.mask.any() | Cat(writes).any() | cleared),
                Assert(~write.mask.any() | (write.word[0] == phase)),
                Assert(~receive.take[core] | (later(m, spare_ready) & ~phase)),
            ]
            wanted = Cat(
                arrival.ended & arrival.accepted & (arrival.place.core == core) for arrival in receive.arrival
            )
            m.d.comb += [
                Assert(sum(ends) <= 1),
                Assert(receive.frame_valid[core] == wanted.any()),
                Assert(receive.give[core].enable == (Cat(ends).any() & ~wanted.any())),
            ]
        return m

    def _frame(self, m: Module, opened: Opened, ingress: int) -> None:
        receive, of = opened.component, ingress
        port, arrival = receive.ingress[ingress], receive.arrival[ingress]
        granted, refusing = opened.signal(f"granted{of}"), opened.signal(f"refusing{of}")
        filling, due = opened.signal(f"filling{of}"), opened.signal(f"due{of}")
        takes, inside, next_beat = port.valid & port.ready, Signal(name=f"inside{of}"), Signal(COUNT_BITS)
        next_word = Signal(COUNT_BITS, name=f"next_word{of}")
        with m.If(takes):
            m.d.sync += inside.eq(~port.payload.last)
            m.d.sync += next_beat.eq(Mux(port.payload.last, 0, next_beat + 1))
        may_refuse = port.valid & ~inside & receive.enable & receive.empty.all() & ~receive.waits[ingress]
        m.d.comb += [
            next_word.eq(FIRST_WORD + next_beat),
            Assert((granted & (granted - 1)).any() == 0),
            Assert(takes == (granted.any() | (port.valid & refusing))),  # a beat is taken once
            Assert(~granted.any() | (port.valid & ~refusing)),
            Assert(~refusing | later(m, refusing) | later(m, may_refuse)),
            Assert(opened.signal(f"between{of}") == ~(filling.any() | refusing)),
            Assert(~inside | filling.any() | refusing),
            Assert(~(filling.any() & (refusing | ~inside))),
            Assert(~filling.any() | (due == (next_word[0] != receive.phase))),
        ]

        # In the clock after it was taken: a beat, and the state of its frame before it
        beat = View(Beat(INGRESS_USER), later(m, port.payload.as_value()))
        taken, refuses, writes = later(m, takes), later(m, refusing), opened.signal(f"writes{of}")
        begun, refused, long = (Signal(name=f"{name}{of}") for name in ("begun", "refused", "long"))
        beats = Signal(COUNT_BITS, name=f"beats{of}")
        place = View(Place(CONFIG), Signal(Place(CONFIG).size, name=f"place{of}"))
        m.d.comb += [
            Assert(writes == later(m, granted)),
            Assert((begun == later(m, inside)) & (beats == later(m, next_beat))),
            Assert(~filling.any() | (filling == Mux(begun, 1 << place.core, writes))),
        ]

        # Where it lies, and each beat with it
        now = View(Place(CONFIG), Signal(Place(CONFIG).size, name=f"now{of}"))
        m.d.comb += now.eq(place)
        enabled = later(m, receive.enable)
        word = Signal(COUNT_BITS, name=f"frame_word{of}")
        m.d.comb += word.eq(FIRST_WORD + beats)
        for core in range(CONFIG.cores):
            write = receive.write[core]
            with m.If(writes[core]):
                with m.If(~begun):
                    m.d.comb += [now.core.eq(core), now.buffer.eq(receive.spare[core])]
                    m.d.comb += Assert(receive.take[core] & enabled)
                with m.Else():
                    m.d.comb += Assert(~receive.take[core])
                fits = word < buffer_words(CONFIG)
                m.d.comb += [
                    Assert(now.core == core),
                    Assert(write.buffer == now.buffer),
                    Assert((write.word == word[: len(write.word)]) & (write.data == beat.data)),
                    Assert(write.mask == Mux(fits, 0xFF, 0)),
                ]
        bytes_in = Signal(4, name=f"bytes_in{of}")
        m.d.comb += bytes_in.eq(sum(beat.keep[lane] for lane in range(8)))
        whole_run = ((port.payload.keep + 1)[:9] & port.payload.keep) == 0
        too_long = long | ((word >= buffer_words(CONFIG)) & beat.keep[0])
        length, bad = Signal(COUNT_BITS, name=f"length{of}"), Signal(name=f"bad{of}")
        m.d.comb += [
            Assume(~port.valid | (whole_run & (port.payload.last | port.payload.keep.all()))),
            length.eq(8 * beats + bytes_in),
        ]
        wrong_port = beat.user[1:4] >= CONFIG.ports if ingress == CONFIG.ports else 0
        m.d.comb += bad.eq(beat.user[0] | (length < ETH_HLEN) | wrong_port)
        with m.If(taken):
            m.d.sync += [
                place.eq(now),
                begun.eq(~beat.last),
                refused.eq(refuses),
                beats.eq(Mux(beat.last, 0, beats + 1)),
                long.eq(too_long & ~beat.last),
            ]
        m.d.comb += [
            Assume(beats < 8191),  # shorter than 64 KiB: COUNT_BITS
            Assert(~begun | (refuses == refused)),
            Assert(opened.signal(f"word{of}") == word),
            Assert(opened.signal(f"overrun{of}") == long),
            Assert(begun | (beats == 0)),
            Assert(long == (word > buffer_words(CONFIG))),
            Assert(~(begun & ~refused) | (opened.signal(f"buffer{of}") == place.buffer)),
        ]

        # What becomes of it
        ended = later(m, taken & beat.last)
        good = later(m, ~refuses & ~too_long & ~bad)
        had, was_long, was_bad, bytes_then = (later(m, value) for value in (~refuses, too_long, bad, length))
        port_then = later(m, beat.user[1:4])
        sequence = Signal(32, name=f"sequence{of}")
        m.d.sync += sequence.eq(sequence + (arrival.ended & arrival.accepted))
        m.d.comb += [
            Assert(arrival.ended == ended),
            Assert(~ended | (arrival.accepted == good)),
            Assert(opened.signal(f"ends{of}") == Mux(ended & had, 1 << place.core, 0)),
            Assert(~ended | (arrival.accepted + arrival.full + arrival.long + arrival.error == 1)),
            Assert(~ended | ((arrival.long == was_long) & (arrival.error == (was_bad & ~was_long)))),
            Assert(~ended | (arrival.bytes == bytes_then)),
            Assert(~(ended & had) | (Value.cast(arrival.place) == Value.cast(place))),
            Assert(receive.next_sequence[ingress] == sequence),
        ]
        for core in range(CONFIG.cores):
            frame, give = receive.frame[core], receive.give[core]
            here = ended & had & (place.core == core)
            m.d.comb += [
                Assert(~here | ((receive.frame_valid[core] == good) & (give.enable == ~good))),
                Assert(~(here & ~good) | (give.buffer == place.buffer)),
                Assert(~(here & good) | ((frame.buffer == place.buffer) & (frame.ingress == ingress))),
                Assert(~(here & good) | ((frame.data == HEADROOM) & (frame.data_end == HEADROOM + bytes_then))),
                Assert(~(here & good) | (frame.iif == ingress) & (frame.leaving == (ingress == CONFIG.ports))),
                Assert(~(here & good) | (frame.device == (port_then if ingress == CONFIG.ports else ingress))),
                Assert(~(here & good) | (frame.order == sequence[: len(frame.order)])),
            ]


class CollectHarness(Elaboratable):
    """One buffer, whichever, and the packets that lie in it one after the other. Those around it are the solver's: what
    arrives lies in a buffer that no packet in flight lies in, and is done once, after it has arrived."""

    def elaborate(self, platform) -> Module:
        m = Module()
        collect = Collect(CONFIG)
        m.submodules.collect = opened = Opened(collect, inputs=True)
        mine = View(Place(CONFIG), constant(m, Place(CONFIG).size, "mine"))
        used, done, owner = Signal(), Signal(), Signal(range(CONFIG.ingresses))
        number = Signal(32)
        outcome = View(Outcome(CONFIG), Signal(Outcome(CONFIG).size, name="outcome"))
        trace, departure = collect.trace, collect.departure
        leaves = trace.valid & (departure.place == mine)
        buffers = CONFIG.cores * CONFIG.packet_buffers

        arrives = []
        for ingress, (arrival, newest) in enumerate(zip(collect.arrival, collect.next_sequence, strict=True)):
            accepted = arrival.ended & arrival.accepted
            here = accepted & (arrival.place == mine)
            arrives.append(here)
            sequence, oldest = Signal(32, name=f"sequence{ingress}"), collect.oldest_sequence[ingress]
            flying, released = Signal(32, name=f"flying{ingress}"), trace.valid & (trace.ingress == ingress)
            m.d.sync += sequence.eq(sequence + accepted)
            m.d.comb += [
                flying.eq(newest - oldest),
                Assume(newest == sequence),  # as Receive counts
                Assume(~accepted | (flying < buffers)),
                Assume(~here | ~used),
                Assert(flying <= buffers),
                Assert(~released | ((trace.sequence == oldest) & (oldest != newest))),
                Assert(oldest == later(m, (oldest + released)[:32])),
            ]
            with m.If(here):
                m.d.sync += [used.eq(1), owner.eq(ingress), number.eq(newest)]
            # Whatever lies there in this ingress's table is this packet.
            memory = opened.part(f"places{ingress}")
            for row in range(buffers):
                read = memory.read_port(domain="comb")
                in_flight = Signal(name=f"in_flight{ingress}_{row}")
                ahead = Signal(range(buffers), name=f"ahead{ingress}_{row}")
                it = used & (owner == ingress) & (number == (oldest + ahead)[:32])
                m.d.comb += [
                    read.addr.eq(row),
                    ahead.eq(row - oldest),
                    in_flight.eq(ahead < flying),
                    Assert(~in_flight | ((read.data == mine) == it)),
                ]
            looked = later(m, (opened.signal("look") == ingress) & (newest != oldest), 2)
            look = memory.read_port(domain="comb")
            m.d.comb += [
                look.addr.eq(oldest[: len(look.addr)]),
                Assert(~looked | ((trace.ingress == ingress) & (opened.signal("look") != ingress))),
                Assert(~looked | (flying.any() & (look.data == departure.place))),
                Assert(~released | looked),
                Assert(~(used & (owner == ingress)) | ((number - oldest)[:32] < flying)),
            ]
        m.d.comb += Assume(sum(arrives) <= 1)

        # It is done once.
        ends = Signal()
        for core, (valid, completion) in enumerate(zip(collect.done_valid, collect.done, strict=True)):
            here = valid & (mine.core == core) & (completion.buffer == mine.buffer)
            m.d.comb += Assume(~here | (used & ~done))
            with m.If(here):
                m.d.comb += ends.eq(1)
                m.d.sync += [done.eq(1), outcome.eq(completion.outcome)]
            flag = opened.signal(f"done{core}").bit_select(mine.buffer, 1)
            held = opened.part(f"outcomes{core}").read_port(domain="comb")
            m.d.comb += [
                held.addr.eq(mine.buffer),
                Assert((mine.core != core) | (flag == done)),
                Assert(~((mine.core == core) & done) | (held.data == outcome)),
                Assume(~valid | (Value.cast(completion.outcome.kind) <= Kind.ABORTED.value)),
                Assume(~valid | (completion.outcome.egress < CONFIG.interfaces)),
            ]
        with m.If(leaves):
            m.d.sync += [used.eq(0), done.eq(0)]

        # It leaves once, as the oldest of its ingress, to where its outcome says.
        kind = Value.cast(outcome.kind)
        sent = (kind != Kind.DROPPED.value) & (kind != Kind.ABORTED.value)
        # What waits is known a clock before.
        room = collect.room.bit_select(outcome.egress, 1)
        waits = later(m, collect.waits).bit_select(outcome.egress, 1)
        given = Cat(
            give.enable & (mine.core == core) & (give.buffer == mine.buffer) for core, give in enumerate(collect.give)
        )
        queued = collect.push.any()
        m.d.comb += [
            Assert(~leaves | (used & done & (trace.ingress == owner) & (trace.sequence == number))),
            Assert(~leaves | ~sent | room | ~waits),
            Assert(~leaves | (collect.push == Mux(sent & room, 1 << outcome.egress, 0))),
            Assert(~leaves | (given.any() == ~(sent & room))),
            Assert(~given.any() | leaves),
            Assert(~queued | trace.valid),
            Assert(~(leaves & queued) | ((departure.data == outcome.data) & (departure.length == outcome.length))),
            Assert(~(leaves & queued) | (departure.user[:3] == outcome.iif)),
            Assert(~(collect.push & ~collect.room).any()),
        ]
        # And it does leave.
        oldest = Signal(32)
        with m.Switch(owner):
            for ingress, each in enumerate(collect.oldest_sequence):
                with m.Case(ingress):
                    m.d.comb += oldest.eq(each)
        may = used & done & (number == oldest) & (~sent | room | ~waits)
        since = Signal(range(8))
        m.d.sync += since.eq(Mux(may & ~leaves, since + 1, 0))
        m.d.comb += Assert(since <= CONFIG.ingresses + 1)
        return m


_COLLECT = "hdl/packets/collect.py"
_RECEIVE = "hdl/packets/receive.py"
PROOFS = [
    Proof(
        name="receive",
        of=(_RECEIVE,),
        says="each beat that an ingress takes is written once, into the frame's buffer, behind the one before; a frame "
        "is handed over once, with its bounds and the next number, or it is refused, and then its buffer is given back "
        "and no number is used",
        harness=ReceiveHarness,
        mutations=(
            Mutation(_RECEIVE, "end[:4] < addresses", "end[:4] <= addresses"),
            Mutation(_RECEIVE, "self.spare[core], state.buffer)", "self.spare[core], self.spare[core])"),
            Mutation(_RECEIVE, "granted | ~state.due", "~state.due"),
            Mutation(_RECEIVE, "arrival.ended & arrival.accepted):", "arrival.ended):"),
        ),
        clocks=6,
    ),
    Proof(
        name="collect",
        of=(_COLLECT,),
        says="packets of an ingress leave in the order of their numbers, each once, when it is done and within one "
        "clock more than there are ingresses; into the queue of its egress if that has room, or its buffer is given "
        "back",
        harness=CollectHarness,
        mutations=(
            Mutation(_COLLECT, "present.eq(waits)", "present.eq(1)"),
            Mutation(_COLLECT, "leaves & ~fits & (place.core == core)", "leaves & (place.core == core)"),
            Mutation(_COLLECT, "read.addr.eq(oldest[:index_bits])", "read.addr.eq(newest[:index_bits])"),
        ),
        clocks=8,
        bounded=True,
        quick=False,
    ),
]
