"""Map memory: banks of 16-byte rows behind a crossbar."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib.wiring import Component
from amaranth.utils import exact_log2

from bpfnic.hdl.arbiter import RoundRobin
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import MapMemoryPorts
from bpfnic.hdl.maps.requester import Requester
from bpfnic.hdl.memory import READ_LATENCY, SimpleRam
from bpfnic.spec.addresses import ROW_BYTES


class MapMemory(Component):
    """Row r lies in bank r mod banks. A bank takes an access each clock; from an atomic it takes the next one 5 clocks
    later, when the new value is written.

    Members: interfaces.MapMemoryPorts. Each core has a way of its own to all banks, a request a clock, and the map
    engine has two, one for 8 bytes of its tables and one that reads whole rows, which take turns with the cores as one.
    The host's requests go in front of core 0's on that way, so it should have few (control has one under way at most)
    and take its answers at once. Requests of one way are granted in their order. An unhindered answer comes 6 clocks
    after its request. A grant shows on shared_trace in its clock, which is also the clock of the access: what it
    writes, every later grant reads.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(MapMemoryPorts(config))

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        ways = [Requester(config) for _ in range(config.cores)]
        for i, way in enumerate(ways):
            m.submodules[f"requester{i}"], port = way, self.port[i]
            m.d.comb += [
                way.request.valid.eq(port.request.valid),
                way.request.payload.request.eq(port.request.payload),
                port.request.ready.eq(way.request.ready),
                port.answer.valid.eq(way.answer.valid & ~way.answer.payload.host),
                port.answer.payload.eq(way.answer.payload.answer),
                way.answer.ready.eq(port.answer.ready),
            ]

        host, way = self.port[config.cores], ways[0]
        m.d.comb += [
            host.request.ready.eq(way.request.ready),
            host.answer.valid.eq(way.answer.valid & way.answer.payload.host),
            host.answer.payload.eq(way.answer.payload.answer),
        ]
        with m.If(host.request.valid):
            m.d.comb += [
                way.request.valid.eq(1),
                way.request.payload.request.eq(host.request.payload),
                way.request.payload.host.eq(1),
                self.port[0].request.ready.eq(0),
            ]
        with m.If(way.answer.payload.host):
            m.d.comb += way.answer.ready.eq(host.answer.ready)

        # The engine's 8 bytes: in place like others', a row's half chosen here on their way back.
        table, bank_bits = self.table, exact_log2(config.map_banks)
        halves = Cat(half.replicate(4) for half in table.write)
        table_write = Mux(table.address[0], halves << 8, halves)
        asked = [Signal(1 + bank_bits, name=f"table_place{i}", reset_less=True) for i in range(READ_LATENCY)]
        m.d.sync += [after.eq(before) for after, before in zip(asked, [table.address, *asked], strict=False)]
        read = []  # of each bank

        # And its rows.
        rows = self.rows
        row_bank = [Signal(bank_bits, name=f"row_bank{i}", reset_less=True) for i in range(READ_LATENCY)]
        row_at = [rows.row[:bank_bits], *row_bank]
        m.d.sync += [after.eq(before) for after, before in zip(row_bank, row_at, strict=False)]

        grants = []
        for b in range(config.map_banks):
            m.submodules[f"bank{b}"] = bank = SimpleRam(
                width=8 * ROW_BYTES,
                depth=config.map_bytes // ROW_BYTES // config.map_banks,
                lane=8,
                target=config.target,
            )
            m.submodules[f"arbiter{b}"] = arbiter = RoundRobin(config.cores + 1)
            held = Signal(name=f"held{b}")
            writes = Signal(config.cores + 1, name=f"writes{b}")
            m.d.comb += bank.write.enable.eq(writes.any())
            for i, way in enumerate(ways):
                access, write_back = way.access.access, way.access.write_back[b]
                m.d.comb += arbiter.requests[i].eq(way.access.request[b] & ~held)
                chosen = arbiter.grant[i] | write_back
                m.d.comb += writes[i].eq(chosen & access.writes)
                with m.If(chosen if i else Const(1)):  # what nobody chose may be read, but not written
                    m.d.comb += [
                        bank.read.address.eq(access.row),
                        bank.write.lanes.eq(access.lanes),
                        bank.write.data.eq(access.data.replicate(2)),
                    ]
                trace = self.shared_trace[b]
                with m.If(chosen):
                    m.d.comb += [
                        trace.write.eq(Mux(access.writes, access.lanes, 0)),
                        trace.row.eq(access.row),
                        trace.data.eq(access.data),
                    ]
                m.d.comb += way.access.rows[b].eq(bank.read.data)
                with m.If(arbiter.grant[i] & way.access.atomic):
                    m.d.sync += held.eq(1)
                with m.If(write_back):
                    m.d.sync += held.eq(0)
                with m.If(arbiter.grant[i]):
                    m.d.comb += [
                        trace.valid.eq(1),
                        trace.requester.eq(Mux(way.access.tag[8], config.cores, i)),
                        trace.tag.eq(way.access.tag[:8]),
                    ]
            # Rows give way to words: a search reads one row and up to eight words.
            word_granted, row_granted = Signal(name=f"word_granted{b}"), Signal(name=f"row_granted{b}")
            m.d.comb += [
                arbiter.requests[-1].eq((table.request[b] | rows.request[b]) & ~held),
                word_granted.eq(arbiter.grant[-1] & table.request[b]),
                row_granted.eq(arbiter.grant[-1] & ~table.request[b]),
            ]
            grants.append(Cat(arbiter.grant[:-1], word_granted, row_granted))
            m.d.comb += writes[-1].eq(word_granted & table.write.any())
            with m.If(word_granted):
                m.d.comb += [
                    bank.read.address.eq(table.address[1 + bank_bits :]),
                    bank.write.lanes.eq(table_write),
                    bank.write.data.eq(table.data.replicate(2)),
                ]
            with m.If(row_granted):
                m.d.comb += bank.read.address.eq(rows.row[bank_bits:])
            m.d.comb += bank.write.address.eq(bank.read.address)
            read.append(bank.read.data)
        for i, way in enumerate(ways):
            m.d.comb += way.access.grant.eq(Cat(grant[i] for grant in grants).any())
        row = Array(read)[asked[-1][1:]] if bank_bits else read[0]
        m.d.sync += [
            table.word.eq(row.word_select(asked[-1][0], 64)),
            rows.data.eq(Array(read)[row_bank[-1]] if bank_bits else read[0]),
        ]
        m.d.comb += [
            table.grant.eq(Cat(grant[-2] for grant in grants).any()),
            rows.grant.eq(Cat(grant[-1] for grant in grants).any()),
        ]
        return m
