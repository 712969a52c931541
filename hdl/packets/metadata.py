"""Receive metadata (spec.metadata): what is kept of each frame as it came in, and what programs are told of it.

Beside each buffer stand the first bytes of its frame, the time of its last beat, and how many bytes there are. What a
program changes in its packet changes nothing here. The RSS hash is computed when a program asks for it.
"""

from functools import reduce
from operator import xor

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import Component, In, Out, Signature
from amaranth.utils import exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import RssKeyWrite
from bpfnic.hdl.memory import SimpleRam
from bpfnic.hdl.packets.records import FIRST_WORD, WORD_BYTES, WordWrite
from bpfnic.spec import metadata
from bpfnic.spec.metadata import RssType

_KEPT_WORDS = metadata.KEPT_BYTES // WORD_BYTES
_LEAD = 4  # clocks before the first byte, in which its word comes
_WINDOW_BYTES = 5  # of the key, that a byte is multiplied with: 32 bits for each of its bits
_L4 = {6: RssType.L4_TCP, 17: RssType.L4_UDP, 132: RssType.L4_SCTP}  # by protocol number (IANA)

# Numbers of bytes: of a part's last one; in IP headers (RFC 791, RFC 8200).
_LAST = {"macs": 11, "two": 1, "ipv6": 39, "ports": 3}
_ADDRESSES_4, _ADDRESSES_6 = range(12, 20), range(8, 40)

Came = data.StructLayout({"time": 64, "bytes": 8})
"""Of a frame: when its last beat came, and how many of its bytes are kept."""


class Asked(Enum, shape=2):
    """What a program asks for."""

    RX_TIMESTAMP = 0
    RX_HASH = 1
    RX_VLAN_TAG = 2


class _Part(Enum, shape=3):
    """What the next byte belongs to."""

    MACS = 0
    ETHERTYPE = 1
    TAG = 2  # its control information
    IPV4 = 3
    IPV6 = 4
    PORTS = 5
    END = 6


def MetadataPort(config: NicConfig) -> Signature:
    """A question about the frame in `buffer`: `start` is high in one clock; `buffer` and `asked` stay until `done`,
    when `value` is as spec.metadata.Metadata says. That takes 5 clocks, and for a tag or a hash one more for each byte
    up to the tag's or the ports' last."""
    return Signature(
        {
            "start": Out(1),
            "buffer": Out(range(config.packet_buffers)),
            "asked": Out(Asked),
            "done": In(1),
            "value": In(64),
        }
    )


