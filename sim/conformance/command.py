"""`bpfnic-conformance [MEMORY] [--backend NAME]`, and `bpfnic conformance`, the same command: the program comes as hex
bytes on standard input, r0 goes in hex to standard output; a line on standard error and exit status 1 for a program
that faults or is refused.

The suite starts it once a case: what one backend alone needs is imported where that backend is opened.
"""

import json
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import IO, Any, Protocol

import click

from bpfnic.host import cli
from bpfnic.sim.conformance.case import Case
from bpfnic.spec.errors import BpfnicError

NAME = "bpfnic-conformance"
FAULT = 1


class Engine(Protocol):
    """What runs cases."""

    def run(self, case: Case) -> int:
        """r0 at the end, 64 bits. Raises BpfnicError for a program that is refused or faults."""

    def close(self) -> None:
        """Give it back."""


def _golden() -> Engine:
    from bpfnic.sim.conformance.golden import Golden

    return Golden()


def _rtl() -> Engine:
    from bpfnic.sim.conformance.rtl import Rtl

    return Rtl(say=lambda step: click.echo(f"{NAME}: {step}", err=True))


ENGINES: dict[str, Callable[[], Engine]] = {"golden": _golden, "rtl": _rtl}
"""Each raises BpfnicError where it can't be had."""


@click.command(name="conformance")
@click.argument("memory", required=False)
@click.option("--backend", type=click.Choice(list(ENGINES)), default="golden", show_default=True, help="What runs it.")
@click.option("--batch", type=click.File("rb"), metavar="FILE",
              help="Many cases in one process: a JSON object a line with name, program and memory in, one with name "
              "and r0 or error out.")  # fmt: skip
def command(memory: str | None, backend: str, batch: IO[bytes] | None) -> int:
    """Run the program on standard input (one line of hex bytes) as the public conformance suite asks for it, and print
    r0 in hex. MEMORY: hex bytes; r1 points at them, r2 is their number. Helper 5 returns its first argument.

    Exit status 1 for a program that is refused or faults. With --batch each line says so itself."""
    if batch is None:
        return _run_one(backend, memory or "")
    if memory is not None:
        raise BpfnicError("with --batch, each line brings its own memory")
    with closing(ENGINES[backend]()) as engine:
        for result in _results(engine, batch):
            click.echo(json.dumps(result))
    return 0


def main() -> None:
    """The executable."""
    cli.execute(command, NAME)


def _run_one(backend: str, memory: str) -> int:
    program = sys.stdin.buffer.read().decode("ascii", "replace")
    with closing(ENGINES[backend]()) as engine:
        try:
            click.echo(_run(engine, program, memory))
        except BpfnicError as error:
            click.echo(f"{NAME}: {error}", err=True)
            return FAULT
    return 0


def _results(engine: Engine, lines: Iterable[bytes]) -> Iterable[dict[str, str]]:
    """Raises BpfnicError for a line that is no case."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        case = _parse(number, line)
        try:
            yield {"name": case["name"], "r0": _run(engine, case["program"], case.get("memory", ""))}
        except BpfnicError as error:
            yield {"name": case["name"], "error": str(error)}


def _parse(number: int, line: bytes) -> dict[str, str]:
    try:
        case: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise BpfnicError(f"--batch, line {number}: no JSON") from None
    if not isinstance(case, dict) or not {"name", "program"} <= set(case) <= {"name", "program", "memory"}:
        raise BpfnicError(f"--batch, line {number}: must be an object with name, program and perhaps memory")
    if not all(isinstance(value, str) for value in case.values()):
        raise BpfnicError(f"--batch, line {number}: name, program and memory must be text")
    return case


def _run(engine: Engine, program: str, memory: str) -> str:
    return f"{engine.run(Case(_bytes('the program', program), _bytes('the memory', memory))):x}"


def _bytes(what: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise BpfnicError(f"{what} must be hex bytes, two digits each") from None
