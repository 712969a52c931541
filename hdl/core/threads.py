"""What is kept of each thread between its passes, in distributed memory."""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.core.control import Step
from bpfnic.hdl.mapinterfaces import MapCall
from bpfnic.spec import addresses
from bpfnic.spec.maps import MAX_TAIL_CALLS

POINTER_UNITS = addresses.STACK_BYTES // addresses.FRAME_ALIGN
FIRMWARE_POINTER_UNITS = addresses.STACK_WINDOW_BYTES // addresses.FRAME_ALIGN


def ProgramCounter(config: NicConfig) -> data.StructLayout:
    """outside: the slot lies outside the store, wherever."""
    return data.StructLayout({"slot": range(config.program_slots), "outside": 1})


HelperNumber = data.StructLayout({"low": 8, "above": 1})
"""above: it is none of the numbers that `low` can hold, and so no helper's."""

Left = data.StructLayout({"instructions": 32, "none": 1, "low": 1})
"""Of the budget: the instructions that the thread may still retire; whether there is none, and whether they are less
than half of it, both kept beside the number, for it is read late."""

Progress = data.StructLayout(
    {
        "step": Step,
        "call": MapCall,
        "skip": 3,
        "frame": range(addresses.FIRMWARE_FRAME + 1),
        "pointer": range(FIRMWARE_POINTER_UNITS + 1),
        "words": 9,
        "piece": 4,
        "last": 1,
    }
)
"""Where a thread is in its instruction and its calls.

call: of the engine, that it has under way. skip: bytes done of a split access. frame: of the running function; pointer:
its r10, above the stack's first byte, in units of FRAME_ALIGN. words, piece, last: of a key or of a copy, the 8-byte
words done; the bytes of this one, and whether it is the last.
"""


class Threads(Component):
    """Members
    -------
    start : thread `start_thread` begins at slot `start_pc` with `budget` instructions. One that has begun is `fresh` up
        to its first pass, which sees the initial state instead of what is stored.
    fetching, fetches : stage 1's thread, and if there is one; `fetching_pc`, its ProgramRead.even_row and
        `fetching_fresh` in the same clock.
    decoding, decoding_fresh : stage 2's thread; `progress`, and the `number` of the helper that a callx calls, in the
        same clock.
    executing, executing_fresh : stage 8's thread; in the same clock what is `left` of its budget, and the `tail_calls`
        that it made.
    update, updated : what the pass of stage 11 leaves behind. begun : it counts against the budget, of which
        `updated_left` is left. numbers : it is a callx, and leaves a number.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        thread = range(config.threads)
        pc = ProgramCounter(config)
        super().__init__(
            {
                "start": In(1),
                "start_thread": In(thread),
                "start_pc": In(range(config.program_slots)),
                "budget": In(32),
                "fetches": In(1),
                "fetching": In(thread),
                "fetching_pc": Out(pc),
                "fetching_even_row": Out(range(config.program_slots // 2)),
                "fetching_fresh": Out(1),
                "decoding": In(thread),
                "decoding_fresh": In(1),
                "progress": Out(Progress),
                "number": Out(HelperNumber),
                "executing": In(thread),
                "executing_fresh": In(1),
                "left": Out(Left),
                "update": In(1),
                "updated": In(thread),
                "updated_pc": In(pc),
                "updated_progress": In(Progress),
                "begun": In(1),
                "updated_left": In(Left),
                "numbers": In(1),
                "updated_number": In(HelperNumber),
                "tail_calls": Out(range(MAX_TAIL_CALLS + 1)),
                "updated_tail_calls": In(range(MAX_TAIL_CALLS + 1)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()

        def stored(name: str, shape, enable, thread, value, reader):
            """A memory of a word for each thread, one port to write it and one to read it."""
            m.submodules[name] = array = memory.Memory(shape=shape, depth=self.config.threads, init=[])
            write, read = array.write_port(), array.read_port(domain="comb")
            m.d.comb += [write.en.eq(enable), write.addr.eq(thread), write.data.eq(value), read.addr.eq(reader)]
            return read.data

        # It is fresh where two bits differ, one that its start sets so and one that its first pass makes equal: what is
        # read of distributed memory is known sooner than what is chosen of flip-flops.
        m.submodules.started = started = memory.Memory(shape=1, depth=self.config.threads, init=[])
        m.submodules.fetched = fetched = memory.Memory(shape=1, depth=self.config.threads, init=[])
        start, fetch = started.write_port(), fetched.write_port()
        of_start, of_fetch, before = (each.read_port(domain="comb") for each in (started, fetched, fetched))
        m.d.comb += [
            before.addr.eq(self.start_thread),
            start.addr.eq(self.start_thread),
            start.data.eq(~before.data),
            start.en.eq(self.start),
            of_start.addr.eq(self.fetching),
            of_fetch.addr.eq(self.fetching),
            fetch.addr.eq(self.fetching),
            fetch.data.eq(of_start.data),
            fetch.en.eq(self.fetches),
            self.fetching_fresh.eq(of_start.data ^ of_fetch.data),
        ]

        first_pc = stored("first_pc", range(self.config.program_slots), self.start, self.start_thread, self.start_pc,
                          self.fetching)  # fmt: skip
        pc = stored("pc", self.updated_pc.shape(), self.update, self.updated, self.updated_pc, self.fetching)

        def even_row(slot) -> Value:
            """Kept beside the slot: added up here, for there is no time between reading it and the program store."""
            return (slot[1:] + slot[0])[: len(self.fetching_even_row)]

        rows = range(self.config.program_slots // 2)
        first_row = stored("first_row", rows, self.start, self.start_thread, even_row(self.start_pc), self.fetching)
        row = stored("row", rows, self.update, self.updated, even_row(self.updated_pc.slot), self.fetching)
        m.d.comb += [
            self.fetching_pc.eq(Mux(self.fetching_fresh, Cat(first_pc, 0), pc)),
            self.fetching_even_row.eq(Mux(self.fetching_fresh, first_row, row)),
        ]

        progress = stored("progress", Progress, self.update, self.updated, self.updated_progress, self.decoding)
        initial = Progress.const({"step": Step.INSTRUCTION, "pointer": POINTER_UNITS})
        m.d.comb += self.progress.eq(Mux(self.decoding_fresh, initial, progress))

        number = stored("number", HelperNumber, self.update & self.numbers, self.updated, self.updated_number,
                        self.decoding)  # fmt: skip
        m.d.comb += self.number.eq(number)

        left = stored("left", Left, self.update & self.begun, self.updated, self.updated_left, self.executing)
        all_left = Signal(Left)
        m.d.comb += [
            all_left.instructions.eq(self.budget),
            all_left.none.eq(~self.budget.any()),
            self.left.eq(Mux(self.executing_fresh, all_left, left)),
        ]

        tail_calls = stored("tail_calls", range(MAX_TAIL_CALLS + 1), self.update, self.updated, self.updated_tail_calls,
                            self.executing)  # fmt: skip
        m.d.comb += self.tail_calls.eq(Mux(self.executing_fresh, 0, tail_calls))
        return m
