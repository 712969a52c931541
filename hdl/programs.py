"""The program store: one core's copy of all instruction slots."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import ProgramStorePorts
from bpfnic.hdl.memory import READ_LATENCY, DualPortRam


class ProgramStore(Component):
    """Slots in two banks, even and odd, so that a slot and the one after it are read at once.

    Members: interfaces.ProgramStorePorts. Both reads have their data 2 clocks after the slot. The slot behind the last
    one is slot 0. A slot that is written in the clock in which it is fetched is fetched undefined: nobody runs a
    program while it is loaded.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(ProgramStorePorts(config))

    def elaborate(self, platform) -> Module:
        m = Module()
        depth = self.config.program_slots // 2
        m.submodules.even = even = DualPortRam(width=64, depth=depth, target=self.config.target)
        m.submodules.odd = odd = DualPortRam(width=64, depth=depth, target=self.config.target)
        slot, control = self.read.slot, self.write

        m.d.comb += [odd.a.address.eq(slot[1:]), even.a.address.eq(slot[1:] + slot[0])]
        for parity, bank in enumerate((even, odd)):
            m.d.comb += [
                bank.b.address.eq(control.slot[1:]),
                bank.b.enable.eq(control.enable & (control.slot[0] == parity)),
                bank.b.write_data.eq(control.data),
            ]

        fetched_odd = Signal(READ_LATENCY, reset_less=True)
        read_odd = Signal(READ_LATENCY, reset_less=True)
        m.d.sync += [fetched_odd.eq(Cat(slot[0], fetched_odd)), read_odd.eq(Cat(control.slot[0], read_odd))]
        following = Signal(64)
        m.d.comb += [
            following.eq(Mux(fetched_odd[-1], even.a.read_data, odd.a.read_data)),
            self.read.instruction.eq(Mux(fetched_odd[-1], odd.a.read_data, even.a.read_data)),
            self.read.next_imm.eq(following[32:]),
            self.read.next_reserved.eq(following[:32].any()),
            control.read_data.eq(Mux(read_odd[-1], odd.b.read_data, even.b.read_data)),
        ]
        return m
