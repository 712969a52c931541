"""One requester's way through map memory: requests are put in place, answers are put right, atomics are computed.

    request ─▶ R (in place) ─ grant ─▶ bank ─ 2 clocks ─▶ A (row's 8 bytes) ─▶ queue ─▶ answer
                                ▲                          │
                                └──────── W ◀── atomic ◀───┘

Data travels "in place": byte i of a row in byte lane i % 8. A requester has one request a clock and every bank the same
latency, so that its answers come in the order of its requests and never two at once.
"""

from amaranth import Array, Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out, Signature
from amaranth.utils import exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.lanes import spread
from bpfnic.hdl.mapinterfaces import MapAnswer, MapOperation, MapRequest
from bpfnic.spec.addresses import ROW_BYTES

LANES = 8  # bytes of an access in place


def Access(config: NicConfig) -> data.StructLayout:
    """What a bank does for one access: `write` bytes of its row `row` (0: it only reads)."""
    return data.StructLayout(
        {
            "bank": exact_log2(config.map_banks),
            "row": range(config.map_bytes // ROW_BYTES // config.map_banks),
            "write": ROW_BYTES,
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
    """A MapRequest, whether it is the host's, and a bit for its bank."""
    return data.StructLayout({"host": 1, "bank": config.map_banks, "request": MapRequest(config)})


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
        a clock; the answer of an unhindered one appears 5 clocks after it.
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

        # R: the request in place.
        r = Signal(flight, reset_less=True)
        r_valid = Signal()
        request = self.request.payload.request
        operation, offset = request.operation, request.address[:4]
        load = operation == MapOperation.LOAD
        low = request.compare[:32]
        ones = Signal(LANES)
        m.d.comb += ones.eq((1 << request.bytes) - 1)
        bank_bits = exact_log2(config.map_banks)
        # Banks' bits, of what is there. `asks`: of R, where W doesn't have the way. The crossbar finds them in
        # registers.
        r_bank, w_bank, asks = (Signal(config.map_banks, name=name) for name in ("r_bank", "w_bank", "asks"))
        writes_back = Signal()  # W has the way in the next clock
        depth = config.threads
        places = Signal(range(depth + 1), init=depth)  # in the queue for answers, that no request has but the last one
        arrived, arrived_last, answered, granted = (Signal(name=name) for name in
                                                    ("arrived", "arrived_last", "answered", "granted"))  # fmt: skip
        with m.If(arrived_last & ~answered):
            m.d.sync += places.eq(places - 1)
        with m.Elif(~arrived_last & answered):
            m.d.sync += places.eq(places + 1)
        moves = ~r_valid | granted
        arriving = Mux(arrived, self.request.payload.bank, 0)
        m.d.comb += [
            self.request.ready.eq(moves & (places > arrived_last)),
            arrived.eq(self.request.valid & self.request.ready),
        ]
        m.d.sync += [arrived_last.eq(arrived), asks.eq(Mux(writes_back, 0, Mux(moves, arriving, r_bank)))]
        with m.If(moves):
            m.d.sync += [
                r_valid.eq(arrived),
                r_bank.eq(arriving),
                r.tag.eq(Cat(request.tag, self.request.payload.host)),
                r.operation.eq(operation),
                r.access.bank.eq(request.address[4 : 4 + bank_bits]),
                r.access.row.eq(request.address[4 + bank_bits :]),
                r.access.write.eq(ones << offset),
                # A load's data is a part of its answer, in the answer's place already.
                r.access.data.eq(_turn_up(request.data, Mux(load, 0, offset[:3]))),
                r.offset.eq(offset),
                r.rotate.eq(offset[:3] - request.shift),
                r.answered.eq(ones << request.shift),
                # Atomics are aligned: four bytes are in place in both halves.
                r.compare.eq(Cat(low, Mux(request.bytes[3], request.compare[32:], low))),
            ]

        # Grant: an atomic's write-back has the way for itself.
        w, w_valid = Signal(Access(config), reset_less=True), Signal()
        stores = r.operation == MapOperation.STORE
        m.d.comb += [
            self.access.request.eq(asks),
            self.access.atomic.eq((r.operation != MapOperation.LOAD) & ~stores),
            self.access.write_back.eq(w_bank),
            self.access.tag.eq(r.tag),
            self.access.access.eq(Mux(w_valid, w, r.access)),
            granted.eq(self.access.grant),
        ]
        with m.If(~w_valid & ~stores):
            m.d.comb += self.access.access.write.eq(0)

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
        m.submodules.queue = queue = SyncFIFO(width=Shape.cast(HostAnswer).width, depth=depth)
        m.d.comb += [
            queue.w_en.eq(a_valid),
            queue.w_data.eq(answer),
            self.answer.valid.eq(queue.r_rdy),
            self.answer.payload.eq(queue.r_data),
            queue.r_en.eq(self.answer.ready),
            answered.eq(self.answer.valid & self.answer.ready),
        ]

        # W: an atomic's new value goes back.
        low, high = a.access.write[0] | a.access.write[8], a.access.write[4] | a.access.write[12]
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
            w.data.eq(Mux(a.operation == MapOperation.ADD, total, logic)),
        ]
        with m.If((a.operation == MapOperation.CMPXCHG) & ~equal):
            m.d.sync += w.write.eq(0)
        return m
