"""Which flow a frame belongs to: 8 bits, the exclusive or of the bytes of its IP addresses.

So both directions of a flow have the same bits, and so have all fragments. Frames that are neither IPv4 nor IPv6, or
have more than two VLAN tags, are one flow, number 0. Flows that share their bits merely wait for each other.
"""

from functools import reduce
from operator import xor

from amaranth import Cat, Module, Signal
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


class Flow(Component):
    """Members
    -------
    data, keep : a beat. taken : it is transferred in this clock. last : it ends its frame.
    flow : of the frame that ended in the clock before.
    """

    data: In(64)
    keep: In(8)
    taken: In(1)
    last: In(1)
    flow: Out(FLOW_BITS)

    def elaborate(self, platform) -> Module:
        m = Module()
        # It stops behind the addresses, and counts two tags, which fill a beat, as no beat. once: behind one tag.
        beat, once = Signal(range(_LAST_BEAT + 2)), Signal()
        protocol = Signal(_Protocol)

        # The EtherType lies in beat 1, or behind one or two tags, both in beat 2. No address lies in its beat.
        next_protocol, next_once, skips = Signal(_Protocol), Signal(), Signal()
        behind = [self._protocol(m, _ETHERTYPE + tags * _TAG_BYTES) for tags in range(_MOST_TAGS + 1)]
        m.d.comb += [next_protocol.eq(protocol), next_once.eq(once)]
        with m.If(beat == 1):
            m.d.comb += [next_protocol.eq(behind[0]), next_once.eq(0)]
        with m.Elif((beat == 2) & (protocol == _Protocol.TAGGED)):
            with m.If(behind[1] == _Protocol.TAGGED):
                m.d.comb += skips.eq(1)
                with m.If(behind[2] != _Protocol.TAGGED):
                    m.d.comb += next_protocol.eq(behind[2])
                with m.Else():
                    m.d.comb += next_protocol.eq(_Protocol.OTHER)
            with m.Else():
                m.d.comb += [next_protocol.eq(behind[1]), next_once.eq(1)]

        chosen, held, gathered, sum_now = Signal(8), Signal(8), Signal(FLOW_BITS), Signal(FLOW_BITS)
        with m.Switch(Cat(protocol, once, beat)):
            for case, lanes in _cases():
                with m.Case(case):
                    m.d.comb += chosen.eq(lanes)
        m.d.comb += held.eq(chosen & self.keep)
        word = self.data & spread(m, held)
        m.d.comb += sum_now.eq(reduce(xor, (word.word_select(lane, 8) for lane in range(8)), gathered))

        with m.If(self.taken):
            m.d.sync += [protocol.eq(next_protocol), once.eq(next_once), gathered.eq(sum_now)]
            with m.If((beat <= _LAST_BEAT) & ~skips):
                m.d.sync += beat.eq(beat + 1)
            with m.If(self.last):
                m.d.sync += [beat.eq(0), gathered.eq(0), protocol.eq(_Protocol.OTHER), self.flow.eq(sum_now)]
        return m

    def _protocol(self, m: Module, byte: int) -> Signal:
        """What the EtherType at `byte` of a frame says, in the clock of its beat."""
        high, low = (self.data.word_select((byte + i) % 8, 8) for i in range(2))
        found = Signal(_Protocol, name=f"protocol_at_{byte}")
        with m.Switch(Cat(low, high)):
            for number, protocol in _ETHERTYPES.items():
                with m.Case(number):
                    m.d.comb += found.eq(protocol)
        return found


def _cases():
    """Cat(protocol, once, beat) -> the lanes that hold addresses."""
    for protocol, addresses in _ADDRESSES.items():
        for once in range(2):
            for beat in range(_LAST_BEAT + 1):
                lanes = sum(1 << lane for lane in range(8) if 8 * beat + lane - _TAG_BYTES * once in addresses)
                if lanes:
                    yield beat << 3 | once << 2 | protocol.value, lanes
