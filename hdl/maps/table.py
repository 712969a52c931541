"""The serial unit of the map engine: what changes tables (spec/tables.py), an operation at a time. It executes a
program (tableprogram.py) on a few registers, an adder, and a way to map memory."""

from enum import IntEnum
from functools import reduce
from operator import or_

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.lanes import spread
from bpfnic.hdl.mapinterfaces import SearchPort, TurnPort
from bpfnic.hdl.maps.lpm import LongestPrefix
from bpfnic.hdl.maps.microcode import (
    AGAIN,
    DECIDES,
    FOUND,
    REGISTERS,
    SCRATCH,
    TARGET_BITS,
    Code,
    Condition,
    Factor,
    Instruction,
    Jump,
    Small,
    Source,
)
from bpfnic.hdl.maps.tableprogram import OPERATIONS, program
from bpfnic.hdl.memory import READ_LATENCY
from bpfnic.spec import tables
from bpfnic.spec.addresses import MAX_KEY_BYTES
from bpfnic.spec.maps import LRU, PER_CPU, MapType, UpdateFlag

_WORDS = MAX_KEY_BYTES // 8
_WIDTH = 32  # of registers
_SHIFTS = (0, 2, 3)  # that there are
_CALLS = 3  # that may be open in the program
_SCAN_BYTES = 256

TableOperation = IntEnum("TableOperation", {name: number for number, name in enumerate(OPERATIONS)})
"""The entries of the program."""


def TableCall(config: NicConfig) -> data.StructLayout:
    """Calls -> unit. cpu: whose key it is and whose reservation; the number behind the last is the host's. illegal:
    the flags are above EXIST."""
    return data.StructLayout(
        {
            "operation": range(len(OPERATIONS)),
            "cpu": range(config.cores * config.threads + 1),
            "host": 1,
            "flags": 2,
            "locked": 1,
            "illegal": 1,
        }
    )


