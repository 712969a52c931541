"""Loads and stores on the core: what reaches a memory, and what does not. The windows are those of spec.addresses."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Elaboratable

from bpfnic.hdl.core.control import Control, Kind, Step
from bpfnic.hdl.interfaces import Region
from bpfnic.hdl.mapinterfaces import MapOperation
from bpfnic.spec import addresses, isa
from bpfnic.spec.causes import Cause
from bpfnic.spec.isa import Group, Operation
from bpfnic.spec.maps import LOCK_BYTES
from bpfnic.spec.programs import SK_BUFF_LIVE, SK_BUFF_READABLE, SK_BUFF_WRITABLE, WORD_BYTES
from tests.formal import rfc9669
from tests.formal.core import CONFIG, WRITE, Pass
from tests.formal.proof import Mutation, Proof

QUEUE = 16  # of rx_queue_index in struct xdp_md: the one word of it that a program may write


class _Accesses:
    """What the pass asked of its memories, and its packet's bounds."""

    def __init__(self, m: Module):
        self.this = this = Pass(m)
        core, requests = this.core, this.opened.part("requests")
        now = core.bounds.bounds
        m.d.comb += Assume((now.data_meta <= now.data) & (now.data <= now.data_end))  # interfaces.Bounds
        m.d.comb += Assume(now.data_end <= CONFIG.buffer_bytes)
        self.bounds = this.seen(8, now)
        self.local = {name: this.seen(11, getattr(core.local, name)) for name in
                      ("enable", "write", "region", "thread", "buffer", "offset", "even", "size", "lanes",
                       "write_data")}  # fmt: skip
        self.goes_to_map, self.shared = this.seen(11, requests.push_shared), this.seen(11, requests.shared)


