"""The register file: block RAM, a copy for each of two read ports, one write port.

Each entry carries the generation of its thread at the time it was written; an entry of another generation was not
written for this packet and reads as what a program starts with. The generation counts packets in 8 bits. So that no old
entry ever looks new, each packet's last pass (which writes nothing else) writes one entry of its thread, entry
`generation % 64`, under the generation that ends there: every entry is at most 64 generations old.
"""

from amaranth import Cat, Const, Module, Mux, Value
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.control import Register
from bpfnic.hdl.memory import SimpleRam

ENTRIES = 64
"""Entries of a thread: r0..r5, TARGET, WORD, 8 links (the firmware's, then those of frames 1 to 7), r6..r9 of 9 frames;
12 are unused."""

GENERATION_BITS = 8
CONTEXT_ENTRY, TARGET_ENTRY, WORD_ENTRY = 1, 6, 7
_FIRST_WINDOWED = 6

Entry = data.StructLayout({"value": 64, "generation": GENERATION_BITS})


def entry_of(register, dst, src, frame, *, reading=False):
    """The number of a register's entry, from a Control's Register and the instruction's fields.

    frame : of the running function, 8 for the firmware's. LINK is what a call writes for its callee's frame (`frame` +
    1; FIRMWARE_LINK for frame 8) and what that one finds there when it is `reading`; the first frame, which has none,
    finds r0.
    """

    def program(number):
        window = Cat(number[0], ~number[1], frame[:2], ~frame[2], frame[2] | frame[3])
        return Mux(number < _FIRST_WINDOWED, Cat(number[:3], Const(0, 3)), window)

    # That of frame 8 is at 0, which the first frame doesn't use.
    if reading:
        link = Mux(frame.any(), Cat(frame[:3], Const(0b001, 3)), 0)
    else:
        link = Cat(Mux(register == Register.LINK, frame[:3] + 1, 0)[:3], Const(0b001, 3))
    return Mux(
        (register == Register.DST) | (register == Register.SRC),
        Mux(register == Register.SRC, program(src), program(dst)),  # which one is known later than both
        Mux(
            (register == Register.LINK) | (register == Register.FIRMWARE_LINK),
            link,
            Mux(
                (register == Register.TARGET) | (register == Register.WORD),
                Cat(register == Register.WORD, Const(0b0011, 4)),
                Cat(Value.cast(register)[:3], Const(0, 3)),
            ),
        ),
    )


class Registers(Component):
    """Members
    -------
    thread : the reading instruction's. left, right : entries to read; `left_data`, `right_data` 2 clocks later.
    write : writes `entry` of `write_thread`, in one clock.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        thread = range(config.threads)
        super().__init__(
            {
                "thread": In(thread),
                "left": In(range(ENTRIES)),
                "right": In(range(ENTRIES)),
                "left_data": Out(Entry),
                "right_data": Out(Entry),
                "write": In(1),
                "write_thread": In(thread),
                "write_entry": In(range(ENTRIES)),
                "write_data": In(Entry),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        for name, entry, out in (("left", self.left, self.left_data), ("right", self.right, self.right_data)):
            copy = SimpleRam(width=Entry.size, depth=self.config.threads * ENTRIES, target=self.config.target)
            m.submodules[name] = copy
            m.d.comb += [
                copy.read.address.eq(Cat(entry, self.thread)),
                out.eq(copy.read.data),
                copy.write.enable.eq(self.write),
                copy.write.address.eq(Cat(self.write_entry, self.write_thread)),
                copy.write.data.eq(self.write_data),
            ]
        return m


class Generations(Component):
    """The generation of each thread, in distributed memory.

    Members
    -------
    reader, answered : threads; `reader_generation`, `answered_generation` in the same clock.
    end, ended : the packet of thread `ended` ends in this clock.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        thread = range(config.threads)
        super().__init__(
            {
                "reader": In(thread),
                "reader_generation": Out(GENERATION_BITS),
                "answered": In(thread),
                "answered_generation": Out(GENERATION_BITS),
                "end": In(1),
                "ended": In(thread),
                "ended_generation": In(GENERATION_BITS),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        m.submodules.memory = array = memory.Memory(shape=GENERATION_BITS, depth=self.config.threads, init=[])
        write = array.write_port()
        # All memories start as zeros, but an entry that was never written must not look new: generations begin with 1,
        # which is kept as 0.
        kept = (self.ended_generation + 1)[:GENERATION_BITS] ^ 1
        m.d.comb += [write.en.eq(self.end), write.addr.eq(self.ended), write.data.eq(kept)]
        for thread, out in ((self.reader, self.reader_generation), (self.answered, self.answered_generation)):
            read = array.read_port(domain="comb")
            m.d.comb += [read.addr.eq(thread), out.eq(read.data ^ 1)]
        return m
