"""Receive: beats of all ingresses into buffers, one a clock to each core.

A frame takes a buffer at its first beat, of the core whose turn it is. Then its beats ask that core's buffers for a
write, together with those of other ingresses and with the service unit that clears bytes; round robin, among those
whose next word lies in the bank that the next clock's phase gives to writes. A beat is taken in the clock of its grant,
and written in the next one, in which all that depends on it is worked out, too.

If no core has a buffer, the frame waits, or is drained and refused. A frame that is too long, bad or too short gives
its buffer back after its last beat.
"""

from functools import reduce
from operator import or_

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, Signature

from bpfnic.hdl.arbiter import RoundRobin
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import INGRESS_USER, Beat
from bpfnic.hdl.lanes import count_run
from bpfnic.hdl.packets.flow import FLOW_BITS, Flow
from bpfnic.hdl.packets.records import (
    FIRST_WORD,
    BufferStrobe,
    Frame,
    Place,
    WordWrite,
    ZeroPort,
    buffer_words,
)
from bpfnic.spec import addresses

COUNT_BITS = 16  # received_bytes


def Arrival(config: NicConfig) -> Signature:
    """A frame's last beat was written in the clock before. It is at `place` if `accepted`, otherwise one of `full`,
    `long` and `error` is high."""
    return Signature(
        {
            "ended": Out(1),
            "accepted": Out(1),
            "full": Out(1),
            "long": Out(1),
            "error": Out(1),
            "bytes": Out(COUNT_BITS),
            "place": Out(Place(config)),
        }
    )


class _Ingress:
    """The state of one ingress: between frames, or its frame fills a buffer, or it is refused."""

    def __init__(self, config: NicConfig, number: int):
        def named(shape, what, **kwargs):
            return Signal(shape, name=f"{what}{number}", **kwargs)

        self.between = named(1, "between", init=1)
        self.filling = named(config.cores, "filling")  # one-hot: whose buffer
        self.refusing = named(1, "refusing")
        self.due = named(1, "due")  # the frame's next word lies in the next clock's bank
        self.granted = named(config.cores, "granted")  # one-hot, or 0
        # Of the clock before: what was granted, and how.
        self.writes = named(config.cores, "writes")
        self.first = named(1, "begins")
        self.refused = named(1, "refused")  # a beat of a refused frame
        self.beat = named(Beat(INGRESS_USER), "beat")
        self.buffer = named(range(config.packet_buffers), "buffer")
        # The beat's word in the buffer; it counts on behind the buffer's end. Back at FIRST_WORD between frames.
        self.word = named(COUNT_BITS, "word", init=FIRST_WORD)
        self.overrun = named(1, "overrun")
        self.count = named(4, "count")  # bytes of the beat
        # Of the frame whose last beat was written in the clock before (as is buffer then):
        self.ends = named(config.cores, "ends")  # one-hot: in whose buffer, or 0
        self.end_offset = named(range(config.buffer_bytes + 1), "end_offset")
        self.end_port = named(3, "end_port")


