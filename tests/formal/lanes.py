"""Byte lanes: of a core's local memories, and of map memory."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Elaboratable
from amaranth.lib.data import View

from bpfnic.hdl.interfaces import Region
from bpfnic.hdl.mapinterfaces import MapOperation
from bpfnic.hdl.maps.requester import HostRequest, Requester
from bpfnic.hdl.packets.windows import Windows
from bpfnic.spec import addresses
from bpfnic.spec.addresses import ROW_BYTES
from bpfnic.spec.programs import SK_BUFF_HALVES, WORD_BYTES
from tests.formal.core import CONFIG
from tests.formal.opened import Opened, constant, free, later
from tests.formal.proof import Mutation, Proof

_SKB = addresses.STACK_BYTES
"""Where the skb context lies in a thread's local memory."""
_NOT_KEPT = sum(0b1100 << _SKB + WORD_BYTES * half for half in SK_BUFF_HALVES)
"""A bit for each byte of it that is not."""


class PacketLanesHarness(Elaboratable):
    """Loads and stores of 1, 2, 4 and 8 bytes at any offset of the packet buffer, byte by byte. The buffers answer with
    two neighbouring words, which the solver chooses."""

    def elaborate(self, platform) -> Module:
        m = Module()
        windows = Windows(CONFIG)
        m.submodules.windows = Opened(windows, inputs=True, without=("stack_even", "stack_odd"))
        local, pair = windows.local, windows.pair
        first, size = local.offset[:4], Signal(4)
        m.d.comb += size.eq(1 << local.size)
        packet = local.enable & (local.region == Region.PACKET)
        stores = packet & local.write
        m.d.comb += Assume(local.lanes == ((1 << size) - 1 << first[:3])[:16])  # interfaces.LocalPort
        m.d.comb += Assert((pair.word == local.offset[3:]) & (pair.buffer == local.buffer))
        m.d.comb += Assert(pair.even_row == local.even)
        for lane in range(16):  # of `word` and the next one
            covered, byte = Signal(name=f"covered_{lane}"), Signal(3, name=f"byte_{lane}")
            m.d.comb += [
                covered.eq((lane >= first[:3]) & (lane < first[:3] + size)),
                byte.eq(lane - first[:3]),
                Assert((pair.write & pair.mask[lane]) == (stores & covered)),
                Assert(
                    ~(stores & covered)
                    | (pair.data.word_select(lane % 8, 8) == local.write_data.word_select(byte, 8))
                ),
            ]
        loaded = later(m, packet & ~local.write, 3)
        first, size = later(m, first, 3), later(m, size, 3)
        even, odd = later(m, pair.even), later(m, pair.odd)  # they came 2 clocks after the request
        for byte in range(8):
            place = Signal(4, name=f"place_{byte}")  # bit 3: in which of the two words
            m.d.comb += place.eq(first + byte)
            found = Mux(place[3], odd.word_select(place[:3], 8), even.word_select(place[:3], 8))
            read = local.read_data.word_select(byte, 8)
            m.d.comb += Assert(~loaded | (read == Mux(byte < size, found, 0)))
        return m


