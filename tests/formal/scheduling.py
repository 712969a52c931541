"""Which thread issues when: the scheduler alone, the loop that it makes with the core's pipeline, and what those wait
for that leave the loop."""

from amaranth import Cat, Module, Mux, Signal
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
LOOP = 11  # a thread's next pass is in stage 0 when this one is in stage 11


class TurnHarness(Elaboratable):
    """One thread, whichever: how long it has been ready, and how far the turn is from it. The turn goes on in each
    clock in which some thread is ready, never past one that is."""

    def elaborate(self, platform) -> Module:
        m = Module()
        scheduler = Scheduler(CONFIG)
        m.submodules.scheduler = opened = Opened(scheduler, inputs=True)
        mine = constant(m, range(THREADS), "mine")
        ready, turn = opened.signal("ready"), Signal(range(THREADS))
        m.d.sync += turn.eq(scheduler.thread)
        waits, selected = Signal(), Signal()
        m.d.comb += [
            waits.eq(ready.bit_select(mine, 1)),
            selected.eq(scheduler.selected & (scheduler.thread == mine)),
        ]
        taken = later(m, selected & ~scheduler.wake.bit_select(mine, 1))
        waited, distance = Signal(range(THREADS + 1)), Signal(range(THREADS + 1))
        m.d.comb += distance.eq(Mux(turn == mine, THREADS, (mine - turn)[: len(mine)]))
        m.d.sync += waited.eq(Mux(waits & ~selected, waited + 1, 0))
        m.d.comb += [
            Assert(~waits | scheduler.selected),
            Assert(~selected | waits),
            Assert(~waits | (waited + distance <= THREADS)),
            Assert(waited < THREADS),
            Assert(~waits | ~taken),
            # What makes it inductive
            Assert(opened.signal("above") == (ready & Cat(number > turn for number in range(THREADS)))),
        ]
        return m


class LoopHarness(Elaboratable):
    """One thread, whichever: it is idle, or ready, or in one stage up to MEMORY, or it waits for an answer; one of
    these, always. So no pass is before stage 11 while another one is there or before it."""

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
        woke = later(m, opened.signal("goes_on_10"))
        goes_on = woke & ~opened.signal("stops_11")
        ends = opened.signal("ends_11")
        with m.If(starts):
            m.d.sync += idle.eq(0)
        with m.If(answered):
            m.d.sync += waiting.eq(0)
        with m.If(passes[LOOP] & ~goes_on):
            m.d.sync += [idle.eq(ends), waiting.eq(~ends)]

        ready = inside.signal("ready").bit_select(mine, 1)
        leaves = passes[LOOP] & ~woke
        places = [*passes[1:LOOP], ready, leaves, waiting, idle]
        words_follow = ~opened.signal("ends_call_11") & ~opened.signal("holds_11")
        asks = requests.push_shared | opened.part("divider").push | (opened.signal("asking_11") & ~words_follow)
        asks = asks | opened.signal("summed_11")  # the checksum unit
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
        m.d.comb += Assert(inside.signal("some") == queue.level.any())
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
        soon, next_clock, woken = Signal(), Signal(), later(m, answers.woken)
        early, wakes = opened.signal("early"), opened.signal("came_wakes")
        came_early, woke = Signal(), Signal()
        m.d.sync += [next_clock.eq(answers.free_soon), soon.eq(next_clock)]
        m.d.sync += [came_early.eq(early), woke.eq(came_early | wakes)]
        woken = Mux(came_early, woken, answers.woken)  # of the answer that has come
        was_woken = later(m, woken)
        arrived = opened.part("arrived")
        came, came_thread = arrived.o.valid, arrived.o.payload.thread
        held, held_woken = opened.signal("held"), opened.signal("held_woken")
        m.d.comb += [
            Assume(answers.free == soon),
            Assert(answers.wakes == (early | wakes)),
            Assert(~(early & wakes)),
            Assert(~woke | (answers.done & (answers.thread == was_woken))),
            Assert(~answers.done | (woke ^ answers.wakes_late)),
            Assert(answers.done | ~answers.wakes_late),
            # What makes it inductive
            Assert(~(came_early | wakes) | (came & ~held & (came_thread == woken) & next_clock)),
            Assert(opened.signal("came_woken") == (came_early | wakes)),
            Assert(~(came_early & wakes)),
            Assert(~woke | held),
            Assert(arrived.i.ready | came),
            Assert((held & held_woken) == woke),
        ]
        return m


PROOFS = [
    Proof(
        name="turn",
        of=("hdl/core/scheduler.py",),
        says="a ready thread is selected within as many clocks as there are threads; no other thread is",
        harness=TurnHarness,
        mutations=(
            Mutation("hdl/core/scheduler.py", "(number > self.thread)", "(number >= self.thread)"),
            Mutation("hdl/core/scheduler.py", " & (number != self.thread)", ""),
        ),
        clocks=12,
    ),
    Proof(
        name="loop",
        of=("hdl/core/",),
        says="a thread is idle, ready, in one stage up to MEMORY, or waits for an answer, one of these at a time; its "
        "next pass begins at the earliest when this one is in stage 11; it waits only if it has asked",
        harness=LoopHarness,
        mutations=(
            Mutation("hdl/core/core.py", "selected.at(1) & ~revoked", "selected.at(1) | revoked"),
            Mutation("hdl/core/scheduler.py", "& ~self.revoke[number] &", "& self.revoke[number] &"),
        ),
        clocks=18,
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
        says="an answer wakes its thread once: when it is done, or one or two clocks before",
        harness=AnswersHarness,
        mutations=(
            Mutation("hdl/core/answers.py", "~arrived.o.valid & ~held &", "~arrived.o.valid &"),
            Mutation("hdl/core/answers.py", "self.done & ~held_woken", "self.done"),
        ),
        clocks=4,
    ),
]
