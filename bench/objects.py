"""Which objects load: `python -m bench.objects DIR` (`make objects OBJECTS=DIR`).

Every program of an object below DIR is loaded into a golden NIC: structure, maps, relocations, links. A program whose
section tells no type is tried as XDP, as tc and as socket filter, in this order, and with --verify is of the first type
that the verifier accepts it as. Maps are made as small as --entries, and those of 0 entries, which their own loaders
set, get 1: what fits which NIC is the user's choice, not the object's. What a configuration of the kernel is asked for
is 1. Prints a line for each object, with the seconds that its slowest program took from the file to the NIC, and the
refused programs; then the counts. docs/objects.md explains the refusals."""

import argparse
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bpfnic import Nic
from bpfnic.host import sections
from bpfnic.host.kconfig import Kconfig
from bpfnic.host.maps import PROG_ARRAY
from bpfnic.host.object import Object, open_object
from bpfnic.host.registermaps import RegisterProgram
from bpfnic.host.verifier.verdict import Subject, verify
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.maps import EVENTS
from bpfnic.spec.programs import ProgramType

TYPES = (ProgramType.XDP, ProgramType.SCHED_CLS, ProgramType.SOCKET_FILTER)
_SIZES = {"program_slots": 1 << 16, "map_bytes": 1 << 22, "maps": 256}


@dataclass
class Program:
    """What came of a program: `type` as which it was loaded, `why` not, `seconds`; `verdict` of the verifier, "" where
    it wasn't asked."""

    name: str
    section: str
    type: ProgramType | None
    why: str
    seconds: float
    verdict: str = ""


def examine(path: Path, entries: int, asked: bool) -> list[Program] | str:
    """Every program of an object that is of the three types, or may be; why the object can't be opened."""
    try:
        names = [(program.name, program.section, program.type) for program in open_object(path).programs.values()]
    except BpfnicError as error:
        return str(error).removeprefix(f"{path}: ")
    found = []
    with Cards(path, entries) as cards:
        for name, section, type in names:
            if not type and sections.read(section).elsewhere:
                continue
            attempts = [cards.load(name, section, each) for each in ([type] if type else TYPES)]
            for attempt in attempts if asked else ():
                attempt.verdict = "" if attempt.why else _verdict(path, name, attempt.type)
            found.append(min(attempts, key=_rank))
    return found


def _rank(attempt: Program) -> tuple[bool, bool, bool]:
    """A program that loads as several types is of the one that the verifier accepts it as."""
    return bool(attempt.why), attempt.verdict not in ("", "accepted"), "is not for" in attempt.why


class Cards:
    """NICs for one object, one for each type that its programs are tried as, made when the first of them is."""

    def __init__(self, path: Path, entries: int):
        self._path, self._entries = path, entries
        self._cards: dict[ProgramType | None, tuple[Nic, Object]] = {}

    def __enter__(self) -> "Cards":
        return self

    def __exit__(self, *exception: object) -> None:
        for nic, _ in self._cards.values():
            nic.close()

    def load(self, name: str, section: str, type: ProgramType | None) -> Program:
        """What comes of a program; one that others brought along is there already."""
        began = time.process_time()
        why = ""
        try:
            if type in self._cards and self._full(self._cards[type][0]):
                self._cards.pop(type)[0].close()
            if type not in self._cards:
                self._cards[type] = Nic("golden", **_SIZES), _opened(self._path, type, self._entries)
            nic, object = self._cards[type]
            if name not in nic.programs:
                nic.load(object, name, unsafe=True)
        except BpfnicError as error:
            why = str(error).removeprefix(f"{self._path}: ")
        return Program(name, section, type, why, time.process_time() - began)

    def _full(self, nic: Nic) -> bool:
        """Half of the program store is taken: the next program, with what it tail-calls, gets a NIC of its own."""
        slots = sum(len(program.loaded.image) for program in nic.programs.values()
                    if isinstance(program.loaded, RegisterProgram))  # fmt: skip
        return slots > _SIZES["program_slots"] // 2


def _opened(path: Path, type: ProgramType | None, entries: int) -> Object:
    object = open_object(path, type)
    for definition in object.maps.values():
        for each in (definition, definition.inner):
            if each and each.variables is None and each.type not in EVENTS | {PROG_ARRAY}:
                each.max_entries = min(max(each.max_entries, 1), entries)
    if isinstance(object.kconfig, Kconfig):
        for missing in list(object.kconfig.missing):
            object.kconfig[missing] = 1
    return object


def _verdict(path: Path, name: str, type: ProgramType | None) -> str:
    object = open_object(path, type)
    verdict = verify(Subject.of(object, object.program(name)))
    return "accepted" if verdict.accepted else f"{verdict.error}"


def reason(why: str) -> str:
    """A refusal without the names of its program and places, to be counted."""
    why = re.sub(r"^\S+\.o: ", "", why)
    why = re.sub(r"^program '?[^:',]+'?(, instruction \d+:[^:]*)?(: | )", "", why)
    why = re.sub(r"^section '[^']*'(, offset 0x\w+)?: ", "", why)
    return re.sub(r"( at instruction \d+)?( \(\S+:\d+(: .*)?\))?(?= is not on|$)", "", why)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.objects", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--entries", type=int, default=64, help="of a map at most (default: %(default)s)")
    parser.add_argument("--verify", action="store_true", help="ask the verifier about each program that loads, too")
    arguments = parser.parse_args()
    paths = sorted(arguments.folder.rglob("*.o"))
    if not paths:
        print(f"{arguments.folder}: no objects (*.o)", file=sys.stderr)
        return 2
    objects: Counter[str] = Counter()
    programs: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    verdicts: Counter[str] = Counter()
    slowest = (0.0, "")
    for path in paths:
        short = path.relative_to(arguments.folder)
        found = examine(path, arguments.entries, arguments.verify)
        if isinstance(found, str):
            objects["not opened"] += 1
            refusals[reason(found)] += 1
            print(f"{short}: {found}", flush=True)
            continue
        if not found:
            objects["of other types"] += 1
            continue
        refused = [program for program in found if program.why]
        objects["with refused programs" if refused else "load whole"] += 1
        seconds = max(program.seconds for program in found)
        slowest = max(slowest, (seconds, str(short)))
        print(f"{short}: {len(found) - len(refused)} of {len(found)} programs load, {seconds:.2f} s", flush=True)
        for program in found:
            kind = program.type.name if program.type else "no type"
            programs[f"{kind}: {'refused' if program.why else 'loads'}"] += 1
            if program.why:
                refusals[reason(program.why)] += 1
                print(f"  {program.name} ({program.section}): {program.why}")
            elif program.verdict:
                verdicts["accepted" if program.verdict == "accepted" else "refused"] += 1
                if program.verdict != "accepted":
                    print(f"  {program.name} ({program.section}): verifier: {program.verdict}")
    for title, counts in (("objects", objects), ("programs", programs), ("verifier", verdicts), ("refused", refusals)):
        for what, count in counts.most_common():
            print(f"{title}: {count} {what}")
    print(f"slowest: {slowest[0]:.2f} s, {slowest[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
