"""Where is a key? Searches of tables (spec/tables.py), many at once, for programs' look-ups and for the serial unit.

    words of keys ─▶ key memory, KeyHash (by key slot: each CPU's, the host's, those that the serial unit makes up)

    asked  ─┐                          ┌────── again (the next word of the bucket, or of its chain) ◀─────────┐
    sought ─┴▶ chosen ─▶ row ─▶ 3 clocks ─▶ candidate ─▶ compare ─▶ head ─▶ words of its key ─▶ 4 clocks ─▶ equal?
                        (way A)                         (queue)                (way B)                       └▶ result
                                                                 no candidate ─▶ skipped ─▶ as a word that isn't equal

Both ways are asked from registers (row, head), and what they grant goes no further within a clock than into this unit's
own registers.
"""

from functools import reduce
from operator import or_

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.utils import bits_for, exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import (
    SCRATCH_KEYS,
    Find,
    Found,
    HashSecret,
    KeyReadPort,
    KeyWord,
    MapDescriptor,
    RowPort,
    TurnPort,
    bank_bit,
    key_slots,
)
from bpfnic.hdl.maps.keyhash import KeyHash
from bpfnic.hdl.maps.lpm import END_BITS, prefix_end, prefix_mask
from bpfnic.hdl.maps.sharing import WAY_LATENCY
from bpfnic.hdl.memory import READ_LATENCY, SimpleRam
from bpfnic.hdl.queue import Queue
from bpfnic.spec import tables
from bpfnic.spec.addresses import MAX_KEY_BYTES, ROW_BYTES
from bpfnic.spec.maps import MapType

UNDER_WAY = 16
"""Searches that have left their queues and have no result, at most: the size of those between stages."""

COMPARE_CLOCKS = READ_LATENCY + 1
"""Clocks from when a word is coming to whether it is the key's."""

