"""Many rounds, in several processes, until time, instructions or rounds are up, or until one finds a difference."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from bpfnic.host.device import DeviceOptions
from bpfnic.sim.fuzz import rounds
from bpfnic.sim.fuzz.compare import OPTIONS, rtl_pair
from bpfnic.sim.fuzz.rounds import Tally


@dataclass(frozen=True)
class Campaign:
    """What is asked for. The ends (`seconds`, `instructions`, `rounds`) are None where they are no end. `kernel`: the
    running kernel may be used. `first`: number of the first round. `options`: the NIC's, of which `library` is made."""

    library: Path
    seed: int
    mode: str = "all"
    jobs: int = 1
    first: int = 0
    seconds: float | None = None
    instructions: int | None = None
    rounds: int | None = None
    kernel: bool = False
    options: DeviceOptions = OPTIONS

    def run(self, on_round: Callable[[Tally], None] | None = None) -> Tally:
        """Do it; `on_round` is told of all so far after each round. Which rounds are done when time or instructions end
        it depends on the machine, what each round does never does."""
        began = time.monotonic()
        total = Tally()

        def over() -> bool:
            return bool(
                total.failures
                or (self.seconds is not None and time.monotonic() - began >= self.seconds)
                or (self.instructions is not None and total.instructions >= self.instructions)
            )

        for tally in self._tallies(over):
            total.add(tally)
            if on_round:
                on_round(total)
        total.failures.sort(key=lambda failure: failure.round)
        return total

    def _numbers(self, over: Callable[[], bool]) -> Iterator[int]:
        number = self.first
        while not over() and (self.rounds is None or number < self.first + self.rounds):
            yield number
            number += 1

    def _tallies(self, over: Callable[[], bool]) -> Iterator[Tally]:
        if self.jobs == 1:
            yield from map(self.round, self._numbers(over))
            return
        numbers = self._numbers(over)
        context = multiprocessing.get_context("fork")  # a fork has all modules at once
        with ProcessPoolExecutor(self.jobs, context, _begin, (self,)) as pool:
            running: set[Future[Tally]] = set()
            try:
                while True:
                    while len(running) <= self.jobs and (number := next(numbers, None)) is not None:
                        running.add(pool.submit(_round, number))
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def round(self, number: int) -> Tally:
        """One round."""
        mode = rounds.mode_of(self.mode, number, self.kernel)
        if mode == "linux":
            return rounds.kernel_round(self.seed, number)
        return rounds.run_round(lambda: rtl_pair(self.library, self.options), self.seed, mode, number)


_campaign: Campaign  # of a worker


def _begin(campaign: Campaign) -> None:
    """A worker begins. It leaves Ctrl-C to the process that started it."""
    global _campaign
    _campaign = campaign
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _round(number: int) -> Tally:
    return _campaign.round(number)
