"""From one clock to another: a queue, and counters in Gray code for what else the other side has to know."""

from amaranth import Cat, Module, ResetSignal, Signal, Value
from amaranth.lib import memory, stream
from amaranth.lib.cdc import AsyncFFSynchronizer, FFSynchronizer
from amaranth.lib.wiring import Component, In, Out, Signature


def count(m: Module, domain: str, event: Value, depth: int) -> tuple[Signal, Signal]:
    """How often there was the event, and the same in Gray code, of which one bit changes at a time: the other side may
    see it late, but never wrong. It runs through twice the depth, so that a full memory doesn't look empty."""
    number, code, following = (Signal(range(2 * depth)) for _ in range(3))
    m.d.comb += following.eq(number + 1)
    with m.If(event):
        m.d[domain] += [number.eq(following), code.eq(following ^ following[1:])]
    return number, code


def crossed(m: Module, name: str, domain: str, code: Signal) -> Signal:
    """A Gray code as `domain` sees it, two clocks late."""
    seen = Signal.like(code)
    m.submodules[name] = FFSynchronizer(code, seen, o_domain=domain)
    return seen


def decoded(m: Module, domain: str, code: Signal) -> Signal:
    """The number whose Gray code it was two clocks ago. Each bit is the parity of the code from it on: first of four
    bits, which are a LUT, and then of all the fours."""
    fours, number = (Signal.like(code, name=name) for name in ("fours", "number"))
    m.d[domain] += [
        fours.eq(Cat(code[bit : bit + 4].xor() for bit in range(len(code)))),
        number.eq(Cat(fours[bit::4].xor() for bit in range(len(code)))),
    ]
    return number


class Crossing(Component):
    """A queue whose writer never waits and has a fast clock: each step from what it writes to what it learns of the
    queue has a register of its own. One entry a clock either way.

    Parameters
    ----------
    shape : of an entry.
    depth : entries, a power of two.
    spare : how many `room` promises.
    write_domain, read_domain : the clocks.

    Members
    -------
    write : an entry in a clock with `valid`. Whoever overfills it loses all.
    room : in the write domain: `spare` entries fit, those included that were written in this clock and the two before.
    read : the entries, in the read domain.
    """

    def __init__(self, shape, depth: int, *, spare: int, write_domain: str, read_domain: str):
        self.shape, self.depth, self.spare = shape, depth, spare
        self.write_domain, self.read_domain = write_domain, read_domain
        super().__init__(
            {
                "write": In(Signature({"valid": Out(1), "payload": Out(shape)})),
                "room": Out(1),
                "read": Out(stream.Signature(shape)),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        storage = memory.Memory(shape=self.shape, depth=self.depth, init=[])
        m.submodules.storage = storage
        leaves = Signal()
        written, written_code = count(m, self.write_domain, self.write.valid, self.depth)
        read, read_code = count(m, self.read_domain, leaves, self.depth)

        port, domain = storage.write_port(domain=self.write_domain), m.d[self.write_domain]
        level = Signal.like(read)
        m.d.comb += [port.en.eq(self.write.valid), port.addr.eq(written), port.data.eq(self.write.payload)]
        read_here = decoded(m, self.write_domain, crossed(m, "read", self.write_domain, read_code))
        domain += [
            level.eq(written - read_here),
            self.room.eq(level <= self.depth - self.spare),
        ]

        port, domain = storage.read_port(domain=self.read_domain), m.d[self.read_domain]
        # The memory's output is one register, and `read` another: what the reader takes in a clock decides whether the
        # memory is read in it, but not where.
        waiting = crossed(m, "written", self.read_domain, written_code) != read_code
        fetched, free, fetches = Signal(), Signal(), Signal()
        m.d.comb += [
            free.eq(self.read.ready | ~self.read.valid),
            fetches.eq(free | ~fetched),
            leaves.eq(fetches & waiting),
            port.en.eq(fetches),
            port.addr.eq(read),
        ]
        with m.If(fetches):
            domain += fetched.eq(waiting)
        with m.If(free):
            domain += [self.read.valid.eq(fetched), self.read.payload.eq(port.data)]
        # A PHY's clock may stand still, so that the writer's reset comes late. Until it is over nothing is here.
        writer_resets = Signal()
        m.submodules.writer_resets = AsyncFFSynchronizer(
            ResetSignal(self.write_domain), writer_resets, o_domain=self.read_domain
        )
        with m.If(writer_resets):
            domain += [read.eq(0), read_code.eq(0), fetched.eq(0), self.read.valid.eq(0)]
        return m
