"""OPERANDS: what a pass's registers hold, and what they say of the bytes that it takes."""

from amaranth import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for, ceil_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.control import Control, Immediate, Kind, Register
from bpfnic.hdl.core.registers import CONTEXT_ENTRY, ENTRIES, GENERATION_BITS, Entry
from bpfnic.hdl.core.threads import Progress
from bpfnic.spec import addresses
from bpfnic.spec.rings import PACKET_BYTES_SHIFT


class Operands(Component):
    """Combinational.

    A key's length, less one, is in its map's handle (of which the second half of a load knows nothing), the bytes of
    the packet's part of an event are in its flags, those of a checksum in a register of their own. Whether a register
    was written is known late; what its word means for the bytes of this pass is computed beforehand, of what stands
    there and of what it else reads as.

    Members
    -------
    control, progress, second : of the pass; it is the second half of a split access.
    generation : of the thread's packet.
    left_entry, right_entry : entries of the register file; left_is_pointer, right_is_pointer : or r10; left_data,
        right_data : what the file has there. constant : what takes the place of the right one.
    words_then : `progress.words` + 1.
    piece, last : the bytes of this word of a copy, and whether it is the last one, where no register says.
    left, right : operands.
    length : bytes of the access. bytes, is_last : of this word of a key, a copy or a checksum, as `piece` and `last`.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        entry = range(ENTRIES)
        super().__init__(
            {
                "control": In(Control),
                "progress": In(Progress),
                "second": In(1),
                "generation": In(GENERATION_BITS),
                "left_entry": In(entry),
                "right_entry": In(entry),
                "left_is_pointer": In(1),
                "right_is_pointer": In(1),
                "left_data": In(Entry),
                "right_data": In(Entry),
                "constant": In(64),
                "words_then": In(Progress["words"].width + 1),
                "piece": In(4),
                "last": In(1),
                "left": Out(64),
                "right": Out(64),
                "length": Out(4),
                "bytes": Out(4),
                "is_last": Out(1),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        control, progress = self.control, self.progress
        left_written = self.left_data.generation == self.generation
        right_written = self.right_data.generation == self.generation

        def operand(name: str, number, is_pointer, word, written) -> Signal:
            found = Signal(64, name=f"{name}_word")
            with m.If(is_pointer):
                m.d.comb += found.eq(addresses.STACK + progress.pointer * addresses.FRAME_ALIGN)
            with m.Elif(written):
                m.d.comb += found.eq(word)
            with m.Elif(number == CONTEXT_ENTRY):
                m.d.comb += found.eq(addresses.CONTEXT)
            return found

        def narrowed(word) -> Value:
            upper = Mux(control.narrow, (control.signed & word[31]).replicate(32), word[32:])
            return Cat(word[:32], upper)

        left = operand("left", self.left_entry, self.left_is_pointer, self.left_data.value, left_written)
        right = operand("right", self.right_entry, self.right_is_pointer, self.right_data.value, right_written)
        with m.If(~control.blank):
            reversed_word = Cat(left.word_select(byte, 8) for byte in reversed(range(8)))
            m.d.comb += self.left.eq(narrowed(Mux(control.swap, reversed_word, left)))
        with m.If(control.immediate == Immediate.NONE):
            m.d.comb += self.right.eq(narrowed(right))
        with m.Else():
            m.d.comb += self.right.eq(narrowed(self.constant))

        packet_bits, sum_bits = bits_for(self.config.buffer_bytes), bits_for(addresses.MAX_CHECKSUM_BYTES)
        of_key, of_sum = control.kind == Kind.KEY, control.kind == Kind.SUM
        of_packet = (control.kind == Kind.LOAD) & control.in_packet

        def ends(word) -> Value:
            """Whether the next 8 bytes are the last ones, and then how many they are."""
            key = word[addresses.HANDLE_KEY_BIT :][: ceil_log2(addresses.MAX_KEY_BYTES)]
            count = Mux(of_sum, word[:sum_bits], word[PACKET_BYTES_SHIFT:][:packet_bits])
            begun = count[:3].any()
            last = Mux(begun, count[3:] == progress.words, count[3:] == self.words_then)
            of_count = Cat(last, count[:3], ~begun)
            return Mux(of_key, Cat(key[3:] == progress.words, (key[:3] + 1)[:4]), of_count)

        unwritten = Mux(control.right == Register.R1, ends(Const(addresses.CONTEXT, 64)), ends(Const(0, 64)))
        found = Signal(5)
        m.d.comb += found.eq(Mux(right_written, ends(self.right_data.value), unwritten))
        counted = (of_key | of_sum | of_packet) & ~self.second
        in_pieces = Value.cast(control.kind).matches(Kind.KEY, Kind.LOAD, Kind.STORE, Kind.SUM)
        bytes_found = Mux(found[0], found[1:], 8)
        bytes_left = Mux(in_pieces, self.piece, 1 << control.size) - progress.skip
        m.d.comb += [
            self.length.eq(Mux(counted, bytes_found, bytes_left)),
            self.bytes.eq(Mux(counted, bytes_found, self.piece)),
            self.is_last.eq(Mux(counted, found[0], self.last)),
        ]
        return m
