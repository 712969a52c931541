"""Where is a key? Searches of tables (spec/tables.py), many at once, for programs' look-ups and for the serial unit.

    words of keys ─▶ key memory, KeyHash (by key slot: each CPU's, the host's, those that the serial unit makes up)

    asked ─┐                 ┌────────────────── again (the next word of the bucket, or of its chain) ◀────────┐
    find  ─┴▶ choose ─▶ row ─┴▶ 3 clocks ─▶ candidate ─▶ compare ─▶ head ─▶ words of its key ─▶ 3 clocks ─▶ equal?
                       (way A)                           (queue)                (way B)                        └▶ result

Both ways are asked from registers (row, head), and what they grant goes no further within a clock than into this unit's
own registers: a search of the serial unit that isn't chosen at once waits in one.
"""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, memory, stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import bits_for, exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.queue import Queue
from bpfnic.hdl.mapinterfaces import (
    Find,
    Found,
    HashSecret,
    KeyReadPort,
    KeyWord,
    MapDescriptor,
    RowPort,
    TablePort,
    key_slots,
)
from bpfnic.hdl.maps.keyhash import KeyHash
from bpfnic.hdl.maps.lpm import prefix_mask
from bpfnic.hdl.memory import READ_LATENCY, SimpleRam
from bpfnic.spec import tables
from bpfnic.spec.addresses import MAX_KEY_BYTES, ROW_BYTES
from bpfnic.spec.maps import MapType

WAY_LATENCY = READ_LATENCY + 1
"""Clocks from a grant of map memory to what was read."""

UNDER_WAY = 16
"""Searches that have left their queues and have no result, at most: the size of those between stages."""

_WORDS = MAX_KEY_BYTES // 8
_AGE_CLOCKS = 20


