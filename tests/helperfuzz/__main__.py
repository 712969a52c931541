"""`python -m tests.helperfuzz`: random calls of every helper, shared evenly; exit status 1 at a difference, and where
no call gave an error that docs/helpers.md knows. With --kernel the running kernel makes calls too, such as its verifier
lets through."""

import argparse
import sys

from bpfnic.host.linux.permission import unavailable
from bpfnic.spec.programs import ProgramType
from tests.helperfuzz.fuzz import Outcome, fuzz, offered
from tests.helperfuzz.kernel import Judged, callable_by, judge

TYPES = {"xdp": ProgramType.XDP, "tc": ProgramType.SCHED_CLS}


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="of all helpers of a program type together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--type", choices=TYPES, action="append", help="of programs, both without")
    parser.add_argument("--helper", action="append", help="of these alone, by name")
    parser.add_argument("--backend", default="rtl", help="what is compared with golden")
    parser.add_argument("--kernel", action="store_true", help="calls that the running kernel makes, too")
    asked = parser.parse_args()
    if asked.kernel:
        return judged_by_the_kernel(asked)
    outcomes: list[Outcome] = []
    for of in asked.type or TYPES:
        chosen = [each for each in offered(TYPES[of]) if not asked.helper or each.name in asked.helper]
        for helper in chosen:
            each = -(-asked.calls // len(chosen))
            outcomes.append(fuzz(helper, TYPES[of], each, asked.seed, say, asked.backend))
    for outcome in outcomes:
        if outcome.difference:
            print(f"{outcome.of.name} {outcome.helper.name}: {outcome.difference}")
        if outcome.missing:
            print(f"{outcome.of.name} {outcome.helper.name}: no call gave {', '.join(outcome.missing)}")
    differing = sum(bool(outcome.difference) for outcome in outcomes)
    missing = sum(bool(outcome.missing) for outcome in outcomes)
    calls = sum(outcome.calls for outcome in outcomes)
    print(f"{calls:,} calls of {len(outcomes)} helpers, {differing} with a difference, {missing} without an error that "
          "is documented")
    return int(bool(differing or missing))


def judged_by_the_kernel(asked: argparse.Namespace) -> int:
    """The same with the kernel. Exit status 2 where that isn't permitted."""
    if reason := unavailable():
        print(f"the running kernel is no device here: {reason}", file=sys.stderr)
        return 2
    outcomes: list[Judged] = []
    for of in asked.type or TYPES:
        chosen = [name for name in callable_by(TYPES[of]) if not asked.helper or name in asked.helper]
        for name in chosen:
            outcomes.append(judge(name, TYPES[of], -(-asked.calls // len(chosen)), asked.seed, say,
                                  ("linux", asked.backend)))  # fmt: skip
    for outcome in outcomes:
        if outcome.difference:
            print(f"{outcome.of.name} {outcome.name}: {outcome.difference}")
    differing = sum(bool(outcome.difference) for outcome in outcomes)
    calls = sum(outcome.calls for outcome in outcomes)
    where = f"in the kernel and on {asked.backend}"
    print(f"{calls:,} calls of {len(outcomes)} helpers {where}, {differing} with a difference")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
