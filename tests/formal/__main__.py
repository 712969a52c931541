"""python -m tests.formal [--jobs N] [--table] [NAME...]: runs proofs and their mutations, all of them if none is named.

Exit status 1 if a proof does not hold, or a mutation is not caught. Work and traces stay in build/formal/.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.formal.proof import REPOSITORY, Mutation, Proof, missing, run
from tests.formal.proofs import PROOFS, table

FOLDER = REPOSITORY / "build" / "formal"


def check(proof: Proof, number: int | None) -> bool:
    """Runs the proof, or the mutation with that number, and prints a line of how it went."""
    mutation: Mutation | None = None if number is None else proof.mutations[number]
    folder = FOLDER / (proof.name if mutation is None else f"{proof.name}-mutation-{number + 1}")
    outcome = run(proof, folder, mutation)
    if mutation is None:
        good = outcome.status == "PASS"
        what = proof.strength if good else f"NOT PROVED ({outcome.status}): see {folder}"
    else:
        good = outcome.status == "FAIL"
        what = "caught" if good else f"NOT CAUGHT ({outcome.status}): see {folder}"
        what = f"{mutation.file}: {mutation.old!r} → {mutation.new!r}: {what}"
    print(f"{outcome.seconds:6.1f} s  {proof.name}: {what}", flush=True)
    if outcome.status == "ERROR":
        print("\n".join(outcome.log.splitlines()[-5:]), flush=True)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.formal", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print the table of docs/verification.md instead")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*(proof.name for proof in PROOFS), []])
    arguments = parser.parse_args()
    if arguments.table:
        print(table(), end="")
        return 0
    if reason := missing():
        print(f"no proof can run: {reason}", file=sys.stderr)
        return 2
    chosen = [proof for proof in PROOFS if not arguments.names or proof.name in arguments.names]
    work = [(proof, number) for proof in chosen for number in (None, *range(len(proof.mutations)))]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        good = list(pool.map(lambda each: check(*each), work))
    print(f"{len(good)} runs, {good.count(False)} failed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
