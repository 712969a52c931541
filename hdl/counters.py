"""The counters: 32 bits each in one block RAM, behind counters of a few bits that count every event.

A small counter is the lowest bits of its large one, and runs ahead of it. A round visits every counter, two clocks
each, and adds to the large one what the small one is ahead. What the small ones say is set aside in one clock, at the
round's begin; so all counters always stand for the same clock. A snapshot is a round that writes each sum a second
time, to where registers are read. Events that exclude each other have a Tally for small counters: it counts from 0
in each round.
"""

from functools import reduce
from operator import or_

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import bits_for

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import IngressEvent, InterfaceStatus
from bpfnic.hdl.memory import SimpleRam
from bpfnic.hdl.tally import Tally
from bpfnic.spec.causes import Cause
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.registers import BY_NAME, REGISTERS

_FIRST = BY_NAME["RECEIVED"].offset
COUNTERS = tuple(register for register in REGISTERS if register.offset >= _FIRST)
_WORDS = 256  # of the register map from RECEIVED on; the RAM has them twice: live, then as of the last snapshot
_BEAT_BYTES = 8
_FRAME_BITS = 16  # of a frame's length

_GROUP = 8  # counters, a power of two

_SUM, _LEVEL, _CARRY, _OUTCOME, _CAUSE = range(5)  # what a counter shows: see _sources
_TALLIES = _OUTCOME, _CAUSE

READ_CLOCKS = 4
"""From an address to its data."""


