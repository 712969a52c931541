"""What the verifier and the running kernel's say of objects, and what it costs: `python -m bench.verifier DIR`.

Every program of an object below DIR is given to both. One whose section tells no type is taken for what Linux accepts
it as, of XDP, tc and socket filter, the first of these. Prints a line for each: slots, both verdicts, the instructions
that each walked, the quotient of the two, and our processor seconds; then the tables that `make bench OBJECTS=DIR` puts
into docs/results.md, by the folders in DIR. The objects are the caller's."""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bpfnic.host import sections
from bpfnic.host.linux.verdict import KernelVerdict, judge
from bpfnic.host.object import Object, open_object
from bpfnic.host.verifier.verdict import Subject, verify
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import ProgramType

TYPES = (ProgramType.XDP, ProgramType.SCHED_CLS, ProgramType.SOCKET_FILTER)
LARGE = 1000
"""Instructions that Linux walks of programs whose quotients and pace are counted: of smaller ones they say little."""
SLOWEST = 6


@dataclass(frozen=True)
class Measure:
    """A program's verdicts (`linux`: None where the kernel doesn't create its maps), instructions walked by each, and
    seconds of processor here; `error`: why it is refused here."""

    group: str
    name: str
    slots: int
    linux: bool | None
    linux_walked: int
    accepted: bool
    walked: int
    seconds: float
    error: str

    @property
    def quotient(self) -> float:
        return self.walked / self.linux_walked

    def __str__(self) -> str:
        quotient = f"{self.quotient:.2f}" if self.linux_walked else "-"
        return (f"{self.name}: {self.slots} slots, Linux {self.linux} {self.linux_walked}, bpfnic {self.accepted} "
                f"{self.walked}, {quotient}, {self.seconds:.2f} s{'  ' if self.error else ''}{self.error}")  # fmt: skip


def measure(folder: Path, say: Callable[[str], None]) -> list[Measure]:
    """All programs below a folder."""
    found = []
    for path in sorted(folder.rglob("*.o")):
        group = path.relative_to(folder).parts[0] if path.parent != folder else "."
        try:
            programs = open_object(path).programs.values()
            names = [program.name for program in programs if not sections.read(program.section).elsewhere]
            for name in names:
                one = _measure(group, path, name)
                say(str(one))
                found.append(one)
        except BpfnicError as error:
            say(str(error))
    return found


def _measure(group: str, path: Path, name: str) -> Measure:
    tried = [_judged(open_object(path, type), name) for type in TYPES]
    subject, theirs = next((each for each in tried if each[1] and each[1].accepted), tried[0])
    began = time.process_time()
    ours = verify(subject)
    seconds = time.process_time() - began
    return Measure(group, f"{path.name} {name}", len(subject.code), theirs and theirs.accepted,
                   theirs.processed if theirs else 0, ours.accepted, ours.processed, seconds,
                   str(ours.error or ""))  # fmt: skip


def _judged(object: Object, name: str) -> tuple[Subject, KernelVerdict | None]:
    subject = Subject.of(object, object.program(name))
    try:
        return subject, judge(subject)
    except OSError:
        return subject, None


def tables(found: Sequence[Measure]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Heads and rows: verdicts by folder, the programs that took longest, and the sums."""
    groups = list(dict.fromkeys(one.group for one in found))
    rows = []
    for group in [*groups, ""]:
        these = [one for one in found if group in ("", one.group)]
        theirs = [one for one in these if one.linux]
        rows.append([f"`{group}`" if group else "together", f"{len(theirs)}", f"{sum(one.accepted for one in theirs)}",
                     f"{sum(one.linux is False for one in these)}",
                     f"{sum(one.linux is False and one.accepted for one in these)}"])  # fmt: skip
    yield ["objects", "programs that Linux accepts", "of them accepted here", "that Linux refuses",
           "of them accepted here"], rows  # fmt: skip
    accepted = [one for one in found if one.linux and one.accepted]
    slowest = sorted(accepted, key=lambda one: -one.seconds)[:SLOWEST]
    yield (
        ["program", "slots", "Linux walks", "walked here", "seconds of processor"],
        [[one.name, f"{one.slots:,}", f"{one.linux_walked:,}", f"{one.walked:,}", f"{one.seconds:.1f}"]
         for one in slowest],
    )  # fmt: skip
    large = [one for one in accepted if one.linux_walked > LARGE]
    if large:
        quotients = sorted(one.quotient for one in large)
        pace = min(one.walked / one.seconds for one in large)
        yield (
            ["measure", "found", "asked for"],
            [
                [f"walked ÷ Linux's, where that walks more than {LARGE:,} ({len(large)} programs): median",
                 f"{statistics.median(quotients):.2f}", "–"],
                ["the greatest of them", f"{quotients[-1]:.2f}", "≤ 2"],
                ["instructions a second of processor, the least of them", f"{pace:,.0f}", "≥ 20,000"],
                ["seconds of the slowest program", f"{slowest[0].seconds:.1f}", "≤ 60"],
                ["seconds of all", f"{sum(one.seconds for one in found):.0f}", "–"],
                ["MB of memory at most, for all one after another",
                 f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}", "< 1,000"],
            ],
        )  # fmt: skip


def apart(folder: Path) -> list[tuple[list[str], list[list[str]]]]:
    """The tables, measured in a process of its own, whose memory is that of the verifier alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_apart, folder).result()


def _apart(folder: Path) -> list[tuple[list[str], list[list[str]]]]:
    return list(tables(measure(folder, lambda line: None)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.verifier", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    found = measure(parser.parse_args().folder, lambda line: print(line, flush=True))
    if not found:
        print("no programs in objects (*.o) there", file=sys.stderr)
        return 2
    for head, rows in tables(found):
        print()
        for row in (head, *rows):
            print(" | ".join(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
