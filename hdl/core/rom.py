"""Tables of constants, in logic."""

from amaranth import Module, Value
from amaranth.lib import data, memory

LOGIC = "logic"
"""Yosys' word for a memory that shall take no block of RAM."""


def rom(m: Module, name: str, words: list[data.Const], address: Value) -> data.View:
    """The word at `address`, in the same clock. words : of one layout, one for each address."""
    assert len(words) == 1 << len(address), f"{name} has {len(words)} words"
    table = memory.Memory(shape=words[0].shape(), depth=len(words), init=words, attrs={"rom_style": LOGIC})
    m.submodules[name] = table
    port = table.read_port(domain="comb")
    m.d.comb += port.addr.eq(address)
    return port.data
