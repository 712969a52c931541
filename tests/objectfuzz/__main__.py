"""python -m tests.objectfuzz [--mutants N] [--seed N] [--first N] [--jobs N]: damaged objects, for as long as you like.

The originals are the programs that ship with the card, and one with all kinds of types, compiled. Exit status 1 if
something else than one clear line came of a mutant, if it took more than 5 s, or more than 1 GB of memory, which each
process is held to."""

import argparse
import multiprocessing
import sys
from pathlib import Path

from bpfnic.host.compile import compile_object
from tests.objectfuzz.fuzz import Finding, Original, share

PROGRAMS = Path(__file__).parents[2] / "firmware" / "programs"
TYPES = Path(__file__).with_name("types.bpf.c")
_SHARE = 500  # mutants that a process takes at a time


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.objectfuzz", description=__doc__)
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    paths = [compile_object(source) for source in [*sorted(PROGRAMS.glob("*.bpf.c")), TYPES]]
    originals = [Original.of(path) for path in paths]
    end = arguments.first + arguments.mutants
    tasks = [(originals, paths[0], arguments.seed, at, min(_SHARE, end - at))
             for at in range(arguments.first, end, _SHARE)]  # fmt: skip
    done = refused = peak = 0
    findings: list[Finding] = []
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:
        for count, bad, found, memory in pool.imap_unordered(share, tasks):
            done, refused, peak = done + count, refused + bad, max(peak, memory)
            findings += found
            for finding in found:
                print(f"mutant {finding.number} of {finding.original}: {finding.why}", flush=True)
            if sys.stderr.isatty():
                print(f"\r{done:,} of {arguments.mutants:,}", end="", file=sys.stderr)
    print(f"{done:,} mutants of {len(originals)} objects: {refused:,} refused, {len(findings)} findings, "
          f"{peak / 1e6:.0f} MB at most")  # fmt: skip
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
