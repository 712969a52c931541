"""The card's end of the wire: takes messages, carries each request out once, and answers (docs/transport.md).

       links ──bytes──▶ ┌──────────────┐ words
                        │ buffer       ├───────▶ SipHash, header, accesses ──▶ bus
       links ◀──bytes── │ 0    request │◀─────── what was read
                        │ 256  reply   │
                        │ 504  WELCOME │
                        └──────────────┘

The reply stays where it is until the next request is carried out: a request that comes again is answered from there.
A WELCOME has a place of its own, so that who has no key, and can send HELLOs alone, changes nothing.
"""

from typing import NamedTuple

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, Signature

from bpfnic.hdl.memory import READ_LATENCY, SimpleRam
from bpfnic.hdl.wire.link import Link
from bpfnic.hdl.wire.siphash import SipHash
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.wire import (
    ADDRESS_BITS,
    ADVANCES,
    COUNT_BIT,
    COUNT_BITS,
    ERROR_BIT,
    FILLS,
    HEADER,
    KEY_BYTES,
    MESSAGE_BYTES,
    PAYLOAD_BYTES,
    PROTOCOL,
    TAG_BYTES,
    UNIT_BYTES,
    WRITES,
    Error,
    Kind,
)

WORD_BYTES = 4
_DEPTH = 512  # words of the buffer: one DP16KD
_REPLY, _WELCOME = 256, 504  # where they begin
_HEADER_WORDS = HEADER.size // WORD_BYTES
_PAYLOAD_WORDS = PAYLOAD_BYTES // WORD_BYTES

Bus = Signature(
    {
        "valid": Out(1),
        "write": Out(1),
        "address": Out(ADDRESS_BITS),
        "data": Out(32),
        "done": In(1),
        "refused": In(1),
        "answer": In(32),
    }
)
"""One access to a register at a time. valid stays, and all with it, until the clock of `done`; refused and answer are
those of that clock."""


