"""One requester's way through map memory: requests are put in place, answers are put right, atomics are computed.

    request ─▶ E ─▶ R (in place; the next one in S) ─ grant ─▶ bank ─ 2 clocks ─▶ A (row's 8 bytes) ─▶ queue ─▶ answer
                                                        ▲                          │
                                                        └──────── W ◀── atomic ◀───┘

Data travels "in place": byte i of a row in byte lane i % 8. A requester has one request a clock and every bank the same
latency, so that its answers come in the order of its requests and never two at once.
"""

from amaranth import Array, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped
from amaranth.utils import exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.lanes import spread
from bpfnic.hdl.mapinterfaces import MapAnswer, MapOperation, MapRequest, bank_bit
from bpfnic.hdl.queue import Queue
from bpfnic.hdl.slice import RegisterSlice
from bpfnic.spec.addresses import ROW_BYTES

LANES = 8  # bytes of an access in place


def Access(config: NicConfig) -> data.StructLayout:
    """What a bank does for one access: it reads row `row`, or, where it `writes`, writes the bytes `lanes` of it. Of an
    access that only reads `lanes` are those that it touches."""
    return data.StructLayout(
        {
            "bank": exact_log2(config.map_banks),
            "row": range(config.map_bytes // ROW_BYTES // config.map_banks),
            "writes": 1,
            "lanes": ROW_BYTES,
            "data": 64,
        }
    )


def AccessPort(config: NicConfig) -> Signature:
    """Requester -> crossbar. `request`, a bit for the bank that it wants, waits for `grant` (same clock). `atomic`: the
    bank is held for its write-back, which comes 4 clocks after the grant as `write_back`, its bank's bit, and is never
    refused. `tag` belongs to the request, the host's
    bit on top. `rows`: what each bank reads, 2 clocks after the grant."""
    return Signature(
        {
            "request": Out(config.map_banks),
            "atomic": Out(1),
            "write_back": Out(config.map_banks),
            "access": Out(Access(config)),
            "tag": Out(9),
            "grant": In(1),
            "rows": In(data.ArrayLayout(8 * ROW_BYTES, config.map_banks)),
        }
    )


def HostRequest(config: NicConfig) -> data.StructLayout:
    """A MapRequest, and whether it is the host's."""
    return data.StructLayout({"host": 1, "request": MapRequest(config)})


HostAnswer = data.StructLayout({"host": 1, "answer": MapAnswer})


def Flight(config: NicConfig) -> data.StructLayout:
    """An access, and what its answer needs besides. tag: with the host's bit. offset: in the row. rotate: bytes by
    which the answer in place goes down. answered: bytes of the answer that come from memory; of a store none do.
    compare: in place."""
    return data.StructLayout(
        {
            "tag": 9,
            "operation": MapOperation,
            "access": Access(config),
            "offset": 4,
            "rotate": 3,
            "answered": LANES,
            "compare": 64,
        }
    )


def _turn_up(value: Value, amount: Value) -> Value:
    """Rotates 8 bytes by `amount` (0 to 7) toward the higher ones."""
    for i in range(3):
        value = Mux(amount[i], value.rotate_left(8 << i), value)
    return value


class Requester(Component):
    """One requester's way through map memory.

    Members
    -------
    request, answer : streams of MapRequest and MapAnswer, each with a bit that comes back with the answer. One request
        a clock; the answer of an unhindered one appears 6 clocks after it.
    access : AccessPort to the crossbar.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "request": In(stream.Signature(HostRequest(config))),
                "answer": Out(stream.Signature(HostAnswer)),
                "access": Out(AccessPort(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        flight = Flight(config)

        # Banks' bits, of what is there. `asks`: of R, where W doesn't have the way. The crossbar finds them in
        # registers.
        e_bank, w_bank, asks = (Signal(config.map_banks, name=name) for name in ("e_bank", "w_bank", "asks"))

        # E: the request as it came.
        bank_bits = exact_log2(config.map_banks)
        e, e_valid = Signal(HostRequest(config), name="e", reset_less=True), Signal(name="e_valid")
        came = self.request.payload
        takes = Signal()
        m.d.comb += self.request.ready.eq(~e_valid | takes)
        with m.If(self.request.ready):
            m.d.sync += [e.eq(came), e_valid.eq(self.request.valid)]
            m.d.sync += e_bank.eq(bank_bit(config, came.request.address[4:]))

        # R: in place; with a second place no more than that hangs on a grant, which is known late.
        here = data.StructLayout({"bank": config.map_banks, "flight": flight})
        m.submodules.slice = waiting = RegisterSlice(here, config.slice_places)
        coming, r = waiting.i.payload.flight, waiting.o.payload.flight
        request = e.request
        operation, offset = request.operation, request.address[:4]
        load = operation == MapOperation.LOAD
        low = request.compare[:32]
        ones = Signal(LANES)
        m.d.comb += ones.eq((1 << request.bytes) - 1)
        writes_back = Signal()  # W has the way in the next clock
        depth = config.threads
        places = Signal(range(depth + 1), init=depth)  # in the queue for answers, that no request has but the last one
        room = Signal(init=1)  # there is a place, whatever came in this clock and the one before
        arrived, arrived_last, answered, granted = (Signal(name=name) for name in
                                                    ("arrived", "arrived_last", "answered", "granted"))  # fmt: skip
        with m.If(arrived_last & ~answered):
            m.d.sync += places.eq(places - 1)
        with m.Elif(~arrived_last & answered):
            m.d.sync += places.eq(places + 1)
        m.d.sync += room.eq(places > 2)
        m.d.comb += [
            takes.eq(waiting.i.ready & room),
            arrived.eq(e_valid & takes),
            waiting.i.valid.eq(e_valid & room),
            waiting.i.payload.bank.eq(e_bank),
            waiting.o.ready.eq(granted),
            coming.tag.eq(Cat(request.tag, e.host)),
            coming.operation.eq(operation),
            coming.access.bank.eq(request.address[4 : 4 + bank_bits]),
            coming.access.row.eq(request.address[4 + bank_bits :]),
            coming.access.writes.eq(operation == MapOperation.STORE),
            coming.access.lanes.eq(ones << offset),
            # A load's data is a part of its answer, in the answer's place already.
            coming.access.data.eq(_turn_up(request.data, Mux(load, 0, offset[:3]))),
            coming.offset.eq(offset),
            coming.rotate.eq(offset[:3] - request.shift),
            coming.answered.eq(ones << request.shift),
            # Atomics are aligned: four bytes are in place in both halves.
            coming.compare.eq(Cat(low, Mux(request.bytes[3], request.compare[32:], low))),
        ]
        next_bank = Mux(waiting.waits, waiting.second.bank, Mux(arrived, e_bank, 0))
        bank = Mux(waiting.o.valid & ~granted, waiting.o.payload.bank, next_bank)
        m.d.sync += [arrived_last.eq(arrived), asks.eq(Mux(writes_back, 0, bank))]

        # Grant: an atomic's write-back has the way for itself.
        w, w_valid = Signal(Access(config), reset_less=True), Signal()
        m.d.comb += [
            self.access.request.eq(asks),
            self.access.atomic.eq((r.operation != MapOperation.LOAD) & ~r.access.writes),
            self.access.write_back.eq(w_bank),
            self.access.tag.eq(r.tag),
            self.access.access.eq(Mux(w_valid, w, r.access)),
            granted.eq(self.access.grant),
        ]

        # Array, output register.
        p1, p1_valid = Signal(flight, reset_less=True), Signal()
        p2, p2_valid = Signal(flight, reset_less=True), Signal()
        m.d.sync += [p1_valid.eq(granted), p1.eq(r), p2_valid.eq(p1_valid), p2.eq(p1)]

        # A: the 8 byte lanes that the access touches, of either half of the row.
        a, a_valid, old = Signal(flight, reset_less=True), Signal(), Signal(64, reset_less=True)
        row = Array(self.access.rows)[p2.access.bank] if config.map_banks > 1 else self.access.rows[0]
        m.d.sync += [a_valid.eq(p2_valid), a.eq(p2)]
        with m.If(p2.operation == MapOperation.STORE):
            m.d.sync += a.answered.eq(0)
        for lane in range(LANES):
            upper = p2.offset[3] | (p2.offset[:3] > lane)
            m.d.sync += old[8 * lane :][:8].eq(Mux(upper, row[64 + 8 * lane :][:8], row[8 * lane :][:8]))

        # Answer: right-aligned, then up by `shift`; the other bytes are a load's own.
        answer = Signal(HostAnswer)
        right = _turn_up(old, -a.rotate)
        memory_bits = spread(m, a.answered)
        own_bits = (a.operation == MapOperation.LOAD).replicate(64)
        m.d.comb += [
            Cat(answer.answer.tag, answer.host).eq(a.tag),
            answer.answer.data.eq((right & memory_bits) | (a.access.data & own_bits)),
        ]
        m.submodules.queue = queue = Queue(HostAnswer, depth)
        m.d.comb += [
            queue.push.eq(a_valid),
            queue.entry.eq(answer),
            answered.eq(self.answer.valid & self.answer.ready),
        ]
        connect(m, queue.pop, flipped(self.answer))

        # W: an atomic's new value goes back.
        lanes = a.access.lanes
        low, high = lanes[0] | lanes[8], lanes[4] | lanes[12]
        equal = (~low | (old[:32] == a.compare[:32])) & (~high | (old[32:] == a.compare[32:]))
        low_sum = Signal(33)
        m.d.comb += low_sum.eq(old[:32] + a.access.data[:32])
        carry = low_sum[32] & low & high  # not from the half beside it
        logic = Signal(64)
        with m.Switch(a.operation):
            with m.Case(MapOperation.OR):
                m.d.comb += logic.eq(old | a.access.data)
            with m.Case(MapOperation.AND):
                m.d.comb += logic.eq(old & a.access.data)
            with m.Case(MapOperation.XOR):
                m.d.comb += logic.eq(old ^ a.access.data)
            with m.Default():
                m.d.comb += logic.eq(a.access.data)
        changes = (a.operation != MapOperation.LOAD) & (a.operation != MapOperation.STORE)
        total = Cat(low_sum[:32], old[32:] + a.access.data[32:] + carry)
        m.d.comb += writes_back.eq(a_valid & changes)
        m.d.sync += [
            w_valid.eq(writes_back),
            w_bank.eq(Mux(writes_back, 1 << a.access.bank, 0)),
            w.eq(a.access),
            w.writes.eq(1),
            w.data.eq(Mux(a.operation == MapOperation.ADD, total, logic)),
        ]
        with m.If((a.operation == MapOperation.CMPXCHG) & ~equal):
            m.d.sync += w.writes.eq(0)
        return m
