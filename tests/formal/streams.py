"""Queues: whatever goes in comes out, once, in its order."""

from amaranth import Module, Signal, unsigned
from amaranth.hdl import Assert, Assume, Elaboratable

from bpfnic.hdl.core.queue import Queue
from tests.formal.opened import Opened, constant
from tests.formal.proof import Mutation, Proof

DEPTH, WIDTH = 16, 8


class QueueHarness(Elaboratable):
    """Watches one word that the solver picks, whichever one: that with the number `chosen`. Numbers wrap at twice the
    depth, so that those of all words in the queue differ."""

    def elaborate(self, platform) -> Module:
        m = Module()
        queue = Queue(unsigned(WIDTH), DEPTH)
        m.submodules.queue = opened = Opened(queue, inputs=True)
        numbers = range(2 * DEPTH)
        chosen, word = constant(m, numbers, "chosen"), Signal(WIDTH)
        pushed, popped, inside = Signal(numbers), Signal(numbers), Signal(numbers)
        pops = queue.pop.valid & queue.pop.ready
        m.d.comb += inside.eq(pushed - popped)
        m.d.sync += [pushed.eq(pushed + queue.push), popped.eq(popped + pops)]
        with m.If(queue.push & (pushed == chosen)):
            m.d.sync += word.eq(queue.entry)
        array = opened.part("memory")
        (write,), (read,) = array.write_ports, array.read_ports
        held = array.read_port(domain="comb")
        m.d.comb += held.addr.eq(chosen)
        waits = Signal()
        m.d.comb += waits.eq((chosen - popped)[: len(popped)] < inside)
        m.d.comb += [
            Assume(~queue.push | (inside < DEPTH)),  # whoever pushes knows that there is room
            Assert(queue.pop.valid == (inside != 0)),
            Assert(~(pops & (popped == chosen)) | (queue.pop.payload == word)),
            # What makes it inductive
            Assert(inside <= DEPTH),
            Assert(opened.signal("level") == inside),
            Assert(write.addr == pushed[: len(held.addr)]),
            Assert(read.addr == popped[: len(held.addr)]),
            Assert(~waits | (held.data == word)),
        ]
        return m


PROOFS = [
    Proof(
        name="queue",
        of=("hdl/core/queue.py",),
        says="the core's queues: each word comes out once, unchanged, in the order of the pushes; `valid` says whether "
        "there is one",
        harness=QueueHarness,
        mutations=(
            Mutation("hdl/core/queue.py", "level + self.push - popped", "(level | self.push) - popped"),
            Mutation("hdl/core/queue.py", "write.addr + 1", "write.addr | 1"),
        ),
        clocks=4,
    )
]