class Counters(Component):
    """All counters of spec.registers.

    Members
    -------
    status, causes, retired : as in interfaces.ControlPorts.
    snapshot : high until `taken` (one clock), at most two rounds (4 clocks for each counter).
    ready : it counts, from the first round's end on. Before, no packet's outcome may come.
    address : word address from RECEIVED on; `value` follows READ_CLOCKS later, as of the last snapshot, 0 before.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        self.ram = SimpleRam(width=32, depth=2 * _WORDS, target=config.target)
        super().__init__(
            {
                "status": In(InterfaceStatus(config)).array(config.ingresses),
                "causes": In(16),
                "retired": In(config.cores),
                "snapshot": In(1),
                "taken": Out(1),
                "ready": Out(1),
                "address": In(range(_WORDS)),
                "value": Out(32),
            }
        )

    def _sources(self, status, causes, retired) -> dict[str, dict[int, tuple[int, Value | None, Value | None]]]:
        """For each register of COUNTERS, by index: the sum of a value over the clocks in which another isn't 0;
        a level; the carries of the counter before it; or a packet's outcome or cause, of which there is one in a clock
        at most. The counters of one tally have consecutive numbers."""

        def each(kind: int, value, when=lambda one: None) -> dict:
            return {i: (kind, value(one), when(one)) for i, one in enumerate(status)}

        sources = {
            event.name: each(_SUM, lambda one, event=event: one.events[event], lambda one: one.events)
            if event < IngressEvent.DROPPED
            else each(_OUTCOME, lambda one, event=event: one.events[event])
            for event in IngressEvent
        }
        numbers = [cause.value for cause in Cause if cause is not Cause.NONE]
        return sources | {
            "RECEIVED_BYTES": each(
                _SUM, lambda one: one.received_bytes, lambda one: one.events[IngressEvent.RECEIVED]
            ),
            "IN_FLIGHT": each(_LEVEL, lambda one: one.in_flight),
            "SENT": each(_SUM, lambda one: one.sent, lambda one: one.sent),
            "SENT_BYTES": each(_SUM, lambda one: one.sent_bytes, lambda one: one.sent),
            "EGRESS_DROPPED": each(_SUM, lambda one: one.egress_dropped, lambda one: one.egress_dropped),
            "CAUSES": {i: (_CAUSE, causes[i], None) for i in numbers},
            "CLOCKS": {0: (_SUM, Const(1), Const(1)), 1: (_CARRY, None, None)},
            "RETIRED": {0: (_SUM, sum(retired), retired), 1: (_CARRY, None, None)},
        }

    def elaborate(self, platform) -> Module:
        m = Module()
        # All events count a clock later, so that they still balance.
        status = [Signal(each.shape(), name=f"status{i}") for i, each in enumerate(self.status)]
        causes, retired = Signal.like(self.causes), Signal.like(self.retired)
        m.d.sync += [later.eq(each) for later, each in zip(status, self.status, strict=True)]
        m.d.sync += [causes.eq(self.causes), retired.eq(self.retired)]
        sources = self._sources(status, causes, retired)
        if set(sources) != {register.name for register in COUNTERS}:
            names = {register.name for register in COUNTERS} ^ set(sources)
            raise BpfnicError(f"counters that only one of the register map and the hardware has: {sorted(names)}")
        entries = [(register, i, *source) for register in COUNTERS for i, source in sources[register.name].items()]
        clocks = 2 * len(entries)  # of a round

        number, second, last_clock = Signal(range(len(entries))), Signal(), Signal()
        last = number == len(entries) - 1
        m.d.comb += last_clock.eq(last & second)
        m.d.sync += second.eq(~second)
        with m.If(second):
            m.d.sync += number.eq(Mux(last, 0, number + 1))

        # What is set aside, in as many bits as the sum of a round takes.
        aside = []
        for register, i, kind, value, when in entries:
            if kind == _CARRY:
                aside.append(Const(0, 0))
                continue
            if kind in _TALLIES:
                aside.append(Const(0, bits_for(clocks)))
                continue
            name = f"{register.name.lower()}{i}"
            if kind == _SUM:
                most = clocks * (self.config.cores if register.name == "RETIRED" else 1)
                if len(value) == _FRAME_BITS:  # bytes of a frame that began before, and of a beat each clock
                    most = (1 << _FRAME_BITS) + clocks * _BEAT_BYTES
                count = Signal(bits_for(most), name=f"{name}_count")
                with m.If(when):
                    m.d.sync += count.eq(count + value)
                value = count
            aside.append(Signal(len(value), name=f"{name}_aside", reset_less=True))
            with m.If(last_clock):
                m.d.sync += aside[-1].eq(value)

        # Of two clocks the first reads the RAM for a counter, the second for a register. The counter's sum is ready and
        # written three clocks after its read, and once more in the next if this is a snapshot.
        first_round, copying = Signal(init=1), Signal()
        with m.If(last_clock):
            m.d.sync += [first_round.eq(0), copying.eq(self.snapshot & ~copying)]
        place = Array(Const((register.address(i) - _FIRST) // 4, 8) for register, i, *_ in entries)[number]
        widest = max(len(value) for value in aside)
        flags = dict.fromkeys(("copied", "ends", "fresh", "carry", "anew"), 1)
        step = data.StructLayout({"place": 8, "mask": widest} | flags)
        reading, adding, writing = (Signal(step, name=name) for name in ("reading", "adding", "writing"))
        # What it was set aside, in two clocks: one of each group, and then of which group.
        groups = [aside[i : i + _GROUP] for i in range(0, len(aside), _GROUP)]
        of_groups = [Signal(max(map(len, each)), name=f"group{i}", reset_less=True) for i, each in enumerate(groups)]
        m.d.sync += [one.eq(Array(each)[number % _GROUP]) for one, each in zip(of_groups, groups, strict=True)]
        tallied = [self._tally(m, kind, entries, clocks, number, second, last_clock) for kind in _TALLIES]
        small = Signal(widest, reset_less=True)
        m.d.comb += [
            reading.place.eq(place),
            reading.mask.eq(Mux(first_round, 0, Array(Const((1 << len(v)) - 1, widest) for v in aside)[number])),
            reading.copied.eq(first_round | copying),  # everything starts at 0
            reading.ends.eq(copying & last),
            reading.fresh.eq(first_round | Array(Const(kind == _LEVEL) for _, _, kind, *_ in entries)[number]),
            reading.carry.eq(Array(Const(kind == _CARRY) for _, _, kind, *_ in entries)[number]),
            reading.anew.eq(Array(Const(kind in _TALLIES) for _, _, kind, *_ in entries)[number]),
            self.ready.eq(~first_round),
        ]
        with m.If(second):
            m.d.sync += small.eq(reduce(or_, tallied, Array(of_groups)[number // _GROUP]))
            m.d.sync += [adding.eq(reading), writing.eq(adding)]

        m.submodules.ram = ram = self.ram
        m.d.comb += ram.read.address.eq(Mux(second, Cat(self.address, Const(1)), place))
        total, carry = Signal(32, reset_less=True), Signal(reset_less=True)
        m.d.comb += [ram.write.data.eq(total), self.taken.eq(~second & writing.ends)]
        with m.If(second):
            m.d.sync += self.value.eq(ram.read.data)
            m.d.comb += [ram.write.enable.eq(1), ram.write.address.eq(adding.place)]
        with m.Else():
            old = Mux(adding.fresh, 0, ram.read.data)
            ahead = (small - Mux(adding.anew, 0, old))[:widest] & adding.mask
            m.d.sync += Cat(total, carry).eq(old + ahead + (carry & adding.carry))
            m.d.comb += [ram.write.enable.eq(writing.copied), ram.write.address.eq(Cat(writing.place, Const(1)))]
        return m

    def _tally(self, m: Module, kind: int, entries: list, clocks: int, number, second, last_clock) -> Signal:
        """What a tally says of the entry `number`, as `of_groups` is of the others; 0 of an entry that isn't its."""
        numbers = [at for at, entry in enumerate(entries) if entry[2] == kind]
        tally = Tally(numbers[0], len(numbers), clocks)
        m.submodules[f"tally{kind}"] = tally
        found = Signal.like(tally.count, name=f"tally{kind}_count", reset_less=True)
        its = (number >= numbers[0]) & (number <= numbers[-1])
        m.d.comb += [
            tally.events.eq(Cat(entries[at][3] for at in numbers)),
            tally.swap.eq(last_clock),
            tally.number.eq(number),
            tally.clear.eq(its & ~second),
            tally.blank.eq(~self.ready),
        ]
        m.d.sync += found.eq(Mux(its, tally.count, 0))
        return found