class TableUnit(Component):
    """One operation after the other; what it says of it happens in the clock of `decides`.

    Members
    -------
    host_word, host_write, host_data, host_key : the host's key, 4 bytes at a time, read in the same clock, while no
        operation of the host is under way.
    start : begins `call`, of the next clock on, with `descriptor`, of 3 clocks later on, until it is `done` and
        `taken`. It may search a clock behind that, when all is known of the descriptor.
    waiting : other calls wait: a walk says `again` then, now and then, to be resumed.
    decides : the operation takes effect: of all before it sees everything, and of those after it nothing.
    done : up to the clock in which it is `taken`; what it has written is in map memory; `status`, an error number or 0;
        if `found` then `value` is the byte offset of a value in map memory; in_place: of one that an UPDATE writes
        where it is. cursor: a WALK's.
    search : mapinterfaces.SearchPort. table : mapinterfaces.TurnPort.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        search = SearchPort(config)
        super().__init__(
            {
                "host_word": In(range(2 * _WORDS)),
                "host_write": In(1),
                "host_data": In(32),
                "host_key": Out(32),
                "start": In(1),
                "call": In(TableCall(config)),
                "descriptor": In(search.members["descriptor"].shape),
                "waiting": In(1),
                "decides": Out(1),
                "done": Out(1),
                "taken": In(1),
                "again": Out(1),
                "found": Out(1),
                "status": Out(6),
                "value": Out(range(config.map_bytes)),
                "cursor": Out(_WIDTH),
                "in_place": Out(1),
                "search": Out(search),
                "table": Out(TurnPort(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config, call, descriptor, search, table = self.config, self.call, self.descriptor, self.search, self.table
        if not config.map_types & tables.TYPES:
            return m  # nobody calls
        cpus = config.cores * config.threads
        m.d.comb += search.descriptor.eq(descriptor)

        def known(condition) -> Signal:
            """A register: the call and its descriptor were there a clock ago."""
            register = Signal(Value.cast(condition).shape(), reset_less=True)
            m.d.sync += register.eq(condition)
            return register

        def is_one_of(types: frozenset[MapType]) -> Value:
            return Cat(descriptor.type == each for each in sorted(types & config.map_types)).any()

        # The second operand is a register's, or one of what changes while instructions are executed, or it was there
        # before and is chosen when the instruction is fetched; those of few bits by themselves, so that neither choice
        # is long.
        word = Signal(64, reset_less=True)
        number = Signal(range(_WORDS))
        address = Signal(range(config.map_bytes), reset_less=True)
        scanned_at = Signal.like(address, reset_less=True)  # the last word that came to a scan
        place, link, bucket = (
            Signal(search.found[name].shape(), name=name, reset_less=True) for name in ("place", "link", "bucket")
        )
        tag, found = Signal(tables.TAG_BITS, reset_less=True), Signal(reset_less=True)
        changing = {
            Source.PLACE: place,
            Source.LINK: link,
            Source.BUCKET: bucket,
            Source.TAG: Cat(Const(0, tables.PLACE_BITS), tag),
            Source.OTHER: word[32:],
            Source.AT: scanned_at,
            Source.WORD: Cat(Const(0, 3), number),
        }
        length, invalid = Signal(9), Signal()
        smalls = {
            Small.CPU: call.cpu,
            Small.LENGTH: length,
            Small.LENGTH_BIT: length[:5],
            Small.LENGTH_WORD: Cat(Const(0, 2), length[5:]),
        }
        of_register, chosen = Signal(reset_less=True), Signal(range(len(changing) + 1), reset_less=True)
        assert [each.value for each in changing] == list(range(8, 15))  # three bits say which
        makes_key = Signal(reset_less=True)
        standing = Signal(_WIDTH, reset_less=True)
        small = Signal(max(len(Value.cast(value)) for value in smalls.values()), reset_less=True)
        of_small = Signal(reset_less=True)

        # The next instruction is read while one is executed; a jump costs a clock.
        words = program(config)
        m.submodules.program = store = memory.Memory(
            shape=Instruction.size, depth=1 << bits_for(len(words) - 1), init=words
        )
        fetch = store.read_port()
        fetched = Instruction(fetch.data)
        stands = {
            Source.NUMBER: fetched.number,
            Source.TABLE: descriptor.table,
            Source.LINKS: descriptor.links,
            Source.KEYS: descriptor.keys,
            Source.ORDER: descriptor.order,
            Source.BASE: descriptor.base,
            Source.ENTRIES: descriptor.entries,
        }
        step, valid, runs = Signal(Instruction, reset_less=True), Signal(), Signal()
        left_at = Signal(range(REGISTERS), reset_less=True)  # the first operand's register, then what is stored
        behind = Signal(TARGET_BITS)  # where the instruction behind `step` is
        jumps, target, ends = Signal(), Signal(TARGET_BITS), Signal()  # in this clock; the instruction is done with
        m.d.comb += [
            fetch.en.eq(~valid | ends),
            fetch.addr.eq(behind + 1),
            target.eq(call.operation),
        ]
        with m.If(jumps | ~runs):  # whether it starts is not asked here
            m.d.comb += fetch.addr.eq(target)
        with m.If(fetch.en):
            m.d.sync += [behind.eq(fetch.addr), step.eq(fetch.data), valid.eq(runs & ~jumps)]
            m.d.sync += [of_register.eq(fetched.source == Source.REGISTER), left_at.eq(fetched.left)]
            m.d.sync += makes_key.eq(fetched.code == Code.KEY_TO_SLOT)
            source = Value.cast(fetched.source)
            parts = []  # a sum, for of a choice Yosys makes resets, which come late
            for each, value in stands.items():
                whole = Signal(_WIDTH, name=f"stands_{each.name.lower()}")
                m.d.comb += whole.eq(value)
                parts.append(whole & (source[:3] == each.value).replicate(_WIDTH))
            m.d.sync += [
                chosen.eq(Mux(source[3], source[:3], len(changing))),
                standing.eq(reduce(or_, parts)),
                small.eq(Array(smalls[each] for each in Small)[fetched.bits]),
                of_small.eq(source[:3] == Source.SMALL.value),
            ]
        with m.If(self.start):
            m.d.sync += runs.eq(1)
        code = step.code

        # What the operands come to.
        m.submodules.registers = registers = memory.Memory(shape=_WIDTH, depth=REGISTERS, init=[])
        write, left, right = registers.write_port(), *(registers.read_port(domain="comb") for _ in range(2))
        first, second, total = Signal(_WIDTH), Signal(_WIDTH), Signal(_WIDTH)
        m.d.comb += [
            left.addr.eq(left_at),
            right.addr.eq(step.number[: len(right.addr)]),
            # A difference with its carry below, so that it is one sum.
            total.eq((Cat(step.minus, first) + Cat(step.minus, second ^ step.minus.replicate(_WIDTH)))[1:]),
        ]
        with m.Switch(step.shift):
            for shift in _SHIFTS:
                with m.Case(shift):
                    m.d.comb += first.eq(left.data << shift)
        m.d.comb += second.eq(Array([*changing.values(), standing | (small & of_small.replicate(len(small)))])[chosen])
        with m.If(of_register):  # it is there latest
            m.d.comb += second.eq(right.data)

        # A result goes into a register.
        result, writes = Signal(_WIDTH), Signal()
        last = Signal(_WIDTH, reset_less=True)  # what went into a register: whether it is 0 is known a clock later
        m.d.comb += [result.eq(total), write.en.eq(writes), write.addr.eq(step.register), write.data.eq(result)]
        with m.If(writes):
            m.d.sync += last.eq(result)

        # Products.
        factor = Signal(range(config.map_bytes), reset_less=True)
        product = Signal(range(config.map_bytes), reset_less=True)
        key_end = Signal(exact_log2(MAX_KEY_BYTES), reset_less=True)
        m.d.sync += key_end.eq(descriptor.key_size - 1)
        short, key_stride = ~key_end[2:].any(), Signal(7)
        m.d.comb += key_stride.eq(tables.LINK_BYTES)
        for bits in range(2, exact_log2(MAX_KEY_BYTES)):
            with m.If(key_end[bits:].any()):
                m.d.comb += key_stride.eq(2 << bits)
        strides = {
            Factor.STRIDE: descriptor.stride,
            Factor.KEY_STRIDE: key_stride,
            Factor.CPU_STRIDE: descriptor.cpu_stride,
        }
        stride = Signal(range(config.map_bytes))
        with m.Switch(step.bits):
            for each, value in strides.items():
                with m.Case(each):
                    m.d.comb += stride.eq(value)
        m.d.sync += product.eq(factor * stride)

        # The key at hand, zeros behind its end; the host's.
        whole = number != key_end[3:]
        keep, keeps = Signal(8, reset_less=True), Signal(8)  # a word comes later than its number
        some = Cat(byte <= key_end[:3] for byte in range(8))
        m.d.comb += keeps.eq(Mux(whole, (number < key_end[3:]).replicate(8), some))
        m.d.sync += keep.eq(keeps)
        kept = Signal(64)
        m.d.comb += kept.eq(word & spread(m, keep))
        m.submodules.host_keys = host_keys = memory.Memory(shape=32, depth=2 * _WORDS, init=[])
        host_write, host_read = host_keys.write_port(), host_keys.read_port(domain="comb")
        upper = Signal()  # the second half of a word that moves to or from the host's key
        m.d.comb += [
            host_write.en.eq(self.host_write),
            host_write.addr.eq(self.host_word),
            host_write.data.eq(self.host_data),
            host_read.addr.eq(Mux(call.host & valid, Cat(upper, number), self.host_word)),
            self.host_key.eq(host_read.data),
        ]

        # Searches: an LPM_TRIE's for the key with each length of the prefix that there is.
        searching, finds = Signal(), Signal()
        accesses = Signal()  # in this clock, if it is granted
        own_slot = call.cpu
        slot = Mux(step.bits == SCRATCH, cpus + 1, own_slot)
        has_lpm = MapType.LPM_TRIE in config.map_types
        lpm, latches, over = Signal(), Signal(), Signal()
        answer, answered = Signal.like(search.found, reset_less=True), Signal()  # a clock ago
        m.d.sync += [answer.eq(search.found), answered.eq(search.found.valid)]
        m.d.comb += [
            search.key.valid.eq(valid & makes_key),
            search.key.payload.slot.eq(slot),
            search.key.payload.number.eq(number),
            search.key.payload.data.eq(kept),
            search.read.slot.eq(own_slot),
            search.read.number.eq(number),
            search.find.slot.eq(slot),
            search.find.valid.eq(finds & ~lpm),
            latches.eq(answered),
            over.eq(search.found.valid),  # whoever waits for it goes on a clock later
            table.request.eq(accesses),
            table.address.eq(address[3:]),
        ]
        if has_lpm:
            m.submodules.prefixes = prefixes = LongestPrefix(config)
            m.d.comb += [
                lpm.eq(known(descriptor.type == MapType.LPM_TRIE)),
                prefixes.start.eq(finds & lpm),
                prefixes.slot.eq(own_slot),
                prefixes.longest.eq(call.operation.matches(TableOperation.LOOKUP.value, TableOperation.READ.value)),
                prefixes.descriptor.eq(descriptor),
                prefixes.read.grant.eq(search.read.grant),
                prefixes.read.word.eq(search.read.word),
                prefixes.key.ready.eq(search.key.ready),
                prefixes.found.eq(search.found),
                prefixes.grant.eq(table.grant & prefixes.busy),
                prefixes.came.eq(table.came & prefixes.busy),
                prefixes.word.eq(table.word),
                length.eq(prefixes.length),
                invalid.eq(prefixes.invalid & lpm),
                search.key.valid.eq((valid & makes_key) | prefixes.key.valid),  # never both
                table.request.eq(accesses | prefixes.request),
            ]
            with m.If(lpm):
                m.d.comb += [latches.eq(prefixes.takes), over.eq(prefixes.over)]
            with m.If(prefixes.busy):
                m.d.comb += [
                    search.read.request.eq(prefixes.read.request),
                    search.read.number.eq(prefixes.read.number),
                    search.key.payload.eq(prefixes.key.payload),
                    search.find.eq(prefixes.find),
                    table.address.eq(prefixes.address),
                ]
        with m.If(latches):
            m.d.sync += [
                found.eq(answer.found),
                place.eq(answer.place),
                link.eq(answer.link),
                bucket.eq(answer.bucket),
                tag.eq(answer.tag),
            ]
        with m.If(finds):
            m.d.sync += [searching.eq(1), found.eq(0)]
        with m.Elif(over):
            m.d.sync += searching.eq(0)

        # Conditions.
        mine = known(is_one_of(PER_CPU - {MapType.PERCPU_ARRAY}) & ~call.host)
        updates = known(call.operation == TableOperation.UPDATE.value)
        # An update of what only this CPU sees, or under the value's lock.
        m.d.comb += self.in_place.eq(updates & (mine | (call.locked & found)))
        conditions = {
            Condition.ALWAYS: 1,
            Condition.ZERO: last == 0,
            Condition.NEGATIVE: last[-1],
            Condition.FOUND: found,
            Condition.HOST: known(call.host),
            Condition.MINE: mine,
            Condition.CLAIMS: self.in_place,
            Condition.INVALID: invalid,
            Condition.LRU: known(is_one_of(LRU)),
            Condition.LPM: lpm,
            Condition.STACK: known(is_one_of(frozenset({MapType.STACK}))),
            Condition.POPS: known(call.operation == TableOperation.POP.value),
            Condition.ILLEGAL: known(call.illegal | (call.flags > UpdateFlag.EXIST)),
            Condition.NOEXIST: known(call.flags == UpdateFlag.NOEXIST),
            Condition.EXIST: known(call.flags == UpdateFlag.EXIST),
            Condition.WAITING: known(self.waiting),
        }
        holds = Array(conditions[condition] for condition in Condition)[step.left] ^ step.minus
        returns = [Signal(TARGET_BITS, name=f"return{i}", reset_less=True) for i in range(_CALLS)]
        last_word = Mux(step.register[2], number == _WORDS - 1, number == key_end[3:])

        # Map memory.
        key_granted, key_coming = Signal(), Signal(READ_LATENCY)
        left_words = Signal(range(4096 // 8 + 1), reset_less=True)  # to clear
        onward = Signal.like(address)
        m.d.comb += onward.eq(address + 8)
        m.d.sync += key_coming.eq(Cat(key_granted, key_coming))
        # What an access is, known when it is made. final: the instruction ends with its grant.
        of_key, clears, stores = (known(code == each) for each in (Code.KEY_TO_MEMORY, Code.CLEAR, Code.STORE))
        loads_place, scans, brings_key = (
            known(code == each) for each in (Code.LOAD_PLACE, Code.SCAN, Code.KEY_FROM_SLOT)
        )
        final = Signal(reset_less=True)
        value_words = known((descriptor.value_size + 7)[3:])
        half = Mux(address[2], 0b10, 0b01)
        # What is written is a key's word (of a short one twice the half that there is), a register, or zeroes.
        key_lanes, short_lanes = Signal(8, reset_less=True), Signal(4, reset_less=True)
        m.d.sync += [
            key_lanes.eq(Mux(code == Code.KEY_TO_MEMORY, Mux(short, keeps[:4], keeps), 0)),
            short_lanes.eq(Mux((code == Code.KEY_TO_MEMORY) & short, keeps[:4], 0)),
        ]
        m.d.comb += table.data.eq(
            (word & spread(m, key_lanes))
            | Cat(Const(0, 32), word[:32] & spread(m, short_lanes))
            | (left.data & stores.replicate(_WIDTH)).replicate(2)
        )
        with m.If(clears | (of_key & ~short)):
            m.d.comb += table.write.eq(0b11)
        with m.Elif(stores | of_key):
            m.d.comb += table.write.eq(half)
        here = table.word.word_select(address[2], 32)
        other = table.word.word_select(~address[2], 32)
        last_scanned = Signal(reset_less=True)  # it comes some clocks behind its address
        m.d.sync += last_scanned.eq(
            (onward[3 : exact_log2(_SCAN_BYTES)] == 0) | (onward[3:] == descriptor.links[3:])
        )

        hold = Signal()
        m.d.comb += search.hold.eq(hold)

        # What ends, and with which result, is known without the state.
        own_came = table.came & ~prefixes.busy if has_lpm else table.came
        scanned, scan_ends = table.word.any() | last_scanned, Signal()  # a clock later, for it is known late
        m.d.sync += scan_ends.eq(own_came & scans & scanned)
        brought, multiplied, waited = key_coming[-1], Signal(), Signal()  # waited: for whatever else
        settled = Signal()  # rows are as it has written them
        m.d.sync += settled.eq(~table.pending & ~accesses)
        m.d.comb += [
            finds.eq(valid & step.finds & settled),
            ends.eq(
                (valid & (step.at_once | finds))
                | (accesses & final & table.grant)
                | brought
                | (own_came & ~scans)
                | scan_ends
                | multiplied
                | waited
            ),
            writes.eq(
                (valid & (code == Code.COMPUTE))
                | (brought & step.register.any())
                | own_came  # of a scan each word
                | multiplied
            ),
        ]
        with m.If(brought):
            m.d.comb += result.eq(search.read.word)
            m.d.sync += word.eq(search.read.word)
        with m.If(own_came):
            m.d.comb += result.eq(Mux(loads_place, here[: tables.PLACE_BITS], here))
            m.d.sync += word.eq(Cat(here, other))
        with m.If(multiplied):
            m.d.comb += result.eq(product)
        m.d.sync += multiplied.eq(0)
        with m.If(valid & step.jumps):
            with m.Switch(step.register[:2]):
                with m.Case(Jump.REPEAT):
                    m.d.comb += jumps.eq(~last_word)
                    m.d.sync += number.eq(Mux(last_word, 0, number + 1))
                with m.Default():
                    m.d.comb += jumps.eq(holds)
            m.d.comb += target.eq(Mux(step.register[:2] == Jump.RETURN, returns[0], step.number))
            with m.If((step.register[:2] == Jump.RETURN) & holds):
                m.d.sync += Cat(*returns[:-1]).eq(Cat(*returns[1:]))
            with m.If((step.register[:2] == Jump.CALL) & holds):
                m.d.sync += Cat(*returns).eq(Cat(behind, *returns[:-1]))
        with m.FSM():
            with m.State("STEP"):
                m.d.sync += [
                    left_words.eq(value_words),
                    final.eq(
                        (code == Code.STORE)
                        | (code == Code.KEY_TO_MEMORY)
                        | ((code == Code.CLEAR) & (value_words == 1))
                    ),
                ]
                with m.If(valid & step.accesses):
                    m.d.sync += [
                        address.eq(total | Value.cast(step.bits) << 2),
                        left_at.eq(step.register),
                        accesses.eq(1),
                    ]
                    m.next = "ACCESS"
                with m.If(valid):
                    with m.Switch(code):
                        with m.Case(Code.MULTIPLY):
                            m.d.sync += factor.eq(total)
                            m.next = "MULTIPLY"
                        with m.Case(Code.AWAIT):
                            m.d.comb += waited.eq(~searching)
                        with m.Case(Code.KEY_FROM_SLOT):
                            m.d.comb += [search.read.request.eq(1), key_granted.eq(search.read.grant)]
                            with m.If(search.read.grant):
                                m.next = "COMES"
                        with m.Case(Code.KEY_FROM_HOST):
                            m.d.sync += [word.word_select(upper, 32).eq(host_read.data), upper.eq(~upper)]
                            m.d.comb += waited.eq(upper)
                        with m.Case(Code.KEY_TO_SLOT):
                            m.d.comb += waited.eq(search.key.ready)
                        with m.Case(Code.KEY_TO_HOST):
                            m.d.comb += [
                                host_write.en.eq(1),
                                host_write.addr.eq(Cat(upper, number)),
                                host_write.data.eq(kept.word_select(upper, 32)),
                                waited.eq(upper),
                            ]
                            m.d.sync += upper.eq(~upper)
                        with m.Case(Code.HOLD):
                            m.d.sync += hold.eq(1)
                            m.d.comb += waited.eq(hold & search.idle)
                        with m.Case(Code.DECIDE):
                            m.d.comb += self.decides.eq(1)
                        with m.Case(Code.CURSOR):
                            m.d.sync += self.cursor.eq(total)
                        with m.Case(Code.FINISH):
                            m.d.comb += self.decides.eq(step.register[exact_log2(DECIDES)])
                            m.d.sync += [
                                self.found.eq(step.register[exact_log2(FOUND)]),
                                self.again.eq(step.register[exact_log2(AGAIN)]),
                                self.status.eq(step.number[:6]),
                                self.value.eq(total),
                                Cat(valid, runs).eq(0),
                            ]
                            m.next = "DONE"

            with m.State("ACCESS"):
                with m.If(clears):
                    m.d.sync += final.eq(left_words == Mux(table.grant, 2, 1))
                with m.If(table.grant):
                    m.d.sync += left_words.eq(left_words - 1)
                    with m.If(clears):
                        m.d.sync += address.eq(onward)
                    with m.Elif(~final):
                        m.d.sync += accesses.eq(0)
                        m.next = "COMES"
                with m.If(ends):
                    m.d.sync += accesses.eq(0)
                    m.next = "STEP"
            with m.State("COMES"):
                with m.If(own_came & scans):  # where the scan ends with it, that is said in the next clock
                    m.d.sync += [scanned_at.eq(address), address.eq(onward), accesses.eq(~scanned)]
                    m.next = "ACCESS"
                with m.If(ends):
                    m.next = "STEP"
            with m.State("MULTIPLY"):
                m.d.sync += multiplied.eq(1)
                m.next = "COMES"
            with m.State("DONE"):
                m.d.comb += self.done.eq(settled)
                with m.If(self.done):
                    m.d.sync += hold.eq(0)
                with m.If(self.done & self.taken):
                    m.next = "STEP"
        return m
