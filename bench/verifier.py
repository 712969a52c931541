"""What `bpfnic verify` and the running kernel say of objects, and what it costs: `python -m bench.verifier OBJECT…`.

A line for each program: slots, each side's verdict, the instructions that each walked, the quotient of the two, and
our processor seconds; then the sums. The objects are the caller's; docs/verifier.md has what came of some."""

import argparse
import time
from collections import Counter

from bpfnic.host.compile import compile_object
from bpfnic.host.linux.verdict import judge
from bpfnic.host.object import open_object
from bpfnic.host.verifier.verdict import Subject, verify
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import ProgramType


def measure(path: str, type: ProgramType | None) -> Counter:
    """Prints the lines of one object; counts pairs of verdicts, Linux's first (None: it doesn't create the maps)."""
    verdicts: Counter = Counter()
    try:
        object = open_object(compile_object(path) if path.endswith(".c") else path, type)
        subjects = [Subject.of(object, program) for program in object.programs.values()]
    except BpfnicError as error:
        print(f"{path}: {error}")
        return verdicts
    for subject in subjects:
        try:
            theirs = judge(subject)
        except OSError:
            theirs = None
        began = time.process_time()
        ours = verify(subject)
        seconds = time.process_time() - began
        said = None if theirs is None else theirs.accepted
        verdicts[said, ours.accepted] += 1
        walked = theirs.processed if theirs else 0
        quotient = f"{ours.processed / walked:.2f}" if walked else "-"
        error = f"  {ours.error}" if ours.error else ""
        print(f"{path.rsplit('/', 1)[-1]} {subject.name}: {len(subject.code)} slots, Linux {said} {walked}, "
              f"bpfnic {ours.accepted} {ours.processed}, {quotient}, {seconds:.2f} s{error}", flush=True)  # fmt: skip
    return verdicts


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.verifier", description=__doc__)
    parser.add_argument("objects", nargs="+", metavar="OBJECT", help="ELF objects or C files")
    parser.add_argument("--type", choices=[type.name for type in ProgramType],
                        help="of all programs; otherwise as their sections say")  # fmt: skip
    arguments = parser.parse_args()
    verdicts: Counter = Counter()
    for path in arguments.objects:
        verdicts += measure(path, arguments.type and ProgramType[arguments.type])
    for (linux, ours), count in sorted(verdicts.items(), key=str):
        print(f"Linux {linux}, bpfnic {ours}: {count}")


if __name__ == "__main__":
    main()