class ReceiveMetadata(Component):
    """One core's.

    Members
    -------
    beat : in this clock Receive writes a beat of `bytes` (1 to 8) bytes, as `write` says.
    time : nanoseconds.
    key : the RSS key.
    question : of the service unit; one at a time.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "beat": In(1),
                "bytes": In(4),
                "write": In(WordWrite(config)),
                "time": In(64),
                "key": In(RssKeyWrite),
                "question": In(MetadataPort(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        question = self.question
        position = Signal(8)  # of `byte` in its frame, -1 to -4 before the first one
        kept, came = self._keep(m, position)

        # A byte a clock, of a word that came while the one before went by.
        running, there, word, byte = Signal(), Signal(), Signal(64, reset_less=True), Signal(8)
        m.d.comb += [byte.eq(word), there.eq(running & ~position[-1])]
        m.d.sync += [position.eq(position + 1), word.eq(word >> 8)]
        with m.If(position[:3] == WORD_BYTES - 1):
            m.d.sync += word.eq(kept)
        with m.If(question.start):
            m.d.sync += [position.eq(-_LEAD), running.eq(1)]
        with m.Elif(question.done):
            m.d.sync += running.eq(0)

        part, hashes, notes, kind, tag = self._parse(m, there, byte)
        hash = self._hash(m, there, byte, hashes, notes)
        over = (part == _Part.END) | (position == came.bytes)
        untagged = (part != _Part.MACS) & (part != _Part.ETHERTYPE) & (part != _Part.TAG)
        ends, value = Signal(), question.value
        with m.Switch(question.asked):
            with m.Case(Asked.RX_TIMESTAMP):
                m.d.comb += [ends.eq(there), value.eq(came.time)]
            with m.Case(Asked.RX_HASH):
                m.d.comb += [ends.eq(over), value.eq(Cat(hash & kind.any().replicate(len(hash)), kind))]
            with m.Case(Asked.RX_VLAN_TAG):
                m.d.comb += [ends.eq(over | untagged), value.eq(tag)]
        m.d.comb += question.done.eq(running & ends)
        return m

    def _keep(self, m: Module, position: Signal) -> tuple[Value, Value]:
        """What was kept of the frame in question: the word behind the one that `position` lies in, and Came; 2 clocks
        later."""
        depth, target = self.config.packet_buffers, self.config.target
        # Who writes is known late in its clock.
        beat, count, time = Signal(), Signal.like(self.bytes), Signal.like(self.time)
        write = self.write.signature.create()
        m.d.sync += [beat.eq(self.beat), count.eq(self.bytes), time.eq(self.time)]
        m.d.sync += [getattr(write, name).eq(getattr(self.write, name)) for name in ("buffer", "word", "data")]
        m.submodules.headers = headers = SimpleRam(width=64, depth=depth * _KEPT_WORDS, target=target)
        m.submodules.came = came = SimpleRam(width=Came.size, depth=depth, target=target)
        in_kept = exact_log2(_KEPT_WORDS)
        number, above = write.word[:in_kept], write.word[in_kept:]
        keeps = above == FIRST_WORD // _KEPT_WORDS
        row = Signal(Came)
        m.d.comb += [
            row.time.eq(time),
            row.bytes.eq(Mux(keeps, Cat(count[:3], number + count[3]), metadata.KEPT_BYTES)),
            headers.write.enable.eq(beat & keeps),
            headers.write.address.eq(Cat(number, write.buffer)),
            headers.write.data.eq(write.data),
            came.write.enable.eq(beat),
            came.write.address.eq(write.buffer),
            came.write.data.eq(row),
            headers.read.address.eq(Cat((position[3:] + 1)[:in_kept], self.question.buffer)),
            came.read.address.eq(self.question.buffer),
        ]
        return headers.read.data, Came(came.read.data)

    def _parse(self, m: Module, there: Value, byte: Value) -> tuple[Value, Value, Value, Value, Value]:
        """Which part the byte belongs to; whether it is hashed; whether the hash is one of what lies up to it, whose
        RssType is there a clock later; and the tag."""
        part, number, previous = Signal(_Part), Signal(6), Signal(8, reset_less=True)
        two = Cat(byte, previous)
        service, tag = Signal(reset_less=True), Signal(32, reset_less=True)
        tagged = tag[-1]  # so begin all TPIDs
        words, fragment = Signal(4, reset_less=True), Signal(reset_less=True)
        l4, kind = Signal(3, reset_less=True), Signal(7, reset_less=True)
        of_4, of_6, of_ports = (part == each for each in (_Part.IPV4, _Part.IPV6, _Part.PORTS))

        def one_of(numbers: range) -> Value:
            return (number >= numbers.start) & (number < numbers.stop)

        addresses_end = (of_4 & (number == _ADDRESSES_4[-1])) | (of_6 & (number == _ADDRESSES_6[-1]))
        ports_end = of_ports & (number == _LAST["ports"])
        last_of_4 = Cat(Const(3, 2), (words - 1)[:4])
        ends, onward = Signal(), Signal(_Part)
        m.d.comb += onward.eq(_Part.END)
        with m.Switch(part):
            with m.Case(_Part.MACS):
                m.d.comb += [ends.eq(number == _LAST["macs"]), onward.eq(_Part.ETHERTYPE)]
            with m.Case(_Part.ETHERTYPE):
                m.d.comb += ends.eq(number == _LAST["two"])
                with m.Switch(two):
                    with m.Case(*metadata.TPIDS):
                        m.d.comb += onward.eq(_Part.TAG)
                    with m.Case(0x0800):
                        m.d.comb += onward.eq(_Part.IPV4)
                    with m.Case(0x86DD):
                        m.d.comb += onward.eq(_Part.IPV6)
            with m.Case(_Part.TAG):
                m.d.comb += [ends.eq(number == _LAST["two"]), onward.eq(_Part.ETHERTYPE)]
            with m.Case(_Part.IPV4):
                with m.If(number == 0):
                    m.d.comb += ends.eq(byte[:4] < 5)  # no header is as short
                with m.Else():
                    m.d.comb += ends.eq(number == last_of_4)
                    m.d.comb += onward.eq(Mux(l4.any() & ~fragment, _Part.PORTS, _Part.END))
            with m.Case(_Part.IPV6):
                m.d.comb += [ends.eq(number == _LAST["ipv6"]), onward.eq(Mux(l4.any(), _Part.PORTS, _Part.END))]
            with m.Case(_Part.PORTS):
                m.d.comb += ends.eq(number == _LAST["ports"])

        with m.If(there):
            m.d.sync += [previous.eq(byte), number.eq(Mux(ends, 0, number + 1))]
            with m.If(ends):
                m.d.sync += part.eq(onward)
            with m.If((part == _Part.ETHERTYPE) & ~tagged):
                m.d.sync += service.eq(two == metadata.TPIDS[1])
            with m.If((part == _Part.TAG) & (number == _LAST["two"]) & ~tagged):
                m.d.sync += tag.eq(Cat(two, Mux(service, metadata.TPIDS[1], metadata.TPIDS[0])))
            with m.If(of_4):
                with m.Switch(number):
                    with m.Case(0):
                        m.d.sync += words.eq(byte)
                    with m.Case(6):  # more of them follow, or have come before
                        m.d.sync += fragment.eq((byte & 0x3F).any())
                    with m.Case(7):
                        m.d.sync += fragment.eq(fragment | byte.any())
            with m.If((of_4 & (number == 9)) | (of_6 & (number == 6))):
                m.d.sync += l4.eq(Cat(byte == protocol for protocol in _L4))
            with m.If(addresses_end):
                m.d.sync += kind.eq(Mux(of_4, RssType.L3_IPV4, RssType.L3_IPV6))
            with m.If(ports_end):
                m.d.sync += [kind[3].eq(1), kind[4:].eq(l4)]
        with m.If(self.question.start):
            m.d.sync += [part.eq(_Part.MACS), number.eq(0), tag.eq(0), kind.eq(0)]
        hashed = (of_4 & one_of(_ADDRESSES_4)) | (of_6 & one_of(_ADDRESSES_6)) | of_ports
        return part, hashed, addresses_end | ports_end, kind, tag

    def _hash(self, m: Module, there: Value, byte: Value, hashed: Value, notes: Value) -> Value:
        """Toeplitz hash of the bytes that are `hashed`, as it was when one of them was noted.

        Each bit of the input that is 1 adds the 32 bits of the key that begin at its number, the first bit of all being
        the most significant one of its byte."""
        m.submodules.key = key = memory.Memory(shape=32, depth=metadata.RSS_KEY_BYTES // 4, init=[])
        write, read = key.write_port(), key.read_port(domain="comb")
        place, window = Signal(range(metadata.RSS_KEY_BYTES + 1)), Signal(8 * _WINDOW_BYTES, reset_less=True)
        sum, noted = Signal(32, reset_less=True), Signal(32, reset_less=True)
        product = reduce(xor, (window[1 + bit :][:32] & byte[bit].replicate(32) for bit in range(8)))
        m.d.comb += [
            write.addr.eq(self.key.index),
            write.data.eq(self.key.data),
            write.en.eq(self.key.enable),
            read.addr.eq(place[2:]),
        ]
        with m.If(there & (hashed | (place < _WINDOW_BYTES))):  # the first ones go by while nothing is hashed
            m.d.sync += [place.eq(place + 1), window.eq(Cat(read.data.word_select(place[:2], 8), window))]
        with m.If(there & hashed):
            m.d.sync += sum.eq(sum ^ product)
        with m.If(there & notes):
            m.d.sync += noted.eq(sum ^ product)
        with m.If(self.question.start):
            m.d.sync += [place.eq(0), sum.eq(0)]
        return noted
