"""python -m tests.soak [--operations N] [--backend rtl|golden] [--entries N] [--seed N]: a full table under traffic.

Exit status 1 if a key or a place is lost. A bar on a terminal says how far it is.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bpfnic.host.device import DeviceOptions
from tests.soak.soak import Outcome, Soak


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Outcome], None]]:
    if not sys.stderr.isatty():
        yield lambda outcome: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("soak", total=total)

        def show(outcome: Outcome) -> None:
            said = f"{outcome.operations:,} updates and deletes, {outcome.packets:,} packets"
            bar.update(task, completed=outcome.operations, description=said)

        yield show


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000, help="updates and deletes by the host")
    parser.add_argument("--backend", choices=("rtl", "golden"), default="rtl")
    parser.add_argument("--entries", type=int, default=256, help="keys that the table holds")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    options = DeviceOptions(say=lambda step: print(f"# {step}", file=sys.stderr, flush=True))
    soak = Soak(chosen.backend, chosen.entries, chosen.seed, options)
    began = time.monotonic()
    try:
        with _bar(chosen.operations) as show:
            outcome = soak.run(chosen.operations, show)
    finally:
        soak.close()
    for who, counts in (("host", outcome.host), ("programs", outcome.programs)):
        print(f"{who}: " + ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())))
    print(f"{outcome.packets:,} packets, {outcome.clocks:,} clocks, {time.monotonic() - began:.0f} s")
    print(f"WRONG: {outcome.wrong}" if outcome.wrong else "nothing lost, nothing leaked")
    return int(bool(outcome.wrong))


if __name__ == "__main__":
    sys.exit(main())
