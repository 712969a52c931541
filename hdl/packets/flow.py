"""Which flow a frame belongs to: 8 bits, the exclusive or of the bytes of its IP addresses.

So both directions of a flow have the same bits, and so have all fragments. Frames that are neither IPv4 nor IPv6, or
have more than two VLAN tags, are one flow, number 0. Flows that share their bits merely wait for each other.
"""

from functools import reduce
from operator import xor

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, memory
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.lanes import spread

FLOW_BITS = 8

_ETHERTYPE = 12  # its byte in an untagged frame (IEEE 802.3 clause 3.2.6)
_TAG_BYTES = 4  # IEEE 802.1Q
_MOST_TAGS = 2


class _Protocol(Enum, shape=2):
    OTHER = 0
    IPV4 = 1
    IPV6 = 2
    TAGGED = 3


_ETHERTYPES = {0x0800: _Protocol.IPV4, 0x86DD: _Protocol.IPV6, 0x8100: _Protocol.TAGGED, 0x88A8: _Protocol.TAGGED}
_ADDRESSES = {_Protocol.IPV4: range(26, 34), _Protocol.IPV6: range(22, 54)}  # their bytes in an untagged frame
_LAST_BEAT = (max(_ADDRESSES[_Protocol.IPV6]) + _TAG_BYTES) // 8


class _Seeks(Enum, shape=2):
    """What the next beat has."""

    NOTHING = 0
    FIRST = 1  # the EtherType of an untagged frame, or of the first tag
    BEHIND_TAG = 2


_State = data.StructLayout({"protocol": _Protocol, "once": 1, "beat": range(_LAST_BEAT + 2), "seeks": _Seeks})
"""Of a frame. once: behind one tag. beat: stops behind the addresses, and counts two tags, which fill a beat, as no
beat."""


class Flow(Component):
    """One for each core: frames of all ingresses, whose beats may take turns. In the clock after a beat it is known
    which of its bytes are addresses; in the second one they are gathered.

    Members
    -------
    taken, ingress, data, bytes : a beat with so many bytes. first : it begins its frame.
    flow : of the frame up to the beat of two clocks before.
    """

    def __init__(self, ingresses: int):
        self.ingresses = ingresses
        super().__init__(
            {
                "taken": In(1),
                "ingress": In(range(ingresses)),
                "data": In(64),
                "bytes": In(range(9)),
                "first": In(1),
                "flow": Out(FLOW_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.states = states = memory.Memory(shape=_State, depth=self.ingresses, init=[])
        read, write = states.read_port(domain="comb"), states.write_port()
        taken, first, count = Signal(), Signal(), Signal.like(self.bytes)
        word, ingress = Signal(64), Signal.like(self.ingress)
        m.d.sync += [taken.eq(self.taken), first.eq(self.first), count.eq(self.bytes)]
        m.d.sync += [word.eq(self.data), ingress.eq(self.ingress)]
        state, following = Signal(_State), Signal(_State)
        m.d.comb += [read.addr.eq(ingress), write.addr.eq(ingress), write.en.eq(taken), write.data.eq(following)]
        with m.If(~first):
            m.d.comb += state.eq(read.data)

        # The EtherType lies in beat 1, or behind one or two tags, both in beat 2. No address lies in its beat.
        skips = Signal()
        behind = [self._protocol(m, _ETHERTYPE + tags * _TAG_BYTES) for tags in range(_MOST_TAGS + 1)]
        twice, found = behind[1] == _Protocol.TAGGED, Signal(_Protocol)  # found: behind the tag or tags
        m.d.comb += found.eq(Mux(~twice, behind[1], Mux(behind[2] == _Protocol.TAGGED, _Protocol.OTHER, behind[2])))
        m.d.comb += [following.protocol.eq(state.protocol), following.once.eq(state.once)]
        with m.If(first):
            m.d.comb += following.seeks.eq(_Seeks.FIRST)
        with m.Elif(state.seeks == _Seeks.FIRST):
            m.d.comb += [following.protocol.eq(behind[0]), following.once.eq(0)]
            with m.If(behind[0] == _Protocol.TAGGED):
                m.d.comb += following.seeks.eq(_Seeks.BEHIND_TAG)
        with m.Elif(state.seeks == _Seeks.BEHIND_TAG):
            m.d.comb += [skips.eq(twice), following.protocol.eq(found), following.once.eq(~twice)]
        m.d.comb += following.beat.eq(state.beat + ((state.beat <= _LAST_BEAT) & ~skips))

        chosen = Signal(8)
        with m.Switch(Cat(state.protocol, state.once, state.beat)):
            for case, lanes in _cases():
                with m.Case(case):
                    m.d.comb += chosen.eq(lanes)

        m.submodules.gathered = gathered = memory.Memory(shape=FLOW_BITS, depth=self.ingresses, init=[])
        so_far, gather = gathered.read_port(domain="comb"), gathered.write_port()
        held, begins, held_word = Signal(8), Signal(), Signal(64)
        m.d.sync += [held.eq(chosen & ((1 << count) - 1)), begins.eq(first), held_word.eq(word)]
        m.d.sync += [gather.addr.eq(ingress), gather.en.eq(taken)]
        found = held_word & spread(m, held)
        m.d.comb += [
            so_far.addr.eq(gather.addr),
            self.flow.eq(reduce(xor, (found.word_select(lane, 8) for lane in range(8)), Mux(begins, 0, so_far.data))),
            gather.data.eq(self.flow),
        ]
        return m

    def _protocol(self, m: Module, byte: int) -> Signal:
        """What the EtherType at `byte` of a frame says, a clock after its beat."""
        high, low = (self.data.word_select((byte + i) % 8, 8) for i in range(2))
        found = Signal(_Protocol, name=f"protocol_at_{byte}")
        m.d.sync += found.eq(_Protocol.OTHER)
        with m.Switch(Cat(low, high)):
            for number, protocol in _ETHERTYPES.items():
                with m.Case(number):
                    m.d.sync += found.eq(protocol)
        return found


def _cases():
    """Cat(protocol, once, beat) -> the lanes that hold addresses."""
    for protocol, addresses in _ADDRESSES.items():
        for once in range(2):
            for beat in range(_LAST_BEAT + 1):
                lanes = sum(1 << lane for lane in range(8) if 8 * beat + lane - _TAG_BYTES * once in addresses)
                if lanes:
                    yield beat << 3 | once << 2 | protocol.value, lanes