class Receive(Component):
    """Members
    -------
    ingress : the streams. A frame of the host names its egress with its last beat (user bits 3..1).
    enable : low: no frame begins.
    waits : of each interface: its frames wait for a buffer.
    phase : see PacketBuffers.
    spare_ready : of each core's Pool, in clocks with `phase` = 1: in the next one `spare` is there.
    spare, empty, take, give : to each core's Pool; take only in clocks with `phase` = 0; `give` is a refused frame's
        buffer.
    write : to each core's PacketBuffers. beat, beat_bytes : it is a beat of a frame, with so many bytes.
    zero : the service unit's requests, of each core.
    frame_valid, frame : an accepted frame goes to its core's dispatcher. flow : of that of the clock before.
    arrival : of each ingress; an accepted frame is number `next_sequence` of the same clock.
    next_sequence : of each ingress, the number of the next accepted frame.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        buffer = range(config.packet_buffers)
        super().__init__(
            {
                "ingress": In(stream.Signature(Beat(INGRESS_USER))).array(config.interfaces),
                "enable": In(1),
                "waits": In(config.interfaces),
                "phase": In(1),
                "spare_ready": In(config.cores),
                "spare": In(buffer).array(config.cores),
                "empty": In(config.cores),
                "take": Out(config.cores),
                "give": Out(BufferStrobe(config)).array(config.cores),
                "write": Out(WordWrite(config)).array(config.cores),
                "beat": Out(config.cores),
                "beat_bytes": Out(4).array(config.cores),
                "zero": In(ZeroPort(config)).array(config.cores),
                "frame_valid": Out(config.cores),
                "frame": Out(Frame(config)).array(config.cores),
                "flow": Out(FLOW_BITS).array(config.cores),
                "arrival": Out(Arrival(config)).array(config.interfaces),
                "next_sequence": Out(32).array(config.interfaces),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        ingresses = [_Ingress(config, number) for number in range(config.interfaces)]

        # Whose turn it is to take the next frame: cores with a spare buffer in turn.
        m.submodules.cores = cores = RoundRobin(config.cores)
        turn = Signal(config.cores, init=1)  # one-hot
        with m.If(self.take.any() | ~(turn & self.spare_ready).any()):
            m.d.comb += cores.requests.eq(self.spare_ready)
        with m.If(cores.grant.any()):
            m.d.sync += turn.eq(cores.grant)
        # A frame's first word is even.
        opens = Signal(config.cores)  # one-hot, or 0
        m.d.comb += opens.eq(Mux(self.phase & self.enable, turn & self.spare_ready, 0))

        for number, state in enumerate(ingresses):
            self._follow(m, number, state)
        for core in range(config.cores):
            self._fill(m, core, opens[core], ingresses)
            self._hand_over(m, core, ingresses)
        return m

    def _fill(self, m: Module, core: int, opens, ingresses: list[_Ingress]) -> None:
        """One core's buffers: who may write in the next clock, and what he who might in the one before writes in this
        one."""
        config, write, zero = self.config, self.write[core], self.zero[core]
        m.submodules[f"turns{core}"] = turns = RoundRobin(config.interfaces + 1)
        m.submodules[f"flow{core}"] = flow = Flow(config.interfaces)
        m.d.comb += [
            flow.taken.eq(self.beat[core]),
            flow.data.eq(write.data),
            flow.bytes.eq(self.beat_bytes[core]),
            self.flow[core].eq(flow.flow),
        ]
        with m.If(zero.valid & (zero.word[0] != self.phase)):
            m.d.comb += [turns.requests[-1].eq(1), zero.ready.eq(turns.grant[-1])]
        clears, cleared = Signal(name=f"clears{core}"), zero.signature.create()
        m.d.sync += clears.eq(turns.grant[-1])
        m.d.sync += [getattr(cleared, name).eq(getattr(zero, name)) for name in ("buffer", "word", "mask")]
        data = [Mux(state.writes[core], state.beat.data, 0) for state in ingresses]  # of one at most
        m.d.comb += [write.buffer.eq(cleared.buffer), write.word.eq(cleared.word), write.data.eq(reduce(or_, data))]
        with m.If(clears):
            m.d.comb += write.mask.eq(cleared.mask)
        for number, (state, port) in enumerate(zip(ingresses, self.ingress, strict=True)):
            asks = port.valid & Mux(state.between, opens, state.filling[core] & state.due)
            m.d.comb += [turns.requests[number].eq(asks), state.granted[core].eq(turns.grant[number])]
            with m.If(state.writes[core]):
                m.d.comb += [
                    self.take[core].eq(state.first),
                    flow.ingress.eq(number),
                    flow.first.eq(state.first),
                    write.buffer.eq(Mux(state.first, self.spare[core], state.buffer)),
                    write.word.eq(state.word),
                    write.mask.eq((state.word < buffer_words(config)).replicate(8)),
                    self.beat[core].eq(1),
                    self.beat_bytes[core].eq(state.count),
                ]
                with m.If(state.first):
                    m.d.sync += state.buffer.eq(self.spare[core])

    def _follow(self, m: Module, number: int, state: _Ingress) -> None:
        """One ingress: where its frame stands, and how it ended."""
        config, port, arrival = self.config, self.ingress[number], self.arrival[number]
        granted, last = state.granted.any(), port.payload.last
        m.d.comb += port.ready.eq(granted | state.refusing)
        with m.If(granted):
            m.d.sync += [state.between.eq(last), state.filling.eq(Mux(last, 0, state.granted))]
        with m.Elif(state.refusing):
            with m.If(port.valid & last):
                m.d.sync += [state.between.eq(1), state.refusing.eq(0)]
        with m.Elif(port.valid & state.between & self.enable & self.empty.all() & ~self.waits[number]):
            m.d.sync += [state.between.eq(0), state.refusing.eq(1)]
        m.d.sync += [
            state.due.eq(granted | ~state.due),  # words and clocks alternate
            state.writes.eq(state.granted),
            state.first.eq(state.between),
            state.refused.eq(port.valid & state.refusing),
            state.beat.eq(port.payload),
        ]

        # A clock later
        beat = state.beat
        end, count = Signal(len(state.word) + 3, name=f"end{number}"), state.count
        behind, overrun = state.word >= buffer_words(config), Signal(name=f"overruns{number}")
        m.d.comb += [
            count.eq(count_run(beat.keep)),
            end.eq(Cat(count[:3], state.word + count[3])),
            overrun.eq(state.overrun | (behind & beat.keep[0])),
        ]
        short = (end[4:] == addresses.HEADROOM >> 4) & (end[:4] < addresses.ETH_HLEN)
        error = beat.user[0] | short
        if number == config.ports:
            error |= beat.user[1:4] >= config.ports
        taken = state.writes.any() | state.refused
        with m.If(taken):
            m.d.sync += [
                state.word.eq(Mux(beat.last, FIRST_WORD, end[3:])),  # all but the last one are whole
                state.overrun.eq(overrun & ~beat.last),
            ]
        m.d.sync += [
            arrival.ended.eq(taken & beat.last),
            arrival.accepted.eq(~state.refused & ~overrun & ~error),
            # What is wrong with the frame itself comes first: it doesn't depend on time.
            arrival.full.eq(state.refused & ~overrun & ~error),
            arrival.long.eq(overrun),
            arrival.error.eq(~overrun & error),
            arrival.bytes.eq(end - addresses.HEADROOM),
            state.ends.eq(Mux(beat.last, state.writes, 0)),
            state.end_offset.eq(end),
            state.end_port.eq(beat.user[1:4]),
        ]
        m.d.comb += arrival.place.buffer.eq(state.buffer)
        for core in range(config.cores):
            with m.If(state.ends[core]):
                m.d.comb += arrival.place.core.eq(core)
        with m.If(arrival.ended & arrival.accepted):
            m.d.sync += self.next_sequence[number].eq(self.next_sequence[number] + 1)

    def _hand_over(self, m: Module, core: int, ingresses: list[_Ingress]) -> None:
        """One core's frames that ended in the clock before: one at most, for each of its last beats had a write."""
        frame, give = self.frame[core], self.give[core]
        ends = Cat(state.ends[core] for state in ingresses)
        accepted = Cat(arrival.accepted for arrival in self.arrival)
        m.d.comb += [
            self.frame_valid[core].eq((ends & accepted).any()),
            give.enable.eq((ends & ~accepted).any()),
        ]
        for number, state in enumerate(ingresses):
            with m.If(state.ends[core]):
                m.d.comb += [
                    frame.buffer.eq(state.buffer),
                    frame.ingress.eq(number),
                    frame.iif.eq(number),
                    frame.device.eq(state.end_port if number == self.config.ports else number),
                    frame.leaving.eq(number == self.config.ports),
                    frame.data.eq(addresses.HEADROOM),
                    frame.data_end.eq(state.end_offset),
                    frame.order.eq(self.next_sequence[number]),
                    frame.sequence.eq(self.next_sequence[number]),
                    give.buffer.eq(state.buffer),
                ]
