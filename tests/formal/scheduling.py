"""Which thread issues when: the scheduler alone, the loop that it makes with the core's pipeline, and what those wait
for that leave the loop."""

from amaranth import Module, Mux, Signal
from amaranth.hdl import Assert, Assume, Elaboratable
from amaranth.utils import ceil_log2

from bpfnic.hdl.core.answers import Answers
from bpfnic.hdl.core.core import Core
from bpfnic.hdl.core.requests import PUSHED_BEHIND, Requests
from bpfnic.hdl.core.scheduler import Scheduler
from tests.formal.core import AROUND, CONFIG, WRITE
from tests.formal.opened import Opened, constant, free, later
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
        answered = (
            (answers.wakes & (answers.woken == mine))
            | (answers.wakes_late & (answers.thread == mine))
            | (requests.released & (requests.released_thread == mine))
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

        taken = inside.signal("selected") & (inside.signal("thread") == mine)
        ready = inside.signal("ready").bit_select(mine, 1) & ~taken
        leaves = passes[LOOP] & ~opened.signal("goes_on_10")
        places = [*passes[1:LOOP], ready, leaves, waiting, idle]
        words_follow = ~opened.signal("ends_call_10") & ~opened.signal("holds_10")
        asks = requests.push_shared | opened.part("divider").push | (opened.signal("asking_10") & ~words_follow)
        asks = asks | opened.signal("summed_10")  # the checksum unit
        m.d.comb += [
            Assert(sum(places) == 1),
            Assert(~passes[LOOP] | goes_on | ends | asks),  # nobody waits for nothing
            Assert(~(passes[LOOP] & goes_on) | ~asks),
        ]
        for late in range(LOOP, WRITE + 1):
            for early in range(max(1, late - LOOP + 1), late):
                m.d.comb += Assert(~(passes[early] & passes[late]))
        return m


class CallsHarness(Elaboratable):
    """Passes that push words for engine and service: whether there is room. A pass decides in stage 10 whether its
    thread waits for the word. The words that lie in the queue are told apart by a bit of their data: 1 where a thread
    waits for it."""

    def elaborate(self, platform) -> Module:
        m = Module()
        requests = Requests(CONFIG)
        m.submodules.requests = opened = Opened(requests, inputs=True, without=("accesses", "side"))
        queue = opened.part("calls")
        inside = Opened(queue)
        opened.module._named_submodules["calls"] = (inside, None)
        array = inside.part("memory")
        asks, waits = free(m, 1, "asks"), free(m, 1, "waits")
        pushed, waited = ([here] for here in (asks, waits))
        for _ in range(PUSHED_BEHIND - 1):
            for stages in (pushed, waited):
                stage = Signal()
                m.d.sync += stage.eq(stages[-1])
                stages.append(stage)
        for_answers, for_nothing = Signal(range(4 * THREADS)), Signal(range(4 * THREADS))
        of_answers, of_nothing = [], []
        for before in range(queue.depth):
            look = array.read_port(domain="comb")
            there = before < queue.level
            m.d.comb += look.addr.eq(array.read_ports[0].addr + before)
            of_answers.append(there & look.data.data[0])
            of_nothing.append(there & ~look.data.data[0])
        for push, wait in zip(pushed[1:], waited[1:], strict=True):
            of_answers.append(push & wait)
            of_nothing.append(push & ~wait)
        m.d.comb += [
            for_answers.eq(sum(of_answers)),
            for_nothing.eq(sum(of_nothing)),
            Assume(~asks | waits | ~requests.crowded),
            Assume(~asks | ~waits | (for_answers < THREADS)),  # who waits doesn't ask
            Assume((requests.push_call == pushed[-1]) & (requests.call.data[0] == waited[-1])),
            Assert(for_answers <= THREADS),
            Assert(for_nothing <= THREADS),
            Assert(queue.level + sum(pushed[1:]) <= queue.depth),
            # What makes it inductive
            Assert(array.write_ports[0].addr == (array.read_ports[0].addr + queue.level)[: ceil_log2(queue.depth)]),
        ]
        return m


class AnswersHarness(Elaboratable):
    """Any answers, at any time: when their threads are woken."""

    def elaborate(self, platform) -> Module:
        m = Module()
        answers = Answers(CONFIG)
        m.submodules.answers = opened = Opened(answers, inputs=True, without=("expectations", "says", "copy"))
        soon, next_clock = Signal(), Signal()
        woken = [answers.woken, later(m, answers.woken), later(m, answers.woken, 2)]
        wakes = [answers.wakes, Signal(), Signal()]
        m.d.sync += [next_clock.eq(answers.free_soon), soon.eq(next_clock)]
        m.d.sync += [wakes[1].eq(wakes[0]), wakes[2].eq(wakes[1])]
        came, came_woken, came_thread = (opened.signal(name) for name in ("came", "came_woken", "came_thread"))
        held, held_woken = opened.signal("held"), opened.signal("held_woken")
        m.d.comb += [
            Assume(answers.free == soon),
            Assert(~wakes[2] | (answers.done & (answers.thread == woken[2]))),
            Assert(~answers.done | (wakes[2] ^ answers.wakes_late)),
            Assert(answers.done | ~answers.wakes_late),
            # What makes it inductive
            Assert(~wakes[1] | (came & ~held & (came_thread == woken[1]))),
            Assert(~wakes[2] | held),
            Assert((came & came_woken) == wakes[1]),
            Assert((held & held_woken) == wakes[2]),
        ]
        return m


PROOFS = [
    Proof(
        name="turn",
        of=("hdl/core/scheduler.py",),
        says="a ready thread is selected within as many clocks as there are threads; no other thread is",
        harness=TurnHarness,
        mutations=(
            Mutation("hdl/core/scheduler.py", "(number > thread)", "(number != thread)"),
            Mutation("hdl/core/scheduler.py", "~(selected & (number == thread))", "~selected"),
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
    Proof(
        name="calls",
        of=("hdl/core/requests.py",),
        says="the queue of words for engine and service always has room, if none but who waits for its word pushes one "
        "when it was crowded in stage 10",
        harness=CallsHarness,
        mutations=(Mutation("hdl/core/requests.py", "> config.threads - PUSHED_BEHIND", "> config.threads"),),
        clocks=4,
        reach=20,
    ),
    Proof(
        name="answers",
        of=("hdl/core/answers.py",),
        says="an answer wakes its thread once: when it is done, or two clocks before, so that a register is written "
        "before it is read",
        harness=AnswersHarness,
        mutations=(
            Mutation("hdl/core/answers.py", "comes & ~came & ~held", "comes & ~came"),
            Mutation("hdl/core/answers.py", "self.done & ~held_woken", "self.done"),
        ),
        clocks=4,
    ),
]