class Endpoint(Component):
    """Members
    -------
    links : where messages come from; a message that begins while another one does takes its place. What comes
        while a request is carried out or answered is lost, and comes again.
    bus : accesses to registers, those of a request one behind the other.
    active : a message with the right tag has come (strobe).

    Parameters
    ----------
    key : 16 bytes.
    links : how many.
    target : NicConfig.target.
    """

    def __init__(self, key: bytes, links: int = 1, target: str = "generic"):
        if len(key) != KEY_BYTES:
            raise BpfnicError(f"key must be {KEY_BYTES} bytes, not {len(key)}")
        self.key, self.target = key, target
        super().__init__({"links": In(Link).array(links), "bus": Out(Bus), "active": Out(1)})

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.buffer = buffer = SimpleRam(width=32, depth=_DEPTH, lane=8, target=self.target)
        m.submodules.siphash = siphash = SipHash(self.key)
        listening, arrived = Signal(), Signal()
        owner = Signal(range(max(2, len(self.links))), reset_less=True)
        self._listen(m, buffer, listening, arrived, owner)

        clock = Signal(64)  # since the card was configured: a nonce that never comes again
        session, offered, last = Signal(64), Signal(64), Signal(32)
        m.d.sync += clock.eq(clock + 1)

        # A word of the buffer, READ_LATENCY clocks behind a move.
        pointer, timer = Signal(range(_DEPTH), reset_less=True), Signal(range(READ_LATENCY + 1))
        word, there = buffer.read.data, timer == READ_LATENCY
        m.d.comb += buffer.read.address.eq(pointer)
        with m.If(~there):
            m.d.sync += timer.eq(timer + 1)

        def move(to):
            return [pointer.eq(to), timer.eq(0)]

        def put(at, data):
            write = buffer.write
            return [write.address.eq(at), write.data.eq(data), write.enable.eq(1), write.lanes.eq(-1)]

        # What a message says, and what is right about it.
        units = Signal(range(PAYLOAD_BYTES // UNIT_BYTES + 1), reset_less=True)  # its payload
        kept_units = Signal.like(units)  # that of the reply in the buffer
        hello, request, repeated, following, first = (Signal(name=name, reset_less=True) for name in (
            "hello", "request", "repeated", "following", "first"))  # fmt: skip
        current, new, tag_right = (Signal(name=name, reset_less=True) for name in ("current", "new", "tag_right"))
        sequence = Signal(32, reset_less=True)
        distance = (word - last)[:32]

        checking = Signal(reset_less=True)  # a request's tag, not making a reply's
        welcoming = Signal(reset_less=True)
        base = Mux(welcoming, _WELCOME, _REPLY)
        low, high = Signal(32, reset_less=True), Signal(32, reset_less=True)
        pairs, padded = Signal(range(_DEPTH // 2), reset_less=True), Signal(reset_less=True)
        half, lane = Signal(reset_less=True), Signal(2)
        digest = siphash.digest.word_select(half, 32)
        m.d.comb += siphash.word.eq(Cat(low, high))

        # The request's next access.
        count, out = Signal(COUNT_BITS, reset_less=True), Signal(range(_REPLY), reset_less=True)
        left, done = Signal(range(_PAYLOAD_WORDS + 1), reset_less=True), Signal(ERROR_BIT, reset_less=True)
        advances, fills, fetched = (Signal(name=name, reset_less=True) for name in ("advances", "fills", "fetched"))
        problem = Signal(Error, reset_less=True)
        bus = self.bus
        writes, address, data = (Signal.like(each, reset_less=True) for each in (bus.write, bus.address, bus.data))
        m.d.comb += [bus.write.eq(writes), bus.address.eq(address), bus.data.eq(data)]

        def hash_from(at):
            return [*move(at), pairs.eq(0), padded.eq(0), half.eq(0)]

        with m.FSM():
            with m.State("LISTEN"):
                m.d.comb += listening.eq(1)
                with m.If(arrived):
                    m.d.sync += [*hash_from(0), checking.eq(1), tag_right.eq(1), units.eq(0)]
                    m.next = "START"

            # -- the tag of a message, and what is in its header
            with m.State("START"):  # a message that was none may have left it busy
                m.d.comb += siphash.start.eq(~siphash.busy)
                with m.If(siphash.start):
                    m.next = "HASH"
            with m.State("HASH"):
                with m.If(there & ~siphash.busy):
                    m.d.sync += [*move(pointer + 1), half.eq(~half), low.eq(high), high.eq(word)]
                    with m.If(half):
                        m.next = "ABSORB"
                    with m.If(checking & (pairs == 0) & ~half):
                        length = word[16:]
                        m.d.sync += [
                            units.eq(length // UNIT_BYTES),
                            hello.eq(word == _header(Kind.HELLO)),
                            request.eq((word[:16] == _header(Kind.REQUEST)) & (length % UNIT_BYTES == 0)
                                       & (length <= PAYLOAD_BYTES)),
                        ]  # fmt: skip
                    with m.If(checking & (pairs == 0) & half):
                        m.d.sync += [sequence.eq(word), repeated.eq(distance == 0), following.eq(distance == 1)]
                        m.d.sync += [first.eq(word == 1), current.eq(1), new.eq(1)]
                    with m.If(checking & (pairs == 1)):
                        m.d.sync += current.eq(current & (word == session.word_select(half, 32)))
                        m.d.sync += new.eq(new & (word == offered.word_select(half, 32)))
            with m.State("ABSORB"):
                m.d.comb += siphash.absorb.eq(1)
                m.d.sync += pairs.eq(pairs + 1)
                m.next = "HASH"
                with m.If(padded):
                    m.next = "FINISH"
                with m.Elif(pairs == units + 1):
                    m.d.sync += padded.eq(1)
                    m.next = "PAD"
                with m.If(checking & ~hello & ~request):
                    m.next = "LISTEN"
            with m.State("PAD"):
                with m.If(~siphash.busy):
                    m.d.sync += [low.eq(0), high.eq(Cat(Const(0, 27), (units + 2)[:5]))]
                    m.next = "ABSORB"
            with m.State("FINISH"):
                with m.If(~siphash.busy):
                    m.d.comb += siphash.finish.eq(1)
                    m.next = "DIGEST"
            with m.State("DIGEST"):
                with m.If(there & ~siphash.busy):
                    m.d.sync += [*move(pointer + 1), half.eq(~half), tag_right.eq(tag_right & (word == digest))]
                    with m.If(~checking):
                        m.d.comb += put(pointer, digest)
                    with m.If(half):
                        m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.sync += [welcoming.eq(hello), checking.eq(0), half.eq(0)]
                m.d.comb += self.active.eq(checking & tag_right)
                m.next = "LISTEN"
                with m.If(~checking):
                    m.d.sync += [*move(base), welcoming.eq(welcoming), pairs.eq(0)]
                    m.next = "SEND"
                with m.Elif(hello):
                    m.d.sync += [offered.eq(clock), *move(1)]
                    m.next = "COPY"
                with m.Elif(tag_right & current & repeated):
                    m.d.sync += [units.eq(kept_units), *move(_REPLY), pairs.eq(0)]
                    m.next = "SEND"
                with m.Elif(tag_right & (current & following | new & ~current & first)):
                    m.d.sync += [last.eq(sequence), *move(1)]
                    with m.If(~current):
                        m.d.sync += session.eq(offered)
                    m.next = "COPY"

            # -- the reply begins as the request does
            with m.State("COPY"):
                with m.If(there):
                    m.d.comb += put(base + pointer, word)
                    m.d.sync += move(pointer + 1)
                    with m.If(pointer == _HEADER_WORDS - 1):
                        m.next = "ACCESSES"
                        with m.If(welcoming):
                            m.next = "NONCE"
            with m.State("NONCE"):
                m.d.comb += put(_WELCOME + _HEADER_WORDS + half, offered.word_select(half, 32))
                m.d.sync += [half.eq(~half), units.eq(1)]
                with m.If(half):
                    m.next = "HEADER"

            # -- accesses
            with m.State("ACCESSES"):
                m.d.sync += [left.eq(2 * units), out.eq(_HEADER_WORDS + 1), done.eq(0), problem.eq(Error.NONE)]
                m.next = "ACCESS"
            with m.State("ACCESS"):
                m.d.sync += [
                    address.eq(word),
                    count.eq(word[COUNT_BIT:]),
                    writes.eq((word & WRITES) != 0),
                    advances.eq((word & ADVANCES) != 0),
                    fills.eq((word & FILLS) != 0),
                    fetched.eq(0),
                ]
                with m.If(left == 0):
                    m.next = "STATUS"
                with m.Elif(there):
                    m.d.sync += [*move(pointer + 1), left.eq(left - 1)]
                    m.next = "COUNT"
            with m.State("COUNT"):
                m.d.sync += count.eq(count - 1)
                m.next = "BUS"
                with m.If(count == 0):
                    m.next = "ACCESS"
                with m.Elif(writes & ~fetched):
                    m.next = "DATA"
                with m.Elif(~writes & (out == _HEADER_WORDS + _PAYLOAD_WORDS)):
                    m.d.sync += problem.eq(Error.MALFORMED)
                    m.next = "STATUS"
            with m.State("DATA"):
                m.d.sync += [data.eq(word), fetched.eq(fills)]
                with m.If(left == 0):
                    m.d.sync += problem.eq(Error.MALFORMED)
                    m.next = "STATUS"
                with m.Elif(there):
                    m.d.sync += [*move(pointer + 1), left.eq(left - 1)]
                    m.next = "BUS"
            with m.State("BUS"):
                m.d.comb += bus.valid.eq(1)
                with m.If(bus.done):
                    m.next = "COUNT"
                    with m.If(bus.refused):
                        m.d.sync += problem.eq(Error.REFUSED)
                        m.next = "STATUS"
                    with m.Else():
                        m.d.sync += [done.eq(done + 1), address.eq(address + Mux(advances, WORD_BYTES, 0))]
                        with m.If(~writes):
                            m.d.comb += put(_REPLY + out, bus.answer)
                            m.d.sync += out.eq(out + 1)
            with m.State("STATUS"):
                m.d.comb += put(_REPLY + _HEADER_WORDS, Cat(done, problem))
                m.d.sync += units.eq((out - _HEADER_WORDS + 1) // 2)
                m.next = "FILL"
            with m.State("FILL"):  # up to a whole unit
                with m.If(out[0]):
                    m.d.comb += put(_REPLY + out, 0)
                m.d.sync += kept_units.eq(units)
                m.next = "HEADER"
            with m.State("HEADER"):
                kind = Mux(welcoming, _header(Kind.WELCOME), _header(Kind.REPLY))
                m.d.comb += [put(base, kind | units * UNIT_BYTES << 16), siphash.start.eq(1)]
                m.d.sync += hash_from(base)
                m.next = "HASH"

            # -- the answer
            with m.State("SEND"):
                reply = _Reply(there, word.word_select(lane, 8), (pairs == units + 2) & half & (lane == 3))
                with m.If(self._offer(m, owner, reply)):
                    m.d.sync += lane.eq(lane + 1)
                    with m.If(lane == 3):
                        m.d.sync += [*move(pointer + 1), half.eq(~half), pairs.eq(pairs + half)]
                    with m.If(reply.last):
                        m.next = "LISTEN"
        return m

    def _listen(self, m: Module, buffer: SimpleRam, listening: Signal, arrived: Signal, owner: Signal) -> None:
        """A message's bytes go into the buffer's beginning."""
        open_, position = Signal(), Signal(range(MESSAGE_BYTES + 1), reset_less=True)
        ended, byte, data = Signal(), Signal(), Signal(8)
        for number, link in enumerate(self.links):
            with m.If(owner == number):
                m.d.comb += [byte.eq(link.byte), data.eq(link.data), ended.eq(link.end)]
        m.d.comb += arrived.eq(listening & open_ & ended & (position >= HEADER.size + TAG_BYTES))
        with m.If(listening & open_ & byte):
            m.d.comb += [
                buffer.write.address.eq(position[2:]),
                buffer.write.data.eq(data.replicate(WORD_BYTES)),
                buffer.write.enable.eq(position < MESSAGE_BYTES),
                buffer.write.lanes.eq(1 << position[:2]),
            ]
            m.d.sync += position.eq(position + 1)
            with m.If(position == MESSAGE_BYTES):
                m.d.sync += open_.eq(0)
        with m.If(ended | ~listening):
            m.d.sync += open_.eq(0)
        for number, link in enumerate(self.links):
            m.d.comb += link.listening.eq(listening)
            with m.If(listening & link.begin):
                m.d.sync += [open_.eq(1), position.eq(0), owner.eq(number)]

    def _offer(self, m: Module, owner: Signal, reply: "_Reply") -> Value:
        """Offers a byte to the request's link; whether it is taken."""
        taken = Signal()
        for number, link in enumerate(self.links):
            m.d.comb += [link.reply.payload.data.eq(reply.data), link.reply.payload.last.eq(reply.last)]
            with m.If(owner == number):
                m.d.comb += [link.reply.valid.eq(reply.there), taken.eq(reply.there & link.reply.ready)]
        return taken


class _Reply(NamedTuple):
    there: Value
    data: Value
    last: Value


def _header(kind: Kind) -> int:
    """The first word of a message without payload."""
    return PROTOCOL | kind << 8