def place_bits(config: NicConfig) -> int:
    """Bits of a place's number, for any place that map memory has room for."""
    return min(tables.PLACE_BITS, bits_for(config.map_bytes // tables.LINK_BYTES - 1))


def LookUp(config: NicConfig) -> data.StructLayout:
    """Front -> finder: a program's look-up, at the earliest HASH_LATENCY - 1 clocks after its key's last word."""
    return data.StructLayout({"slot": range(config.cores * config.threads), "descriptor": MapDescriptor(config)})


def Result(config: NicConfig) -> data.StructLayout:
    """Finder -> front: what a look-up found: the value's byte offset in map memory. entry: the core loads what is
    there, a redirect's word or an inner map's handle."""
    return data.StructLayout(
        {
            "slot": range(config.cores * config.threads),
            "found": 1,
            "entry": 1,
            "value": range(config.map_bytes),
        }
    )


def Search(config: NicConfig) -> data.StructLayout:
    """Where a search stands. It reads a bucket, whose words below `word` are done with; or in the `chain` the link of
    `place`. age: when it began."""
    return data.StructLayout(
        {
            "slot": range(key_slots(config)),
            "chain": 1,
            "place": place_bits(config),
            "word": 2,
            "age": 2,
        }
    )


def Comparison(config: NicConfig) -> data.StructLayout:
    """What a row said. candidate: the key may be that of search.place, which word search.word of `row` names. more:
    where it isn't, the search goes on (behind the candidate, or with the link of search.place)."""
    return data.StructLayout(
        {
            "search": Search(config),
            "candidate": 1,
            "more": 1,
            "row": range(config.map_bytes // ROW_BYTES),
        }
    )


class Finder(Component):
    """A search of a key of up to 8 bytes each clock, of up to 16 every 2 clocks, and so on. Unhindered, and where the
    first tag that fits is the key's, a look-up has its result 12 clocks later, and one more for each further 8 bytes.

    A program can write anything into tables. A search that takes longer than 2**20 clocks, which none does in a table
    whose keys nobody chose for that, finds nothing.

    Members
    -------
    key_valid, key : KeyWord, taken at once.
    secret : HashSecret.
    look_up_valid, look_up : LookUp, taken at once; a CPU has one under way at most. result : its Result, in the
        one clock in which `result_valid` is high; `decides`, for CPU `decided`, in the clock in which it was known.
    read, find, found, descriptor, hold, idle : mapinterfaces.SearchPort.
    rows : RowPort. table : TablePort, reads only, granted when the serial unit has no use for it.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "key_valid": In(1),
                "key": In(KeyWord(config)),
                "secret": In(HashSecret(config)),
                "look_up": In(LookUp(config)),
                "look_up_valid": In(1),
                "result": Out(Result(config)),
                "result_valid": Out(1),
                "decides": Out(1),
                "decided": Out(range(config.cores * config.threads)),
                "read": In(KeyReadPort(config)),
                "find": In(stream.Signature(Find(config))),
                "found": Out(Found(config)),
                "descriptor": In(MapDescriptor(config)),
                "hold": In(1),
                "idle": Out(1),
                "rows": Out(RowPort(config)),
                "table": Out(TablePort(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, unit = self.config, self.descriptor
        if not config.map_types & tables.HASHED:
            m.d.comb += self.idle.eq(1)  # nobody asks
            return m
        cpus = config.cores * config.threads
        self._cpu_bits = (cpus - 1).bit_length()
        header = tables.header_bytes(cpus) // ROW_BYTES
        look_up, described = self.look_up, self.look_up.descriptor

        # Keys, and their hashes: of the search that reads its row next, of the one whose row is there, and of the one
        # that the serial unit is told of.
        m.submodules.hash = hasher = KeyHash(config, readers=3)
        m.submodules.key_memory = key_memory = SimpleRam(
            width=64, depth=_WORDS << (key_slots(config) - 1).bit_length(), target=config.target
        )
        m.d.comb += [
            hasher.add.eq(self.key_valid),
            hasher.slot.eq(self.key.slot),
            hasher.number.eq(self.key.number),
            hasher.word.eq(self.key.data),
            key_memory.write.enable.eq(self.key_valid),
            key_memory.write.address.eq(Cat(self.key.number, self.key.slot)),
            key_memory.write.data.eq(self.key.data),
        ]
        connect(m, flipped(self.secret), hasher.secret)

        # What a look-up's descriptor says, by CPU: where the row is, where the key is, what the value is.
        of_row = {"first": described.table[4:] + header, "buckets": described.buckets}
        of_key = {"links": described.links[4:], "keys": described.keys[4:], "key_size": described.key_size}
        entries = (MapType.HASH_OF_MAPS, MapType.DEVMAP_HASH)
        of_value = {
            "base": described.base,
            "stride": described.stride,
            "cpu_stride": described.cpu_stride,
            "entry": Cat(described.type == each for each in entries).any(),
        }
        bucket_of = self._kept(m, "bucket_of", of_row)
        link_of = self._kept(m, "link_of", {"links": of_key["links"]})
        key_of = self._kept(m, "key_of", {"keys": of_key["keys"], "key_size": of_key["key_size"]})
        value_of = self._kept(m, "value_of", of_value)

        # Choose: a search that goes on, the serial unit's, a program's.
        m.submodules.asked = asked = Queue(range(cpus), cpus)
        m.submodules.again = again = Queue(Search(config), UNDER_WAY)
        m.d.comb += [asked.push.eq(self.look_up_valid), asked.entry.eq(look_up.slot)]
        ages = Signal(_AGE_CLOCKS + 2)
        m.d.sync += ages.eq(ages + 1)
        age = ages[_AGE_CLOCKS:]
        chosen, choice = Signal(Search(config)), Signal()
        under_way = Signal(range(UNDER_WAY + 1))
        look_ups = Signal(range(UNDER_WAY + 1))  # of them, programs'
        begins, begins_look_up, ends, ends_look_up = Signal(), Signal(), Signal(), Signal()
        m.d.sync += [
            under_way.eq(under_way + begins - ends),
            look_ups.eq(look_ups + begins_look_up - ends_look_up),
        ]
        room = under_way != UNDER_WAY
        waiting = Signal()
        moves = Signal()
        holds = Signal()
        held = Signal(range(key_slots(config)), reset_less=True)  # the serial unit's, that waits
        finds, to_find = self.find.valid | holds, Mux(holds, held, self.find.payload.slot)
        takes = Signal()
        m.d.comb += self.find.ready.eq(~holds)
        m.d.sync += [holds.eq(finds & ~takes), held.eq(to_find)]
        m.d.comb += [chosen.eq(again.pop.payload), choice.eq(again.pop.valid)]
        with m.If(~again.pop.valid):
            m.d.comb += [chosen.eq(0), chosen.age.eq(age)]
            with m.If(finds):
                m.d.comb += [
                    chosen.slot.eq(to_find),
                    choice.eq(room),
                    takes.eq(choice & moves),
                    begins.eq(takes),
                ]
            with m.Else():
                m.d.comb += [
                    chosen.slot.eq(asked.pop.payload),
                    choice.eq(asked.pop.valid & room & ~self.hold),
                    asked.pop.ready.eq(choice & moves),
                    begins.eq(choice & moves),
                    begins_look_up.eq(begins),
                ]
        m.d.comb += again.pop.ready.eq(moves)
        of_unit = Signal(key_slots(config))  # whose search by this slot it is
        with m.If(begins):
            m.d.sync += of_unit.bit_select(chosen.slot, 1).eq(~begins_look_up)
        m.d.comb += self.idle.eq(self.hold & ~look_ups.any())

        # Row: of the bucket, or that of a link.
        unit_chosen = Mux(again.pop.valid, of_unit.bit_select(chosen.slot, 1), finds)
        m.d.comb += [hasher.reader[0].eq(chosen.slot), bucket_of.slot.eq(chosen.slot), link_of.slot.eq(chosen.slot)]
        unit_first = Signal.like(self.rows.row, reset_less=True)  # it stands still while the unit asks
        m.d.sync += unit_first.eq(unit.table[4:] + header)
        first = Mux(unit_chosen, unit_first, bucket_of.first)
        mask = Mux(unit_chosen, unit.buckets, bucket_of.buckets)
        links = Mux(unit_chosen, unit.links[4:], link_of.links)
        chosen_row = Mux(chosen.chain, links + chosen.place[2:], first + (hasher.hash[0] & mask))
        search = Signal(Search(config), reset_less=True)
        row = Signal.like(self.rows.row, reset_less=True)
        spares = Signal()
        spare = Signal(Search(config), reset_less=True)  # the next one, chosen before it was known that `row` stays
        spare_row = Signal.like(row, reset_less=True)
        m.d.comb += [
            moves.eq(~spares),
            self.rows.request.eq(waiting),
            self.rows.row.eq(row),
        ]
        with m.If(moves):
            m.d.sync += [spare.eq(chosen), spare_row.eq(chosen_row)]
        with m.If(~waiting | self.rows.grant):
            m.d.sync += [waiting.eq(spares | choice), spares.eq(0)]
            m.d.sync += [search.eq(Mux(spares, spare, chosen)), row.eq(Mux(spares, spare_row, chosen_row))]
        with m.Elif(moves):
            m.d.sync += spares.eq(choice)

        # The row is on its way.
        came = Signal(WAY_LATENCY)
        m.d.sync += came.eq(Cat(self.rows.grant, came))
        flight = data.StructLayout({"search": Search(config), "row": len(row)})
        flights = [Signal(flight, name=f"flight{i}", reset_less=True) for i in range(WAY_LATENCY)]
        m.d.sync += [after.eq(before) for after, before in zip(flights, [Cat(search, row), *flights], strict=False)]

        # Candidate: the first of its words that has the tag.
        found_row, of_search = self.rows.data, flights[-1].search
        m.d.comb += hasher.reader[1].eq(of_search.slot)
        tag = hasher.hash[1][-tables.TAG_BITS :]
        words = [found_row.word_select(i, 32) for i in range(tables.BUCKET_WORDS)]
        here = [
            (word[tables.PLACE_BITS :] == tag)
            & word[: tables.PLACE_BITS].any()
            & Mux(of_search.chain, of_search.place[:2] == i, of_search.word <= i)
            for i, word in enumerate(words)
        ]
        last = Mux(of_search.chain, found_row.word_select(of_search.place[:2], 32), words[-1])
        which, candidate = Signal(2), Signal(32)
        m.d.comb += [which.eq(Mux(of_search.chain, of_search.place[:2], 3)), candidate.eq(last)]
        for i, word in reversed([*enumerate(words)]):
            with m.If(here[i]):
                m.d.comb += [which.eq(i), candidate.eq(word)]
        old = (age - of_search.age)[:2] == 2
        there = Cat(here).any()
        compared = Signal(Comparison(config))
        m.d.comb += [
            compared.search.eq(of_search),
            compared.search.place.eq(candidate[: tables.PLACE_BITS] - 1),
            compared.search.word.eq(which),
            compared.candidate.eq(there),
            compared.more.eq(~old & (there | last[: tables.PLACE_BITS].any())),
            compared.row.eq(flights[-1].row),
        ]
        m.submodules.comparisons = comparisons = Queue(Comparison(config), UNDER_WAY)
        m.d.comb += [comparisons.push.eq(came[-1]), comparisons.entry.eq(compared)]

        # Head: the oldest comparison, and where its candidate's key is.
        oldest, number = comparisons.pop.payload, Signal(range(_WORDS))
        unit_compares = of_unit.bit_select(oldest.search.slot, 1)
        m.d.comb += key_of.slot.eq(oldest.search.slot)
        keys = Mux(unit_compares, unit.keys[4:], key_of.keys)
        end = (Mux(unit_compares, unit.key_size, key_of.key_size) - 1)[: exact_log2(MAX_KEY_BYTES)]
        stride_bits = Signal(3)  # logarithm, above 2
        for bits in range(2, exact_log2(MAX_KEY_BYTES)):
            with m.If(end[bits:].any()):
                m.d.comb += stride_bits.eq(bits - 1)
        offset = Signal(range(config.map_bytes))
        m.d.comb += offset.eq((oldest.search.place << 2) << stride_bits)
        head = Signal(Comparison(config), reset_less=True)
        head_valid = Signal()
        key_end = Signal(exact_log2(MAX_KEY_BYTES), reset_less=True)
        at, upper = Signal.like(self.table.address, reset_less=True), Signal(reset_less=True)
        final, step = Signal(), Signal()
        m.d.comb += comparisons.pop.ready.eq(~head_valid | (step & final))
        with m.If(comparisons.pop.ready):
            m.d.sync += [
                head_valid.eq(comparisons.pop.valid),
                head.eq(oldest),
                key_end.eq(end),
                at.eq((keys << 1) + offset[3:]),
                upper.eq(offset[2]),
            ]

        # Compare: the candidate's key, 8 bytes a clock.
        compares = head_valid & ~self.read.request  # the key memory is the serial unit's in the next clock
        m.d.comb += [
            self.table.request.eq(compares & head.candidate),
            self.table.address.eq(at),
            step.eq(Mux(head.candidate, self.table.grant, compares)),
            final.eq(~head.candidate | (number == key_end[3:])),
        ]
        with m.If(step):
            m.d.sync += number.eq(Mux(final, 0, number + 1))
            with m.If(~final):
                m.d.sync += at.eq(at + 1)

        # The word is on its way, and so is the one that it is compared with.
        words_come = Signal(WAY_LATENCY)
        m.d.sync += words_come.eq(Cat(step, words_come))
        comparing = data.StructLayout(
            {"head": Comparison(config), "final": 1, "number": range(_WORDS), "upper": 1, "short": 1}
        )
        comparings = [Signal(comparing, name=f"comparing{i}", reset_less=True) for i in range(WAY_LATENCY)]
        now = Signal(comparing)
        m.d.comb += [
            now.head.eq(head),
            now.final.eq(final),
            now.number.eq(number),
            now.short.eq(~key_end[2:].any()),
            now.upper.eq(upper),
            key_memory.read.address.eq(Cat(comparings[0].number, comparings[0].head.search.slot)),
            self.read.grant.eq(self.read.request & ~words_come[0]),
            self.read.word.eq(key_memory.read.data),
        ]
        with m.If(~words_come[0]):
            m.d.comb += key_memory.read.address.eq(Cat(self.read.number, self.read.slot))
        m.d.sync += [after.eq(before) for after, before in zip(comparings, [now, *comparings], strict=False)]

        # Equal?
        done, equal, differs = comparings[-1], Signal(), Signal()
        stored = Signal(64)
        with m.If(done.short):
            m.d.comb += stored.eq(self.table.word.word_select(done.upper, 32))
        with m.Else():
            m.d.comb += stored.eq(self.table.word)
        counts = self._counting(m, comparings[-2])
        arrives = words_come[-1]
        m.d.comb += equal.eq(~differs & ~((stored ^ key_memory.read.data) & counts).any())
        with m.If(arrives):
            m.d.sync += differs.eq(~done.final & ~equal)

        result = done.head
        matches = Signal()
        goes_on = arrives & done.final & ~matches & result.more
        of_bucket = ~result.search.chain & result.candidate & (result.search.word != tables.BUCKET_WORDS - 1)
        m.d.comb += [
            matches.eq(result.candidate & equal),
            again.push.eq(goes_on),
            again.entry.eq(result.search),
            again.entry.chain.eq(~of_bucket),
            again.entry.word.eq(result.search.word + 1),
        ]
        known = arrives & done.final & ~goes_on
        ours = of_unit.bit_select(result.search.slot, 1)
        m.d.comb += [
            ends.eq(known),
            ends_look_up.eq(known & ~ours),
            self.decides.eq(known & ~ours),
            self.decided.eq(result.search.slot),
        ]

        # The serial unit's result.
        found = self.found
        m.d.sync += [
            found.valid.eq(known & ours),
            found.slot.eq(result.search.slot),
            found.found.eq(matches),
            found.place.eq(result.search.place),
            found.link.eq(Cat(Const(0, 2), result.search.word, result.row)),
        ]
        m.d.comb += [
            hasher.reader[2].eq(found.slot),
            found.bucket.eq(Cat(Const(0, 4), unit_first + (hasher.hash[2] & unit.buckets))),
            found.tag.eq(hasher.hash[2][-tables.TAG_BITS :]),
        ]

        # A program's: where the value is.
        m.d.comb += value_of.slot.eq(result.search.slot)
        base, entry, copy = (
            Signal.like(described.base, name=f"value_{name}", reset_less=True) for name in ("base", "place", "copy")
        )
        valued = Signal(Result(config), reset_less=True)
        known_look_up = Signal()
        m.d.sync += [
            known_look_up.eq(known & ~ours),
            valued.slot.eq(result.search.slot),
            valued.found.eq(matches),
            valued.entry.eq(value_of.entry),
            base.eq(value_of.base),
            entry.eq(result.search.place * value_of.stride),
            copy.eq(result.search.slot[: self._cpu_bits] * value_of.cpu_stride),
            self.result_valid.eq(known_look_up),
            self.result.eq(valued),
            self.result.value.eq(base + entry + copy),
        ]
        return m

    def _kept(self, m: Module, name: str, fields: dict):
        """A memory that keeps some of a look-up's descriptor by CPU: the view of what it has for `slot`."""
        layout = data.StructLayout({field: len(value) for field, value in fields.items()})
        m.submodules[name] = kept = memory.Memory(shape=layout, depth=self.config.cores * self.config.threads, init=[])
        write, read = kept.write_port(), kept.read_port(domain="comb")
        m.d.comb += [write.en.eq(self.look_up_valid), write.addr.eq(self.look_up.slot)]
        m.d.comb += [write.data[field].eq(value) for field, value in fields.items()]
        slot = Signal(range(key_slots(self.config)), name=f"{name}_slot")
        m.d.comb += read.addr.eq(slot)
        return _Kept(slot, read.data)

    def _counting(self, m: Module, comparing) -> Signal:
        """Which bits of a stored key's word count: of an LPM_TRIE's those of the prefix. A clock after `comparing`."""
        counts = Signal(64, reset_less=True)
        m.submodules.lengths = lengths = memory.Memory(shape=9, depth=key_slots(self.config), init=[])
        write, read = lengths.write_port(), lengths.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.find.valid & self.find.ready),
            write.addr.eq(self.find.payload.slot),
            write.data.eq(self.find.payload.length),
            read.addr.eq(comparing.head.search.slot),
        ]
        lpm = self.descriptor.type == MapType.LPM_TRIE
        ours = Signal()
        m.d.comb += ours.eq(lpm & (comparing.head.search.slot >= self.config.cores * self.config.threads))
        with m.If(ours):
            m.d.sync += counts.eq(prefix_mask(m, comparing.number, read.data))
        with m.Else():
            m.d.sync += counts.eq(2**64 - 1)
        return counts


class _Kept:
    def __init__(self, slot: Signal, fields):
        self.slot, self._fields = slot, fields

    def __getattr__(self, name: str):
        return self._fields[name]
