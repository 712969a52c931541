"""Way B to map memory has one port; several units use it."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.mapinterfaces import TablePort, TurnPort
from bpfnic.hdl.memory import READ_LATENCY

WAY_LATENCY = READ_LATENCY + 1
"""Clocks from a grant of map memory to what was read."""


class Turns(Component):
    """Takes an access each clock. It waits in a register until map memory grants it, and the next one in another:
    whether there is room is known before anybody requests. The last user, which may request in every clock, comes
    first, but in a clock after one in which another one was refused; of the others the first that requests.

    Members: users (TurnPort of each), table (mapinterfaces.TablePort).
    """

    def __init__(self, config: NicConfig, users: int):
        super().__init__({"users": In(TurnPort(config)).array(users), "table": Out(TablePort(config))})

    def elaborate(self, platform) -> Module:
        m = Module()
        table, users = self.table, self.users
        *others, last = users
        fields = ("address", "write", "data")
        access = data.StructLayout({name: len(getattr(table, name)) for name in fields} | {"user": len(users)})
        asked = Signal(access)  # user: a bit of each; 0: there is none
        first = Signal(access)
        second = Signal(access)
        waits, yields = second.user.any(), Signal()
        goes = last.request & ~yields
        m.d.comb += [
            last.grant.eq(~waits & ~yields),
            asked.user.eq(Cat(user.request & user.grant for user in users)),
        ]
        for number, user in enumerate(others):
            m.d.comb += user.grant.eq(~waits & ~goes & ~Cat(before.request for before in others[:number]).any())
        m.d.sync += yields.eq(Cat(user.request & ~user.grant for user in others).any())
        for user in reversed(others):
            with m.If(user.request):
                m.d.comb += [asked[name].eq(getattr(user, name)) for name in fields]
        with m.If(goes):
            m.d.comb += [asked[name].eq(getattr(last, name)) for name in fields]
        with m.If(~first.user.any() | table.grant):
            m.d.sync += [first.eq(Mux(waits, second, asked)), second.user.eq(0)]
        with m.Elif(~waits):
            m.d.sync += second.eq(asked)
        m.d.comb += [table.request.eq(first.user.any()), *(getattr(table, name).eq(first[name]) for name in fields)]

        coming = [Signal(len(users), name=f"coming{i}") for i in range(WAY_LATENCY)]
        reads = Mux(table.grant & ~first.write.any(), first.user, 0)
        m.d.sync += [after.eq(before) for after, before in zip(coming, [reads, *coming], strict=False)]
        for number, user in enumerate(users):
            m.d.comb += [
                user.coming.eq(coming[0][number]),
                user.came.eq(coming[-1][number]),
                user.word.eq(table.word),
                user.pending.eq(first.user[number] | second.user[number]),
            ]
        return m