class StackHarness(Elaboratable):
    """One byte of one thread's stack, whichever: what a program finds there is what it has stored there, or 0 if its
    packet has stored nothing. Behind the program's half it is the skb context too, where the upper bytes of some fields
    are not kept. The block RAMs hold what was written to them, an unwritten byte whatever the solver says;
    what a read says comes 2 clocks later (hdl/memory.py)."""

    def elaborate(self, platform) -> Module:
        m = Module()
        windows = Windows(CONFIG)
        m.submodules.windows = opened = Opened(windows, inputs=True, without=("stack_even", "stack_odd"))
        local, banks = windows.local, [opened.part("stack_even"), opened.part("stack_odd")]
        mine = constant(m, range(CONFIG.threads), "mine")
        place = constant(m, range(addresses.STACK_WINDOW_BYTES), "place")
        size, behind = Signal(4), Signal(range(CONFIG.buffer_bytes + 8))
        in_skb = local.region == Region.SKB
        uses = local.enable & ((local.region == Region.STACK) | in_skb)
        touches = uses & (local.thread == mine)
        launched = windows.launch.enable & (windows.launch.thread == mine)
        m.d.comb += [
            size.eq(1 << local.size),
            behind.eq(local.offset + size),
            # interfaces.LocalPort
            Assume(local.lanes == ((1 << size) - 1 << local.offset[:3])[:16]),
            Assume(local.even == (local.offset + 8)[4 : len(local.offset)]),
            Assume(~uses | (behind <= addresses.STACK_WINDOW_BYTES)),
            Assume(~(uses & in_skb) | ((local.offset >= _SKB) & (behind <= _SKB + addresses.SKB_CONTEXT_BYTES))),
            Assume(~(uses & local.write) | ~(local.offset[:3] & (size - 1)[:3]).any()),
            Assume(~(launched & touches)),  # a launch is before the thread's first access
            Assume(~(later(m, touches) | later(m, touches, 2)) | ~(launched | touches)),  # interfaces.LocalPort
        ]
        covers = touches & (local.offset <= place) & (place < behind)
        stored = Signal(3)
        m.d.comb += stored.eq(place - local.offset)

        value = Signal(8)  # what the program sees there
        of_skb = (place >= _SKB) & (place < _SKB + addresses.SKB_CONTEXT_BYTES)
        with m.If(launched & ~(windows.keeps & of_skb)):
            m.d.sync += value.eq(0)
        # The banks are written 2 clocks after the request.
        writes = later(m, covers & local.write & ~(in_skb & (Const(_NOT_KEPT) >> place)[0]), 2)
        byte = later(m, local.write_data.word_select(stored, 8), 2)
        with m.If(writes):
            m.d.sync += value.eq(byte)

        held, row, lane = Signal(8), Cat(place[4:], mine), place[:3]  # what the block RAM holds there
        first = free(m, 8, "first")
        started = Signal()
        m.d.sync += started.eq(1)
        kept = Signal(8)
        m.d.comb += kept.eq(Mux(started, held, first))
        m.d.sync += held.eq(kept)
        for odd, bank in enumerate(banks):
            stores = bank.write.enable & (bank.write.address == row) & bank.write.lanes.bit_select(lane, 1)
            with m.If((place[3] == odd) & stores):
                m.d.sync += held.eq(bank.write.data.word_select(lane, 8))
            asked = later(m, (place[3] == odd) & (bank.read.address == row), 2)
            m.d.comb += Assume(~asked | (bank.read.data.word_select(lane, 8) == later(m, kept, 2)))

        upper, row_of_half = place[-1], place[4:-1]
        for odd, name in enumerate(("even", "odd")):
            look, launched, reached = (
                opened.part(f"{part}_{name}").read_port(domain="comb") for part in ("written", "launched", "reached")
            )
            m.d.comb += [port.addr.eq(mine) for port in (look, launched, reached)]
            fresh = launched.data ^ reached.data  # of the lower half, the upper one, the skb context
            stale = Mux(of_skb, fresh[2], fresh.bit_select(upper, 1))
            written = ~stale & look.data.bit_select(Cat(row_of_half, upper), 1)
            m.d.comb += Assert((place[3] != odd) | Mux(written, kept == value, value == 0))

        found = later(m, covers & ~local.write & ~in_skb, 3)  # in an skb context live fields join it
        read = local.read_data.word_select(later(m, stored, 3), 8)
        m.d.comb += Assert(~found | (read == later(m, value, 3)))
        return m