WORDS_UNDER_WAY = 4
"""Words that may be asked for and not coming yet: two wait for map memory, which has granted one."""

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
    `place`. of_unit: it is the serial unit's. age: when it began."""
    return data.StructLayout(
        {
            "slot": range(key_slots(config)),
            "of_unit": 1,
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
    key_valid, key : KeyWord, taken at once. next_number : of each core, the number of its word, if the one of the next
        clock is its (next_core); of the serial unit's core 0 says it.
    secret : HashSecret.
    look_up_valid, look_up : LookUp, taken at once; a CPU has one under way at most. result : its Result, in the
        one clock in which `result_valid` is high, in which the look-up is decided.
    read, find, found, descriptor, hold, idle : mapinterfaces.SearchPort.
    rows : RowPort. table : TurnPort, reads only.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "key_valid": In(1),
                "key": In(KeyWord(config)),
                "next_number": In(range(_WORDS)).array(config.cores),
                "next_core": In((config.cores - 1).bit_length()),
                "secret": In(HashSecret(config)),
                "look_up": In(LookUp(config)),
                "look_up_valid": In(1),
                "result": Out(Result(config)),
                "result_valid": Out(1),
                "read": In(KeyReadPort(config)),
                "find": In(Find(config)),
                "found": Out(Found(config)),
                "descriptor": In(MapDescriptor(config)),
                "hold": In(1),
                "idle": Out(1),
                "rows": Out(RowPort(config)),
                "table": Out(TurnPort(config)),
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
        m.submodules.hash = hasher = KeyHash(config, numbers=config.cores, readers=3)
        m.submodules.key_memory = key_memory = SimpleRam(
            width=64, depth=_WORDS << (key_slots(config) - 1).bit_length(), target=config.target
        )
        m.d.comb += [
            hasher.add.eq(self.key_valid),
            hasher.slot.eq(self.key.slot),
            *(inner.eq(outer) for inner, outer in zip(hasher.next_number, self.next_number, strict=True)),
            hasher.next_chosen.eq(self.next_core),
            hasher.word.eq(self.key.data),
            key_memory.write.enable.eq(self.key_valid),
            key_memory.write.address.eq(Cat(self.key.number, self.key.slot)),
            key_memory.write.data.eq(self.key.data),
        ]
        connect(m, flipped(self.secret), hasher.secret)

        # What a look-up's descriptor says, by CPU: where the row is, where the key is, what the value is.
        of_row = {"first": described.table[4:] + header, "buckets": described.buckets}
        of_key = {"keys": described.keys[4:], "form": self._key_form(m, described.key_size)}
        entries = (MapType.HASH_OF_MAPS, MapType.DEVMAP_HASH)
        of_value = {
            "base": described.base,
            "stride": described.stride,
            "cpu_stride": described.cpu_stride,
            "entry": Cat(described.type == each for each in entries).any(),
        }
        bucket_of = self._kept(m, "bucket_of", of_row)
        link_of = self._kept(m, "link_of", {"links": described.links[4:]})
        key_of = self._kept(m, "key_of", of_key)
        value_of = self._kept(m, "value_of", of_value)

        # And that of the serial unit, which stands still while it asks.
        unit_first, unit_keys = (Signal.like(self.rows.row, name=name, reset_less=True) for name in ("first", "keys"))
        unit_form = Signal.like(of_key["form"], reset_less=True)
        m.d.sync += [
            unit_first.eq(unit.table[4:] + header),
            unit_keys.eq(unit.keys[4:]),
            unit_form.eq(self._key_form(m, unit.key_size)),
        ]

        # Chosen: a search that goes on, the serial unit's, a program's.
        m.submodules.asked = asked = Queue(range(cpus), cpus, through=True)
        m.submodules.sought = sought = Queue(range(key_slots(config)), SCRATCH_KEYS)
        m.submodules.again = again = Queue(Search(config), UNDER_WAY)
        m.d.comb += [
            asked.push.eq(self.look_up_valid),
            asked.entry.eq(look_up.slot),
            sought.push.eq(self.find.valid),
            sought.entry.eq(self.find.slot),
        ]
        ages = Signal(_AGE_CLOCKS + 2)
        m.d.sync += ages.eq(ages + 1)
        age = ages[_AGE_CLOCKS:]
        choice, chooses = Signal(Search(config)), Signal()
        chosen = Signal(Search(config), reset_less=True)
        chosen_valid = Signal()
        under_way = Signal(range(UNDER_WAY + 1))
        look_ups = Signal(range(UNDER_WAY + 1))  # of them, programs'
        begins, begins_look_up, ends, ends_look_up = Signal(), Signal(), Signal(), Signal()
        for count, more, less in ((under_way, begins, ends), (look_ups, begins_look_up, ends_look_up)):
            with m.If(more & ~less):
                m.d.sync += count.eq(count + 1)
            with m.If(less & ~more):
                m.d.sync += count.eq(count - 1)
        room = under_way != UNDER_WAY
        waiting = Signal()
        moves = Signal()
        m.d.comb += [choice.eq(again.pop.payload), chooses.eq(again.pop.valid)]
        with m.If(~again.pop.valid):
            m.d.comb += [choice.eq(0), choice.age.eq(age)]
            with m.If(sought.pop.valid):
                m.d.comb += [
                    choice.slot.eq(sought.pop.payload),
                    choice.of_unit.eq(1),
                    chooses.eq(room),
                    sought.pop.ready.eq(chooses & moves),
                    begins.eq(chooses & moves),
                ]
            with m.Else():
                m.d.comb += [
                    choice.slot.eq(asked.pop.payload),
                    chooses.eq(asked.pop.valid & room & ~self.hold),
                    asked.pop.ready.eq(chooses & moves),
                    begins.eq(chooses & moves),
                    begins_look_up.eq(begins),
                ]
        m.d.comb += again.pop.ready.eq(moves)
        quiet = Signal()
        m.d.sync += quiet.eq(self.hold & ~look_ups.any())
        m.d.comb += self.idle.eq(self.hold & quiet)
        with m.If(moves):
            m.d.sync += [chosen.eq(choice), chosen_valid.eq(chooses)]

        # Row: of the bucket, or that of a link.
        m.d.comb += [hasher.reader[0].eq(chosen.slot), bucket_of.slot.eq(chosen.slot), link_of.slot.eq(chosen.slot)]
        first = Mux(chosen.of_unit, unit_first, bucket_of.first)
        mask = Mux(chosen.of_unit, unit.buckets, bucket_of.buckets)
        links = Mux(chosen.of_unit, unit.links[4:], link_of.links)
        chosen_row = Mux(chosen.chain, links + chosen.place[2:], first + (hasher.hash[0] & mask))
        search = Signal(Search(config), reset_less=True)
        row = Signal.like(self.rows.row, reset_less=True)
        spares = Signal()
        spare = Signal(Search(config), reset_less=True)  # the next one, chosen before it was known that `row` stays
        spare_row = Signal.like(row, reset_less=True)
        bank, spare_bank = Signal.like(self.rows.request), Signal.like(self.rows.request, reset_less=True)  # their bits
        m.d.comb += [moves.eq(~spares), self.rows.request.eq(bank), self.rows.row.eq(row)]
        with m.If(moves):
            m.d.sync += [spare.eq(chosen), spare_row.eq(chosen_row), spare_bank.eq(bank_bit(config, chosen_row))]
        with m.If(~waiting | self.rows.grant):
            m.d.sync += waiting.eq(spares | chosen_valid)
            m.d.sync += [search.eq(Mux(spares, spare, chosen)), row.eq(Mux(spares, spare_row, chosen_row))]
            m.d.sync += bank.eq(Mux(spares, spare_bank, Mux(chosen_valid, bank_bit(config, chosen_row), 0)))
        m.d.sync += spares.eq(waiting & ~self.rows.grant & (spares | chosen_valid))

        # The row is on its way.
        came = Signal(WAY_LATENCY)
        m.d.sync += came.eq(Cat(self.rows.grant, came))
        flight = data.StructLayout({"search": Search(config), "row": len(row)})
        flights = [Signal(flight, name=f"flight{i}", reset_less=True) for i in range(WAY_LATENCY)]
        m.d.sync += [after.eq(before) for after, before in zip(flights, [Cat(search, row), *flights], strict=False)]

        # Candidate: the first of its words that has the tag.
        # What of a row matters, and where its search's keys are, is known before it is there.
        found_row, of_search, next_search = self.rows.data, flights[-1].search, flights[-2].search
        words = [found_row.word_select(i, 32) for i in range(tables.BUCKET_WORDS)]
        tag, matters, old = (
            Signal(tables.TAG_BITS, reset_less=True),
            Signal(tables.BUCKET_WORDS, reset_less=True),
            Signal(reset_less=True),
        )
        last = Signal(tables.BUCKET_WORDS, reset_less=True)  # the word that leads on where none is a candidate
        row_keys, row_form = Signal.like(unit_keys, reset_less=True), Signal.like(unit_form, reset_less=True)
        m.d.comb += [hasher.reader[1].eq(next_search.slot), key_of.slot.eq(next_search.slot)]
        m.d.sync += [
            tag.eq(hasher.hash[1][-tables.TAG_BITS :]),
            matters.eq(
                Cat(
                    Mux(next_search.chain, next_search.place[:2] == i, next_search.word <= i)
                    for i in range(tables.BUCKET_WORDS)
                )
            ),
            last.eq(Mux(next_search.chain, 1 << next_search.place[:2], 1 << tables.BUCKET_WORDS - 1)),
            old.eq((age - next_search.age)[:2] == 2),
            row_keys.eq(Mux(next_search.of_unit, unit_keys, key_of.keys)),
            row_form.eq(Mux(next_search.of_unit, unit_form, key_of.form)),
        ]
        some = [word[: tables.PLACE_BITS].any() for word in words]
        here = [
            (word[tables.PLACE_BITS :] == tag) & any_ & matters[i]
            for i, (word, any_) in enumerate(zip(words, some, strict=True))
        ]
        there = Cat(here).any()
        first_here = Cat(each & ~Cat(here[:i]).any() if i else each for i, each in enumerate(here))
        chosen_word, place = Signal(tables.BUCKET_WORDS), Signal(place_bits(config))
        m.d.comb += chosen_word.eq(Mux(there, first_here, last))
        places = [Mux(chosen_word[i], word[: len(place)] - 1, 0) for i, word in enumerate(words)]
        m.d.comb += place.eq(reduce(or_, places))
        compared = Signal(Comparison(config))
        m.d.comb += [
            compared.search.eq(of_search),
            compared.search.place.eq(place),
            compared.search.word.eq(Cat(chosen_word[1] | chosen_word[3], chosen_word[2:].any())),
            compared.candidate.eq(there),
            compared.more.eq(~old & (there | (Cat(some) & last).any())),
            compared.row.eq(flights[-1].row),
        ]
        # With where its keys are, and what form they have. All this is known late in its clock, so it has a register
        # before the queue; where nothing else waits, head takes it from there.
        placed = data.StructLayout({**Comparison(config).members, "keys": len(row_keys), "form": len(row_form)})
        m.submodules.comparisons = comparisons = Queue(placed, UNDER_WAY, through=True)
        m.d.sync += [
            comparisons.push.eq(came[-1]),
            comparisons.entry.eq(Cat(compared, row_keys, row_form)),
        ]

        # Head: the oldest comparison, and where its candidate's key is.
        oldest, number = comparisons.pop.payload, Signal(range(_WORDS))
        keys, form = oldest.keys, oldest.form
        end, stride_bits = form[: exact_log2(MAX_KEY_BYTES)], form[exact_log2(MAX_KEY_BYTES) :]
        offset = Signal(range(config.map_bytes))
        m.d.comb += offset.eq((oldest.search.place << 2) << stride_bits)
        head = Signal(Comparison(config), reset_less=True)
        head_valid = Signal()
        key_end = Signal(exact_log2(MAX_KEY_BYTES), reset_less=True)
        at, upper = Signal.like(self.table.address, reset_less=True), Signal(reset_less=True)
        final, step, takes = Signal(), Signal(), Signal()
        skips, passes, waits_for_room, crowded = Signal(), Signal(), Signal(), Signal()
        m.d.comb += comparisons.pop.ready.eq(~head_valid | skips | (takes & final))
        with m.If(comparisons.pop.ready):
            m.d.sync += [
                head_valid.eq(comparisons.pop.valid),
                head.eq(oldest.as_value()[: Comparison(config).size]),
                key_end.eq(end),
                at.eq((keys << 1) + offset[3:]),
                upper.eq(offset[2]),
            ]

        # Words of the candidate's key are asked for, 8 bytes a clock.
        yields = Signal()  # the key memory is the serial unit's next
        m.d.sync += yields.eq(self.read.request & ~self.read.grant)
        goes = head_valid & ~yields
        comparing = data.StructLayout(
            {"head": Comparison(config), "final": 1, "number": range(_WORDS), "upper": 1, "short": 1}
        )
        now = Signal(comparing)
        # What is no candidate has no key. It goes on in a clock in which no word comes, at once or from behind head, in
        # the place that a word of its own would have had; where it has to wait even there, head makes room.
        skipped = [Signal(comparing, name=f"skipped{i}", reset_less=True) for i in range(2)]
        skipped_valid = Signal(2)
        m.d.comb += [
            passes.eq(goes & ~head.candidate & ~self.table.coming & ~skipped_valid[1]),
            waits_for_room.eq(skipped_valid[1] & self.table.coming),
            self.table.request.eq(goes & head.candidate & ~crowded),
            self.table.address.eq(at),
            skips.eq(goes & ~head.candidate & ~skipped_valid.all()),
            takes.eq(self.table.request & self.table.grant),
            step.eq(takes | skips),
            final.eq(~head.candidate | (number == key_end[3:])),
            now.head.eq(head),
            now.final.eq(final),
            now.number.eq(number),
            now.short.eq(~key_end[2:].any()),
            now.upper.eq(upper),
        ]
        with m.If(step):
            m.d.sync += number.eq(Mux(final, 0, number + 1))
            with m.If(~final):
                m.d.sync += at.eq(at + 1)
        m.d.sync += crowded.eq(waits_for_room)
        with m.If(~waits_for_room):
            m.d.sync += [skipped[1].eq(skipped[0]), skipped_valid[1].eq(skipped_valid[0])]
        with m.If(~waits_for_room | ~skipped_valid[0]):
            m.d.sync += [skipped[0].eq(now), skipped_valid[0].eq(skips & ~passes)]
        m.submodules.reading = reading = Queue(comparing, WORDS_UNDER_WAY)
        m.d.comb += [
            reading.push.eq(takes),
            reading.entry.eq(now),
            reading.pop.ready.eq(self.table.coming),
        ]

        # A word comes, and the one that it is compared with.
        coming, comes = Signal(comparing), Signal()
        came_words = Signal(COMPARE_CLOCKS)
        comparings = [Signal(comparing, name=f"comparing{i}", reset_less=True) for i in range(COMPARE_CLOCKS)]
        m.d.comb += [
            comes.eq(self.table.coming | skipped_valid[1] | passes),
            coming.eq(Mux(self.table.coming, reading.pop.payload, Mux(skipped_valid[1], skipped[1], now))),
            key_memory.read.address.eq(Cat(coming.number, coming.head.search.slot)),
            self.read.grant.eq(~comes),
            self.read.word.eq(key_memory.read.data),
        ]
        with m.If(~comes):
            m.d.comb += key_memory.read.address.eq(Cat(self.read.number, self.read.slot))
        m.d.sync += came_words.eq(Cat(comes, came_words))
        m.d.sync += [after.eq(before) for after, before in zip(comparings, [coming, *comparings], strict=False)]

        # Where the candidate's value is, while it is compared.
        compared_search = comparings[0].head.search
        m.d.comb += value_of.slot.eq(compared_search.slot)
        base, entry, copy = (
            Signal.like(described.base, name=f"value_{name}", reset_less=True) for name in ("base", "place", "copy")
        )
        value = Signal.like(self.result.value, reset_less=True)
        of_entries = Signal(2, reset_less=True)
        m.d.sync += [
            base.eq(value_of.base),
            entry.eq(compared_search.place * value_of.stride),
            copy.eq(compared_search.slot[: self._cpu_bits] * value_of.cpu_stride),
            value.eq(base + entry + copy),
            of_entries.eq(Cat(value_of.entry, of_entries)),
        ]

        # Equal?
        arrived, stored = comparings[-2], Signal(64)
        with m.If(arrived.short):
            m.d.comb += stored.eq(self.table.word.word_select(arrived.upper, 32))
        with m.Else():
            m.d.comb += stored.eq(self.table.word)
        counts = self._counting(m, coming, comparings[0])
        word_differs = Signal(reset_less=True)
        differs = Signal()  # a word before of this key
        equal = Signal()
        m.d.sync += word_differs.eq(((stored ^ key_memory.read.data) & counts).any())
        done, compared_word = comparings[-1], came_words[-1]
        m.d.comb += equal.eq(~differs & ~word_differs)
        with m.If(compared_word & done.head.candidate):
            m.d.sync += differs.eq(~done.final & ~equal)

        result = done.head
        matches = Signal()
        goes_on = compared_word & done.final & ~matches & result.more
        of_bucket = ~result.search.chain & result.candidate & (result.search.word != tables.BUCKET_WORDS - 1)
        m.d.comb += [
            matches.eq(result.candidate & equal),
            again.push.eq(goes_on),
            again.entry.eq(result.search),
            again.entry.chain.eq(~of_bucket),
            again.entry.word.eq(result.search.word + 1),
        ]
        # Of a search whose last word this is: the serial unit's, a program's.
        last_of_unit, last_of_program = (Signal(name=name) for name in ("last_of_unit", "last_of_program"))
        last_word = came_words[-2] & comparings[-2].final
        m.d.sync += [
            last_of_unit.eq(last_word & comparings[-2].head.search.of_unit),
            last_of_program.eq(last_word & ~comparings[-2].head.search.of_unit),
        ]
        known = matches | ~result.more
        m.d.comb += [
            ends.eq(compared_word & done.final & known),
            ends_look_up.eq(last_of_program & known),
        ]

        # The serial unit's result.
        found = self.found
        m.d.sync += [
            found.valid.eq(last_of_unit & known),
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

        # A program's. Where the value is was worked out meanwhile.
        m.d.comb += [
            self.result_valid.eq(last_of_program & known),
            self.result.slot.eq(result.search.slot),
            self.result.found.eq(matches),
            self.result.entry.eq(of_entries[-1]),
            self.result.value.eq(value),
        ]
        return m

    def _key_form(self, m: Module, key_size) -> Value:
        """The place of a key's last byte, and the logarithm of the bytes from one key to the next, above 2."""
        end, stride_bits = Signal(exact_log2(MAX_KEY_BYTES)), Signal(3)
        m.d.comb += end.eq(key_size - 1)
        for bits in range(2, exact_log2(MAX_KEY_BYTES)):
            with m.If(end[bits:].any()):
                m.d.comb += stride_bits.eq(bits - 1)
        return Cat(end, stride_bits)

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

    def _counting(self, m: Module, before, comparing) -> Signal:
        """Which bits of a stored key's word count: of an LPM_TRIE's those of the prefix. A clock after `comparing`,
        which was `before` a clock earlier."""
        counts = Signal(64, reset_less=True)
        end = Cat(*prefix_end(self.find.length))
        m.submodules.lengths = lengths = memory.Memory(shape=len(end), depth=key_slots(self.config), init=[])
        write, read = lengths.write_port(), lengths.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(self.find.valid),
            write.addr.eq(self.find.slot),
            write.data.eq(end),
            read.addr.eq(before.head.search.slot),
        ]
        whole, last = Signal(END_BITS, reset_less=True), Signal(8, reset_less=True)
        m.d.sync += Cat(whole, last).eq(read.data)
        lpm, of_prefix = Signal(reset_less=True), Signal(reset_less=True)
        m.d.sync += lpm.eq(self.descriptor.type == MapType.LPM_TRIE)
        m.d.sync += of_prefix.eq(lpm & before.head.search.of_unit)
        with m.If(of_prefix):
            m.d.sync += counts.eq(prefix_mask(m, comparing.number, whole, last))
        with m.Else():
            m.d.sync += counts.eq(2**64 - 1)
        return counts


class _Kept:
    def __init__(self, slot: Signal, fields):
        self.slot, self._fields = slot, fields

    def __getattr__(self, name: str):
        return self._fields[name]
