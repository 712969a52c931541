"""What a verdict means, for people: above the log, and as JSON."""

from pathlib import Path
from typing import Any

from bpfnic.host.object import SourceLine
from bpfnic.host.verifier import text
from bpfnic.host.verifier.verdict import Verdict, history_of
from bpfnic.spec import isa
from bpfnic.spec.errors import BpfnicError

_NEIGHBOURS = 2
_HISTORY = 8


def lines(verdict: Verdict, lacking: list[str] | None = None) -> list[str]:
    """The explanation, a list of lines."""
    subject, error = verdict.subject, verdict.error
    shown = []
    if error is None:
        depth = max(verdict.depth.values(), default=0)
        shown.append(f"program {subject.name!r} is accepted: {verdict.processed} instructions walked, {verdict.states} "
                     f"states kept, {depth} bytes of stack, {verdict.seconds:.2f} s")  # fmt: skip
    else:
        at = where(verdict, error.slot) if error.slot >= 0 else ""
        shown += [f"program {subject.name!r} is refused" + (f" at {at}" if at else "") + ".", "", f"  {error.why}"]
        if source := _source(verdict, error.slot):
            shown += ["", *source]
        if error.register is not None and (history := told(verdict, error.register)):
            shown += ["", f"  How r{error.register} came to hold it:", *(f"    {line}" for line in history)]
        if error.fix:
            shown += ["", f"  What would help: {error.fix}."]
    for slot, warning in sorted(verdict.warnings.items()):
        shown.append(f"warning: {where(verdict, slot)} {warning}")
    if lacking:
        shown += ["", f"The device can't run program {subject.name!r}:", *(f"  {line}" for line in lacking)]
    return shown


def where(verdict: Verdict, slot: int) -> str:
    """`instruction 41 (router.bpf.c:88)`."""
    line = verdict.subject.line(slot) if slot >= 0 else None
    return f"instruction {slot}" + (f" ({line.file.rsplit('/', 1)[-1]}:{line.line})" if line else "")


def instruction(verdict: Verdict, slot: int) -> str:
    """The instruction as Linux's log has it."""
    found = verdict.subject.code[slot] if 0 <= slot < len(verdict.subject.code) else None
    if found is None:
        return ""
    reference = verdict.subject.references.get(slot)
    name = reference.map if reference else verdict.subject.named.get(slot)
    try:
        return text.instruction(isa.find(found), found, name)
    except BpfnicError:
        return found.encode().hex(" ")


def told(verdict: Verdict, register: int) -> list[str]:
    """The register's history: instruction, what it left, line of C."""
    found = history_of(verdict, register)
    shown = []
    if len(found) > _HISTORY:
        shown.append(f"({len(found) - _HISTORY} instructions before)")
    for slot, held in found[-_HISTORY:]:
        line = verdict.subject.line(slot)
        source = f"   ; {line.text}" if line else ""
        shown.append(f"{slot}: {instruction(verdict, slot):<34} → {text.held(held)}{source}")
    return shown


def source_lines(verdict: Verdict, file: str) -> dict[int, str]:
    """A source file's lines by number: of the file where it can be read, else those that the object's line information
    quotes."""
    try:
        return dict(enumerate(Path(file).read_text().splitlines(), 1))
    except (OSError, UnicodeDecodeError):
        found: dict[int, str] = {}
        for slot in range(len(verdict.subject.code)):
            line = verdict.subject.line(slot)
            if line and line.file == file:
                found[line.line] = line.text
        return found


def _source(verdict: Verdict, slot: int) -> list[str]:
    line: SourceLine | None = verdict.subject.line(slot) if slot >= 0 else None
    if line is None:
        return []
    known = source_lines(verdict, line.file)
    numbers = [number for number in range(line.line - _NEIGHBOURS, line.line + _NEIGHBOURS + 1)
               if number in known]  # fmt: skip
    return [f"  {'>' if number == line.line else ' '} {number:5} | {known[number].rstrip()}" for number in numbers]


def as_json(verdict: Verdict, lacking: list[str] | None = None) -> dict[str, Any]:
    """The same as one JSON object."""
    error, subject = verdict.error, verdict.subject
    described: dict[str, Any] | None = None
    if error is not None:
        line = subject.line(error.slot) if error.slot >= 0 else None
        described = {
            "message": error.message,
            "instruction": error.slot if error.slot >= 0 else None,
            "text": instruction(verdict, error.slot),
            "file": line.file if line else None,
            "line": line.line if line else None,
            "source": line.text if line else None,
            "why": error.why,
            "fix": error.fix or None,
            "register": error.register,
            "history": told(verdict, error.register) if error.register is not None else [],
            "path": [step.slot for step in verdict.path],
        }
    return {
        "program": subject.name,
        "type": subject.type.name,
        "accepted": verdict.accepted,
        "error": described,
        "warnings": [{"instruction": slot, "text": warning} for slot, warning in sorted(verdict.warnings.items())],
        "device": lacking,
        "processed": verdict.processed,
        "states": verdict.states,
        "stack": max(verdict.depth.values(), default=0),
        "seconds": round(verdict.seconds, 3),
        "log": verdict.log,
    }
