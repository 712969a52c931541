"""Which thread issues when: the scheduler alone, and the loop that it makes with the core's pipeline."""

from amaranth import Module, Mux, Signal, Value
from amaranth.hdl import Assert, Assume, Elaboratable

from bpfnic.hdl.core.control import Control, Kind
from bpfnic.hdl.core.core import Core
from bpfnic.hdl.core.scheduler import Scheduler
from tests.formal.core import AROUND, CONFIG, WRITE
from tests.formal.opened import Opened, constant, later
from tests.formal.proof import Mutation, Proof

THREADS = CONFIG.threads
LOOP = 10  # a thread's next pass is in stage 0 when this one is in stage 10


class TurnHarness(Elaboratable):
    """One thread, whichever: how long it has been ready, and how far the turn is from it. The turn goes on in each
    clock in which some thread is ready, never past one that is."""

    def elaborate(self, platform) -> Module:
        m = Module()
        scheduler = Scheduler(CONFIG)
        m.submodules.scheduler = opened = Opened(scheduler, inputs=True)
        mine = constant(m, range(THREADS), "mine")
        ready = opened.signal("ready").bit_select(mine, 1)
        last, turn = opened.signal("selected"), opened.signal("thread")
        waits, selected = Signal(), Signal()
        m.d.comb += [
            waits.eq(ready & ~(last & (turn == mine))),
            selected.eq(scheduler.selected & (scheduler.thread == mine)),
        ]
        waited, distance = Signal(range(THREADS + 1)), Signal(range(THREADS + 1))
        m.d.comb += distance.eq(Mux(turn == mine, THREADS, (mine - turn)[: len(mine)]))
        m.d.sync += waited.eq(Mux(waits & ~selected, waited + 1, 0))
        m.d.comb += [
            Assert(~waits | scheduler.selected),
            Assert(~selected | waits),
            Assert(~waits | (waited + distance <= THREADS)),
            Assert(waited < THREADS),
        ]
        return m


class LoopHarness(Elaboratable):
    """One thread, whichever: it is idle, or ready, or in one stage up to BRANCH, or it waits for an answer; one of
    these, always. So no pass is before stage 10 while another one is there or before it."""

    def elaborate(self, platform) -> Module:
        m = Module()
        core = Core(CONFIG)
        m.submodules.core = opened = Opened(core, inputs=True, without=AROUND)
        scheduler, requests, answers = opened.part("scheduler"), opened.part("requests"), opened.part("answers")
        inside = Opened(scheduler)
        opened.module._named_submodules["scheduler"] = (inside, None)
        mine = constant(m, range(THREADS), "mine")
        passes = [None] + [
            opened.signal(f"valid_{stage}") & (opened.signal(f"thread_{stage}") == mine)
            for stage in range(1, LOOP + 1)
        ]
        passes += [later(m, passes[LOOP], clocks) for clocks in range(1, WRITE - LOOP + 1)]

        idle, waiting = Signal(init=1), Signal()
        starts = core.start.valid & (core.start.payload.thread == mine)
        answered = (answers.done & (answers.thread == mine)) | (
            requests.released & (requests.released_thread == mine)
        )
        m.d.comb += [
            Assume(~starts | idle),  # the packet path's free threads
            Assume(~answered | waiting),  # nothing answers who has not asked
        ]
        goes_on = opened.signal("goes_on_10") & ~opened.signal("stops_10")
        ends = opened.signal("ends_10")
        with m.If(starts):
            m.d.sync += idle.eq(0)
        with m.If(answered):
            m.d.sync += waiting.eq(0)
        with m.If(passes[LOOP] & ~goes_on):
            m.d.sync += [idle.eq(ends), waiting.eq(~ends)]

        # These go to where the engine says, which is map memory.
        kind = Value.cast(Control(opened.signal("control_10")).kind)
        m.d.comb += Assume(~(passes[LOOP] & kind.matches(Kind.STORE, Kind.ENTRY)) | ends | requests.push_shared)
        taken = inside.signal("selected") & (inside.signal("thread") == mine)
        ready = inside.signal("ready").bit_select(mine, 1) & ~taken
        leaves = passes[LOOP] & ~opened.signal("goes_on_10")
        places = [*passes[1:LOOP], ready, leaves, waiting, idle]
        asks = requests.push_shared | opened.part("divider").push | opened.signal("asking_10")
        m.d.comb += [
            Assert(sum(places) == 1),
            Assert(~passes[LOOP] | goes_on | ends | asks),  # nobody waits for nothing
            Assert(~(passes[LOOP] & goes_on) | ~asks),
        ]
        for late in range(LOOP, WRITE + 1):
            for early in range(max(1, late - LOOP + 1), late):
                m.d.comb += Assert(~(passes[early] & passes[late]))
        return m


PROOFS = [
    Proof(
        name="turn",
        of=("hdl/core/scheduler.py",),
        says="a ready thread is selected within as many clocks as there are threads; no other thread is",
        harness=TurnHarness,
        mutations=(
            Mutation("hdl/core/scheduler.py", "(number > thread)", "(number != thread)"),
            Mutation("hdl/core/scheduler.py", "(number == thread) & ~selected", "(number == thread) | ~selected"),
        ),
        clocks=12,
    ),
    Proof(
        name="loop",
        of=("hdl/core/",),
says="a thread is idle, ready, in one stage up to BRANCH, or waits for an answer, one of these at a time; its "
        "next pass begins at the earliest when this one is in stage 10; it waits only if it has asked",
        harness=LoopHarness,
        mutations=(
            Mutation("hdl/core/core.py", "selected.at(1) & ~revoked", "selected.at(1) | revoked"),
            Mutation("hdl/core/scheduler.py", "ready & ~taken & ~self.revoke", "ready & ~taken & self.revoke"),
        ),
        clocks=14,
    ),
]
