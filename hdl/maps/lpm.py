"""LPM_TRIE: the longest prefix that a map has of a key (kernel/bpf/lpm_trie.c), by searches for the key cut to each
length that the map's prefixes have, the longest first (spec/tables.py: order)."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import (
    FIND_CLOCKS,
    SCRATCH_KEYS,
    Find,
    Found,
    KeyReadPort,
    KeyWord,
    MapDescriptor,
    key_slots,
)
from bpfnic.hdl.memory import READ_LATENCY
from bpfnic.hdl.slice import RegisterSlice
from bpfnic.spec import tables
from bpfnic.spec.addresses import MAX_KEY_BYTES
from bpfnic.spec.maps import LPM_LENGTH_BYTES

_WORDS = MAX_KEY_BYTES // 8
_LENGTH_BITS = exact_log2(tables.LENGTH_BITS)
END_BITS = bits_for(MAX_KEY_BYTES + LPM_LENGTH_BYTES)
_HALF = 32  # bits of the bitmap that are looked through at once


class LongestPrefix(Component):
    """A search at a time; of a key of up to 8 bytes it begins with a length each clock, SCRATCH_KEYS at most at once,
    and with no shorter one when one is found.

    Members
    -------
    start : begins, in the next clock, with the key in `slot`, on the map of `descriptor`. longest: of all prefixes of
        the key; otherwise for just this one. They stay until the end.
    over : nothing will be found any more: in the last clock of `busy` or the one before, or in both.
    takes : what `found` said a clock ago is the best that has been found.
    busy : from start to the end. length, invalid : of the key's prefix; it is longer than an address. They stay.
    read, key, find, found : of mapinterfaces.SearchPort. request, address, grant, came, word : of
        mapinterfaces.TurnPort.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "start": In(1),
                "slot": In(range(key_slots(config))),
                "longest": In(1),
                "descriptor": In(MapDescriptor(config)),
                "over": Out(1),
                "takes": Out(1),
                "busy": Out(1),
                "length": Out(_LENGTH_BITS),
                "invalid": Out(1),
                "read": Out(KeyReadPort(config)),
                "key": Out(stream.Signature(KeyWord(config))),
                "find": Out(Find(config)),
                "found": In(Found(config)),
                "request": Out(1),
                "address": Out(range(config.map_bytes // 8)),
                "grant": In(1),
                "came": In(1),
                "word": In(64),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        descriptor, busy = self.descriptor, self.busy
        first_slot = self.config.cores * self.config.threads + 1
        key_end = Signal(exact_log2(MAX_KEY_BYTES), reset_less=True)  # the descriptor was there a clock ago
        limit = Signal(_LENGTH_BITS)
        m.d.sync += key_end.eq(descriptor.key_size - 1)
        m.d.comb += limit.eq((descriptor.key_size - LPM_LENGTH_BYTES) << 3)

        # The key's words come.
        m.submodules.words = words = memory.Memory(shape=64, depth=_WORDS, init=[])
        write, read = words.write_port(), words.read_port(domain="comb")
        asked, came = Signal(range(_WORDS + 1)), Signal(range(_WORDS + 1))
        coming = Signal(READ_LATENCY)
        m.d.comb += [
            self.read.request.eq(busy & (asked <= key_end[3:])),
            self.read.slot.eq(self.slot),
            self.read.number.eq(asked),
            write.en.eq(coming[-1]),
            write.addr.eq(came),
            write.data.eq(self.read.word),
        ]
        granted = self.read.request & self.read.grant
        m.d.sync += [coming.eq(Cat(granted, coming)), asked.eq(asked + granted)]
        with m.If(coming[-1]):
            m.d.sync += came.eq(came + 1)
            with m.If(came == 0):
                m.d.sync += [
                    self.length.eq(self.read.word),
                    self.invalid.eq(self.read.word[: 8 * LPM_LENGTH_BYTES] > limit),
                ]

        # The lengths that there are, from the longest on, whose bit is the lowest of `bits`: of half `half` of the
        # bitmap, behind them those of `ahead`. It is drawn, becomes a number, and is compared, a clock each.
        bits, ahead = Signal(_HALF), Signal(_HALF, reset_less=True)
        empty = Signal()  # there are no more `bits`; it is seen a clock later
        one = data.StructLayout({"bit": _HALF, "half": _LENGTH_BITS - exact_log2(_HALF)})
        m.submodules.drawn = drawn = RegisterSlice(one, self.config.slice_places)
        half = Signal(_LENGTH_BITS - exact_log2(_HALF))
        bitmap_coming, unread = Signal(), Signal()
        m.d.comb += [self.request.eq(unread & busy), self.address.eq(descriptor.order[3:] + half[1:])]
        others, lowest = Signal(_HALF), Signal(_HALF)
        m.d.comb += [others.eq(bits & (bits - 1)), lowest.eq(bits & ~others)]
        places = range(exact_log2(_HALF))
        length = Cat(Cat(drawn.o.payload.bit[i] for i in range(_HALF) if not i >> place & 1).any() for place in places)
        candidate, next_length = (Signal(_LENGTH_BITS, name=n, reset_less=True) for n in ("candidate", "next_length"))
        prefix_bytes, last_byte = Signal(END_BITS, reset_less=True), Signal(8, reset_less=True)
        some, fits, there = Signal(), Signal(), Signal()  # there is a candidate, it fits, there is a next length
        sent, exhausted, found = Signal(), Signal(), Signal()
        answer, answered = Signal(Found(self.config), reset_less=True), Signal()  # a search's, a clock ago
        answer_length = Signal(_LENGTH_BITS, reset_less=True)  # of the key that it was for
        m.d.comb += fits.eq((candidate <= self.length) & ~self.invalid)
        with m.If(self.request & self.grant):
            m.d.sync += [unread.eq(0), bitmap_coming.eq(1)]
        with m.If(~there | sent):
            m.d.sync += [next_length.eq(candidate), there.eq(some & fits)]
            m.d.sync += Cat(prefix_bytes, last_byte).eq(Cat(prefix_end(candidate)))
        looks_on = ~some | ~there | sent  # where one doesn't fit, none before it did
        with m.If(looks_on):
            m.d.sync += some.eq(0)
        with m.If(~self.longest):
            with m.If((came != 0) & ~exhausted & busy):
                m.d.sync += [candidate.eq(self.length), some.eq(1), exhausted.eq(1)]
        with m.Else():
            with m.If(looks_on):
                m.d.sync += [candidate.eq(Cat(length, drawn.o.payload.half)), some.eq(drawn.o.valid & busy)]
            with m.If((came != 0) & drawn.i.ready):
                m.d.sync += bits.eq(others)
        m.d.comb += [
            drawn.i.valid.eq(bits.any() & (came != 0)),
            drawn.i.payload.bit.eq(lowest),
            drawn.i.payload.half.eq(half),
            drawn.o.ready.eq(looks_on | ~busy),  # what was drawn in vain is gone before the next search
        ]
        m.d.sync += empty.eq(~bits.any())
        exhausts = self.longest & empty & busy & ~unread & ~bitmap_coming & ~exhausted & ~found
        with m.If(exhausts):
            with m.If(half[0]):
                m.d.sync += [bits.eq(ahead), empty.eq(0)]
            with m.Elif(half.any()):
                m.d.sync += unread.eq(1)
            with m.Else():
                m.d.sync += exhausted.eq(1)
            m.d.sync += half.eq(half - half.any())
        with m.If(self.came):
            m.d.sync += [bits.eq(self.word[_HALF:][::-1]), ahead.eq(self.word[:_HALF][::-1])]
            m.d.sync += [bitmap_coming.eq(0), empty.eq(0)]

        # The key, cut to the next length.
        begun, ripe, searched = (Signal(range(2 * SCRATCH_KEYS), name=name) for name in ("begun", "ripe", "searched"))
        # By slot, whether its search is begun and not answered: answers come in any order.
        opened = Signal(SCRATCH_KEYS)
        slot_bits = exact_log2(SCRATCH_KEYS)
        begun_slot, next_slot, answered_slot = begun[:slot_bits], Signal(slot_bits), Signal(slot_bits)
        free = Signal()  # nobody searches for the next slot's key; it is seen a clock later that one is answered
        m.d.comb += [next_slot.eq(begun_slot + 1), answered_slot.eq(answer.slot - first_slot)]
        m.d.sync += free.eq(~opened.bit_select(Mux(sent, next_slot, begun_slot), 1))
        with m.If(answered):
            m.d.sync += opened.bit_select(answered_slot, 1).eq(0)
        with m.If(sent):
            m.d.sync += opened.bit_select(begun_slot, 1).eq(1)
        number, best = Signal(range(_WORDS)), Signal(_LENGTH_BITS, reset_less=True)
        m.submodules.lengths = lengths = memory.Memory(shape=_LENGTH_BITS, depth=SCRATCH_KEYS, init=[])
        write_length = lengths.write_port()
        of_search, of_answer = (lengths.read_port(domain="comb") for _ in range(2))
        all_came, whole = Signal(), Signal(64)
        m.d.sync += all_came.eq(came > key_end[3:])
        m.d.comb += [
            read.addr.eq(number),
            whole.eq(read.data),
            self.key.valid.eq(there & free & ~found & all_came),
            self.key.payload.slot.eq(first_slot + begun_slot),
            self.key.payload.number.eq(number),
            self.key.payload.data.eq(whole & prefix_mask(m, number, prefix_bytes, last_byte)),
            write_length.en.eq(self.key.valid),
            write_length.addr.eq(begun),
            write_length.data.eq(next_length),
        ]
        with m.If(number == 0):
            m.d.comb += whole[: 8 * LPM_LENGTH_BYTES].eq(next_length)
        with m.If(self.key.valid & self.key.ready):
            m.d.sync += number.eq(number + 1)
            with m.If(number == key_end[3:]):
                m.d.comb += sent.eq(1)
                m.d.sync += [number.eq(0), begun.eq(begun + 1)]

        # The searches, and what they find.
        ripens = Signal(FIND_CLOCKS - 1)
        m.d.sync += [ripens.eq(Cat(sent, ripens)), ripe.eq(ripe + ripens[-1])]
        m.d.comb += [
            self.find.valid.eq(searched != ripe),
            of_search.addr.eq(searched),
            self.find.slot.eq(first_slot + searched[:slot_bits]),
            self.find.length.eq(of_search.data),
        ]
        m.d.sync += searched.eq(searched + self.find.valid)
        hit = answer.found & (~found | (answer_length > best))
        m.d.comb += of_answer.addr.eq((self.found.slot - first_slot)[:slot_bits])
        m.d.sync += [answer.eq(self.found), answered.eq(self.found.valid & busy), answer_length.eq(of_answer.data)]
        with m.If(answered):
            m.d.comb += self.takes.eq(hit | ~self.longest)
            with m.If(answer.found):
                m.d.sync += found.eq(1)
            with m.If(hit):
                m.d.sync += best.eq(answer_length)

        # It ends when all searches are answered; `over` sees the last answer a clock before.
        done, last_answer = Signal(), Signal()
        no_more = exhausted & ~drawn.o.valid & ~some & ~there
        whole_bitmap = all_came & ~unread & ~bitmap_coming
        m.d.comb += [
            done.eq(busy & whole_bitmap & (found | no_more) & ~opened.any()),
            last_answer.eq(answered & ~(opened & ~(1 << answered_slot)).any() & ~(there & free)),
            self.over.eq(done | (last_answer & whole_bitmap & (found | answer.found | no_more))),
        ]
        with m.If(self.start):
            m.d.sync += [
                busy.eq(1),
                unread.eq(self.longest),
                half.eq(Cat(1, limit[exact_log2(2 * _HALF) :])),
            ]
        with m.If(done):
            m.d.sync += [
                Cat(busy, asked, came, all_came, bits, some, there, exhausted, found, number).eq(0),
            ]
        return m


def prefix_end(length) -> tuple[Value, Value]:
    """Of an LPM_TRIE's key whose prefix has `length` bits, how many bytes count as a whole, its length's among them,
    and which bits of the next one."""
    return (length[3:] + LPM_LENGTH_BYTES)[:END_BITS], (0xFF00 >> length[:3])[:8]


def prefix_mask(m: Module, number, whole, last) -> Signal:
    """Of word `number` of the key the bits that count, as prefix_end has them."""
    mask, some = Signal(64), Signal(64)
    words = range(MAX_KEY_BYTES // 8)
    all_count, some_count = Signal(len(words)), Signal(len(words))  # of each word
    with m.Switch(whole[3:]):
        for word in words:
            with m.Case(word):
                m.d.comb += [all_count.eq((1 << word) - 1), some_count.eq(1 << word)]
        with m.Default():
            m.d.comb += all_count.eq(-1)
    with m.Switch(whole[:3]):
        for bytes_ in range(8):
            with m.Case(bytes_):
                m.d.comb += [some[: 8 * bytes_].eq(-1), some.word_select(bytes_, 8).eq(last)]
    with m.If(all_count.bit_select(number, 1)):
        m.d.comb += mask.eq(-1)
    with m.Elif(some_count.bit_select(number, 1)):
        m.d.comb += mask.eq(some)
    return mask