class MapLanesHarness(Elaboratable):
    """A request to map memory, byte by byte: mapinterfaces.MapRequest says what it may be. The crossbar grants when the
    solver says, and rows hold what it says."""

    def elaborate(self, platform) -> Module:
        m = Module()
        requester = Requester(CONFIG)
        m.submodules.requester = opened = Opened(requester, inputs=True)
        access, request = requester.access, requester.request.payload.request
        bank_bits = len(access.access.bank)
        m.d.comb += [Assume(self._legal(request)), Assume(~access.grant | access.request.any())]
        # What came in, what waits for its grant, and what waits behind that.
        entered, taken, behind = (Signal(request.shape().size, name=name) for name in ("entered", "taken", "behind"))
        granted, next_one = View(request.shape(), taken), View(request.shape(), behind)
        way = opened.part("slice")
        waits, waits_behind = way.o.valid, way.waits
        (bank, held), (bank_behind, held_behind) = (
            (each.bank, each.flight) for each in (way.o.payload, way.second)
        )
        came, leaves = opened.signal("e_valid"), ~waits | access.grant
        with m.If(requester.request.valid & requester.request.ready):
            m.d.sync += entered.eq(request)
        with m.If(~waits_behind):
            m.d.sync += behind.eq(entered)
        with m.If(leaves):
            m.d.sync += taken.eq(Mux(waits_behind, behind, entered))
        right_place = Cat(access.access.bank, access.access.row) == granted.address[4:]
        m.d.comb += Assert(~access.grant | right_place)
        stores = access.grant & (granted.operation == MapOperation.STORE)
        for lane in range(ROW_BYTES):
            covered, byte = Signal(name=f"covered_{lane}"), Signal(3, name=f"byte_{lane}")
            m.d.comb += [
                covered.eq((lane >= granted.address[:4]) & (lane < granted.address[:4] + granted.bytes)),
                byte.eq(lane - granted.address[:4]),
                Assert(~access.grant | ((access.access.writes & access.access.lanes[lane]) == (stores & covered))),
            ]
            found = access.access.data.word_select(lane % 8, 8)
            m.d.comb += Assert(~(stores & covered) | (found == granted.data.word_select(byte, 8)))

        # What makes it inductive: what waits is what was taken, in place.
        self._in_place(m, "first", waits, held, granted)
        self._in_place(m, "second", waits_behind, held_behind, next_one)
        bank_of_entered = View(request.shape(), entered).address[4 : 4 + bank_bits]
        m.d.comb += [
            Assert((access.request == 0) | waits),
            Assert(~waits_behind | waits),
            Assert(~came | (View(HostRequest(CONFIG), opened.signal("e")).request.as_value() == entered)),
            Assert(~came | self._legal(View(request.shape(), entered))),
            Assert(~came | (opened.signal("e_bank") == 1 << bank_of_entered)),
            Assert(~waits_behind | (bank_behind == 1 << held_behind.access.bank)),
            Assert(~waits | (bank == 1 << held.access.bank)),
            Assert((access.request == 0) | (access.request == bank)),
        ]

        # Three clocks after its grant, one after its row was there, it is answered.
        answers, queue = later(m, access.grant, 3), opened.part("queue")
        done = View(request.shape(), later(m, taken, 3))
        row = later(m, Value.cast(access.rows)).word_select(done.address[4:][:bank_bits], 8 * ROW_BYTES)
        m.d.comb += Assert(queue.push == answers)
        stored = done.operation == MapOperation.STORE
        for byte in range(8):
            inside, position = Signal(name=f"inside_{byte}"), Signal(4, name=f"position_{byte}")
            m.d.comb += [
                inside.eq((byte >= done.shift) & (byte < done.shift + done.bytes) & ~stored),
                position.eq(done.address[:4] + byte - done.shift),
            ]
            own = Mux(done.operation == MapOperation.LOAD, done.data.word_select(byte, 8), 0)
            wanted = Mux(inside, row.word_select(position, 8), 0) | own
            m.d.comb += Assert(~answers | (Value.cast(queue.entry)[9 + 8 * byte :][:8] == wanted))
        return m

    def _in_place(self, m: Module, name: str, waits: Value, held, taken) -> None:
        """Where it `waits`, the Flight `held` is the request `taken`."""
        ones, in_place = Signal(8, name=f"ones_{name}"), Signal(64, name=f"in_place_{name}")
        m.d.comb += ones.eq((1 << taken.bytes) - 1)
        loads = taken.operation == MapOperation.LOAD
        for lane in range(8):
            source = Signal(3, name=f"source_{name}_{lane}")
            m.d.comb += [
                source.eq(Mux(loads, lane, lane - taken.address[:3])),
                in_place.word_select(lane, 8).eq(taken.data.word_select(source, 8)),
            ]
        m.d.comb += [
            Assert(~waits | right)
            for right in (
                self._legal(taken),
                Value.cast(held.operation) == Value.cast(taken.operation),
                held.offset == taken.address[:4],
                held.rotate == (taken.address[:3] - taken.shift)[:3],
                held.answered == (ones << taken.shift)[:8],
                Cat(held.access.bank, held.access.row) == taken.address[4:],
                held.access.writes == (taken.operation == MapOperation.STORE),
                held.access.lanes == (ones << taken.address[:4])[:16],
                held.access.data == in_place,
            )
        ]

    def _legal(self, request) -> Value:
        operation = Value.cast(request.operation)
        load, store = (operation == each.value for each in (MapOperation.LOAD, MapOperation.STORE))
        aligned4, aligned8 = ~request.address[:2].any(), ~request.address[:3].any()
        return (
            (request.bytes > 0)
            & (request.bytes <= 8)
            & (request.address[:4] + request.bytes <= ROW_BYTES)
            & Mux(load, request.shift + request.bytes <= 8, ~request.shift.any())
            & (load | store | ((request.bytes == 4) & aligned4) | ((request.bytes == 8) & aligned8))
            & (operation <= MapOperation.CMPXCHG.value)
        )


