"""The packet buffers of one core: two banks of 64-bit words, even and odd.

Port A of both banks together gives the core any 8 bytes. Port B is shared in time: in the clocks with `phase` = 0 the
even bank takes a write (Receive, or zeroes) and the odd one a read (Transmit), with `phase` = 1 the other way round.
The words of a frame alternate between the banks, so both run at a word a clock without waiting for each other.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib.wiring import Component, In, Out, Signature

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.memory import DualPortRam
from bpfnic.hdl.packets.records import WordRead, WordWrite, buffer_words


def PairPort(config: NicConfig) -> Signature:
    """Two neighbouring words of a buffer at once: `word` and the next one.

    even_row: of the even one, LocalPort's `even`. write: the bytes of `mask`, those of the first word lowest; otherwise
    it reads. data: the same for both words (rotated into place by the asker). even, odd: the one at an even and the one
    at an odd address, exactly 2 clocks later.
    """
    return Signature(
        {
            "buffer": Out(range(config.packet_buffers)),
            "word": Out(range(buffer_words(config))),
            "even_row": Out(range(buffer_words(config) // 2)),
            "write": Out(1),
            "mask": Out(16),
            "data": Out(64),
            "even": In(64),
            "odd": In(64),
        }
    )


class PacketBuffers(Component):
    """Members
    -------
    pair : the core's port. Of a buffer's last word, the next one is its first.
    phase : changes every clock.
    write : a write of a word whose lowest address bit is `phase`; mask 0: none. It is done 2 clocks later.
    read : a read of a word whose lowest address bit is not `phase`.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "pair": In(PairPort(config)),
                "phase": In(1),
                "write": In(WordWrite(config)),
                "read": In(WordRead(config)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        depth = self.config.packet_buffers * buffer_words(self.config) // 2
        m.submodules.even = even = DualPortRam(width=64, depth=depth, lane=8, target=self.config.target)
        m.submodules.odd = odd = DualPortRam(width=64, depth=depth, lane=8, target=self.config.target)

        # Port A. A pair that begins with an odd word has its second word in the next row of the even bank.
        pair = self.pair
        begins_odd = pair.word[0]
        m.d.comb += [
            even.a.address.eq(Cat(pair.even_row, pair.buffer)),
            odd.a.address.eq(Cat(pair.word[1:], pair.buffer)),
            even.a.enable.eq(pair.write),
            odd.a.enable.eq(pair.write),
            even.a.lanes.eq(Mux(begins_odd, pair.mask[8:], pair.mask[:8])),
            odd.a.lanes.eq(Mux(begins_odd, pair.mask[:8], pair.mask[8:])),
            even.a.write_data.eq(pair.data),
            odd.a.write_data.eq(pair.data),
            pair.even.eq(even.a.read_data),
            pair.odd.eq(odd.a.read_data),
        ]

        # Port B, behind a register.
        write_data = Signal(64)
        m.d.sync += write_data.eq(self.write.data)
        for bank, writes in ((even, ~self.phase), (odd, self.phase)):
            address, enable, lanes = Signal(range(depth)), Signal(), Signal(8)
            m.d.sync += [
                address.eq(
                    Mux(
                        writes,
                        Cat(self.write.word[1:], self.write.buffer),
                        Cat(self.read.word[1:], self.read.buffer),
                    )
                ),
                enable.eq(writes),
                lanes.eq(self.write.mask),
            ]
            m.d.comb += [bank.b.address.eq(address), bank.b.write_data.eq(write_data)]
            m.d.comb += [bank.b.enable.eq(enable), bank.b.lanes.eq(lanes)]
        # Three clocks after its request, a read's bank is the one that `phase` names.
        m.d.comb += self.read.data.eq(Mux(self.phase, odd.b.read_data, even.b.read_data))
        return m
