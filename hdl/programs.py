"""The program store: one core's copy of all instruction slots."""

from amaranth import Module, Mux, Signal
from amaranth.lib.wiring import Component

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import ProgramStorePorts
from bpfnic.hdl.memory import DualPortRam


class ProgramStore(Component):
    """Slots in two banks, even and odd, so that a slot and the one after it are read at once.

    Members: interfaces.ProgramStorePorts. Both reads have their data 2 clocks after the slot: the register behind the
    blocks holds what was chosen of the banks. The slot behind the last one is slot 0. A slot that is written in the
    clock in which it is fetched is fetched undefined: nobody runs a program while it is loaded.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(ProgramStorePorts(config))

    def elaborate(self, platform) -> Module:
        m = Module()
        depth = self.config.program_slots // 2
        m.submodules.even = even = DualPortRam(width=64, depth=depth, target=self.config.target, latency=1)
        m.submodules.odd = odd = DualPortRam(width=64, depth=depth, target=self.config.target, latency=1)
        slot, control = self.read.slot, self.write

        m.d.comb += [odd.a.address.eq(slot[1:]), even.a.address.eq(self.read.even_row)]
        for parity, bank in enumerate((even, odd)):
            m.d.comb += [
                bank.b.address.eq(control.slot[1:]),
                bank.b.enable.eq(control.enable & (control.slot[0] == parity)),
                bank.b.write_data.eq(control.data),
            ]

        fetched_odd, read_odd = Signal(reset_less=True), Signal(reset_less=True)
        instruction, following, read_data = (
            Signal(64, name=name, reset_less=True) for name in ("instruction", "following", "read_data")
        )
        m.d.sync += [
            fetched_odd.eq(slot[0]),
            read_odd.eq(control.slot[0]),
            instruction.eq(Mux(fetched_odd, odd.a.read_data, even.a.read_data)),
            following.eq(Mux(fetched_odd, even.a.read_data, odd.a.read_data)),
            read_data.eq(Mux(read_odd, odd.b.read_data, even.b.read_data)),
        ]
        m.d.comb += [
            self.read.instruction.eq(instruction),
            self.read.next_imm.eq(following[32:]),
            self.read.next_reserved.eq(following[:32].any()),
            control.read_data.eq(read_data),
        ]
        return m
