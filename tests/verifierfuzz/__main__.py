"""`make fuzz-verifier`: many mutated objects, and the programs built to explode at their full size."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from bpfnic.host.verifier.verdict import verify
from tests.host.verifier.subjects import subject
from tests.verifierfuzz import exploding, mutated, watched

MOST_SECONDS = 60


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.verifierfuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=2000, help="mutated objects")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    bad = 0
    for name, text in exploding.PROGRAMS.items():
        began = time.process_time()
        verdict = verify(subject(text))
        seconds = time.process_time() - began
        bad += seconds > MOST_SECONDS
        said = verdict.error.message if verdict.error else "accepted"
        print(f"{name}: {said} ({verdict.processed:,} instructions, {seconds:.1f} s)", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="bpfnic-verifier-"))
    outcome = mutated.fuzz(asked.count, asked.seed, folder, lambda text: print(text, flush=True))
    counts = ", ".join(f"{count:,} {what}" for what, count in sorted(outcome.counts.items()))
    print(f"{asked.count:,} mutated objects: {counts}; the slowest took {outcome.slowest:.1f} s")
    fuzzed = watched.fuzz(asked.count // 4, asked.seed, lambda text: print(text, flush=True))
    print(f"{fuzzed.programs:,} programs of the fuzzer: {fuzzed.accepted:,} accepted, registers compared at "
          f"{fuzzed.checked:,} instructions")  # fmt: skip
    if outcome.problems:
        print(f"{len(outcome.problems)} problems; their objects are in {folder}")
    return int(bool(outcome.problems or fuzzed.problems) or bad > 0)


if __name__ == "__main__":
    sys.exit(main())