def permitted(first, size, writes, privileged) -> Value:
    """Bytes of the skb context are all of words that may be read or written."""
    allowed = []
    for word in range(addresses.SKB_CONTEXT_BYTES // WORD_BYTES):
        at = word * WORD_BYTES
        touched = (first < at + WORD_BYTES) & (first + size > at)
        by_firmware = ~writes if word in SK_BUFF_LIVE else Const(1)
        by_program = Mux(writes, word in SK_BUFF_WRITABLE, word in SK_BUFF_READABLE)
        allowed.append(~touched | Mux(privileged, by_firmware, by_program))
    return Cat(allowed).all()


class ContainmentHarness(Elaboratable):
    """Any pass at all: of an instruction, of a helper, of half an access.

    A pass that goes on with an access, or with a copy, was left a length of 1 to 8 bytes, together with what has been
    done, by the one before. Only where a value's lock is all that is left of it are none left, and that is in map
    memory.
    """

    def elaborate(self, platform) -> Module:
        m = Module()
        accesses = _Accesses(m)
        this, local, shared, bounds = accesses.this, accesses.local, accesses.shared, accesses.bounds
        bytes_used = this.seen(8, this.opened.part("check").bytes)  # a copy's last word is read whole
        m.d.comb += Assume(~this.valid | (this.progress.skip + bytes_used <= 8))
        m.d.comb += Assume(~this.valid | (bytes_used > 0) | accesses.goes_to_map)
        end, size = local["offset"] + bytes_used, Signal(4)
        lanes = ((1 << size) - 1 << local["offset"][:3])[:16]  # interfaces.LocalPort
        m.d.comb += [size.eq(1 << local["size"]), Assert(~local["enable"] | (local["lanes"] == lanes))]
        m.d.comb += Assert(~local["enable"] | (local["even"] == (local["offset"] + 8)[4 : len(local["offset"])]))
        inside = Signal()
        with m.Switch(local["region"]):
            with m.Case(Region.STACK):
                privileged = this.progress.frame == addresses.FIRMWARE_FRAME
                m.d.comb += inside.eq(end <= Mux(privileged, addresses.STACK_WINDOW_BYTES, addresses.STACK_BYTES))
            with m.Case(Region.CONTEXT):
                queue = (local["offset"] == QUEUE) & (size == 4)
                m.d.comb += inside.eq((end <= addresses.CONTEXT_BYTES) & (~local["write"] | queue))
            with m.Case(Region.SKB):
                privileged = this.progress.frame == addresses.FIRMWARE_FRAME
                first = local["offset"] - addresses.STACK_BYTES
                words = permitted(first, size, local["write"], privileged)
                m.d.comb += inside.eq(
                    (local["offset"] >= addresses.STACK_BYTES) & (first + size <= addresses.SKB_CONTEXT_BYTES) & words
                )
            with m.Case(Region.PACKET):
                in_packet = (local["offset"] >= bounds.data_meta) & (end <= bounds.data_end)
                m.d.comb += inside.eq(in_packet & (local["buffer"] == bounds.buffer))
        # A copy is stored in pieces, which the stack takes aligned. Others' second halves go to map memory.
        copies = (this.progress.step == Step.STORE) | (this.progress.step == Step.STORE_PACKET)
        writes = local["enable"] & local["write"]
        skip = this.seen(11, this.threads.updated_progress).skip
        done = skip - this.progress.skip
        # A word of a copy that is whole: if a lock comes first in it, what is stored begins behind that.
        kind = this.seen(10, Control(this.opened.signal("control_10")).kind)
        whole = (kind == Kind.LOAD) & ~this.seen(10, this.opened.part("check").split)
        m.d.comb += [
            Assert(~local["enable"] | (inside & (local["thread"] == this.thread) & this.valid)),
            Assert(~(writes & ~copies & ~this.progress.skip.any()) | (size == bytes_used)),
            Assert(~(writes & copies) | (size == Mux(skip.any(), done[:4], bytes_used))),
            Assert(~(writes & copies & (local["region"] == Region.STACK)) | ~(local["offset"] & (size - 1)[:3]).any()),
            Assert(~this.valid | ~skip.any() | Mux(whole, skip == LOCK_BYTES, done[:4] < bytes_used)),
            Assert(~this.valid | this.ends | ~skip.any() | accesses.goes_to_map | (writes & copies) | whole),
            Assert(~accesses.goes_to_map | (shared.address + shared.bytes <= CONFIG.map_bytes)),
            Assert(~accesses.goes_to_map | (shared.address[:4] + shared.bytes <= addresses.ROW_BYTES)),
            Assert(~accesses.goes_to_map | (~local["enable"] & (shared.thread == this.thread) & this.valid)),
        ]
        return m


class MemoryHarness(Elaboratable):
    """Loads and stores of each size: address, window, alignment, and what is written where."""

    def __init__(self, *operations: Operation):
        self.rows = [row for row in isa.ROWS if row.operation in operations]

    def elaborate(self, platform) -> Module:
        m = Module()
        accesses = _Accesses(m)
        this, local, shared, bounds = accesses.this, accesses.local, accesses.shared, accesses.bounds
        instruction = this.instruction
        applies, loads, extends, strict, log2 = Signal(), Signal(), Signal(), Signal(), Signal(2)
        for row in self.rows:
            with m.If(rfc9669.legal(row, instruction)):
                m.d.comb += [
                    applies.eq(this.first),
                    loads.eq(row.operation in (Operation.LDX, Operation.LDXS, Operation.LOAD_ACQUIRE)),
                    strict.eq(row.group is Group.ACQUIRE_RELEASE),  # aligned in every window
                    extends.eq(row.operation is Operation.LDXS),
                    log2.eq({8: 0, 16: 1, 32: 2, 64: 3}[row.width]),
                ]
        size, address, value = Signal(4), Signal(64), Signal(64)
        immediate = Cat(instruction.imm, instruction.imm[-1].replicate(32))
        stores_immediate = instruction.opcode[:3] == isa.Class.ST
        m.d.comb += [
            size.eq(1 << log2),
            address.eq(Mux(loads, this.src, this.dst) + instruction.offset.as_signed()),
            value.eq(Mux(stores_immediate, immediate, this.src)),
        ]
        end = Signal(65)
        m.d.comb += end.eq(address + size)

        def within(first, behind) -> Value:
            return (address >= first) & (end <= behind)

        privileged = this.progress.frame == addresses.FIRMWARE_FRAME
        stack = within(addresses.STACK, Mux(privileged, addresses.FIRMWARE_STACK_TOP, addresses.STACK_TOP))
        context = within(addresses.CONTEXT, addresses.CONTEXT + addresses.CONTEXT_BYTES)
        aligned = ~(address[:3] & (size - 1)[:3]).any()
        packet = within(addresses.PACKET + bounds.data_meta, addresses.PACKET + bounds.data_end)
        maps = within(addresses.MAP_VALUES, addresses.MAP_VALUES + CONFIG.map_bytes)
        region, base = Signal(Region), Signal(64)
        m.d.comb += [region.eq(Region.PACKET), base.eq(addresses.PACKET)]
        with m.If(stack):
            m.d.comb += [region.eq(Region.STACK), base.eq(addresses.STACK)]
        with m.Elif(context):
            m.d.comb += [region.eq(Region.CONTEXT), base.eq(addresses.CONTEXT)]
        skb = within(addresses.SKB_CONTEXT, addresses.SKB_CONTEXT + addresses.SKB_CONTEXT_BYTES)
        with m.If(skb):
            m.d.comb += [region.eq(Region.SKB), base.eq(addresses.SKB_CONTEXT - addresses.STACK_BYTES)]
        queue = (address == addresses.CONTEXT + QUEUE) & (size == 4) & ~loads & ~strict
        readable = stack | (context & loads) | queue
        misaligned = (readable | skb | (strict & (packet | maps))) & ~aligned
        of_skb = skb & permitted((address - addresses.SKB_CONTEXT)[:8], size, ~loads, privileged)
        may = (readable | packet | of_skb) & ~misaligned
        maps = maps & ~misaligned
        cause = this.cause
        traps = this.ends & (cause == Mux(misaligned, Cause.MISALIGNED, Cause.MEMORY_ACCESS))
        crosses = address[:4] + size > addresses.ROW_BYTES
        first_bytes = Mux(crosses, addresses.ROW_BYTES - address[:4], size)

        kept = Signal(64)  # the bytes that count
        m.d.comb += kept.eq((1 << (size << 3)) - 1)
        read, sign = this.seen(14, this.core.local.read_data), Signal()
        m.d.comb += sign.eq(extends & (read & (kept ^ (kept >> 1))).any())
        loaded = (read & kept) | (sign.replicate(64) & ~kept)
        local_right = (
            local["enable"]
            & (local["write"] == ~loads)
            & (local["region"] == Value.cast(region))
            & (local["offset"] == (address - base)[:64])
            & (local["size"] == log2)
            & (loads | ~((local["write_data"] ^ value) & kept).any())
        )
        shared_right = (
            Mux(loads, shared.operation == MapOperation.LOAD, shared.operation == MapOperation.STORE)
            & (shared.address == (address - addresses.MAP_VALUES)[:64])
            & (shared.bytes == first_bytes)
            & ~shared.shift.any()
            & Mux(loads, ~shared.data.any(), ~((shared.data ^ value) & kept).any())
        )
        after = this.seen(11, this.threads.updated_progress)
        once_more = after.skip == first_bytes
        m.d.comb += [
            Assert(~applies | (local["enable"] == may)),
            Assert(~applies | (accesses.goes_to_map == maps)),
            Assert(~applies | may | maps | traps),
            Assert(~(applies & may) | local_right),
            Assert(~(applies & may) | (this.goes_to(1) & Mux(loads, this.writes(loaded), this.writes_nothing))),
            Assert(~(applies & maps) | (shared_right & this.writes_nothing)),
            Assert(~(applies & maps) | Mux(crosses, once_more & this.goes_on_at(0), this.goes_to(1))),
        ]
        return m


_ACCESS = "hdl/core/access.py"
PROOFS = [
    Proof(
        name="containment",
        of=("hdl/core/", "hdl/lanes.py"),
        says="whatever the pass: no address outside the stack (the firmware's in its frame alone), the contexts (of an "
        "skb's those words that the program, or the firmware, may have), the packet between its bounds or map memory "
        "reaches a memory; nothing writes an XDP program's context but "
        "rx_queue_index; a request to map memory stays in its row",
        harness=ContainmentHarness,
        mutations=(
            Mutation(_ACCESS, "(in_buffer <= highest)", "(in_buffer != highest)"),
            Mutation(_ACCESS, "within(base, size) & ~(beyond &", "within(base, size) & (beyond &"),
            Mutation(_ACCESS, "addresses.STACK_WINDOW_BYTES) & self.privileged", "addresses.STACK_WINDOW_BYTES)"),
            Mutation(_ACCESS, "self.privileged | everyone[0]", "self.privileged | 1"),
            Mutation(_ACCESS, "of_queue & stores", "fits(addresses.CONTEXT, addresses.CONTEXT_BYTES) & stores"),
            Mutation("hdl/lanes.py", "if lane <= each < lane", "if lane < each < lane"),
        ),
        clocks=WRITE + 1,
    ),
    Proof(
        name="loads",
        of=("hdl/core/",),
        says="LDX and LDXS of each size: from `src` + offset in 64 bits, wherever it may read and nowhere else, at any "
        "alignment that the window takes; sign extension; the first half of what crosses a row of map memory",
        harness=lambda: MemoryHarness(Operation.LDX, Operation.LDXS),
        mutations=(
            Mutation(_ACCESS, "(in_buffer >= lowest)", "(in_buffer > lowest)"),
            Mutation("hdl/core/alu.py", "size == 1, raw[15], raw[31]", "size == 1, raw[15], raw[30]"),
        ),
        clocks=WRITE + 1,
        quick=False,
    ),
    Proof(
        name="stores",
        of=("hdl/core/",),
        says="ST and STX of each size: the same",
        harness=lambda: MemoryHarness(Operation.ST, Operation.STX),
        mutations=(
            Mutation(_ACCESS, "misaligned_word & (stack | context | skb)", "misaligned_word & (context | skb)"),
        ),
        clocks=WRITE + 1,
        quick=False,
    ),
    Proof(
        name="acquire-release",
        of=("hdl/core/",),
        says="load-acquire and store-release of each size: the same, aligned in every window",
        harness=lambda: MemoryHarness(Operation.LOAD_ACQUIRE, Operation.STORE_RELEASE),
        mutations=(
            Mutation(_ACCESS, "misaligned & self.natural", "misaligned & ~self.natural"),
            Mutation(_ACCESS, "self.aligned & ~self.natural", "self.aligned"),
        ),
        clocks=WRITE + 1,
        quick=False,
    ),
]
