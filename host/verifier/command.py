"""The job `bpfnic verify`: the programs of an object, verified one by one."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpfnic.host import nic
from bpfnic.host.device import Capabilities, DeviceOptions
from bpfnic.host.object import Program
from bpfnic.host.source import Source
from bpfnic.host.verifier import explain, limits, page
from bpfnic.host.verifier.verdict import StackUse, Subject, Verdict, verify
from bpfnic.spec.errors import BpfnicError


@dataclass(frozen=True, kw_only=True)
class Job(Source):
    """What the command line asks for. `backend`: whose limits are compared with; "" for none."""

    level: int = 0
    page: Path | None = None
    backend: str = ""


@dataclass(frozen=True)
class Result:
    """`lacking`: what the device doesn't have, None where the program was refused or no device was asked."""

    verdict: Verdict
    lacking: list[str] | None

    @property
    def good(self) -> bool:
        return self.verdict.accepted and not self.lacking


def run(job: Job) -> list[Result]:
    """Raises BpfnicError for anything that can't be used."""
    object = job.open()
    programs = job.chosen(object)
    if job.page and len(programs) > 1:
        raise BpfnicError(f"--html: {job.program} has several programs, name one of them with --program: "
                          f"{', '.join(object.programs)}")  # fmt: skip
    capabilities = _capabilities(job.backend) if job.backend else None
    results = []

    @functools.cache
    def judged(program: Program) -> Verdict:
        return verify(Subject.on(program, object.maps, capabilities.helpers) if capabilities
                      else Subject.of(object, program), job.level)  # fmt: skip

    def stack_use(program: Program) -> StackUse | None:
        try:
            return judged(program).stack_use
        except BpfnicError:
            return None

    for program in programs:
        verdict = judged(program)
        lacking = None
        if capabilities and verdict.accepted:
            subject = verdict.subject
            lacking = [*limits.lacking(subject, capabilities), *limits.memory_lacking(subject, capabilities),
                       *limits.calls_lacking(subject, verdict.map_calls)]  # fmt: skip
            lacking += [] if lacking else limits.depth_lacking(object, program, capabilities, stack_use)
        results.append(Result(verdict, lacking))
        if job.page:
            page.write(str(job.page), page.render(verdict, lacking))
    return results


def _capabilities(backend: str) -> Capabilities:
    device = nic.open_device(backend, DeviceOptions())
    try:
        return device.capabilities
    finally:
        device.close()


def as_text(results: Sequence[Result], level: int) -> str:
    """For people: the explanation, and the log behind it where one was asked for or the program is refused."""
    parts = []
    for result in results:
        shown = explain.lines(result.verdict, result.lacking)
        if level or not result.verdict.accepted:
            shown += ["", *result.verdict.log]
        parts.append("\n".join(shown))
    return "\n\n".join(parts)


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    return [explain.as_json(result.verdict, result.lacking) for result in results]