_WINDOWS = "hdl/packets/windows.py"
PROOFS = [
    Proof(
        name="packet-lanes",
        of=(_WINDOWS, "hdl/lanes.py"),
        says="a load or store of the packet, of any size at any offset, takes or leaves each byte where it belongs; "
        "nothing else writes there",
        harness=PacketLanesHarness,
        mutations=(
            Mutation(_WINDOWS, "rotate_up(m, joined, (-lane)[:3])", "rotate_up(m, joined, (~lane)[:3])"),
            Mutation("hdl/lanes.py", "word.rotate_left(8 << level)", "word.rotate_right(8 << level)"),
        ),
        clocks=5,
    ),
    Proof(
        name="stack",
        of=(_WINDOWS, "hdl/lanes.py"),
        says="a byte of the stack reads as what its program stored there, at any offset and size, and as 0 before; no "
        "other thread and no earlier packet shows",
        harness=StackHarness,
        mutations=(
            Mutation(_WINDOWS, "Mux(known, lanes, 0xFF)", "Mux(known, lanes, lanes)"),
            Mutation(_WINDOWS, "stale[1].replicate(half_rows - skb_rows)", "Const(0, half_rows - skb_rows)"),
            Mutation(_WINDOWS, "stale_skb.replicate(skb_rows)", "Const(0, skb_rows)"),
            Mutation(_WINDOWS, "stale_skb.replicate(skb_rows)", "stale[1].replicate(skb_rows)"),
            Mutation(_WINDOWS, "Cat(~upper_then, upper_then, upper_then), 0)", "Cat(upper_then, upper_then, 0), 0)"),
        ),
        clocks=8,
        quick=False,
    ),
    Proof(
        name="map-lanes",
        of=("hdl/maps/requester.py",),
        says="a load or store in a row of map memory takes or leaves each byte where it belongs; each grant is "
        "answered once, atomics with the old value",
        harness=MapLanesHarness,
        mutations=(Mutation("hdl/maps/requester.py", "offset[:3] - request.shift", "offset[:3] + request.shift"),),
        clocks=6,
        quick=False,
    ),
]
