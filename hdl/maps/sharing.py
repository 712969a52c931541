"""Way B to map memory has one port; several units use it.

    table unit, ring unit, emitter ─▶ (held) ─┐
                                     finder ──┴▶ RegisterSlice ─▶ map memory
"""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import TablePort, TurnPort, bank_bit
from bpfnic.hdl.memory import READ_LATENCY
from bpfnic.hdl.slice import RegisterSlice

WAY_LATENCY = READ_LATENCY + 1
"""Clocks from a grant of map memory to what was read."""


class Turns(Component):
    """Takes an access each clock, where there is room, which is known before anybody requests. The last user, which may
    request in every clock, but only reads, comes first; of the others the first that requests, whose access is `held`
    where it can't go on in that clock, and then comes before all.

    Members: users (TurnPort of each), table (mapinterfaces.TablePort).
    """

    def __init__(self, config: NicConfig, users: int):
        self.config = config
        super().__init__({"users": In(TurnPort(config)).array(users), "table": Out(TablePort(config))})

    def elaborate(self, platform) -> Module:
        m = Module()
        table, users = self.table, self.users
        *others, last = users
        fields = ("address", "write", "data")
        access = data.StructLayout(
            {name: len(getattr(table, name)) for name in fields} | {"bank": len(table.request), "user": len(users)}
        )
        m.submodules.way = way = RegisterSlice(access, self.config.slice_places)
        other, held = Signal(access), Signal(access, name="held", reset_less=True)
        asks, holds = Signal(), Signal(name="holds")
        for number, user in enumerate(others):
            m.d.comb += user.grant.eq(~holds & ~Cat(before.request for before in others[:number]).any())
        m.d.comb += asks.eq(Cat(user.request for user in others).any())
        for number in reversed(range(len(others))):
            with m.If(others[number].request if number < len(others) - 1 else Const(1)):
                m.d.comb += [other[name].eq(getattr(others[number], name)) for name in fields]
                m.d.comb += other.user.eq(1 << number)

        # What nobody asks for has no bank, so that a bank's bit is a request.
        m.d.comb += other.bank.eq(Mux(asks, bank_bit(self.config, other.address[1:]), 0))
        goes, moves = Signal(), Signal()
        m.d.comb += [
            goes.eq(last.request & ~holds),
            moves.eq(way.i.ready & ~goes),
            last.grant.eq(way.i.ready & ~holds),
            way.i.valid.eq(goes | holds | asks),
            way.i.payload.eq(Mux(holds, held, other)),
        ]
        with m.If(goes):  # data is nobody's
            m.d.comb += [way.i.payload.address.eq(last.address), way.i.payload.write.eq(0)]
            m.d.comb += way.i.payload.bank.eq(bank_bit(self.config, last.address[1:]))
            m.d.comb += way.i.payload.user.eq(1 << len(others))
        m.d.sync += holds.eq((holds | asks) & ~moves)
        with m.If(~holds):
            m.d.sync += held.eq(other)

        first = way.o.payload
        m.d.comb += [
            table.request.eq(first.bank),
            way.o.ready.eq(table.grant),
            *(getattr(table, name).eq(first[name]) for name in fields),
        ]
        coming = [Signal(len(users), name=f"coming{i}") for i in range(WAY_LATENCY)]
        reads = Mux(table.grant & ~first.write.any(), first.user, 0)
        m.d.sync += [after.eq(before) for after, before in zip(coming, [reads, *coming], strict=False)]
        places = (way.o.valid, first), (way.waits, way.second), (holds, held)
        for number, user in enumerate(users):
            m.d.comb += [
                user.coming.eq(coming[0][number]),
                user.came.eq(coming[-1][number]),
                user.word.eq(table.word),
                user.pending.eq(Cat(valid & payload.user[number] for valid, payload in places).any()),
            ]
        return m
