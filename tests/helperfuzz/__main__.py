"""`python -m tests.helperfuzz`: random calls of every helper, shared evenly; exit status 1 at a difference."""

import argparse
import sys

from tests.helperfuzz.fuzz import fuzz, offered


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="of all helpers together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--helper", action="append", help="of these alone, by name")
    asked = parser.parse_args()
    chosen = [helper for helper in offered() if not asked.helper or helper.name in asked.helper]
    each = -(-asked.calls // len(chosen))
    outcomes = [fuzz(helper, each, asked.seed, lambda text: print(text, flush=True)) for helper in chosen]
    for outcome in outcomes:
        if outcome.difference:
            print(f"{outcome.helper.name}: {outcome.difference}")
        if outcome.missing:
            print(f"{outcome.helper.name}: no call gave {', '.join(outcome.missing)}")
    differing = sum(bool(outcome.difference) for outcome in outcomes)
    calls = sum(outcome.calls for outcome in outcomes)
    print(f"{calls:,} calls of {len(outcomes)} helpers, {differing} with a difference")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
