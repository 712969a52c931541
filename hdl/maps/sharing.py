"""Way B to map memory has one port; several units use it."""

from amaranth import Module, Mux


def share(m: Module, table, first, second, *, second_writes: bool = True) -> None:
    """`table`, a mapinterfaces.TablePort, is that of `first` in each clock in which `first` requests it, otherwise that
    of `second`."""
    m.d.comb += [
        table.request.eq(first.request | second.request),
        table.address.eq(Mux(first.request, first.address, second.address)),
        table.write.eq(Mux(first.request, first.write, second.write if second_writes else 0)),
        table.data.eq(Mux(first.request, first.data, second.data) if second_writes else first.data),
    ]
    for user, granted in ((first, first.request), (second, ~first.request)):
        m.d.comb += [user.grant.eq(table.grant & granted), user.word.eq(table.word)]
